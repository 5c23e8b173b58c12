//! The restore's side: fetches what is to be replayed behind a base backup, proves that it is all of it, and says where to begin
//! and where to end.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::archive::stored_clock;
use super::events::{Events, Group, MAGIC};
use super::gtid::State;
use super::names::{Name, Place};
use super::replay::{Target, Verdict};
use super::shelf::{Clock, Kept, Shelf};
use crate::engines::log::objects;
use crate::engines::log::report::time;
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;

/// What a base backup says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) place: Place,
    /// As [`super::gtid::position`] writes it; `None` where the backup does not say.
    pub(crate) position: Option<String>,
}

/// What is to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In their order; none where there is nothing to replay.
    pub(crate) files: Vec<PathBuf>,
    /// In the first and in the last of them.
    pub(crate) start: u64,
    pub(crate) stop: u64,
    /// What is reached then.
    pub(crate) place: Place,
    pub(crate) position: String,
    /// Of the last transaction that is replayed, in seconds since the Unix epoch.
    pub(crate) last: Option<i64>,
}

impl Plan {
    /// A line for each fact, for a script.
    pub(crate) fn text(&self) -> String {
        let Self { files, start, stop, place, position, last } = self;
        let mut text = format!("start {start}\nstop {stop}\nbinlog {place}\ngtid {position}\n");
        text += &format!("last {}\n", last.map(time).unwrap_or_default());
        for file in files {
            text += &format!("file {}\n", file.display());
        }
        text
    }
}

/// How far it was read.
#[derive(Clone)]
struct Walk<'a> {
    base: &'a Base,
    target: &'a Target,
    clock: Option<Clock>,
    /// Up to where everything is there and as it was written.
    sound: Place,
    state: Option<State>,
    /// The latest time of the transactions that are replayed.
    latest: Option<i64>,
    /// Whether the base was met.
    met: bool,
    /// The first file with something to replay.
    first: Option<Name>,
    plan: Plan,
}

/// Fetches what lies between a base backup and a target into a folder.
///
/// # Errors
/// [`Cause::LogEnds`] when the target cannot be reached, with what can; [`Cause::Damaged`] when the base is of another server.
pub(crate) async fn run(repo: &Repo, base: &Base, target: &Target, folder: &Path) -> Result<Plan> {
    fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, &error))?;
    let shelf = Shelf::load(repo).await?;
    if shelf.servers.len() != 1 {
        return Err(Error::new(
            Cause::Damaged,
            format!("there is log of {} servers here, and should be of one", shelf.servers.len()),
        ));
    }
    let mut walk = Walk {
        base,
        target,
        clock: stored_clock(repo).await?,
        sound: base.place.clone(),
        state: None,
        latest: None,
        met: false,
        first: None,
        plan: Plan {
            files: Vec::new(),
            start: base.place.at,
            stop: base.place.at,
            place: base.place.clone(),
            position: base.position.clone().unwrap_or_default(),
            last: None,
        },
    };
    let mut number = base.place.file.number;
    loop {
        let file = Name { number, ..base.place.file.clone() };
        let stops = match next(repo, &shelf, &file, &mut walk, folder).await {
            Ok(Some(stops)) => stops,
            Ok(None) => break,
            Err(error) if matches!(error.cause, Cause::Damaged | Cause::NotFound) => {
                return Err(walk.refuse(&error.within(&file).text));
            }
            Err(error) => return Err(error),
        };
        let covered = *target != Target::Latest && target.ends_with(&walk.sound, walk.clock.as_ref());
        if stops || covered {
            return Ok(walk.plan);
        }
        number += 1;
    }
    if !walk.met {
        let why = format!("{}, where the base backup ended, is not in the archive", base.place);
        return Err(Error::new(Cause::LogEnds, why));
    }
    if target.ends_with(&walk.sound, walk.clock.as_ref()) {
        return Ok(walk.plan);
    }
    Err(walk.refuse("the archive ends before the target, or may go on with more of the same second"))
}

