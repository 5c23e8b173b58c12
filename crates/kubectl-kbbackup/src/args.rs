//! The command line: global flags, groups of flags that several commands share, and the tree of commands.

use std::{str::FromStr, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    commands::{
        backup::BackupArgs,
        cancel::CancelArgs,
        completion::CompletionArgs,
        delete::DeleteArgs,
        describe::DescribeArgs,
        doctor::DoctorArgs,
        install::{InstallArgs, upgrade::UpgradeArgs},
        list::ListArgs,
        logs::LogsArgs,
        policy::PolicyCommand,
        repo::RepoCommand,
        report::ReportArgs,
        restore::RestoreArgs,
        restores::RestoresCommand,
        schedule::ScheduleCommand,
        status::StatusArgs,
        timeline::TimelineArgs,
        uninstall::UninstallArgs,
        update::UpdateArgs,
        verify::VerifyArgs,
        version::VersionArgs,
        why::WhyArgs,
        windows::WindowsArgs,
    },
    output::Format,
};

const FIRST_STEPS: &str = "\
First steps:
  kubectl kbbackup install                                  the operator and a first repository
  kubectl kbbackup backup statefulset/pg --wait             back up a database
  kubectl kbbackup list                                     what there is
  kubectl kbbackup restore pg-copy --from BACKUP --wait     bring it back, as a running database
  kubectl kbbackup doctor                                   what is wrong";

/// Back up and restore databases on Kubernetes
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-kbbackup",
    bin_name = "kubectl kbbackup",
    version,
    after_help = FIRST_STEPS,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Install(InstallArgs),
    Upgrade(UpgradeArgs),
    Uninstall(UninstallArgs),
    #[command(subcommand, alias = "repos", alias = "backuprepo")]
    Repo(RepoCommand),
    #[command(subcommand, alias = "policies", alias = "bp")]
    Policy(PolicyCommand),
    #[command(alias = "create")]
    Backup(Box<BackupArgs>),
    #[command(visible_alias = "ls", alias = "get")]
    List(ListArgs),
    #[command(visible_alias = "desc")]
    Describe(DescribeArgs),
    #[command(alias = "log")]
    Logs(LogsArgs),
    Verify(VerifyArgs),
    #[command(alias = "explain")]
    Why(WhyArgs),
    Update(UpdateArgs),
    Cancel(CancelArgs),
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    Restore(Box<RestoreArgs>),
    #[command(subcommand)]
    Restores(RestoresCommand),
    #[command(subcommand, alias = "schedules")]
    Schedule(ScheduleCommand),
    #[command(alias = "recoverable")]
    Windows(WindowsArgs),
    Timeline(TimelineArgs),
    Status(StatusArgs),
    Report(ReportArgs),
    Doctor(DoctorArgs),
    Version(VersionArgs),
    Completion(CompletionArgs),
}

/// Flags of every command. Those of kubectl mean what they mean in kubectl.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Globals {
    /// Namespace of the database and its backups [default: that of the context]
    #[arg(short, long, global = true, value_name = "NS", help_heading = "Global options")]
    pub namespace: Option<String>,

    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,

    /// Path of the kubeconfig
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<std::path::PathBuf>,

    /// Never ask; a missing answer is an error
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_input: bool,

    /// Colours: auto, always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub color: Color,

    /// Show requests from 6 on
    #[arg(short = 'v', long, global = true, default_value_t = 0, value_name = "0-9", hide_default_value = true, help_heading = "Global options", value_parser = clap::value_parser!(u8).range(0..=10))]
    pub verbosity: u8,

    /// Entry of the kubeconfig's clusters to use; never a database cluster
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true, help_heading = CONNECTION)]
    pub cluster: Option<String>,

    /// Entry of the kubeconfig's users to use
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true, help_heading = CONNECTION)]
    pub user: Option<String>,

    /// Address of the API server
    #[arg(short, long, global = true, value_name = "URL", hide_short_help = true, help_heading = CONNECTION)]
    pub server: Option<String>,

    /// Bearer token
    #[arg(long, global = true, value_name = "TOKEN", hide_short_help = true, help_heading = CONNECTION)]
    pub token: Option<String>,

    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER", hide_short_help = true, help_heading = CONNECTION)]
    pub as_user: Option<String>,

    /// Group to act as; may be repeated
    #[arg(long, global = true, value_name = "GROUP", hide_short_help = true, help_heading = CONNECTION)]
    pub as_group: Vec<String>,

    /// UID to act as
    #[arg(long, global = true, value_name = "UID", hide_short_help = true, help_heading = CONNECTION)]
    pub as_uid: Option<String>,

    /// File with the certificate authority of the API server
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, help_heading = CONNECTION)]
    pub certificate_authority: Option<String>,

    /// File with the client's certificate
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, help_heading = CONNECTION)]
    pub client_certificate: Option<String>,

    /// File with the client's key
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, help_heading = CONNECTION)]
    pub client_key: Option<String>,

    /// Don't check the API server's certificate
    #[arg(long, global = true, hide_short_help = true, help_heading = CONNECTION)]
    pub insecure_skip_tls_verify: bool,

    /// Name expected in the API server's certificate
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true, help_heading = CONNECTION)]
    pub tls_server_name: Option<String>,

    /// Longest wait for one request, such as 30s; 0 is no limit
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, hide_short_help = true, help_heading = CONNECTION)]
    pub request_timeout: Option<Duration>,

    /// Namespace of the operator [default: found in the cluster]
    #[arg(long, global = true, env = "KBBACKUP_OPERATOR_NAMESPACE", hide_env = true, value_name = "NS", hide_short_help = true, help_heading = CONNECTION)]
    pub operator_namespace: Option<String>,

    /// Name under which writes are recorded
    #[arg(long, global = true, default_value = crate::app::FIELD_MANAGER, value_name = "NAME", hide_short_help = true, help_heading = CONNECTION)]
    pub field_manager: String,
}

