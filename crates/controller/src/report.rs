//! `kbbackup-controller report`: the side-car of a continuous backup. It carries what the archiver says about its window
//! to the operator, by the one object that its account may write.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use kbbackup_core::contract::{self, channel};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Copies a result file into a ConfigMap whenever it changes, until told to stop.
#[derive(Args, Debug)]
pub struct Report {
    /// The ConfigMap, in the pod's own namespace.
    #[arg(long, value_name = "NAME")]
    config_map: String,
    /// The result file.
    #[arg(long, env = contract::ENV_INFO_FILE, default_value = contract::INFO_FILE)]
    file: PathBuf,
    /// Seconds between two looks at the file.
    #[arg(long, env = "DP_CHECK_INTERVAL", value_name = "SECONDS", default_value_t = 5)]
    every: u64,
}

/// So many refusals in a row end the side-car: the operator then sees it failing and makes its rights anew.
const REFUSALS: u32 = 3;
/// Longest wait between two tries while the API server cannot be reached.
const LONGEST: Duration = Duration::from_secs(60);

impl Report {
    /// Watches the file.
    ///
    /// # Errors
    /// When the API server has refused what was told several times.
    pub async fn run(self, client: Client) -> anyhow::Result<ExitCode> {
        let api = Api::<ConfigMap>::default_namespaced(client);
        let mut terminate = signal(SignalKind::terminate())?;
        let every = Duration::from_secs(self.every.max(1));
        let mut seen = Seen::default();
        let (mut failures, mut refusals) = (0u32, 0u32);
        loop {
            let pause = (every * (1 << failures.min(4))).min(LONGEST.max(every));
            let stop = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                _ = terminate.recv() => true,
            };
            let told = match seen.news(&self.file) {
                Ok(Some(text)) => self.tell(&api, &text).await.map(|()| Some(text)),
                Ok(None) => Ok(None),
                Err(error) => {
                    tracing::warn!("{error:#}");
                    Ok(None)
                }
            };
            match told {
                Ok(text) => {
                    (failures, refusals) = (0, 0);
                    seen.told(text);
                }
                Err(error) => {
                    failures += 1;
                    refusals = if is_refusal(&error) { refusals + 1 } else { 0 };
                    tracing::warn!("the result file was not reported: {}", crate::run::chain(&error));
                    if refusals >= REFUSALS {
                        bail!("ConfigMap {} cannot be written: {}", self.config_map, crate::run::chain(&error));
                    }
                }
            }
            if stop {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    async fn tell(&self, api: &Api<ConfigMap>, text: &str) -> kube::Result<()> {
        let patch = json!({ "data": { channel::KEY: text } });
        let params = PatchParams { field_manager: Some("kbbackup/report".to_owned()), ..PatchParams::default() };
        api.patch(&self.config_map, &params, &Patch::Merge(patch)).await.map(drop)
    }
}

/// Whether asking again will bring the same answer.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if (400..500).contains(&answer.code) && answer.code != 429)
}

/// What was last read and told.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<(SystemTime, u64)>,
    told: Option<String>,
    pending: Option<(SystemTime, u64)>,
}

impl Seen {
    /// The file's text, when it is a JSON object and was not told yet. Scripts write in place: half a file is read again at
    /// the next look.
    fn news(&mut self, path: &Path) -> anyhow::Result<Option<String>> {
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        };
        let stamp = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len());
        if self.stamp == Some(stamp) {
            return Ok(None);
        }
        if meta.len() > channel::LIMIT as u64 {
            bail!("{} has {} bytes, more than {}", path.display(), meta.len(), channel::LIMIT);
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => bail!("{} is not JSON (yet): {error}", path.display()),
        };
        if !value.is_object() {
            bail!("{} is not a JSON object", path.display());
        }
        self.pending = Some(stamp);
        if self.told.as_ref() == Some(&text) {
            self.stamp = Some(stamp);
            return Ok(None);
        }
        Ok(Some(text))
    }

    /// Remembers what has arrived.
    fn told(&mut self, text: Option<String>) {
        if text.is_some() {
            self.told = text;
            self.stamp = self.pending.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_file_is_told_once_and_again_when_it_changes() {
        let dir = std::env::temp_dir().join(format!("kbbackup-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("backup.info");
        let mut seen = Seen::default();
        assert_eq!(seen.news(&file).unwrap(), None);
        std::fs::write(&file, r#"{"totalSize":"1""#).unwrap();
        assert!(seen.news(&file).is_err(), "half a file");
        std::fs::write(&file, r#"{"totalSize":"1"}"#).unwrap();
        let text = seen.news(&file).unwrap();
        assert_eq!(text.as_deref(), Some(r#"{"totalSize":"1"}"#));
        assert_eq!(seen.news(&file).unwrap(), text, "what did not arrive is told again");
        seen.told(text);
        assert_eq!(seen.news(&file).unwrap(), None);
        std::fs::write(&file, r#"{"totalSize":"22"}"#).unwrap();
        let text = seen.news(&file).unwrap();
        assert_eq!(text.as_deref(), Some(r#"{"totalSize":"22"}"#));
        std::fs::write(&file, "[]").unwrap();
        assert!(seen.news(&file).is_err(), "not an object");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_answers_that_stay_the_same_count_as_refusals() {
        let answer = |code| kube::Error::Api(kube::core::Status { code, ..kube::core::Status::default() }.boxed());
        assert!(is_refusal(&answer(403)) && is_refusal(&answer(404)));
        assert!(!is_refusal(&answer(429)) && !is_refusal(&answer(503)));
    }
}
