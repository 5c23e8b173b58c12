//! A BackupSchedule and changes of its entries.

use jiff::{Timestamp, tz::TimeZone};
use kbbackup_api::v1alpha1::{BackupSchedule, BackupScheduleSpec, SchedulePolicy};
use kbbackup_core::cron::Cron;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::backup::parameters;
use crate::error::{CliError, Result};

/// What a person wants an entry to be; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub enabled: Option<bool>,
    pub cron: Option<String>,
    pub retention: Option<String>,
    pub parameters: Option<Vec<(String, String)>>,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A schedule of one entry for a policy; it bears the policy's labels, so that both belong to one source.
pub(crate) fn schedule(
    name: &str,
    policy: &kbbackup_api::v1alpha1::BackupPolicy,
    entry: SchedulePolicy,
    starting_deadline_minutes: Option<i64>,
) -> BackupSchedule {
    BackupSchedule {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: policy.metadata.namespace.clone(),
            labels: policy.metadata.labels.clone(),
            ..ObjectMeta::default()
        },
        spec: BackupScheduleSpec {
            backup_policy_name: policy.metadata.name.clone().unwrap_or_default(),
            starting_deadline_minutes,
            schedules: vec![entry],
        },
        status: None,
    }
}

/// A new entry, switched on.
pub(crate) fn entry(name: Option<&str>, method: &str, cron: &str, change: &Change) -> SchedulePolicy {
    SchedulePolicy {
        enabled: Some(change.enabled.unwrap_or(true)),
        name: name.map(str::to_owned),
        backup_method: method.to_owned(),
        cron_expression: cron.to_owned(),
        retention_period: change.retention.clone(),
        parameters: parameters(change.parameters.as_deref().unwrap_or_default()),
    }
}

/// Changes the entry at `index` of `spec.schedules` in place. Fields that this program does not know stay.
pub(crate) fn change(entries: &mut [Value], index: usize, change: &Change) {
    let Some(fields) = entries.get_mut(index).and_then(Value::as_object_mut) else { return };
    if let Some(enabled) = change.enabled {
        fields.insert("enabled".to_owned(), json!(enabled));
    }
    if let Some(cron) = &change.cron {
        fields.insert("cronExpression".to_owned(), json!(cron));
    }
    if let Some(retention) = &change.retention {
        fields.insert("retentionPeriod".to_owned(), json!(retention));
    }
    if let Some(pairs) = &change.parameters {
        fields.insert("parameters".to_owned(), json!(parameters(pairs)));
    }
}

/// A cron expression as it is stored. A time zone other than UTC goes in front of it where `zones` are understood; elsewhere
/// the expression is moved to UTC if that gives the same times for ever.
///
/// # Errors
/// When it is no cron expression, the zone is unknown, or it cannot be moved.
pub(crate) fn cron(text: &str, zone: Option<&str>, zones: bool, now: Timestamp) -> Result<String> {
    let parsed = Cron::parse(text).map_err(|error| {
        CliError::usage("--cron cannot be used", error.to_string()).hint("write it as in --cron \"0 2 * * *\"")
    })?;
    let Some(zone) = zone else { return Ok(text.trim().to_owned()) };
    if parsed.zone.is_some() {
        return Err(CliError::usage("--cron-timezone cannot be used", "the cron expression names a time zone itself"));
    }
    let known = TimeZone::get(zone).map_err(|_| {
        CliError::usage(format!("time zone {zone} is not known"), "write it as in --cron-timezone Europe/Madrid")
    })?;
    if zones {
        let name = known.iana_name().unwrap_or(zone);
        return Ok(format!("CRON_TZ={name} {}", parsed.expression));
    }
    in_utc(&parsed.expression, &known, now).ok_or_else(|| {
        CliError::usage(
            format!("{text:?} in {zone} cannot be moved to UTC"),
            "the controller of this cluster knows UTC only, and the rule would not run at the same times all year",
        )
        .hint("give the times in UTC, without --cron-timezone")
    })
}

/// The same times in UTC: for rules of every day, in zones whose offset does not change.
fn in_utc(expression: &str, zone: &TimeZone, now: Timestamp) -> Option<String> {
    if zone.following(now).next().is_some() {
        return None;
    }
    let offset = zone.to_offset(now).seconds() / 60;
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let [minute, hours, "*", "*", "*"] = fields.as_slice() else {
        return (offset == 0).then(|| expression.to_owned());
    };
    let minute: i32 = minute.parse().ok()?;
    let mut moved = Vec::new();
    let mut at = 0;
    for hour in hours.split(',') {
        let whole = (hour.parse::<i32>().ok()? * 60 + minute - offset).rem_euclid(24 * 60);
        at = whole % 60;
        moved.push(whole / 60);
    }
    moved.sort_unstable();
    let hours: Vec<String> = moved.iter().map(ToString::to_string).collect();
    Some(format!("{at} {} * * *", hours.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_zone_stands_in_front_where_it_is_understood() {
        assert_eq!(cron("0 2 * * *", Some("Europe/Madrid"), true, now()).unwrap(), "CRON_TZ=Europe/Madrid 0 2 * * *");
        assert_eq!(cron(" 0 2 * * * ", None, true, now()).unwrap(), "0 2 * * *");
    }

    #[test]
    fn elsewhere_a_rule_is_moved_only_if_it_stays_exact() {
        for (text, zone, wanted) in [
            ("0 2 * * *", "Asia/Tokyo", Some("0 17 * * *")),
            ("15 1,13 * * *", "Asia/Kolkata", Some("45 7,19 * * *")),
            ("0 2 * * 0", "UTC", Some("0 2 * * 0")),
            // The day of the week would change with the hour.
            ("0 2 * * 0", "Asia/Tokyo", None),
            ("*/5 2 * * *", "Asia/Tokyo", None),
            // Summer time.
            ("0 2 * * *", "Europe/Madrid", None),
        ] {
            assert_eq!(cron(text, Some(zone), false, now()).ok().as_deref(), wanted, "{text} in {zone}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(cron("every night", None, true, now()).is_err());
        assert!(cron("0 2 * * *", Some("Moon/Base"), true, now()).is_err());
        assert!(cron("TZ=Asia/Tokyo 0 2 * * *", Some("Asia/Tokyo"), true, now()).is_err());
    }

    #[test]
    fn a_change_touches_what_was_asked_for_and_no_field_that_we_do_not_know() {
        let mut entries = vec![
            json!({"backupMethod": "full", "cronExpression": "0 2 * * *", "enabled": true, "later": {"x": 1}}),
            json!({"backupMethod": "other", "cronExpression": "0 3 * * *"}),
        ];
        change(&mut entries, 0, &Change { enabled: Some(false), retention: Some("3d".into()), ..Change::default() });
        assert_eq!(
            entries,
            [
                json!({"backupMethod": "full", "cronExpression": "0 2 * * *", "enabled": false, "later": {"x": 1},
                    "retentionPeriod": "3d"}),
                json!({"backupMethod": "other", "cronExpression": "0 3 * * *"}),
            ]
        );
    }
}
