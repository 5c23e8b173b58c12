//! `backup`.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kbbackup_api::{
    names::labels,
    v1alpha1::{
        ActionSet, Availability, Backup, BackupMethod, BackupPhase, BackupPolicy, BackupType, DeletionPolicy,
        PodSelector,
    },
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, check_name, get, list_all},
    args::{DryRun, WaitArgs, WriteArgs, pair, retention},
    ask,
    build::backup::{self as build, Wish},
    commands::{logs, policy, repo},
    detect, diagnose,
    error::{CliError, Result},
    exit::Exit,
    follow::{self, Ending},
    manifest::{self, How, Manifest},
    output::human,
    source::{self, Source},
    ui::{Mark, Ui},
    wait::{self, Waiting},
};

/// Back up a database now
///
/// SOURCE is a StatefulSet (statefulset/pg), a policy (policy/pg) or just a name. A StatefulSet without a policy gets
/// one first. Creates a Backup and prints its name; with --wait, follows it to its end and exits with its result.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup backup statefulset/pg --wait
  kubectl kbbackup backup statefulset/pg --retention 7d --name before-upgrade --wait --timeout 30m
  kubectl kbbackup backup policy/pg --method full --param checkpoint=spread
  kubectl kbbackup backup statefulset/pg --dry-run -o yaml")]
pub(crate) struct BackupArgs {
    /// What to back up
    pub source: Option<String>,

    /// Name of the backup [default: source, method and time]
    #[arg(long)]
    pub name: Option<String>,

    /// Method of the policy [default: its first full one]
    #[arg(short, long)]
    pub method: Option<String>,

    /// Policy, when the source has several
    #[arg(short, long)]
    pub policy: Option<String>,

    /// Parent of an incremental backup
    #[arg(long, value_name = "BACKUP")]
    pub parent: Option<String>,

    /// Delete it after this time, such as 7d or 1mo
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub retention: Option<String>,

    /// Keep it until it is deleted by hand
    #[arg(long, conflicts_with = "retention")]
    pub keep: bool,

    /// Whether the data goes with the Backup object: Delete or Retain
    #[arg(long, default_value = "Delete", value_name = "POLICY")]
    pub deletion_policy: DeletionPolicy,

    /// Parameter of the method; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// Label of the backup; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,

    #[command(flatten)]
    pub wait: WaitArgs,

    /// Show the log of the backup while waiting
    #[arg(long)]
    pub follow_logs: bool,

    /// Don't ask; make a policy where there is none
    #[arg(short, long)]
    pub yes: bool,

    #[command(flatten)]
    pub write: WriteArgs,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &BackupArgs) -> Result<Exit> {
    let chosen = choose(ui, app, args).await?;
    let policy = &chosen.policy;
    let source_name = chosen.workload.clone().unwrap_or_else(|| source::of_policy(policy));
    let method = method(app, policy, args).await?;
    let mut repo_name = None;
    if !method.snapshot_volumes() {
        repo_name = Some(repo::resolve_ready(app, policy.spec.backup_repo_name.as_deref()).await?.name_any());
    }
    target_exists(app, policy, &method).await?;
    if let Some(parent) = &args.parent {
        check_parent(app, parent, policy).await?;
    }
    let name = args.name.clone().unwrap_or_else(|| build::default_name(&source_name, &method.name, Timestamp::now()));
    check_name("backup", &name)?;
    if app.here::<Backup>().get_opt(&name).await.is_ok_and(|backup| backup.is_some()) {
        return Err(CliError::usage(
            format!("backup/{name} exists already"),
            "give the new one another name with --name",
        ));
    }
    let backup = build::backup(&Wish {
        name: name.clone(),
        namespace: app.namespace.clone(),
        policy: policy.name_any(),
        method: method.name.clone(),
        parent: args.parent.clone(),
        retention: args.retention.clone(),
        deletion_policy: args.deletion_policy,
        parameters: args.param.clone(),
        labels: args.label.clone(),
    });
    let manifest = Manifest::of(&backup)?;
    if args.write.dry_run != DryRun::None {
        let mut manifests = match &chosen.new {
            Some(planned) => planned.manifests()?,
            None => Vec::new(),
        };
        manifests.push(manifest);
        manifest::previewed(app, ui, &manifests, How::Create, &args.write).await?;
        return Ok(Exit::Done);
    }
    if let Some(planned) = &chosen.new {
        policy::write(ui, app, planned, args.write.output).await?;
    }
    let place = repo_name.map_or_else(|| "volume snapshots".to_owned(), |repo| format!("backuprepo/{repo}"));
    ui.say(&format!("backing up {source_name} by method {} into {place}", method.name));
    let written = manifest::send(app, &manifest, How::Create, false).await?;
    manifest::announce(ui, std::slice::from_ref(&written), "created", args.write.output)?;
    if args.source.is_none() {
        ui.say(&format!(
            "the same without questions:\n  kubectl kbbackup backup policy/{} --method {}{}",
            policy.name_any(),
            method.name,
            app.namespace_flag()
        ));
    }
    if args.wait.wait == Some(true) || args.follow_logs {
        return wait_for(ui, app, &name, args).await;
    }
    ui.hint(&format!("kubectl kbbackup describe {name}{}", app.namespace_flag()));
    Ok(Exit::Done)
}

