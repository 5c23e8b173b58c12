//! The times that can be reached, and what is missing between them.

/// A base backup says a time up to two seconds later than the moment at which it became consistent: it rounds up. Log that
/// begins in between would not reach it.
const ROUNDING: i64 = 2;
/// No more gaps are told; the window begins behind the older ones then.
pub(crate) const MOST_GAPS: usize = 200;

/// The times that can be reached, in seconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) range: Option<(i64, i64)>,
    pub(crate) gaps: Vec<(i64, i64)>,
}

impl Window {
    /// Of stretches of log without a hole, oldest first: the first and the last time that each holds.
    pub(crate) fn of(stretches: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut window = Self::default();
        for (first, last) in stretches {
            window.range = Some(match window.range {
                None => (first + ROUNDING, last),
                Some((start, end)) => {
                    window.gaps.push((end, first.max(end)));
                    (start, last.max(end))
                }
            });
        }
        if window.gaps.len() > MOST_GAPS {
            let told = window.gaps.split_off(window.gaps.len() - MOST_GAPS);
            let behind = window.gaps.last().map(|(_, end)| *end);
            window.range = window.range.map(|(start, end)| (behind.unwrap_or(start), end));
            window.gaps = told;
        }
        window.range = window.range.filter(|(start, end)| start <= end);
        window
    }
}
