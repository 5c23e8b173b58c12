//! How far a log is to be replayed: decided from its transactions, in their order.

use super::events::Group;
use super::gtid::Gtid;
use super::names::Place;
use super::shelf::Clock;

/// Where replay ends. Inclusive means that what lies exactly there is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Seconds since the Unix epoch.
    Time {
        seconds: i64,
        inclusive: bool,
    },
    Gtid {
        gtid: Gtid,
        inclusive: bool,
    },
    Place(Place),
    /// Everything that is stored.
    Latest,
}

/// What a transaction is to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// It is the last.
    KeepAndStop,
    Stop,
}

impl Target {
    /// Judges the next transaction, whose end is `end`. Nothing behind the clock's place was written before the clock's time.
    ///
    /// A transaction's time is when its last statement began, so times in a log are not in order. The first that is too late ends
    /// replay: everything behind it was committed later still.
    pub(crate) fn judge(&self, group: &Group, end: &Place, clock: Option<&Clock>) -> Verdict {
        match self {
            Self::Time { seconds, inclusive } => {
                let late = group.time > *seconds || (group.time == *seconds && !inclusive);
                let later = clock.is_some_and(|clock| *seconds < clock.time && *end > clock.place);
                if late || later { Verdict::Stop } else { Verdict::Keep }
            }
            Self::Gtid { gtid, inclusive } if group.gtid == *gtid => {
                if *inclusive {
                    Verdict::KeepAndStop
                } else {
                    Verdict::Stop
                }
            }
            Self::Latest | Self::Gtid { .. } => Verdict::Keep,
            Self::Place(place) if end < place => Verdict::Keep,
            Self::Place(place) if end == place => Verdict::KeepAndStop,
            Self::Place(_) => Verdict::Stop,
        }
    }

    /// Whether the log's end, at `end`, is where replay may end too.
    pub(crate) fn ends_with(&self, end: &Place, clock: Option<&Clock>) -> bool {
        match self {
            Self::Latest => true,
            Self::Time { seconds, .. } => clock.is_some_and(|clock| *seconds < clock.time && *end >= clock.place),
            Self::Gtid { .. } => false,
            Self::Place(place) => end >= place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::mysql::names::Name;

    fn place(number: u64, at: u64) -> Place {
        Place { file: Name { base: "bin".into(), number }, at }
    }

    fn group(sequence: u64, time: i64) -> Group {
        Group { gtid: Gtid::of_mariadb(0, 1, sequence), time, end: sequence * 100 }
    }

    /// The transactions that are kept of those at the given times; they end at 100, 200 and so on.
    fn kept(target: &Target, times: &[i64], clock: Option<&Clock>) -> (usize, bool) {
        for (at, time) in times.iter().enumerate() {
            let sequence = at as u64 + 1;
            match target.judge(&group(sequence, *time), &place(1, sequence * 100), clock) {
                Verdict::Keep => {}
                Verdict::KeepAndStop => return (at + 1, true),
                Verdict::Stop => return (at, true),
            }
        }
        (times.len(), target.ends_with(&place(1, times.len() as u64 * 100), clock))
    }

    #[test]
    fn a_time_ends_before_the_first_transaction_that_is_later() {
        let at = |seconds, inclusive| Target::Time { seconds, inclusive };
        let times = [10, 11, 11, 13];
        assert_eq!(kept(&at(11, true), &times, None), (3, true));
        assert_eq!(kept(&at(11, false), &times, None), (1, true));
        assert_eq!(kept(&at(12, true), &times, None), (3, true), "between two");
        assert_eq!(kept(&at(9, true), &times, None), (0, true));
        assert_eq!(kept(&at(13, true), &times, None), (4, false), "more of that second may be missing");
        // A statement that ran for long was committed behind later ones: it must not bring those back.
        assert_eq!(kept(&at(11, true), &[10, 14, 11, 15], None), (1, true));
    }

    #[test]
    fn the_clock_stands_in_for_a_later_transaction() {
        let clock = Clock { place: place(1, 200), time: 20 };
        let at = |seconds| Target::Time { seconds, inclusive: true };
        assert_eq!(kept(&at(19), &[10, 11], Some(&clock)), (2, true));
        assert_eq!(kept(&at(20), &[10, 11], Some(&clock)), (2, false));
        assert_eq!(kept(&at(19), &[10], Some(&clock)), (1, false), "what it speaks of is not there");
        // It began before the clock was read, and was committed after.
        assert_eq!(kept(&at(19), &[10, 11, 12, 25], Some(&clock)), (2, true));
        assert_eq!(kept(&at(24), &[10, 11, 12, 25], Some(&clock)), (3, true));
    }

    #[test]
    fn ids_and_places_are_met_exactly() {
        let times = [10; 4];
        let gtid = |sequence, inclusive| Target::Gtid { gtid: group(sequence, 0).gtid, inclusive };
        assert_eq!(kept(&gtid(3, true), &times, None), (3, true));
        assert_eq!(kept(&gtid(3, false), &times, None), (2, true));
        assert_eq!(kept(&gtid(5, true), &times, None), (4, false));
        assert_eq!(kept(&Target::Place(place(1, 300)), &times, None), (3, true));
        assert_eq!(kept(&Target::Place(place(1, 299)), &times, None), (2, true), "in the middle of a transaction");
        assert_eq!(kept(&Target::Place(place(1, 400)), &times, None), (4, true));
        assert_eq!(kept(&Target::Place(place(2, 4)), &times, None), (4, false));
        assert_eq!(kept(&Target::Latest, &times, None), (4, true));
    }
}
