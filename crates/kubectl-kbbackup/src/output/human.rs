//! Sizes, ages and times for people.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// `4.2 MiB`; exact below one KiB.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A size as stored in a status, for people; what cannot be read is shown as it stands.
pub(crate) fn size(text: &str) -> String {
    kbbackup_core::layout::parse_size(text).map_or_else(|| text.to_owned(), bytes)
}

/// `45s`, `2m8s`, `3h12m`, `4d`: two units at most, as kubectl shortens it.
pub(crate) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds % 86_400 / 3600, seconds % 3600 / 60);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..=10_799 => format!("{}m", seconds / 60),
        10_800..=28_799 if minutes != 0 => format!("{hours}h{minutes}m"),
        10_800..=172_799 => format!("{}h", seconds / 3600),
        172_800..=691_199 if hours != 0 => format!("{days}d{hours}h"),
        _ => format!("{days}d"),
    }
}

/// `3h ago`.
pub(crate) fn ago(time: Option<&Time>, now: Timestamp) -> String {
    time.map(|time| format!("{} ago", span(now.duration_since(time.0)))).unwrap_or_default()
}

/// The age alone, as kubectl's AGE column.
pub(crate) fn age(time: Option<&Time>, now: Timestamp) -> String {
    time.map(|time| span(now.duration_since(time.0))).unwrap_or_default()
}

/// `in 6d`, `expired 2m ago`, or nothing for never.
pub(crate) fn until(time: Option<&Time>, now: Timestamp) -> String {
    match time {
        None => String::new(),
        Some(time) if time.0 >= now => format!("in {}", span(time.0.duration_since(now))),
        Some(time) => format!("expired {} ago", span(now.duration_since(time.0))),
    }
}

/// RFC 3339 in UTC with whole seconds: can be pasted back into a flag.
pub(crate) fn utc(time: Option<&Time>) -> String {
    time.map(|time| stamp(time.0)).unwrap_or_default()
}

pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2 volumes`, `1 volume`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_nonsense_is_kept() {
        assert_eq!(size("1023"), "1023 B");
        assert_eq!(size("4404019"), "4.2 MiB");
        assert_eq!(size("1Gi"), "1.0 GiB");
        assert_eq!(size("lots"), "lots");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (128, "2m8s"),
            (600, "10m"),
            (11_520, "3h12m"),
            (50_000, "13h"),
            (200_000, "2d7h"),
            (5_000_000, "57d"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_time_can_be_pasted_back() {
        let time = Timestamp::from_second(1_767_323_045).unwrap();
        assert_eq!(stamp(time), "2026-01-02T03:04:05Z");
    }
}
