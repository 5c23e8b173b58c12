//! `schedule create`: a new entry, and the schedule around it where there is none yet.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicy, BackupSchedule, BackupType};
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::{change, find};
use crate::{
    app::{App, check_name, get, list_all},
    args::{DryRun, WaitArgs, WriteArgs, duration, pair, retention},
    ask,
    build::schedule::{self as build, Change},
    commands::backup::check,
    error::{CliError, Result},
    exit::Exit,
    follow::{self, Ending},
    manifest::{self, How, Manifest},
    source::{self, Source},
    ui::{Mark, Ui},
    wait::{self, Waiting},
};

/// Cron presets of the question, each with its words.
const PRESETS: &[(&str, &str)] = &[
    ("every day at 02:00 UTC", "0 2 * * *"),
    ("every Sunday at 02:00 UTC", "0 2 * * 0"),
    ("every 6 hours", "0 */6 * * *"),
    ("every hour", "0 * * * *"),
];

/// Make backups by themselves: add an entry to the schedule of a source
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup schedule create statefulset/pg --method full --cron \"0 2 * * *\" --retention 7d
  kubectl kbbackup schedule create statefulset/pg --method full --cron \"30 1 * * 0\" --cron-timezone Europe/Madrid --name weekly
  kubectl kbbackup schedule create policy/pg --method log --cron \"*/5 * * * *\" --dry-run -o yaml")]
pub(crate) struct CreateArgs {
    /// What to back up
    pub source: Option<String>,

    /// Method of the policy
    #[arg(short, long)]
    pub method: Option<String>,

    /// When: minute, hour, day of month, month, day of week, in UTC
    #[arg(long, value_name = "CRON")]
    pub cron: Option<String>,

    /// Time zone in which the rule is meant, such as Europe/Madrid
    #[arg(long, value_name = "AREA/CITY")]
    pub cron_timezone: Option<String>,

    /// Delete each backup after this time, such as 7d or 1mo; 0d keeps it [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub retention: Option<String>,

    /// Name of the entry [default: the method]
    #[arg(long)]
    pub name: Option<String>,

    /// How late a missed run may still start, such as 10m; for the whole schedule [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub starting_deadline: Option<i64>,

    /// Parameter of the method; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// Policy, when the source has several
    #[arg(short, long)]
    pub policy: Option<String>,

    #[command(flatten)]
    pub wait: WaitArgs,

    #[command(flatten)]
    pub write: WriteArgs,
}

/// Whole minutes, up to a day.
pub(super) fn deadline(text: &str) -> Result<i64, String> {
    let time = duration(text)?;
    if time > Duration::from_secs(24 * 3600) || time.as_secs() % 60 != 0 {
        return Err("whole minutes up to 24h, such as 10m".to_owned());
    }
    Ok(i64::try_from(time.as_secs() / 60).unwrap_or(0))
}

pub(super) async fn run(ui: &Ui, app: &App, args: &CreateArgs) -> Result<Exit> {
    let policy = policy(ui, app, args).await?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let method = method(ui, &policy, &sets, args.method.as_deref())?;
    check::runnable(&policy, &method, &sets, &args.param)?;
    let kind = find::kind(Some(&policy), &sets, &method);
    let asked = args.method.is_none() || args.cron.is_none();
    let cron = match &args.cron {
        Some(cron) => cron.clone(),
        None => ask_cron(ui)?,
    };
    let zones = args.cron_timezone.is_some() && app.operator().await?.is_some();
    let cron = build::cron(&cron, args.cron_timezone.as_deref(), zones, Timestamp::now())?;
    let mut retention = args.retention.clone();
    if asked && retention.is_none() && ui.may_ask {
        let check = |text: &str| crate::args::retention(text).map(|_| ());
        let answer = ask::input(ui, "Keep each backup for", Some("7d"), check)?;
        ui.answered("--retention", &answer);
        retention = Some(answer);
    }
    if let Some(name) = &args.name {
        check_name("entry", name)?;
    }
    let change = Change { enabled: Some(true), cron: Some(cron.clone()), retention, parameters: parameters(args) };
    let entry = build::entry(args.name.as_deref(), &method, &cron, &change);
    let name = if let Some(found) = find::of_policy(app, &policy).await? {
        add(ui, app, &found, entry, kind, &change, args).await?;
        found.name()
    } else {
        let schedule = build::schedule(&policy.name_any(), &policy, entry, args.starting_deadline);
        let manifest = Manifest::of(&schedule)?;
        if !manifest::previewed(app, ui, std::slice::from_ref(&manifest), How::Create, &args.write).await? {
            let written = manifest::send(app, &manifest, How::Create, false).await?;
            manifest::announce(ui, &[written], "created", args.write.output)?;
        }
        schedule.name_any()
    };
    if args.write.dry_run != DryRun::None {
        return Ok(Exit::Done);
    }
    ui.equivalent();
    if args.wait.wait == Some(true) {
        return wait_for(ui, app, &name, &args.wait).await;
    }
    ui.hint(&format!("kubectl kbbackup schedule describe schedule/{name}{}", app.namespace_flag()));
    Ok(Exit::Done)
}

