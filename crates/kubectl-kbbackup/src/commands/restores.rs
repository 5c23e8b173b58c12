//! `restores`: the Restore objects.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::{Restore, RestorePhase},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams},
};

use super::restore::plan::reached_text;
use crate::{
    app::{App, get, list_all},
    args::{OutputArgs, SelectArgs},
    ask,
    build::restore::claim_names,
    diagnose,
    error::{CliError, Doing, Result},
    exit::Exit,
    follow,
    output::{Table, human, object, table::Sheet},
    ui::Ui,
    wait::{self, Seen, Waiting},
};

/// Restores that were made
#[derive(Debug, Subcommand)]
pub(crate) enum RestoresCommand {
    #[command(visible_alias = "ls", alias = "get")]
    List(ListArgs),
    #[command(visible_alias = "desc")]
    Describe(DescribeArgs),
    Logs(LogsArgs),
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// List restores, newest first
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup restores list
  kubectl kbbackup restores list -A -o wide")]
pub(crate) struct ListArgs {
    /// Only these restores
    pub names: Vec<String>,

    #[command(flatten)]
    pub select: SelectArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// Show restores: stages, what was reached, what went wrong
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup restores describe pg-copy-20260102030405")]
pub(crate) struct DescribeArgs {
    /// Restores to show
    #[arg(required = true)]
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// Print the log of a restore
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup restores logs pg-copy-20260102030405
  kubectl kbbackup restores logs pg-copy-20260102030405 -f")]
pub(crate) struct LogsArgs {
    /// The restore
    pub name: String,

    /// Go on until the pods have ended
    #[arg(short, long)]
    pub follow: bool,

    /// Only so many lines of each
    #[arg(long, value_name = "N")]
    pub tail: Option<i64>,
}

/// Delete Restore objects; what was restored stays
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup restores delete pg-copy-20260102030405")]
pub(crate) struct DeleteArgs {
    /// Restores to delete
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

pub(crate) async fn run(ui: &Ui, app: &App, command: &RestoresCommand) -> Result<Exit> {
    match command {
        RestoresCommand::List(args) => list(ui, app, args).await,
        RestoresCommand::Describe(args) => describe_all(ui, app, args).await,
        RestoresCommand::Logs(args) => logs(ui, app, args).await,
        RestoresCommand::Delete(args) => delete(ui, app, args).await,
    }
}

async fn named(app: &App, names: &[String]) -> Result<Vec<Restore>> {
    let flag = app.namespace_flag();
    let mut restores = Vec::new();
    for name in names {
        let restore = get(&app.here::<Restore>(), &format!("restore/{name}")).await.map_err(|error| {
            if error.exit == Exit::NotFound {
                error.hint(format!("kubectl kbbackup restores list{flag}"))
            } else {
                error
            }
        })?;
        restores.push(restore);
    }
    Ok(restores)
}

async fn list(ui: &Ui, app: &App, args: &ListArgs) -> Result<Exit> {
    args.select.beside(&args.names)?;
    let mut restores = if args.names.is_empty() {
        let mut params = ListParams::default();
        params.label_selector.clone_from(&args.select.selector);
        list_all(&app.scoped::<Restore>(args.select.all_namespaces), params, "restores").await?
    } else {
        named(app, &args.names).await?
    };
    restores.sort_by_key(|restore| std::cmp::Reverse(restore.creation_timestamp().map(|time| time.0)));
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&restores, args.names.len() == 1, format, args.output.show_managed_fields)?);
    } else if restores.is_empty() {
        let place =
            if args.select.all_namespaces { "the cluster".to_owned() } else { format!("namespace {}", app.namespace) };
        ui.say(&format!("no restores in {place}"));
    } else {
        ui.result(&table(&restores, args.select.all_namespaces, format.is_wide(), Timestamp::now()).to_string());
    }
    Ok(Exit::Done)
}

fn target(restore: &Restore) -> String {
    match restore.annotations().get(annotations::RESTORE_WORKLOAD) {
        Some(name) => format!("statefulset/{name}"),
        None => claim_names(restore).join(","),
    }
}

fn phase(restore: &Restore) -> String {
    restore.status.as_ref().and_then(|status| status.phase).map_or_else(|| "New".to_owned(), |phase| phase.to_string())
}

fn table(restores: &[Restore], namespaces: bool, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "BACKUP", "TARGET", "TO-TIME", "STATUS", "DURATION", "AGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["STAGES", "REASON"]);
    }
    let mut table = Table::new(header);
    for restore in restores {
        let status = restore.status.clone().unwrap_or_default();
        let duration = match (&status.start_timestamp, &status.completion_timestamp) {
            (Some(start), Some(end)) => human::span(end.0.duration_since(start.0)),
            (Some(start), None) => human::span(now.duration_since(start.0)),
            _ => String::new(),
        };
        let mut row = vec![
            restore.name_any(),
            restore.spec.backup.name.clone(),
            target(restore),
            restore.spec.restore_time.clone().unwrap_or_default(),
            phase(restore),
            duration,
            human::age(restore.creation_timestamp().as_ref(), now),
        ];
        if namespaces {
            row.insert(0, restore.namespace().unwrap_or_default());
        }
        if wide {
            let actions = status.actions.unwrap_or_default();
            row.push(format!("{}+{}", actions.prepare_data.len(), actions.post_ready.len()));
            row.push(follow::restore_reason(restore).lines().next().unwrap_or_default().to_owned());
        }
        table.row(row);
    }
    table
}

