//! Where a process gets its task from: the configuration file and the environment.

pub(crate) mod ini;
pub(crate) mod obscure;
pub(crate) mod value;

use std::path::PathBuf;

use ini::Ini;

use crate::codec::crypt::Encryption;
use crate::error::{Error, Result};
use crate::rpath::Base;

/// The configuration file when `--conf` is not given.
pub(crate) const DEFAULT_FILE: &str = "/etc/datasafed/datasafed.conf";
const LOCAL_PATH: &str = "DATASAFED_LOCAL_BACKEND_PATH";
const BASE_PATH: &str = "DATASAFED_BACKEND_BASE_PATH";
const ALGORITHM: &str = "DATASAFED_ENCRYPTION_ALGORITHM";
const PASS_PHRASE: &str = "DATASAFED_ENCRYPTION_PASS_PHRASE";
const KOPIA_ROOT: &str = "DATASAFED_KOPIA_REPO_ROOT";

/// An environment variable; unset, empty and not UTF-8 are the same.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Everything a command needs to reach its repository.
pub(crate) struct Settings {
    pub(crate) ini: Ini,
    pub(crate) base: Base,
    pub(crate) encryption: Option<Encryption>,
}

impl Settings {
    /// Reads the configuration in the order of the contract: local path, file, base path, encryption.
    ///
    /// # Errors
    /// The first setting that is missing or wrong.
    pub(crate) fn load(conf: Option<&str>) -> Result<Self> {
        let ini = match env(LOCAL_PATH) {
            Some(path) => local_path(&path)?,
            None => file(conf.unwrap_or(DEFAULT_FILE))?,
        };
        if let Some(root) = env(KOPIA_ROOT).map(|root| root.trim().to_owned()).filter(|root| !root.is_empty()) {
            return Err(Error::other(format!(
                "{KOPIA_ROOT} is set ({root:?}), but kopia repositories are not supported, neither to write nor to read: \
                 that a backup is whole is proved by its manifest and seal here, and deduplication will be a store of its own. \
                 Unset it, or turn useKopia off in the BackupRepo; what lies in a kopia repository, kopia itself restores"
            )));
        }
        let base = Base::new(&std::env::var(BASE_PATH).unwrap_or_default())?;
        let encryption = match env(ALGORITHM) {
            Some(algorithm) => {
                let phrase = std::env::var_os(PASS_PHRASE).unwrap_or_default();
                Some(Encryption::new(&algorithm, phrase.as_encoded_bytes())?)
            }
            None => None,
        };
        Ok(Self { ini, base, encryption })
    }
}

fn local_path(path: &str) -> Result<Ini> {
    let root = std::path::absolute(path).map_err(|error| Error::file("abs", PathBuf::from(path).as_path(), &error))?;
    match std::fs::metadata(&root) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Error::other(format!("the path {path:?} specified by {LOCAL_PATH} is not a directory")));
        }
        Err(_) => return Err(Error::other(format!("the path {path:?} specified by {LOCAL_PATH} does not exist"))),
    }
    let mut ini = Ini::default();
    ini.set("storage", "type", "local");
    ini.set("storage", "copy_links", "true");
    ini.set("storage", "root", root.to_string_lossy());
    Ok(ini)
}

fn file(path: &str) -> Result<Ini> {
    let bytes = std::fs::read(path).map_err(|error| Error::file("open", PathBuf::from(path).as_path(), &error))?;
    let mut ini = Ini::parse(&String::from_utf8_lossy(&bytes))?;
    let clear: Vec<(String, String)> = ini
        .keys("storage")
        .filter_map(|(key, value)| Some((key.strip_suffix(".need_obscure")?.to_owned(), value.to_owned())))
        .collect();
    for (key, value) in clear {
        ini.remove("storage", &format!("{key}.need_obscure"));
        ini.set("storage", &key, obscure::obscure(&value));
    }
    Ok(ini)
}
