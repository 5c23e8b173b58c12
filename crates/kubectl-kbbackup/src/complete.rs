//! Completion through kubectl: started as `kubectl_complete-kbbackup` with the words after the plugin's name, the last of
//! which is being typed. One candidate per line, then `:<directive>`.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Namespace, storage::v1::StorageClass};
use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupPolicy, BackupRepo, Restore, StorageProvider};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, list_all},
    args::{Cli, Globals},
    error::Result,
    provider_flags::{FLAGS, ProviderFlag},
    rows,
    source::{self, Source},
};

/// Don't complete file names.
const NO_FILES: u8 = 4;
/// Let the shell complete file names.
const FILES: u8 = 0;
/// The longest a person waits for a candidate.
const PATIENCE: Duration = Duration::from_secs(2);

/// Don't put a blank behind the candidate.
const NO_SPACE: u8 = 2;

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Words(Vec<(String, String)>),
    Files,
    Named(Kind),
    /// `key=` of a storage provider.
    Parameter,
}

/// Objects whose names are candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Backup,
    Source,
    Workload,
    Policy,
    Repo,
    Restore,
    BackupOrRestore,
    Method,
    StorageClass,
    Provider,
    ActionSet,
    Namespace,
    Context,
}

/// The answer for `words`, as kubectl reads it.
pub(crate) fn run(words: &[OsString]) -> String {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (typed, before) = words.split_last().map_or((String::new(), &[][..]), |(last, before)| (last.clone(), before));
    let mut command = Cli::command();
    command.build();
    let (candidates, directive) = match wanted(&command, before, &typed) {
        Wanted::Words(words) => (words, NO_FILES),
        Wanted::Files => (Vec::new(), FILES),
        Wanted::Named(kind) => (look_up(kind, before), NO_FILES),
        Wanted::Parameter => (parameters(before), NO_FILES | NO_SPACE),
    };
    // `--flag=val` is completed as a whole word.
    let (prefix, part) = match typed.split_once('=') {
        Some((flag, part)) if flag.starts_with("--") => (format!("{flag}="), part.to_owned()),
        _ => (String::new(), typed),
    };
    let mut answer: String = candidates
        .into_iter()
        .filter(|(word, _)| word.starts_with(&part))
        .map(
            |(word, about)| {
                if about.is_empty() { format!("{prefix}{word}\n") } else { format!("{prefix}{word}\t{about}\n") }
            },
        )
        .collect();
    answer.push_str(&format!(":{directive}\n"));
    answer
}

/// Walks the words down the tree of commands and finds what can stand next.
fn wanted(root: &Command, before: &[String], typed: &str) -> Wanted {
    let mut command = root;
    let mut positionals = 0;
    let mut words = before.iter().peekable();
    let mut pending: Option<&Arg> = None;
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix("--") {
            if !flag.contains('=')
                && let Some(arg) = takes_value(command, |arg| arg.get_long() == Some(flag))
                && words.next().is_none()
            {
                pending = Some(arg);
            }
        } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().last()) {
            if let Some(arg) = takes_value(command, |arg| arg.get_short() == Some(short))
                && words.next().is_none()
            {
                pending = Some(arg);
            }
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
        } else {
            positionals += 1;
        }
    }
    if let Some(arg) = pending {
        return value_of(command, arg);
    }
    if let Some((flag, _)) = typed.split_once('=')
        && let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--"))
    {
        return value_of(command, arg);
    }
    if typed.starts_with('-') {
        return Wanted::Words(flags(command));
    }
    if command.has_subcommands() {
        let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        return Wanted::Words(visible.map(|sub| (sub.get_name().to_owned(), about(sub.get_about()))).collect());
    }
    positional(command, positionals)
}

fn takes_value(command: &Command, is: impl Fn(&Arg) -> bool) -> Option<&Arg> {
    let arg = command.get_arguments().find(|arg| is(arg))?;
    let value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set();
    value.then_some(arg)
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
    visible.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help())))).collect()
}

