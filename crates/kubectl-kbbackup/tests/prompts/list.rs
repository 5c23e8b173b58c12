//! `list` where the server's definition of Backup is another's.

use std::process::Stdio;

use serde_json::json;

use crate::api::Api;
use crate::terminal;

const BACKUPS: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1/namespaces/demo/backups";

#[test]
fn objects_are_read_where_tables_do_not_have_the_columns() {
    let backup = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": {"name": "one", "namespace": "demo", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Delete"},
        "status": {"phase": "Completed", "totalSize": "4404019"}});
    let api = Api::start([(format!("{BACKUPS}/one"), backup)].into());
    let ended = terminal::command(&api, &["list"]).stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && shown.lines().count() == 2, "{ended:?}");
    assert!(shown.contains("one") && shown.contains("4.2 MiB"), "{shown}");
    // The table that was asked for first, and the objects.
    assert_eq!(api.requests(), [format!("GET {BACKUPS}"), format!("GET {BACKUPS}")]);
}
