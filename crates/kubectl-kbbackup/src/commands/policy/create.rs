//! `policy create`: looks at a StatefulSet and writes the policy that fits it.

use clap::Args;
use k8s_openapi::api::apps::v1::StatefulSet;
use kbbackup_api::v1alpha1::{ActionSet, Availability, BackupPolicy, ConnectionCredential, EncryptionAlgorithm};
use kube::{
    ResourceExt,
    api::{DynamicObject, ListParams},
};

use super::{secrets, tell};
use crate::{
    app::{self, App, check_name, list_all},
    args::{WriteArgs, words},
    ask,
    build::policy::{self as build, Planned, Wish},
    commands::repo,
    detect::{self, DataVolume, Engine, Found, Unknown},
    error::{CliError, Result},
    exit::Exit,
    manifest::{self, How, Manifest},
    output::human,
    source::Source,
    ui::Ui,
};

/// Find out how a StatefulSet is backed up, and write that down as a BackupPolicy
///
/// Engine, port, login and data volume are read from the pod template and shown. Nothing else is kept anywhere: the
/// policy is an ordinary object, and --dry-run prints it.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy create --for statefulset/pg
  kubectl kbbackup policy create pg-nightly --for statefulset/pg --repo s3-main --encrypt
  kubectl kbbackup policy create --for statefulset/pg --dry-run -o yaml")]
pub(crate) struct CreateArgs {
    /// Name of the policy [default: that of the StatefulSet]
    pub name: Option<String>,

    /// What to protect, as in statefulset/pg
    #[arg(long = "for", value_name = "STATEFULSET")]
    pub source: Option<String>,

    /// Engine, when it is not recognised: postgresql, mysql, …
    #[arg(long)]
    pub engine: Option<String>,

    /// Container of the engine, when it is not recognised
    #[arg(long)]
    pub container: Option<String>,

    /// Name of the backup method, with --action-set
    #[arg(long, value_name = "NAME", requires = "action_set")]
    pub method: Option<String>,

    /// ActionSet that makes the backup, instead of the engine's own
    #[arg(long, value_name = "NAME")]
    pub action_set: Option<String>,

    /// Volume of the pod that holds the data, as NAME or NAME:PATH; may be repeated
    #[arg(long, value_name = "NAME[:PATH]", value_delimiter = ',')]
    pub volumes: Vec<String>,

    /// Secret with user and password of the database
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,

    /// Key of the user in that Secret
    #[arg(long, default_value = ConnectionCredential::USERNAME_KEY, requires = "secret", value_name = "KEY")]
    pub username_key: String,

    /// Key of the password in that Secret
    #[arg(long, default_value = ConnectionCredential::PASSWORD_KEY, requires = "secret", value_name = "KEY")]
    pub password_key: String,

    /// Repository to store into [default: the default one]
    #[arg(long, value_name = "NAME")]
    pub repo: Option<String>,

    /// Directory below the repository and namespace [default: the StatefulSet's name and the start of its UID]
    #[arg(long, value_name = "PATH")]
    pub path_prefix: Option<String>,

    /// Make it the default policy of its source
    #[arg(long)]
    pub default: bool,

    /// How often a failed worker is tried again, 0 to 10
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=10))]
    pub backoff_limit: Option<i32>,

    /// Encrypt with a new pass phrase, kept in a new Secret
    #[arg(long, conflicts_with = "passphrase_secret")]
    pub encrypt: bool,

    /// Encrypt with the pass phrase in this Secret
    #[arg(long, value_name = "NAME/KEY")]
    pub passphrase_secret: Option<String>,

    /// age (authenticated), or AES-128-CFB, AES-192-CFB, AES-256-CFB for exchange with KubeBlocks [default: age]
    #[arg(long, value_name = "NAME", value_parser = words::<EncryptionAlgorithm>(EncryptionAlgorithm::WORDS), hide_possible_values = true)]
    pub encryption_algorithm: Option<EncryptionAlgorithm>,

    #[command(flatten)]
    pub write: WriteArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &CreateArgs) -> Result<Exit> {
    let source = match &args.source {
        Some(source) => source.clone(),
        None => ask_source(ui, app).await?,
    };
    let name = match Source::parse(&source)? {
        Source::Workload(name) | Source::Any(name) => name,
        Source::Policy(_) => {
            return Err(CliError::usage("--for names a policy", "name what it protects: statefulset/NAME"));
        }
    };
    let planned = plan(ui, app, &name, args).await?;
    if manifest::previewed(app, ui, &planned.manifests()?, How::Create, &args.write).await? {
        return Ok(Exit::Done);
    }
    manifest::announce(ui, &write(app, &planned).await?, "created", args.write.output)?;
    ui.equivalent();
    ui.hint(&format!("kubectl kbbackup backup statefulset/{name}{} --wait", app.namespace_flag()));
    Ok(Exit::Done)
}

