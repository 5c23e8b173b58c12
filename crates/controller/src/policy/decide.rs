//! What is wrong with a policy.

use std::collections::BTreeSet;

use kbbackup_api::v1alpha1::{
    Availability, BackupMethod, BackupPolicySpec, BackupRepoPhase, BackupTarget, PodSelector,
};

use super::observe::{Seen, selector};

/// What the status says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) phase: Availability,
    pub(super) message: Option<String>,
}

/// What makes the policy unusable by the contract: targets of a list without a name, or with the same one.
pub(super) fn fault(spec: &BackupPolicySpec) -> Option<String> {
    let lists = [("spec".to_owned(), &spec.targets)]
        .into_iter()
        .chain(spec.backup_methods.iter().map(|method| (format!("method {}", method.name), &method.targets)));
    for (place, targets) in lists {
        let mut names = BTreeSet::new();
        for (index, target) in targets.iter().enumerate() {
            match target.name.as_deref().filter(|name| !name.is_empty()) {
                None => {
                    return Some(format!("targets[{index}] of {place} has no name; give each target of a list one"));
                }
                Some(name) if !names.insert(name) => {
                    return Some(format!("two targets of {place} are named {name}; give each a name of its own"));
                }
                Some(_) => {}
            }
        }
    }
    None
}

/// The targets that backups with this policy may use.
pub(super) fn targets(spec: &BackupPolicySpec) -> impl Iterator<Item = &BackupTarget> {
    let of_methods = spec.backup_methods.iter().flat_map(|method| method.target.iter().chain(&method.targets));
    spec.target.iter().chain(&spec.targets).chain(of_methods)
}

/// Names of the Secrets in the policy's namespace that it needs.
pub(super) fn secrets(spec: &BackupPolicySpec) -> BTreeSet<&str> {
    let credentials = targets(spec).filter_map(|target| target.connection_credential.as_ref());
    let pass_phrase = spec.encryption_config.as_ref().map(|config| config.pass_phrase_secret_key_ref.name.as_str());
    credentials.map(|credential| credential.secret_name.as_str()).chain(pass_phrase).collect()
}

/// What would make a backup fail as things are.
pub(super) fn decide(spec: &BackupPolicySpec, seen: &Seen) -> Verdict {
    let mut notes = Vec::new();
    if spec.backup_methods.iter().any(|method| !method.snapshot_volumes()) {
        notes.extend(repo(spec, seen));
    }
    for method in &spec.backup_methods {
        notes.extend(recipe(spec, method, seen));
    }
    notes.extend(credentials(spec, seen));
    for (target, has_pod) in targets(spec).zip(&seen.pods) {
        notes.extend(pods(target, *has_pod));
    }
    notes.dedup();
    let message = (!notes.is_empty()).then(|| format!("backups would fail now: {}", notes.join("; ")));
    Verdict { phase: Availability::Available, message }
}

fn repo(spec: &BackupPolicySpec, seen: &Seen) -> Option<String> {
    if let Some(name) = spec.backup_repo_name.as_deref().filter(|name| !name.is_empty()) {
        return match seen.repos.iter().find(|(repo, ..)| repo == name) {
            None => Some(format!("BackupRepo {name} does not exist")),
            Some((_, Some(BackupRepoPhase::Ready), _)) => None,
            Some((_, phase, _)) => Some(not_ready(name, *phase)),
        };
    }
    let defaults: Vec<_> = seen.repos.iter().filter(|(.., default)| *default).collect();
    let ready: Vec<_> = defaults
        .iter()
        .filter(|(_, phase, _)| *phase == Some(BackupRepoPhase::Ready))
        .map(|(name, ..)| name.as_str())
        .collect();
    match (ready.as_slice(), defaults.as_slice()) {
        ([_], _) => None,
        ([], []) => Some("spec.backupRepoName is not set and no BackupRepo is marked as the default one".into()),
        ([], [(name, phase, _), ..]) => Some(not_ready(name, *phase)),
        (several, _) => Some(format!(
            "spec.backupRepoName is not set and several default BackupRepos exist ({})",
            several.join(", ")
        )),
    }
}

