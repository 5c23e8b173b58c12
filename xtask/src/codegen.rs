//! Files that are generated and checked in, so that a reviewer sees every change of them as a diff.
//!
//! A generator is an example of the crate that knows the content. It fills an empty directory, and that directory's
//! place in the repository gets the same files, no more and no less. One more generated thing is one more row in
//! [`GENERATED`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{actionsets, cargo, chart, ui};

/// Writes the generated files anew
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a file is not what it would be
    #[arg(long)]
    pub(crate) check: bool,
}

struct Generated {
    what: &'static str,
    /// Where the files lie. Everything in there is generated.
    directory: &'static str,
    /// The example that writes them into the directory that is its only argument.
    example: &'static str,
}

const GENERATED: &[Generated] =
    &[Generated { what: "custom resource definitions", directory: "deploy/crds", example: "crds" }];

/// What is written by the tests that compare it with its table: rights and settings of the operator, reference and manual pages of
/// the plugin.
const WRITERS: &str = "is_that_of_the_table";

/// Writes all generated files, or checks that they are what they would be.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for generated in GENERATED {
        let fresh = tempfile::tempdir().context("cannot make a directory for generated files")?;
        generate(root, generated, fresh.path())?;
        let changes = changes(&root.join(generated.directory), fresh.path())?;
        if check {
            stale.extend(changes.into_iter().map(|change| format!("{}/{}", generated.directory, change.name)));
        } else {
            for change in &changes {
                change.carry_out()?;
                ui::result(format!("{} {}/{}", change.verb(), generated.directory, change.name));
            }
            ui::note(format!("{}: {} changed", generated.what, changes.len()));
        }
    }
    if !check {
        let mut tests = cargo::test(root, &["--lib", "--bins", "--", WRITERS]);
        tests.env("UPDATE_MANIFESTS", "1").stdout(std::process::Stdio::null());
        cargo::run(tests, "the tests that write rights, settings and reference failed")?;
    }
    // The chart copies what the others have written.
    for (what, generate) in [
        ("assembled ActionSets", actionsets::generate as fn(&Path, bool) -> _),
        ("copies in the chart", chart::generate),
    ] {
        let changed: Vec<String> = generate(root, check)?;
        if check {
            stale.extend(changed);
        } else {
            ui::note(format!("{what}: {} changed", changed.len()));
        }
    }
    ensure!(stale.is_empty(), "stale: {}\nhint: run cargo xtask codegen", stale.join(", "));
    Ok(())
}

fn generate(root: &Path, generated: &Generated, directory: &Path) -> Result<()> {
    let mut generator = cargo::example(root, generated.example);
    generator.arg(directory);
    cargo::run(generator, &format!("the generator of the {} failed", generated.what))
}

/// What has to be done to one file.
#[derive(Debug)]
struct Change {
    name: String,
    path: PathBuf,
    /// The new content; nothing if the file has to go.
    content: Option<Vec<u8>>,
}

impl Change {
    fn verb(&self) -> &'static str {
        if self.content.is_some() { "wrote" } else { "removed" }
    }

    fn carry_out(&self) -> Result<()> {
        let done = match &self.content {
            Some(content) => {
                let parent = self.path.parent().unwrap_or(&self.path);
                fs::create_dir_all(parent).and_then(|()| fs::write(&self.path, content))
            }
            None => fs::remove_file(&self.path),
        };
        done.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// What turns the files of `old` into those of `fresh`, by name.
fn changes(old: &Path, fresh: &Path) -> Result<Vec<Change>> {
    let mut before = files(old)?;
    let mut changes = Vec::new();
    for (name, content) in files(fresh)? {
        if before.remove(&name).as_ref() != Some(&content) {
            changes.push(Change { path: old.join(&name), name, content: Some(content) });
        }
    }
    changes.extend(before.into_keys().map(|name| Change { path: old.join(&name), name, content: None }));
    Ok(changes)
}

/// Name and content of the files in a directory. One that does not exist has none.
fn files(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    if !directory.exists() {
        return Ok(files);
    }
    let read = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(read)? {
        let path = entry.with_context(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with('.') {
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name, content);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_changed_and_strangers_go() {
        let (old, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (directory, name, content) in
            [(&old, "same", "1"), (&fresh, "same", "1"), (&old, "edited", "1"), (&fresh, "edited", "2")]
        {
            fs::write(directory.path().join(name), content).unwrap();
        }
        fs::write(old.path().join("gone"), "1").unwrap();
        fs::write(fresh.path().join("new"), "1").unwrap();

        let found = changes(old.path(), fresh.path()).unwrap();
        let found: Vec<_> = found.iter().map(|change| (change.name.as_str(), change.verb())).collect();
        assert_eq!(found, [("edited", "wrote"), ("new", "wrote"), ("gone", "removed")]);

        for change in changes(old.path(), fresh.path()).unwrap() {
            change.carry_out().unwrap();
        }
        assert!(changes(old.path(), fresh.path()).unwrap().is_empty());
    }
}
