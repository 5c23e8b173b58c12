//! Point-in-time restores: what a time target rests on, or why it cannot be reached and what is nearest.
//!
//! The recoverable times of a continuous backup are its range without its gaps, from the end of the oldest base backup
//! on. A target outside of them is refused before anything is touched, with the nearest times that would do.

use jiff::{SignedDuration, Timestamp};

use crate::chain::Kind;

/// Key of the entry of `status.extras` that says where a gap in a log begins, in RFC 3339. Written by archivers.
pub const GAP_START: &str = "gapStart";
/// Key of the same entry that says where the gap ends.
pub const GAP_END: &str = "gapEnd";
/// How many unfit bases an error names; the rest is counted.
const TOLD: usize = 5;

/// A stretch of time that a continuous backup does not have: what happened in it cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last time before the gap that can be reached.
    pub start: Timestamp,
    /// The first time after the gap from which changes are there again.
    pub end: Timestamp,
}

/// What a continuous backup covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Name of the Backup.
    pub name: String,
    /// First time.
    pub start: Option<Timestamp>,
    /// Last time, itself included.
    pub end: Option<Timestamp>,
    /// What is missing in between, in any order.
    pub gaps: Vec<Gap>,
    /// Whether it is replayed onto a base backup.
    pub needs_base: bool,
    /// Whether an incremental base is refused, for the log's own recipe has to bring the base back.
    pub full_base_only: bool,
}

/// A backup that may be the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Name of the Backup.
    pub name: String,
    /// Full or incremental; others are no bases.
    pub kind: Kind,
    /// Whether it is completed.
    pub completed: bool,
    /// When its data ends.
    pub end: Option<Timestamp>,
}

/// Why a time cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PitrError {
    /// The restore names no time.
    #[error("backup {name} is continuous, so restoreTime must say which moment is wanted ({possible})")]
    NoTime {
        /// The continuous backup.
        name: String,
        /// What is possible, in words.
        possible: String,
    },
    /// The continuous backup has no range yet.
    #[error(
        "backup {name} has recorded no range of time yet, so no moment can be restored from it; wait until its archiver has \
         stored something"
    )]
    NoRange {
        /// The continuous backup.
        name: String,
    },
    /// The time is outside of the range.
    #[error("{time} is outside of what backup {name} covers, {start} to {end}; {nearest}")]
    Outside {
        /// The time asked for.
        time: Timestamp,
        /// The continuous backup.
        name: String,
        /// First time.
        start: Timestamp,
        /// Last time.
        end: Timestamp,
        /// What is possible instead, in words.
        nearest: String,
    },
    /// What has to be replayed is not all there.
    #[error("backup {name} has a gap from {start} to {end}, so {time} cannot be reached; {nearest}")]
    Gap {
        /// The time asked for.
        time: Timestamp,
        /// The continuous backup.
        name: String,
        /// The last time before the gap.
        start: Timestamp,
        /// The first time after it.
        end: Timestamp,
        /// What is possible instead, in words.
        nearest: String,
    },
    /// There is nothing to replay onto.
    #[error("no completed backup can be the base of a restore to {time}: {looked}; {nearest}")]
    NoBase {
        /// The time asked for.
        time: Timestamp,
        /// Which bases were looked at and why none fits, in words.
        looked: String,
        /// What is possible instead, in words.
        nearest: String,
    },
    /// The base that the rules choose cannot be used with this recipe.
    #[error(
        "the base of a restore to {time} is the incremental backup {base}, which the recipe of the continuous backup cannot \
         bring back by itself; {nearest}"
    )]
    IncrementalBase {
        /// The time asked for.
        time: Timestamp,
        /// The base.
        base: String,
        /// What is possible instead, in words.
        nearest: String,
    },
}

