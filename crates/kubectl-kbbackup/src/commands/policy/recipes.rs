//! `policy actionsets` and `policy templates`: what policies can be made of.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicyTemplate};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, named_or_all},
    args::OutputArgs,
    error::Result,
    exit::Exit,
    output::{Format, Table, human, object},
    ui::Ui,
};

/// List recipes of backups: which kind each makes, and its parameters
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy actionsets
  kubectl kbbackup policy actionsets kbb-postgres-full -o yaml")]
pub(crate) struct ActionSetsArgs {
    /// Only these recipes
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// List templates from which policies and schedules of KubeBlocks Clusters are made
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy templates
  kubectl kbbackup policy templates -o yaml")]
pub(crate) struct TemplatesArgs {
    /// Only these templates
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn action_sets(ui: &Ui, app: &App, args: &ActionSetsArgs) -> Result<Exit> {
    let sets = named_or_all(&app.everywhere::<ActionSet>(), "actionset", &args.names, ListParams::default()).await?;
    show(ui, args.names.len() == 1, &args.output, &sets, |wide| action_set_table(&sets, wide, Timestamp::now()))
}

pub(super) async fn templates(ui: &Ui, app: &App, args: &TemplatesArgs) -> Result<Exit> {
    let api = app.everywhere::<BackupPolicyTemplate>();
    let templates = named_or_all(&api, "backuppolicytemplate", &args.names, ListParams::default()).await?;
    show(ui, args.names.len() == 1, &args.output, &templates, |wide| template_table(&templates, wide, Timestamp::now()))
}

fn show<K>(ui: &Ui, single: bool, output: &OutputArgs, found: &[K], table: impl Fn(bool) -> Table) -> Result<Exit>
where
    K: kube::Resource<DynamicType = ()> + serde::Serialize,
{
    let format = output.format();
    if format.is_object() {
        ui.result(&object::render(found, single, format, output.show_managed_fields)?);
    } else if found.is_empty() {
        ui.say(&format!("no {} in this cluster", K::plural(&())));
        ui.hint("kubectl kbbackup install");
    } else {
        ui.result(&table(format == Format::Wide).to_string());
    }
    Ok(Exit::Done)
}

fn action_set_table(sets: &[ActionSet], wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "BACKUP-TYPE", "STATUS", "PARAMETERS", "AGE"];
    if wide {
        header.push("MESSAGE");
    }
    let mut table = Table::new(header);
    for set in sets {
        let status = set.status.clone().unwrap_or_default();
        let parameters = set.spec.backup.as_ref().map(|backup| backup.with_parameters.join(",")).unwrap_or_default();
        let mut row = vec![
            set.name_any(),
            set.spec.backup_type.to_string(),
            status.phase.map(|phase| phase.to_string()).unwrap_or_default(),
            parameters,
            human::age(set.creation_timestamp().as_ref(), now),
        ];
        if wide {
            row.push(status.message.unwrap_or_default());
        }
        table.row(row);
    }
    table
}

fn template_table(templates: &[BackupPolicyTemplate], wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "SERVICE-KIND", "STATUS", "METHODS", "AGE"];
    if wide {
        header.extend(["COMPONENT-DEFINITIONS", "MESSAGE"]);
    }
    let mut table = Table::new(header);
    for template in templates {
        let status = template.status.clone().unwrap_or_default();
        let methods: Vec<&str> = template.spec.backup_methods.iter().map(|method| method.name.as_str()).collect();
        let mut row = vec![
            template.name_any(),
            template.spec.service_kind.clone().unwrap_or_default(),
            status.phase.map(|phase| phase.to_string()).unwrap_or_default(),
            methods.join(","),
            human::age(template.creation_timestamp().as_ref(), now),
        ];
        if wide {
            row.extend([template.spec.comp_defs.join(","), status.message.unwrap_or_default()]);
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn recipes_tell_kind_parameters_and_state() {
        let set: ActionSet = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "ActionSet", "metadata": {"name": "pg-full"},
            "spec": {"backupType": "Full", "backup": {"withParameters": ["a", "b"]}},
            "status": {"phase": "Unavailable", "message": "no image"}
        }))
        .unwrap();
        insta::assert_snapshot!(action_set_table(&[set], true, Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn templates_tell_what_they_serve() {
        let template: BackupPolicyTemplate = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicyTemplate", "metadata": {"name": "pg"},
            "spec": {"serviceKind": "PostgreSQL", "compDefs": ["^postgresql-"], "backupMethods": [{"name": "full"}, {"name": "wal"}]},
            "status": {"phase": "Available"}
        }))
        .unwrap();
        insta::assert_snapshot!(template_table(&[template], true, Timestamp::UNIX_EPOCH));
    }
}