const CONNECTION: &str = "Connection (as in kubectl)";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// How to show what was found.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// table, wide, json, yaml or name
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        env = "KBBACKUP_OUTPUT",
        hide_env = true,
        hide_possible_values = true
    )]
    pub output: Option<Format>,

    /// Keep managed fields in json and yaml
    #[arg(long, hide_short_help = true)]
    pub show_managed_fields: bool,
}

impl OutputArgs {
    pub(crate) fn format(&self) -> Format {
        self.output.unwrap_or(Format::Table)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Write.
    #[default]
    None,
    /// Check, print what would be written, send nothing.
    Client,
    /// Let the server check and default it, and keep nothing.
    Server,
}

/// How to write.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WriteArgs {
    /// Print the manifests instead of writing: client, or server (checked and defaulted there)
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client", hide_default_value = true, hide_possible_values = true, value_name = "WHERE")]
    pub dry_run: DryRun,

    /// Print the written objects: yaml, json or name
    #[arg(short, long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<Format>,
}

impl WriteArgs {
    /// Whether standard output is for a program, which wants the objects alone.
    pub(crate) fn is_for_program(&self) -> bool {
        self.output.is_some_and(Format::is_object)
    }

    /// # Errors
    /// When a log is to go where the objects go.
    pub(crate) fn without_logs(&self, follow_logs: bool) -> crate::error::Result<()> {
        if follow_logs && self.is_for_program() {
            let why = "the log and the written object would be mixed on standard output";
            return Err(
                crate::error::CliError::usage("--follow-logs cannot be given with -o", why).hint("add --wait instead")
            );
        }
        Ok(())
    }
}

/// How to wait for the end of what was started.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WaitArgs {
    /// Follow it to its end and exit with its result
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub wait: Option<bool>,

    /// Stop waiting after this time, such as 30m; 0 is no limit
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

impl WaitArgs {
    /// The limit of a command that has one of its own.
    pub(crate) fn limit_or(&self, usual: Duration) -> Option<Duration> {
        Some(self.timeout.unwrap_or(usual)).filter(|limit| !limit.is_zero())
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.timeout.filter(|limit| !limit.is_zero())
    }
}

/// Which objects to list.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SelectArgs {
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
}

impl SelectArgs {
    /// # Errors
    /// When there are names as well, which are of one namespace and need no labels.
    pub(crate) fn beside(&self, names: &[String]) -> crate::error::Result<()> {
        let flag = if self.all_namespaces { "--all-namespaces" } else { "--selector" };
        if names.is_empty() || (!self.all_namespaces && self.selector.is_none()) {
            return Ok(());
        }
        let why = "what is named is of one namespace, and nothing is selected";
        Err(crate::error::CliError::usage(format!("{flag} cannot be given with names"), why))
    }
}

/// `30s`, `5m`, `2h`, `1h30m`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| "not a time such as 30s, 5m or 1h30m".to_owned())?;
    Duration::try_from(span).map_err(|_| "a negative time makes no sense here".to_owned())
}

/// One of the words of an enum of the API; they are known to completion and told in errors.
pub(crate) fn words<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse::<T>())
}

/// `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not of the form key=value".to_owned()),
    }
}

/// A retention period such as `7d`, checked with the operator's own rule.
pub(crate) fn retention(text: &str) -> Result<String, String> {
    kbbackup_core::retention::RetentionPeriod::parse(text).map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_limit_is_not_the_usual_one() {
        let wait = |timeout: Option<u64>| WaitArgs { timeout: timeout.map(Duration::from_secs), ..WaitArgs::default() };
        let limit = |timeout| wait(timeout).limit_or(Duration::from_secs(300)).map(|limit| limit.as_secs());
        assert_eq!([limit(None), limit(Some(0)), limit(Some(7))], [Some(300), None, Some(7)]);
    }

    #[test]
    fn durations_are_read_as_kubectl_does() {
        for (text, seconds) in [("0", 0), ("30", 30), ("30s", 30), ("5m", 300), ("1h30m", 5400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["-5m", "soon", "5 parsecs", ""] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_dry_run_means_the_client() {
        let cli = Cli::try_parse_from(["kubectl-kbbackup", "backup", "statefulset/pg", "--dry-run"]).unwrap();
        let Command::Backup(args) = cli.command else { panic!("not a backup") };
        assert_eq!(args.write.dry_run, DryRun::Client);
    }

    #[test]
    fn global_flags_may_stand_behind_the_command() {
        let cli =
            Cli::try_parse_from(["kubectl-kbbackup", "list", "-n", "demo", "--as=joe", "--as-group", "ops"]).unwrap();
        assert_eq!(cli.globals.namespace.as_deref(), Some("demo"));
        assert_eq!(cli.globals.as_user.as_deref(), Some("joe"));
        assert_eq!(cli.globals.as_group, ["ops"]);
    }
}
