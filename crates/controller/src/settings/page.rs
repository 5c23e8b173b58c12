//! The page of all settings, `deploy/SETTINGS.md`: written from this table, which a test compares with what the code reads.

/// One environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What is used when it is not set.
    pub default: &'static str,
    /// The value of the chart that sets it; empty when the chart sets it by itself.
    pub chart: &'static str,
    /// What it does.
    pub what: &'static str,
}

const fn setting(name: &'static str, default: &'static str, chart: &'static str, what: &'static str) -> Setting {
    Setting { name, default, chart, what }
}

/// Every variable that the operator reads.
pub const SETTINGS: &[Setting] = &[
    setting(
        "CM_NAMESPACE",
        "`default`; the installation sets its own",
        "",
        "manager namespace: exec Jobs, pre-checks, the lease, the operator's own Secrets",
    ),
    setting("CM_TOLERATIONS", "none", "workers.tolerations", "JSON list; for workers that are not bound to a node"),
    setting("CM_AFFINITY", "none", "workers.affinity", "JSON object; for workers that are not bound to a node"),
    setting("CM_NODE_SELECTOR", "none", "workers.nodeSelector", "JSON map; for workers that are not bound to a node"),
    setting("DATASAFED_IMAGE", "this version's mover", "images.mover", "image of the mover"),
    setting("KBBACKUP_CONTROLLER_IMAGE", "this version's operator", "images.controller", "image of exec Jobs"),
    setting("KUBEBLOCKS_IMAGE_PULL_POLICY", "Kubernetes' own choice", "images.pullPolicy", "pull policy of workers"),
    setting(
        "KUBEBLOCKS_IMAGE_PULL_SECRETS",
        "none",
        "images.pullSecrets",
        "JSON list of `{name}`, put on the workers' account when it is made",
    ),
    setting(
        "WORKER_SERVICE_ACCOUNT_NAME",
        "`kubeblocks-dataprotection-worker`",
        "workers.serviceAccount",
        "account of workers, made in each namespace where they run",
    ),
    setting(
        "WORKER_SERVICE_ACCOUNT_ANNOTATIONS",
        "none",
        "workers.serviceAccountAnnotations",
        "JSON map, merged into that account's annotations, for example a cloud's IAM role",
    ),
    setting(
        "EXEC_WORKER_SERVICE_ACCOUNT_NAME",
        "`kubeblocks-dataprotection-exec-worker`; the installation sets its own",
        "",
        "account of exec Jobs, in the manager namespace",
    ),
    setting(
        "DATAPROTECTION_ZERO_RESOURCE_FOR_UNSET",
        "`true`",
        "workers.zeroResourceForUnset",
        "write a limit of 0 for cpu and memory where neither request nor limit is set",
    ),
    setting(
        "DATAPROTECTION_RECONCILE_WORKERS",
        "`16`; a reconcile waits for the API server, not for a CPU",
        "reconcileWorkers",
        "how many Backups, and how many Restores, are handled at the same time",
    ),
    setting(
        "GC_FREQUENCY_SECONDS",
        "`3600`",
        "gcFrequencySeconds",
        "longest time between two looks at expired backups",
    ),
    setting("KBBACKUP_JOB_DEADLINE_SECONDS", "`604800`", "workers.jobDeadlineSeconds", "longest run of one worker Job"),
    setting(
        "DP_ENCRYPTION_KEY",
        "none: they are neither recorded nor restored",
        "encryptionKeySecret",
        "what the passwords of system accounts on Backups are sealed with",
    ),
    setting(
        "DP_BACKUP_ENCRYPTION_SECRET_KEY_REF",
        "none",
        "policyEncryption.secretKeyRef",
        "JSON `{name, key}` of the pass phrase that policies made for KubeBlocks' clusters encrypt with, in each namespace",
    ),
    setting(
        "DP_BACKUP_ENCRYPTION_ALGORITHM",
        "`AES-256-CFB`",
        "policyEncryption.algorithm",
        "the cipher of those policies",
    ),
];

/// Variables of the process that are not settings of the work.
const PROCESS: &[Setting] = &[
    setting("POD_NAME", "the host's name", "", "who holds the lease, and who reports events"),
    setting("KBBACKUP_LOG", "`info`", "log", "what is logged: a level, or filters per module; also `--log`"),
];

