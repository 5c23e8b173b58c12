//! `restore --in-place`: the running workload as it is, and what stands against taking it back. Only looked at, never
//! written: the operator does the work.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{PersistentVolume, PersistentVolumeClaim},
};
use kbbackup_api::{
    in_place,
    names::annotations,
    snapshot::VolumeSnapshotClass,
    v1alpha1::{Backup, Restore},
};
use kube::{ResourceExt, api::ListParams};

use super::RestoreArgs;
use crate::{
    app::{App, get, list_all},
    build::restore::{self as build, InPlace, Recorded},
    error::{CliError, Result},
    follow,
    install::{VERSION, foreign},
    ui::Ui,
};

/// The workload that is taken back, as it runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub set: StatefulSet,
    /// First ordinal, and pods that it gets back.
    pub pods: (i32, i32),
    /// Pods that are stopped for it.
    pub stopped: i32,
    /// The claims that get other volumes.
    pub claims: Vec<Old>,
    /// Claims of its volumes for pods that it does not have; they are left alone.
    pub spare: Vec<String>,
}

/// A claim that gets another volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Old {
    pub claim: String,
    /// What it asks for, such as `10Gi`.
    pub size: Option<String>,
    /// The volume that is kept.
    pub volume: Option<String>,
    /// The class of its snapshot, when its driver takes some.
    pub class: Option<String>,
}

/// Whether a seal vouches for what the volumes are to be exchanged for. Snapshots are their driver's, and a log has none.
pub(super) fn vouched(backup: &Backup) -> Result<()> {
    let status = backup.status.as_ref();
    let snapshots =
        status.is_some_and(|status| status.actions.iter().any(|action| !action.volume_snapshots.is_empty()));
    if snapshots
        || follow::is_continuous(backup)
        || backup.annotations().get(annotations::SEAL).is_some_and(|seal| !seal.is_empty())
    {
        return Ok(());
    }
    let name = backup.name_any();
    let what = format!("backup/{name} cannot be restored in place");
    Err(CliError::usage(
        what,
        "it has no seal, so nothing vouches for its content; look at it under another name first",
    )
    .hint(format!("kubectl kbbackup restore NEW --from {name}")))
}

/// Looks at the StatefulSet `name`, whose `volumes` are brought back.
///
/// # Errors
/// When it must not be taken back in place: nothing was changed.
pub(super) async fn look(ui: &Ui, app: &App, args: &RestoreArgs, name: &str, volumes: &[String]) -> Result<Running> {
    our_operator(ui, app).await?;
    let set: StatefulSet = get(&app.here(), &format!("statefulset/{name}")).await?;
    // Who may not list them learns it from the operator.
    let scalers = list_all(&app.here::<HorizontalPodAutoscaler>(), ListParams::default(), "autoscalers").await;
    let what = || format!("statefulset/{name} cannot be taken back in place");
    if let Some(why) = in_place::obstacle(&set, &scalers.unwrap_or_default()) {
        return Err(CliError::usage(what(), why));
    }
    let (start, stopped) = in_place::pods(&set);
    let pods = match (stopped, args.replicas) {
        (0, None) => {
            return Err(CliError::usage(what(), "it has no pods, so it is not known how many it is to have")
                .hint("add --replicas N"));
        }
        (0, Some(wanted)) => wanted,
        (has, Some(wanted)) if has != wanted => {
            return Err(CliError::usage(what(), format!("it has {has} pods, and --replicas says {wanted}"))
                .hint(format!("kubectl scale statefulset {name} --replicas={wanted}{}", app.namespace_flag())));
        }
        (has, _) => has,
    };
    let present = list_all(&app.here::<PersistentVolumeClaim>(), ListParams::default(), "claims").await?;
    let classes = classes(app).await;
    let mut running = Running { set, pods: (start, pods), stopped, claims: Vec::new(), spare: Vec::new() };
    for volume in volumes {
        for ordinal in start..start + pods {
            let claim = in_place::claim_name(volume, name, ordinal);
            let found = present.iter().find(|found| found.name_any() == claim);
            running.claims.push(old(app, claim, found, &classes).await);
        }
        let prefix = format!("{volume}-{name}-");
        let ordinal = |claim: &String| claim.strip_prefix(&prefix).and_then(|rest| rest.parse::<i32>().ok());
        let spare = present.iter().map(ResourceExt::name_any);
        let spare = spare.filter(|claim| ordinal(claim).is_some_and(|at| !(start..start + pods).contains(&at)));
        running.spare.extend(spare);
    }
    Ok(running)
}

