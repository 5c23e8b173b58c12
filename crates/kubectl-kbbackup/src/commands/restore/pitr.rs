//! To a point in time: which log, which base, which moment.

use jiff::{Timestamp, tz::TimeZone};
use kbbackup_api::v1alpha1::{Backup, BackupPolicy};
use kbbackup_core::pitr;
use kube::api::ListParams;

use super::RestoreArgs;
use crate::{
    app::{App, get, list_all},
    ask,
    commands::windows,
    error::{CliError, Result},
    moment::{self, Moment},
    output::human,
    recoverable::{self, Recoverable},
    source::{self, Source},
    ui::Ui,
};

/// What a restore to a point in time rests on.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub log: Backup,
    /// None when the log is replayed onto nothing.
    pub base: Option<Backup>,
    /// In whole seconds.
    pub time: Timestamp,
}

/// The logs of a source.
pub(super) async fn of_source(app: &App, namespace: &str, text: &str) -> Result<Vec<Recoverable>> {
    let sources = [Source::parse(text)?];
    let policies = list_all(&app.within::<BackupPolicy>(namespace), ListParams::default(), "policies").await?;
    let mut logs = recoverable::within(app, namespace).await?;
    logs.retain(|log| source::is_of(&log.backup, &sources, &policies));
    if logs.is_empty() {
        return Err(windows::none(namespace, text));
    }
    Ok(logs)
}

/// The log of a continuous backup that was named.
pub(super) async fn of_backup(app: &App, namespace: &str, name: &str) -> Result<Vec<Recoverable>> {
    let mut logs = recoverable::within(app, namespace).await?;
    logs.retain(|log| log.log.name == name);
    if logs.is_empty() {
        return Err(CliError::usage(
            format!("backup/{name} cannot be restored"),
            "it is a log of changes, and has stored nothing yet",
        ));
    }
    Ok(logs)
}

/// Settles log, base and moment. Without a moment it is asked for.
///
/// # Errors
/// When the moment cannot be reached: with the nearest that can, and the windows.
pub(super) async fn aim(ui: &Ui, app: &App, args: &RestoreArgs, logs: &[Recoverable]) -> Result<Aim> {
    let zone = zone(args.timezone.as_deref())?;
    let (log, time) = match &args.to_time {
        Some(text) => {
            let moment = moment::parse(text, &zone, Timestamp::now())
                .map_err(|why| CliError::usage("--to-time cannot be understood", why))?;
            reached(logs, moment)?
        }
        None => asked(ui, logs, &zone)?,
    };
    ui.say(&format!("to {}, which is {} here", human::stamp(time), local(time)));
    let base = pitr::base(&log.log, &log.bases, Some(time)).map_err(|error| unreachable(logs, error.to_string()))?;
    let base = match base {
        Some(base) => Some(get(&app.within::<Backup>(&log.namespace()), &format!("backup/{}", base.name)).await?),
        None => None,
    };
    Ok(Aim { log: log.backup.clone(), base, time })
}

fn zone(name: Option<&str>) -> Result<TimeZone> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| {
        CliError::usage(format!("time zone {name} is not known"), "write it as in --timezone Europe/Madrid")
    })
}

/// In the zone of this machine.
fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// The log by which the moment can be reached: one that lies around it, or the one with the best reason why not.
fn reached(logs: &[Recoverable], moment: Moment) -> Result<(&Recoverable, Timestamp)> {
    let newest = || logs.iter().filter_map(|log| Some((log, log.latest()?))).max_by_key(|(_, latest)| *latest);
    let time = match moment {
        Moment::At(time) => time,
        Moment::Latest => {
            let (log, latest) = newest().ok_or_else(|| unreachable(logs, "it has no window yet".to_owned()))?;
            return Ok((log, moment::whole(latest)));
        }
    };
    let mut refusal = None;
    for log in logs {
        match (&log.trouble, pitr::base(&log.log, &log.bases, Some(time))) {
            (Some(why), _) => {
                refusal.get_or_insert_with(|| why.clone());
            }
            (None, Ok(_)) => return Ok((log, time)),
            // With several logs, the one whose range the time lies in knows best why it cannot be reached.
            (None, Err(error)) if matches!(error, pitr::PitrError::Outside { .. }) => {
                refusal.get_or_insert_with(|| error.to_string());
            }
            (None, Err(error)) => refusal = Some(error.to_string()),
        }
    }
    Err(unreachable(logs, refusal.unwrap_or_default()))
}