fn value_of(command: &Command, arg: &Arg) -> Wanted {
    let kind = match arg.get_id().as_str() {
        "namespace" | "from_namespace" | "into_namespace" | "operator_namespace" => Kind::Namespace,
        "param" if command.get_bin_name().is_some_and(|path| path.contains(" repo ")) => return Wanted::Parameter,
        "method" => Kind::Method,
        "storage_class" => Kind::StorageClass,
        "context" => Kind::Context,
        "repo" => Kind::Repo,
        "policy" => Kind::Policy,
        "provider" => Kind::Provider,
        "action_set" => Kind::ActionSet,
        "from" | "parent" => Kind::Backup,
        "source" if command.get_name() == "create" => Kind::Workload,
        "source" => Kind::Source,
        "kubeconfig" | "credential_file" | "certificate_authority" | "client_certificate" | "client_key" => {
            return Wanted::Files;
        }
        _ => {
            let values = arg.get_value_parser().possible_values().into_iter().flatten();
            return Wanted::Words(values.map(|value| (value.get_name().to_owned(), about(value.get_help()))).collect());
        }
    };
    Wanted::Named(kind)
}

/// What a word without a flag names, by command.
fn positional(command: &Command, place: usize) -> Wanted {
    let arg = command
        .get_positionals()
        .nth(place)
        .or_else(|| command.get_positionals().last().filter(|arg| matches!(arg.get_action(), ArgAction::Append)));
    let Some(arg) = arg else { return Wanted::Words(Vec::new()) };
    let values: Vec<(String, String)> = arg
        .get_value_parser()
        .possible_values()
        .into_iter()
        .flatten()
        .map(|value| (value.get_name().to_owned(), about(value.get_help())))
        .collect();
    if !values.is_empty() {
        return Wanted::Words(values);
    }
    let path = command.get_bin_name().unwrap_or_default().to_owned();
    let kind = match (path.split_whitespace().rev().nth(1).unwrap_or_default(), command.get_name()) {
        ("repo" | "policy", "create") | ("policy", "templates") | (_, "restore") => return Wanted::Words(Vec::new()),
        ("repo", "providers") => Kind::Provider,
        ("repo", _) => Kind::Repo,
        ("policy", "actionsets") => Kind::ActionSet,
        ("policy", _) => Kind::Policy,
        ("restores", _) => Kind::Restore,
        (_, "why") => Kind::BackupOrRestore,
        ("schedule", _) | (_, "backup" | "status" | "timeline" | "windows") => Kind::Source,
        _ => Kind::Backup,
    };
    Wanted::Named(kind)
}

/// Names from the cluster. Whatever goes wrong there are none, and nothing is printed.
fn look_up(kind: Kind, before: &[String]) -> Vec<(String, String)> {
    let globals = globals(before);
    if kind == Kind::Context {
        let file = match &globals.kubeconfig {
            Some(path) => kube::config::Kubeconfig::read_from(path),
            None => kube::config::Kubeconfig::read(),
        };
        return file
            .map(|file| file.contexts.into_iter().map(|context| (context.name, String::new())).collect())
            .unwrap_or_default();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, names(kind, &globals, before)).await });
    found.ok().and_then(Result::ok).unwrap_or_default()
}

/// The global flags among words that may not parse as a whole yet.
fn globals(before: &[String]) -> Globals {
    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        globals: Globals,
    }
    let mut kept = vec!["x".to_owned()];
    let known = Only::command();
    let mut words = before.iter();
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or(word);
        let arg = known.get_arguments().find(|arg| {
            arg.get_long().is_some_and(|long| name == format!("--{long}"))
                || arg.get_short().is_some_and(|short| name == format!("-{short}"))
        });
        let Some(arg) = arg else { continue };
        kept.push(word.clone());
        if !word.contains('=') && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
            kept.extend(words.next().cloned());
        }
    }
    Only::try_parse_from(kept).map(|only| only.globals).unwrap_or_default()
}

