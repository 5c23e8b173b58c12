//! `repo contents`: what really lies in a repository, beside what the cluster knows of it.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, BackupPhase, BackupStatus},
};
use kbbackup_core::catalogue::Found;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;

use super::catalogue::{self, Scope};
use crate::{
    app::App,
    args::{OutputArgs, duration},
    error::Result,
    exit::Exit,
    follow,
    output::{Format, Table, human, object},
    source,
    ui::Ui,
};

/// List the backups that really lie in a repository, and whether the cluster knows them
///
/// known: there is a Backup object. orphan: the data lies there and no object does. missing: there is an object, and its
/// data does not lie there. unfinished: data without a seal, of a backup that never came to its end or of a log that has
/// not told yet what it is. The operator has the mover read the repository; no credentials leave the cluster. Volume
/// snapshots do not lie in a repository.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo contents s3-main
  kubectl kbbackup repo contents s3-main --from-namespace demo -o wide
  kubectl kbbackup repo contents s3-main --state orphan -o json")]
pub(crate) struct ContentsArgs {
    /// The repository [default: the default one]
    pub name: Option<String>,

    /// Only backups that were made in this namespace
    #[arg(long, value_name = "NS")]
    pub from_namespace: Option<String>,

    /// Only backups in this state: known, orphan, missing, unfinished
    #[arg(long, value_enum, value_name = "STATE", hide_possible_values = true)]
    pub state: Option<State>,

    /// Stop waiting after this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    pub timeout: Duration,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// How repository and cluster agree about a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    Known,
    Orphan,
    Missing,
    Unfinished,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Orphan => "orphan",
            Self::Missing => "missing",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A backup in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    pub namespace: String,
    pub name: String,
    pub state: Option<State>,
    pub source: String,
    pub method: String,
    #[serde(rename = "type")]
    pub backup_type: String,
    /// In bytes.
    pub size: Option<u64>,
    pub started: String,
    pub completed: String,
    pub parent: String,
    /// The cipher; `yes` when it cannot be told without the key.
    pub encryption: String,
    pub sealed: bool,
    pub path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &ContentsArgs) -> Result<Exit> {
    let repo = super::resolve_ready(app, args.name.as_deref()).await?;
    let name = repo.name_any();
    let scope = Scope {
        namespace: args.from_namespace.as_deref(),
        brief: true,
        limit: Some(args.timeout).filter(|limit| !limit.is_zero()),
        ..Scope::default()
    };
    let found = catalogue::fetch(ui, app, &repo, &scope).await?;
    let backups = super::backups_in(app, &name).await?;
    let prefix = repo.spec.path_prefix.clone().unwrap_or_default();
    let mut items = compare(&found, &backups, &prefix);
    items.retain(|item| args.from_namespace.as_ref().is_none_or(|namespace| item.namespace == *namespace));
    items.retain(|item| args.state.is_none_or(|state| item.state == Some(state)));
    show(ui, args, &name, &items)
}