/// Another controller would fill new volumes by this Restore, and exchange nothing.
async fn our_operator(ui: &Ui, app: &App) -> Result<()> {
    let what = "a restore in place is not possible";
    if let Some(name) = foreign::controllers(app).await.unwrap_or_default().first() {
        let why = format!("only the operator of kbbackup can do it, and here KubeBlocks' deployment {name} works");
        return Err(CliError::missing(what, why).hint("kubectl kbbackup doctor"));
    }
    match app.operator().await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(CliError::missing(what, "the operator of kbbackup does not run in this cluster")
            .hint("kubectl kbbackup install")),
        // Who may not see deployments may still be served.
        Err(error) => {
            ui.warn(&format!("it is not known whether the operator of kbbackup runs here: {}", error.why));
            Ok(())
        }
    }
}

async fn classes(app: &App) -> Vec<VolumeSnapshotClass> {
    list_all(&app.everywhere::<VolumeSnapshotClass>(), ListParams::default(), "snapshot classes")
        .await
        .unwrap_or_default()
}

async fn old(app: &App, claim: String, found: Option<&PersistentVolumeClaim>, classes: &[VolumeSnapshotClass]) -> Old {
    let Some(spec) = found.and_then(|found| found.spec.as_ref()) else { return Old { claim, ..Old::default() } };
    let volume = spec.volume_name.clone().filter(|name| !name.is_empty());
    // Volumes belong to the cluster; who may not read them sees less of the plan.
    let read = match &volume {
        Some(name) => app.everywhere::<PersistentVolume>().get_opt(name).await.ok().flatten(),
        None => None,
    };
    let driver = read.and_then(|volume| volume.spec?.csi).map(|csi| csi.driver);
    let class = classes.iter().find(|class| Some(&class.driver) == driver.as_ref()).map(ResourceExt::name_any);
    let size = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage"));
    Old { claim, size: size.map(|size| size.0.clone()), volume, class }
}

impl Running {
    /// What the Restore is built from.
    pub(super) fn build(&self, snapshots: bool) -> InPlace {
        let (first, replicas) = self.pods;
        InPlace { first, replicas, snapshots }
    }

    /// The workload as it runs, with room in its claims for what they hold now and what they held when they were backed up.
    pub(super) fn recorded(&self, before: Option<&Recorded>) -> Recorded {
        let mut set = self.set.clone();
        let templates = set.spec.as_mut().and_then(|spec| spec.volume_claim_templates.as_mut());
        for template in templates.into_iter().flatten() {
            let volume = template.name_any();
            let prefix = format!("{volume}-{}-", self.set.name_any());
            let now =
                self.claims.iter().filter(|old| old.claim.starts_with(&prefix)).filter_map(|old| old.size.clone());
            let then = before.and_then(|before| before.size_of(&volume));
            build::at_least(template, now.chain(then));
        }
        Recorded {
            stateful_set: set,
            services: Vec::new(),
            config_maps: Vec::new(),
            secrets: Vec::new(),
            omitted: Vec::new(),
        }
    }
}

/// How to go back to the old data, once a restore in place is completed.
///
/// # Errors
/// When the operator exchanged nothing, for it is older than this.
pub(super) fn way_back(app: &App, restore: &Restore, name: &str) -> Result<String> {
    let record = in_place::Record::of(restore).ok().flatten().filter(|record| record.exchanging);
    let Some(record) = record else {
        return Err(CliError::failed(
            format!("restore/{} exchanged nothing", restore.name_any()),
            format!("the operator is older than this plugin ({VERSION}): it has filled new volumes only, and statefulset/{name} \
                 runs with its old data"),
        )
        .hint("kubectl kbbackup upgrade"));
    };
    let flag = app.namespace_flag();
    let kept: Vec<_> = record.claims.iter().filter_map(|one| Some((one, one.old_volume.as_ref()?))).collect();
    if kept.is_empty() {
        return Ok(String::new());
    }
    let mut lines = vec![
        format!("the old data is kept: {}", record.kept().join(", ")),
        "to go back to it, and lose what was restored:".to_owned(),
        format!("  kubectl scale statefulset {name} --replicas=0{flag}"),
    ];
    for (one, old) in &kept {
        lines.push(format!("  kubectl delete pvc {}{flag}", one.claim));
        lines.push(format!(
            "  kubectl patch pv {old} --type=merge -p '{{\"spec\":{{\"claimRef\":{{\"uid\":null,\"resourceVersion\":null}}}}}}'"
        ));
    }
    lines.push(format!("  kubectl scale statefulset {name} --replicas={}{flag}", record.after));
    let volumes: Vec<&str> = kept.iter().map(|(_, old)| old.as_str()).collect();
    lines.push(format!("to free the room: kubectl delete pv {}, then what its storage keeps", volumes.join(" ")));
    Ok(lines.join("\n"))
}