fn not_ready(name: &str, phase: Option<BackupRepoPhase>) -> String {
    format!("BackupRepo {name} is {}", phase.map_or("not checked yet", BackupRepoPhase::as_str))
}

fn recipe(spec: &BackupPolicySpec, method: &BackupMethod, seen: &Seen) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &method.name;
    if spec.backup_methods.iter().filter(|other| other.name == *name).count() > 1 {
        notes.push(format!("several methods are named {name}; the first is used"));
    }
    match method.action_set_name.as_deref().filter(|set| !set.is_empty()) {
        None if !method.snapshot_volumes() => {
            notes.push(format!("method {name} has neither snapshotVolumes nor actionSetName"));
        }
        None => {}
        Some(set) => match seen.action_sets.get(set) {
            None => notes.push(format!("ActionSet {set} of method {name} does not exist")),
            Some(Some(fault)) => notes.push(format!("ActionSet {set} of method {name} is Unavailable: {fault}")),
            Some(None) => {}
        },
    }
    if let Some(base) = method.compatible_method.as_deref()
        && !spec.backup_methods.iter().any(|other| other.name == base)
    {
        notes.push(format!("method {name} builds on method {base}, which the policy does not have"));
    }
    if method.snapshot_volumes() && method.target_volumes.as_ref().is_none_or(|volumes| volumes.volumes.is_empty()) {
        notes.push(format!("method {name} takes snapshots but names no targetVolumes.volumes"));
    }
    notes
}

