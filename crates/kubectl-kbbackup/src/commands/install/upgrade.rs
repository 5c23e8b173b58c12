//! `upgrade`: what is installed, in the version of this plugin.

use clap::Args;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::ResourceExt;

use super::{
    embedded,
    rollout::{self, RolloutArgs},
};
use crate::{
    app::{App, get},
    args::DryRun,
    ask,
    error::{CliError, Result},
    exit::Exit,
    install::{self, Settings, VERSION, present::Present, store},
    manifest::{self, How, Manifest},
    output::table::Sheet,
    ui::{Mark, Ui},
};

/// Bring what is installed to the version of this plugin: definitions, operator, providers, action sets, embedded store
///
/// Says first what will change. Backups, repositories, keys and volumes stay as they are, and so do images that come from
/// another registry than ours: they move to this version's tag when theirs was a version.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup upgrade
  kubectl kbbackup upgrade --yes --timeout 5m
  kubectl kbbackup upgrade --controller-image registry.example.com/kbbackup/controller:0.1.0
  kubectl kbbackup upgrade --dry-run -o yaml")]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    pub rollout: RolloutArgs,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &UpgradeArgs) -> Result<Exit> {
    let args = &args.rollout;
    let operator = installed(app).await?;
    let present = Present::of(&operator);
    if present.is_newer() {
        let version = present.version.as_deref().unwrap_or_default();
        return Err(CliError::usage(
            format!("the operator is of version {version} and this plugin of {VERSION}"),
            "an older operator may not understand what a newer one wrote",
        )
        .hint("kubectl krew upgrade kbbackup"));
    }
    let settings = args.settings(operator.namespace().unwrap_or_default(), &present);
    let crds = install::crds()?;
    rollout::refuse_foreign(ui, app, args.adopt_crds, &crds).await?;
    let store = store_manifests(app, &settings).await?;

    if args.write.dry_run != DryRun::None {
        let mut manifests = crds;
        manifests.extend(install::operator(&settings)?);
        manifests.extend(install::catalogue()?);
        manifests.extend(store);
        manifest::previewed(app, ui, &manifests, How::Apply, &args.write).await?;
        return Ok(Exit::Done);
    }
    ui.say(&plan(&present, &settings, crds.len(), !store.is_empty()));
    ask::go_on(ui, args.yes, "Go on?")?;
    rollout::definitions(ui, app, &crds, args.write.output).await?;
    rollout::operator(ui, app, &settings, args.write.output, &args.wait).await?;
    if !store.is_empty() {
        rollout::apply(ui, app, &store, args.write.output).await?;
        if args.wait.wait != Some(false) {
            embedded::ready(ui, app, &settings.namespace, args.wait.limit_or(rollout::USUAL_LIMIT)).await?;
        }
        ui.say(&ui.marked(Mark::Good, &format!("statefulset/{}, the embedded store", store::STORE)));
    }
    ui.equivalent();
    ui.hint("kubectl kbbackup doctor");
    Ok(Exit::Done)
}

/// The operator that is there: without one there is nothing to upgrade.
async fn installed(app: &App) -> Result<Deployment> {
    let found = app.operator().await?;
    let operator = found.ok_or_else(|| {
        CliError::missing("there is nothing to upgrade", "the operator is not installed")
            .hint("kubectl kbbackup install")
    })?;
    let namespace = operator.namespace().unwrap_or_default();
    if app.namespace_given() && namespace != app.namespace {
        return Err(CliError::usage(
            format!("the operator is not in namespace {}", app.namespace),
            format!("it runs in {namespace}, and a second one would fight it"),
        )
        .hint(format!("kubectl kbbackup upgrade -n {namespace}")));
    }
    if let Some(release) = operator.annotations().get("meta.helm.sh/release-name") {
        return Err(CliError::usage(
            format!("the operator belongs to Helm release {release}"),
            "Helm would undo at its next upgrade what is changed here",
        )
        .hint(format!("helm upgrade {release} CHART -n {namespace}")));
    }
    Ok(operator)
}

/// The embedded store, where there is one.
async fn store_manifests(app: &App, settings: &Settings) -> Result<Vec<Manifest>> {
    let namespace = &settings.namespace;
    match get(&app.within::<StatefulSet>(namespace), &format!("statefulset/{}", store::STORE)).await {
        Err(error) if error.exit == Exit::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(present) => embedded::renewed(settings, &present),
    }
}

/// What will be different.
fn plan(present: &Present, settings: &Settings, definitions: usize, store: bool) -> String {
    let mut sheet = Sheet::default();
    let steps = match present.version.as_deref() {
        Some(version) if version == VERSION => format!("{VERSION} already; its objects are brought into line"),
        Some(version) => format!("{version} to {VERSION}"),
        None => format!("an unknown version to {VERSION}"),
    };
    sheet.line("Operator", steps);
    sheet.line("  namespace", &settings.namespace);
    sheet.line("  image", settings.controller_image());
    sheet.line("  mover", settings.mover_image());
    sheet.line("  restarts", "when one of them changes; backups that run go on");
    sheet.line("Definitions", format!("{definitions}; their objects stay"));
    if store {
        sheet.line("Store", format!("statefulset/{}; volume and keys stay", store::STORE));
        sheet.line("  restarts", "when the mover changes; a backup that runs then may have to begin again");
    }
    sheet.finish().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(version: &str, image: &str, store: bool) -> String {
        let operator = json!({"metadata": {"labels": {"app.kubernetes.io/version": version}},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "controller", "image": image}]}}}});
        let present = Present::of(&serde_json::from_value(operator).unwrap());
        let settings = present.keep(Settings { namespace: "kbbackup-system".into(), ..Settings::default() });
        plan(&present, &settings, 8, store)
    }

    #[test]
    fn the_plan_tells_versions_images_and_what_restarts() {
        insta::assert_snapshot!(told("0.0.9", "registry.example.com/kb/controller:0.0.9", true));
        let again = told(VERSION, "ghcr.io/kbbackup/controller:0.1.0", false);
        assert!(again.contains("already") && !again.contains("Store"), "{again}");
    }

    #[test]
    fn the_store_s_keys_and_volume_are_left_alone() {
        let claim = json!({"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "77Gi"}}}, "status": {}});
        let present =
            json!({"spec": {"serviceName": "s", "selector": {}, "template": {}, "volumeClaimTemplates": [claim]}});
        let settings = Settings { mover_image: Some("new:2".into()), ..Settings::default() };
        let manifests = embedded::renewed(&settings, &serde_json::from_value(present).unwrap()).unwrap();
        let kinds: Vec<&str> = manifests.iter().map(Manifest::kind).collect();
        assert_eq!(kinds, ["Service", "StatefulSet"]);
        let spec = &manifests[1].value()["spec"];
        assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "77Gi");
        assert_eq!(spec["template"]["spec"]["containers"][0]["image"], "new:2");
    }
}
