//! From what a person calls the source to a schedule and one of its entries.

use k8s_openapi::api::apps::v1::StatefulSet;
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicy, BackupSchedule, BackupType, SchedulePolicy};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value;

use crate::{
    app::{App, get, list_all},
    ask,
    commands::list,
    error::{CliError, Doing, Result},
    source::{self, Source},
    ui::Ui,
};

/// A schedule as it stands in the cluster.
pub(super) struct Found {
    pub schedule: BackupSchedule,
    /// The same with every field, also those that this program does not know.
    raw: DynamicObject,
}

impl Found {
    pub(super) fn name(&self) -> String {
        self.schedule.name_any()
    }

    pub(super) fn raw(&self) -> &DynamicObject {
        &self.raw
    }

    /// The entries as they are stored.
    pub(super) fn entries(&self) -> Vec<Value> {
        self.raw.data["spec"]["schedules"].as_array().cloned().unwrap_or_default()
    }
}

pub(super) fn api(app: &App) -> Api<DynamicObject> {
    Api::namespaced_with(app.client.clone(), &app.namespace, &ApiResource::erase::<BackupSchedule>(&()))
}

/// A source, or `schedule/NAME`.
enum Wanted {
    Schedule(String),
    Source(Source),
}

fn wanted(text: &str) -> Result<Wanted> {
    match text.split_once('/') {
        Some(("schedule" | "schedules" | "backupschedule" | "backupschedules" | "bs", name)) if !name.is_empty() => {
            Ok(Wanted::Schedule(name.to_owned()))
        }
        _ => Source::parse(text).map(Wanted::Source),
    }
}

async fn read(app: &App, name: &str) -> Result<Found> {
    let raw = get(&api(app), &format!("backupschedule/{name}")).await?;
    let schedule = raw
        .clone()
        .try_parse::<BackupSchedule>()
        .map_err(|error| CliError::refused(format!("backupschedule/{name} cannot be understood"), error.to_string()))?;
    Ok(Found { schedule, raw })
}

/// Names of the schedules of a source, in order.
pub(super) async fn names(app: &App, text: &str) -> Result<Vec<String>> {
    let source = match wanted(text)? {
        Wanted::Schedule(name) => return Ok(vec![name]),
        Wanted::Source(source) => source,
    };
    let policies: Vec<String> = policies(app, &source).await?.iter().map(ResourceExt::name_any).collect();
    let all = list_all(&app.here::<BackupSchedule>(), ListParams::default(), "schedules").await?;
    let of = |schedule: &BackupSchedule| match &source {
        Source::Any(name) if schedule.name_any() == *name => true,
        _ => policies.contains(&schedule.spec.backup_policy_name),
    };
    Ok(all.iter().filter(|schedule| of(schedule)).map(ResourceExt::name_any).collect())
}

/// Whether anything that could be scheduled is called so.
pub(super) async fn has_policy(app: &App, text: &str) -> Result<bool> {
    match wanted(text)? {
        Wanted::Schedule(_) => Ok(true),
        Wanted::Source(source) => policies(app, &source).await.map(|found| !found.is_empty()),
    }
}

/// The schedule of a source. Without a source, or with several schedules, it is asked for.
///
/// # Errors
/// When there is none.
pub(super) async fn schedule(ui: &Ui, app: &App, source: Option<&str>) -> Result<Found> {
    let (found, what) = if let Some(text) = source {
        (names(app, text).await?, text.to_owned())
    } else {
        let all = list_all(&app.here::<BackupSchedule>(), ListParams::default(), "schedules").await?;
        (all.iter().map(ResourceExt::name_any).collect(), format!("namespace {}", app.namespace))
    };
    let flags = || found.iter().map(|name| format!("schedule/{name}")).collect::<Vec<_>>();
    match (found.as_slice(), source) {
        ([], _) => {
            let error = CliError::not_found(format!("{what} has no schedule"), "nothing is backed up by itself there")
                .hint("kubectl kbbackup schedule create SOURCE --method METHOD --cron \"0 2 * * *\"");
            Err(list::no_source(app, source.unwrap_or_default(), error).await)
        }
        ([only], Some(_)) => read(app, only).await,
        _ if ui.may_ask => read(app, &found[ask::select(ui, "Schedule", &found, 0)?]).await,
        (_, Some(_)) => Err(CliError::usage(
            format!("{what} has several schedules"),
            format!("name one of them: {}", flags().join(", ")),
        )),
        (_, None) => Err(ask::needed("SOURCE", "whose schedule", &flags())),
    }
}

