//! Times as Go writes them: recipes give a Go reference-time layout in `DP_TIME_FORMAT`.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// The layout used when a recipe names none.
pub const RFC3339: &str = "2006-01-02T15:04:05Z07:00";

/// Reads `±HH:MM`; anything else is UTC, as in the contract.
pub fn offset(text: &str) -> Offset {
    let parse = || {
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        if hours.len() != 2 || minutes.len() != 2 {
            return None;
        }
        let number = |text: &str| text.parse::<u16>().ok().map(i32::from);
        let seconds = number(hours)? * 3600 + number(minutes)? * 60;
        Offset::from_seconds(sign * seconds).ok()
    };
    parse().unwrap_or(Offset::UTC)
}

/// Formats `time`, shifted to `offset`, by a Go layout. A zone name (`MST`) always reads `UTC`, as the reference's does.
pub fn format(layout: &str, time: Timestamp, offset: Offset) -> String {
    let local = time.to_zoned(TimeZone::fixed(offset)).datetime();
    let mut out = String::with_capacity(layout.len() + 8);
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some((field, length)) = next_field(rest) {
            write_field(&mut out, field, local, offset);
            rest = &rest[length..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// Whole seconds as Go prints a duration: `45s`, `1m0s`, `1h0m5s`.
pub fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[derive(Clone, Copy)]
enum Field {
    MonthName,
    MonthShort,
    Month { padded: bool },
    DayName,
    DayShort,
    Day { pad: Option<char> },
    YearDay { pad: char },
    Hour,
    Hour12 { padded: bool },
    Minute { padded: bool },
    Second { padded: bool },
    Year,
    YearShort,
    Half { upper: bool },
    ZoneName,
    Zone { utc_is_z: bool, colons: bool, minutes: bool, seconds: bool },
    Fraction { mark: char, digits: usize, trim: bool },
}

/// The field that `text` starts with and its length. Longer patterns stand before their prefixes.
fn next_field(text: &str) -> Option<(Field, usize)> {
    const FIELDS: [(&str, Field); 33] = [
        ("January", Field::MonthName),
        ("Jan", Field::MonthShort),
        ("Monday", Field::DayName),
        ("Mon", Field::DayShort),
        ("MST", Field::ZoneName),
        ("002", Field::YearDay { pad: '0' }),
        ("01", Field::Month { padded: true }),
        ("02", Field::Day { pad: Some('0') }),
        ("03", Field::Hour12 { padded: true }),
        ("04", Field::Minute { padded: true }),
        ("05", Field::Second { padded: true }),
        ("06", Field::YearShort),
        ("15", Field::Hour),
        ("1", Field::Month { padded: false }),
        ("2006", Field::Year),
        ("2", Field::Day { pad: None }),
        ("__2", Field::YearDay { pad: ' ' }),
        ("_2", Field::Day { pad: Some(' ') }),
        ("3", Field::Hour12 { padded: false }),
        ("4", Field::Minute { padded: false }),
        ("5", Field::Second { padded: false }),
        ("PM", Field::Half { upper: true }),
        ("pm", Field::Half { upper: false }),
        ("-070000", zone(false, false, true, true)),
        ("-07:00:00", zone(false, true, true, true)),
        ("-0700", zone(false, false, true, false)),
        ("-07:00", zone(false, true, true, false)),
        ("-07", zone(false, false, false, false)),
        ("Z070000", zone(true, false, true, true)),
        ("Z07:00:00", zone(true, true, true, true)),
        ("Z0700", zone(true, false, true, false)),
        ("Z07:00", zone(true, true, true, false)),
        ("Z07", zone(true, false, false, false)),
    ];
    if let Some(found) = fraction(text) {
        return Some(found);
    }
    // `_2006` is an underscore and a year, not a day.
    if text.starts_with("_2006") {
        return None;
    }
    FIELDS.iter().find_map(|(pattern, field)| {
        let rest = text.strip_prefix(pattern)?;
        let word_goes_on = rest.starts_with(|c: char| c.is_ascii_lowercase());
        let is_short_name = matches!(field, Field::MonthShort | Field::DayShort);
        (!(is_short_name && word_goes_on)).then_some((*field, pattern.len()))
    })
}

#[expect(clippy::fn_params_excessive_bools, reason = "one line per pattern in the table above")]
const fn zone(utc_is_z: bool, colons: bool, minutes: bool, seconds: bool) -> Field {
    Field::Zone { utc_is_z, colons, minutes, seconds }
}

/// `.000` or `,999`: a mark and equal digits with no other digit behind them.
fn fraction(text: &str) -> Option<(Field, usize)> {
    let mark = text.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digit = text[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = text[1..].chars().take_while(|c| *c == digit).count();
    let ends = !text[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
    ends.then_some((Field::Fraction { mark, digits, trim: digit == '9' }, 1 + digits))
}

fn write_field(out: &mut String, field: Field, time: DateTime, offset: Offset) {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let month = MONTHS[usize::from(time.month().unsigned_abs()) - 1];
    let day = DAYS[usize::from(time.weekday().to_monday_zero_offset().unsigned_abs())];
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    // Writing to a string cannot fail.
    let _ = match field {
        Field::MonthName => write!(out, "{month}"),
        Field::MonthShort => write!(out, "{}", &month[..3]),
        Field::DayName => write!(out, "{day}"),
        Field::DayShort => write!(out, "{}", &day[..3]),
        Field::Month { padded } => number(out, time.month(), padded),
        Field::Day { pad: None } => number(out, time.day(), false),
        Field::Day { pad: Some(' ') } => write!(out, "{:>2}", time.day()),
        Field::Day { pad: Some(_) } => number(out, time.day(), true),
        Field::YearDay { pad: ' ' } => write!(out, "{:>3}", time.day_of_year()),
        Field::YearDay { .. } => write!(out, "{:03}", time.day_of_year()),
        Field::Hour => number(out, time.hour(), true),
        Field::Hour12 { padded } => number(out, hour12, padded),
        Field::Minute { padded } => number(out, time.minute(), padded),
        Field::Second { padded } => number(out, time.second(), padded),
        Field::Year => write!(out, "{:04}", time.year()),
        Field::YearShort => write!(out, "{:02}", time.year().rem_euclid(100)),
        Field::Half { upper } => write!(
            out,
            "{}",
            match (time.hour() >= 12, upper) {
                (true, true) => "PM",
                (true, false) => "pm",
                (false, true) => "AM",
                (false, false) => "am",
            }
        ),
        Field::ZoneName => write!(out, "UTC"),
        Field::Zone { utc_is_z: true, .. } if offset.seconds() == 0 => write!(out, "Z"),
        Field::Zone { colons, minutes, seconds, .. } => write_zone(out, offset, colons, minutes, seconds),
        Field::Fraction { mark, digits, trim } => write_fraction(out, time.subsec_nanosecond(), mark, digits, trim),
    };
}

fn number(out: &mut String, value: i8, padded: bool) -> std::fmt::Result {
    if padded { write!(out, "{value:02}") } else { write!(out, "{value}") }
}

fn write_zone(out: &mut String, offset: Offset, colons: bool, minutes: bool, seconds: bool) -> std::fmt::Result {
    let total = offset.seconds();
    let (sign, total) = (if total < 0 { '-' } else { '+' }, total.unsigned_abs());
    let colon = if colons { ":" } else { "" };
    write!(out, "{sign}{:02}", total / 3600)?;
    if minutes {
        write!(out, "{colon}{:02}", total / 60 % 60)?;
    }
    if seconds {
        write!(out, "{colon}{:02}", total % 60)?;
    }
    Ok(())
}

fn write_fraction(out: &mut String, nanos: i32, mark: char, digits: usize, trim: bool) -> std::fmt::Result {
    let all = format!("{nanos:09}");
    let kept = all.get(..digits).unwrap_or(&all);
    let kept = if trim { kept.trim_end_matches('0') } else { kept };
    if kept.is_empty() { Ok(()) } else { write!(out, "{mark}{kept}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn behaviour_6_6_layouts_of_the_field() {
        let time = at("2026-08-05T09:07:03Z");
        for (layout, zone, wanted) in [
            (RFC3339, "", "2026-08-05T09:07:03Z"),
            (RFC3339, "+08:00", "2026-08-05T17:07:03+08:00"),
            ("2006-01-02 15:04:05", "+08:00", "2026-08-05 17:07:03"),
            ("2006-01-02T15:04:05Z", "", "2026-08-05T09:07:03Z"),
            ("2006-01-02 15:04:05 MST", "+08:00", "2026-08-05 17:07:03 UTC"),
            ("Jan 02,2006 15:04:05 UTC-0700", "-03:30", "Aug 05,2026 05:37:03 UTC-0330"),
            ("Mon Jan _2 3:04:05 PM 2006", "", "Wed Aug  5 9:07:03 AM 2026"),
            ("Monday, 2 January 06 002 __2", "", "Wednesday, 5 August 26 217 217"),
            ("20060102150405", "", "20260805090703"),
            ("2006_01_02_2006", "", "2026_08_05_2026"),
            ("15h4m5s -07 -070000 Z0700", "+05:45", "14h52m3s +05 +054500 +0545"),
            ("Months", "", "Months"),
        ] {
            assert_eq!(format(layout, time, offset(zone)), wanted, "{layout} in {zone:?}");
        }
    }

    #[test]
    fn fractions_are_padded_or_trimmed() {
        let time = at("2026-08-05T21:07:03.120Z");
        for (layout, wanted) in [
            ("05.000", "03.120"),
            ("05.999", "03.12"),
            ("05,000000", "03,120000"),
            ("5.99 03pm", "3.12 09pm"),
            ("05.0001", "03.0008"),
        ] {
            assert_eq!(format(layout, time, Offset::UTC), wanted, "{layout}");
        }
        assert_eq!(format("05.999", at("2026-08-05T21:07:03Z"), Offset::UTC), "03");
    }

    #[test]
    fn durations_look_like_go_s() {
        for (seconds, wanted) in [(0, "0s"), (45, "45s"), (60, "1m0s"), (3605, "1h0m5s")] {
            assert_eq!(duration(seconds), wanted);
        }
    }

    #[test]
    fn an_offset_that_is_none_is_utc() {
        for text in ["", "CET", "+8:00", "08:00", "+08-00", "é8:00"] {
            assert_eq!(offset(text), Offset::UTC, "{text}");
        }
        assert_eq!(offset("-12:59").seconds(), -(12 * 3600 + 59 * 60));
    }
}
