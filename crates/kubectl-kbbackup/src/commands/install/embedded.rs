//! The embedded repository of an installation: asked for, made, waited for.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Secret};
use kbbackup_api::v1alpha1::BackupRepo;
use kube::{Resource, ResourceExt, core::NamespaceResourceScope};
use rand::distr::{Alphanumeric, SampleString};
use serde::de::DeserializeOwned;

use super::{InstallArgs, rollout};
use crate::{
    app::App,
    ask,
    commands::repo,
    error::{Doing, Result},
    install::{Settings, store},
    manifest::Manifest,
    ui::{Mark, Ui},
    wait::{self, Seen, Waiting},
};

fn wish(args: &InstallArgs, default: bool) -> store::Wish {
    store::Wish {
        size: args.embedded_size.clone(),
        storage_class: args.embedded_storage_class.clone(),
        default,
        provider: "s3-compatible".to_owned(),
    }
}

fn new_keys() -> store::Keys {
    let mut random = rand::rng();
    store::Keys {
        access: Alphanumeric.sample_string(&mut random, 20),
        secret: Alphanumeric.sample_string(&mut random, 40),
    }
}

pub(super) fn wanted(ui: &Ui, args: &InstallArgs, repos: &[BackupRepo]) -> Result<bool> {
    if let Some(wanted) = args.embedded_repo {
        return Ok(wanted);
    }
    if !repos.is_empty() || !ui.may_ask || args.rollout.yes {
        return Ok(false);
    }
    ui.say("There is no repository yet. One can be made inside this cluster: an S3 store on one volume.");
    ui.say("It needs no account anywhere, but it lives in the same cluster as the data.");
    let wanted = ask::yes(ui, &format!("Make it, with {}?", args.embedded_size), true)?;
    ui.answered(if wanted { "--embedded-repo" } else { "--embedded-repo=false" }, "");
    Ok(wanted)
}

/// The store and its repository as they are to be. What of them is there already keeps its keys and its volume.
pub(super) async fn planned(
    app: &App,
    args: &InstallArgs,
    settings: &Settings,
    default: bool,
) -> Result<(Vec<Manifest>, Manifest)> {
    let namespace = &settings.namespace;
    let wish = wish(args, default);
    // With new keys nobody could read an existing store any more.
    let existing = present::<Secret>(app, namespace, "secret").await?;
    let keys = existing.as_ref().and_then(store::Keys::of).unwrap_or_else(new_keys);
    let mut manifests = store::store(settings, &wish, &keys);
    if let Some(present) = present::<StatefulSet>(app, namespace, "statefulset").await? {
        keep_claims(&mut manifests, &present)?;
    }
    Ok((manifests, store::repo(settings, &wish)))
}

/// A part of the store, if it is there. A dry run may have no cluster at all; a server that answers must say.
async fn present<K>(app: &App, namespace: &str, kind: &str) -> Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    match app.within::<K>(namespace).get_opt(store::STORE).await {
        Err(error @ kube::Error::Api(_)) => Err(error).doing(|| format!("{kind}/{} cannot be read", store::STORE)),
        found => Ok(found.ok().flatten()),
    }
}

/// Whether the embedded repository is, or may become, the default one.
pub(super) fn may_be_default(repos: &[BackupRepo]) -> bool {
    repos.iter().all(|repo| !repo::is_default(repo) || repo.name_any() == store::REPO)
}

pub(super) async fn make(
    ui: &Ui,
    app: &App,
    args: &InstallArgs,
    settings: &Settings,
    repos: &[BackupRepo],
) -> Result<()> {
    let waits = args.rollout.wait.wait != Some(false);
    let namespace = &settings.namespace;
    let default = may_be_default(repos);
    let (manifests, repo) = planned(app, args, settings, default).await?;
    rollout::apply(ui, app, &manifests, args.rollout.write.output).await?;
    if waits {
        ready(ui, app, namespace, args.rollout.wait.limit_or(rollout::USUAL_LIMIT)).await?;
    }
    rollout::apply(ui, app, &[repo], args.rollout.write.output).await?;
    if waits {
        repo::wait_ready(ui, app, store::REPO, args.rollout.wait.limit_or(rollout::USUAL_LIMIT)).await?;
        let mark = if default { ", the default" } else { "" };
        let size = &args.embedded_size;
        ui.say(&ui.marked(Mark::Good, &format!("backuprepo/{}{mark}, on a volume of {size}", store::REPO)));
    }
    Ok(())
}

/// The store of an earlier installation with the mover of this one; its keys, its volume and its repository stay as they are.
pub(super) fn renewed(settings: &Settings, present: &StatefulSet) -> Result<Vec<Manifest>> {
    let mut manifests = store::store(settings, &store::Wish::default(), &new_keys());
    manifests.retain(|manifest| manifest.kind() != "Secret");
    keep_claims(&mut manifests, present)?;
    Ok(manifests)
}

/// Waits until the store runs as it was written last.
pub(super) async fn ready(ui: &Ui, app: &App, namespace: &str, limit: Option<Duration>) -> Result<()> {
    let what = format!("statefulset/{}", store::STORE);
    let hints = vec![format!("kubectl get pods,pvc -n {namespace}")];
    let waiting = Waiting { what: &what, limit, hints };
    let api = app.within::<StatefulSet>(namespace);
    let ready = wait::until(ui, api, store::STORE, &waiting, |set: Option<&StatefulSet>| {
        if set.is_some_and(is_ready) { Seen::End(()) } else { Seen::Going(format!("{what}: starting")) }
    })
    .await;
    if ready.is_err() {
        rollout::pod_troubles(ui, app, namespace).await;
    }
    ready
}

/// A pod of an earlier revision may be ready still, while its successor is not.
fn is_ready(set: &StatefulSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let current = status.observed_generation >= set.metadata.generation
        && (status.update_revision.is_none() || status.current_revision == status.update_revision);
    current && status.ready_replicas.unwrap_or(0) > 0
}

/// Claim templates of a StatefulSet cannot change; a repeated install keeps those that are there.
fn keep_claims(manifests: &mut [Manifest], present: &StatefulSet) -> Result<()> {
    let templates = present.spec.as_ref().and_then(|spec| spec.volume_claim_templates.clone()).unwrap_or_default();
    for manifest in manifests.iter_mut().filter(|manifest| manifest.kind() == "StatefulSet") {
        let mut kept = serde_json::to_value(&templates)?;
        for template in kept.as_array_mut().into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
            template.remove("status");
        }
        manifest.value_mut()["spec"]["volumeClaimTemplates"] = kept;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_of_an_earlier_revision_does_not_make_the_store_ready() {
        let store = |generation: i64, current: &str, ready: i32| {
            let spec = json!({"serviceName": "s", "selector": {}, "template": {}});
            let status = json!({"replicas": 1, "observedGeneration": generation, "currentRevision": current,
                "updateRevision": "b", "readyReplicas": ready});
            let set = json!({"metadata": {"generation": 2}, "spec": spec, "status": status});
            is_ready(&serde_json::from_value(set).unwrap())
        };
        assert!(store(2, "b", 1));
        assert!(!store(1, "b", 1), "the change was not seen yet");
        assert!(!store(2, "a", 1), "the pod is still the old one");
        assert!(!store(2, "b", 0), "the new one does not answer yet");
    }
}