/// Reads one file. Whether replay ends in it; `None` where the archive is over.
async fn next(repo: &Repo, shelf: &Shelf, file: &Name, walk: &mut Walk<'_>, folder: &Path) -> Result<Option<bool>> {
    let same = |other: &Name| other == file;
    let whole: Vec<&Kept> = shelf.whole.get(&file.number).into_iter().flatten().map(|(kept, _)| kept).collect();
    let mut candidates: Vec<(String, Option<&Kept>)> =
        whole.iter().filter(|kept| same(&kept.name)).map(|kept| (kept.path(), Some(*kept))).collect();
    // The beginning of a file ends before the file does, so it serves only where nothing follows.
    if candidates.is_empty() && shelf.newest().is_some_and(|newest| newest > file.number) {
        return Err(Error::new(Cause::NotFound, "it is missing from the archive, which goes on behind it"));
    }
    if candidates.is_empty() {
        candidates.extend(
            shelf.begun.get(&file.number).filter(|(begun, _)| same(&begun.name)).map(|(begun, _)| (begun.path(), None)),
        );
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    let to = folder.join(file.to_string());
    let mut furthest = walk.clone();
    let mut refused = Error::other("");
    for (path, kept) in candidates {
        let key = repo.base.resolve(&path)?.key;
        let fetched = match objects::fetch(repo, &key, &to).await {
            Ok(fetched) => fetched.ok_or_else(|| Error::new(Cause::NotFound, "it has been removed")),
            // A stream that cannot be unpacked is as good as none.
            Err(error) if error.is(Cause::Damaged) => Err(error),
            Err(error) => return Err(error),
        };
        let mut attempt = walk.clone();
        match fetched.and_then(|fetched| attempt.read(file, fetched.path(), kept).map(|stops| (stops, fetched))) {
            Ok((stops, fetched)) => {
                *walk = attempt;
                if walk.plan.place.file == *file && walk.first.is_some() {
                    objects::put(fetched, &to)?;
                    walk.plan.files.push(to);
                }
                return Ok(Some(stops));
            }
            Err(error) => {
                refused = error;
                if attempt.plan.place > furthest.plan.place {
                    furthest = attempt;
                }
            }
        }
    }
    *walk = furthest;
    Err(refused)
}

impl Walk<'_> {
    /// Reads a file as a server would, up to where replay ends, and compares it with its name and with the file before it. Whether
    /// replay ends in it.
    fn read(&mut self, file: &Name, path: &Path, kept: Option<&Kept>) -> Result<bool> {
        let failed = |error: std::io::Error| Error::file("read", path, &error);
        let damaged = |why: &str| Error::new(Cause::Damaged, why);
        let mut events = Events::default();
        let mut reader = File::open(path).map_err(failed)?;
        let mut bytes = vec![0; 256 << 10];
        // Behind the transactions that were looked at.
        let mut state: Option<State> = None;
        let mut late = false;
        loop {
            let read = reader.read(&mut bytes).map_err(failed)?;
            let fed = if read == 0 { events.whole() } else { events.feed(&bytes[..read]) };
            let state = match (&mut state, events.begin()) {
                (Some(state), _) => state,
                (state, Some(begin)) => {
                    if self.state.as_ref().is_some_and(|before| before != begin) {
                        let why = "it does not go on where the file before it ended: something is missing, or it is another server's";
                        return Err(damaged(why));
                    }
                    if kept.is_some_and(|kept| kept.from != begin.digest()) {
                        return Err(damaged("its content is not what its name says"));
                    }
                    // Whoever wants a time from before the file wants one from before the base backup in it.
                    late = matches!(self.target, Target::Time { seconds, .. } if events.created() > Some(*seconds));
                    state.insert(begin.clone())
                }
                _ => {
                    fed?;
                    if read == 0 {
                        return Err(damaged("it has no list of GTIDs"));
                    }
                    continue;
                }
            };
            // What came before the damage is sound.
            for group in events.groups() {
                let place = Place { file: file.clone(), at: group.end };
                if place <= self.base.place {
                    late |= matches!(self.target, Target::Time { seconds, .. } if group.time > *seconds);
                } else {
                    self.meet(state, late)?;
                    let verdict = self.target.judge(&group, &place, self.clock.as_ref());
                    if verdict == Verdict::Stop {
                        return Ok(true);
                    }
                    state.take(group.gtid);
                    self.keep(&group, place, state);
                    if verdict == Verdict::KeepAndStop {
                        return Ok(true);
                    }
                    continue;
                }
                state.take(group.gtid);
            }
            fed?;
            if read == 0 {
                break;
            }
        }
        if events.incident() {
            return Err(damaged("the server has lost part of its log in it"));
        }
        if kept.is_some_and(|kept| kept.to != events.state().digest()) {
            return Err(damaged("its content is not what its name says"));
        }
        if let Some(next) = events.next()
            && next.number != file.number + 1
        {
            return Err(damaged(&format!("its end says that {next} comes next")));
        }
        self.sound = Place { file: file.clone(), at: events.at() };
        if !self.met && self.sound < self.base.place {
            return Err(damaged(&format!("it ends at {}, before the base backup did", events.at())));
        }
        self.meet(events.state(), late)?;
        if kept.is_some() {
            self.sound = Place { file: Name { number: file.number + 1, ..file.clone() }, at: MAGIC.len() as u64 };
        }
        self.state = Some(events.state().clone());
        Ok(false)
    }

    /// A transaction that is replayed.
    fn keep(&mut self, group: &Group, place: Place, state: &State) {
        if self.first.is_none() {
            self.first = Some(place.file.clone());
            if place.file != self.base.place.file {
                self.plan.start = MAGIC.len() as u64;
            }
        }
        self.latest = self.latest.max(Some(group.time));
        self.plan.stop = group.end;
        self.plan.position = state.position();
        self.plan.last = Some(group.time);
        self.plan.place = place;
    }

    /// The base backup's end must be between two transactions of this log, and be what they had led to. `late` says that one of
    /// them is later than the target.
    fn meet(&mut self, state: &State, late: bool) -> Result<()> {
        if self.met {
            return Ok(());
        }
        let place = &self.base.place;
        if let Some(position) = &self.base.position
            && state.position() != *position
        {
            let why = format!(
                "the log was at {} there, and the base backup says {}: that one is of another server, or of another time of it",
                state.position(),
                position
            );
            return Err(Error::new(Cause::Damaged, why));
        }
        let passed = match self.target {
            Target::Time { .. } => late,
            Target::Gtid { gtid, .. } => state.has(*gtid),
            Target::Place(target) => target < place,
            Target::Latest => false,
        };
        if passed {
            return Err(Error::new(
                Cause::LogEnds,
                format!("the target lies before the base backup, which ended at {place}"),
            ));
        }
        self.plan.position = state.position();
        self.met = true;
        Ok(())
    }

    /// Says what can be reached instead.
    fn refuse(&self, why: &str) -> Error {
        let reachable = match self.latest.map(|latest| latest - 1).max(self.clock_end()) {
            Some(latest) if self.met => format!(
                "what can be reached is from the base backup at {} to {}, or position {}",
                self.base.place,
                time(latest),
                self.plan.place
            ),
            _ if self.met => format!("what can be reached is the base backup itself, at {}", self.base.place),
            _ => "nothing behind the base backup can be reached".to_owned(),
        };
        Error::new(Cause::LogEnds, format!("the target cannot be reached: {why}; {reachable}"))
    }

    fn clock_end(&self) -> Option<i64> {
        self.clock.as_ref().filter(|clock| self.sound >= clock.place).map(|clock| clock.time - 1)
    }
}