/// Variables of the reference that mean nothing here, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("KUBEBLOCKS_TOOLS_IMAGE", "the mover's image does what the tools image did"),
    ("KUBEBLOCKS_SERVICEACCOUNT_NAME", "not used by the reference's controllers either"),
    ("WORKER_CLUSTER_ROLE_NAME", "workers have no rights: results are read from their pods"),
    ("VOLUMESNAPSHOT_API_BETA", "snapshots have been v1 since Kubernetes 1.20"),
    ("CLIENT_QPS", "the API server's own priority and fairness decides; there is no limit in the client"),
    ("CLIENT_BURST", "see `CLIENT_QPS`"),
    ("DEFAULT_STORAGE_CLASS", "not used by the reference's controllers either"),
    ("KUBERNETES_CLUSTER_DOMAIN", "not used by the reference's controllers either"),
];

/// The page.
pub fn page() -> String {
    let mut text = "# Settings of the operator\n\nWritten by `cargo xtask codegen` from `crates/controller/src/settings/page.rs`. \
                    A setting that cannot be read stops the start and is named.\n\n## Environment\n\n\
                    | variable | value of the chart | default | what |\n|---|---|---|---|\n"
        .to_owned();
    for Setting { name, default, chart, what } in SETTINGS.iter().chain(PROCESS) {
        let chart = if chart.is_empty() { "set by the chart".to_owned() } else { format!("`{chart}`") };
        text.push_str(&format!("| `{name}` | {chart} | {default} | {what} |\n"));
    }
    text.push_str(
        "\n## File\n\n`config.yaml` in `/etc/kubeblocks`, else in `$HOME/.kubeblocks`, else in the working directory. Only `registries` \
         is read from it, again whenever the file changes; the chart writes it from its value `registries`. It says where the \
         images of all workers are pulled from:\n\n```yaml\nregistries:\n  defaultRegistry: mirror.example   # for registries \
         without an entry; else their own\n  defaultNamespace: \"\"             # the same for namespaces\n  registryConfig:\n    \
         - from: docker.io\n      to: mirror.example             # else the default registry\n      defaultNamespace: \"\"         \
         # for namespaces that are not mapped; else their own\n      namespaceMapping: {apecloud: databases}\n```\n",
    );
    text.push_str("\n## Variables of the reference without effect\n\n| variable | why |\n|---|---|\n");
    for (name, why) in WITHOUT_EFFECT {
        text.push_str(&format!("| `{name}` | {why} |\n"));
    }
    text.push_str("\n## Arguments\n\n| argument | default | what |\n|---|---|---|\n");
    for argument in crate::cli::arguments() {
        let (name, default, help) = argument;
        text.push_str(&format!("| `--{name}` | {default} | {help} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::Settings;

    fn deploy(file: &str) -> String {
        std::fs::read_to_string(format!("{}/../../deploy/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn behaviour_8_2_the_table_is_what_the_code_reads() {
        let read = RefCell::new(BTreeSet::new());
        Settings::from_env(|name| {
            read.borrow_mut().insert(name.to_owned());
            None
        })
        .unwrap();
        let table: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(table, read.into_inner());
    }

    #[test]
    fn behaviour_8_2_the_chart_sets_every_setting_by_a_value_that_exists() {
        let template = deploy("chart/templates/deployment.yaml");
        let values: serde_json::Value = serde_norway::from_str(&deploy("chart/values.yaml")).unwrap();
        for Setting { name, chart, .. } in SETTINGS.iter().chain(PROCESS) {
            assert!(template.contains(&format!("- name: {name}\n")), "the chart does not set {name}");
            if !chart.is_empty() {
                assert!(values.pointer(&format!("/{}", chart.replace('.', "/"))).is_some(), "no value {chart}");
                assert!(template.contains(&format!(".Values.{chart}")), "the template does not use {chart}");
            }
        }
    }

    #[test]
    fn the_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/SETTINGS.md");
        if std::env::var_os("UPDATE_MANIFESTS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page(), "run `cargo xtask codegen`");
    }
}
