//! Secrets of system accounts, brought back before a cluster's volumes are filled: behaviour 7.2.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::Backup;
use kbbackup_core::accounts::{Accounts, Key};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};

use super::{apply, kubeblocks, wish};
use crate::context::Context;
use crate::worker::error::{Doing as _, Error, LONG, Refusal};

const PROVISIONED: &str = "apps.kubeblocks.io/system-account-provisioned";

/// Creates or updates the Secrets for the claim's component from what `backup` recorded.
///
/// # Errors
/// [`Error::Refused`] when they cannot be opened.
pub async fn restore(ctx: &Context, claim: &PersistentVolumeClaim, backup: &Backup) -> Result<(), Error> {
    if !wish::of_cluster(claim) {
        return Ok(());
    }
    let Some(text) = backup.annotations().get(annotations::ENCRYPTED_SYSTEM_ACCOUNTS).filter(|text| !text.is_empty())
    else {
        return Ok(());
    };
    let Some(home) = Home::of(claim) else { return Ok(()) };
    let passwords = passwords(text, &home, &backup.name_any(), ctx.settings.accounts_key.as_ref())?;
    if passwords.is_empty() {
        return Ok(());
    }
    let namespace = claim.namespace().unwrap_or_default();
    let (kind, name) = home.owner();
    let owner = kubeblocks::get(ctx, kubeblocks::APPS, kind, Some(&namespace), &name).await?;
    let owner = owner.as_ref().and_then(kubeblocks::owner_reference);
    let owner = owner.ok_or_else(|| {
        Refusal::not_yet(LONG, format!("{kind} {name}, which the accounts' Secrets belong to, does not exist yet"))
    })?;
    for (user, password) in &passwords {
        write(ctx, &secret(&home, &namespace, user, password, owner.clone())).await?;
    }
    Ok(())
}

/// Where the accounts of a claim belong.
#[derive(Clone, Debug, PartialEq)]
struct Home {
    cluster: String,
    component: String,
    sharding: Option<String>,
    /// Name under which the backup recorded them.
    recorded: String,
}

impl Home {
    fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let (cluster, component) = kubeblocks::component(claim)?;
        let sharding = claim.labels().get(labels::SHARDING_NAME).filter(|name| !name.is_empty()).cloned();
        let own = sharding.clone().unwrap_or_else(|| component.to_owned());
        let noted = wish::annotation(claim, annotations::RESTORE_COMPONENT).map(str::to_owned);
        Some(Self {
            cluster: cluster.to_owned(),
            component: component.to_owned(),
            recorded: noted.filter(|_| sharding.is_none()).unwrap_or(own),
            sharding,
        })
    }

    fn owner(&self) -> (&'static str, String) {
        match self.sharding {
            Some(_) => ("Cluster", self.cluster.clone()),
            None => ("Component", format!("{}-{}", self.cluster, self.component)),
        }
    }
}

fn passwords(text: &str, home: &Home, backup: &str, key: Option<&Key>) -> Result<BTreeMap<String, String>, Refusal> {
    let all: Accounts = serde_json::from_str(text).map_err(|error| {
        Refusal::fatal(format!("the accounts that backup {backup} recorded cannot be read: {error}"))
    })?;
    let own = all.get(&home.recorded).cloned().unwrap_or_default();
    if own.is_empty() {
        return Ok(BTreeMap::new());
    }
    let key = key.ok_or_else(|| {
        Refusal::fatal(format!(
            "backup {backup} recorded passwords of accounts, and the operator has no DP_ENCRYPTION_KEY to open them; set the one \
             that was set when the backup was taken"
        ))
    })?;
    own.into_iter()
        .map(|(user, sealed)| match key.open(&sealed) {
            Ok(password) => Ok((user, password)),
            Err(error) => Err(Refusal::fatal(format!(
                "the password of account {user} in backup {backup} cannot be opened: {error}"
            ))),
        })
        .collect()
}

fn secret(home: &Home, namespace: &str, user: &str, password: &str, owner: OwnerReference) -> Secret {
    let Home { cluster, component, sharding, .. } = home;
    let (name, place) = match sharding {
        Some(sharding) => (format!("{cluster}-{sharding}-{user}"), (labels::SHARDING_NAME, sharding)),
        None => {
            (format!("{cluster}-{component}-account-{}", user.replace('_', "-")), (labels::COMPONENT_NAME, component))
        }
    };
    let labels = [(labels::INSTANCE, cluster.as_str()), (place.0, place.1.as_str()), (labels::SYSTEM_ACCOUNT, user)];
    let data = [("username", user), ("password", password)];
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some([(PROVISIONED.to_owned(), TRUE.to_owned())].into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).into()),
        ..Secret::default()
    }
}

