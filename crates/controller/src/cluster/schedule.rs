//! The BackupSchedule of a component: the template's entries, and what the cluster's `spec.backup` says on top. Pure.

use kbbackup_api::apps::ClusterBackup;
use kbbackup_api::names::annotations;
use kbbackup_api::v1alpha1::{
    BackupMethod, BackupPolicy, BackupSchedule, BackupScheduleSpec, BackupType, SchedulePolicy,
};
use kube::ResourceExt as _;

use super::policy::{Recipe, merged};

/// Tells the type of backups that a method makes, when its recipe is known.
pub(super) type TypeOf<'a> = dyn Fn(&BackupMethod) -> Option<BackupType> + Sync + 'a;

/// When an entry runs that the cluster asked for without saying when.
const CRON: &str = "0 18 * * *";

/// The schedule as it should be, given how it is; `None` when there is nothing to schedule.
pub(super) fn schedule(
    recipe: &Recipe<'_>,
    policy: &BackupPolicy,
    existing: Option<&BackupSchedule>,
    type_of: &TypeOf<'_>,
) -> Option<BackupSchedule> {
    let mut spec = existing.map_or_else(BackupScheduleSpec::default, |existing| existing.spec.clone());
    if existing.is_none() {
        spec.backup_policy_name = policy.name_any();
    }
    for entry in &recipe.template.spec.schedules {
        if !spec.schedules.iter().any(|known| known.name() == entry.name()) {
            spec.schedules.push(entry.clone());
        }
    }
    if let Some(wish) = &recipe.cluster.spec.backup {
        Merge { methods: &policy.spec.backup_methods, type_of }.apply(wish, &mut spec);
    }
    if spec.schedules.is_empty() {
        return None;
    }
    let mut wanted = recipe.metadata(recipe.schedule_name());
    // So that entries which follow the cluster's state are looked at when it changes.
    let notes = wanted.annotations.get_or_insert_default();
    notes.insert(annotations::RECONCILE.to_owned(), recipe.cluster.resource_version().unwrap_or_default());
    let mut schedule = existing.cloned().unwrap_or_default();
    schedule.metadata = merged(existing.map(|existing| &existing.metadata), wanted);
    schedule.spec = spec;
    Some(schedule)
}

struct Merge<'a> {
    methods: &'a [BackupMethod],
    type_of: &'a TypeOf<'a>,
}

impl Merge<'_> {
    fn method(&self, name: &str) -> Option<&BackupMethod> {
        self.methods.iter().find(|method| method.name == name)
    }

    fn type_of(&self, entry: &SchedulePolicy) -> Option<BackupType> {
        self.method(&entry.backup_method).and_then(self.type_of)
    }

    fn apply(&self, wish: &ClusterBackup, spec: &mut BackupScheduleSpec) {
        if wish.starting_deadline_minutes.is_some() {
            spec.starting_deadline_minutes = wish.starting_deadline_minutes;
        }
        let method = wish.method.as_deref().filter(|name| self.method(name).is_some());
        if let Some(method) = method {
            self.periodic(method, wish, &mut spec.schedules);
            self.incremental(method, wish, &mut spec.schedules);
        }
        if let Some(enabled) = wish.pitr_enabled {
            self.continuous(enabled, wish, &mut spec.schedules);
        }
    }

    fn periodic(&self, method: &str, wish: &ClusterBackup, entries: &mut Vec<SchedulePolicy>) {
        let entry = match entries.iter().position(|entry| entry.backup_method == method) {
            Some(index) => &mut entries[index],
            // Only a wish makes a new entry: a cluster that says no more than "off" needs none.
            None if wish.enabled == Some(true) => appended(entries, method),
            None => return,
        };
        if wish.enabled.is_some() {
            entry.enabled = wish.enabled;
        }
        set(&mut entry.retention_period, wish.retention_period.as_deref());
        if let Some(cron) = wish.cron_expression.as_ref().filter(|cron| !cron.is_empty()) {
            entry.cron_expression.clone_from(cron);
        }
        if wish.enabled != Some(true) {
            return;
        }
        for entry in entries.iter_mut().filter(|entry| entry.backup_method != method) {
            let snapshot = self.method(&entry.backup_method).is_some_and(BackupMethod::snapshot_volumes);
            if snapshot || self.type_of(entry) == Some(BackupType::Full) {
                entry.enabled = Some(false);
            }
        }
    }

    fn incremental(&self, method: &str, wish: &ClusterBackup, entries: &mut [SchedulePolicy]) {
        let mut first = true;
        for entry in entries.iter_mut().filter(|entry| self.type_of(entry) == Some(BackupType::Incremental)) {
            let base = self.method(&entry.backup_method).and_then(|method| method.compatible_method.as_deref());
            if base != Some(method) {
                entry.enabled = Some(false);
            } else if std::mem::take(&mut first) {
                if wish.incremental_backup_enabled.is_some() {
                    entry.enabled = wish.incremental_backup_enabled;
                }
                if let Some(cron) = wish.incremental_cron_expression.as_ref().filter(|cron| !cron.is_empty()) {
                    entry.cron_expression.clone_from(cron);
                }
            }
        }
    }

    fn continuous(&self, enabled: bool, wish: &ClusterBackup, entries: &mut Vec<SchedulePolicy>) {
        let is_continuous = |entry: &SchedulePolicy| self.type_of(entry) == Some(BackupType::Continuous);
        let named = wish.continuous_method.as_deref().filter(|name| !name.is_empty());
        let is_wanted =
            |entry: &SchedulePolicy| is_continuous(entry) && named.is_none_or(|name| entry.backup_method == name);
        if enabled && !entries.iter().any(is_wanted) {
            let archives = |method: &&BackupMethod| {
                named.is_none_or(|name| method.name == name) && (self.type_of)(method) == Some(BackupType::Continuous)
            };
            if let Some(method) = self.methods.iter().find(archives) {
                appended(entries, &method.name);
            }
        }
        let wanted = entries.iter().position(is_wanted);
        for (index, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| is_continuous(entry)) {
            let chosen = Some(index) == wanted;
            entry.enabled = Some(chosen && enabled);
            if chosen {
                set(&mut entry.retention_period, wish.retention_period.as_deref());
            }
        }
    }
}

fn set(field: &mut Option<String>, wish: Option<&str>) {
    if let Some(wish) = wish.filter(|wish| !wish.is_empty()) {
        *field = Some(wish.to_owned());
    }
}

fn appended<'a>(entries: &'a mut Vec<SchedulePolicy>, method: &str) -> &'a mut SchedulePolicy {
    let entry =
        SchedulePolicy { backup_method: method.to_owned(), cron_expression: CRON.to_owned(), ..Default::default() };
    entries.push(entry);
    let last = entries.len() - 1;
    &mut entries[last]
}