fn parameters(args: &CreateArgs) -> Option<Vec<(String, String)>> {
    (!args.param.is_empty()).then(|| args.param.clone())
}

/// Adds the entry to a schedule that exists.
async fn add(
    ui: &Ui,
    app: &App,
    found: &find::Found,
    entry: kbbackup_api::v1alpha1::SchedulePolicy,
    kind: Option<BackupType>,
    change: &Change,
    args: &CreateArgs,
) -> Result<()> {
    if let Some(cluster) = change::ruler(app, &found.schedule).await? {
        return change::in_cluster(ui, app, &cluster, &entry, kind, change, &args.write).await;
    }
    if found.schedule.spec.schedules.iter().any(|present| present.name() == entry.name()) {
        return Err(CliError::usage(
            format!("backupschedule/{} has an entry {} already", found.name(), entry.name()),
            "give the new one another name with --name, or change the present one",
        )
        .hint(format!(
            "kubectl kbbackup schedule update schedule/{} --entry {} --cron \"{}\"{}",
            found.name(),
            entry.name(),
            entry.cron_expression,
            app.namespace_flag()
        )));
    }
    let mut entries = found.entries();
    entries.push(serde_json::to_value(&entry)?);
    let mut spec = json!({"schedules": entries});
    if let (Some(minutes), Value::Object(fields)) = (args.starting_deadline, &mut spec) {
        fields.insert("startingDeadlineMinutes".to_owned(), json!(minutes));
    }
    change::save(ui, app, found, json!({"spec": spec}), &args.write).await
}

/// The policy of the source, given or asked for.
async fn policy(ui: &Ui, app: &App, args: &CreateArgs) -> Result<BackupPolicy> {
    let mut found = match &args.source {
        Some(text) => {
            let source = Source::parse(text)?;
            let found = find::policies(app, &source).await?;
            if found.is_empty() {
                return Err(CliError::not_found(
                    format!("{source} has no policy in namespace {}", app.namespace),
                    "a schedule makes backups by one",
                )
                .hint(format!("kubectl kbbackup policy create --for {source}{}", app.namespace_flag())));
            }
            found
        }
        None => source::policies(app).await?,
    };
    if let Some(name) = &args.policy {
        found.retain(|policy| policy.name_any() == *name);
        if found.is_empty() {
            return get(&app.here::<BackupPolicy>(), &format!("backuppolicy/{name}")).await.and_then(|_| {
                Err(CliError::usage(format!("backuppolicy/{name} cannot be used"), "it does not protect that source"))
            });
        }
    }
    let is_clear = args.source.is_some() && (found.len() == 1 || found.first().is_some_and(source::is_default));
    if is_clear || args.policy.is_some() {
        return Ok(found.swap_remove(0));
    }
    let (flag, what) = if args.source.is_some() { ("--policy", "which policy") } else { ("SOURCE", "what to back up") };
    let lines: Vec<String> =
        found.iter().map(|policy| format!("{}  by policy {}", source::of_policy(policy), policy.name_any())).collect();
    if !ui.may_ask || found.is_empty() {
        let names: Vec<String> = found.iter().map(|policy| format!("policy/{}", policy.name_any())).collect();
        return Err(ask::needed(flag, what, &names));
    }
    let chosen = found.swap_remove(ask::select(ui, "Back up", &lines, 0)?);
    let source = if flag == "SOURCE" { format!("policy/{}", chosen.name_any()) } else { chosen.name_any() };
    ui.answered(if flag == "SOURCE" { "" } else { flag }, &source);
    Ok(chosen)
}

