//! `policy list`.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{
    names::labels,
    v1alpha1::{BackupPolicy, BackupTarget},
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, named_or_all},
    args::{OutputArgs, SelectArgs},
    error::Result,
    exit::Exit,
    output::{Table, human, object},
    source::{self, Source},
    ui::Ui,
};

/// List policies
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy list
  kubectl kbbackup policy list -A -o wide
  kubectl kbbackup policy list --source statefulset/pg")]
pub(crate) struct ListArgs {
    /// Only these policies
    pub names: Vec<String>,

    /// Only policies of this source; may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub source: Vec<String>,

    #[command(flatten)]
    pub select: SelectArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &ListArgs) -> Result<Exit> {
    args.select.beside(&args.names)?;
    let api = app.scoped::<BackupPolicy>(args.select.all_namespaces);
    let mut params = ListParams::default();
    params.label_selector.clone_from(&args.select.selector);
    let mut policies = named_or_all(&api, "backuppolicy", &args.names, params).await?;
    if !args.source.is_empty() {
        let sources = args.source.iter().map(|source| Source::parse(source)).collect::<Result<Vec<_>>>()?;
        let keep: Vec<Option<String>> =
            sources.iter().flat_map(|source| source::matching(&policies, source, None)).map(ResourceExt::uid).collect();
        policies.retain(|policy| keep.contains(&policy.uid()));
    }
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&policies, args.names.len() == 1, format, args.output.show_managed_fields)?);
    } else if policies.is_empty() {
        let place =
            if args.select.all_namespaces { "the cluster".to_owned() } else { format!("namespace {}", app.namespace) };
        ui.say(&format!("no policies in {place}"));
        ui.hint("kubectl kbbackup policy create --for statefulset/NAME");
    } else {
        ui.result(&table(&policies, args.select.all_namespaces, format.is_wide(), Timestamp::now()).to_string());
    }
    Ok(Exit::Done)
}

fn table(policies: &[BackupPolicy], namespaces: bool, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "SOURCE", "COMPONENT", "DEFAULT", "REPO", "METHODS", "STATUS", "AGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["ENCRYPTION", "TARGET", "PATH-PREFIX"]);
    }
    let mut table = Table::new(header);
    for policy in policies {
        let spec = &policy.spec;
        let methods: Vec<&str> = spec.backup_methods.iter().map(|method| method.name.as_str()).collect();
        let mut row = vec![
            policy.name_any(),
            source::of_policy(policy),
            policy.labels().get(labels::COMPONENT_NAME).cloned().unwrap_or_default(),
            source::is_default(policy).to_string(),
            spec.backup_repo_name.clone().filter(|repo| !repo.is_empty()).unwrap_or_else(|| "(default)".to_owned()),
            methods.join(","),
            policy.status.as_ref().and_then(|status| status.phase).map(|phase| phase.to_string()).unwrap_or_default(),
            human::age(policy.creation_timestamp().as_ref(), now),
        ];
        if namespaces {
            row.insert(0, policy.namespace().unwrap_or_default());
        }
        if wide {
            row.push(spec.encryption_config.as_ref().map(|config| config.algorithm.to_string()).unwrap_or_default());
            row.push(spec.target.iter().chain(&spec.targets).map(selector).collect::<Vec<_>>().join(" "));
            row.push(spec.path_prefix.clone().unwrap_or_default());
        }
        table.row(row);
    }
    table
}

/// The selector of a target as kubectl's `-l` would take it.
pub(super) fn selector(target: &BackupTarget) -> String {
    let labels = target.pod_selector.iter().flat_map(|selector| &selector.match_labels);
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
