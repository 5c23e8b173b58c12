//! One entry of a schedule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ParameterPair;

/// When to make a backup with one method, and how long to keep it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulePolicy {
    /// Whether the entry is on. Without it a periodic entry is off and a continuous one is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Name of the entry, unique in the schedule. Default: the backup method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Method of the policy.
    pub backup_method: String,

    /// When to run, as cron text in UTC, for example `0 2 * * *`. For a continuous method it sets how often the log is
    /// archived.
    pub cron_expression: String,

    /// How long to keep the backups, for example `7d` or `1mo` (units `y`, `mo`, `w`, `d`, `h`, `m`); zero keeps them for
    /// ever. Default: `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = SchedulePolicy::RETENTION_PERIOD))]
    pub retention_period: Option<String>,

    /// Parameters for the backups, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = json!(["name"]))
    )]
    pub parameters: Vec<ParameterPair>,
}

impl SchedulePolicy {
    /// How long backups are kept unless said otherwise.
    pub const RETENTION_PERIOD: &'static str = "7d";

    /// Name of the entry, or else its method.
    pub fn name(&self) -> &str {
        self.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.backup_method)
    }

    /// How long backups are kept.
    pub fn retention_period(&self) -> &str {
        self.retention_period.as_deref().unwrap_or(Self::RETENTION_PERIOD)
    }
}
