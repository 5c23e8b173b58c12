//! How often a continuous backup is told to close what it collects: behaviour 4.9.

/// Seconds when the schedule's expression says nothing that could be used.
const DEFAULT: u64 = 60;

/// `DP_ARCHIVE_INTERVAL` of a schedule's cron expression: every `n` minutes or hours, else a minute.
pub fn interval(cron: &str) -> String {
    format!("{}s", seconds(cron))
}

fn seconds(cron: &str) -> u64 {
    let cron = cron.trim();
    let has_zone = cron.starts_with("TZ=") || cron.starts_with("CRON_TZ=");
    let cron = if has_zone { cron.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim()) } else { cron };
    let mut fields = cron.split_whitespace();
    let every = |field: Option<&str>| field?.strip_prefix("*/")?.parse::<u64>().ok().filter(|count| *count > 0);
    let (minutes, hours) = (every(fields.next()), every(fields.next()));
    let seconds = minutes.map(|count| count.checked_mul(60)).or_else(|| hours.map(|count| count.checked_mul(3600)));
    seconds.flatten().unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_4_9_archive_interval() {
        for (cron, wanted) in [
            ("*/5 * * * *", "300s"),
            ("0 */2 * * *", "7200s"),
            ("*/10 */2 * * *", "600s"),
            ("30 3 * * *", "60s"),
            ("@daily", "60s"),
            ("TZ=UTC */3 * * * *", "180s"),
            ("CRON_TZ=Asia/Tokyo 0 */1 * * *", "3600s"),
            ("*/0 * * * *", "60s"),
            ("", "60s"),
            ("CRON_TZ=UTC", "60s"),
        ] {
            assert_eq!(interval(cron), wanted, "{cron}");
        }
    }
}