impl Planned {
    /// In the order of creation.
    pub(crate) fn manifests(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for secret in &self.secrets {
            manifests.push(Manifest::of(secret)?);
        }
        manifests.push(Manifest::of(&self.policy)?);
        Ok(manifests)
    }
}

/// Creates what was planned. A Secret that is there already from an earlier try is kept.
pub(crate) async fn write(app: &App, planned: &Planned) -> Result<Vec<DynamicObject>> {
    let mut written = Vec::new();
    for manifest in planned.manifests()? {
        let how = if manifest.kind() == "Secret" { How::Apply } else { How::Create };
        written.push(manifest::send(app, &manifest, how, false).await?);
    }
    Ok(written)
}

/// Looks at the StatefulSet, says what was found, checks everything that can be checked, and builds the objects.
pub(crate) async fn plan(ui: &Ui, app: &App, workload_name: &str, args: &CreateArgs) -> Result<Planned> {
    let workload = workload(app, workload_name).await?;
    let engine = args.engine.as_deref().map(engine).transpose()?;
    let found = detect::detect(&workload, engine, args.container.as_deref())
        .map_err(|unknown| not_recognised(workload_name, &unknown))?;
    tell::tell(ui, workload_name, &found);

    let name = args.name.clone().unwrap_or_else(|| workload_name.to_owned());
    check_name("policy", &name)?;
    if app.here::<BackupPolicy>().get_opt(&name).await.is_ok_and(|policy| policy.is_some()) {
        return Err(CliError::usage(format!("backuppolicy/{name} exists already"), "give the new one another name")
            .hint(format!("kubectl kbbackup policy describe {name}")));
    }
    let methods = methods(app, &found, args).await?;
    let repo = repo::resolve(app, args.repo.as_deref()).await?;
    let (encryption, passphrase) = secrets::encryption(app, &name, args).await?;
    let credential = secrets::credential(app, args).await?;
    let wish = Wish {
        name,
        methods,
        // The default repository is left open, so that it may change later.
        repo: args.repo.clone(),
        path_prefix: args.path_prefix.clone(),
        backoff_limit: args.backoff_limit,
        default: args.default,
        volumes: volumes(&workload, &found, args)?,
        credential,
        encryption,
    };
    let mut planned = build::policy(&workload, &found, &wish)?;
    planned.secrets.extend(passphrase);
    let methods: Vec<&str> = wish.methods.iter().map(|(name, _)| name.as_str()).collect();
    ui.say(&format!("  {:<10} {} into backuprepo/{}", "method", methods.join(", "), repo.name_any()));
    for note in &planned.notes {
        ui.warn(note);
    }
    Ok(planned)
}

async fn workload(app: &App, name: &str) -> Result<StatefulSet> {
    app::get(&app.here::<StatefulSet>(), &format!("statefulset/{name}")).await.map_err(|error| {
        if error.exit == Exit::NotFound {
            error.hint(format!("kubectl get statefulsets{}", app.namespace_flag()))
        } else {
            error
        }
    })
}

fn engine(name: &str) -> Result<&'static Engine> {
    detect::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = detect::ENGINES.iter().map(|engine| engine.name).collect();
        CliError::usage(format!("engine {name} is not known"), format!("there is {}", known.join(", ")))
    })
}