fn show(ui: &Ui, args: &ContentsArgs, repo: &str, items: &[Item]) -> Result<Exit> {
    let format = args.output.format();
    match format {
        Format::Json | Format::Yaml => {
            let value = json!({"apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "RepoContents", "repo": repo, "backups": items});
            ui.result(&object::text(&value, format)?);
        }
        Format::Name => items.iter().for_each(|item| ui.result(&item.path)),
        _ if items.is_empty() => ui.say(&format!("no such backups in backuprepo/{repo}")),
        _ => {
            ui.result(&table(items, format.is_wide(), Timestamp::now()).to_string());
            if items.iter().any(|item| item.state == Some(State::Orphan)) {
                ui.hint(&format!("kubectl kbbackup repo import {repo} --dry-run"));
            }
        }
    }
    Ok(Exit::Done)
}

/// Found and known, side by side, by namespace and name.
fn compare(found: &[Found], backups: &[Backup], prefix: &str) -> Vec<Item> {
    let mut known: BTreeMap<(String, String), &Backup> = backups.iter().map(|backup| (key(backup), backup)).collect();
    let mut items: Vec<Item> = Vec::new();
    for one in found {
        let mut item = item(one, prefix);
        let object = known.remove(&(item.namespace.clone(), item.name.clone()));
        item.state = Some(match object {
            Some(_) => State::Known,
            // Under a key that is not ours may be a log, which has no seal.
            None if one.unfinished && !one.locked => State::Unfinished,
            None => State::Orphan,
        });
        items.push(item);
    }
    items.extend(known.into_values().filter(|backup| leaves_entry(backup)).map(missing));
    items.sort_by(|a, b| (&a.namespace, &a.started, &a.name).cmp(&(&b.namespace, &b.started, &b.name)));
    items
}

fn key(backup: &Backup) -> (String, String) {
    (backup.namespace().unwrap_or_default(), backup.name_any())
}

/// Whether a backup must have left an entry.
fn leaves_entry(backup: &Backup) -> bool {
    let Some(status) = &backup.status else { return false };
    let snapshots = status.backup_method.as_ref().is_some_and(|method| method.snapshot_volumes());
    // A log that has reached nothing yet may have stored nothing.
    let is_over = status.phase == Some(BackupPhase::Completed);
    is_over && !snapshots && (!follow::is_continuous(backup) || status.time_range.is_some())
}

fn missing(backup: &Backup) -> Item {
    let path = backup.status.as_ref().and_then(|status| status.path.clone()).unwrap_or_default();
    Item { state: Some(State::Missing), ..of_object(backup, path) }
}

/// Without its object the path of a backup must do: `/<prefix>/<namespace>/…/<name>`.
fn by_path(found: &Found, prefix: &str) -> Item {
    let prefix = kbbackup_core::layout::join([prefix]);
    let below = found.path.strip_prefix(&prefix).unwrap_or(&found.path).trim_start_matches('/');
    let namespace = below.split('/').next().unwrap_or_default().to_owned();
    let name = below.rsplit('/').next().unwrap_or_default().to_owned();
    let encryption = if found.locked { "yes".to_owned() } else { String::new() };
    Item { namespace, name, encryption, path: found.path.clone(), ..Item::default() }
}

/// What is known of a backup by what lies there.
fn item(found: &Found, prefix: &str) -> Item {
    let object: Option<Backup> = found.object.as_ref().and_then(parse);
    let mut item = object.map_or_else(|| by_path(found, prefix), |backup| of_object(&backup, found.path.clone()));
    if let Some(seal) = &found.seal {
        item.sealed = true;
        item.size = item.size.or(Some(seal.bytes));
        if item.completed.is_empty() {
            item.completed.clone_from(&seal.sealed_at);
        }
    }
    item.trouble = found.trouble.clone().unwrap_or_default();
    item
}

/// A shortened object has no kind and lacks what must be there.
fn parse(value: &serde_json::Value) -> Option<Backup> {
    let mut value = value.clone();
    value["apiVersion"] = json!("dataprotection.kubeblocks.io/v1alpha1");
    value["kind"] = json!("Backup");
    serde_json::from_value(value).ok()
}

fn of_object(backup: &Backup, path: String) -> Item {
    let status: BackupStatus = backup.status.clone().unwrap_or_default();
    let (namespace, name) = key(backup);
    Item {
        namespace,
        name,
        source: source::of_backup(backup),
        method: backup.spec.backup_method.clone(),
        backup_type: backup.labels().get(labels::BACKUP_TYPE).cloned().unwrap_or_default(),
        size: status.total_size.as_deref().and_then(kbbackup_core::layout::parse_size),
        started: human::utc(status.start_timestamp.as_ref()),
        completed: human::utc(status.completion_timestamp.as_ref()),
        parent: status.parent_backup_name.or_else(|| backup.spec.parent_backup_name.clone()).unwrap_or_default(),
        encryption: status.encryption_config.map(|config| config.algorithm.to_string()).unwrap_or_default(),
        path,
        ..Item::default()
    }
}

fn table(items: &[Item], wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAMESPACE", "NAME", "STATE", "SOURCE", "METHOD", "TYPE", "SIZE", "AGE", "ENCRYPTED"];
    if wide {
        header.extend(["STARTED", "COMPLETED", "PARENT", "SEALED", "PATH", "TROUBLE"]);
    }
    let mut table = Table::new(header);
    for item in items {
        let age = item.completed.parse::<Timestamp>().or_else(|_| item.started.parse());
        let mut row = vec![
            item.namespace.clone(),
            item.name.clone(),
            item.state.map(State::word).unwrap_or_default().to_owned(),
            item.source.clone(),
            item.method.clone(),
            item.backup_type.clone(),
            item.size.map(human::bytes).unwrap_or_default(),
            age.map(|time| human::span(now.duration_since(time))).unwrap_or_default(),
            item.encryption.clone(),
        ];
        if wide {
            let sealed = if item.sealed { "yes" } else { "no" }.to_owned();
            let texts = [&item.started, &item.completed, &item.parent, &sealed, &item.path, &item.trouble];
            row.extend(texts.map(Clone::clone));
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> serde_json::Value {
        json!({"metadata": {"name": name, "namespace": "demo",
                "labels": {labels::BACKUP_TYPE: "Full", labels::WORKLOAD_NAME: "pg"}},
            "spec": {"backupMethod": "full", "backupPolicyName": "pg"},
            "status": {"phase": "Running", "startTimestamp": "2026-01-02T03:04:05Z", "totalSize": "1048576",
                "path": format!("/prod/demo/pg/{name}")}})
    }

    fn found(name: &str, with_object: bool) -> Found {
        let seal = kbbackup_core::catalogue::SealFound {
            digest: "d".into(),
            objects: 2,
            bytes: 2048,
            sealed_at: "2026-01-02T03:05:05Z".into(),
        };
        Found {
            path: format!("/prod/demo/pg/{name}"),
            seal: Some(seal),
            object: with_object.then(|| object(name)),
            locked: !with_object,
            ..Found::default()
        }
    }

    fn known(name: &str, method: serde_json::Value) -> Backup {
        let mut value = object(name);
        value["status"]["phase"] = json!("Completed");
        value["status"]["backupMethod"] = method;
        parse(&value).unwrap()
    }

    #[test]
    fn known_orphan_missing_and_unfinished() {
        let half = Found { path: "/prod/demo/pg/half".into(), unfinished: true, ..Found::default() };
        let all = [found("one", true), found("lost", true), found("secret", false), half];
        let method = json!({"name": "full", "actionSetName": "a"});
        let snapshot = known("snap", json!({"name": "snap", "snapshotVolumes": true}));
        let items = compare(&all, &[known("one", method.clone()), known("gone", method), snapshot], "prod/");
        let now = "2026-01-02T06:04:05Z".parse().unwrap();
        insta::assert_snapshot!(table(&items, false, now));
        insta::assert_snapshot!(table(&items, true, now));
    }
}
