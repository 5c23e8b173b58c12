//! The restore's side: a `restore_command` that gives a server its log back, and nothing that is not what it asked for.

use std::fs;
use std::path::Path;

use tempfile::NamedTempFile;

use super::archive::shelf::{ROOT, begun_path, history_path};
use super::content::{self, Expected};
use super::position::{History, Segment};
use crate::engines::log::objects::{fetch, put};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::{below, split};
use crate::storage::{Depth, Entry};

/// What is stored, by key. Listed once and kept in a file where one is given: an archive may have very many segments.
struct Catalogue(Vec<String>);

/// Whose log it is.
struct Cluster {
    identifier: u64,
    segment_size: u64,
    mark: String,
}

/// Puts the file that the server calls `name` where it wants it, whole or not at all. `false` when the repository has answered
/// and has no such file: the end of the log, or the question whether there is a later timeline.
///
/// # Errors
/// Whatever must not be taken for that: the repository does not answer, holds no log, or something else under that name.
pub(crate) async fn run(repo: &Repo, name: &str, to: &Path, catalogue: Option<&Path>) -> Result<bool> {
    if let Some(timeline) = name.strip_suffix(".history") {
        let timeline = u32::from_str_radix(timeline, 16).ok().filter(|_| timeline.len() == 8);
        let timeline = timeline.ok_or_else(|| Error::other(format!("{name:?} is no name of a history")))?;
        return match history(repo, timeline, to).await? {
            Some((_, file)) => put(file, to).map(|()| true),
            // Whoever finds nothing must have looked into the archive, and not into a volume that is not there.
            None => Catalogue::load(repo, Depth::Levels(1)).await?.cluster(repo).map(|_| false),
        };
    }
    let known = catalogue.and_then(Catalogue::read).filter(|known| !known.whole(name).is_empty());
    let known = if let Some(known) = known {
        known
    } else {
        let listed = Catalogue::load(repo, Depth::All).await?;
        if let Some(path) = catalogue {
            listed.write(path)?;
        }
        listed
    };
    let cluster = known.cluster(repo)?;
    // A label of a base backup, for example, is not kept.
    let Some(segment) = Segment::named(name, cluster.segment_size) else { return Ok(false) };
    fetch_segment(repo, &known, &cluster, segment, to).await
}

impl Catalogue {
    async fn load(repo: &Repo, depth: Depth) -> Result<Self> {
        let mut keys = Vec::new();
        let root = repo.base.resolve(ROOT)?.key;
        let mut note = |entries: Vec<Entry>| {
            keys.extend(
                entries
                    .into_iter()
                    .filter_map(|entry| repo.view(entry))
                    .filter(|entry| !entry.dir)
                    .map(|entry| entry.key),
            );
            Ok(())
        };
        repo.store.walk(&root, depth, &mut note).await?;
        Ok(Self(keys))
    }

    fn read(path: &Path) -> Option<Self> {
        Some(Self(fs::read_to_string(path).ok()?.lines().map(str::to_owned).collect()))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: &std::io::Error| Error::file("write", path, error);
        let file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        fs::write(file.path(), self.0.join("\n")).map_err(|error| failed(&error))?;
        put(file, path)
    }

    /// The mark that an archiver leaves before anything else.
    fn cluster(&self, repo: &Repo) -> Result<Cluster> {
        let root = repo.base.resolve(ROOT)?.key;
        let read = |key: &String| {
            let (identifier, size) = below(key, &root)?.strip_prefix("cluster-")?.split_once('-')?;
            let segment_size = size.parse().ok().filter(|size: &u64| size.is_power_of_two() && *size >= 1 << 20)?;
            Some(Cluster { identifier: identifier.parse().ok()?, segment_size, mark: key.clone() })
        };
        let mut clusters = self.0.iter().filter_map(read);
        match (clusters.next(), clusters.next()) {
            (Some(cluster), None) => Ok(cluster),
            (None, _) => Err(Error::new(Cause::Damaged, format!("there is no archived log in {root}"))),
            (Some(one), Some(other)) => {
                Err(Error::new(Cause::Damaged, format!("{} and {} share a directory", one.mark, other.mark)))
            }
        }
    }

