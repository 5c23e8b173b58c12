//! The embedded repository of an installation: asked for, made, waited for.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Secret};
use kbbackup_api::v1alpha1::BackupRepo;
use kube::ResourceExt;
use rand::distr::{Alphanumeric, SampleString};

use super::InstallArgs;
use crate::{
    app::App,
    ask,
    commands::repo,
    error::Result,
    install::{Settings, store},
    manifest::Manifest,
    ui::{Mark, Ui},
    wait::{self, Seen, Waiting},
};

pub(super) fn wish(args: &InstallArgs, default: bool) -> store::Wish {
    store::Wish {
        size: args.embedded_size.clone(),
        storage_class: args.embedded_storage_class.clone(),
        default,
        provider: "s3-compatible".to_owned(),
    }
}

pub(super) fn new_keys() -> store::Keys {
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
    if !repos.is_empty() || !ui.may_ask || args.yes {
        return Ok(false);
    }
    ui.say("There is no repository yet. One can be made inside this cluster: an S3 store on one volume.");
    ui.say("It needs no account anywhere, but it lives in the same cluster as the data.");
    ask::yes(ui, &format!("Make it, with {}?", args.embedded_size), true)
}

pub(super) async fn make(
    ui: &Ui,
    app: &App,
    args: &InstallArgs,
    settings: &Settings,
    repos: &[BackupRepo],
    waits: bool,
) -> Result<()> {
    let namespace = &settings.namespace;
    let default = repos.iter().all(|repo| !repo::is_default(repo) || repo.name_any() == store::REPO);
    let wish = wish(args, default);
    // The keys of an existing store stay, or nobody could read it any more.
    let existing = app.within::<Secret>(namespace).get_opt(store::STORE).await.ok().flatten();
    let keys = existing.as_ref().and_then(store::Keys::of).unwrap_or_else(new_keys);
    let mut manifests = store::store(settings, &wish, &keys);
    if let Some(present) = app.within::<StatefulSet>(namespace).get_opt(store::STORE).await.ok().flatten() {
        keep_claims(&mut manifests, &present)?;
    }
    super::apply(ui, app, &manifests, args).await?;
    if waits {
        let what = format!("statefulset/{}", store::STORE);
        let hints = vec![format!("kubectl get pods,pvc -n {namespace}")];
        let waiting = Waiting { what: &what, limit: args.wait.limit().or(Some(Duration::from_secs(300))), hints };
        let ready = wait::until(
            ui,
            app.within::<StatefulSet>(namespace),
            store::STORE,
            &waiting,
            |set: Option<&StatefulSet>| {
                let ready =
                    set.and_then(|set| set.status.as_ref()).and_then(|status| status.ready_replicas).unwrap_or(0);
                if ready > 0 { Seen::End(()) } else { Seen::Going(format!("{what}: starting")) }
            },
        )
        .await;
        if let Err(error) = ready {
            super::pod_troubles(ui, app, namespace).await;
            return Err(error);
        }
    }
    super::apply(ui, app, &[store::repo(settings, &wish)], args).await?;
    if waits {
        repo::wait_ready(ui, app, store::REPO, args.wait.limit().or(Some(Duration::from_secs(300)))).await?;
        let mark = if default { ", the default" } else { "" };
        ui.say(&ui.marked(Mark::Good, &format!("backuprepo/{}{mark}, on a volume of {}", store::REPO, wish.size)));
    }
    Ok(())
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
