//! Whether a claim may be filled from another namespace's backup: the contract's rule for clusters of KubeBlocks. (Our own
//! rule, an annotation on the backup, is the Restore controller's.)

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kbbackup_api::GROUP;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{Backup, Restore};
use kube::api::DynamicObject;
use kube::{Resource as _, ResourceExt as _};

use super::{build, decide, kubeblocks, observe, wish};
use crate::context::Context;
use crate::worker::error::{Doing as _, Error};

/// Whether the claim belongs to a Cluster whose restore names exactly this backup, and was made for it by KubeBlocks.
///
/// # Errors
/// Those of the API server.
pub async fn by_cluster(ctx: &Context, claim: &PersistentVolumeClaim, backup: &Backup) -> Result<bool, Error> {
    let Some((cluster, _)) = kubeblocks::component(claim) else { return Ok(false) };
    let Some(owner) = claim.owner_references().iter().find(|owner| owner.controller == Some(true)) else {
        return Ok(false);
    };
    if !owner.api_version.starts_with(&format!("{}/", kubeblocks::WORKLOADS))
        || !["InstanceSet", "Instance"].contains(&owner.kind.as_str())
    {
        return Ok(false);
    }
    let namespace = claim.namespace().unwrap_or_default();
    let maker = kubeblocks::get(ctx, kubeblocks::WORKLOADS, &owner.kind, Some(&namespace), &owner.name).await?;
    let Some(maker) = maker.filter(|maker| maker.metadata.uid.as_deref() == Some(owner.uid.as_str())) else {
        return Ok(false);
    };
    if !is_made_by(claim, &maker) {
        return Ok(false);
    }
    let cluster = kubeblocks::get(ctx, kubeblocks::APPS, "Cluster", Some(&namespace), cluster).await?;
    Ok(cluster.is_some_and(|cluster| names(&cluster, backup)))
}

/// Whether an internal Restore may read `backup`: the claim that it fills may.
///
/// # Errors
/// Those of the API server.
pub async fn of_internal(ctx: &Context, restore: &Restore, backup: &Backup) -> Result<bool, Error> {
    if !restore.labels().contains_key(labels::POPULATE_PVC) {
        return Ok(false);
    }
    let kind = PersistentVolumeClaim::kind(&());
    let Some(owner) = restore.owner_references().iter().find(|owner| owner.kind == kind) else { return Ok(false) };
    let api = observe::claims(ctx, &restore.namespace().unwrap_or_default());
    let claim = api.get_opt(&owner.name).await.doing(|| format!("reading claim {}", owner.name))?;
    let Some(claim) = claim.filter(|claim| decide::is_child(restore, claim)) else { return Ok(false) };
    if build::name(&claim) != restore.name_any() {
        return Ok(false);
    }
    let named = wish::Source::Backup { namespace: backup.namespace().unwrap_or_default(), name: backup.name_any() };
    if wish::source(&claim)? != Some(named) {
        return Ok(false);
    }
    by_cluster(ctx, &claim, backup).await
}

/// Whether the claim has the name that `maker`, an `InstanceSet` or `Instance` of its component, gives to its pods' claims.
fn is_made_by(claim: &PersistentVolumeClaim, maker: &DynamicObject) -> bool {
    let Some((cluster, component)) = kubeblocks::component(claim) else { return false };
    let Some(pod) = claim.labels().get(labels::POD_NAME) else { return false };
    let template = claim.labels().get(labels::VOLUME_CLAIM_TEMPLATE);
    let template =
        template.map(String::as_str).or_else(|| wish::annotation(claim, annotations::RESTORE_VOLUME_TEMPLATE));
    let set = format!("{cluster}-{component}");
    let name = maker.name_any();
    let below = |name: &str, parent: &str| name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('-'));
    (name == set || below(&name, &set))
        && (*pod == name || below(pod, &name))
        && maker.labels().get(labels::INSTANCE).is_none_or(|instance| instance == cluster)
        && template.is_some_and(|template| claim.name_any() == format!("{template}-{pod}"))
}

/// Whether the restore of a Cluster names exactly this backup.
fn names(cluster: &DynamicObject, backup: &Backup) -> bool {
    let source = &cluster.data["spec"]["restore"]["source"];
    let home = source["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    source["apiGroup"] == GROUP
        && source["kind"] == "Backup"
        && source["name"].as_str() == backup.metadata.name.as_deref()
        && home.or(cluster.metadata.namespace.as_deref()) == backup.metadata.namespace.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: &str, name: &str, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "new"}, "spec": spec }))
        .unwrap()
    }

    fn claim(name: &str, pod: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({ "metadata": {"name": name, "namespace": "new", "labels": {
            labels::INSTANCE: "c", labels::COMPONENT_NAME: "pg", labels::VOLUME_CLAIM_TEMPLATE: "data", labels::POD_NAME: pod}} }))
        .unwrap()
    }

    #[test]
    fn behaviour_6_9_only_the_backup_that_the_cluster_names() {
        let backup: Backup = serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "old"},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"} }))
        .unwrap();
        let cluster = |name: &str, namespace: &str| {
            let source = json!({ "apiGroup": GROUP, "kind": "Backup", "name": name, "namespace": namespace });
            object("Cluster", "c", json!({ "restore": {"source": source} }))
        };
        assert!(names(&cluster("b", "old"), &backup));
        assert!(!names(&cluster("b", ""), &backup), "its own namespace is meant");
        assert!(!names(&cluster("other", "old"), &backup));
        assert!(!names(&object("Cluster", "c", json!({})), &backup));
    }

    #[test]
    fn behaviour_6_9_only_a_claim_of_the_cluster_s_own_instances() {
        let set = object("InstanceSet", "c-pg", json!({}));
        assert!(is_made_by(&claim("data-c-pg-0", "c-pg-0"), &set));
        assert!(is_made_by(&claim("data-c-pg-0", "c-pg-0"), &object("Instance", "c-pg-0", json!({}))));
        assert!(!is_made_by(&claim("data-c-pg-1", "c-pg-0"), &set), "not the name that the set would give");
        assert!(!is_made_by(&claim("data-x-0", "x-0"), &set), "not a pod of the set");
        assert!(!is_made_by(&claim("data-c-pg-0", "c-pg-0"), &object("InstanceSet", "c-pgx", json!({}))));
    }
}
