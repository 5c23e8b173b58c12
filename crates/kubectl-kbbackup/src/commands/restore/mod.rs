//! `restore`: checks, a plan, confirmation, the Restore object, its end.

mod check;
pub(crate) mod in_place;
pub(crate) mod pitr;
pub(crate) mod plan;

use self::pitr::Aim;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::{Backup, BackupPhase, Restore, VolumeClaimRestorePolicy},
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    app::{App, check_name, get, list_all},
    args::{DryRun, WaitArgs, WriteArgs, pair, words},
    ask,
    build::restore::{self as build, Claim, Recorded, Wish},
    commands::list,
    diagnose,
    error::{CliError, Doing, Result},
    exit::Exit,
    follow::{self, Ending},
    manifest::{self, How, Manifest},
    output::human,
    recoverable, source,
    ui::{Mark, Ui},
    wait::{self, Waiting},
};

/// Into what a backup is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// A running copy of the workload that was backed up.
    Workload,
    /// Volumes only.
    #[default]
    Pvc,
}

/// Restore a backup, or a point in time: into a running database, or into volumes only
///
/// NEW is the name of the new StatefulSet. Without it the database comes back under its old name, which must be free:
/// nothing that exists is overwritten. A plan is shown first.
///
/// With --in-place it is the name of a StatefulSet that runs, and that is taken back itself. The data is restored beside it,
/// into new volumes; once that has succeeded it is stopped for a moment, its claims get the new volumes, and it starts
/// again. The old volumes are kept. What fails before that leaves it running with its old data.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup restore pg-copy --from pg-full-20260102030405 --wait
  kubectl kbbackup restore --from pg-full-20260102030405 --wait --yes
  kubectl kbbackup restore pg -n staging --from pg-full-20260102030405 --from-namespace prod --wait
  kubectl kbbackup restore data --from pg-full-20260102030405 --to pvc --storage-class fast
  kubectl kbbackup restore pg-copy --source statefulset/pg --to-time 2026-01-02T03:04:05Z --wait
  kubectl kbbackup restore pg-copy --source pg --to-time \"10m ago\" --wait
  kubectl kbbackup restore pg --in-place --from pg-full-20260102030405 --wait
  kubectl kbbackup restore --in-place --source statefulset/pg --to-time \"10m ago\" --wait --yes
  kubectl kbbackup restore pg-copy --from pg-full-20260102030405 --dry-run -o yaml")]
pub(crate) struct RestoreArgs {
    /// Name of the new workload, or of the group of volumes [default: the old name]
    pub new: Option<String>,

    /// Backup to restore
    #[arg(short, long, value_name = "BACKUP")]
    pub from: Option<String>,

    /// Source to bring back to a point in time; its base and log are found
    #[arg(long, value_name = "SOURCE", conflicts_with = "from")]
    pub source: Option<String>,

    /// Moment to go back to: 2026-01-02T03:04:05Z, "2026-01-02 03:04:05", -15m, "2h ago" or latest
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to_time: Option<String>,

    /// Time zone of a --to-time that names none [default: UTC]
    #[arg(long, value_name = "AREA/CITY", requires = "to_time")]
    pub timezone: Option<String>,

    /// Namespace of the backup [default: the same]
    #[arg(long, value_name = "NS")]
    pub from_namespace: Option<String>,

    /// workload (a running copy) or pvc (volumes only) [default: workload, when the backup knows it]
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    pub to: Option<Target>,

    /// Take the running StatefulSet itself back; its old volumes are kept
    #[arg(long, conflicts_with_all = ["to", "claim"])]
    pub in_place: bool,

    /// With --in-place: take a snapshot of each old volume as well, where its driver can [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, requires = "in_place")]
    pub safety_snapshot: Option<bool>,

    /// Volume, its size and class, instead of those recorded; only with --to pvc; may be repeated
    #[arg(long, value_name = "VOLUME=SIZE[:CLASS]")]
    pub claim: Vec<Claim>,

    /// Storage class of the new volumes [default: that of the old ones]
    #[arg(long, value_name = "NAME")]
    pub storage_class: Option<String>,

    /// Pods of the new workload; with --in-place, of one that is scaled to nothing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub replicas: Option<i32>,

    /// Parameter of the method; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// Variable for the restore's script; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,

    /// Fill the volumes of several pods at once (Parallel) or one by one (Serial)
    #[arg(long, default_value = "Parallel", value_name = "POLICY", value_parser = words::<VolumeClaimRestorePolicy>(VolumeClaimRestorePolicy::WORDS), hide_possible_values = true)]
    pub volume_restore_policy: VolumeClaimRestorePolicy,