fn credentials(spec: &BackupPolicySpec, seen: &Seen) -> Vec<String> {
    let mut wanted: Vec<(&str, &str, &str)> = Vec::new();
    for credential in targets(spec).filter_map(|target| target.connection_credential.as_ref()) {
        let secret = credential.secret_name.as_str();
        wanted.push(("connectionCredential", secret, credential.username_key()));
        wanted.push(("connectionCredential", secret, credential.password_key()));
        wanted.extend(credential.host_key.as_deref().map(|key| ("connectionCredential", secret, key)));
        wanted.extend(credential.port_key.as_deref().map(|key| ("connectionCredential", secret, key)));
    }
    if let Some(config) = &spec.encryption_config {
        let key = &config.pass_phrase_secret_key_ref;
        wanted.push(("encryptionConfig", &key.name, &key.key));
    }
    let mut notes = Vec::new();
    for (place, secret, key) in wanted {
        let note = match seen.secrets.get(secret) {
            None => format!("Secret {secret} of {place} does not exist"),
            Some(keys) if !key.is_empty() && !keys.contains(key) => {
                format!("Secret {secret} of {place} has no key {key}")
            }
            Some(_) => continue,
        };
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

fn pods(target: &BackupTarget, has_pod: bool) -> Option<String> {
    let name = target.name.as_deref().filter(|name| !name.is_empty());
    let whose = name.map_or_else(|| "the target".to_owned(), |name| format!("target {name}"));
    let labels = target.pod_selector.as_ref().map(PodSelector::label_selector);
    match labels {
        None => Some(format!("{whose} has no podSelector")),
        Some(labels) if selector(labels.clone()).is_none() => {
            Some(format!("the podSelector of {whose} is empty or not valid"))
        }
        Some(_) if !has_pod => Some(format!("no pod matches the podSelector of {whose}")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(change: impl FnOnce(&mut serde_json::Value)) -> BackupPolicySpec {
        let mut spec = json!({
            "backupRepoName": "main",
            "target": {
                "podSelector": { "matchLabels": { "app": "pg" } },
                "connectionCredential": { "secretName": "pg-login" },
            },
            "backupMethods": [{ "name": "full", "actionSetName": "pg-basebackup" }],
        });
        change(&mut spec);
        serde_json::from_value(spec).unwrap()
    }

    fn all_well() -> Seen {
        Seen {
            repos: vec![("main".into(), Some(BackupRepoPhase::Ready), false)],
            action_sets: [("pg-basebackup".into(), None)].into(),
            secrets: [("pg-login".into(), ["username".into(), "password".into()].into())].into(),
            pods: vec![true],
        }
    }

    #[test]
    fn a_sound_policy_has_no_message() {
        let verdict = decide(&policy(|_| ()), &all_well());
        assert_eq!(verdict, Verdict { phase: Availability::Available, message: None });
    }

    #[test]
    fn behaviour_3_2_what_is_missing_is_named_and_the_policy_stays_available() {
        let verdict = decide(&policy(|_| ()), &Seen { pods: vec![false], ..Seen::default() });
        assert_eq!(verdict.phase, Availability::Available);
        let message = verdict.message.unwrap();
        for part in ["BackupRepo main", "ActionSet pg-basebackup", "Secret pg-login", "no pod matches"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn a_key_that_a_secret_lacks_is_named() {
        let mut seen = all_well();
        seen.secrets.insert("pg-login".into(), ["username".into()].into());
        assert!(decide(&policy(|_| ()), &seen).message.unwrap().contains("no key password"));
    }

    #[test]
    fn behaviour_1_8_without_a_name_exactly_one_default_repo_must_be_ready() {
        let spec = policy(|spec| spec["backupRepoName"] = json!(null));
        let note = |repos: &[(&str, BackupRepoPhase)]| {
            let repos = repos.iter().map(|(name, phase)| ((*name).to_owned(), Some(*phase), true)).collect();
            decide(&spec, &Seen { repos, ..all_well() }).message
        };
        assert!(note(&[]).unwrap().contains("no BackupRepo is marked"));
        assert!(note(&[("a", BackupRepoPhase::Failed)]).unwrap().contains("a is Failed"));
        assert_eq!(note(&[("a", BackupRepoPhase::Ready), ("b", BackupRepoPhase::Failed)]), None);
        assert!(note(&[("a", BackupRepoPhase::Ready), ("b", BackupRepoPhase::Ready)]).unwrap().contains("a, b"));
    }

    #[test]
    fn behaviour_3_5_a_method_that_builds_on_an_unknown_one_is_told() {
        let spec = |base: &str| {
            policy(|spec| {
                spec["backupMethods"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({ "name": "incr", "actionSetName": "pg-basebackup", "compatibleMethod": base }));
            })
        };
        assert_eq!(decide(&spec("full"), &all_well()).message, None);
        let told = decide(&spec("dump"), &all_well());
        assert_eq!(told.phase, Availability::Available, "the other methods work");
        assert!(told.message.unwrap().contains("incr builds on method dump"));
    }

    #[test]
    fn behaviour_3_5_snapshots_need_no_repo() {
        let spec = policy(|spec| {
            spec["backupRepoName"] = json!("gone");
            spec["backupMethods"] =
                json!([{ "name": "snap", "snapshotVolumes": true, "targetVolumes": { "volumes": ["data"] } }]);
        });
        assert_eq!(decide(&spec, &all_well()).message, None);
    }

    #[test]
    fn behaviour_3_2_targets_of_a_list_need_names_of_their_own() {
        let named =
            |names: [&str; 2]| policy(|spec| spec["targets"] = json!(names.map(|name| json!({ "name": name }))));
        assert_eq!(fault(&named(["a", "b"])), None);
        assert!(fault(&named(["a", ""])).unwrap().contains("targets[1]"));
        assert!(fault(&named(["a", "a"])).unwrap().contains("named a"));
        let of_method = policy(|spec| spec["backupMethods"][0]["targets"] = json!([{}]));
        assert!(fault(&of_method).unwrap().contains("method full"));
    }

    #[test]
    fn behaviour_3_3_an_empty_selector_is_not_everything() {
        let spec = policy(|spec| spec["target"]["podSelector"] = json!({}));
        assert!(decide(&spec, &all_well()).message.unwrap().contains("empty"));
    }
}
