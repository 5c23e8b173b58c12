//! Command lines as the contract wants them: flags anywhere, bundled short flags, and its texts for mistakes.
//!
//! A general parser would reject or word differently what scripts in the field rely on (`rm DIR -r`, `-oshort`,
//! `--json=false`), so the few rules stand here.

use crate::error::{Error, Result};

/// What a flag takes.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    Text,
    Int,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A flag of a command.
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

pub(crate) const fn flag(long: &'static str, short: Option<char>, takes: Takes, help: &'static str) -> Flag {
    Flag { long, short, takes, help }
}

/// Flags that stand on every command. Only the configuration file has an effect: the mover keeps no logs of its own,
/// but command lines that ask for them stay valid.
pub(crate) const GLOBAL: &[Flag] = &[
    flag("conf", Some('c'), Takes::Text, "configuration file"),
    flag("console-log", None, Takes::Nothing, "accepted, without effect"),
    flag("console-timestamps", None, Takes::Nothing, "accepted, without effect"),
    flag("log-level", None, Takes::OneOf(&["debug", "info", "warning", "error"]), "accepted, without effect"),
    flag("log-dir", None, Takes::Text, "accepted, without effect"),
    flag("log-file", None, Takes::Text, "accepted, without effect"),
    flag("file-log-level", None, Takes::OneOf(&["debug", "info", "warning", "error"]), "accepted, without effect"),
    flag("file-log-local-tz", None, Takes::Nothing, "accepted, without effect"),
    flag("json-log-console", None, Takes::Nothing, "accepted, without effect"),
    flag("json-log-file", None, Takes::Nothing, "accepted, without effect"),
    flag("force-color", None, Takes::Nothing, "accepted, without effect"),
    flag("disable-color", None, Takes::Nothing, "accepted, without effect"),
    flag("log-dir-max-files", None, Takes::Int, "accepted, without effect"),
    flag("log-dir-max-age", None, Takes::Text, "accepted, without effect"),
    flag("log-dir-max-total-size-mb", None, Takes::Text, "accepted, without effect"),
    flag("max-log-file-segment-size", None, Takes::Int, "accepted, without effect"),
    flag("help", Some('h'), Takes::Nothing, "show help"),
];

/// A parsed command line.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    values: Vec<(&'static str, String)>,
    pub(crate) positional: Vec<String>,
}

impl Parsed {
    /// The last value of a flag.
    pub(crate) fn text(&self, long: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values of a flag that may be repeated.
    pub(crate) fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_set(&self, long: &str) -> bool {
        self.text(long) == Some("true")
    }

    pub(crate) fn int(&self, long: &str) -> i64 {
        self.text(long).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// Takes the command's name out of the arguments: the first word that is neither a flag nor a global flag's value.
pub(crate) fn split_command(mut args: Vec<String>) -> (Option<String>, Vec<String>) {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        if arg == "--" {
            break;
        }
        if arg == "-" || !arg.starts_with('-') {
            let command = args.remove(at);
            return (Some(command), args);
        }
        let takes_next = GLOBAL.iter().any(|known| {
            !matches!(known.takes, Takes::Nothing)
                && (arg.strip_prefix("--") == Some(known.long)
                    || known.short.is_some_and(|short| arg.len() == 2 && arg.ends_with(short)))
        });
        at += if takes_next { 2 } else { 1 };
    }
    (None, args)
}

/// Parses what stands behind a command.
pub(crate) fn parse(args: Vec<String>, flags: &'static [Flag]) -> Result<Parsed> {
    let known = || flags.iter().chain(GLOBAL);
    let mut parsed = Parsed::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            parsed.positional.extend(args);
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let flag = known()
                .find(|flag| flag.long == name)
                .ok_or_else(|| Error::other(format!("unknown flag: --{name}")))?;
            let value = match (value, flag.takes) {
                (Some(value), _) => value,
                (None, Takes::Nothing) => "true".to_owned(),
                (None, _) => args.next().ok_or_else(|| Error::other(format!("flag needs an argument: --{name}")))?,
            };
            parsed.put(flag, value)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            let bundle = &arg[1..];
            for (at, letter) in bundle.char_indices() {
                let flag = known()
                    .find(|flag| flag.short == Some(letter))
                    .ok_or_else(|| Error::other(format!("unknown shorthand flag: '{letter}' in -{}", &bundle[at..])))?;
                let rest = &bundle[at + letter.len_utf8()..];
                if let Some(value) = rest.strip_prefix('=') {
                    parsed.put(flag, value.to_owned())?;
                    break;
                }
                if matches!(flag.takes, Takes::Nothing) {
                    parsed.put(flag, "true".to_owned())?;
                    continue;
                }
                let value = if rest.is_empty() {
                    args.next().ok_or_else(|| {
                        Error::other(format!("flag needs an argument: '{letter}' in -{}", &bundle[at..]))
                    })?
                } else {
                    rest.to_owned()
                };
                parsed.put(flag, value)?;
                break;
            }
        } else {
            parsed.positional.push(arg);
        }
    }
    Ok(parsed)
}

