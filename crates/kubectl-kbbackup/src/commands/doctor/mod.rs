//! `doctor`: what is wrong with this cluster's backups, and how to cure it.

mod cluster;
mod data;
mod local;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    app::App,
    args::OutputArgs,
    error::Result,
    exit::Exit,
    output::{Format, human, object},
    ui::{Mark, Ui},
};

/// Check everything that backups need: cluster, operator, rights, repositories, policies, recent results
///
/// Exits with 4 when something is broken.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup doctor
  kubectl kbbackup doctor -n demo -o json")]
pub(crate) struct DoctorArgs {
    /// Look at policies and backups of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// Stable word for scripts.
    check: &'static str,
    result: Mark,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remedies: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, result: Mark, message: impl Into<String>) -> Self {
        Self { check, result, message: message.into(), remedies: Vec::new() }
    }

    pub(super) fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Mark::Good, message)
    }

    pub(super) fn warn(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Mark::Warn, message)
    }

    pub(super) fn bad(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Mark::Bad, message)
    }

    #[must_use]
    pub(super) fn cure(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &DoctorArgs) -> Result<Exit> {
    ui.progress_if_live("looking at the cluster");
    let (reachable, mut findings) = cluster::api_server(app).await;
    if reachable {
        let (definitions, definitions_there) = cluster::definitions(app).await;
        findings.extend(definitions);
        // Independent of each other, so at once.
        let (operator, rights, storage) =
            tokio::join!(cluster::operator(app), cluster::rights(app), cluster::storage(app));
        findings.extend(operator);
        findings.extend(rights);
        findings.extend(storage);
        if definitions_there {
            let (repos, policies, backups) = tokio::join!(
                data::repos(app),
                data::policies(app, args.all_namespaces),
                data::backups(app, args.all_namespaces)
            );
            findings.extend(repos);
            findings.extend(policies);
            findings.extend(backups);
        }
    }
    findings.extend(local::plugin());
    ui.clear();
    show(ui, args, &findings)?;
    Ok(if findings.iter().any(|finding| finding.result == Mark::Bad) { Exit::Failed } else { Exit::Done })
}

fn show(ui: &Ui, args: &DoctorArgs, findings: &[Finding]) -> Result<()> {
    let format = args.output.format();
    if matches!(format, Format::Json | Format::Yaml) {
        let value = json!({"apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "Doctor", "findings": findings});
        ui.result(&object::text(&value, format)?);
        return Ok(());
    }
    for finding in findings {
        ui.result(&ui.marked(finding.result, &finding.message.replace('\n', "\n  ")));
        for remedy in &finding.remedies {
            ui.result(&format!("    {remedy}"));
        }
    }
    let count = |mark: Mark| findings.iter().filter(|finding| finding.result == mark).count();
    let (bad, warn) = (count(Mark::Bad), count(Mark::Warn));
    ui.result(&match (bad, warn) {
        (0, 0) => "everything is in order".to_owned(),
        (0, warn) => human::count(warn, "thing deserves a look", "things deserve a look"),
        (bad, 0) => human::count(bad, "thing is broken", "things are broken"),
        (bad, warn) => format!(
            "{}, {}",
            human::count(bad, "thing is broken", "things are broken"),
            human::count(warn, "deserves a look", "deserve a look")
        ),
    });
    Ok(())
}