/// The schedule that makes backups by a policy, if there is one.
pub(super) async fn of_policy(app: &App, policy: &BackupPolicy) -> Result<Option<Found>> {
    let all = list_all(&app.here::<BackupSchedule>(), ListParams::default(), "schedules").await?;
    let found = all.iter().find(|schedule| schedule.spec.backup_policy_name == policy.name_any());
    match found {
        Some(schedule) => read(app, &schedule.name_any()).await.map(Some),
        None => Ok(None),
    }
}

/// The policies of a source, the default one first.
pub(super) async fn policies(app: &App, source: &Source) -> Result<Vec<BackupPolicy>> {
    let all = source::policies(app).await?;
    let workload = match source {
        Source::Policy(_) => None,
        Source::Workload(name) | Source::Any(name) => {
            app.here::<StatefulSet>().get_opt(name).await.doing(|| format!("statefulset/{name} cannot be read"))?
        }
    };
    Ok(source::matching(&all, source, workload.as_ref()).into_iter().cloned().collect())
}

/// Place of the entry that is meant: by its name, by its method, or because there is no other.
///
/// # Errors
/// When none or several are meant; the error lists them.
pub(super) fn entry(ui: &Ui, schedule: &BackupSchedule, name: Option<&str>, method: Option<&str>) -> Result<usize> {
    let entries = &schedule.spec.schedules;
    let fits = |entry: &SchedulePolicy| {
        name.is_none_or(|name| entry.name() == name) && method.is_none_or(|method| entry.backup_method == method)
    };
    let fitting: Vec<usize> = (0..entries.len()).filter(|index| fits(&entries[*index])).collect();
    let told = |indexes: &[usize]| indexes.iter().map(|index| entries[*index].name().to_owned()).collect::<Vec<_>>();
    match fitting.as_slice() {
        [only] => Ok(*only),
        [] => {
            let wanted = [name.map(|name| format!("named {name}")), method.map(|method| format!("of method {method}"))];
            let wanted: Vec<String> = wanted.into_iter().flatten().collect();
            Err(CliError::not_found(
                format!("backupschedule/{} has no entry {}", schedule.name_any(), wanted.join(" and ")),
                format!("it has {}", told(&(0..entries.len()).collect::<Vec<_>>()).join(", ")),
            ))
        }
        several if ui.may_ask => {
            let lines: Vec<String> = several
                .iter()
                .map(|index| {
                    let entry = &entries[*index];
                    format!("{}  {} · {}", entry.name(), entry.backup_method, entry.cron_expression)
                })
                .collect();
            Ok(several[ask::select(ui, "Entry", &lines, 0)?])
        }
        several => Err(ask::needed("--entry", "which entry of the schedule is meant", &told(several))),
    }
}

/// The kind of backups that a method makes; `None` when that cannot be known.
pub(super) fn kind(policy: Option<&BackupPolicy>, sets: &[ActionSet], method: &str) -> Option<BackupType> {
    let method = policy?.spec.backup_methods.iter().find(|known| known.name == method)?;
    if method.snapshot_volumes() {
        return Some(BackupType::Full);
    }
    let name = method.action_set_name.as_deref()?;
    sets.iter().find(|set| set.name_any() == name).map(|set| set.spec.backup_type)
}

/// Whether an entry is on: a periodic one has to say so, a continuous one is on unless it says otherwise.
pub(super) fn is_on(entry: &SchedulePolicy, kind: Option<BackupType>) -> bool {
    entry.enabled.unwrap_or(kind == Some(BackupType::Continuous))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Color;
    use serde_json::json;

    fn two() -> BackupSchedule {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "pg"},
            "spec": {"backupPolicyName": "pg", "schedules": [
                {"backupMethod": "full", "cronExpression": "0 2 * * *"},
                {"name": "weekly", "backupMethod": "full", "cronExpression": "0 3 * * 0"}]}
        }))
        .unwrap()
    }

    #[test]
    fn an_entry_is_found_by_name_or_method_and_several_are_named() {
        let ui = Ui::new(Color::Never, true);
        assert_eq!(entry(&ui, &two(), Some("weekly"), None).unwrap(), 1);
        assert_eq!(entry(&ui, &two(), Some("full"), Some("full")).unwrap(), 0);
        let several = entry(&ui, &two(), None, Some("full")).unwrap_err();
        assert!(several.why.contains("full, weekly"), "{several}");
        let none = entry(&ui, &two(), None, Some("log")).unwrap_err();
        assert_eq!(none.exit, crate::exit::Exit::NotFound);
        assert!(none.why.contains("full, weekly"), "{none}");
    }

    #[test]
    fn a_schedule_can_be_named_itself() {
        assert!(matches!(wanted("schedule/pg"), Ok(Wanted::Schedule(name)) if name == "pg"));
        assert!(matches!(wanted("sts/pg"), Ok(Wanted::Source(Source::Workload(_)))));
        assert!(wanted("job/pg").is_err());
    }
}
