//! `repo create`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use k8s_openapi::{
    api::core::v1::{Secret, SecretReference},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kbbackup_api::v1alpha1::{AccessMethod, BackupRepo, PvReclaimPolicy, StorageProvider, StorageProviderPhase};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    app::{App, check_name, get, list_all},
    args::{WaitArgs, WriteArgs, pair, words},
    ask,
    build::repo::{self as build, Parameters, Wish},
    error::{CliError, Doing, Result},
    exit::Exit,
    manifest::{self, How, Manifest},
    provider_flags::{ProviderFlags, secrets_given, variable},
    ui::{Mark, Ui},
};

/// Make a repository, check it by writing and reading, and wait until it is ready
///
/// Secrets are best given by an existing Secret, a file, a variable (KBBACKUP_SECRET_ACCESS_KEY for secretAccessKey) or at
/// the question; flags end up in the shell's history.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo create
  kubectl kbbackup repo create s3-main --provider s3 --param bucket=db-backups --param region=eu-central-1 --credential-file keys.env --default
  kubectl kbbackup repo create minio --provider minio --param bucket=backups --param endpoint=http://minio.minio:9000 --credential-secret minio/keys
  kubectl kbbackup repo providers s3")]
pub(crate) struct CreateArgs {
    /// Name of the repository [default: that of the provider]
    pub name: Option<String>,

    /// Storage provider, see 'repo providers'
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,

    /// Parameter of the provider; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// Existing Secret with the credentials [namespace: the operator's]
    #[arg(long, value_name = "[NS/]NAME", conflicts_with = "credential_file")]
    pub credential_secret: Option<String>,

    /// File with the credentials: KEY=VALUE lines, or JSON
    #[arg(long, value_name = "FILE")]
    pub credential_file: Option<PathBuf>,

    /// Tool or Mount [default: Tool where the provider has it]
    #[arg(long, value_name = "METHOD", value_parser = words::<AccessMethod>(AccessMethod::WORDS), hide_possible_values = true)]
    pub access_method: Option<AccessMethod>,

    /// Make it the default; refused when there is another
    #[arg(long)]
    pub default: bool,

    /// Make it the default instead of the present one, once it is ready
    #[arg(long, conflicts_with = "default")]
    pub make_default: bool,

    /// Directory in the storage below which everything goes
    #[arg(long, value_name = "PATH")]
    pub path_prefix: Option<String>,

    /// Retain or Delete; only for Mount
    #[arg(long, default_value = "Retain", value_name = "POLICY", value_parser = words::<PvReclaimPolicy>(PvReclaimPolicy::WORDS), hide_possible_values = true)]
    pub pv_reclaim_policy: PvReclaimPolicy,

    /// Size of the volume; only for Mount
    #[arg(long, default_value = "100Gi", value_name = "SIZE")]
    pub volume_capacity: String,

    /// Remove the objects again when the check fails
    #[arg(long)]
    pub rollback: bool,

    #[command(flatten)]
    pub wait: WaitArgs,

    #[command(flatten)]
    pub write: WriteArgs,

