//! Running other programs, with errors that say what was run and what it answered.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Builds a command; `args!["-n", "kube-system"]` style lists may mix strings and paths.
pub(crate) fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs to the end and returns stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let done = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !done.status.success() {
        let stderr = String::from_utf8_lossy(&done.stderr);
        bail!("{shown}: {}: {}", done.status, last_lines(stderr.trim(), 15));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs to the end with everything it says in `log`; a failure quotes the end of it.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let shown = shown(command);
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let status =
        command.stdout(file.try_clone()?).stderr(file).status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}\n{}", tail(log));
    }
    Ok(())
}

/// Runs to the end with `input` on stdin.
pub(crate) fn fed(command: &mut Command, input: &str) -> Result<()> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{shown}: {}: {}", done.status, last_lines(String::from_utf8_lossy(&done.stderr).trim(), 15));
    }
    Ok(())
}

/// The end of a log, to be put below an error.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    format!("last lines of {}:\n{}", log.display(), last_lines(text.trim_end(), 20))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let text = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_words() {
        let error = output(&mut command("sh", ["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("exit status: 3") && error.contains("no such thing"),
            "{error}"
        );
    }

    #[test]
    fn only_the_end_of_a_log_is_quoted() {
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
    }
}
