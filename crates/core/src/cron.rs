//! When a schedule's entry runs: cron expressions as Kubernetes' CronJobs read them.

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A cron expression and the zone in which it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// The five fields, or a macro such as `@daily`.
    pub expression: String,
    /// Zone of a prefix `TZ=` or `CRON_TZ=`; without one an expression is meant in UTC.
    pub zone: Option<String>,
}

/// Why a cron expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cron expression {text:?}: {why}; it has five fields (minute, hour, day of month, month, day of week), as in \"0 2 * * *\""
)]
pub struct CronError {
    text: String,
    why: String,
}

/// The macros, which Kubernetes takes in lower case only.
const MACROS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`CronError`] when Kubernetes would not take it either.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let refuse = |why: &str| CronError { text: text.to_owned(), why: why.to_owned() };
        let trimmed = text.trim();
        let zoned = trimmed.strip_prefix("CRON_TZ=").or_else(|| trimmed.strip_prefix("TZ="));
        let (zone, expression) = match zoned {
            None => (None, trimmed),
            Some(rest) => {
                let (zone, expression) =
                    rest.split_once(char::is_whitespace).ok_or_else(|| refuse("nothing follows the time zone"))?;
                (Some(zone.to_owned()), expression.trim())
            }
        };
        if zone.as_deref() == Some("") {
            return Err(refuse("the time zone is empty"));
        }
        let cron = Self { expression: expression.to_owned(), zone };
        if let Some(period) = expression.strip_prefix("@every ") {
            let fits = period.trim().starts_with(|c: char| c.is_ascii_digit())
                && period.trim().ends_with(['s', 'm', 'h'])
                && period.trim().chars().all(|c| c.is_ascii_digit() || "hms.uµn".contains(c));
            return if fits { Ok(cron) } else { Err(refuse("@every takes a duration such as 1h30m")) };
        }
        if expression.starts_with('@') {
            return if MACROS.contains(&expression) { Ok(cron) } else { Err(refuse("there is no such macro")) };
        }
        // The parser knows more than Kubernetes does: last days, weekdays nearest to a day, Sundays called 7.
        if expression.chars().any(|c| !(c.is_ascii_alphanumeric() || c.is_whitespace() || "*/,?-".contains(c))) {
            return Err(refuse("it has a character that is none of digits, names, * / , ? -"));
        }
        if expression.split_whitespace().count() != 5 {
            return Err(refuse("it does not have five fields"));
        }
        let has_letter = |field: &str| field.chars().any(char::is_alphabetic);
        if expression.split_whitespace().take(3).any(has_letter) {
            return Err(refuse("only months and days of the week have names"));
        }
        let days = expression.split_whitespace().nth(4).unwrap_or_default();
        if days.split([',', '-']).any(|day| day == "7") {
            return Err(refuse("days of the week are 0 (Sunday) to 6, or names"));
        }
        match cron.pattern() {
            Some(Err(why)) => Err(refuse(&why)),
            _ => Ok(cron),
        }
    }

    /// The first run after `after`; `None` when there is none, or it depends on when the CronJob was made (`@every`) or on
    /// a zone that this program does not know.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let zone = match self.zone.as_deref() {
            None | Some("UTC" | "Etc/UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).ok()?,
        };
        let next = self.pattern()?.ok()?.find_next_occurrence(&after.to_zoned(zone), false).ok()?;
        Some(next.timestamp())
    }

    fn pattern(&self) -> Option<Result<croner::Cron, String>> {
        if self.expression.starts_with("@every") {
            return None;
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        Some(parser.parse(&self.expression.replace('?', "*")).map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str) -> Option<String> {
        let cron = Cron::parse(text).unwrap();
        cron.next("2026-11-25T22:30:15Z".parse().unwrap()).map(|time| time.to_string())
    }

    #[test]
    fn behaviour_5_1_expressions_are_utc_unless_they_say_otherwise() {
        for (text, wanted) in [
            ("* * * * *", "2026-11-25T22:31:00Z"),
            ("*/20 * * * *", "2026-11-25T22:40:00Z"),
            ("0 2 * * *", "2026-11-26T02:00:00Z"),
            ("0 2 ? * SUN", "2026-11-29T02:00:00Z"),
            ("30 6 1 JAN *", "2027-01-01T06:30:00Z"),
            ("@hourly", "2026-11-25T23:00:00Z"),
            ("@daily", "2026-11-26T00:00:00Z"),
            ("CRON_TZ=UTC 0 23 * * *", "2026-11-25T23:00:00Z"),
        ] {
            assert_eq!(next(text).as_deref(), Some(wanted), "{text}");
        }
        assert_eq!(next("@every 1h30m"), None);
    }

    #[test]
    fn a_zone_is_kept_apart() {
        let cron = Cron::parse("TZ=Asia/Tokyo 0 2 * * *").unwrap();
        assert_eq!((cron.zone.as_deref(), cron.expression.as_str()), (Some("Asia/Tokyo"), "0 2 * * *"));
    }

    #[test]
    fn what_kubernetes_would_not_take_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "0 25 * * *",
            "0 0 L * *",
            "0 0 * * 5#2",
            "0 0 * * 7",
            "every day",
            "@fortnightly",
            "@every day",
            "TZ=UTC",
            "TZ= 0 0 * * *",
        ] {
            assert!(Cron::parse(text).is_err(), "{text}");
        }
    }
}
