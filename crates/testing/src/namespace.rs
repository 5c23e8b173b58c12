//! A namespace of its own for each test.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::kubectl::Kubectl;

/// A namespace that is removed when the test ends well, and explained and removed when it fails.
/// `KBBACKUP_E2E_KEEP=1` keeps it.
pub struct TempNamespace {
    /// Its name.
    pub name: String,
    /// kubectl inside of it.
    pub kubectl: Kubectl,
    cluster: Kubectl,
}

impl TempNamespace {
    /// Creates `kbb-<test>-<time>`.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn new(cluster: &Kubectl, test: &str) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 100_000_000;
        let name = format!("kbb-{test}-{now}");
        cluster.run(&["create", "namespace", &name])?;
        Ok(Self { kubectl: cluster.in_namespace(&name), name, cluster: cluster.clone() })
    }

    /// What a reader of a failed test wants to see first: objects, events, logs of what ran here.
    pub fn explain(&self) -> String {
        let show = |args: &[&str]| match self.kubectl.try_run(args) {
            Ok(done) => format!("--- kubectl {}\n{}{}\n", args.join(" "), done.stdout, done.stderr),
            Err(error) => format!("--- kubectl {}: {error}\n", args.join(" ")),
        };
        let mut text = show(&["get", "pods,jobs,pvc,statefulsets,backups,restores,backuppolicies", "-o", "wide"]);
        text += &show(&["get", "backups,restores", "-o", "yaml"]);
        text += &show(&["get", "events", "--sort-by=.lastTimestamp"]);
        if let Ok(pods) = self.kubectl.run(&["get", "pods", "-o", "name"]) {
            for pod in pods.lines().take(12) {
                text += &show(&["logs", pod, "--all-containers", "--prefix", "--tail=40"]);
            }
        }
        let operator = self.cluster.in_namespace("kbbackup-system");
        if let Ok(done) = operator.try_run(&["logs", "deployment/kbbackup-controller", "--tail=80"]) {
            text += &format!("--- operator\n{}{}", done.stdout, done.stderr);
        }
        text
    }
}

impl Drop for TempNamespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "the reader of a failed test needs this")]
            {
                eprintln!("{}", self.explain());
            }
        }
        if std::env::var_os("KBBACKUP_E2E_KEEP").is_none() {
            // Backups first: their finalizer removes the files while the repository's Secret still exists.
            drop(self.kubectl.try_run(&["delete", "backups,restores", "--all", "--timeout=60s"]));
            drop(self.cluster.try_run(&["delete", "namespace", &self.name, "--wait=false"]));
        }
    }
}
