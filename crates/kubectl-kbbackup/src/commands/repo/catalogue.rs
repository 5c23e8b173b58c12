//! The catalogue of a repository: what lies in it, by its own account.

use std::time::Duration;

use kbbackup_api::{
    errand::Task,
    v1alpha1::{BackupRepo, EncryptionConfig},
};
use kbbackup_core::catalogue::{Found, Line};
use kube::ResourceExt;

use crate::{
    app::App,
    errand::{self, Answer, Asked},
    error::{CliError, Result},
    ui::Ui,
};

/// What of a repository is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope<'a> {
    /// Only backups of this namespace.
    pub namespace: Option<&'a str>,
    /// Only what a list shows.
    pub brief: bool,
    pub encryption: Option<EncryptionConfig>,
    pub limit: Option<Duration>,
}

/// Has the mover read the repository.
pub(super) async fn fetch(ui: &Ui, app: &App, repo: &BackupRepo, scope: &Scope<'_>) -> Result<Vec<Found>> {
    let name = repo.name_any();
    let prefix = repo.spec.path_prefix.as_deref().unwrap_or_default();
    let under = scope.namespace.map(|namespace| kbbackup_core::layout::join([prefix, namespace])).unwrap_or_default();
    let asked = Asked {
        repo: &name,
        task: Task::Catalogue { under, brief: scope.brief },
        encryption: scope.encryption.clone(),
        limit: scope.limit,
        doing: format!("reading the catalogue of backuprepo/{name}"),
    };
    understand(&name, errand::run(ui, app, &asked).await?)
}

/// The lines, when they are whole.
fn understand(repo: &str, answer: Answer) -> Result<Vec<Found>> {
    let what = format!("the catalogue of backuprepo/{repo} cannot be read");
    let mut found = Vec::new();
    let mut end = None;
    let mut other = Vec::new();
    for text in answer.lines {
        match serde_json::from_str(&text) {
            Ok(Line::Found(one)) => found.push(*one),
            Ok(Line::End { backups }) => end = Some(backups),
            Err(_) => other.push(text),
        }
    }
    if answer.code != 0 {
        let why = other.last().cloned().unwrap_or_else(|| format!("the mover ended with code {}", answer.code));
        let error = CliError::failed(what, why.clone());
        return Err(super::advised(error, &why).hint(format!("kubectl kbbackup repo check {repo}")));
    }
    match end {
        Some(told) if told == found.len() as u64 => Ok(found),
        _ => Err(CliError::failed(
            what,
            format!("its list is longer than the log that the kubelet keeps ({} lines came)", found.len()),
        )
        .hint("look at one namespace at a time, with --from-namespace")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn answer(lines: &[&str], code: i32) -> Answer {
        Answer { lines: lines.iter().map(|line| (*line).to_owned()).collect(), code }
    }

    const FOUND: &str = r#"{"found":{"path":"/demo/pg/b1"}}"#;

    #[test]
    fn a_list_without_its_end_is_not_believed() {
        let whole = understand("s3", answer(&[FOUND, r#"{"end":{"backups":1}}"#], 0)).unwrap();
        assert_eq!(whole[0].path, "/demo/pg/b1");
        for cut in [&[FOUND][..], &[r#"{"end":{"backups":1}}"#]] {
            assert_eq!(understand("s3", answer(cut, 0)).unwrap_err().exit, Exit::Failed);
        }
    }

    #[test]
    fn what_the_mover_said_last_is_the_reason() {
        let error = understand("s3", answer(&[FOUND, "Error: listing: AccessDenied"], 1)).unwrap_err();
        assert_eq!(error.why, "Error: listing: AccessDenied");
        assert!(error.hints[0].contains("secret key"), "{:?}", error.hints);
    }
}
