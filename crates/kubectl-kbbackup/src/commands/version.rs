//! `version`: of this client, the operator and the API server.

use clap::Args;
use serde_json::json;

use crate::{
    app::App,
    args::{Globals, OutputArgs},
    error::{Doing, Result},
    exit::Exit,
    output::{Format, object},
    ui::Ui,
};

/// Print the versions of the plugin, the operator and the API server
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup version
  kubectl kbbackup version --client -o json")]
pub(crate) struct VersionArgs {
    /// Only this program's
    #[arg(long)]
    pub client: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) async fn run(ui: &Ui, globals: &Globals, args: &VersionArgs) -> Result<Exit> {
    let client = env!("CARGO_PKG_VERSION");
    let mut server = None;
    let mut operator = None;
    let mut problem = None;
    if !args.client {
        match versions(globals).await {
            Ok((kubernetes, found)) => {
                server = Some(kubernetes);
                operator = found;
            }
            Err(error) => problem = Some(error),
        }
    }
    let format = args.output.format();
    if matches!(format, Format::Json | Format::Yaml) {
        let value = json!({
            "apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "Version",
            "client": client, "operatorImage": operator, "kubernetes": server
        });
        ui.result(&object::text(&value, format)?);
    } else {
        ui.result(&format!("client       {client}"));
        if !args.client && problem.is_none() {
            ui.result(&format!("operator     {}", operator.as_deref().unwrap_or("not installed")));
        }
        if let Some(server) = &server {
            ui.result(&format!("kubernetes   {server}"));
        }
    }
    problem.map_or(Ok(Exit::Done), Err)
}

async fn versions(globals: &Globals) -> Result<(String, Option<String>)> {
    let app = App::connect(globals).await?;
    let server = app.client.apiserver_version().await.doing(|| format!("no answer from {}", app.server))?;
    let operator = app.operator().await.ok().flatten();
    let image = operator.and_then(|operator| operator.spec?.template.spec?.containers.into_iter().next()?.image);
    Ok((server.git_version, image))
}