/// The base that a restore to `time` starts from; `None` when the log needs none.
///
/// # Errors
/// [`PitrError`] with the nearest times that can be restored.
pub fn base<'a>(log: &Log, bases: &'a [Base], time: Option<Timestamp>) -> Result<Option<&'a Base>, PitrError> {
    let windows = windows(log, bases);
    let (Some(start), Some(end)) = (log.start, log.end) else {
        return Err(PitrError::NoRange { name: log.name.clone() });
    };
    let Some(time) = time else {
        return Err(PitrError::NoTime { name: log.name.clone(), possible: possible(&windows) });
    };
    let name = || log.name.clone();
    let nearest = || nearest(&windows, time);
    if time < start || time > end {
        return Err(PitrError::Outside { time, name: name(), start, end, nearest: nearest() });
    }
    let gap = |gap: &Gap| PitrError::Gap { time, name: name(), start: gap.start, end: gap.end, nearest: nearest() };
    if let Some(inside) = log.gaps.iter().find(|gap| gap.start < time && time < gap.end) {
        return Err(gap(inside));
    }
    if !log.needs_base {
        // The whole log is replayed up to the time.
        return match log.gaps.iter().find(|gap| gap.start < time) {
            Some(before) => Err(gap(before)),
            None => Ok(None),
        };
    }
    let usable = bases.iter().filter(|base| unfit(base, start, time).is_none());
    let newest = usable.max_by(|a, b| (a.end, &a.name).cmp(&(b.end, &b.name)));
    let Some(newest) = newest else {
        return Err(PitrError::NoBase { time, looked: looked_at(bases, start, time), nearest: nearest() });
    };
    // Older bases would need the same stretch of log and more.
    let from = newest.end.unwrap_or(start);
    if let Some(between) = log.gaps.iter().find(|gap| gap.start < time && gap.end > from) {
        return Err(gap(between));
    }
    if log.full_base_only && newest.kind == Kind::Incremental {
        return Err(PitrError::IncrementalBase { time, base: newest.name.clone(), nearest: nearest() });
    }
    Ok(Some(newest))
}

/// Why a backup cannot be the base of a restore to `time`, in words that follow its name.
fn unfit(base: &Base, log_start: Timestamp, time: Timestamp) -> Option<String> {
    match base.end {
        _ if !base.completed => Some("is not completed".to_owned()),
        None => Some("has no end time".to_owned()),
        Some(end) if end > time => Some(format!("ends at {end}, after that")),
        Some(end) if end < log_start => Some(format!("ends at {end}, before the log begins at {log_start}")),
        Some(_) => None,
    }
}

fn looked_at(bases: &[Base], start: Timestamp, time: Timestamp) -> String {
    if bases.is_empty() {
        return "there is no full or incremental backup of the same database".to_owned();
    }
    let mut sorted: Vec<&Base> = bases.iter().collect();
    sorted.sort_by(|a, b| (b.end, &b.name).cmp(&(a.end, &a.name)));
    let reason = |base: &&Base| format!("{} {}", base.name, unfit(base, start, time).unwrap_or_default());
    let mut told = sorted.iter().take(TOLD).map(reason).collect::<Vec<_>>().join(", ");
    if sorted.len() > TOLD {
        told.push_str(&format!(", and {} older ones do not fit either", sorted.len() - TOLD));
    }
    told
}

/// The times that can be restored, as closed stretches in order.
pub fn windows(log: &Log, bases: &[Base]) -> Vec<(Timestamp, Timestamp)> {
    let (Some(start), Some(end)) = (log.start, log.end) else { return Vec::new() };
    let mut starts: Vec<(Timestamp, bool)> = if log.needs_base {
        let usable = bases.iter().filter(|base| unfit(base, start, end).is_none());
        usable.filter_map(|base| Some((base.end?, !log.full_base_only || base.kind == Kind::Full))).collect()
    } else {
        vec![(start, true)]
    };
    starts.sort_unstable();
    let mut windows: Vec<(Timestamp, Timestamp)> = Vec::new();
    for (index, (from, usable)) in starts.iter().enumerate() {
        if !usable {
            continue;
        }
        let mut until =
            log.gaps.iter().filter(|gap| gap.end > *from).map(|gap| gap.start).min().unwrap_or(end).min(end);
        // Where the rules would choose a base that the recipe cannot use, the stretch ends.
        if let Some((next, false)) = starts.get(index + 1) {
            until = until.min(before(*next));
        }
        // A base taken inside of a gap has lost what followed it.
        let until = if until < *from { *from } else { until };
        if log.gaps.iter().any(|gap| gap.start < *from && *from < gap.end) {
            continue;
        }
        match windows.last_mut() {
            Some(last) if *from <= last.1 => last.1 = last.1.max(until),
            _ => windows.push((*from, until)),
        }
    }
    windows
}

