//! Questions. They go to standard error and are asked only at a terminal; every one has a flag that answers it.

mod secret;

use dialoguer::{
    Confirm, FuzzySelect, Input, Select,
    console::Term,
    theme::{ColorfulTheme, SimpleTheme, Theme},
};

use crate::{
    error::{CliError, Result},
    exit::Exit,
    ui::Ui,
};

fn theme() -> Box<dyn Theme> {
    if std::env::var_os("NO_COLOR").is_some() { Box::new(SimpleTheme) } else { Box::new(ColorfulTheme::default()) }
}

fn answered<T>(answer: dialoguer::Result<T>) -> Result<T> {
    answer.map_err(|dialoguer::Error::IO(error)| match error.kind() {
        std::io::ErrorKind::Interrupted => stopped(),
        _ => CliError::from(error),
    })
}

/// Ctrl-C or Escape at a question.
fn stopped() -> CliError {
    // A list hides the cursor, and does not bring it back when it is left by Ctrl-C.
    let _ = Term::stderr().show_cursor();
    CliError::new(Exit::Interrupted, "stopped at a question", "nothing was changed")
}

/// The error when something is missing and nobody can be asked: names the flag and what could stand there.
pub(crate) fn needed(flag: &str, what: &str, candidates: &[String]) -> CliError {
    let why = if candidates.is_empty() {
        format!("give it with {flag}")
    } else {
        format!("give it with {flag}; there is {}", candidates.join(", "))
    };
    CliError::usage(format!("{what} is missing"), why)
}

/// One of several lines; returns its place. With more than a handful, typing narrows the list.
pub(crate) fn select(ui: &Ui, prompt: &str, lines: &[String], default: usize) -> Result<usize> {
    ui.clear();
    let theme = theme();
    let chosen = if lines.len() > 8 {
        answered(
            FuzzySelect::with_theme(&*theme)
                .with_prompt(prompt)
                .items(lines)
                .default(default)
                .interact_on_opt(&Term::stderr()),
        )?
    } else {
        answered(
            Select::with_theme(&*theme)
                .with_prompt(prompt)
                .items(lines)
                .default(default)
                .interact_on_opt(&Term::stderr()),
        )?
    };
    chosen.ok_or_else(stopped)
}

/// A line of text; `check` says what is wrong with it.
pub(crate) fn input(
    ui: &Ui,
    prompt: &str,
    default: Option<&str>,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<String> {
    ui.clear();
    let theme = theme();
    let mut question =
        Input::<String>::with_theme(&*theme).with_prompt(prompt).validate_with(|text: &String| check(text));
    if let Some(default) = default {
        question = question.default(default.to_owned());
    }
    answered(question.interact_text_on(&Term::stderr()))
}

/// A secret, not echoed.
pub(crate) fn password(ui: &Ui, prompt: &str) -> Result<String> {
    ui.clear();
    let (terminal, theme) = (Term::stderr(), theme());
    let mut question = String::new();
    let _ = theme.format_password_prompt(&mut question, prompt);
    loop {
        terminal.write_str(&question)?;
        let line = secret::read();
        terminal.write_line("")?;
        let line = answered(line.map_err(dialoguer::Error::from))?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

/// Yes or no.
pub(crate) fn yes(ui: &Ui, prompt: &str, default: bool) -> Result<bool> {
    ui.clear();
    answered(Confirm::with_theme(&*theme()).with_prompt(prompt).default(default).interact_on_opt(&Term::stderr()))?
        .ok_or_else(stopped)
}

/// Whether what was shown is to be done. Nobody is asked away from a terminal, or where the answer was given: then it is.
pub(crate) fn go_on(ui: &Ui, assume_yes: bool, question: &str) -> Result<()> {
    if !ui.may_ask || assume_yes {
        return Ok(());
    }
    confirmed(ui, yes(ui, question, true)?)
}

/// Confirmation of something that cannot be taken back. `word` must be typed when it is given.
pub(crate) fn confirm(ui: &Ui, assume_yes: bool, question: &str, word: Option<&str>) -> Result<()> {
    if assume_yes {
        return Ok(());
    }
    if !ui.may_ask {
        return Err(CliError::new(
            Exit::Unconfirmed,
            "confirmation is needed",
            format!("{question} Nothing was changed"),
        )
        .hint("add --yes"));
    }
    let given = match word {
        None => yes(ui, question, false)?,
        Some(word) => input(ui, &format!("{question} Type {word} to go on"), None, |_| Ok(()))? == word,
    };
    confirmed(ui, given)
}

fn confirmed(ui: &Ui, given: bool) -> Result<()> {
    if !given {
        return Err(CliError::new(Exit::Unconfirmed, "not confirmed", "nothing was changed"));
    }
    ui.answered("--yes", "");
    Ok(())
}
