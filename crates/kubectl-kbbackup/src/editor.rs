//! A text in the editor of the person, in a file that is not lost when something goes wrong.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::TempPath;

use crate::{
    error::{CliError, Result},
    exit::Exit,
    ui::Ui,
};

/// What stands above a text, as in `kubectl edit`.
const HEAD: &str = "\
# Please edit the object below. Lines that begin with a '#' will be ignored, and an empty file aborts the edit.
# If it cannot be saved, this file is opened again with the reason.
#
";

/// A file to be edited; it goes with this value unless it is kept.
pub(crate) struct Draft {
    path: TempPath,
}

impl Draft {
    /// # Errors
    /// When there is no place for temporary files.
    pub(crate) fn new() -> Result<Self> {
        // Only its owner may read it.
        let file = tempfile::Builder::new().prefix("kbbackup-edit-").suffix(".yaml").tempfile()?;
        Ok(Self { path: file.into_temp_path() })
    }

    /// Shows `text` in the editor, below what was wrong with it, and gives what was saved, without comments.
    ///
    /// # Errors
    /// When the editor cannot be started, or ends badly. What it has saved is kept then.
    pub(crate) async fn edit(&self, ui: &Ui, text: &str, trouble: Option<&str>) -> Result<String> {
        let whole = head(trouble) + text;
        let mut file = std::fs::File::create(&self.path)?;
        file.write_all(whole.as_bytes())?;
        drop(file);
        let (program, mut arguments) = command()?;
        arguments.push(self.path.as_os_str().to_owned());
        let named = program.to_string_lossy().into_owned();
        let ended = {
            // Ctrl-C is the editor's now.
            let _lent = ui.lend_terminal();
            tokio::process::Command::new(&program).args(&arguments).status().await
        };
        let ended = ended.map_err(|error| {
            CliError::refused(format!("the editor {named:?} cannot be started"), error.to_string())
                .hint("set KUBE_EDITOR or EDITOR to an editor that is installed")
        })?;
        if !ended.success() {
            let exit = if is_interrupt(ended) { Exit::Interrupted } else { Exit::Refused };
            return Err(CliError::new(exit, format!("the editor {named:?} ended badly"), ended.to_string()));
        }
        Ok(without_comments(&self.saved()?))
    }

    /// What stands in the file now.
    ///
    /// # Errors
    /// When somebody has removed it, or it is no text.
    pub(crate) fn saved(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.path)?)
    }

    /// Leaves the file, and says where it is.
    pub(crate) fn keep(self, ui: &Ui) -> Option<PathBuf> {
        let path = self.path.keep().ok()?;
        ui.say(&format!("a copy of your changes is kept in {}", path.display()));
        Some(path)
    }
}

fn is_interrupt(ended: std::process::ExitStatus) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        ended.signal() == Some(2) || ended.code() == Some(130)
    }
    #[cfg(not(unix))]
    {
        ended.code() == Some(130)
    }
}

fn head(trouble: Option<&str>) -> String {
    let mut head = HEAD.to_owned();
    for line in trouble.into_iter().flat_map(str::lines).chain(trouble.map(|_| "")) {
        head.extend(["# ", line, "\n"]);
    }
    head
}

pub(crate) fn without_comments(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
}

/// The editor of the person: KUBE_EDITOR, else EDITOR, else the system's. Each may have arguments.
fn command() -> Result<(OsString, Vec<OsString>)> {
    let mut set = ["KUBE_EDITOR", "EDITOR"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let Some((name, text)) = set.find(|(_, text)| !text.is_empty()) else {
        return Ok((if cfg!(windows) { "notepad" } else { "vi" }.into(), Vec::new()));
    };
    // A path with blanks, as it stands.
    if Path::new(&text).is_file() {
        return Ok((text, Vec::new()));
    }
    let bad = |why: String| CliError::usage(format!("{name} cannot be understood"), why);
    let text = text.into_string().map_err(|_| bad("it is no text".to_owned()))?;
    let mut words = shell_words::split(&text).map_err(|error| bad(error.to_string()))?.into_iter().map(OsString::from);
    let program = words.next().ok_or_else(|| bad("it is empty".to_owned()))?;
    Ok((program, words.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_stands_above_and_never_comes_back() {
        let whole = head(Some("spec: no\nmore")) + "kind: A\n  # indented stays\n#gone\nlast";
        assert!(whole.contains("\n# spec: no\n# more\n# \nkind: A\n"), "{whole}");
        assert_eq!(without_comments(&whole), "kind: A\n  # indented stays\nlast");
        assert_eq!(head(None), HEAD);
    }
}
