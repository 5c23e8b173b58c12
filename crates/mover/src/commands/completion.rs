//! `completion`: a script for a shell, in which the commands and their flags are written down.

use super::{COMMANDS, Context, print};
use crate::args::GLOBAL;
use crate::error::{Error, Result};

pub(super) async fn run(context: Context) -> Result<()> {
    let [shell] = context.args.exactly()?;
    print(&match shell {
        "bash" => bash(),
        // zsh runs functions that were made for bash.
        "zsh" => format!("#compdef datasafed\nautoload -U +X bashcompinit && bashcompinit\n{}", bash()),
        "fish" => fish(),
        "powershell" => powershell(),
        other => {
            let known = "bash, zsh, fish, powershell";
            return Err(Error::other(format!("no completion for the shell {other:?} (known: {known})")));
        }
    })
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).chain(["help"]).collect()
}

/// The flags of a command, the global ones too.
fn flags(own: &[crate::args::Flag]) -> Vec<String> {
    own.iter().chain(GLOBAL).map(|flag| format!("--{}", flag.long)).collect()
}

fn bash() -> String {
    let mut cases = String::new();
    for command in COMMANDS {
        cases += &format!("    {}) words=\"{}\" ;;\n", command.name, flags(command.flags).join(" "));
    }
    let (commands, global) = (names().join(" "), flags(&[]).join(" "));
    format!(
        r#"_datasafed() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words="{global}"
  case "${{COMP_WORDS[1]}}" in
{cases}  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; elif [ "${{word#-}}" = "$word" ]; then words=; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _datasafed datasafed
"#
    )
}

fn fish() -> String {
    let mut text = String::new();
    for command in COMMANDS {
        text += &format!(
            "complete -c datasafed -f -n __fish_use_subcommand -a {} -d '{}'\n",
            command.name,
            command.about.replace('\'', "\\'")
        );
        for flag in command.flags {
            text += &format!(
                "complete -c datasafed -n '__fish_seen_subcommand_from {}' -l {} -d '{}'\n",
                command.name,
                flag.long,
                flag.help.replace('\'', "\\'")
            );
        }
    }
    text
}

fn powershell() -> String {
    let quoted = names().into_iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    format!(
        "Register-ArgumentCompleter -Native -CommandName datasafed -ScriptBlock {{\n  param($word)\n  \
         {quoted} | Where-Object {{ $_ -like \"$word*\" }} | ForEach-Object {{ \
         [System.Management.Automation.CompletionResult]::new($_) }}\n}}\n"
    )
}
