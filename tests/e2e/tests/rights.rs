//! After the end-to-end tests: the roles of the installation are exactly what its accounts asked the API server for.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::path::PathBuf;

use kbbackup_controller::rbac::usage::{ACCOUNTS, OUT_OF_REACH, disagreements, requests};
use kbbackup_controller::rbac::{NAMESPACE, OPERATOR};

/// The audit log, and when the tests began: `cargo xtask test e2e` sets both.
#[test]
fn the_roles_are_what_the_code_uses() {
    let log = PathBuf::from(std::env::var_os("KBBACKUP_E2E_AUDIT_LOG").unwrap());
    let since = std::env::var("KBBACKUP_E2E_SINCE").unwrap();
    let (folder, stem) = (log.parent().unwrap(), log.file_stem().unwrap().to_string_lossy().into_owned());
    // The API server renames a full log to `<stem>-<time>.log`.
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&stem)))
        .collect();
    files.sort();
    let mut seen = std::collections::BTreeSet::new();
    for file in files {
        seen.extend(requests(&std::fs::read_to_string(&file).unwrap(), NAMESPACE, &since).unwrap());
    }
    assert!(seen.iter().any(|request| request.account == OPERATOR), "the audit log tells nothing about the operator");
    let wrong = disagreements(ACCOUNTS, OUT_OF_REACH, &seen, NAMESPACE);
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
}