/// Times are given in whole seconds.
fn before(time: Timestamp) -> Timestamp {
    time.checked_sub(SignedDuration::from_secs(1)).unwrap_or(time)
}

fn possible(windows: &[(Timestamp, Timestamp)]) -> String {
    if windows.is_empty() {
        return "nothing can be restored: there is no base backup in its range".to_owned();
    }
    let all = windows.iter().map(|(from, to)| format!("{} to {}", up(*from), down(*to))).collect::<Vec<_>>();
    format!("possible: {}", all.join(", "))
}

/// The nearest times before and after `time` that can be restored, and the earliest.
fn nearest(windows: &[(Timestamp, Timestamp)], time: Timestamp) -> String {
    let below = windows.iter().map(|(_, to)| down(*to)).filter(|to| *to < time).max();
    let above = windows.iter().map(|(from, _)| up(*from)).filter(|from| *from > time).min();
    let nearest = match (below, above) {
        (None, None) => return possible(windows),
        (Some(below), Some(above)) => format!("the nearest times that can be restored are {below} and {above}"),
        (Some(only), None) | (None, Some(only)) => format!("the nearest time that can be restored is {only}"),
    };
    match windows.first() {
        Some((earliest, _)) if Some(up(*earliest)) != above => format!("{nearest}, the earliest is {}", up(*earliest)),
        _ => nearest,
    }
}

/// The first whole second that is not before `time`: a restore's time has no fraction.
fn up(time: Timestamp) -> Timestamp {
    let whole = down(time);
    if whole < time { whole.checked_add(SignedDuration::from_secs(1)).unwrap_or(time) } else { whole }
}

fn down(time: Timestamp) -> Timestamp {
    let fraction = time.subsec_nanosecond();
    let fraction = if fraction < 0 { fraction + 1_000_000_000 } else { fraction };
    time.checked_sub(SignedDuration::from_nanos(i64::from(fraction))).unwrap_or(time)
}

