//! The restore's side: fetches the base and the commands behind it, proves that they are what was stored, and cuts them where the
//! wanted time is over.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::manifest::Manifest;
use super::scan::Scanner;
use super::shelf::{self, Base, Clock, Leg, Piece, Shelf, Stretch, digest};
use crate::engines::log::objects;
use crate::engines::log::report::time;
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// With everything of this second, counted since the Unix epoch.
    Time(i64),
    /// Everything of the newest history.
    Latest,
}

impl Target {
    fn limit(self) -> Option<i64> {
        match self {
            Self::Time(seconds) => Some(seconds),
            Self::Latest => None,
        }
    }
}

/// What the server said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    engine: String,
    version: String,
    data_directory: String,
    append_directory: String,
    append_file: String,
    file: String,
}

impl About {
    /// A line for each fact, for a script.
    pub(crate) fn text(&self) -> String {
        let Self { engine, version, data_directory, append_directory, append_file, file } = self;
        format!(
            "engine {engine}\nversion {version}\ndata_directory {data_directory}\nappend_directory {append_directory}\n\
             append_file {append_file}\nfile {file}\n"
        )
    }
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    base: i64,
    /// Where it was cut.
    leg: Leg,
    at: u64,
    /// The last time that is noted before that, in seconds since the Unix epoch.
    last: Option<i64>,
    files: usize,
}

impl Fetched {
    /// A line for each fact, for a script.
    pub(crate) fn text(&self) -> String {
        let Self { base, leg, at, last, files } = self;
        let last = last.map(time).unwrap_or_default();
        format!("base {}\nposition {}/{}:{at}\nlast {last}\nfiles {files}\n", time(*base), leg.history, leg.number)
    }
}

/// Everything that is stored.
pub(crate) struct Archive<'a> {
    repo: &'a Repo,
    shelf: Shelf,
}

impl<'a> Archive<'a> {
    /// # Errors
    /// When the store fails.
    pub(crate) async fn load(repo: &'a Repo) -> Result<Self> {
        Ok(Self { repo, shelf: Shelf::load(repo).await? })
    }

    /// What a target can be reached from: where histories overlap the older one first, for it was there at that time.
    fn stretches(&self, target: Target) -> Result<Vec<Stretch>> {
        let mut all = self.shelf.stretches();
        if target == Target::Latest {
            all.reverse();
            all.truncate(1);
        }
        let wanted: Vec<Stretch> =
            all.into_iter().filter(|stretch| target.limit().is_none_or(|limit| stretch.reaches(limit))).collect();
        if wanted.is_empty() { Err(self.refuse("")) } else { Ok(wanted) }
    }

    /// Says what can be reached instead.
    fn refuse(&self, why: &str) -> Error {
        let all = self.shelf.stretches();
        let reachable: Vec<String> = all
            .iter()
            .filter(|stretch| stretch.start <= stretch.end)
            .map(|stretch| format!("{} to {}", time(stretch.start), time(stretch.end)))
            .collect();
        let reachable = if reachable.is_empty() { "nothing".to_owned() } else { reachable.join(", ") };
        Error::new(Cause::LogEnds, format!("the target cannot be reached{why}; what can be reached is {reachable}"))
    }

    /// Of which server the data are.
    ///
    /// # Errors
    /// [`Cause::LogEnds`] when the target cannot be reached, with what can.
    pub(crate) async fn about(&self, target: Target) -> Result<About> {
        let stretches = self.stretches(target)?;
        self.about_history(stretches[0].first.history).await
    }

    async fn about_history(&self, history: i64) -> Result<About> {
        let path = format!("{}/{}", shelf::folder(history), shelf::ABOUT);
        let text = objects::text(self.repo, &path).await?;
        let text = text.ok_or_else(|| Error::new(Cause::NotFound, format!("{path} is missing from the archive")))?;
        serde_json::from_str(&text).map_err(|error| Error::new(Cause::Damaged, format!("{path}: {error}")))
    }

    /// Writes the files that a server reads to be where the target is. The folder must be empty.
    ///
    /// # Errors
    /// [`Cause::LogEnds`] when the target cannot be reached, with what can.
    pub(crate) async fn fetch(mut self, target: Target, folder: &Path) -> Result<Fetched> {
        let mut outcome = self.attempt(target, folder).await?;
        if outcome.as_ref().is_err_and(|refused| refused.is(Cause::NotFound)) {
            // An archiver at work puts pieces together: another listing of the same log.
            self.shelf = Shelf::load(self.repo).await?;
            outcome = self.attempt(target, folder).await?;
        }
        outcome.map_err(|refused| self.refuse(&format!(": {}", refused.text)))
    }