async fn names(kind: Kind, globals: &Globals, before: &[String]) -> Result<Vec<(String, String)>> {
    let app = App::connect(globals).await?;
    let all = ListParams::default;
    let plain = |name: String| (name, String::new());
    Ok(match kind {
        Kind::Backup => {
            let mut found = Vec::new();
            let about = |backup: &Backup| (backup.name_any(), super::commands::list::shown_status(backup));
            rows::each_page(&app, false, false, all(), |page| found.extend(page.iter().map(about))).await?;
            found
        }
        Kind::Restore => {
            list_all(&app.here::<Restore>(), all(), "restores").await?.iter().map(|one| plain(one.name_any())).collect()
        }
        Kind::BackupOrRestore => {
            let mut both = Box::pin(names(Kind::Backup, globals, before)).await?;
            let restores = Box::pin(names(Kind::Restore, globals, before)).await?;
            both.extend(restores.into_iter().map(|(name, about)| (format!("restore/{name}"), about)));
            both
        }
        Kind::Method => methods(&of_source(&source::policies(&app).await?, before)),
        Kind::StorageClass => list_all(&app.everywhere::<StorageClass>(), all(), "storage classes")
            .await?
            .iter()
            .map(|one| (one.name_any(), one.provisioner.clone()))
            .collect(),
        Kind::Policy => list_all(&app.here::<BackupPolicy>(), all(), "policies")
            .await?
            .iter()
            .map(|one| plain(one.name_any()))
            .collect(),
        Kind::Repo => list_all(&app.everywhere::<BackupRepo>(), all(), "repositories")
            .await?
            .iter()
            .map(|one| plain(one.name_any()))
            .collect(),
        Kind::Provider => list_all(&app.everywhere::<StorageProvider>(), all(), "providers")
            .await?
            .iter()
            .map(|one| plain(one.name_any()))
            .collect(),
        Kind::ActionSet => list_all(&app.everywhere::<ActionSet>(), all(), "action sets")
            .await?
            .iter()
            .map(|one| plain(one.name_any()))
            .collect(),
        Kind::Namespace => list_all(&app.everywhere::<Namespace>(), all(), "namespaces")
            .await?
            .iter()
            .map(|one| plain(one.name_any()))
            .collect(),
        Kind::Workload | Kind::Source => {
            let workloads = list_all(&app.here::<StatefulSet>(), all(), "statefulsets").await?;
            let mut found: Vec<_> =
                workloads.iter().map(|one| plain(format!("statefulset/{}", one.name_any()))).collect();
            if kind == Kind::Source {
                let policies = source::policies(&app).await.unwrap_or_default();
                found.extend(policies.iter().map(|one| (format!("policy/{}", one.name_any()), source::of_policy(one))));
            }
            found
        }
        Kind::Context => Vec::new(),
    })
}

/// The policies of the source, or with the name, that was typed; all of them when there is none.
fn of_source<'a>(all: &'a [BackupPolicy], before: &[String]) -> Vec<&'a BackupPolicy> {
    let typed = before.iter().filter(|word| !word.starts_with('-')).filter_map(|word| Source::parse(word).ok());
    let mut found = typed.map(|typed| source::matching(all, &typed, None)).filter(|found| !found.is_empty());
    found.next().unwrap_or_else(|| all.iter().collect())
}

/// Methods of policies, each once, with the policies that have it.
fn methods(policies: &[&BackupPolicy]) -> Vec<(String, String)> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for policy in policies {
        for method in &policy.spec.backup_methods {
            found.entry(method.name.clone()).or_default().push(policy.name_any());
        }
    }
    found.into_iter().map(|(method, policies)| (method, policies.join(", "))).collect()
}