/// The method, given or asked for.
fn method(ui: &Ui, policy: &BackupPolicy, sets: &[ActionSet], given: Option<&str>) -> Result<String> {
    let methods = &policy.spec.backup_methods;
    let names: Vec<String> = methods.iter().map(|method| method.name.clone()).collect();
    if let Some(name) = given {
        if names.iter().any(|known| known == name) {
            return Ok(name.to_owned());
        }
        return Err(CliError::usage(
            format!("backuppolicy/{} has no method {name}", policy.name_any()),
            format!("it has {}", names.join(", ")),
        ));
    }
    if let [only] = names.as_slice() {
        return Ok(only.clone());
    }
    if !ui.may_ask || names.is_empty() {
        return Err(ask::needed("--method", "by which method", &names));
    }
    let lines: Vec<String> = methods
        .iter()
        .map(|method| {
            check::line(method, find::kind(Some(policy), sets, &method.name).map_or("unknown", |kind| kind.as_str()))
        })
        .collect();
    let method = names[ask::select(ui, "Method", &lines, 0)?].clone();
    ui.answered("--method", &method);
    Ok(method)
}

fn ask_cron(ui: &Ui) -> Result<String> {
    let presets: Vec<String> = PRESETS.iter().map(|(_, cron)| (*cron).to_owned()).collect();
    if !ui.may_ask {
        return Err(ask::needed("--cron", "when to run", &presets));
    }
    let mut lines: Vec<String> = PRESETS.iter().map(|(words, cron)| format!("{words}  ({cron})")).collect();
    lines.push("something else".to_owned());
    let chosen = ask::select(ui, "When", &lines, 0)?;
    let check = |text: &str| kbbackup_core::cron::Cron::parse(text).map(|_| ()).map_err(|error| error.to_string());
    let cron = match presets.get(chosen) {
        Some(preset) => preset.clone(),
        None => ask::input(ui, "Cron expression, in UTC", None, check)?,
    };
    ui.answered("--cron", &cron);
    Ok(cron)
}

/// Follows a schedule until the controller has taken it up.
pub(super) async fn wait_for(ui: &Ui, app: &App, name: &str, wait: &WaitArgs) -> Result<Exit> {
    let what = format!("backupschedule/{name}");
    let hint = format!("kubectl kbbackup schedule describe schedule/{name}{}", app.namespace_flag());
    let waiting = Waiting { what: &what, limit: wait.limit(), hints: vec![hint.clone()] };
    match wait::until(ui, app.here::<BackupSchedule>(), name, &waiting, follow::schedule).await? {
        Ending::Good => {
            ui.say(&ui.marked(Mark::Good, &format!("{what} is in effect")));
            Ok(Exit::Done)
        }
        Ending::Bad(reason) => Err(CliError::failed(format!("{what} is not in effect"), reason).hint(hint)),
        Ending::Gone => Err(CliError::failed(what, "it was deleted meanwhile")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_whole_minutes() {
        assert_eq!(deadline("10m"), Ok(10));
        assert_eq!(deadline("24h"), Ok(1440));
        assert_eq!(deadline("0"), Ok(0));
        for text in ["25h", "90s", "soon"] {
            assert!(deadline(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_preset_is_a_rule_that_runs() {
        for (words, cron) in PRESETS {
            let rule = kbbackup_core::cron::Cron::parse(cron).unwrap();
            assert!(rule.next(Timestamp::now()).is_some(), "{words}");
        }
    }
}