impl Parsed {
    fn put(&mut self, flag: &'static Flag, value: String) -> Result<()> {
        let wrong = |why: String| {
            let name = flag.short.map_or_else(String::new, |short| format!("-{short}, ")) + "--" + flag.long;
            Error::other(format!("invalid argument \"{value}\" for \"{name}\" flag: {why}"))
        };
        let value = match flag.takes {
            Takes::Text => value,
            Takes::Nothing => match go_bool(&value) {
                Some(on) => on.to_string(),
                None => return Err(wrong(format!("strconv.ParseBool: parsing \"{value}\": invalid syntax"))),
            },
            Takes::Int => match value.parse::<i64>() {
                Ok(_) => value,
                Err(_) => return Err(wrong(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax"))),
            },
            Takes::OneOf(words) if words.contains(&value.as_str()) => value,
            Takes::OneOf(words) => return Err(wrong(format!("{value} is not included in {}", words.join(",")))),
        };
        self.values.push((flag.long, value));
        Ok(())
    }

    /// The positional arguments, when there are exactly `N`.
    pub(crate) fn exactly<const N: usize>(&self) -> Result<[&str; N]> {
        let texts: Vec<&str> = self.positional.iter().map(String::as_str).collect();
        texts.try_into().map_err(|_| Error::other(format!("accepts {N} arg(s), received {}", self.positional.len())))
    }
}

/// A truth value in the contract's spelling.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Flag] = &[
        flag("recursive", Some('r'), Takes::Nothing, ""),
        flag("files-only", Some('f'), Takes::Nothing, ""),
        flag("output-format", Some('o'), Takes::OneOf(&["short", "long"]), ""),
        flag("newer-than", None, Takes::Int, ""),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_may_stand_anywhere() {
        for line in [
            "-rf -o short /",
            "/ -rf -oshort",
            "--recursive / -f=true -o=short",
            "/ --recursive=1 -f --output-format short",
        ] {
            let parsed = parse(words(line), LIST).unwrap();
            assert!(parsed.is_set("recursive") && parsed.is_set("files-only"), "{line}");
            assert_eq!(parsed.text("output-format"), Some("short"), "{line}");
            assert_eq!(parsed.exactly::<1>().unwrap(), ["/"], "{line}");
        }
        assert!(!parse(words("--recursive=false /"), LIST).unwrap().is_set("recursive"));
        assert_eq!(parse(words("-- -r"), LIST).unwrap().positional, ["-r"]);
        assert_eq!(parse(words("- x"), LIST).unwrap().positional, ["-", "x"]);
    }

    #[test]
    fn mistakes_have_the_contracts_words() {
        for (line, text) in [
            ("--x", "unknown flag: --x"),
            ("-rxyz", "unknown shorthand flag: 'x' in -xyz"),
            ("-o xml", "invalid argument \"xml\" for \"-o, --output-format\" flag: xml is not included in short,long"),
            (
                "--newer-than abc",
                "invalid argument \"abc\" for \"--newer-than\" flag: strconv.ParseInt: parsing \"abc\": invalid syntax",
            ),
            ("-o", "flag needs an argument: 'o' in -o"),
        ] {
            assert_eq!(parse(words(line), LIST).unwrap_err().to_string(), text);
        }
        assert_eq!(
            parse(words("a b"), LIST).unwrap().exactly::<1>().unwrap_err().to_string(),
            "accepts 1 arg(s), received 2"
        );
    }

    #[test]
    fn the_command_is_found_behind_global_flags() {
        let (command, rest) = split_command(words("-c conf --console-log list / -r"));
        assert_eq!(command.as_deref(), Some("list"));
        assert_eq!(rest, ["-c", "conf", "--console-log", "/", "-r"]);
    }
}
