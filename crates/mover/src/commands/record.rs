//! `record`: the side-car of an archiver. A continuous backup is never sealed, so nothing would tell another cluster what lies
//! there: this keeps a copy of its Backup object beside the log, with the times and sizes that the archiver last reported.
//!
//! Whatever the archiver is: it goes by the result file alone. A copy appears whole or not at all, and is replaced at most once in
//! a while; the last word is written when the pod ends. A store that refuses is no reason to end the pod: the archiver will say so.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kbbackup_core::catalogue;
use kbbackup_core::contract::{self, ActionResult};
use kbbackup_core::layout;
use serde_json::Value;

use super::Context;
use super::catalogue::Document;
use super::report;
use crate::args::{Flag, Takes, flag};
use crate::config::env;
use crate::error::{Error, Result};
use crate::output;
use crate::repo::Repo;
use crate::rpath::absolute_key;
use crate::signal::Stop;
use crate::stream::{self, Input, Transform};

pub(super) const FLAGS: &[Flag] = &[
    flag("every-seconds", None, Takes::Int, "store the object no more often than this (default: 60)"),
    flag("backup-object", None, Takes::Text, "the Backup object as JSON"),
    flag("workload", None, Takes::Text, "the manifest of the workload as JSON"),
];

/// How often the result file is looked at, on the pod's own disk.
const LOOK: Duration = Duration::from_secs(5);

pub(super) async fn run(context: Context) -> Result<()> {
    context.args.exactly::<0>()?;
    let mut stop = Stop::listen()?;
    let args = &context.args;
    let every = args.text("every-seconds").map_or(Ok(60), str::parse);
    let every = every.map_err(|_| Error::other("--every-seconds is less than 0"))?;
    let repo = context.repo()?;
    let recorder = repo.recorder.as_ref();
    let backup =
        recorder.ok_or_else(|| Error::other(format!("{} is not set", contract::ENV_BACKUP_PATH)))?.backup.clone();
    let action =
        env(contract::ENV_ACTION).ok_or_else(|| Error::other(format!("{} is not set", contract::ENV_ACTION)))?;
    let object = args.text("backup-object").unwrap_or(contract::BACKUP_OBJECT_FILE);
    let workload = args.text("workload").unwrap_or(contract::WORKLOAD_FILE);
    let mut copy = Copy {
        key: repo.stored_key(&absolute_key(&layout::archiver_object(&backup, &action))),
        object: document(Path::new(object))?,
        info: env(contract::ENV_INFO_FILE).map_or_else(|| PathBuf::from(contract::INFO_FILE), PathBuf::from),
        stored: None,
    };
    // Of an annotation that is not there the kubelet makes an empty file.
    let has_workload = std::fs::metadata(workload).is_ok_and(|file| file.len() > 0);
    let mut beside = has_workload.then(|| document(Path::new(workload))).transpose()?;
    let mut begun = false;
    let every = Duration::from_secs(every);
    let mut last: Option<Instant> = None;
    let mut told = String::new();
    loop {
        let look = LOOK.min(every.max(Duration::from_millis(100)));
        let ends = tokio::time::timeout(look, stop.asked()).await.is_ok();
        if ends || last.is_none_or(|last| last.elapsed() >= every) {
            let outcome = async {
                if !begun {
                    copy.remember(&repo).await?;
                    begun = true;
                }
                if let Some(workload) = &beside {
                    let key = repo.stored_key(&absolute_key(&layout::workload(&backup)));
                    put(&repo, &key, workload.to_string()).await?;
                    beside = None;
                }
                copy.refresh(&repo).await
            };
            match outcome.await {
                Ok(false) => {}
                Ok(true) => (last, told) = (Some(Instant::now()), String::new()),
                // The same trouble is told once, and not asked for every few seconds.
                Err(error) => {
                    last = Some(Instant::now());
                    let text = format!("NOTICE: the Backup object beside the log is not up to date: {error}");
                    if text != told {
                        output::note(&text);
                        told = text;
                    }
                }
            }
        }
        if ends {
            return Ok(());
        }
    }
}

fn document(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|error| Error::file("open", path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::other(format!("{} is not JSON: {error}", path.display())))
}

/// The copy in the repository.
struct Copy {
    key: String,
    /// The Backup object, with what is known of the log so far.
    object: Value,
    info: PathBuf,
    /// What was stored last.
    stored: Option<String>,
}

impl Copy {
    /// What an earlier pod has stored counts as long as the archiver does not say otherwise.
    async fn remember(&mut self, repo: &Repo) -> Result<()> {
        let Document::Read(known) = super::catalogue::read(repo, &self.key).await? else { return Ok(()) };
        if known.pointer("/metadata/uid") == self.object.pointer("/metadata/uid") {
            for key in ["timeRange", "totalSize", "extras"] {
                if let Some(value) = known.pointer(&format!("/status/{key}")) {
                    self.object["status"][key] = value.clone();
                }
            }
        }
        Ok(())
    }

    /// Stores the object if the archiver has said something new; gives whether it did.
    async fn refresh(&mut self, repo: &Repo) -> Result<bool> {
        // Before the first report nothing is known, and what an earlier pod has said stays. What cannot be read may be half
        // written; the controller complains of what stays so.
        let Some(result) = report::read(&self.info).ok().and_then(|info| ActionResult::parse(&info).ok()) else {
            return Ok(false);
        };
        if result == ActionResult::default() {
            return Ok(false);
        }
        catalogue::note(&mut self.object, &result);
        let text = self.object.to_string();
        if self.stored.as_ref() == Some(&text) {
            return Ok(false);
        }
        put(repo, &self.key, text.clone()).await?;
        self.stored = Some(text);
        Ok(true)
    }
}

/// Stores a document under its key, through the encryption, whole or not at all.
async fn put(repo: &Repo, key: &str, text: String) -> Result<()> {
    let input = Input { name: key.to_owned(), reader: Box::new(Cursor::new(Bytes::from(text))) };
    let transform = Transform { compression: None, encryption: repo.encryption.clone() };
    // A signal that has come already has asked for this; the next one breaks it off.
    stream::push(input, transform, repo.store.create(key)?, &mut Stop::listen()?, None).await.map(drop)
}