/// Creates the Secret, or brings the one of its name up to date; an immutable one with other content is replaced.
async fn write(ctx: &Context, wanted: &Secret) -> Result<(), Error> {
    let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
    let api = Api::<Secret>::namespaced(ctx.client.clone(), &namespace);
    let found = api.get_opt(&name).await.doing(|| format!("reading Secret {name}"))?;
    if let Some(found) = found {
        if found.labels().get(labels::INSTANCE) != wanted.labels().get(labels::INSTANCE) {
            return Err(Refusal::fatal(format!(
                "Secret {name} exists and does not belong to this cluster; rename or delete it"
            ))
            .into());
        }
        let up_to_date = is_within(wanted, &found);
        if up_to_date {
            return Ok(());
        }
        if found.immutable != Some(true) {
            let patch = serde_json::json!({ "metadata": { "resourceVersion": found.resource_version(), "labels": wanted.labels(),
                "annotations": wanted.annotations() }, "data": wanted.data });
            let params = PatchParams { field_manager: Some(apply::MANAGER.to_owned()), ..PatchParams::default() };
            let written = api.patch_metadata(&name, &params, &Patch::Merge(patch)).await;
            return written.doing(|| format!("updating Secret {name}")).map(drop);
        }
        apply::delete(&api, &found).await?;
    }
    let params = PostParams { field_manager: Some(apply::MANAGER.to_owned()), ..PostParams::default() };
    // A conflict means that another claim's reconcile was quicker: the next look compares.
    api.create(&params, wanted).await.doing(|| format!("creating Secret {name}")).map(drop)
}

/// Whether `found` has all that `wanted` says.
fn is_within(wanted: &Secret, found: &Secret) -> bool {
    let subset = |wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>| {
        wanted.iter().all(|(key, value)| found.get(key) == Some(value))
    };
    let held = found.data.clone().unwrap_or_default();
    wanted.data.iter().flatten().all(|(key, value)| held.get(key) == Some(value))
        && subset(wanted.labels(), found.labels())
        && subset(wanted.annotations(), found.annotations())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn home(labels: serde_json::Value) -> Home {
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({ "metadata": {"name": "c", "labels": labels} })).unwrap();
        Home::of(&claim).unwrap()
    }

    fn owner() -> OwnerReference {
        OwnerReference {
            kind: "Component".into(),
            name: "new-mysql".into(),
            uid: "u".into(),
            ..OwnerReference::default()
        }
    }

    #[test]
    fn behaviour_7_2_the_secret_of_a_component_s_account() {
        let home = home(json!({ labels::INSTANCE: "new", labels::COMPONENT_NAME: "mysql" }));
        assert_eq!(home.owner(), ("Component", "new-mysql".into()));
        insta::assert_yaml_snapshot!(secret(&home, "demo", "kb_admin", "pw", owner()));
    }

    #[test]
    fn behaviour_7_2_the_secret_of_a_sharding_s_account() {
        let labels =
            json!({ labels::INSTANCE: "new", labels::COMPONENT_NAME: "shard-a1b", labels::SHARDING_NAME: "shard" });
        let home = home(labels);
        assert_eq!((home.recorded.as_str(), home.owner()), ("shard", ("Cluster", "new".into())));
        let secret = secret(&home, "demo", "kb_admin", "pw", owner());
        assert_eq!(secret.name_any(), "new-shard-kb_admin");
        assert_eq!(secret.labels()[labels::SHARDING_NAME], "shard");
    }

    #[test]
    fn behaviour_7_2_a_password_that_cannot_be_opened_is_fatal() {
        let home = home(json!({ labels::INSTANCE: "new", labels::COMPONENT_NAME: "mysql" }));
        let key = Key::derive("kb-dp-aes256");
        let sealed = key.seal("pw", [7; 12]).unwrap();
        let text = json!({ "mysql": {"root": sealed}, "proxy": {"x": "y"} }).to_string();
        assert_eq!(passwords(&text, &home, "b", Some(&key)).unwrap()["root"], "pw");
        assert!(matches!(passwords(&text, &home, "b", Some(&Key::derive("other"))), Err(Refusal::Fatal(_))));
        assert!(passwords(&text, &home, "b", None).unwrap_err().to_string().contains("DP_ENCRYPTION_KEY"));
        assert!(passwords("{}", &home, "b", None).unwrap().is_empty());
    }

    #[test]
    fn a_secret_that_has_all_is_left_alone() {
        let home = home(json!({ labels::INSTANCE: "new", labels::COMPONENT_NAME: "mysql" }));
        let wanted = secret(&home, "demo", "root", "pw", owner());
        let mut found = wanted.clone();
        found.data.as_mut().unwrap().insert("more".into(), ByteString(b"x".to_vec()));
        assert!(is_within(&wanted, &found));
        found.data.as_mut().unwrap().insert("password".into(), ByteString(b"old".to_vec()));
        assert!(!is_within(&wanted, &found));
    }
}
