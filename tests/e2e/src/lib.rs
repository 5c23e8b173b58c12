//! What the end-to-end tests have in common; the tests are in `tests/e2e/`.

use std::time::Duration;

use anyhow::{Result, bail};
use kbbackup_testing::fixtures;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

/// Namespace of the external S3 servers.
pub const S3_NAMESPACE: &str = "kbbackup-s3";
/// Access key and secret key of the external S3 servers: fixtures, not secrets.
pub const S3_KEYS: (&str, &str) = ("kbbackup-test", "kbbackup-test-secret");
/// Their bucket.
pub const S3_BUCKET: &str = "backups";

/// Port of an external S3 server's Service.
pub fn s3_port(server: &str) -> u16 {
    if server == "versitygw" { 7070 } else { 7071 }
}

/// Longest time a test waits for a small backup or restore.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Creates a BackupRepo of its own on one of the external S3 servers, below `prefix`.
///
/// # Errors
/// When it is not `Ready` in time.
pub fn s3_repo(cluster: &Kubectl, name: &str, server: &str, prefix: &str, keys: (&str, &str)) -> Result<()> {
    let repo = s3_repo_object(name, server, prefix);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-keys"), "namespace": "kbbackup-system"},
        "stringData": {"accessKeyId": keys.0, "secretAccessKey": keys.1},
    });
    cluster.apply(&fixtures::list(&[secret, repo]).to_string())
}

/// The BackupRepo of [`s3_repo`], without its credentials.
pub fn s3_repo_object(name: &str, server: &str, prefix: &str) -> Value {
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo", "metadata": {"name": name},
        "spec": {
            "storageProviderRef": "s3-compatible", "accessMethod": "Tool", "pvReclaimPolicy": "Retain", "pathPrefix": prefix,
            "config": {
                "bucket": S3_BUCKET, "region": "us-east-1", "forcePathStyle": "true",
                "endpoint": format!("http://{server}.{S3_NAMESPACE}.svc:{}", s3_port(server)),
            },
            "credential": {"name": format!("{name}-keys"), "namespace": "kbbackup-system"},
        },
    })
}

/// Removes the BackupRepo of [`s3_repo`].
pub fn drop_s3_repo(cluster: &Kubectl, name: &str) {
    drop(cluster.try_run(&["delete", "backuprepo", name, "--timeout=60s"]));
    drop(cluster.in_namespace("kbbackup-system").try_run(&["delete", "secret", &format!("{name}-keys")]));
}

/// Makes an account at versitygw that may do what the root account may.
///
/// # Errors
/// What its administration tool said.
pub fn create_account(cluster: &Kubectl, (access, secret): (&str, &str)) -> Result<()> {
    administer(cluster, &["create-user", "--access", access, "--secret", secret, "--role", "admin"])
}

/// Ends an account of [`create_account`]: from now on its keys are refused.
///
/// # Errors
/// What its administration tool said.
pub fn delete_account(cluster: &Kubectl, access: &str) -> Result<()> {
    administer(cluster, &["delete-user", "--access", access])
}

fn administer(cluster: &Kubectl, command: &[&str]) -> Result<()> {
    let root = ["--access", S3_KEYS.0, "--secret", S3_KEYS.1, "--endpoint-url", "http://127.0.0.1:7070"];
    let tool = ["exec", "deployment/versitygw", "--", "/bin/versitygw", "admin"];
    cluster.in_namespace(S3_NAMESPACE).run(&[&tool[..], &root, command].concat()).map(drop)
}

/// Phase of a Backup, Restore or BackupRepo; empty while there is none.
pub fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap_or_default()
}

/// Waits until a Backup has ended and gives it.
///
/// # Errors
/// When it has not ended in time.
pub fn ended(space: &TempNamespace, backup: &str, limit: Duration) -> Result<Value> {
    space.kubectl.wait_for("backup", backup, limit, |object| matches!(phase(object), "Completed" | "Failed"))
}

/// Gives the failed Backup's reason; a Backup that says `Completed` is an error.
///
/// # Errors
/// When it did not end, or ended well.
pub fn must_fail(space: &TempNamespace, backup: &str, limit: Duration) -> Result<String> {
    let object = ended(space, backup, limit)?;
    if phase(&object) != "Failed" {
        bail!("backup {backup} says {} and should have failed", phase(&object));
    }
    let mut reason = object["status"]["failureReason"].as_str().unwrap_or_default().to_owned();
    for action in object["status"]["actions"].as_array().into_iter().flatten() {
        reason.push('\n');
        reason.push_str(action["failureReason"].as_str().unwrap_or_default());
    }
    Ok(reason)
}
