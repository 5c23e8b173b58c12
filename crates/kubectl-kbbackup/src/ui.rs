//! The only place that prints. Results go to standard output, everything else to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    io::{IsTerminal, Write},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    args::Color,
    equivalent::Answers,
    error::{CliError, Result},
};

/// Where to write, and how.
#[derive(Debug)]
pub(crate) struct Ui {
    color: bool,
    /// Standard error is a terminal: a line may be rewritten.
    live: bool,
    /// Questions may be asked.
    pub may_ask: bool,
    /// A rewritten line stands on the terminal and has to be cleared first.
    dirty: AtomicBool,
    /// Another program has the terminal.
    lent: AtomicBool,
    answers: Mutex<Answers>,
    /// Given on the command line: commands that are proposed need it to mean the same.
    namespace: Option<String>,
}

/// Commands about the cluster as a whole.
const EVERYWHERE: [&str; 7] = ["repo", "install", "uninstall", "upgrade", "doctor", "version", "completion"];

/// The terminal is another program's.
pub(crate) struct Lent<'a>(&'a AtomicBool);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A mark in front of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    Good,
    Warn,
    Bad,
}

impl Mark {
    fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Good => ("✓", "32"),
            Self::Warn => ("!", "33"),
            Self::Bad => ("✗", "31"),
        }
    }
}

impl Ui {
    pub(crate) fn new(color: Color, no_input: bool) -> Self {
        let err = std::io::stderr().is_terminal();
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                err && std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        let may_ask = !no_input && !ci && err && std::io::stdin().is_terminal();
        Self {
            color,
            live: err,
            may_ask,
            dirty: AtomicBool::new(false),
            lent: AtomicBool::new(false),
            answers: Mutex::default(),
            namespace: None,
        }
    }

    /// Leaves the terminal, and its Ctrl-C, to another program until the result is dropped.
    pub(crate) fn lend_terminal(&self) -> Lent<'_> {
        self.clear();
        self.lent.store(true, Ordering::Relaxed);
        Lent(&self.lent)
    }

    /// Whether another program has the terminal.
    pub(crate) fn has_lent_terminal(&self) -> bool {
        self.lent.load(Ordering::Relaxed)
    }

    /// What was answered so far.
    pub(crate) fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an answer as the flag that would have given it; without a flag it has its place among the words.
    pub(crate) fn answered(&self, flag: &str, value: &str) {
        self.answers().add(flag, value);
    }

    /// Tells the command that would have needed no questions, once, when there were any.
    pub(crate) fn equivalent(&self) {
        let typed: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let command = std::mem::take(&mut *self.answers()).command(&typed);
        if let Some(command) = command {
            self.say(&format!("the same without questions:\n  {command}"));
        }
    }

    /// Text for scripts and pipes: what the command is about.
    pub(crate) fn result(&self, text: &str) {
        self.clear();
        let mut out = std::io::stdout().lock();
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        // A reader that went away (`| head`) is no error.
        let _ = write!(out, "{text}{newline}").and_then(|()| out.flush());
    }

    /// The same, too long to be held as one text.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn long_result(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.clear();
        write(&mut std::io::BufWriter::new(std::io::stdout().lock()))
    }

    /// How it ended: a result for people; a program has its object already, and nothing else may stand beside it.
    pub(crate) fn outcome(&self, text: &str, for_program: bool) {
        if for_program { self.say(text) } else { self.result(text) }
    }

    /// One line of somebody else's log.
    pub(crate) fn log_line(&self, line: &str) {
        self.result(line);
    }

    /// A line about what is going on.
    pub(crate) fn say(&self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// A line that deserves attention.
    pub(crate) fn warn(&self, text: &str) {
        self.clear();
        eprintln!("{}: {text}", self.paint("33", "warning"));
    }

    /// Proposes commands that act on this namespace.
    pub(crate) fn within(self, namespace: Option<String>) -> Self {
        Self { namespace, ..self }
    }

    /// The command with the namespace that the one before was given.
    fn placed(&self, text: &str) -> String {
        let words: Vec<&str> = text.split(' ').collect();
        match (&self.namespace, words.as_slice()) {
            (Some(namespace), ["kubectl", "kbbackup", verb, rest @ ..])
                if !EVERYWHERE.contains(verb)
                    && !rest.iter().any(|word| ["-n", "--namespace", "-A", "--all-namespaces"].contains(word)) =>
            {
                format!("{text} -n {namespace}")
            }
            _ => text.to_owned(),
        }
    }

    /// A command to try next; nothing stands behind it, so that it can be copied.
    pub(crate) fn hint(&self, text: &str) {
        let text = self.placed(text);
        self.clear();
        eprintln!("{}: {text}", self.paint("36", "hint"));
    }

    pub(crate) fn error(&self, error: &CliError) {
        self.clear();
        eprintln!("{}: {error}", self.paint("31", "error"));
        for hint in &error.hints {
            self.hint(hint);
        }
    }

    /// A line of progress. On a terminal it replaces the previous one.
    pub(crate) fn progress(&self, text: &str) {
        if self.live {
            let width = terminal_width();
            let shown: String = text.chars().take(width.saturating_sub(1)).collect();
            eprint!("\r\x1b[2K{shown}");
            let _ = std::io::stderr().flush();
            self.dirty.store(true, Ordering::Relaxed);
        } else {
            eprintln!("{text}");
        }
    }

    /// A line of progress that is not worth one in a log.
    pub(crate) fn progress_if_live(&self, text: &str) {
        if self.live {
            self.progress(text);
        }
    }

    /// Whether a line of progress can be rewritten.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// `✓ text`, `! text` or `✗ text`, in colour where there is one.
    pub(crate) fn marked(&self, mark: Mark, text: &str) -> String {
        let (sign, color) = mark.sign();
        format!("{} {text}", self.paint(color, sign))
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Ends a rewritten line.
    pub(crate) fn clear(&self) {
        if self.dirty.swap(false, Ordering::Relaxed) {
            eprint!("\r\x1b[2K");
        }
    }
}

fn terminal_width() -> usize {
    dialoguer::console::Term::stderr().size_checked().map_or(120, |(_, columns)| usize::from(columns))
}
