//! `policy describe`: and whether each method could run now.

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::v1alpha1::{ActionSet, Availability, BackupMethod, BackupPolicy, BackupRepoPhase};
use kube::{ResourceExt, api::ListParams};

use super::list::selector;
use crate::{
    app::{App, get, list_all},
    args::OutputArgs,
    commands::repo,
    error::Result,
    exit::Exit,
    output::{human, object, table::Sheet},
    source,
    ui::{Mark, Ui},
};

/// Show policies, and whether their methods can run now
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy describe pg")]
pub(crate) struct DescribeArgs {
    /// Policies to show
    #[arg(required = true)]
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &DescribeArgs) -> Result<Exit> {
    let api = app.here::<BackupPolicy>();
    let mut policies = Vec::new();
    for name in &args.names {
        policies.push(get(&api, &format!("backuppolicy/{name}")).await?);
    }
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&policies, args.names.len() == 1, format, args.output.show_managed_fields)?);
        return Ok(Exit::Done);
    }
    for (index, policy) in policies.iter().enumerate() {
        if index > 0 {
            ui.result("\n");
        }
        ui.result(&describe(ui, app, policy).await?);
    }
    Ok(Exit::Done)
}

async fn describe(ui: &Ui, app: &App, policy: &BackupPolicy) -> Result<String> {
    let spec = &policy.spec;
    let mut sheet = Sheet::default();
    sheet
        .line("Name", policy.name_any())
        .line("Namespace", policy.namespace().unwrap_or_default())
        .line("Source", source::of_policy(policy))
        .line("Default", source::is_default(policy).to_string())
        .line("Repository", spec.backup_repo_name.clone().unwrap_or_else(|| "(default)".to_owned()))
        .line("Path prefix", spec.path_prefix.clone().unwrap_or_default());
    if let Some(config) = &spec.encryption_config {
        let key = &config.pass_phrase_secret_key_ref;
        sheet.line("Encryption", format!("{}, pass phrase in secret/{} key {}", config.algorithm, key.name, key.key));
    }
    if let Some(status) = &policy.status {
        sheet.line("Status", status.phase.map(|phase| phase.to_string()).unwrap_or_default());
        sheet.line("Message", status.message.clone().unwrap_or_default());
    }
    let mut pods = 0;
    for target in spec.target.iter().chain(&spec.targets) {
        sheet.title("Target");
        let labels = selector(target);
        let found =
            list_all(&app.here::<Pod>(), ListParams::default().labels(&labels), "pods").await.unwrap_or_default();
        pods += found.len();
        sheet.item("Pods", format!("{labels} ({})", human::count(found.len(), "pod now", "pods now")));
        if let Some(credential) = &target.connection_credential {
            sheet.item(
                "Login",
                format!(
                    "secret/{} keys {}, {}",
                    credential.secret_name,
                    credential.username_key(),
                    credential.password_key()
                ),
            );
        }
        if let Some(port) = &target.container_port {
            sheet.item("Port", format!("{} of container {}", port.port_name, port.container_name));
        }
    }
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let repo = repo::resolve(app, spec.backup_repo_name.as_deref()).await;
    sheet.title("Methods");
    for method in &spec.backup_methods {
        let (mark, text) = match obstacle(method, &sets, pods, &repo) {
            None => (Mark::Good, "can run now".to_owned()),
            Some(why) => (Mark::Bad, why),
        };
        let action = method.action_set_name.clone().unwrap_or_else(|| "volume snapshots".to_owned());
        sheet.block(&ui.marked(mark, &format!("{}  ({action}) {text}", method.name)));
    }
    Ok(sheet.finish())
}

/// Why a method could not run now.
fn obstacle(
    method: &BackupMethod,
    sets: &[ActionSet],
    pods: usize,
    repo: &Result<kbbackup_api::v1alpha1::BackupRepo>,
) -> Option<String> {
    if let Some(name) = method.action_set_name.as_deref().filter(|_| !method.snapshot_volumes()) {
        let Some(set) = sets.iter().find(|set| set.name_any() == name) else {
            return Some(format!("actionset/{name} does not exist"));
        };
        if set.status.as_ref().and_then(|status| status.phase) == Some(Availability::Unavailable) {
            return Some(format!("actionset/{name} is unavailable"));
        }
    }
    if pods == 0 {
        return Some("no pod matches".to_owned());
    }
    match repo {
        _ if method.snapshot_volumes() => None,
        Ok(repo) if repo.status.as_ref().and_then(|status| status.phase) == Some(BackupRepoPhase::Ready) => None,
        Ok(repo) => Some(format!("backuprepo/{} is not ready", repo.name_any())),
        Err(error) => Some(error.to_string()),
    }
}
