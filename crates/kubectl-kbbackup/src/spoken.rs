//! Tests of what we tell people to type: every example and every hint is a command that parses.

use clap::{CommandFactory, Parser};

use crate::args::Cli;

/// The words of a printed command, parsed; redirections and variables in front are left out.
fn parses(line: &str) -> Result<(), String> {
    let at = line.find("kubectl kbbackup").ok_or("no command")?;
    let command = line[at..].split([';', '|', '>', '`']).next().unwrap_or_default().replace("…", "x");
    let words = split(&command).into_iter().skip(1);
    let words = words.map(|word| word.trim_end_matches([',', ':']).to_owned());
    match Cli::try_parse_from(words) {
        Ok(_) => Ok(()),
        Err(error) if !error.use_stderr() => Ok(()),
        Err(error) => Err(format!("{command}: {error}")),
    }
}

/// Words as a shell splits them; only double quotes are known. In the code they are escaped.
fn split(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in command.replace("\\\"", "\"").split('"').enumerate() {
        if index % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        for (index, word) in part.split(char::is_whitespace).enumerate() {
            if index > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(word);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn examples(command: &clap::Command, into: &mut Vec<String>) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // The short overview has a second column after the command.
    let lines = help.lines().filter(|line| line.contains("kubectl kbbackup"));
    into.extend(lines.map(|line| line.trim().split("   ").next().unwrap_or_default().to_owned()));
    command.get_subcommands().for_each(|sub| examples(sub, into));
}

#[test]
fn every_example_of_the_help_parses() {
    let mut all = Vec::new();
    examples(&Cli::command(), &mut all);
    assert!(all.len() > 50, "only {} examples", all.len());
    let wrong: Vec<String> = all.iter().filter_map(|line| parses(line).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_has_an_example() {
    fn check(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(command.has_subcommands() || help.contains("kubectl kbbackup"), "{} has none", command.get_name());
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn every_hint_in_the_code_parses() {
    fn sources(folder: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { sources(&path, into) } else { into.push(path) }
        }
    }
    let mut files = Vec::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for part in text.split("\"kubectl kbbackup ").skip(1) {
            let literal = part.split('"').next().unwrap_or_default();
            // What stands in braces is a name, or the flag of a namespace.
            let mut line = String::from("kubectl kbbackup ");
            let mut depth = 0;
            for c in literal.replace("{flag}", "").replace("{}", "x").chars() {
                match c {
                    '{' => depth += 1,
                    '}' => {
                        depth -= 1;
                        line.push('x');
                    }
                    c if depth == 0 => line.push(c),
                    _ => {}
                }
            }
            if !line.trim_end().ends_with("kbbackup") {
                wrong.extend(parses(&line).err().map(|error| format!("{}: {error}", file.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_of_the_documents_parses() {
    let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (file, least) in [("../../README.md", 15), ("REFERENCE.md", 80)] {
        // A line that goes on is one command.
        let text = std::fs::read_to_string(home.join(file)).unwrap().replace("\\\n", " ");
        let lines = text.lines().filter(|line| line.starts_with("$ ") && line.contains("kubectl kbbackup"));
        let lines: Vec<&str> = lines.map(|line| line.split(" #").next().unwrap_or_default()).collect();
        assert!(lines.len() >= least, "{file} has only {}", lines.len());
        wrong.extend(lines.iter().filter_map(|line| parses(&line.replace("<backup>", "BACKUP")).err()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_has_its_part_in_the_plan_for_the_cluster() {
    let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(home.join(file)).unwrap();
    let plan = kbbackup_testing::examples::parse(&read("../../tests/e2e/examples.txt")).unwrap();
    kbbackup_testing::examples::compare(&plan, &[&read("../../README.md"), &read("REFERENCE.md")]).unwrap();
    // What is typed instead of an example is a command, too.
    let typed = plan.iter().filter_map(|step| match step {
        kbbackup_testing::examples::Step::Run(run) if run.typed.contains("kubectl kbbackup") => Some(&run.typed),
        _ => None,
    });
    let wrong: Vec<String> = typed.filter_map(|line| parses(&line.replace(['{', '}'], "")).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
