//! A Backup: what `kubectl apply` of a few lines would make as well.

use jiff::Timestamp;
use kbbackup_api::v1alpha1::{Backup, BackupSpec, DeletionPolicy, ParameterPair};
use kube::api::ObjectMeta;

/// What the person asked for, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub name: String,
    pub namespace: String,
    pub policy: String,
    pub method: String,
    pub parent: Option<String>,
    pub retention: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub parameters: Vec<(String, String)>,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
}

pub(crate) fn backup(wish: &Wish) -> Backup {
    Backup {
        metadata: ObjectMeta {
            name: Some(wish.name.clone()),
            namespace: Some(wish.namespace.clone()),
            labels: (!wish.labels.is_empty()).then(|| wish.labels.iter().cloned().collect()),
            annotations: (!wish.annotations.is_empty()).then(|| wish.annotations.iter().cloned().collect()),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            backup_policy_name: wish.policy.clone(),
            backup_method: wish.method.clone(),
            deletion_policy: wish.deletion_policy,
            retention_period: wish.retention.clone(),
            parent_backup_name: wish.parent.clone(),
            parameters: parameters(&wish.parameters),
        },
        status: None,
    }
}

pub(crate) fn parameters(pairs: &[(String, String)]) -> Vec<ParameterPair> {
    pairs.iter().map(|(name, value)| ParameterPair { name: name.clone(), value: value.clone() }).collect()
}

/// `<source>-<method>-<yyyyMMddHHmmss>` in UTC; a name that is too long ends in a hash of the whole.
pub(crate) fn default_name(source: &str, method: &str, now: Timestamp) -> String {
    kbbackup_core::names::shorten63(&format!("{source}-{method}-{}", now.strftime("%Y%m%d%H%M%S")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_tells_source_method_and_time() {
        let now = Timestamp::from_second(1_767_323_045).unwrap();
        assert_eq!(default_name("pg", "full", now), "pg-full-20260102030405");
        let long = default_name(&"x".repeat(80), "full", now);
        assert!(long.len() <= 63);
        assert_ne!(long, default_name(&"x".repeat(81), "full", now));
    }

    #[test]
    fn a_backup_holds_only_what_was_asked_for() {
        let wish = Wish {
            name: "one".into(),
            namespace: "demo".into(),
            policy: "pg".into(),
            method: "full".into(),
            retention: Some("7d".into()),
            parameters: vec![("checkpoint".into(), "spread".into())],
            ..Wish::default()
        };
        insta::assert_yaml_snapshot!(backup(&wish));
    }
}
