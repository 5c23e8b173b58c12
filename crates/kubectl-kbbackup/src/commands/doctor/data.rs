//! What backups are made of: repositories, policies, recent results.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::{
    names::FINALIZER,
    v1alpha1::{
        AccessMethod, ActionSet, Availability, Backup, BackupPhase, BackupPolicy, StorageProvider, StorageProviderPhase,
    },
};
use kube::{Api, ResourceExt, api::ListParams};

use super::Finding;
use crate::{
    app::{App, list_all},
    commands::repo,
    follow,
    output::human,
    remedy,
};

/// A deletion that takes longer is stuck.
const STUCK: SignedDuration = SignedDuration::from_mins(10);
/// Failures older than this are history.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

pub(super) async fn repos(app: &App) -> Vec<Finding> {
    let mut findings = Vec::new();
    let providers = list_all(&app.everywhere::<StorageProvider>(), ListParams::default(), "storage providers")
        .await
        .unwrap_or_default();
    if providers.is_empty() {
        findings.push(Finding::bad("providers", "there are no storage providers").cure("kubectl kbbackup install"));
    }
    let repos = match repo::all(app).await {
        Ok(repos) => repos,
        Err(error) => return vec![Finding::warn("repositories", error.to_string())],
    };
    if repos.is_empty() {
        findings.push(
            Finding::bad("repositories", "there is no repository; backups have nowhere to go")
                .cure("kubectl kbbackup repo create")
                .cure("kubectl kbbackup install --embedded-repo"),
        );
        return findings;
    }
    for one in &repos {
        let name = one.name_any();
        if repo::is_ready(one) {
            let mark = if repo::is_default(one) { ", the default" } else { "" };
            findings.push(Finding::good("repositories", format!("backuprepo/{name} is ready{mark}")));
            continue;
        }
        let phase = one
            .status
            .as_ref()
            .and_then(|status| status.phase)
            .map_or_else(|| "waiting for the operator".to_owned(), |phase| phase.to_string());
        let reason = follow::repo_reason(one);
        let mut finding = Finding::bad(
            "repositories",
            format!("backuprepo/{name} is {phase}\n{}", reason.trim()).trim_end().to_owned(),
        );
        if let Some(advice) = remedy::advice(&reason) {
            finding = finding.cure(advice);
        }
        let provider = providers.iter().find(|provider| provider.name_any() == one.spec.storage_provider_ref);
        match provider.and_then(|provider| provider.status.as_ref()?.phase) {
            None if provider.is_none() => {
                finding = finding.cure(format!("storageprovider/{} does not exist", one.spec.storage_provider_ref));
            }
            Some(StorageProviderPhase::NotReady) if one.spec.access_method() == AccessMethod::Mount => {
                finding = finding.cure("its storage provider is not ready: a CSI driver is missing");
            }
            _ => {}
        }
        findings.push(finding.cure(format!("kubectl kbbackup repo check {name}")));
    }
    let defaults: Vec<String> = repos.iter().filter(|one| repo::is_default(one)).map(ResourceExt::name_any).collect();
    match defaults.len() {
        0 => findings.push(
            Finding::warn("default-repository", "no repository is the default; policies must name one")
                .cure(format!("kubectl kbbackup repo update {} --default=true", repos[0].name_any())),
        ),
        1 => {}
        _ => findings.push(
            Finding::bad(
                "default-repository",
                format!("several repositories are the default: {}", defaults.join(", ")),
            )
            .cure("kubectl kbbackup repo update NAME --default=false"),
        ),
    }
    findings
}

