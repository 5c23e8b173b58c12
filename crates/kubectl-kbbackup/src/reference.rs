//! `REFERENCE.md` and the manual pages, written from the definitions of the commands.
//!
//! `UPDATE_MANIFESTS=1 cargo test -p kubectl-kbbackup is_that_of_the_table` writes them; without it the test compares.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::Cli;

/// The tree with everything that clap adds to it, except what it adds to every command.
fn tree() -> Command {
    let mut root = Cli::command();
    root.build();
    root
}

/// Commands with their words, in the order of the help. Those with subcommands come before them.
fn walk<'a>(command: &'a Command, words: &str, visit: &mut dyn FnMut(&str, &'a Command)) {
    visit(words, command);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        walk(sub, &format!("{words} {}", sub.get_name()), visit);
    }
}

fn reference() -> String {
    let root = tree();
    let mut text = String::from(
        "# Reference of kubectl kbbackup\n\n\
         Written by `cargo xtask codegen` from the definitions of the commands. Every command has `--help`, and every\n\
         flag of *Global options* may stand on each of them.\n\n",
    );
    walk(&root, "kubectl kbbackup", &mut |words, _| {
        let depth = words.split(' ').count() - 2;
        let indent = "  ".repeat(depth);
        let _ = writeln!(text, "{indent}- [`{words}`](#{})", words.replace(' ', "-"));
    });
    walk(&root, "kubectl kbbackup", &mut |words, command| {
        text.push_str(&section(words, command, words == "kubectl kbbackup"));
    });
    text
}

fn section(words: &str, command: &Command, root: bool) -> String {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let mut text = format!("\n## {words}\n\n{about}\n");
    let aliases: Vec<String> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        let _ = writeln!(text, "\nAlso: {}", aliases.join(", "));
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(text, "\n```text\n{}\n```", usage.trim());
    let shown = |arg: &&Arg| !arg.is_hide_set() && (root || !arg.is_global_set()) && !is_clap_s(arg);
    let args: Vec<&Arg> = command.get_positionals().filter(shown).collect();
    let flags: Vec<&Arg> =
        command.get_opts().chain(command.get_arguments().filter(|arg| is_switch(arg))).filter(shown).collect();
    text.push_str(&table("Argument", &args));
    text.push_str(&table(if root { "Global option" } else { "Option" }, &flags));
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let examples: Vec<String> = after.lines().filter(|line| line.starts_with("  ")).map(example).collect();
    if !examples.is_empty() {
        let _ = writeln!(text, "\n```console\n{}\n```", examples.join("\n"));
    }
    text
}

/// The short overview has what a command does behind it.
fn example(line: &str) -> String {
    match line.trim().split_once("   ") {
        Some((command, about)) => format!("$ {command:<56} # {}", about.trim()),
        None => format!("$ {}", line.trim()),
    }
}

fn is_clap_s(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn is_switch(arg: &Arg) -> bool {
    !arg.is_positional() && matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse | ArgAction::Count)
}

fn table(title: &str, args: &[&Arg]) -> String {
    if args.is_empty() {
        return String::new();
    }
    let mut text = format!("\n| {title} | Meaning |\n|---|---|\n");
    for arg in args {
        let _ = writeln!(text, "| `{}` | {} |", name(arg).replace('|', "\\|"), meaning(arg).replace('|', "\\|"));
    }
    text
}

/// `-o, --output FORMAT`, `NAME…`.
fn name(arg: &Arg) -> String {
    let values = || -> String {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    if arg.is_positional() {
        let many = if matches!(arg.get_action(), ArgAction::Append) { "…" } else { "" };
        return format!("{}{many}", values());
    }
    let mut text = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    text.push_str(&arg.get_long().map(|long| format!("--{long}")).unwrap_or_default());
    if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        let optional = arg.get_num_args().is_some_and(|number| number.min_values() == 0);
        text.push_str(&if optional { format!("[={}]", values()) } else { format!(" {}", values()) });
    }
    text
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() && !is_switch(arg) {
        let _ = write!(text, " (default: `{}`)", defaults.join(" "));
    }
    text
}

/// Manual pages by file name.
fn manual() -> BTreeMap<String, Vec<u8>> {
    let root = tree();
    let mut pages = BTreeMap::new();
    walk(&root, "kubectl kbbackup", &mut |words, command| {
        let title = words.replace(' ', "-");
        // What the short help leaves out belongs here.
        let page = command.clone().display_name(title.clone()).mut_args(|arg| arg.hide_short_help(false));
        let mut text = Vec::new();
        let manual = clap_mangen::Man::new(page).title(title.to_uppercase()).section("1").date("").source("kbbackup");
        manual.render(&mut text).unwrap();
        pages.insert(format!("{title}.1"), text);
    });
    pages
}

/// Compares, or writes; says what differed.
fn settle(path: &Path, fresh: &[u8]) -> Option<String> {
    if std::fs::read(path).is_ok_and(|old| old == fresh) {
        return None;
    }
    if std::env::var_os("UPDATE_MANIFESTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, fresh).unwrap();
        return None;
    }
    Some(path.display().to_string())
}

#[test]
fn the_reference_is_that_of_the_table() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut stale: Vec<String> = settle(&home.join("REFERENCE.md"), reference().as_bytes()).into_iter().collect();
    let pages = manual();
    stale.extend(pages.iter().filter_map(|(name, page)| settle(&home.join("man").join(name), page)));
    for entry in std::fs::read_dir(home.join("man")).unwrap().flatten() {
        if !pages.contains_key(&entry.file_name().to_string_lossy().into_owned()) {
            if std::env::var_os("UPDATE_MANIFESTS").is_some() {
                std::fs::remove_file(entry.path()).unwrap();
            } else {
                stale.push(entry.path().display().to_string());
            }
        }
    }
    assert!(stale.is_empty(), "stale: {}\nhint: run cargo xtask codegen", stale.join(", "));
}

#[test]
fn every_command_and_flag_stands_in_the_reference() {
    let (text, root) = (reference(), tree());
    let mut missing = Vec::new();
    walk(&root, "kubectl kbbackup", &mut |words, command| {
        let part = text.split(&format!("\n## {words}\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
        let Some(part) = part else { return missing.push(words.to_owned()) };
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set() && !is_clap_s(arg)) {
            if let Some(long) = arg.get_long().filter(|long| !part.contains(&format!("--{long}"))) {
                missing.push(format!("{words} --{long}"));
            }
        }
    });
    assert!(missing.is_empty(), "{missing:?}");
}