async fn describe_all(ui: &Ui, app: &App, args: &DescribeArgs) -> Result<Exit> {
    let restores = named(app, &args.names).await?;
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&restores, args.names.len() == 1, format, args.output.show_managed_fields)?);
        return Ok(Exit::Done);
    }
    for (index, restore) in restores.iter().enumerate() {
        if index > 0 {
            ui.result("\n");
        }
        let name = restore.name_any();
        let events = diagnose::events(app, &app.namespace, "Restore", &name).await.unwrap_or_default();
        ui.result(&describe(restore, &events, Timestamp::now()));
        if restore.status.as_ref().and_then(|status| status.phase) == Some(RestorePhase::Failed) {
            ui.hint(&format!("kubectl kbbackup restores logs {name}{}", app.namespace_flag()));
        }
    }
    Ok(Exit::Done)
}

fn describe(restore: &Restore, events: &[String], now: Timestamp) -> String {
    let status = restore.status.clone().unwrap_or_default();
    let backup = &restore.spec.backup;
    let mut sheet = Sheet::default();
    sheet
        .line("Name", restore.name_any())
        .line("Namespace", restore.namespace().unwrap_or_default())
        .line("Backup", format!("{}/{}", backup.namespace, backup.name))
        .line("Target", target(restore))
        .line("Volumes", claim_names(restore).join(", "))
        .line("To time", restore.spec.restore_time.clone().unwrap_or_default())
        .title("Status")
        .item("Phase", phase(restore))
        .item("Reason", follow::restore_reason(restore))
        .item("Started", human::utc(status.start_timestamp.as_ref()))
        .item("Completed", human::utc(status.completion_timestamp.as_ref()));
    let reached = restore.annotations().get(annotations::RESTORED).and_then(|text| serde_json::from_str(text).ok());
    sheet.item("Reached", reached.as_ref().and_then(reached_text).unwrap_or_default());
    let actions = status.actions.unwrap_or_default();
    for (title, list) in [("Volumes filled by", &actions.prepare_data), ("After the start", &actions.post_ready)] {
        if list.is_empty() {
            continue;
        }
        sheet.title(title);
        for action in list {
            let end = action.end_time.as_ref().map_or(now, |end| end.0);
            let took =
                action.start_time.as_ref().map(|start| human::span(end.duration_since(start.0))).unwrap_or_default();
            sheet.block(&format!("{}  {}  {took}  {}", action.name, action.status, action.object_key));
            for line in action.message.iter().flat_map(|message| message.trim().lines()) {
                sheet.block(&format!("    {line}"));
            }
        }
    }
    if !status.conditions.is_empty() {
        sheet.title("Conditions");
        for condition in &status.conditions {
            let text = if condition.message.is_empty() {
                condition.reason.clone()
            } else {
                format!("{}: {}", condition.reason, condition.message)
            };
            sheet.item(&condition.type_, format!("{} {text}", condition.status));
        }
    }
    if !events.is_empty() {
        sheet.title("Events");
        sheet.blocks(events);
    }
    sheet.finish()
}

async fn logs(ui: &Ui, app: &App, args: &LogsArgs) -> Result<Exit> {
    let restore = named(app, std::slice::from_ref(&args.name)).await?.remove(0);
    let pods = diagnose::pods(app, &app.namespace, &format!("{}={}", labels::RESTORE, args.name)).await?;
    if pods.is_empty() {
        let kept = follow::restore_reason(&restore);
        if kept.is_empty() {
            return Err(CliError::not_found(
                format!("restore/{} has no log", args.name),
                "it has no pods any more, or not yet",
            ));
        }
        ui.say(&format!("the pods of restore/{} are gone; its status kept this:", args.name));
        ui.result(&kept);
        return Ok(Exit::Done);
    }
    let api: Api<Pod> = app.here();
    for pod in &pods {
        let Some(container) = diagnose::main_container(pod) else { continue };
        let name = pod.name_any();
        let prefix = if pods.len() > 1 { format!("[{name}] ") } else { String::new() };
        let params = LogParams {
            container: Some(container),
            follow: args.follow,
            tail_lines: args.tail,
            ..LogParams::default()
        };
        if let Err(error) = diagnose::stream(ui, &api, &name, &params, &prefix, None).await {
            ui.warn(&error.to_string());
        }
    }
    Ok(Exit::Done)
}

async fn delete(ui: &Ui, app: &App, args: &DeleteArgs) -> Result<Exit> {
    let restores = named(app, &args.names).await?;
    for restore in &restores {
        let running =
            matches!(restore.status.as_ref().and_then(|status| status.phase), None | Some(RestorePhase::Running));
        let name = restore.name_any();
        let question = if running {
            format!("Delete restore/{name}, which is running? Its unfinished volumes stay.")
        } else {
            format!("Delete restore/{name}? What it restored stays.")
        };
        ask::confirm(ui, args.yes, &question, None)?;
    }
    let api = app.here::<Restore>();
    for restore in &restores {
        let name = restore.name_any();
        api.delete(&name, &DeleteParams::default()).await.doing(|| format!("restore/{name} cannot be deleted"))?;
        let what = format!("restore/{name}");
        let waiting =
            Waiting { what: &what, limit: None, hints: vec![format!("kubectl kbbackup restores describe {name}")] };
        wait::until(ui, api.clone(), &name, &waiting, |seen: Option<&Restore>| match seen {
            Some(seen) if seen.uid() == restore.uid() => Seen::Going(format!("{what}: removing its jobs")),
            _ => Seen::End(()),
        })
        .await?;
        ui.result(&format!("restore.dataprotection.kubeblocks.io/{name} deleted"));
    }
    Ok(Exit::Done)
}