    /// The inner error is of objects that are gone or are not what was stored.
    async fn attempt(&self, target: Target, folder: &Path) -> Result<Result<Fetched>> {
        let mut refused = Error::other("");
        for stretch in self.stretches(target)? {
            let about = self.about_history(stretch.first.history).await?;
            for base in self.shelf.bases(&stretch, target.limit().unwrap_or(i64::MAX)) {
                fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, &error))?;
                match self.assemble(&stretch, base, target, folder, &about.append_file).await {
                    Ok(fetched) => return Ok(Ok(fetched)),
                    // From an older base there may be a way.
                    Err(error) if matches!(error.cause, Cause::Damaged | Cause::NotFound) => refused = error,
                    Err(error) => return Err(error),
                }
                fs::remove_dir_all(folder).map_err(|error| Error::file("empty", folder, &error))?;
            }
        }
        Ok(Err(refused))
    }

    async fn assemble(
        &self,
        stretch: &Stretch,
        base: &Base,
        target: Target,
        folder: &Path,
        name: &str,
    ) -> Result<Fetched> {
        let base_name = format!("{name}.1.base.{}", base.kind.suffix());
        self.fetch_base(base, &folder.join(&base_name)).await?;
        let mut names = Vec::new();
        let mut fetched = Fetched { base: base.from, leg: base.leg, at: 0, last: None, files: 0 };
        let mut passed = false;
        for number in base.leg.number..=stretch.last.number {
            let leg = Leg { number, ..base.leg };
            let name = format!("{name}.{}.incr.aof", names.len() + 1);
            let scanner = self.fetch_leg(leg, target, &folder.join(&name)).await?;
            names.push(name);
            (fetched.leg, fetched.at) = (leg, scanner.whole);
            fetched.last = scanner.times.map(|(_, last)| last).max(fetched.last);
            passed = scanner.passed;
            if passed {
                break;
            }
        }
        fetched.files = names.len();
        let quiet =
            |clock: &Clock, limit: i64| clock.time >= limit && (clock.leg, clock.at) <= (fetched.leg, fetched.at);
        if let Some(limit) = target.limit()
            && !passed
            && !self.shelf.clocks.get(&fetched.leg.history).is_some_and(|clock| quiet(clock, limit))
        {
            return Err(Error::new(Cause::Damaged, "the commands do not go as far as their names say"));
        }
        let path = folder.join(format!("{name}.manifest"));
        fs::write(&path, Manifest::text(&base_name, &names)).map_err(|error| Error::file("write", &path, &error))?;
        Ok(fetched)
    }

    async fn fetch_base(&self, base: &Base, to: &Path) -> Result<()> {
        let path = base.path();
        let file = self.object(&path, to).await?;
        let mut hasher = Sha256::new();
        let mut reader = file.reopen().map_err(|error| Error::file("read", file.path(), &error))?;
        std::io::copy(&mut reader, &mut hasher).map_err(|error| Error::file("read", file.path(), &error))?;
        if digest(&hasher.finalize()) != base.digest {
            return Err(Error::new(Cause::Damaged, format!("{path} is not what its name says")));
        }
        objects::put(file, to)
    }

    async fn object(&self, path: &str, to: &Path) -> Result<tempfile::NamedTempFile> {
        let key = self.repo.base.resolve(path)?.key;
        let fetched = objects::fetch(self.repo, &key, to).await.map_err(|error| error.within(path))?;
        fetched.ok_or_else(|| Error::new(Cause::NotFound, format!("{path} has been removed")))
    }

    /// Writes a leg up to the target. Where that was, and whether something later came.
    async fn fetch_leg(&self, leg: Leg, target: Target, to: &Path) -> Result<Scanner> {
        let failed = |error: std::io::Error| Error::file("write", to, &error);
        let mut file = File::create(to).map_err(failed)?;
        let mut scanner = Scanner::new(0, None).up_to(target.limit());
        let mut hasher = Sha256::new();
        let pieces = self.shelf.leg(leg).map(shelf::Stored::chain).unwrap_or_default();
        for piece in pieces {
            self.append(piece, &mut file, &mut scanner, &mut hasher, to).await?;
            if scanner.passed {
                break;
            }
        }
        if !scanner.passed && scanner.at != scanner.whole {
            return Err(Error::new(Cause::Damaged, format!("file {} ends in the middle of a command", leg.number)));
        }
        file.set_len(scanner.whole).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(scanner)
    }

    async fn append(
        &self,
        piece: &Piece,
        file: &mut File,
        scanner: &mut Scanner,
        hasher: &mut Sha256,
        to: &Path,
    ) -> Result<()> {
        let path = piece.path();
        let fetched = self.object(&path, to).await?;
        let mut reader = fetched.reopen().map_err(|error| Error::file("read", fetched.path(), &error))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = reader.read(&mut buffer).map_err(|error| Error::file("read", fetched.path(), &error))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(|error| Error::file("write", to, &error))?;
            scanner.feed(&buffer[..read]).map_err(|error| error.within(&path))?;
        }
        // Compared to the end, wherever it will be cut.
        if digest(&hasher.clone().finalize()) != piece.after {
            return Err(Error::new(Cause::Damaged, format!("{path} is not what its name says")));
        }
        Ok(())
    }
}