/// Parameters of the provider that was named, as `key=`; of all shipped ones when none was.
fn parameters(before: &[String]) -> Vec<(String, String)> {
    let given = before.iter().enumerate().find_map(|(at, word)| match word.split_once('=') {
        Some(("--provider", name)) => Some(name),
        _ if word == "--provider" => before.get(at + 1).map(String::as_str),
        _ => None,
    });
    let of = |flag: &&ProviderFlag| given.is_none_or(|name| flag.providers.split(", ").any(|one| one == name));
    FLAGS.iter().filter(of).map(|flag| (format!("{}=", flag.parameter), flag.description.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(words: &[&str]) -> Wanted {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (typed, before) = words.split_last().unwrap();
        let mut command = Cli::command();
        command.build();
        wanted(&command, before, typed)
    }

    fn has(wanted: &Wanted, word: &str) -> bool {
        matches!(wanted, Wanted::Words(words) if words.iter().any(|(known, _)| known == word))
    }

    #[test]
    fn commands_flags_and_values() {
        assert!(has(&ask(&[""]), "restore"));
        assert!(has(&ask(&["repo", ""]), "create"));
        assert!(has(&ask(&["backup", "--"]), "--wait"));
        assert!(has(&ask(&["list", "-o", ""]), "json"));
        assert!(has(&ask(&["completion", ""]), "bash"));
    }

    #[test]
    fn names_of_the_right_kind() {
        assert_eq!(ask(&["describe", ""]), Wanted::Named(Kind::Backup));
        assert_eq!(ask(&["describe", "one", ""]), Wanted::Named(Kind::Backup));
        assert_eq!(ask(&["-n", "demo", "backup", ""]), Wanted::Named(Kind::Source));
        assert_eq!(ask(&["restore", "new", "--from", ""]), Wanted::Named(Kind::Backup));
        assert_eq!(ask(&["repo", "check", ""]), Wanted::Named(Kind::Repo));
        assert_eq!(ask(&["policy", "create", "--for", ""]), Wanted::Named(Kind::Workload));
        assert_eq!(ask(&["list", "-n", ""]), Wanted::Named(Kind::Namespace));
        assert_eq!(ask(&["repo", "create", "--credential-file", ""]), Wanted::Files);
        assert_eq!(ask(&["repo", "import", ""]), Wanted::Named(Kind::Repo));
        assert_eq!(ask(&["repo", "import", "--into-namespace", ""]), Wanted::Named(Kind::Namespace));
        assert_eq!(ask(&["verify", ""]), Wanted::Named(Kind::Backup));
        assert_eq!(ask(&["why", ""]), Wanted::Named(Kind::BackupOrRestore));
        assert_eq!(ask(&["backup", "statefulset/pg", "--method", ""]), Wanted::Named(Kind::Method));
        assert_eq!(ask(&["repo", "create", "--param", ""]), Wanted::Parameter);
    }

    #[test]
    fn parameters_are_those_of_the_provider_and_want_a_value() {
        let answer = run(&["repo", "create", "--provider", "s3", "--param", "buck"].map(Into::into));
        assert!(answer.starts_with("bucket=\t"), "{answer}");
        assert!(answer.ends_with(":6\n"), "{answer}");
        let nfs = parameters(&["--provider=nfs".to_owned()]);
        assert!(nfs.iter().any(|(key, _)| key == "nfsServer=") && !nfs.iter().any(|(key, _)| key == "bucket="));
    }

    #[test]
    fn methods_are_those_of_the_source_and_each_is_one_candidate() {
        let policy = |name: &str| -> BackupPolicy {
            let methods = serde_json::json!([{"name": "full"}, {"name": "wal"}]);
            serde_json::from_value(serde_json::json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1",
                "kind": "BackupPolicy", "metadata": {"name": name}, "spec": {"backupMethods": methods}}))
            .unwrap()
        };
        let all = [policy("a"), policy("b")];
        let typed = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let found = methods(&of_source(&all, &typed(&["backup", "unknown"])));
        assert_eq!(found[0], ("full".to_owned(), "a, b".to_owned()));
        assert_eq!(found.len(), 2);
        for chosen in [&["backup", "policy/b"][..], &["schedule", "create", "b", "--cron", "@daily"]] {
            assert_eq!(methods(&of_source(&all, &typed(chosen)))[0].1, "b", "{chosen:?}");
        }
    }

    #[test]
    fn the_answer_ends_with_a_directive() {
        let answer = run(&["insta".into()]);
        assert!(answer.starts_with("install\t"), "{answer}");
        assert!(answer.ends_with(":4\n"), "{answer}");
    }
}
