//! From what a person calls the source to a policy, present or planned.

use k8s_openapi::api::apps::v1::StatefulSet;
use kbbackup_api::v1alpha1::BackupPolicy;
use kube::{ResourceExt, api::ListParams};

use super::BackupArgs;
use crate::{
    app::{App, get, list_all},
    args::DryRun,
    ask,
    build::policy::Planned,
    commands::{list, policy},
    detect,
    error::{CliError, Result},
    source::{self, Source},
    ui::Ui,
};

/// The policy to use, and what has to be made for it.
pub(super) struct Chosen {
    pub policy: BackupPolicy,
    /// The StatefulSet that was named.
    pub workload: Option<String>,
    /// Objects that do not exist yet.
    pub new: Option<Planned>,
}

pub(super) async fn choose(ui: &Ui, app: &App, args: &BackupArgs) -> Result<Chosen> {
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
            ui.answered("--policy", &candidates[place]);
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
        let error = CliError::not_found(format!("{looked} in namespace {}", app.namespace), names(all))
            .hint(format!("kubectl get statefulsets,backuppolicies{}", app.namespace_flag()));
        return Err(list::no_source(app, source.name(), error).await);
    };
    ui.say(&format!("statefulset/{workload} has no policy yet; looking at it"));
    let planned = policy::plan(ui, app, &workload, &policy::CreateArgs::default()).await?;
    let question = format!("Make backuppolicy/{} so?", planned.policy.name_any());
    ask::go_on(ui, args.yes || args.write.dry_run != DryRun::None, &question).map_err(|error| {
        error.hint(format!("kubectl kbbackup policy create --for statefulset/{workload}{}", app.namespace_flag()))
    })?;
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
    let source = candidates[ask::select(ui, "Back up", &lines, 0)?].0.clone();
    ui.answered("", &source.to_string());
    Ok(source)
}
