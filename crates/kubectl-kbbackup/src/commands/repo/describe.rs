//! `repo describe`.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{names::labels, v1alpha1::BackupRepo};
use kube::ResourceExt;

use crate::{
    app::{App, get},
    args::OutputArgs,
    error::Result,
    exit::Exit,
    follow,
    output::{human, object, table::Sheet},
    remedy,
    ui::Ui,
};

/// Show repositories: configuration, state, what lies in them
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo describe s3-main")]
pub(crate) struct DescribeArgs {
    /// Repositories to show
    #[arg(required = true)]
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &DescribeArgs) -> Result<Exit> {
    let mut repos = Vec::new();
    for name in &args.names {
        repos.push(get(&app.everywhere::<BackupRepo>(), &format!("backuprepo/{name}")).await?);
    }
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&repos, args.names.len() == 1, format, args.output.show_managed_fields)?);
        return Ok(Exit::Done);
    }
    for (index, repo) in repos.iter().enumerate() {
        let name = repo.name_any();
        let selector = format!("{}={name}", labels::BACKUP_REPO_NAME);
        let usage = super::list::usage(ui, app, &selector).await.ok();
        let usage = usage.map(|usage| usage.get(&name).copied().unwrap_or_default());
        if index > 0 {
            ui.result("\n");
        }
        ui.result(&describe(repo, usage, Timestamp::now()));
        let reason = follow::repo_reason(repo);
        if !super::is_ready(repo) && !reason.is_empty() {
            if let Some(advice) = remedy::advice(&reason) {
                ui.hint(advice);
            }
            ui.hint(&format!("kubectl kbbackup repo check {}", repo.name_any()));
        }
    }
    Ok(Exit::Done)
}

fn describe(repo: &BackupRepo, usage: Option<(usize, u64)>, now: Timestamp) -> String {
    let spec = &repo.spec;
    // Without the right to list backups everywhere it is not known, which is not none.
    let backups = usage.map_or_else(
        || "unknown: backups cannot be listed".to_owned(),
        |(count, bytes)| format!("{count}, {} in completed ones", human::bytes(bytes)),
    );
    let mut sheet = Sheet::default();
    sheet
        .line("Name", repo.name_any())
        .line("Provider", &spec.storage_provider_ref)
        .line("Access", spec.access_method().to_string())
        .line("Default", super::is_default(repo).to_string())
        .line("Path prefix", spec.path_prefix.clone().unwrap_or_default())
        .line("Age", human::age(repo.creation_timestamp().as_ref(), now))
        .line("Backups", backups);
    if let Some(credential) = &spec.credential {
        let namespace = credential.namespace.clone().unwrap_or_default();
        sheet.line(
            "Credentials",
            format!("secret/{} in namespace {namespace}", credential.name.clone().unwrap_or_default()),
        );
    }
    if !spec.config.is_empty() {
        sheet.title("Configuration");
        for (key, value) in &spec.config {
            sheet.item(key, value);
        }
    }
    if let Some(status) = &repo.status {
        sheet.line("Status", status.phase.map(|phase| phase.to_string()).unwrap_or_default());
        if !status.conditions.is_empty() {
            sheet.title("Conditions");
            for condition in &status.conditions {
                let reason = if condition.message.is_empty() {
                    condition.reason.clone()
                } else {
                    format!("{}: {}", condition.reason, condition.message)
                };
                sheet.item(&condition.type_, format!("{} {reason}", condition.status));
            }
        }
    }
    sheet.finish()
}