    #[command(flatten)]
    pub flags: ProviderFlags,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &CreateArgs) -> Result<Exit> {
    let provider = provider(ui, app, args).await?;
    ui.answers().hide(build::parameters(&provider).into_iter().filter(|known| known.secret).map(|known| known.name));
    let existing = super::all(app).await?;
    // Who chose the provider at a question is asked for the name as well.
    let asks_name = args.name.is_none() && args.provider.is_none() && ui.may_ask;
    let mut name = args.name.clone().unwrap_or_else(|| provider.name_any());
    if !asks_name {
        free(&existing, &name)?;
    }
    let defaults: Vec<&BackupRepo> = existing.iter().filter(|repo| super::is_default(repo)).collect();
    if args.default
        && let Some(other) = defaults.first()
    {
        return Err(CliError::usage(
            format!("backuprepo/{} is the default already", other.name_any()),
            "two defaults are an error",
        )
        .hint("add --make-default instead of --default to move the mark"));
    }
    let replaces: Vec<String> =
        if args.make_default { defaults.iter().map(|repo| repo.name_any()).collect() } else { Vec::new() };
    if !replaces.is_empty() && args.wait.wait == Some(false) {
        let why =
            "a repository becomes the default instead of another one when it is ready, and that is not waited for";
        return Err(CliError::usage("--make-default cannot be given with --wait=false", why)
            .hint(format!("kubectl kbbackup repo update {name} --default")));
    }
    for flag in secrets_given(&args.flags) {
        ui.warn(&format!("--{flag} stands in the shell's history now; a file, a Secret or a variable is safer"));
    }

    let operator_namespace = app.operator_namespace().await;
    let credential = match &args.credential_secret {
        Some(text) => Some(reference(app, text, &operator_namespace).await?),
        None => None,
    };
    let parameters = parameters(ui, args, &provider, credential.is_some())?;
    if asks_name {
        let check = |text: &str| free(&existing, text).map_err(|error| error.to_string());
        name = ask::input(ui, "Name of the repository", Some(&name), check)?;
        ui.answered("", &name);
    }
    let asks_default =
        ui.may_ask && args.provider.is_none() && !args.default && !args.make_default && defaults.is_empty();
    let wants_default = asks_default && ask::yes(ui, "Make it the default repository?", true)?;
    if wants_default {
        ui.answered("--default", "");
    }
    let default = args.default || wants_default || (args.make_default && defaults.is_empty());
    let wish = Wish {
        name: name.clone(),
        parameters,
        credential,
        operator_namespace,
        access_method: args.access_method,
        default,
        path_prefix: args.path_prefix.clone(),
        pv_reclaim_policy: args.pv_reclaim_policy,
        volume_capacity: Some(Quantity(args.volume_capacity.clone())),
    };
    let (secret, repo) = build::repo(&provider, &wish)?;
    let mut manifests = Vec::new();
    if let Some(secret) = &secret {
        manifests.push(Manifest::of(secret)?);
    }
    manifests.push(Manifest::of(&repo)?);
    if manifest::previewed(app, ui, &manifests, How::Create, &args.write).await? {
        if !replaces.is_empty() {
            ui.say(&format!("once it is ready it would be the default instead of {}", replaces.join(", ")));
        }
        return Ok(Exit::Done);
    }
    let written = create(app, secret.as_ref(), &manifests).await?;
    manifest::announce(ui, &written, "created", args.write.output)?;
    ui.equivalent();
    if args.wait.wait == Some(false) {
        ui.hint(&format!("kubectl kbbackup repo describe {name}"));
        return Ok(Exit::Done);
    }
    if let Err(mut error) = super::wait_ready(ui, app, &name, args.wait.limit()).await {
        if args.rollback && error.exit == Exit::Failed {
            // There is nothing left to describe.
            error.hints.retain(|hint| !hint.starts_with("kubectl"));
            undo(app, &name, secret.as_ref()).await;
            ui.say(&format!("backuprepo/{name} and its Secret were removed again"));
        } else if !replaces.is_empty() {
            ui.say(&format!("the default is {} still", replaces.join(", ")));
            error.hints.push(format!("kubectl kbbackup repo update {name} --default"));
        }
        return Err(error);
    }
    ui.say(&ui.marked(Mark::Good, &format!("backuprepo/{name} is ready")));
    if !replaces.is_empty() {
        super::update::move_default(app, &name, &replaces).await?;
        ui.say(&format!("backuprepo/{name} is the default now instead of {}", replaces.join(", ")));
    }
    Ok(Exit::Done)
}

/// Whether a repository may have this name.
fn free(existing: &[BackupRepo], name: &str) -> Result<()> {
    check_name("repository", name)?;
    if existing.iter().any(|repo| repo.name_any() == name) {
        return Err(CliError::usage(format!("backuprepo/{name} exists already"), "give the new one another name")
            .hint(format!("kubectl kbbackup repo describe {name}")));
    }
    Ok(())
}

async fn provider(ui: &Ui, app: &App, args: &CreateArgs) -> Result<StorageProvider> {
    if let Some(name) = &args.provider {
        return get(&app.everywhere::<StorageProvider>(), &format!("storageprovider/{name}")).await.map_err(|error| {
            if error.exit == Exit::NotFound { error.hint("kubectl kbbackup repo providers") } else { error }
        });
    }
    let all = list_all(&app.everywhere::<StorageProvider>(), ListParams::default(), "storage providers").await?;
    let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    if !ui.may_ask || all.is_empty() {
        return Err(ask::needed("--provider", "the storage provider", &names));
    }
    let lines: Vec<String> = all
        .iter()
        .map(|provider| {
            let phase = provider.status.as_ref().and_then(|status| status.phase);
            let note =
                if phase == Some(StorageProviderPhase::NotReady) { "  (its CSI driver is not installed)" } else { "" };
            format!("{}{note}", provider.name_any())
        })
        .collect();
    let place = ask::select(ui, "Storage", &lines, 0)?;
    ui.answered("--provider", &names[place]);
    all.into_iter().nth(place).ok_or_else(|| ask::needed("--provider", "the storage provider", &names))
}