pub(super) async fn policies(app: &App, all: bool) -> Vec<Finding> {
    let policies = match list_all(&app.scoped::<BackupPolicy>(all), ListParams::default(), "policies").await {
        Ok(policies) => policies,
        Err(error) => return vec![Finding::warn("policies", error.to_string())],
    };
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await.unwrap_or_default();
    let mut findings = Vec::new();
    for policy in &policies {
        let name = format!("backuppolicy/{}", policy.name_any());
        let namespace = policy.namespace().unwrap_or_default();
        if let Some(status) = policy.status.as_ref().filter(|status| status.phase == Some(Availability::Unavailable)) {
            let why = status.message.clone().unwrap_or_default();
            findings.push(
                Finding::bad("policies", format!("{name} is unavailable: {why}"))
                    .cure(format!("kubectl kbbackup policy describe {} -n {namespace}", policy.name_any())),
            );
        }
        for method in &policy.spec.backup_methods {
            let Some(wanted) = method.action_set_name.as_ref() else { continue };
            if !sets.iter().any(|set| set.name_any() == *wanted) {
                findings.push(
                    Finding::bad(
                        "policies",
                        format!("{name} method {} needs actionset/{wanted}, which does not exist", method.name),
                    )
                    .cure("kubectl kbbackup install"),
                );
            }
        }
        let labels: Vec<String> = policy
            .spec
            .target
            .iter()
            .filter_map(|target| target.pod_selector.as_ref())
            .filter(|selector| selector.match_expressions.is_empty())
            .flat_map(|selector| selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")))
            .collect();
        if !labels.is_empty() {
            let pods: Api<Pod> = app.within(&namespace);
            let found = pods.list(&ListParams::default().labels(&labels.join(",")).limit(1)).await;
            if found.is_ok_and(|found| found.items.is_empty()) {
                findings.push(
                    Finding::warn(
                        "policies",
                        format!("{name} in namespace {namespace} matches no pod ({})", labels.join(",")),
                    )
                    .cure(format!("kubectl get pods -n {namespace} --show-labels")),
                );
            }
        }
    }
    if findings.is_empty() && !policies.is_empty() {
        findings.push(Finding::good(
            "policies",
            format!("{} in order", human::count(policies.len(), "policy is", "policies are")),
        ));
    }
    findings
}

pub(super) async fn backups(app: &App, all: bool) -> Vec<Finding> {
    match list_all(&app.scoped::<Backup>(all), ListParams::default(), "backups").await {
        Ok(backups) => judge(&backups, Timestamp::now()),
        Err(error) => vec![Finding::warn("backups", error.to_string())],
    }
}

fn judge(backups: &[Backup], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for backup in backups {
        let name = backup.name_any();
        let namespace = backup.namespace().unwrap_or_default();
        let since = |time: Option<Timestamp>| time.map(|time| now.duration_since(time)).unwrap_or_default();
        let deleting = since(backup.metadata.deletion_timestamp.as_ref().map(|time| time.0));
        if deleting > STUCK {
            let reason =
                backup.status.as_ref().and_then(|status| status.deletion_failure_reason.clone()).unwrap_or_default();
            let held: Vec<&str> =
                backup.finalizers().iter().map(String::as_str).filter(|finalizer| *finalizer != FINALIZER).collect();
            let why = if !reason.is_empty() {
                reason
            } else if held.is_empty() {
                "its data is not gone".to_owned()
            } else {
                format!("held by {}", held.join(", "))
            };
            findings.push(
                Finding::bad(
                    "deletions",
                    format!("backup/{name} has been deleting for {}: {why}", human::span(deleting)),
                )
                .cure(format!("kubectl kbbackup describe {name} -n {namespace}")),
            );
        }
        let created = since(backup.creation_timestamp().map(|time| time.0));
        if follow::backup_phase(backup) == Some(BackupPhase::Failed) && created < RECENT {
            let reason = follow::backup_reason(backup);
            findings.push(
                Finding::warn(
                    "backups",
                    format!(
                        "backup/{name} failed {} ago: {}",
                        human::span(created),
                        reason.lines().next().unwrap_or_default()
                    ),
                )
                .cure(format!("kubectl kbbackup describe {name} -n {namespace}")),
            );
        }
        if backup.status.as_ref().and_then(|status| status.phase).is_none() && created > STUCK {
            findings.push(
                Finding::bad(
                    "backups",
                    format!("backup/{name} was created {} ago and nobody has looked at it", human::span(created)),
                )
                .cure("is the operator running? see above"),
            );
        }
    }
    if findings.is_empty() && !backups.is_empty() {
        findings.push(Finding::good(
            "backups",
            format!("{}, none failed lately, none is stuck", human::count(backups.len(), "backup", "backups")),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Mark;
    use serde_json::json;

    fn backup(metadata: &serde_json::Value, status: &serde_json::Value) -> Backup {
        let mut whole = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "namespace": "demo", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"}, "status": status});
        for (key, value) in metadata.as_object().unwrap() {
            whole["metadata"][key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_stuck_deletion_names_what_holds_it() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let stuck = backup(
            &json!({"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": ["example.com/hold"]}),
            &json!({"phase": "Deleting"}),
        );
        let findings = judge(&[stuck], now);
        assert_eq!(findings[0].result, Mark::Bad);
        assert!(findings[0].message.contains("example.com/hold"), "{findings:?}");
    }

    #[test]
    fn a_backup_nobody_looked_at_means_no_operator() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(judge(&[backup(&json!({}), &json!({}))], now)[0].result, Mark::Bad);
        assert_eq!(judge(&[backup(&json!({}), &json!({"phase": "Completed"}))], now)[0].result, Mark::Good);
    }
}
