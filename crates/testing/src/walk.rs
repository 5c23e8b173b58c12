//! A walk: commands as a person types them, what is shown, and what is answered, as text that can be read and replayed.
//!
//! ```text
//! # Words for the reader.
//! $ kubectl kbbackup install      a command, run on a terminal
//! < Make it, with 20Gi?           this is shown
//! > y                             this is typed
//! ? Make it, with 20Gi?           this may be shown; only then the next line is typed
//! = 0                             the exit code
//! ! mark                          something that is not the plugin's: whoever replays the walk does it
//! ```
//! Keys are `<Enter>`, `<Up>` and `<Down>`; `{name}` is filled in by whoever replays it.

use anyhow::{Context as _, Result, bail, ensure};

use crate::terminal::Terminal;

/// A line of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command is started.
    Run(String),
    /// A text is waited for.
    Shown(String),
    /// Keys are typed.
    Typed(String),
    /// A text that may be shown, and the keys that answer it.
    Maybe(String, String),
    /// The command ends with this code.
    Ends(i32),
    /// Somebody else's part.
    Aside(String),
}

/// Reads a walk.
///
/// # Errors
/// Which line has no meaning.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    while let Some(line) = lines.next() {
        let (sign, rest) = line.split_once(' ').with_context(|| format!("{line:?} has no meaning"))?;
        let rest = rest.trim().to_owned();
        steps.push(match sign {
            "$" => Step::Run(rest),
            "<" => Step::Shown(rest),
            ">" => Step::Typed(rest),
            "?" => match lines.next().and_then(|next| next.strip_prefix("> ")) {
                Some(answer) => Step::Maybe(rest, answer.trim().to_owned()),
                None => bail!("{line:?} has no answer"),
            },
            "=" => Step::Ends(rest.parse().with_context(|| format!("{rest:?} is no exit code"))?),
            "!" => Step::Aside(rest),
            _ => bail!("{line:?} has no meaning"),
        });
    }
    Ok(steps)
}

/// The keys of a line.
fn keys(text: &str) -> String {
    [("<Enter>", "\r"), ("<Up>", "\x1b[A"), ("<Down>", "\x1b[B")]
        .iter()
        .fold(text.to_owned(), |text, (name, key)| text.replace(name, key))
}

/// Who knows what a walk leaves open.
pub trait Guide {
    /// Fills in `{name}`.
    fn fill(&self, text: &str) -> String;
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    fn start(&mut self, command: &str) -> Result<Terminal>;
    /// Does what is not the plugin's.
    ///
    /// # Errors
    /// When it goes wrong.
    fn aside(&mut self, what: &str) -> Result<()>;
}

/// Replays a walk.
///
/// # Errors
/// What differs from the text.
pub fn replay(steps: &[Step], guide: &mut impl Guide) -> Result<()> {
    let mut terminal: Option<(String, Terminal)> = None;
    let mut steps = steps.iter().peekable();
    while let Some(step) = steps.next() {
        let here = |terminal: &mut Option<(String, Terminal)>| terminal.take().context("no command runs here");
        match step {
            Step::Run(command) => {
                ensure!(terminal.is_none(), "the command before {command} has no end");
                let command = guide.fill(command);
                terminal = Some((command.clone(), guide.start(&command)?));
            }
            Step::Shown(text) => {
                let (command, mut shown) = here(&mut terminal)?;
                shown.until(&guide.fill(text)).with_context(|| command.clone())?;
                terminal = Some((command, shown));
            }
            Step::Typed(text) => {
                let (command, mut shown) = here(&mut terminal)?;
                shown.types(&keys(&guide.fill(text)))?;
                terminal = Some((command, shown));
            }
            Step::Maybe(text, answer) => {
                let (command, mut shown) = here(&mut terminal)?;
                let Some(Step::Shown(next)) = steps.next() else {
                    bail!("{text:?} needs a text behind it that is shown anyway")
                };
                let (text, next) = (guide.fill(text), guide.fill(next));
                if shown.until_one(&[&text, &next]).with_context(|| command.clone())? == 0 {
                    shown.types(&keys(answer))?;
                    shown.until(&next).with_context(|| command.clone())?;
                }
                terminal = Some((command, shown));
            }
            Step::Ends(code) => {
                let (command, mut shown) = here(&mut terminal)?;
                let ended = shown.end().with_context(|| command.clone())?;
                ensure!(ended == *code, "{command} ended with {ended} and not {code}: {}", shown.seen());
            }
            Step::Aside(what) => guide.aside(&guide.fill(what))?,
        }
    }
    ensure!(terminal.is_none(), "the last command has no end");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use std::process::Command;
    use std::time::Duration;

    use super::*;

    struct Shell;

    impl Guide for Shell {
        fn fill(&self, text: &str) -> String {
            text.replace("{name}", "Ada")
        }

        fn start(&mut self, command: &str) -> Result<Terminal> {
            Terminal::start(Command::new("sh").args(["-c", command]), Duration::from_secs(10))
        }

        fn aside(&mut self, what: &str) -> Result<()> {
            bail!("aside: {what}")
        }
    }

    fn walk(text: &str) -> Result<()> {
        replay(&parse(text)?, &mut Shell)
    }

    #[test]
    fn what_is_shown_is_waited_for_and_what_may_be_shown_is_answered() {
        let asks = "$ echo who; read name; echo hello $name; exit 3\n< who\n> {name}<Enter>\n< hello Ada\n= 3";
        walk(asks).unwrap();
        for question in ["echo 'sure?'; read answer; echo $answer", "echo nothing asked"] {
            walk(&format!("$ {question}; echo done\n? sure?\n> y<Enter>\n< done\n= 0")).unwrap();
        }
    }

    #[test]
    fn another_end_a_missing_end_and_lines_without_a_meaning_are_errors() {
        for (text, why) in [
            ("$ exit 1\n= 0", "ended with 1 and not 0"),
            ("$ true", "has no end"),
            ("< alone", "no command runs"),
            ("words", "no meaning"),
            ("? sure?\n< done", "no answer"),
            ("! lose {name}", "aside: lose Ada"),
        ] {
            let error = format!("{:#}", walk(text).unwrap_err());
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