/// The policy to use, and what has to be made for it.
struct Chosen {
    policy: BackupPolicy,
    /// The StatefulSet that was named.
    workload: Option<String>,
    /// Objects that do not exist yet.
    new: Option<crate::build::policy::Planned>,
}

async fn choose(ui: &Ui, app: &App, args: &BackupArgs) -> Result<Chosen> {
    if let (Some(name), None) = (&args.policy, &args.source) {
        let policy = get(&app.here::<BackupPolicy>(), &format!("backuppolicy/{name}")).await?;
        return Ok(Chosen { policy, workload: None, new: None });
    }
    let source = match &args.source {
        Some(text) => Source::parse(text)?,
        None => ask_source(ui, app).await?,
    };
    let all = source::policies(app).await?;
    let workload = match &source {
        Source::Policy(_) => None,
        Source::Workload(name) | Source::Any(name) => app.here::<StatefulSet>().get_opt(name).await.ok().flatten(),
    };
    let mut found: Vec<&BackupPolicy> = source::matching(&all, &source, workload.as_ref());
    if let Some(name) = &args.policy {
        found.retain(|policy| policy.name_any() == *name);
        if found.is_empty() {
            return Err(CliError::not_found(format!("backuppolicy/{name} does not protect {source}"), names(&all)));
        }
    }
    let workload_name = workload.as_ref().map(ResourceExt::name_any);
    match found.as_slice() {
        [only] => Ok(Chosen { policy: (*only).clone(), workload: workload_name, new: None }),
        [first, ..] if source::is_default(first) => {
            Ok(Chosen { policy: (*first).clone(), workload: workload_name, new: None })
        }
        [] => new_policy(ui, app, args, &source, workload_name, &all).await,
        several => {
            let candidates: Vec<String> = several.iter().map(|policy| policy.name_any()).collect();
            if !ui.may_ask {
                return Err(ask::needed("--policy", &format!("the policy for {source}"), &candidates));
            }
            let place = ask::select(ui, "Policy", &candidates, 0)?;
            Ok(Chosen { policy: several[place].clone(), workload: workload_name, new: None })
        }
    }
}

fn names(all: &[BackupPolicy]) -> String {
    if all.is_empty() {
        "there are no policies".to_owned()
    } else {
        format!("there is {}", all.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", "))
    }
}

/// A StatefulSet without a policy: finds out what it is and plans one.
async fn new_policy(
    ui: &Ui,
    app: &App,
    args: &BackupArgs,
    source: &Source,
    workload: Option<String>,
    all: &[BackupPolicy],
) -> Result<Chosen> {
    let Some(workload) = workload else {
        let looked = match source {
            Source::Policy(name) => format!("backuppolicy/{name} does not exist"),
            Source::Workload(name) => format!("statefulset/{name} does not exist"),
            Source::Any(name) => format!("{name} is neither a policy nor a StatefulSet"),
        };
        return Err(CliError::not_found(format!("{looked} in namespace {}", app.namespace), names(all))
            .hint(format!("kubectl get statefulsets,backuppolicies{}", app.namespace_flag())));
    };
    ui.say(&format!("statefulset/{workload} has no policy yet; looking at it"));
    let planned = policy::plan(ui, app, &workload, &policy::CreateArgs::default()).await?;
    if ui.may_ask && !args.yes && args.write.dry_run == DryRun::None {
        let question = format!("Make backuppolicy/{} so?", planned.policy.name_any());
        if !ask::yes(ui, &question, true)? {
            return Err(CliError::new(Exit::Unconfirmed, "not confirmed", "nothing was changed")
                .hint(format!("kubectl kbbackup policy create --for statefulset/{workload}{}", app.namespace_flag())));
        }
    }
    Ok(Chosen { policy: planned.policy.clone(), workload: Some(workload), new: Some(planned) })
}

