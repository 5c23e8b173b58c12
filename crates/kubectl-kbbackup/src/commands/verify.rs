//! `verify`: whether a backup still is what was sealed, byte by byte.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kbbackup_api::{
    errand::Task,
    names::annotations,
    v1alpha1::{Backup, BackupPhase},
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;

use super::{list::backup, repo};
use crate::{
    app::App,
    args::{OutputArgs, duration},
    errand::{self, Answer, Asked},
    error::{CliError, Result},
    exit::Exit,
    follow,
    output::{Format, object},
    ui::{Mark, Ui},
};

/// Compare backups with their seals: is every byte that was stored still there, and nothing else?
///
/// The operator has the mover read the repository, so this costs as much reading as a restore. Nothing is changed.
/// Exits with 4 when something is damaged, missing or too much.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup verify pg-full-20260102030405
  kubectl kbbackup verify pg-full-20260102030405 --level list
  kubectl kbbackup verify pg-full-20260102030405 -o json")]
pub(crate) struct VerifyArgs {
    /// Backups to verify
    #[arg(required = true)]
    pub names: Vec<String>,

    /// How closely: list (names and sizes), digest (every byte), full (also decompress)
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "digest", hide_possible_values = true)]
    pub level: Level,

    /// Stop waiting after this time, such as 2h; 0 is no limit
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0")]
    pub timeout: Duration,

    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    List,
    Digest,
    Full,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Digest => "digest",
            Self::Full => "full",
        }
    }
}

