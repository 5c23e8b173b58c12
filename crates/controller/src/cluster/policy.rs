//! The BackupPolicy of a component: made from its template, and kept as people changed it. Pure.

use std::collections::BTreeMap;

use kbbackup_api::apps::Cluster;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{BackupPolicy, BackupPolicySpec, BackupPolicyTemplate, BackupTarget, EncryptionConfig};
use kbbackup_core::names::{MAX_NAME, shorten63};
use kube::core::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use super::parts::Part;
use super::target::{self, Targets};

/// What a part's policy and schedule are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) part: &'a Part,
    pub(super) template: &'a BackupPolicyTemplate,
    /// What the administrator wants all policies to encrypt with.
    pub(super) encryption: Option<&'a EncryptionConfig>,
}

impl Recipe<'_> {
    /// Name of the policy.
    pub(super) fn policy_name(&self) -> String {
        shorten63(&format!("{}-{}-backup-policy", self.cluster.name_any(), self.part.name))
    }

    /// Name of the schedule.
    pub(super) fn schedule_name(&self) -> String {
        shorten63(&format!("{}-{}-backup-schedule", self.cluster.name_any(), self.part.name))
    }

    /// Labels and annotations of both, and whose they are.
    pub(super) fn metadata(&self, name: String) -> ObjectMeta {
        let part = if self.part.shards.is_some() { labels::SHARDING_NAME } else { labels::COMPONENT_NAME };
        let labels = [
            (labels::MANAGED_BY, labels::MANAGED_BY_KUBEBLOCKS.to_owned()),
            (labels::INSTANCE, self.cluster.name_any()),
            (labels::COMPONENT_DEFINITION, self.part.definition.clone()),
            (part, self.part.name.clone()),
        ];
        let reconfigure = self.template.annotations().get(annotations::RECONFIGURE_REF).cloned();
        let notes = [
            Some((annotations::IS_DEFAULT_POLICY, TRUE.to_owned())),
            Some((annotations::BACKUP_POLICY_TEMPLATE, self.template.name_any())),
            reconfigure.map(|text| (annotations::RECONFIGURE_REF, text)),
        ];
        let owned = |(key, value): (&str, String)| (key.to_owned(), value);
        ObjectMeta {
            name: Some(name),
            namespace: self.cluster.namespace(),
            // A definition's name may be longer than a label; then it stands in the template's status only.
            labels: Some(labels.into_iter().filter(|(_, value)| value.len() <= MAX_NAME).map(owned).collect()),
            annotations: Some(notes.into_iter().flatten().map(owned).collect()),
            owner_references: self.cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// The policy as it should be, given how it is.
    pub(super) fn policy(&self, existing: Option<&BackupPolicy>) -> BackupPolicy {
        let mut policy = match existing {
            Some(existing) => existing.clone(),
            None => BackupPolicy { spec: self.fresh(), ..BackupPolicy::default() },
        };
        policy.metadata = merged(existing.map(|existing| &existing.metadata), self.metadata(self.policy_name()));
        let keep = policy.annotations().get(annotations::DISABLE_SYNC_FROM_TEMPLATE).is_some_and(|value| value == TRUE);
        if existing.is_some() && !keep {
            let template = &self.template.spec;
            policy.spec.backup_methods = target::methods(&self.cluster.name_any(), self.part, &template.backup_methods);
        }
        if existing.is_some() {
            self.follow(&mut policy.spec);
        }
        let repo = self.cluster.spec.backup.as_ref().and_then(|backup| backup.repo_name.clone());
        if let Some(repo) = repo.filter(|name| !name.is_empty()) {
            policy.spec.backup_repo_name = Some(repo);
        }
        if let Some(encryption) = self.encryption {
            policy.spec.encryption_config = Some(encryption.clone());
        }
        policy
    }

    fn wish(&self) -> kbbackup_api::v1alpha1::TargetInstance {
        self.template.spec.target.clone().unwrap_or_default()
    }

    fn fresh(&self) -> BackupPolicySpec {
        let (cluster, uid) = (self.cluster.name_any(), self.cluster.uid().unwrap_or_default());
        let (target, targets) = match target::targets(&cluster, self.part, &self.wish()) {
            Targets::One(target) => (Some(*target), Vec::new()),
            Targets::Many(targets) => (None, targets),
        };
        let template = &self.template.spec;
        BackupPolicySpec {
            path_prefix: Some(format!("/{cluster}-{uid}/{}", self.part.name)),
            backoff_limit: template.backoff_limit,
            retention_policy: template.retention_policy,
            backup_methods: target::methods(&cluster, self.part, &template.backup_methods),
            target,
            targets,
            ..BackupPolicySpec::default()
        }
    }

    /// Targets that exist stay; shards come and go.
    fn follow(&self, spec: &mut BackupPolicySpec) {
        let wish = self.wish();
        match target::targets(&self.cluster.name_any(), self.part, &wish) {
            Targets::One(new) => {
                let target = spec.target.get_or_insert(*new);
                target::follow(target, self.part, &wish);
                spec.targets = Vec::new();
            }
            Targets::Many(new) => {
                let existing = |new: BackupTarget| match spec.targets.iter().find(|target| target.name == new.name) {
                    Some(existing) => {
                        let mut target = existing.clone();
                        target::follow(&mut target, self.part, &wish);
                        target
                    }
                    None => new,
                };
                let all: Vec<_> = new.into_iter().map(existing).collect();
                spec.target = None;
                spec.targets = all;
            }
        }
    }
}

/// `wanted` laid over what is there; labels and annotations of others stay.
pub(super) fn merged(existing: Option<&ObjectMeta>, wanted: ObjectMeta) -> ObjectMeta {
    let Some(existing) = existing else { return wanted };
    let over = |old: &Option<BTreeMap<String, String>>, new: Option<BTreeMap<String, String>>| {
        let mut all = old.clone().unwrap_or_default();
        all.extend(new.unwrap_or_default());
        Some(all)
    };
    ObjectMeta {
        labels: over(&existing.labels, wanted.labels),
        annotations: over(&existing.annotations, wanted.annotations),
        ..existing.clone()
    }
}