/// The gaps that the entries of `status.extras` tell of.
///
/// # Errors
/// In words, when an entry tells of a gap that cannot be understood: then nobody knows what is missing.
pub fn gaps<'a>(
    extras: impl IntoIterator<Item = &'a std::collections::BTreeMap<String, String>>,
) -> Result<Vec<Gap>, String> {
    let mut gaps = Vec::new();
    for entry in extras {
        let (start, end) = (entry.get(GAP_START), entry.get(GAP_END));
        if start.is_none() && end.is_none() {
            continue;
        }
        let time = |key: &str, text: Option<&String>| {
            let text = text.map(String::as_str).unwrap_or_default();
            text.parse::<Timestamp>().map_err(|_| format!("a gap of the log has the {key} {text:?}, which is no time"))
        };
        gaps.push(Gap { start: time(GAP_START, start)?, end: time(GAP_END, end)? });
    }
    gaps.sort_by_key(|gap| (gap.start, gap.end));
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Minute `minute` of a day.
    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_772_323_200 + minute * 60).unwrap()
    }

    fn log() -> Log {
        Log {
            name: "wal".into(),
            start: Some(at(10)),
            end: Some(at(50)),
            gaps: vec![],
            needs_base: true,
            full_base_only: false,
        }
    }

    fn full(name: &str, end: i64) -> Base {
        Base { name: name.into(), kind: Kind::Full, completed: true, end: Some(at(end)) }
    }

    fn chosen(log: &Log, bases: &[Base], time: i64) -> Result<Option<String>, String> {
        base(log, bases, Some(at(time)))
            .map(|base| base.map(|base| base.name.clone()))
            .map_err(|error| error.to_string())
    }

    fn refused(log: &Log, bases: &[Base], time: i64) -> String {
        chosen(log, bases, time).unwrap_err()
    }

    #[test]
    fn behaviour_6_4_the_newest_base_that_ends_in_between_is_chosen() {
        let incremental = Base { kind: Kind::Incremental, ..full("i", 30) };
        let bases = [full("old", 5), full("a", 10), full("b", 20), incremental, full("late", 40)];
        for (time, wanted) in
            [(10, "a"), (19, "a"), (20, "b"), (29, "b"), (30, "i"), (39, "i"), (40, "late"), (50, "late")]
        {
            assert_eq!(chosen(&log(), &bases, time), Ok(Some(wanted.to_owned())), "{time}");
        }
        let same_end = [full("x", 20), full("z", 20), full("y", 20)];
        assert_eq!(chosen(&log(), &same_end, 25), Ok(Some("z".into())), "ties by name, descending");
        let running = [full("a", 10), Base { completed: false, ..full("b", 20) }];
        assert_eq!(chosen(&log(), &running, 25), Ok(Some("a".into())));
    }

    #[test]
    fn behaviour_6_4_the_range_includes_its_ends() {
        let bases = [full("a", 10)];
        assert!(chosen(&log(), &bases, 10).is_ok());
        assert!(chosen(&log(), &bases, 50).is_ok());
        assert_eq!(
            refused(&log(), &bases, 51),
            "2026-03-01T00:51:00Z is outside of what backup wal covers, 2026-03-01T00:10:00Z to 2026-03-01T00:50:00Z; \
             the nearest time that can be restored is 2026-03-01T00:50:00Z, the earliest is 2026-03-01T00:10:00Z"
        );
        assert_eq!(
            refused(&log(), &bases, 9),
            "2026-03-01T00:09:00Z is outside of what backup wal covers, 2026-03-01T00:10:00Z to 2026-03-01T00:50:00Z; \
             the nearest time that can be restored is 2026-03-01T00:10:00Z"
        );
    }

    #[test]
    fn behaviour_6_4_a_log_without_a_range_is_refused() {
        for log in [Log { start: None, ..log() }, Log { end: None, ..log() }] {
            assert!(matches!(base(&log, &[full("a", 20)], Some(at(20))), Err(PitrError::NoRange { .. })));
        }
    }

    #[test]
    fn a_missing_time_is_answered_with_what_is_possible() {
        let told = base(&log(), &[full("a", 20)], None).unwrap_err().to_string();
        assert_eq!(
            told,
            "backup wal is continuous, so restoreTime must say which moment is wanted \
             (possible: 2026-03-01T00:20:00Z to 2026-03-01T00:50:00Z)"
        );
        let told = base(&log(), &[], None).unwrap_err().to_string();
        assert!(told.contains("nothing can be restored"), "{told}");
    }

    #[test]
    fn behaviour_6_4_no_base_names_those_looked_at_and_the_earliest_time() {
        assert!(refused(&log(), &[], 20).contains("there is no full or incremental backup of the same database"));
        let bases = [
            full("old", 5),
            full("late", 40),
            Base { completed: false, ..full("broken", 15) },
            Base { end: None, ..full("endless", 0) },
        ];
        assert_eq!(
            refused(&log(), &bases, 20),
            "no completed backup can be the base of a restore to 2026-03-01T00:20:00Z: \
             late ends at 2026-03-01T00:40:00Z, after that, broken is not completed, \
             old ends at 2026-03-01T00:05:00Z, before the log begins at 2026-03-01T00:10:00Z, endless has no end time; \
             the nearest time that can be restored is 2026-03-01T00:40:00Z"
        );
        let many: Vec<_> = (0..9).map(|minute| full(&format!("f{minute}"), minute)).collect();
        assert!(refused(&log(), &many, 20).contains("and 4 older ones do not fit either"));
    }

    #[test]
    fn behaviour_6_4_without_need_of_a_base_none_is_looked_for() {
        let alone = Log { needs_base: false, ..log() };
        assert_eq!(chosen(&alone, &[full("a", 20)], 30), Ok(None));
        assert!(refused(&alone, &[], 60).contains("the nearest time that can be restored is 2026-03-01T00:50:00Z"));
        let torn = Log { gaps: vec![Gap { start: at(20), end: at(25) }], ..alone };
        assert_eq!(chosen(&torn, &[], 20), Ok(None));
        assert!(refused(&torn, &[], 30).contains("has a gap from 2026-03-01T00:20:00Z to 2026-03-01T00:25:00Z"));
    }

    #[test]
    fn behaviour_6_4_skipping_the_base_needs_a_full_one() {
        let skipping = Log { full_base_only: true, ..log() };
        let bases = [full("f", 20), Base { kind: Kind::Incremental, ..full("i", 30) }, full("g", 40)];
        assert_eq!(chosen(&skipping, &bases, 25), Ok(Some("f".into())));
        assert_eq!(
            refused(&skipping, &bases, 35),
            "the base of a restore to 2026-03-01T00:35:00Z is the incremental backup i, which the recipe of the continuous \
             backup cannot bring back by itself; the nearest times that can be restored are 2026-03-01T00:29:59Z and \
             2026-03-01T00:40:00Z, the earliest is 2026-03-01T00:20:00Z"
        );
    }

    #[test]
    fn a_gap_is_refused_with_the_times_at_its_edges() {
        let torn = Log { gaps: vec![Gap { start: at(25), end: at(30) }], ..log() };
        let bases = [full("a", 20), full("b", 40)];
        assert_eq!(chosen(&torn, &bases, 25), Ok(Some("a".into())), "the edge itself is there");
        for time in [27, 30, 39] {
            let told = refused(&torn, &bases, time);
            assert!(told.contains("has a gap from 2026-03-01T00:25:00Z to 2026-03-01T00:30:00Z"), "{told}");
            assert!(told.contains("are 2026-03-01T00:25:00Z and 2026-03-01T00:40:00Z"), "{told}");
        }
        assert_eq!(chosen(&torn, &bases, 40), Ok(Some("b".into())), "a base after the gap heals it");
        // A base that ends within the gap lacks what comes next, and its own moment cannot be told from the log.
        let inside = [full("a", 20), full("m", 27)];
        assert!(chosen(&torn, &inside, 27).is_err());
        assert!(chosen(&torn, &inside, 35).is_err());
        assert_eq!(windows(&torn, &inside), [(at(20), at(25))]);
    }

    #[test]
    fn windows_are_what_a_restore_delivers() {
        let torn = Log { gaps: vec![Gap { start: at(25), end: at(30) }, Gap { start: at(44), end: at(46) }], ..log() };
        let bases = [full("a", 20), full("b", 22), full("c", 40), full("old", 1)];
        let windows = windows(&torn, &bases);
        assert_eq!(windows, [(at(20), at(25)), (at(40), at(44))]);
        for minute in 0..60 {
            let inside = windows.iter().any(|(from, to)| (*from..=*to).contains(&at(minute)));
            assert_eq!(chosen(&torn, &bases, minute).is_ok(), inside, "minute {minute}");
        }
    }

    #[test]
    fn nearest_times_are_whole_seconds_that_can_be_typed() {
        let fraction = |minute, millis| at(minute).checked_add(SignedDuration::from_millis(millis)).unwrap();
        let log = Log { end: Some(fraction(50, 700)), ..log() };
        let bases = [Base { end: Some(fraction(20, 300)), ..full("a", 20) }];
        let told = refused(&log, &bases, 51);
        assert!(told.contains("restored is 2026-03-01T00:50:00Z, the earliest is 2026-03-01T00:20:01Z"), "{told}");
    }

    #[test]
    fn gaps_are_read_from_extras() {
        let entry = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let other = entry(&[("walg", "base_1")]);
        let gap = entry(&[(GAP_START, "2026-03-01T00:20:00Z"), (GAP_END, "2026-03-01T00:30:00Z"), ("timeline", "2")]);
        assert_eq!(gaps([&other, &gap]), Ok(vec![Gap { start: at(20), end: at(30) }]));
        for bad in [entry(&[(GAP_START, "2026-03-01T00:20:00Z")]), entry(&[(GAP_START, "x"), (GAP_END, "y")])] {
            assert!(gaps([&bad]).is_err());
        }
    }
}