fn unreachable(logs: &[Recoverable], why: String) -> CliError {
    let source = logs.first().map(|log| log.source.clone()).unwrap_or_default();
    let namespace = logs.first().map(Recoverable::namespace).unwrap_or_default();
    CliError::usage(format!("{source} cannot be brought back to that time"), why)
        .hint(format!("kubectl kbbackup windows {source} -n {namespace}"))
}

/// Asks for the moment; a time outside of the windows is refused while it is typed.
fn asked<'a>(ui: &Ui, logs: &'a [Recoverable], zone: &TimeZone) -> Result<(&'a Recoverable, Timestamp)> {
    let told: Vec<String> = logs.iter().flat_map(Recoverable::windows).map(|window| window.text()).collect();
    if !ui.may_ask {
        return Err(ask::needed("--to-time", "the time to go back to", &told));
    }
    let latest = logs.iter().filter_map(Recoverable::latest).max();
    let Some(latest) = latest else { return Err(unreachable(logs, "it has no window yet".to_owned())) };
    ui.say(&format!("it can be brought back to any time of\n  {}", told.join("\n  ")));
    let read = |text: &str| moment::parse(text, zone, Timestamp::now());
    let check = |text: &str| match read(text).map(|moment| reached(logs, moment)) {
        Err(why) => Err(why),
        Ok(Err(error)) => Err(error.why),
        Ok(Ok(_)) => Ok(()),
    };
    let text = ask::input(ui, "To which time", Some(&human::stamp(moment::whole(latest))), check)?;
    let moment = read(&text).map_err(|why| CliError::usage("the time cannot be understood", why))?;
    let (log, time) = reached(logs, moment)?;
    ui.answered("--to-time", &human::stamp(time));
    Ok((log, time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::windows::tests::{logs, running};

    fn go(text: &str) -> Result<String> {
        let logs = logs(&running());
        let moment = moment::parse(text, &TimeZone::UTC, "2026-01-08T06:00:00Z".parse().unwrap()).unwrap();
        reached(&logs, moment).map(|(log, time)| format!("{} {time}", log.log.name))
    }

    #[test]
    fn a_time_inside_of_a_window_is_taken_and_latest_is_the_end_of_the_last() {
        assert_eq!(go("2026-01-06T00:00:00Z").unwrap(), "pg-wal 2026-01-06T00:00:00Z");
        assert_eq!(go("latest").unwrap(), "pg-wal 2026-01-08T05:59:30Z");
        assert_eq!(go("1h ago").unwrap(), "pg-wal 2026-01-08T05:00:00Z");
    }

    #[test]
    fn a_time_outside_is_refused_with_the_nearest_that_will_do() {
        let before = go("2026-01-04T12:00:00Z").unwrap_err();
        assert_eq!(before.exit, crate::exit::Exit::Usage);
        assert!(before.why.contains("2026-01-05T02:10:01Z"), "{before}");
        assert_eq!(before.hints, ["kubectl kbbackup windows pg -n demo"]);
        let hole = go("2026-01-07T02:00:00Z").unwrap_err();
        assert!(hole.why.contains("2026-01-07T01:00:00Z") && hole.why.contains("2026-01-08T02:10:00Z"), "{hole}");
        let after = go("2026-01-08T05:59:31Z").unwrap_err();
        assert!(after.why.contains("2026-01-08T05:59:30Z"), "{after}");
    }
}