async fn ask_source(ui: &Ui, app: &App) -> Result<Source> {
    let all = source::policies(app).await?;
    let workloads =
        list_all(&app.here::<StatefulSet>(), ListParams::default(), "statefulsets").await.unwrap_or_default();
    let mut candidates: Vec<(Source, String)> = all
        .iter()
        .map(|policy| {
            (
                Source::Policy(policy.name_any()),
                format!("{}  by policy {}", source::of_policy(policy), policy.name_any()),
            )
        })
        .collect();
    for workload in &workloads {
        let name = workload.name_any();
        let source = Source::Workload(name.clone());
        if let (true, Ok(found)) =
            (source::matching(&all, &source, Some(workload)).is_empty(), detect::detect(workload, None, None))
        {
            candidates.push((source, format!("{name}  {}, no policy yet", found.engine.title)));
        }
    }
    let flags: Vec<String> = candidates.iter().map(|(source, _)| source.to_string()).collect();
    if !ui.may_ask || candidates.is_empty() {
        return Err(ask::needed("SOURCE", "what to back up", &flags));
    }
    let lines: Vec<String> = candidates.iter().map(|(_, line)| line.clone()).collect();
    Ok(candidates[ask::select(ui, "Back up", &lines, 0)?].0.clone())
}

/// The method that was named, the only one, or the first full one that can run.
async fn method(app: &App, policy: &BackupPolicy, args: &BackupArgs) -> Result<BackupMethod> {
    let methods = &policy.spec.backup_methods;
    let listed = || methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>().join(", ");
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let set = |method: &BackupMethod| {
        method.action_set_name.as_ref().and_then(|name| sets.iter().find(|set| set.name_any() == *name))
    };
    let what = format!("backuppolicy/{}", policy.name_any());
    let chosen = if let Some(name) = &args.method {
        let named = methods.iter().find(|method| method.name == *name);
        named.ok_or_else(|| CliError::usage(format!("{what} has no method {name}"), format!("it has {}", listed())))?
    } else {
        let full = |method: &&BackupMethod| {
            method.snapshot_volumes() || set(method).is_some_and(|set| set.spec.backup_type == BackupType::Full)
        };
        let first = if methods.len() == 1 { methods.first() } else { methods.iter().find(full) };
        first.ok_or_else(|| {
            CliError::usage(format!("no method of {what} makes a full backup now"), format!("it has {}", listed()))
        })?
    };
    let Some(set_name) = chosen.action_set_name.as_ref().filter(|_| !chosen.snapshot_volumes()) else {
        return Ok(chosen.clone());
    };
    let Some(set) = set(chosen) else {
        return Err(CliError::missing(
            format!("method {} cannot run", chosen.name),
            format!("actionset/{set_name} does not exist"),
        )
        .hint("kubectl kbbackup install"));
    };
    if let Some(status) = set.status.as_ref().filter(|status| status.phase == Some(Availability::Unavailable)) {
        let why = status.message.clone().unwrap_or_default();
        return Err(CliError::missing(
            format!("method {} cannot run", chosen.name),
            format!("actionset/{set_name} is unavailable: {why}"),
        ));
    }
    if set.spec.backup_type == BackupType::Continuous {
        return Err(CliError::usage(
            format!("method {} is continuous", chosen.name),
            "it is switched on by a BackupSchedule, not started as one backup",
        ));
    }
    check_parameters(set, &args.param)?;
    Ok(chosen.clone())
}

/// Parameters that the action set does not know would be refused later, or ignored.
fn check_parameters(set: &ActionSet, given: &[(String, String)]) -> Result<()> {
    let known = set.spec.backup.as_ref().map(|backup| backup.with_parameters.clone()).unwrap_or_default();
    match given.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(CliError::usage(
            format!("parameter {name} is not known to actionset/{}", set.name_any()),
            if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) },
        )),
    }
}

