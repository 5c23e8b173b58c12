//! A repository as one process sees it: below its base path, through its encryption, under its rules.

use kbbackup_core::layout::ENCRYPTED_SUFFIX;

use crate::codec::crypt::Encryption;
use crate::config::Settings;
use crate::config::ini::Ini;
use crate::error::Result;
use crate::manifest::Recorder;
use crate::rpath::Base;
use crate::storage::{Entry, Found, Store, is_hidden};

/// Store, base path, encryption and the record of what is written.
pub(crate) struct Repo {
    pub(crate) store: Store,
    pub(crate) base: Base,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) ini: Ini,
}

impl Repo {
    /// Opens the repository of the environment and the configuration file.
    ///
    /// # Errors
    /// A setting that is missing or wrong.
    pub(crate) fn open(conf: Option<&str>) -> Result<Self> {
        let Settings { ini, base, encryption } = Settings::load(conf)?;
        let store = Store::open(&ini)?;
        Ok(Self { store, base, encryption, recorder: Recorder::from_environment()?, ini })
    }

    /// The key under which an object is stored.
    pub(crate) fn stored_key(&self, key: &str) -> String {
        match self.encryption {
            Some(_) => format!("{key}{ENCRYPTED_SUFFIX}"),
            None => key.to_owned(),
        }
    }

    /// A stored entry as this process sees it; `None` when it does not.
    pub(crate) fn view(&self, mut entry: Entry) -> Option<Entry> {
        if is_hidden(&entry.key) {
            return None;
        }
        if let Some(encryption) = &self.encryption
            && !entry.dir
        {
            entry.key.truncate(entry.key.strip_suffix(ENCRYPTED_SUFFIX)?.len());
            entry.size -= encryption.overhead();
        }
        Some(entry)
    }

    /// What this process sees at a key: a file under its stored name first.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn lookup(&self, key: &str) -> Result<Found> {
        if is_hidden(key) {
            return Ok(Found::Missing);
        }
        if self.encryption.is_some()
            && !key.is_empty()
            && let Found::File(entry) = self.store.lookup(&self.stored_key(key)).await?
        {
            return Ok(Found::File(entry));
        }
        self.store.lookup(key).await
    }
}
