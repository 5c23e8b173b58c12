//! Flags for the parameters of the shipped storage providers, made at build time from their schemas. Providers that this
//! client does not know take `--param KEY=VALUE`.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

/// A parameter of one or more shipped providers.
#[derive(Debug)]
pub(crate) struct ProviderFlag {
    /// Name in `spec.config` or in the Secret.
    pub parameter: &'static str,
    pub flag: &'static str,
    pub description: &'static str,
    pub boolean: bool,
    pub secret: bool,
    /// Names of the providers that have it.
    pub providers: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/provider_flags.rs"));

/// What was given by such flags, by parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProviderFlags(pub BTreeMap<String, String>);

impl clap::Args for ProviderFlags {
    fn augment_args(mut command: Command) -> Command {
        for flag in FLAGS {
            let help = if flag.description.is_empty() {
                format!("[{}]", flag.providers)
            } else {
                format!("{} [{}]", flag.description, flag.providers)
            };
            let arg = Arg::new(flag.parameter).long(flag.flag).help(help).value_name(if flag.boolean {
                "BOOL"
            } else {
                "VALUE"
            });
            let arg = arg.action(ArgAction::Set).help_heading("Parameters of the provider");
            let arg =
                if flag.boolean { arg.num_args(0..=1).default_missing_value("true").require_equals(true) } else { arg };
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ProviderFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in FLAGS {
            if let Some(value) = matches.get_one::<String>(flag.parameter) {
                self.0.insert(flag.parameter.to_owned(), value.clone());
            }
        }
        Ok(())
    }
}

/// Parameters that hold secrets and were given as flags: they stand in the shell's history now.
pub(crate) fn secrets_given(flags: &ProviderFlags) -> Vec<&'static str> {
    FLAGS.iter().filter(|flag| flag.secret && flags.0.contains_key(flag.parameter)).map(|flag| flag.flag).collect()
}

/// `KBBACKUP_SECRET_ACCESS_KEY` for `secretAccessKey`.
pub(crate) fn variable(parameter: &str) -> String {
    let mut name = String::from("KBBACKUP_");
    for c in parameter.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_after_parameters() {
        assert_eq!(variable("secretAccessKey"), "KBBACKUP_SECRET_ACCESS_KEY");
    }
}
