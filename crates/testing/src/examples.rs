//! The examples of the documents, and the plan by which they run on a cluster: a text that can be read.
//!
//! ```text
//! # Words for the reader.
//! $ kubectl kbbackup backup statefulset/pg --wait    an example, as a document has it
//! > kubectl kbbackup backup statefulset/pg           what is typed instead of it
//! + kubectl kbbackup list -o json                    a command that is no example
//! < completed                                        it says this
//! = 0 4                                              how it may end; 0 when nothing is said
//! ! the log is archived                              something that is not the plugin's: whoever follows the plan does it
//! ```

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

/// Part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command runs.
    Run(Run),
    /// Somebody else's part.
    Aside(String),
}

/// A command and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The example that it stands for, as [`of_document`] gives it.
    pub example: Option<String>,
    /// The line of shell.
    pub typed: String,
    /// Exit codes that are right.
    pub codes: Vec<i32>,
    /// What it says on either stream.
    pub shown: Vec<String>,
}

/// Reads a plan.
///
/// # Errors
/// Which line has no meaning.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (sign, rest) = line.split_once(' ').with_context(|| format!("{line:?} has no meaning"))?;
        let rest = rest.trim().to_owned();
        let run =
            |example: Option<String>| Step::Run(Run { example, typed: rest.clone(), codes: vec![], shown: vec![] });
        match (sign, steps.last_mut()) {
            ("$", _) => steps.push(run(Some(rest.clone()))),
            ("+", _) => steps.push(run(None)),
            ("!", _) => steps.push(Step::Aside(rest)),
            (">", Some(Step::Run(run))) => run.typed = rest,
            ("<", Some(Step::Run(run))) => run.shown.push(rest),
            ("=", Some(Step::Run(run))) => {
                let codes = rest.split_whitespace().map(str::parse).collect::<Result<_, _>>();
                run.codes = codes.with_context(|| format!("{rest:?} are no exit codes"))?;
            }
            _ => bail!("{line:?} has no meaning here"),
        }
    }
    for step in &mut steps {
        if let Step::Run(run) = step
            && run.codes.is_empty()
        {
            run.codes.push(0);
        }
    }
    Ok(steps)
}

/// The backup of the examples.
pub const BACKUP: &str = "pg-full-20260102030405";

/// The commands with the plugin that a document shows; different names for the same backup are one.
pub fn of_document(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let lines = whole.lines().filter_map(|line| line.strip_prefix("$ "));
    let ours = lines.filter(|line| !line.starts_with("cargo ") && line.contains("kbbackup"));
    let bare = ours.map(|line| line.split(" #").next().unwrap_or_default());
    let words = bare.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    words.map(|line| line.replace("<backup>", BACKUP).replace(" BACKUP", &format!(" {BACKUP}"))).collect()
}

/// Compares a plan with the documents.
///
/// # Errors
/// Which examples have no part in the plan, and which parts have no example any more.
pub fn compare(plan: &[Step], documents: &[&str]) -> Result<()> {
    let told: BTreeSet<String> = documents.iter().flat_map(|text| of_document(text)).collect();
    let planned: Vec<&String> =
        plan.iter().filter_map(|step| if let Step::Run(run) = step { run.example.as_ref() } else { None }).collect();
    let once: BTreeSet<String> = planned.iter().map(|example| (*example).clone()).collect();
    let (new, old): (Vec<_>, Vec<_>) = (told.difference(&once).collect(), once.difference(&told).collect());
    ensure!(new.is_empty(), "examples that nobody has tried on a cluster: {new:#?}");
    ensure!(old.is_empty(), "examples that no document has: {old:#?}");
    ensure!(planned.len() == once.len(), "an example is there twice");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    const DOCUMENT: &str = "Words.\n$ kubectl kbbackup list     # all\n$ kubectl kbbackup why <backup>\n$ cargo xtask kbbackup\n\
        $ kubectl kbbackup repo create \\\n    --wait\n";

    #[test]
    fn examples_are_compared_both_ways() {
        let plan = "$ kubectl kbbackup list\n$ kubectl kbbackup why pg-full-20260102030405\n= 3\n\
            $ kubectl kbbackup repo create --wait\n> kubectl kbbackup repo create --no-input\n< is missing\n= 2 1\n! rest";
        let steps = parse(plan).unwrap();
        compare(&steps, &[DOCUMENT]).unwrap();
        let Step::Run(last) = &steps[2] else { panic!("{steps:?}") };
        assert_eq!((last.typed.as_str(), &last.codes[..]), ("kubectl kbbackup repo create --no-input", &[2, 1][..]));
        assert_eq!(last.shown, ["is missing"]);
        let told = |plan: &str| compare(&parse(plan).unwrap(), &[DOCUMENT]).unwrap_err().to_string();
        assert!(told("$ kubectl kbbackup list").contains("why"));
        assert!(told(&format!("{plan}\n$ kubectl kbbackup doctor")).contains("doctor"));
        assert!(told(&format!("{plan}\n$ kubectl kbbackup list")).contains("twice"));
    }

    #[test]
    fn what_has_no_meaning_is_an_error() {
        for text in ["words", "= 0", "< alone", "$ x\n= none", "! aside\n> typed"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