fn not_recognised(workload: &str, unknown: &Unknown) -> CliError {
    let why = match unknown {
        Unknown::Empty => "its pod template has no containers".to_owned(),
        Unknown::Engine { images } => {
            format!("no container looks like a database that is known here (images: {})", images.join(", "))
        }
    };
    CliError::usage(format!("the engine of statefulset/{workload} was not recognised"), why).hint(format!(
        "kubectl kbbackup policy create --for statefulset/{workload} --engine postgresql --container NAME"
    ))
}

/// The methods of the engine whose ActionSets are installed, or the one that was named.
async fn methods(app: &App, found: &Found, args: &CreateArgs) -> Result<Vec<(String, String)>> {
    let all = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let usable = |name: &str| {
        all.iter().any(|set| {
            set.name_any() == name
                && set.status.as_ref().and_then(|status| status.phase) != Some(Availability::Unavailable)
        })
    };
    if let Some(action_set) = &args.action_set {
        if !all.iter().any(|set| set.name_any() == *action_set) {
            return Err(CliError::not_found(format!("actionset/{action_set} does not exist"), names(&all)));
        }
        return Ok(vec![(args.method.clone().unwrap_or_else(|| "full".to_owned()), action_set.clone())]);
    }
    let methods: Vec<(String, String)> = found
        .engine
        .methods
        .iter()
        .filter(|method| usable(method.action_set))
        .map(|method| (method.name.to_owned(), method.action_set.to_owned()))
        .collect();
    if methods.is_empty() {
        let wanted: Vec<&str> = found.engine.methods.iter().map(|method| method.action_set).collect();
        return Err(CliError::missing(
            format!("no action set for {} is usable in this cluster", found.engine.title),
            format!("looked for {}; {}", wanted.join(", "), names(&all)),
        )
        .hint("kubectl kbbackup install")
        .hint("kubectl get actionsets"));
    }
    Ok(methods)
}

fn names(all: &[ActionSet]) -> String {
    if all.is_empty() {
        return "none are installed".to_owned();
    }
    format!("there is {}", all.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", "))
}

fn volumes(workload: &StatefulSet, found: &Found, args: &CreateArgs) -> Result<Vec<DataVolume>> {
    let mounts = detect::persistent_mounts(workload, &found.container);
    args.volumes
        .iter()
        .map(|text| {
            let (name, path) = match text.split_once(':') {
                Some((name, path)) => (name, Some(path.to_owned())),
                None => (text.as_str(), None),
            };
            let mount = mounts.iter().find(|mount| mount.name == name);
            match path.or_else(|| mount.map(|mount| mount.mount_path.clone())) {
                Some(mount_path) => Ok(DataVolume { name: name.to_owned(), mount_path }),
                None => Err(CliError::usage(
                    format!("volume {name} is not mounted in container {}", found.container),
                    format!(
                        "there is {}",
                        mounts.iter().map(|mount| mount.name.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                )),
            }
        })
        .collect()
}

async fn ask_source(ui: &Ui, app: &App) -> Result<String> {
    let all = list_all(&app.here::<StatefulSet>(), ListParams::default(), "statefulsets").await?;
    let mut known: Vec<(String, String)> = Vec::new();
    for workload in &all {
        if let Ok(found) = detect::detect(workload, None, None) {
            let replicas = workload.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let line = format!(
                "{}  {} · {}",
                workload.name_any(),
                found.engine.title,
                human::count(replicas as usize, "pod", "pods")
            );
            known.push((workload.name_any(), line));
        }
    }
    let names: Vec<String> = known.iter().map(|(name, _)| format!("statefulset/{name}")).collect();
    if !ui.may_ask || known.is_empty() {
        return Err(ask::needed("--for", "what to protect", &names));
    }
    let lines: Vec<String> = known.into_iter().map(|(_, line)| line).collect();
    let source = names[ask::select(ui, "Protect", &lines, 0)?].clone();
    ui.answered("--for", &source);
    Ok(source)
}