/// An object that is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// `damaged`, `missing`, `surplus` or `unreadable`.
    what: String,
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// What became of one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    namespace: String,
    backup: String,
    result: Mark,
    /// In the mover's words.
    summary: String,
    findings: Vec<Finding>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &VerifyArgs) -> Result<Exit> {
    let mut tasks = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let backup = backup(app, name).await?;
        let asked = (repo_of(&backup)?, task(&backup, args.level)?);
        repo::resolve_ready(app, Some(&asked.0)).await?;
        tasks.push((backup, asked));
    }
    let mut verdicts = Vec::with_capacity(tasks.len());
    for (backup, (repo, task)) in tasks {
        let asked = Asked {
            repo: &repo,
            task,
            encryption: None,
            limit: Some(args.timeout).filter(|limit| !limit.is_zero()),
            doing: format!("verifying backup/{}", backup.name_any()),
        };
        let verdict = judge(&backup, &errand::run(ui, app, &asked).await?)?;
        if !args.output.format().is_object() {
            show(ui, &verdict);
        }
        verdicts.push(verdict);
    }
    let format = args.output.format();
    match format {
        Format::Json | Format::Yaml => {
            let value = json!({"apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "Verification", "level": args.level.word(), "backups": verdicts});
            ui.result(&object::text(&value, format)?);
        }
        Format::Name => verdicts.iter().filter(|verdict| verdict.result == Mark::Good).for_each(|verdict| {
            ui.result(&format!("backup.dataprotection.kubeblocks.io/{}", verdict.backup));
        }),
        Format::Table | Format::Wide => {}
    }
    let bad = verdicts.iter().any(|verdict| verdict.result == Mark::Bad);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

fn refused(backup: &Backup, why: impl Into<String>) -> CliError {
    CliError::usage(format!("backup/{} cannot be verified", backup.name_any()), why)
}

fn repo_of(backup: &Backup) -> Result<String> {
    let name = backup.status.as_ref().and_then(|status| status.backup_repo_name.clone());
    name.ok_or_else(|| refused(backup, "its status names no repository"))
}

/// What the mover is asked; an error when there is nothing to compare with.
fn task(backup: &Backup, level: Level) -> Result<Task> {
    if follow::backup_phase(backup) != Some(BackupPhase::Completed) {
        let hint = format!("kubectl kbbackup why {}", backup.name_any());
        return Err(refused(backup, "only a completed backup has a seal").hint(hint));
    }
    let status = backup.status.clone().unwrap_or_default();
    let seal = backup.annotations().get(annotations::SEAL).cloned();
    let Some(seal) = seal else {
        return Err(refused(backup, "it has no seal: a volume snapshot, a log, or made by another controller"));
    };
    if level == Level::Full && status.encryption_config.is_some() {
        let why = "it is encrypted, and its passphrase does not leave its namespace; digest compares what is stored";
        return Err(refused(backup, why).hint("leave --level out"));
    }
    let path = status.path.ok_or_else(|| refused(backup, "its status names no path"))?;
    Ok(Task::Verify { path, seal: Some(seal), level: level.word().to_owned() })
}

/// The mover ends with 1 both when something is wrong with the backup and when it could not look.
fn judge(backup: &Backup, answer: &Answer) -> Result<Verdict> {
    let findings: Vec<Finding> = answer.lines.iter().filter_map(|line| finding(line)).collect();
    let last = answer.lines.iter().rev().find(|line| finding(line).is_none()).cloned().unwrap_or_default();
    let told = last.trim_start_matches("Error: ").to_owned();
    let good = answer.code == 0;
    let damage = ["not as they were sealed", "is not a sealed backup", "has digest", "is damaged", "disagree"];
    let is_damage = !findings.is_empty()
        || damage.iter().chain(&["is missing", "is not the one that was sealed"]).any(|word| told.contains(word));
    if !good && !is_damage {
        let why = if told.is_empty() { format!("the mover ended with code {}", answer.code) } else { told };
        return Err(CliError::failed(format!("backup/{} could not be verified", backup.name_any()), why));
    }
    Ok(Verdict {
        namespace: backup.namespace().unwrap_or_default(),
        backup: backup.name_any(),
        result: if good { Mark::Good } else { Mark::Bad },
        summary: told,
        findings,
    })
}

/// `damaged /demo/pg/b1/base.tar: 3 bytes, 4 were sealed`.
fn finding(line: &str) -> Option<Finding> {
    let (what, rest) = line.split_once(' ')?;
    if !matches!(what, "damaged" | "missing" | "surplus" | "unreadable") {
        return None;
    }
    let (path, why) = rest.split_once(": ").unwrap_or((rest, ""));
    Some(Finding { what: what.to_owned(), path: path.to_owned(), why: why.to_owned() })
}

fn show(ui: &Ui, verdict: &Verdict) {
    ui.result(&ui.marked(verdict.result, &format!("backup/{}: {}", verdict.backup, verdict.summary)));
    for finding in &verdict.findings {
        ui.result(format!("    {} {}  {}", finding.what, finding.path, finding.why).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(status: serde_json::Value) -> Backup {
        let mut whole = json!({"phase": "Completed", "path": "/demo/pg/b1", "backupRepoName": "s3"});
        whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "b1", "namespace": "demo", "annotations": {annotations::SEAL: "abc"}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"}, "status": whole}))
        .unwrap()
    }

    fn answer(code: i32, lines: &[&str]) -> Answer {
        Answer { lines: lines.iter().map(|line| (*line).to_owned()).collect(), code }
    }

    #[test]
    fn the_seal_of_the_object_is_what_counts() {
        let Task::Verify { path, seal, level } = task(&sealed(json!({})), Level::Digest).unwrap() else { panic!() };
        assert_eq!((path.as_str(), seal.as_deref(), level.as_str()), ("/demo/pg/b1", Some("abc"), "digest"));
    }

    #[test]
    fn without_anything_to_compare_with_nothing_is_asked() {
        let why = |backup: &Backup, level| task(backup, level).unwrap_err().why;
        assert!(why(&sealed(json!({"phase": "Failed"})), Level::List).contains("completed"));
        let mut unsealed = sealed(json!({}));
        unsealed.annotations_mut().clear();
        assert!(why(&unsealed, Level::List).contains("no seal"));
        let key =
            json!({"encryptionConfig": {"algorithm": "age", "passPhraseSecretKeyRef": {"name": "s", "key": "k"}}});
        assert!(why(&sealed(key.clone()), Level::Full).contains("encrypted"));
        assert!(task(&sealed(key), Level::Digest).is_ok());
    }

    #[test]
    fn damage_is_a_verdict_and_trouble_is_an_error() {
        let good = judge(&sealed(json!({})), &answer(0, &["/demo/pg/b1: 2 objects, 9 bytes, all as sealed"])).unwrap();
        assert_eq!((good.result, good.findings.len()), (Mark::Good, 0));
        let lines = [
            "damaged /demo/pg/b1/base.tar: 3 bytes, 4 were sealed",
            "missing /demo/pg/b1/x",
            "Error: /demo/pg/b1: 2 object(s) are not as they were sealed",
        ];
        let bad = judge(&sealed(json!({})), &answer(1, &lines)).unwrap();
        assert_eq!(bad.result, Mark::Bad);
        assert_eq!(bad.summary, "/demo/pg/b1: 2 object(s) are not as they were sealed");
        assert_eq!(bad.findings[0].why, "3 bytes, 4 were sealed");
        let gone = judge(&sealed(json!({})), &answer(1, &["Error: /demo/pg/b1 is not a sealed backup"])).unwrap();
        assert_eq!(gone.result, Mark::Bad);
        let error = judge(&sealed(json!({})), &answer(1, &["Error: no answer from s3"])).unwrap_err();
        assert_eq!((error.exit, error.why.as_str()), (Exit::Failed, "no answer from s3"));
    }
}