/// A backup without a pod fails after a while; it is better said now.
async fn target_exists(app: &App, policy: &BackupPolicy, method: &BackupMethod) -> Result<()> {
    let own = method.target.iter().chain(&method.targets);
    let shared = policy.spec.target.iter().chain(&policy.spec.targets);
    let selectors: Vec<&PodSelector> = if method.target.is_some() || !method.targets.is_empty() {
        own.filter_map(|target| target.pod_selector.as_ref()).collect()
    } else {
        shared.filter_map(|target| target.pod_selector.as_ref()).collect()
    };
    for selector in selectors
        .iter()
        .filter(|selector| selector.match_expressions.is_empty() && selector.fallback_label_selector.is_none())
    {
        let labels: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = list_all(&app.here::<Pod>(), ListParams::default().labels(&labels.join(",")), "pods").await?;
        if pods.is_empty() {
            return Err(CliError::usage(
                format!("backuppolicy/{} has nothing to back up", policy.name_any()),
                format!("no pod in namespace {} has {}", app.namespace, labels.join(",")),
            )
            .hint(format!("kubectl get pods -l {}{}", labels.join(","), app.namespace_flag())));
        }
        if !pods.iter().any(is_ready) {
            let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            return Err(CliError::usage(
                format!("backuppolicy/{} has nothing to back up", policy.name_any()),
                format!("none of its pods is ready: {}", names.join(", ")),
            )
            .hint(format!("kubectl describe pod {}{}", names[0], app.namespace_flag())));
        }
    }
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn check_parent(app: &App, parent: &str, policy: &BackupPolicy) -> Result<()> {
    let backup = get(&app.here::<Backup>(), &format!("backup/{parent}")).await?;
    if follow::backup_phase(&backup) != Some(BackupPhase::Completed) {
        return Err(CliError::usage(format!("backup/{parent} cannot be a parent"), "it is not completed"));
    }
    if backup.spec.backup_policy_name != policy.name_any() {
        return Err(CliError::usage(
            format!("backup/{parent} cannot be a parent"),
            format!("it belongs to policy {}, not {}", backup.spec.backup_policy_name, policy.name_any()),
        ));
    }
    Ok(())
}

/// Follows a backup to its end and tells how it was.
async fn wait_for(ui: &Ui, app: &App, name: &str, args: &BackupArgs) -> Result<Exit> {
    let what = format!("backup/{name}");
    let flag = app.namespace_flag();
    let waiting = Waiting {
        what: &what,
        limit: args.wait.limit(),
        hints: vec![format!("kubectl kbbackup describe {name}{flag}"), format!("kubectl kbbackup delete {name}{flag}")],
    };
    let api = app.here::<Backup>();
    let ending = {
        let end = wait::until(ui, api.clone(), name, &waiting, follow::backup);
        if args.follow_logs { logs::alongside(ui, app, name, end).await? } else { end.await? }
    };
    match ending {
        Ending::Good => {
            let backup = get(&api, &what).await?;
            ui.result(&completed(ui, &backup));
            ui.hint(&format!("kubectl kbbackup restore NAME --from {name}{flag} --wait"));
            Ok(Exit::Done)
        }
        Ending::Bad(reason) => {
            ui.clear();
            let selector = format!("{}={name}", labels::BACKUP_NAME);
            diagnose::show(app, ui, &app.namespace, &selector, &[name.to_owned()]).await;
            let why = if reason.is_empty() { "its status gives no reason".to_owned() } else { reason };
            Err(CliError::failed(format!("backup/{name} failed"), why)
                .hint(format!("kubectl kbbackup describe {name}{flag}"))
                .hint(format!("kubectl kbbackup logs {name}{flag}")))
        }
        Ending::Gone => Err(CliError::failed(what, "it was deleted meanwhile")),
    }
}

/// One line about a backup that ended well.
fn completed(ui: &Ui, backup: &Backup) -> String {
    let status = backup.status.clone().unwrap_or_default();
    let mut facts = Vec::new();
    facts.extend(status.total_size.as_deref().map(human::size));
    if let (Some(start), Some(end)) = (&status.start_timestamp, &status.completion_timestamp) {
        facts.push(format!("in {}", human::span(end.0.duration_since(start.0))));
    }
    if let Some(expiration) = &status.expiration {
        facts.push(format!("kept until {}", human::utc(Some(expiration))));
    }
    ui.marked(Mark::Good, &format!("backup/{} completed: {}", backup.name_any(), facts.join(", ")))
}
