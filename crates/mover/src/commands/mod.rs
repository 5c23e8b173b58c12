//! The subcommands: one table, one file each.

mod archiver;
mod catalogue;
mod check;
mod completion;
mod delete_backup;
mod install;
mod list;
mod mysql;
pub(crate) mod once;
mod postgres;
mod pull;
pub(crate) mod push;
mod record;
mod redis;
pub(crate) mod remove;
mod report;
mod seal;
mod serve;
mod stat;
mod verify;

use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::pin::Pin;

use kbbackup_core::contract::exit;

use crate::args::{Flag, GLOBAL, Parsed, Takes, flag, parse};
use crate::error::{Error, Result};
use crate::repo::Repo;

type Run = fn(Context) -> Pin<Box<dyn Future<Output = Result<()>>>>;

struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    run: Run,
}

/// What a command works with.
pub(crate) struct Context {
    pub(crate) args: Parsed,
}

impl Context {
    pub(crate) fn conf(&self) -> Option<&str> {
        self.args.text("conf")
    }

    /// # Errors
    /// A setting that is missing or wrong.
    pub(crate) fn repo(&self) -> Result<Repo> {
        Repo::open(self.conf())
    }
}

/// Prints a result.
///
/// # Errors
/// When standard output is full or closed.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::file("write", Path::new("/dev/stdout"), &error))
}

macro_rules! command {
    ($name:literal, $usage:literal, $about:literal, $flags:expr, $run:path) => {
        Command { name: $name, usage: $usage, about: $about, flags: $flags, run: |context| Box::pin($run(context)) }
    };
}

const VERSION: &[Flag] = &[flag("verbose", Some('v'), Takes::Nothing, "print more")];

const COMMANDS: &[Command] = &[
    command!("push", "LPATH RPATH", "store a file, or standard input (-)", push::FLAGS, push::run),
    command!("pull", "RPATH LPATH", "fetch an object into a file, or to standard output (-)", pull::FLAGS, pull::run),
    command!("list", "RPATH", "list a directory or a file", list::FLAGS, list::run),
    command!("stat", "RPATH", "sum up size and number of what lies below", stat::FLAGS, stat::run),
    command!("rm", "RPATH", "remove a file, or with -r a directory", remove::FLAGS, remove::rm),
    command!("mkdir", "RPATH", "make a directory and its parents", &[], remove::mkdir),
    command!("rmdir", "RPATH", "remove an empty directory", &[], remove::rmdir),
    command!("getconf", "SECTION.KEY", "print a value of the configuration", &[], getconf),
    command!("version", "", "print the version", VERSION, version),
    command!("completion", "SHELL", "print a script that completes command lines", &[], completion::run),
    command!("install", "DIR", "copy this program and its certificates into a folder", &[], install::run),
    command!("check", "[PREFIX]", "check that the repository can be used", check::FLAGS, check::run),
    command!("catalogue", "[PREFIX]", "tell which backups lie in the repository", catalogue::FLAGS, catalogue::run),
    command!("report", "", "side-car: report the script's result when the pod ends", report::FLAGS, report::run),
    command!(
        "record",
        "",
        "side-car: keep the Backup object of an archiver in the repository",
        record::FLAGS,
        record::run
    ),
    command!("seal", "", "close a backup with its manifest and seal", seal::FLAGS, seal::run),
    command!("verify", "PATH", "compare a sealed backup with its manifest", verify::FLAGS, verify::run),
    command!("delete-backup", "PATH", "remove a backup and the empty directories above it", &[], delete_backup::run),
    command!(
        "mysql",
        "archive | fetch-binlogs FOLDER",
        "stream a server's log into the repository, or fetch what a restore replays",
        mysql::FLAGS,
        mysql::run
    ),
    command!(
        "postgres",
        "archive | fetch-wal NAME TARGET",
        "stream a server's log into the repository, or give it back for recovery",
        postgres::FLAGS,
        postgres::run
    ),
    command!(
        "redis",
        "archive | describe TARGET | fetch-aof TARGET FOLDER",
        "follow a server's append-only file into the repository, or fetch what a restore reads",
        redis::FLAGS,
        redis::run
    ),
    command!("serve", "", "serve a directory as an S3 endpoint", serve::FLAGS, serve::run),
];

/// The exit code of whatever goes wrong with a command line.
pub(crate) fn failed(name: Option<&str>, args: &[String]) -> i32 {
    if name == Some("postgres") && postgres::serves_recovery(args) { exit::ENDS_RECOVERY } else { exit::FAILED }
}

/// Runs a command line.
///
/// # Errors
/// Whatever the command says; the text goes behind `Error: `.
pub(crate) async fn run(name: Option<String>, args: Vec<String>) -> Result<()> {
    let Some(name) = name else {
        parse(args, &[])?;
        return print(&usage());
    };
    if name == "help" {
        let topic = args.iter().find_map(|word| COMMANDS.iter().find(|command| command.name == word));
        return print(&topic.map_or_else(usage, help));
    }
    let command = COMMANDS
        .iter()
        .find(|command| command.name == name)
        .ok_or_else(|| Error::other(format!("unknown command {name:?} for \"datasafed\"")))?;
    let args = parse(args, command.flags)?;
    if args.is_set("help") {
        return print(&help(command));
    }
    (command.run)(Context { args }).await
}

fn usage() -> String {
    let mut text =
        "Moves bytes between pipes and backup repositories.\n\nUsage:\n  datasafed [flags] COMMAND\n\nCommands:\n"
            .to_owned();
    for command in COMMANDS {
        text += &format!("  {:14} {}\n", command.name, command.about);
    }
    text + "\nFlags:\n" + &flags(GLOBAL) + "\n\"datasafed COMMAND --help\" says more about a command.\n"
}

fn help(command: &Command) -> String {
    let Command { name, usage, about, flags: own, .. } = command;
    let mut text = format!("{about}\n\nUsage:\n  datasafed {name} [flags] {usage}\n");
    if !own.is_empty() {
        text += &format!("\nFlags:\n{}", flags(own));
    }
    text
}

fn flags(flags: &[Flag]) -> String {
    let mut text = String::new();
    for flag in flags {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        text += &format!("  {short}--{:26} {}\n", flag.long, flag.help);
    }
    text
}

async fn getconf(context: Context) -> Result<()> {
    let [item] = context.args.exactly()?;
    let repo = context.repo()?;
    let (section, key) =
        item.split_once('.').ok_or_else(|| Error::other(format!("invalid config item name {item:?}")))?;
    let value = repo.ini.get(section, key).ok_or_else(|| Error::other(format!("config item {item:?} not found")))?;
    print(&format!("{value}\n"))
}

async fn version(context: Context) -> Result<()> {
    let mut text = format!("datasafed: {}\n", env!("CARGO_PKG_VERSION"));
    if context.args.is_set("verbose") {
        let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
        for (name, value) in [
            ("BuildDate", "unknown"),
            ("GitCommit", "unknown"),
            ("GitTag", env!("CARGO_PKG_VERSION")),
            ("GoVersion", "none, this is kbbackup-mover"),
            ("Compiler", "rustc"),
            ("Platform", platform.as_str()),
        ] {
            text += &format!("  {name}: {value}\n");
        }
    }
    print(&text)
}
