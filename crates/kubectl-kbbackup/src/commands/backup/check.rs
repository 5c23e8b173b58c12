//! What is checked before anything is written: method, pods, parent.

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::v1alpha1::{
    ActionSet, Availability, BackupMethod, BackupPhase, BackupPolicy, BackupType, PodSelector,
};
use kube::{ResourceExt, api::ListParams};

use super::BackupArgs;
use crate::{
    app::{App, list_all},
    ask,
    commands::list,
    error::{CliError, Result},
    follow,
    ui::Ui,
};

/// The method that was named, the only one, or one that is asked for; where nobody can be asked, the first full one.
pub(super) async fn method(ui: &Ui, app: &App, policy: &BackupPolicy, args: &BackupArgs) -> Result<BackupMethod> {
    let methods = &policy.spec.backup_methods;
    let listed = || methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>().join(", ");
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let set = |method: &BackupMethod| {
        method.action_set_name.as_ref().and_then(|name| sets.iter().find(|set| set.name_any() == *name))
    };
    let what = format!("backuppolicy/{}", policy.name_any());
    let chosen = if let Some(name) = &args.method {
        let named = methods.iter().find(|method| method.name == *name);
        named.ok_or_else(|| CliError::usage(format!("{what} has no method {name}"), format!("it has {}", listed())))?
    } else {
        let full = |method: &&BackupMethod| {
            method.snapshot_volumes() || set(method).is_some_and(|set| set.spec.backup_type == BackupType::Full)
        };
        let first = if methods.len() == 1 { methods.first() } else { methods.iter().find(full) };
        if methods.len() > 1 && ui.may_ask && !args.yes {
            let default = methods.iter().position(|method| first.is_some_and(|first| first.name == method.name));
            ask_method(ui, policy, &sets, default.unwrap_or(0))?
        } else {
            first.ok_or_else(|| {
                CliError::usage(format!("no method of {what} makes a full backup now"), format!("it has {}", listed()))
            })?
        }
    };
    let kind = runnable(policy, &chosen.name, &sets, &args.param)?;
    if kind == Some(BackupType::Continuous) {
        return Err(CliError::usage(
            format!("method {} is continuous", chosen.name),
            "it is switched on by a schedule, not started as one backup",
        )
        .hint(format!(
            "kubectl kbbackup schedule create policy/{} --method {} --cron \"*/5 * * * *\"{}",
            policy.name_any(),
            chosen.name,
            app.namespace_flag()
        )));
    }
    Ok(chosen.clone())
}

/// Each method with its kind, its action set, and why it cannot run.
fn ask_method<'a>(ui: &Ui, policy: &'a BackupPolicy, sets: &[ActionSet], default: usize) -> Result<&'a BackupMethod> {
    let methods = &policy.spec.backup_methods;
    let lines: Vec<String> = methods
        .iter()
        .map(|method| {
            let (kind, note) = match runnable(policy, &method.name, sets, &[]) {
                Ok(Some(BackupType::Continuous)) => ("Continuous", " · by a schedule".to_owned()),
                Ok(kind) => (kind.map_or("Snapshot", |kind| kind.as_str()), String::new()),
                Err(error) => ("-", format!(" · cannot run: {}", error.why)),
            };
            line(method, kind) + &note
        })
        .collect();
    let chosen = &methods[ask::select(ui, "Method", &lines, default)?];
    ui.answered("--method", &chosen.name);
    Ok(chosen)
}

/// A method in a list to choose from.
pub(crate) fn line(method: &BackupMethod, kind: &str) -> String {
    let set = method.action_set_name.as_deref().filter(|_| !method.snapshot_volumes());
    format!("{}  {kind} · {}", method.name, set.unwrap_or("volume snapshots"))
}

/// Whether a method of the policy could run with these parameters; returns the kind of its backups, which volume snapshots
/// do not have.
pub(crate) fn runnable(
    policy: &BackupPolicy,
    method: &str,
    sets: &[ActionSet],
    parameters: &[(String, String)],
) -> Result<Option<BackupType>> {
    let named = policy.spec.backup_methods.iter().find(|known| known.name == method);
    let set_name = named.filter(|known| !known.snapshot_volumes()).and_then(|known| known.action_set_name.as_ref());
    let Some(set_name) = set_name else { return Ok(None) };
    let what = || format!("method {method} cannot run");
    let Some(set) = sets.iter().find(|set| set.name_any() == *set_name) else {
        return Err(
            CliError::missing(what(), format!("actionset/{set_name} does not exist")).hint("kubectl kbbackup install")
        );
    };
    if let Some(status) = set.status.as_ref().filter(|status| status.phase == Some(Availability::Unavailable)) {
        let why = status.message.clone().unwrap_or_default();
        return Err(CliError::missing(what(), format!("actionset/{set_name} is unavailable: {why}")));
    }
    check_parameters(set, parameters)?;
    Ok(Some(set.spec.backup_type))
}

/// Parameters that the action set does not know would be refused later, or ignored.
fn check_parameters(set: &ActionSet, given: &[(String, String)]) -> Result<()> {
    let known = set.spec.backup.as_ref().map(|backup| backup.with_parameters.clone()).unwrap_or_default();
    match given.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(CliError::usage(
            format!("parameter {name} is not known to actionset/{}", set.name_any()),
            if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) },
        )),
    }
}

/// A backup without a pod fails after a while; it is better said now.
pub(super) async fn target_exists(app: &App, policy: &BackupPolicy, method: &BackupMethod) -> Result<()> {
    let own = method.target.iter().chain(&method.targets);
    let shared = policy.spec.target.iter().chain(&policy.spec.targets);
    let selectors: Vec<&PodSelector> = if method.target.is_some() || !method.targets.is_empty() {
        own.filter_map(|target| target.pod_selector.as_ref()).collect()
    } else {
        shared.filter_map(|target| target.pod_selector.as_ref()).collect()
    };
    for selector in selectors
        .iter()
        .filter(|selector| selector.match_expressions.is_empty() && selector.fallback_label_selector.is_none())
    {
        let labels: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = list_all(&app.here::<Pod>(), ListParams::default().labels(&labels.join(",")), "pods").await?;
        if pods.is_empty() {
            return Err(CliError::usage(
                format!("backuppolicy/{} has nothing to back up", policy.name_any()),
                format!("no pod in namespace {} has {}", app.namespace, labels.join(",")),
            )
            .hint(format!("kubectl get pods -l {}{}", labels.join(","), app.namespace_flag())));
        }
        if !pods.iter().any(is_ready) {
            let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            return Err(CliError::usage(
                format!("backuppolicy/{} has nothing to back up", policy.name_any()),
                format!("none of its pods is ready: {}", names.join(", ")),
            )
            .hint(format!("kubectl describe pod {}{}", names[0], app.namespace_flag())));
        }
    }
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(super) async fn check_parent(app: &App, parent: &str, policy: &BackupPolicy) -> Result<()> {
    let backup = list::backup(app, parent).await?;
    if follow::backup_phase(&backup) != Some(BackupPhase::Completed) {
        return Err(CliError::usage(format!("backup/{parent} cannot be a parent"), "it is not completed"));
    }
    if backup.spec.backup_policy_name != policy.name_any() {
        return Err(CliError::usage(
            format!("backup/{parent} cannot be a parent"),
            format!("it belongs to policy {}, not {}", backup.spec.backup_policy_name, policy.name_any()),
        ));
    }
    Ok(())
}
