//! `schedule update`: other times, another retention, other parameters.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicy};
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{EntryArgs, change, create, find};
use crate::{
    app::{App, get, list_all},
    args::{DryRun, WaitArgs, WriteArgs, pair, retention},
    build::schedule::{self as build, Change},
    commands::backup::check,
    error::{CliError, Result},
    exit::Exit,
    ui::Ui,
};

/// Change an entry: its times, how long backups are kept, its parameters
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup schedule update statefulset/pg --method full --cron \"0 4 * * *\"
  kubectl kbbackup schedule update schedule/pg --entry weekly --retention 1mo --wait
  kubectl kbbackup schedule update statefulset/pg --starting-deadline 30m")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub entry: EntryArgs,

    /// When: minute, hour, day of month, month, day of week, in UTC
    #[arg(long, value_name = "CRON")]
    pub cron: Option<String>,

    /// Time zone in which the rule is meant, such as Europe/Madrid
    #[arg(long, value_name = "AREA/CITY", requires = "cron")]
    pub cron_timezone: Option<String>,

    /// Delete each new backup after this time, such as 7d or 1mo; 0d keeps it
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub retention: Option<String>,

    /// Parameter of the method, instead of all present ones; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// How late a missed run may still start, such as 10m; for the whole schedule
    #[arg(long, value_name = "TIME", value_parser = create::deadline)]
    pub starting_deadline: Option<i64>,

    #[command(flatten)]
    pub wait: WaitArgs,

    #[command(flatten)]
    pub write: WriteArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &UpdateArgs) -> Result<Exit> {
    let zones = args.cron_timezone.is_some() && app.operator().await?.is_some();
    let cron = match &args.cron {
        Some(cron) => Some(build::cron(cron, args.cron_timezone.as_deref(), zones, Timestamp::now())?),
        None => None,
    };
    let parameters = (!args.param.is_empty()).then(|| args.param.clone());
    let wish = Change { enabled: None, cron, retention: args.retention.clone(), parameters };
    if wish.is_empty() && args.starting_deadline.is_none() {
        return Err(CliError::usage("nothing to change", "give --cron, --retention, --param or --starting-deadline"));
    }
    let found = find::schedule(ui, app, args.entry.source.as_deref()).await?;
    if let Some(minutes) = args.starting_deadline {
        let cluster = change::ruler(app, &found.schedule).await?;
        if let Some(cluster) = cluster {
            return Err(CliError::usage(
                "the starting deadline cannot be changed here",
                format!("cluster/{} overrules the schedule", cluster.metadata.name.unwrap_or_default()),
            ));
        }
        let mut entries = found.entries();
        if !wish.is_empty() {
            let index = entry(ui, app, args, &found, &wish).await?.0;
            build::change(&mut entries, index, &wish);
        }
        let patch: Value = json!({"spec": {"startingDeadlineMinutes": minutes, "schedules": entries}});
        change::save(ui, app, &found, patch, &args.write).await?;
    } else {
        let (index, kind) = entry(ui, app, args, &found, &wish).await?;
        change::entry(ui, app, &found, index, kind, &wish, &args.write).await?;
    }
    if args.wait.wait == Some(true) && args.write.dry_run == DryRun::None {
        return create::wait_for(ui, app, &found.name(), &args.wait).await;
    }
    Ok(Exit::Done)
}

/// The entry that is meant, and the kind of its backups; its new parameters are checked.
async fn entry(
    ui: &Ui,
    app: &App,
    args: &UpdateArgs,
    found: &find::Found,
    wish: &Change,
) -> Result<(usize, Option<kbbackup_api::v1alpha1::BackupType>)> {
    let schedule = &found.schedule;
    let index = find::entry(ui, schedule, args.entry.entry.as_deref(), args.entry.method.as_deref())?;
    let method = &schedule.spec.schedules[index].backup_method;
    let name = &schedule.spec.backup_policy_name;
    let policy = get(&app.here::<BackupPolicy>(), &format!("backuppolicy/{name}")).await?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    if let Some(parameters) = &wish.parameters {
        check::runnable(&policy, method, &sets, parameters)?;
    }
    Ok((index, find::kind(Some(&policy), &sets, method)))
}