    /// Name of the Restore object [default: the new name and the time]
    #[arg(long)]
    pub name: Option<String>,

    #[command(flatten)]
    pub wait: WaitArgs,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,

    #[command(flatten)]
    pub write: WriteArgs,
}

/// What is restored.
struct Chosen {
    /// The backup that the Restore names.
    backup: Backup,
    /// Moment and base, when it is a log.
    aim: Option<Aim>,
    /// The name of what is made.
    new: Option<String>,
}

impl Chosen {
    /// The backup whose workload and volumes the restore goes by: the base, for a log may have recorded none.
    fn origin(&self) -> &Backup {
        self.aim.as_ref().and_then(|aim| aim.base.as_ref()).unwrap_or(&self.backup)
    }

    /// ` --to-time TIME`, as far as it takes one to choose the same again.
    fn time_flag(&self) -> String {
        self.aim.as_ref().map(|aim| format!(" --to-time {}", human::stamp(aim.time))).unwrap_or_default()
    }
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &RestoreArgs) -> Result<Exit> {
    let mut chosen = chosen(ui, app, args).await?;
    let (backup, origin) = (&chosen.backup, chosen.origin());
    if chosen.aim.is_none() {
        check::restorable(backup)?;
    }
    let recorded = Recorded::of(origin)?;
    let to = match args.to {
        Some(to) => to,
        None if recorded.is_some() || args.in_place => Target::Workload,
        None => Target::Pvc,
    };
    let new = chosen.new.take();
    let (backup, origin) = (&chosen.backup, chosen.origin());
    let time = chosen.aim.as_ref().map(|aim| aim.time);
    let mut wish = Wish { namespace: app.namespace.clone(), time, ..wish(args, new, to, recorded.as_ref())? };
    let running = if args.in_place {
        in_place::vouched(origin)?;
        Some(in_place::look(ui, app, args, &wish.target, &build::volumes(origin)).await?)
    } else {
        None
    };
    let recorded = match &running {
        Some(running) => {
            wish.in_place = Some(running.build(args.safety_snapshot != Some(false)));
            Some(running.recorded(recorded.as_ref()))
        }
        None => recorded,
    };
    if to == Target::Workload && recorded.is_none() {
        return Err(CliError::usage(
            format!("backup/{} cannot become a running workload", origin.name_any()),
            "it carries no manifest of the workload that it was made from",
        )
        .hint("add --to pvc --claim VOLUME=SIZE"));
    }
    let restore = build::restore(backup, origin, recorded.as_ref(), &wish)?;
    let new_one = recorded.as_ref().filter(|_| wish.run && running.is_none());
    check::all(app, &chosen, new_one, &wish, &restore).await?;

    let manifest = Manifest::of(&restore)?;
    let foreign = backup.namespace().is_some_and(|namespace| namespace != app.namespace);
    if args.write.dry_run != DryRun::None {
        if foreign {
            ui.warn(&format!(
                "the backup must also carry the annotation {}: {}",
                annotations::ALLOW_RESTORE_TO,
                app.namespace
            ));
        }
        manifest::previewed(app, ui, std::slice::from_ref(&manifest), How::Create, &args.write).await?;
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    if let Some(running) = &running {
        ui.say(&plan::in_place(ui, &chosen, running, &wish, &restore, now));
        let question = format!("Take statefulset/{} back?", wish.target);
        ask::confirm(ui, args.yes, &question, Some(&wish.target))?;
    } else {
        ui.say(&plan::text(ui, &chosen, recorded.as_ref(), &wish, &restore, now));
        ask::go_on(ui, args.yes, "Go on?")?;
    }
    if foreign {
        allow(app, backup).await?;
        if !std::ptr::eq(backup, origin) {
            allow(app, origin).await?;
        }
    }
    let written = manifest::send(app, &manifest, How::Create, false).await?;
    manifest::announce(ui, std::slice::from_ref(&written), "created", args.write.output)?;
    let name = written.name_any();
    ui.equivalent();
    if args.wait.wait == Some(true) {
        return wait_for(ui, app, &name, &wish, args).await;
    }
    ui.hint(&format!("kubectl kbbackup restores describe {name}{}", app.namespace_flag()));
    Ok(Exit::Done)
}

/// The backup, and the moment when it is a log; given or asked for. And the name of what is made.
async fn chosen(ui: &Ui, app: &App, args: &RestoreArgs) -> Result<Chosen> {
    let namespace = args.from_namespace.as_deref().unwrap_or(&app.namespace);
    let new = args.new.clone();
    if let Some(source) = &args.source {
        let aim = pitr::aim(ui, app, args, &pitr::of_source(app, namespace, source).await?).await?;
        return Ok(Chosen { backup: aim.log.clone(), aim: Some(aim), new });
    }
    let api = app.within::<Backup>(namespace);
    if let Some(name) = &args.from {
        let name = name.strip_prefix("backup/").unwrap_or(name);
        let backup = match get(&api, &format!("backup/{name}")).await {
            // Here a source in its place can be told.
            Err(error) if error.exit == Exit::NotFound && namespace == app.namespace => list::backup(app, name).await?,
            Err(error) if error.exit == Exit::NotFound => {
                return Err(error.hint(format!("kubectl kbbackup list -n {namespace}")));
            }
            other => other?,
        };
        if follow::is_continuous(&backup) {
            let aim = pitr::aim(ui, app, args, &pitr::of_backup(app, namespace, name).await?).await?;
            return Ok(Chosen { backup, aim: Some(aim), new });
        }
        if args.to_time.is_some() {
            return Err(CliError::usage(
                "--to-time cannot be used here",
                format!("backup/{name} is of one moment only; name the source or its continuous backup"),
            )
            .hint(format!("kubectl kbbackup windows {} -n {namespace}", source::of_backup(&backup))));
        }
        return Ok(Chosen { backup, aim: None, new });
    }
    if args.to_time.is_some() {
        return Err(ask::needed("--source", "what to bring back to that time", &[]));
    }
    let mut chosen = asked(ui, app, args, namespace).await?;
    if chosen.new.is_none() && !args.in_place {
        let suggestion = format!("{}-restored", source::of_backup(&chosen.backup));
        let new = ask_name(ui, app, args, &suggestion).await?;
        ui.answered("", &new);
        chosen.new = Some(new);
    }
    Ok(chosen)
}

/// Asks for a backup, or for a source and a moment of it.
async fn asked(ui: &Ui, app: &App, args: &RestoreArgs, namespace: &str) -> Result<Chosen> {
    let mut all = list_all(&app.within::<Backup>(namespace), ListParams::default(), "backups").await?;
    all.retain(|backup| follow::backup_phase(backup) == Some(BackupPhase::Completed) && !follow::is_continuous(backup));
    all.sort_by_key(|backup| std::cmp::Reverse(backup.creation_timestamp().map(|time| time.0)));
    if !ui.may_ask || all.is_empty() {
        let newest: Vec<String> = all.iter().take(5).map(ResourceExt::name_any).collect();
        return Err(ask::needed("--from", "the backup to restore", &newest));
    }
    let mut logs = recoverable::within(app, namespace).await?;
    logs.retain(|log| log.latest().is_some());
    let now = Timestamp::now();
    let lines: Vec<String> = logs
        .iter()
        .map(|log| format!("a point in time of {}, by {}", log.source, log.log.name))
        .chain(all.iter().map(|backup| line(backup, now)))
        .collect();
    // The newest backup is what most want.
    let place = ask::select(ui, "Restore", &lines, logs.len())?;
    let new = args.new.clone();
    let name = if place < logs.len() { logs[place].log.name.clone() } else { all[place - logs.len()].name_any() };
    ui.answered("--from", &name);
    if place < logs.len() {
        let aim = pitr::aim(ui, app, args, &logs[place..=place]).await?;
        return Ok(Chosen { backup: aim.log.clone(), aim: Some(aim), new });
    }
    Ok(Chosen { backup: all.swap_remove(place - logs.len()), aim: None, new })
}

/// Longest name of a StatefulSet whose pods can be created: a label of theirs has it, a dash and ten digits.
const MAX_WORKLOAD: usize = 52;

/// Asks for the name of what is made: one that is free.
async fn ask_name(ui: &Ui, app: &App, args: &RestoreArgs, suggestion: &str) -> Result<String> {
    // Without the right to list them the check before the first write will tell.
    let present = list_all(&app.here::<StatefulSet>(), ListParams::default(), "statefulsets").await.unwrap_or_default();
    let taken = |name: &str| args.to != Some(Target::Pvc) && present.iter().any(|set| set.name_any() == name);
    let more = (2..).map(|number| format!("{suggestion}-{number}"));
    let free = std::iter::once(suggestion.to_owned()).chain(more).find(|name| !taken(name));
    ask::input(ui, "Name of the new workload", free.as_deref(), |text| {
        check_name("name", text).map_err(|error| error.why)?;
        if taken(text) { Err(format!("statefulset/{text} exists in namespace {}", app.namespace)) } else { Ok(()) }
    })
}

/// A backup in the list to choose from.
fn line(backup: &Backup, now: Timestamp) -> String {
    let size = backup.status.as_ref().and_then(|status| status.total_size.as_deref()).map(human::size);
    let age = human::ago(backup.creation_timestamp().as_ref(), now);
    let (name, source, method) = (backup.name_any(), source::of_backup(backup), &backup.spec.backup_method);
    format!("{name}  {source} · {method} · {} · {age}", size.unwrap_or_default())
}

fn wish(args: &RestoreArgs, new: Option<String>, to: Target, recorded: Option<&Recorded>) -> Result<Wish> {
    let target = match (new, recorded) {
        (Some(new), _) => new,
        (None, Some(recorded)) => recorded.name(),
        (None, None) => return Err(ask::needed("NEW", "the name of what is restored", &[])),
    };
    check_name("name", &target)?;
    if to == Target::Workload && target.len() > MAX_WORKLOAD {
        let why = format!("pods carry it with a hash in a label, so that {MAX_WORKLOAD} characters are left for it");
        return Err(CliError::usage(format!("a StatefulSet cannot be called {target}"), why));
    }
    if !args.claim.is_empty() && to == Target::Workload {
        return Err(CliError::usage("--claim is only for volumes", "add --to pvc"));
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => kbbackup_core::names::shorten63(&format!("{target}-{}", Timestamp::now().strftime("%Y%m%d%H%M%S"))),
    };
    check_name("restore", &name)?;
    Ok(Wish {
        name,
        namespace: String::new(),
        target,
        run: to == Target::Workload,
        replicas: args.replicas,
        storage_class: args.storage_class.clone(),
        claims: args.claim.clone(),
        parameters: args.param.clone(),
        env: args.env.clone(),
        policy: args.volume_restore_policy,
        time: None,
        in_place: None,
    })
}

/// Lets the namespace restore the backup. Who may not change the backup may not take its data elsewhere.
async fn allow(app: &App, backup: &Backup) -> Result<()> {
    let present = backup.annotations().get(annotations::ALLOW_RESTORE_TO).cloned().unwrap_or_default();
    let mut namespaces: Vec<&str> = present.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if namespaces.iter().any(|name| *name == "*" || *name == app.namespace) {
        return Ok(());
    }
    namespaces.push(&app.namespace);
    let patch = json!({"metadata": {"annotations": {annotations::ALLOW_RESTORE_TO: namespaces.join(",")}}});
    app.within::<Backup>(&backup.namespace().unwrap_or_default())
        .patch(&backup.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .doing(|| {
            format!("backup/{} cannot be allowed to be restored into namespace {}", backup.name_any(), app.namespace)
        })?;
    Ok(())
}

async fn wait_for(ui: &Ui, app: &App, name: &str, wish: &Wish, args: &RestoreArgs) -> Result<Exit> {
    let what = format!("restore/{name}");
    let flag = app.namespace_flag();
    let waiting = Waiting {
        what: &what,
        limit: args.wait.limit(),
        hints: vec![
            format!("kubectl kbbackup restores describe {name}{flag}"),
            format!("kubectl kbbackup restores delete {name}{flag}"),
        ],
    };
    let api = app.here::<Restore>();
    match wait::until(ui, api.clone(), name, &waiting, follow::restore).await? {
        Ending::Good => {
            let restore = get(&api, &what).await?;
            let way_back = match wish.in_place {
                Some(_) => in_place::way_back(app, &restore, &wish.target)?,
                None => String::new(),
            };
            ui.outcome(&ui.marked(Mark::Good, &plan::completed(&restore, wish)), args.write.is_for_program());
            if !way_back.is_empty() {
                ui.say(&way_back);
            }
            if wish.run {
                ui.hint(&format!("kubectl get statefulset {}{flag}", wish.target));
            }
            Ok(Exit::Done)
        }
        Ending::Bad(reason) => {
            let selector = format!("{}={name}", labels::RESTORE);
            diagnose::show(app, ui, &app.namespace, &selector, &[name.to_owned()]).await;
            // One that has exchanged the volumes, and does not run with them, leaves the choice.
            if wish.in_place.is_some()
                && let Ok(way_back) = in_place::way_back(app, &get(&api, &what).await?, &wish.target)
            {
                ui.say(&way_back);
            }
            let why = if reason.is_empty() { "its status gives no reason".to_owned() } else { reason };
            Err(CliError::failed(format!("restore/{name} failed"), why)
                .hint(format!("kubectl kbbackup restores describe {name}{flag}"))
                .hint(format!("kubectl kbbackup restores logs {name}{flag}")))
        }
        Ending::Gone => Err(CliError::failed(what, "it was deleted meanwhile")),
    }
}
