//! To which times a source can be brought back: by the rules that the controller goes by.

use std::collections::HashMap;

use jiff::Timestamp;
use kbbackup_api::{
    names::labels,
    recovery,
    v1alpha1::{ActionSet, Backup, BackupPhase},
};
use kbbackup_core::pitr::{self, Base, Log};
use kube::{Api, ResourceExt, api::ListParams};

use crate::{
    app::{App, list_all},
    error::Result,
    follow, moment,
    output::human,
    source,
};

/// A log with everything that it can be replayed onto.
#[derive(Clone, Debug)]
pub(crate) struct Recoverable {
    /// The continuous backup.
    pub backup: Backup,
    pub source: String,
    pub component: String,
    /// Why nothing is known: its recipe is gone, or it tells nonsense.
    pub trouble: Option<String>,
    pub log: Log,
    pub bases: Vec<Base>,
}

/// A stretch of time that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Backups that restores into it begin with, oldest first.
    pub bases: Vec<String>,
}

impl Window {
    /// As a person reads it; both times can be given to a restore as they stand.
    pub(crate) fn text(&self) -> String {
        format!("{} to {}", human::stamp(moment::up(self.from)), human::stamp(self.to))
    }
}

impl Recoverable {
    pub(crate) fn namespace(&self) -> String {
        self.backup.namespace().unwrap_or_default()
    }

    /// In order.
    pub(crate) fn windows(&self) -> Vec<Window> {
        let inside = |from: Timestamp, to: Timestamp| {
            let mut bases: Vec<&Base> = self.bases.iter().filter(|base| base.completed).collect();
            bases.retain(|base| base.end.is_some_and(|end| from <= end && end <= to));
            bases.sort_by_key(|base| base.end);
            bases.iter().map(|base| base.name.clone()).collect()
        };
        let all = pitr::windows(&self.log, &self.bases).into_iter();
        all.map(|(from, to)| Window { from, to, bases: inside(from, to) }).collect()
    }

    /// The last moment that can be reached.
    pub(crate) fn latest(&self) -> Option<Timestamp> {
        self.windows().last().map(|window| window.to)
    }

    /// Whether the log goes on.
    pub(crate) fn is_running(&self) -> bool {
        follow::backup_phase(&self.backup) == Some(BackupPhase::Running)
    }
}

/// All logs of the chosen namespace, or of all, by source.
pub(crate) async fn all(app: &App, all_namespaces: bool) -> Result<Vec<Recoverable>> {
    read(app, &app.scoped(all_namespaces)).await
}

/// All logs of a namespace, by source.
pub(crate) async fn within(app: &App, namespace: &str) -> Result<Vec<Recoverable>> {
    read(app, &app.within(namespace)).await
}

async fn read(app: &App, api: &Api<Backup>) -> Result<Vec<Recoverable>> {
    let backups = list_all(api, ListParams::default(), "backups").await?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    Ok(of(&backups, &sets))
}

pub(crate) fn of(backups: &[Backup], sets: &[ActionSet]) -> Vec<Recoverable> {
    let sets: HashMap<String, &ActionSet> = sets.iter().map(|set| (set.name_any(), set)).collect();
    let logs = backups.iter().filter(|backup| {
        follow::is_continuous(backup) && backup.metadata.deletion_timestamp.is_none() && backup.status.is_some()
    });
    let mut found: Vec<Recoverable> = logs.map(|backup| one(backup, backups, &sets)).collect();
    found.sort_by_key(|one| (one.namespace(), one.source.clone(), one.component.clone(), one.log.start));
    found
}

fn one(backup: &Backup, all: &[Backup], sets: &HashMap<String, &ActionSet>) -> Recoverable {
    let method = backup.status.as_ref().and_then(|status| status.backup_method.as_ref());
    let name = method.and_then(|method| method.action_set_name.clone()).unwrap_or_default();
    let log = match sets.get(&name) {
        Some(set) => recovery::log(backup, set),
        None => Err(format!("actionset/{name} does not exist")),
    };
    let nothing = Log {
        name: backup.name_any(),
        start: None,
        end: None,
        gaps: Vec::new(),
        needs_base: true,
        full_base_only: false,
    };
    let same =
        all.iter().filter(|other| other.namespace() == backup.namespace() && recovery::same_database(backup, other));
    Recoverable {
        backup: backup.clone(),
        source: source::of_backup(backup),
        component: backup.labels().get(labels::COMPONENT_NAME).cloned().unwrap_or_default(),
        trouble: log.as_ref().err().cloned(),
        log: log.unwrap_or(nothing),
        bases: same.filter_map(recovery::base).collect(),
    }
}
