//! Moments as people write them: for restores to a point in time.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// A moment that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// In whole seconds.
    At(Timestamp),
    /// The last one that can be reached.
    Latest,
}

/// What a moment may look like, for errors and prompts.
pub(crate) const FORMS: &str =
    "a time such as 2026-01-02T03:04:05Z, \"2026-01-02 03:04:05\" (UTC, or --timezone), -15m, \"2h ago\", or latest";

/// Reads a moment. Without a zone of its own a time is meant in `zone`; a fraction of a second is dropped, for a restore's
/// time has none.
///
/// # Errors
/// In words, when it cannot be understood.
pub(crate) fn parse(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Moment, String> {
    let text = text.trim();
    if text == "latest" {
        return Ok(Moment::Latest);
    }
    let found = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| kubeblocks(text))
        .or_else(|| plain(text, zone))
        .or_else(|| relative(text, now))
        .ok_or_else(|| format!("{text:?} is not {FORMS}"))?;
    Ok(Moment::At(whole(found)))
}

/// `May 07,2024 15:48:47 UTC+0800`, as KubeBlocks' command line writes and reads it.
fn kubeblocks(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::strtime::parse("%b %d,%Y %H:%M:%S UTC%z", text).ok()?;
    zoned.to_timestamp().ok()
}

fn plain(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let civil: DateTime = text.parse().ok()?;
    // A day alone is no moment.
    if !text.contains(':') {
        return None;
    }
    zone.to_ambiguous_zoned(civil).unambiguous().ok().map(|zoned| zoned.timestamp())
}

/// `-15m`, `15m ago`, `-1h30m`.
fn relative(text: &str, now: Timestamp) -> Option<Timestamp> {
    let span = text.strip_prefix('-').or_else(|| text.strip_suffix("ago"))?.trim();
    let span: SignedDuration = span.parse().ok().filter(|span: &SignedDuration| !span.is_negative())?;
    now.checked_sub(span).ok()
}

/// Without its fraction of a second.
pub(crate) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second() - i64::from(time.subsec_nanosecond() < 0)).unwrap_or(time)
}

/// The first whole second that is not before it.
pub(crate) fn up(time: Timestamp) -> Timestamp {
    let below = whole(time);
    if below < time { Timestamp::from_second(below.as_second() + 1).unwrap_or(time) } else { below }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &str) -> Result<String, String> {
        let now = "2026-01-02T12:00:00.7Z".parse().unwrap();
        parse(text, &TimeZone::get(zone).unwrap(), now).map(|moment| match moment {
            Moment::At(time) => time.to_string(),
            Moment::Latest => "latest".to_owned(),
        })
    }

    #[test]
    fn times_are_understood_in_every_form() {
        for (text, wanted) in [
            ("2024-05-07T07:48:47Z", "2024-05-07T07:48:47Z"),
            ("2024-05-07T15:48:47+08:00", "2024-05-07T07:48:47Z"),
            ("2024-05-07T07:48:47.999Z", "2024-05-07T07:48:47Z"),
            ("May 07,2024 15:48:47 UTC+0800", "2024-05-07T07:48:47Z"),
            ("2024-05-07 07:48:47", "2024-05-07T07:48:47Z"),
            ("2024-05-07 07:48", "2024-05-07T07:48:00Z"),
            ("-15m", "2026-01-02T11:45:00Z"),
            ("2h ago", "2026-01-02T10:00:00Z"),
            ("-1h30m", "2026-01-02T10:30:00Z"),
            (" latest ", "latest"),
        ] {
            assert_eq!(at(text, "UTC").as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(at("2024-05-07 15:48:47", "Asia/Shanghai").as_deref(), Ok("2024-05-07T07:48:47Z"));
    }

    #[test]
    fn what_names_no_moment_or_two_is_refused() {
        for text in
            ["", "soon", "yesterday", "2024-05-07", "--5m", "-", "ago", "May 07,2024 15:48 UTC+0800", "15:48:47"]
        {
            assert!(at(text, "UTC").is_err(), "{text}");
        }
        // The clock shows it twice, when summer time ends; and never, when it begins.
        assert!(at("2024-10-27 02:30:00", "Europe/Madrid").is_err());
        assert!(at("2024-03-31 02:30:00", "Europe/Madrid").is_err());
    }
}