    /// The objects that say to be this segment as a whole. There may be several: who was killed stores it again.
    fn whole(&self, name: &str) -> Vec<&str> {
        let begins = format!("{name}~");
        self.0.iter().map(String::as_str).filter(|key| split(key).1.starts_with(&begins)).collect()
    }
}

async fn fetch_segment(repo: &Repo, known: &Catalogue, cluster: &Cluster, segment: Segment, to: &Path) -> Result<bool> {
    let size = cluster.segment_size;
    let whole = known.whole(&segment.name(size));
    let begun = repo.base.resolve(&begun_path(segment, size))?.key;
    let begun = known.0.contains(&begun).then_some(begun.as_str());
    // The beginning of a segment would end recovery where the whole one does not, so it serves only where there is no other.
    let is_whole = !whole.is_empty();
    let candidates = if is_whole { whole } else { begun.into_iter().collect() };
    if !is_whole && is_missed(repo, known, segment, size, !candidates.is_empty(), to).await? {
        // A base backup may bring what its own recovery needs.
        if to.with_file_name(segment.name(size)).exists() {
            return Ok(false);
        }
        return Err(Error::new(Cause::Damaged, "it is missing from the archive, which goes on behind it"));
    }
    if candidates.is_empty() {
        return Ok(false);
    }
    let history = match segment.timeline {
        1 => History::default(),
        timeline => history(repo, timeline, to).await?.map(|(history, _)| history).ok_or_else(|| {
            Error::new(Cause::Damaged, format!("the history of its timeline, {timeline:08X}.history, is missing"))
        })?,
    };
    let expected = Expected { segment, identifier: cluster.identifier, size, history, whole: is_whole };
    let mut refused = Error::other("");
    for key in candidates {
        let name = split(key).1.to_owned();
        let Some(file) = fetch(repo, key, to).await? else {
            return Err(Error::new(Cause::Damaged, format!("{name} has been removed")));
        };
        match content::check(file.path(), expected.clone()) {
            Ok(()) => return put(file, to).map(|()| true),
            Err(error) => refused = error.within(name),
        }
    }
    Err(refused)
}

/// Whether a segment that is not there as a whole should be: its timeline went on behind it.
async fn is_missed(
    repo: &Repo,
    known: &Catalogue,
    segment: Segment,
    size: u64,
    begun: bool,
    to: &Path,
) -> Result<bool> {
    let later = known.0.iter().filter_map(|key| Segment::named(split(key).1.get(..24)?, size));
    if later.into_iter().any(|other| other.timeline == segment.timeline && other.number > segment.number) {
        // Servers also ask for the segment on a timeline that began later.
        let own = history(repo, segment.timeline, to).await?;
        let begins = own.and_then(|(history, _)| history.0.last().map(|(_, end)| *end)).unwrap_or_default();
        return Ok(begins < segment.end(size));
    }
    for key in known.0.iter().filter(|key| key.ends_with(".history.zst")) {
        let timeline =
            split(key).1.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
        if timeline <= segment.timeline {
            continue;
        }
        let left = history(repo, timeline, to).await?.and_then(|(history, _)| history.end_of(segment.timeline));
        if left.is_some_and(|left| left > if begun { segment.end(size) } else { segment.start(size) }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A timeline's history, and the file that it was fetched into.
async fn history(repo: &Repo, timeline: u32, to: &Path) -> Result<Option<(History, NamedTempFile)>> {
    let key = repo.base.resolve(&history_path(timeline))?.key;
    let Some(file) = fetch(repo, &key, to).await? else { return Ok(None) };
    let text = fs::read_to_string(file.path()).map_err(|error| Error::file("read", file.path(), &error))?;
    let history = History::parse(&text)?;
    let ancestors = history.0.iter().map(|(ancestor, _)| *ancestor).chain([timeline]);
    if history.0.is_empty() || !ancestors.is_sorted_by(|one, next| one < next) {
        return Err(Error::new(Cause::Damaged, format!("{timeline:08X}.history is not the history of that timeline")));
    }
    Ok(Some((history, file)))
}
