//! `repo providers`: kinds of storage and their parameters.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::StorageProvider;
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, get, list_all},
    args::OutputArgs,
    build::repo::parameters,
    error::Result,
    exit::Exit,
    output::{Table, human, object},
    provider_flags::variable,
    ui::Ui,
};

/// List kinds of storage, or the parameters of one
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo providers
  kubectl kbbackup repo providers s3")]
pub(crate) struct ProvidersArgs {
    /// Show the parameters of this one
    pub name: Option<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &ProvidersArgs) -> Result<Exit> {
    let api = app.everywhere::<StorageProvider>();
    let providers = match &args.name {
        Some(name) => vec![get(&api, &format!("storageprovider/{name}")).await?],
        None => list_all(&api, ListParams::default(), "storage providers").await?,
    };
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&providers, args.name.is_some(), format, args.output.show_managed_fields)?);
    } else if let (Some(_), [provider]) = (&args.name, providers.as_slice()) {
        ui.result(&describe(provider).to_string());
    } else if providers.is_empty() {
        ui.say("no storage providers in this cluster");
        ui.hint("kubectl kbbackup install");
    } else {
        let mut table = Table::new(["NAME", "STATUS", "ACCESS", "CSI-DRIVER", "AGE"]);
        for provider in &providers {
            let spec = &provider.spec;
            let tool = spec.datasafed_config_template.is_some().then_some("Tool");
            let mount = (spec.storage_class_template.is_some() || spec.persistent_volume_claim_template.is_some())
                .then_some("Mount");
            table.row([
                provider.name_any(),
                provider
                    .status
                    .as_ref()
                    .and_then(|status| status.phase)
                    .map(|phase| phase.to_string())
                    .unwrap_or_default(),
                tool.into_iter().chain(mount).collect::<Vec<_>>().join(","),
                spec.csi_driver_name.clone().unwrap_or_default(),
                human::age(provider.creation_timestamp().as_ref(), Timestamp::now()),
            ]);
        }
        ui.result(&table.to_string());
    }
    Ok(Exit::Done)
}

fn describe(provider: &StorageProvider) -> Table {
    let mut table = Table::new(["PARAMETER", "NEEDED", "DEFAULT", "SECRET", "VARIABLE", "MEANING"]);
    for parameter in parameters(provider) {
        let meaning = parameter.description.lines().next().unwrap_or_default().to_owned();
        table.row([
            parameter.name.clone(),
            if parameter.required { "yes" } else { "" }.to_owned(),
            parameter.default.unwrap_or_default(),
            if parameter.secret { "yes" } else { "" }.to_owned(),
            variable(&parameter.name),
            meaning,
        ]);
    }
    table
}