/// Values by preference: flags, file, variables, questions.
fn parameters(ui: &Ui, args: &CreateArgs, provider: &StorageProvider, has_credential: bool) -> Result<Parameters> {
    let mut given: Parameters = args.flags.0.clone();
    given.extend(args.param.iter().cloned());
    if let Some(path) = &args.credential_file {
        given.extend(credentials_of_file(path)?);
    }
    for parameter in build::parameters(provider) {
        if given.contains_key(&parameter.name) || (parameter.secret && has_credential) {
            continue;
        }
        if let Some(value) = std::env::var(variable(&parameter.name)).ok().filter(|value| !value.is_empty()) {
            given.insert(parameter.name, value);
        } else if parameter.required && ui.may_ask {
            let value = if parameter.secret {
                ask::password(ui, &parameter.name)?
            } else if parameter.choices.is_empty() {
                ask::input(ui, &parameter.name, parameter.default.as_deref(), |text| {
                    if text.is_empty() { Err("a value is needed".to_owned()) } else { Ok(()) }
                })?
            } else {
                let choices = &parameter.choices;
                let default = choices.iter().position(|choice| Some(choice) == parameter.default.as_ref());
                choices[ask::select(ui, &parameter.name, choices, default.unwrap_or(0))?].clone()
            };
            if parameter.secret {
                ui.answers().add_secret(&parameter.name);
            } else {
                ui.answered("--param", &format!("{}={value}", parameter.name));
            }
            given.insert(parameter.name, value);
        }
    }
    Ok(given)
}

pub(super) fn credentials_of_file(path: &Path) -> Result<BTreeMap<String, String>> {
    let what = || format!("credential file {} cannot be used", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| CliError::usage(what(), error.to_string()))?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(&text).map_err(|error| CliError::usage(what(), error.to_string()));
    }
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| pair(line).map_err(|error| CliError::usage(what(), format!("a line is {error}"))))
        .collect()
}

async fn reference(app: &App, text: &str, operator_namespace: &str) -> Result<SecretReference> {
    let (namespace, name) = text.split_once('/').unwrap_or((operator_namespace, text));
    let secret: Secret = get(&app.within(namespace), &format!("secret/{name}")).await?;
    Ok(SecretReference { name: secret.metadata.name, namespace: Some(namespace.to_owned()) })
}

/// The Secret first; when the repository is refused the Secret goes again. Then it belongs to the repository.
async fn create(app: &App, secret: Option<&Secret>, manifests: &[Manifest]) -> Result<Vec<kube::api::DynamicObject>> {
    let mut written = Vec::new();
    for manifest in manifests {
        match manifest::send(app, manifest, How::Create, false).await {
            Ok(object) => written.push(object),
            Err(error) => {
                if let (Some(secret), false) = (secret, written.is_empty()) {
                    let api = app.within::<Secret>(&secret.namespace().unwrap_or_default());
                    let _ = api.delete(&secret.name_any(), &DeleteParams::default()).await;
                }
                return Err(error);
            }
        }
    }
    if let (Some(secret), Some(repo)) = (secret, written.last()) {
        let owner = OwnerReference {
            api_version: BackupRepo::api_version(&()).into_owned(),
            kind: BackupRepo::kind(&()).into_owned(),
            name: repo.name_any(),
            uid: repo.uid().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let api = app.within::<Secret>(&secret.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"ownerReferences": [owner]}});
        api.patch(&secret.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .doing(|| format!("secret/{} cannot be tied to its repository", secret.name_any()))?;
    }
    Ok(written)
}

async fn undo(app: &App, repo: &str, secret: Option<&Secret>) {
    let _ = app.everywhere::<BackupRepo>().delete(repo, &DeleteParams::default()).await;
    if let Some(secret) = secret {
        let api = app.within::<Secret>(&secret.namespace().unwrap_or_default());
        let _ = api.delete(&secret.name_any(), &DeleteParams::default()).await;
    }
}
