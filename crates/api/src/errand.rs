//! What a person has the mover do with a repository by an annotation: read-only errands that answer by their log.
//!
//! The plugin holds no credentials of a store. It puts an [`Errand`] on the BackupRepo ([`annotations::ERRAND`]); the
//! operator starts the mover with the repository's own configuration, in its own namespace, and notes the text of the
//! errand that has ended ([`annotations::ERRAND_DONE`]). The Job and its pod wear [`labels::ERRAND`] and vanish by
//! themselves.

use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use crate::names::{annotations, labels};
use crate::v1alpha1::{BackupRepo, EncryptionConfig};

/// An errand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Errand {
    /// Tells it from others: 1 to 16 lower-case letters and digits.
    pub id: String,
    /// What is to be done.
    pub task: Task,
    /// What the stored objects are encrypted with; the Secret lies in the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionConfig>,
}

/// What can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Task {
    /// Tell which backups lie in the repository: lines of `kbbackup_core::catalogue`.
    Catalogue {
        /// Absolute path to look below; empty is everything below the repository's own prefix.
        #[serde(default)]
        under: String,
        /// Only what a list shows.
        #[serde(default)]
        brief: bool,
    },
    /// Compare a sealed backup with its manifest.
    Verify {
        /// Absolute path of the backup.
        path: String,
        /// The digest that its seal must have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seal: Option<String>,
        /// `list`, `digest` or `full`.
        level: String,
    },
}

impl Errand {
    /// The errand that a repository carries and that has not been done.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn of(repo: &BackupRepo) -> Result<Option<Self>, String> {
        let Some(text) = Self::text(repo) else { return Ok(None) };
        let errand: Self = serde_json::from_str(text).map_err(|error| format!("the errand cannot be read: {error}"))?;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if errand.id.is_empty() || errand.id.len() > 16 || !errand.id.chars().all(good) {
            return Err(format!("the errand's id {:?} is not 1 to 16 lower-case letters and digits", errand.id));
        }
        Ok(Some(errand))
    }

    /// Its text, as the annotation of a repository holds it; nothing when it was done.
    pub fn text(repo: &BackupRepo) -> Option<&str> {
        let text = repo.annotations().get(annotations::ERRAND).filter(|text| !text.is_empty())?;
        (repo.annotations().get(annotations::ERRAND_DONE) != Some(text)).then_some(text)
    }

    /// Selects the Job and the pod of an errand.
    pub fn selector(id: &str) -> String {
        format!("{}={id}", labels::ERRAND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn carrying(errand: &str, done: &str) -> BackupRepo {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "annotations": {annotations::ERRAND: errand, annotations::ERRAND_DONE: done}},
            "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"}
        }))
        .unwrap()
    }

    #[test]
    fn an_errand_is_read_once() {
        let text = r#"{"id":"a1","task":{"catalogue":{"under":"/demo","brief":true}}}"#;
        let errand = Errand::of(&carrying(text, "")).unwrap().unwrap();
        assert_eq!(errand.task, Task::Catalogue { under: "/demo".into(), brief: true });
        assert_eq!(serde_json::to_string(&errand).unwrap(), text);
        assert_eq!(Errand::of(&carrying(text, text)), Ok(None));
        assert_eq!(Errand::of(&carrying("", "")), Ok(None));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for text in [
            "no JSON",
            r#"{"id":"a1","task":{"delete":{}}}"#,
            r#"{"id":"A/1","task":{"catalogue":{}}}"#,
            r#"{"id":"","task":{"catalogue":{}}}"#,
            r#"{"id":"a1","task":{"catalogue":{}},"image":"x"}"#,
        ] {
            assert!(Errand::of(&carrying(text, "")).is_err(), "{text}");
        }
    }
}
