//! `repo list`.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, BackupPhase, BackupRepo},
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, get},
    args::OutputArgs,
    error::Result,
    exit::Exit,
    follow,
    output::{Table, human, object},
    rows,
    ui::Ui,
};

/// List repositories
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo list
  kubectl kbbackup repo list -o wide")]
pub(crate) struct ListArgs {
    /// Only these repositories
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &ListArgs) -> Result<Exit> {
    let mut repos = Vec::new();
    if args.names.is_empty() {
        repos = super::all(app).await?;
    } else {
        for name in &args.names {
            repos.push(get(&app.everywhere::<BackupRepo>(), &format!("backuprepo/{name}")).await?);
        }
    }
    repos.sort_by_key(|repo| (!super::is_default(repo), repo.name_any()));
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&repos, args.names.len() == 1, format, args.output.show_managed_fields)?);
        return Ok(Exit::Done);
    }
    if repos.is_empty() {
        ui.say("no repositories in this cluster");
        ui.hint("kubectl kbbackup repo create");
        return Ok(Exit::Done);
    }
    // Without the right to list backups everywhere the two columns stay empty.
    let usage = usage(ui, app, labels::BACKUP_REPO_NAME).await.ok();
    ui.result(&table(&repos, usage.as_ref(), format.is_wide(), Timestamp::now()).to_string());
    Ok(Exit::Done)
}

/// Number and bytes of backups by repository.
pub(super) type Usage = BTreeMap<String, (usize, u64)>;

/// Of the backups that a label selects. Of thousands only their sizes are kept.
pub(super) async fn usage(ui: &Ui, app: &App, selector: &str) -> Result<Usage> {
    let mut all = Usage::new();
    ui.progress_if_live("reading backups");
    let params = ListParams::default().labels(selector);
    rows::each_page(app, true, false, params, |page| add(&mut all, &page)).await?;
    Ok(all)
}

fn add(usage: &mut Usage, backups: &[Backup]) {
    for backup in backups {
        let recorded = || backup.status.as_ref()?.backup_repo_name.as_ref();
        let Some(repo) = backup.labels().get(labels::BACKUP_REPO_NAME).or_else(recorded) else { continue };
        let entry = usage.entry(repo.clone()).or_default();
        entry.0 += 1;
        let status = backup.status.as_ref().filter(|status| status.phase == Some(BackupPhase::Completed));
        entry.1 +=
            status.and_then(|status| kbbackup_core::layout::parse_size(status.total_size.as_deref()?)).unwrap_or(0);
    }
}

fn table(repos: &[BackupRepo], usage: Option<&Usage>, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "STATUS", "PROVIDER", "ACCESS", "DEFAULT", "BACKUPS", "SIZE", "AGE"];
    if wide {
        header.extend(["ENDPOINT", "BUCKET", "PATH-PREFIX", "REASON"]);
    }
    let mut table = Table::new(header);
    for repo in repos {
        let used = usage.map(|usage| usage.get(&repo.name_any()).copied().unwrap_or_default());
        let config = |key: &str| repo.spec.config.get(key).cloned().unwrap_or_default();
        let mut row = vec![
            repo.name_any(),
            repo.status.as_ref().and_then(|status| status.phase).map(|phase| phase.to_string()).unwrap_or_default(),
            repo.spec.storage_provider_ref.clone(),
            repo.spec.access_method().to_string(),
            super::is_default(repo).to_string(),
            used.map(|(count, _)| count.to_string()).unwrap_or_default(),
            used.map(|(_, bytes)| human::bytes(bytes)).unwrap_or_default(),
            human::age(repo.creation_timestamp().as_ref(), now),
        ];
        if wide {
            let bucket = ["bucket", "container", "nfsShare"].map(config).into_iter().find(|value| !value.is_empty());
            row.extend([
                config("endpoint"),
                bucket.unwrap_or_default(),
                repo.spec.path_prefix.clone().unwrap_or_default(),
                follow::repo_reason(repo).lines().next().unwrap_or_default().to_owned(),
            ]);
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(repo: &str, phase: &str, size: &str) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "b", "labels": {labels::BACKUP_REPO_NAME: repo}},
            "spec": {"backupPolicyName": "p", "backupMethod": "full"}, "status": {"phase": phase, "totalSize": size}
        }))
        .unwrap()
    }

    #[test]
    fn without_the_label_it_counts_where_its_status_says_it_is() {
        let mut sparse = backup("a", "Completed", "1024");
        sparse.metadata.labels = None;
        sparse.status.as_mut().unwrap().backup_repo_name = Some("a".into());
        let mut usage = Usage::new();
        add(&mut usage, &[backup("a", "Completed", "1024"), sparse]);
        assert_eq!(usage["a"], (2, 2048));
    }

    #[test]
    fn an_unreadable_size_does_not_break_the_sum() {
        let mut usage = Usage::new();
        add(&mut usage, &[backup("a", "Completed", "1024"), backup("a", "Completed", "lots")]);
        add(&mut usage, &[backup("a", "Failed", "5")]);
        assert_eq!(usage["a"], (3, 1024));
    }
}
