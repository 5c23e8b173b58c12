//! The command that would have needed no questions: what was typed, and a flag for each answer. Secrets become variables.

use crate::provider_flags::{FLAGS, variable};

/// What was answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Flags and values, as they would be typed.
    words: Vec<String>,
    /// Parameters that hold secrets and were answered.
    secrets: Vec<String>,
    /// Parameters whose values are not shown either when they were typed.
    hidden: Vec<String>,
}

impl Answers {
    /// A value with its flag, or in its place when the flag is empty.
    pub(crate) fn add(&mut self, flag: &str, value: &str) {
        // Several questions may be confirmed by one flag.
        if value.is_empty() && self.words.iter().any(|word| word == flag) {
            return;
        }
        self.words.extend([flag, value].into_iter().filter(|word| !word.is_empty()).map(str::to_owned));
    }

    /// A parameter whose value is told to nobody.
    pub(crate) fn add_secret(&mut self, parameter: &str) {
        self.secrets.push(parameter.to_owned());
    }

    /// Names parameters that hold secrets, before the first question.
    pub(crate) fn hide(&mut self, parameters: impl IntoIterator<Item = String>) {
        self.hidden.extend(parameters);
    }

    /// None when nothing was asked.
    pub(crate) fn command(&self, typed: &[String]) -> Option<String> {
        if self.words.is_empty() && self.secrets.is_empty() {
            return None;
        }
        let (typed, mut variables) = without_secrets(typed, &self.hidden);
        variables.extend(self.secrets.iter().cloned());
        let mut words: Vec<String> = variables.iter().map(|name| format!("{}=…", variable(name))).collect();
        words.push("kubectl kbbackup".to_owned());
        words.extend(typed.iter().chain(&self.words).map(|word| quoted(word)));
        Some(words.join(" "))
    }
}

/// The words that may be shown, and the parameters whose values may not.
fn without_secrets(typed: &[String], secret: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut shown, mut hidden) = (Vec::new(), Vec::new());
    let mut words = typed.iter();
    while let Some(word) = words.next() {
        let (flag, inside) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || inside.clone().or_else(|| words.next().cloned()).unwrap_or_default();
        if flag == "--token" {
            value();
            shown.extend([flag.to_owned(), "…".to_owned()]);
        } else if flag == "--param" {
            let pair = value();
            match pair.split_once('=').filter(|(name, _)| secret.iter().any(|known| known == name)) {
                Some((name, _)) => hidden.push(name.to_owned()),
                None => shown.extend([flag.to_owned(), pair]),
            }
        } else if let Some(known) =
            FLAGS.iter().find(|known| known.secret && flag.strip_prefix("--") == Some(known.flag))
        {
            value();
            hidden.push(known.parameter.to_owned());
        } else {
            shown.push(word.clone());
        }
    }
    (shown, hidden)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@+%…".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains(['"', '$', '`', '\\', '!']) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        format!("\"{word}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(typed: &str, fill: impl Fn(&mut Answers)) -> Option<String> {
        let mut answers = Answers::default();
        answers.hide(["secretAccessKey".to_owned(), "odd".to_owned()]);
        fill(&mut answers);
        let typed: Vec<String> = typed.split(' ').map(str::to_owned).collect();
        answers.command(&typed)
    }

    #[test]
    fn answers_follow_what_was_typed_and_without_any_nothing_is_told() {
        assert_eq!(told("backup pg", |_| ()), None);
        let command = told("schedule create -n demo --name weekly", |answers| {
            answers.add("--cron", "0 2 * * *");
            answers.add("", "policy/pg");
            answers.add("--yes", "");
            answers.add("--yes", "");
        });
        let wanted = "kubectl kbbackup schedule create -n demo --name weekly --cron \"0 2 * * *\" policy/pg --yes";
        assert_eq!(command.as_deref(), Some(wanted));
    }

    #[test]
    fn secrets_become_variables_however_they_were_given() {
        for typed in [
            "--param secretAccessKey=hush",
            "--param=secretAccessKey=hush",
            "--secret-access-key hush",
            "--secret-access-key=hush",
        ] {
            let command =
                told(&format!("repo create {typed} --rollback"), |answers| answers.add("--default", "")).unwrap();
            assert_eq!(
                command, "KBBACKUP_SECRET_ACCESS_KEY=… kubectl kbbackup repo create --rollback --default",
                "{typed}"
            );
        }
        let command = told("repo create --param odd=hush --param bucket=b --token hush", |answers| {
            answers.add_secret("secretAccessKey");
        });
        let wanted =
            "KBBACKUP_ODD=… KBBACKUP_SECRET_ACCESS_KEY=… kubectl kbbackup repo create --param bucket=b --token …";
        assert_eq!(command.as_deref(), Some(wanted));
    }

    #[test]
    fn words_reach_a_shell_as_they_are() {
        for (word, wanted) in
            [("a b", "\"a b\""), ("$HOME", "'$HOME'"), ("it's $1", r"'it'\''s $1'"), ("", "\"\""), ("a=b", "a=b")]
        {
            assert_eq!(quoted(word), wanted);
        }
    }
}
