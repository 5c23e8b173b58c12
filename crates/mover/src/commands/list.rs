//! `list`: what lies below a path, in the contract's order and formats.

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Context;
use crate::args::{Flag, Parsed, Takes, flag};
use crate::error::{Cause, Error, Result};
use crate::glob;
use crate::output;
use crate::repo::Repo;
use crate::rpath::{Target, split};
use crate::storage::{By, Depth, Entry, Found, Held, no_directory};

pub(super) const FLAGS: &[Flag] = &[
    flag("dirs-only", Some('d'), Takes::Nothing, "only directories"),
    flag("files-only", Some('f'), Takes::Nothing, "only files"),
    flag("recursive", Some('r'), Takes::Nothing, "the whole tree"),
    flag("max-depth", None, Takes::Int, "so many levels"),
    flag("sort", Some('s'), Takes::OneOf(&["path", "size", "mtime"]), "sort by this"),
    flag("reverse", None, Takes::Nothing, "sort downwards"),
    flag("newer-than", None, Takes::Int, "only entries modified after this Unix time"),
    flag("older-than", None, Takes::Int, "only entries modified before this Unix time"),
    flag("name", None, Takes::Text, "only entries whose base name matches"),
    flag("output-format", Some('o'), Takes::OneOf(&["short", "long", "json"]), "how to print"),
];

pub(super) async fn run(context: Context) -> Result<()> {
    let [remote] = context.args.exactly()?;
    let repo = context.repo()?;
    let args = &context.args;
    if args.is_set("dirs-only") && args.is_set("files-only") {
        return Err(Error::other(
            "if any flags in the group [dirs-only files-only] are set none of the others can be; \
             [dirs-only files-only] were all set",
        ));
    }
    let target = repo.base.resolve(remote)?;
    let filter = Filter::new(args);
    let mut printer = Printer::new(args.text("output-format").unwrap_or("short"));

    if !target.slash && !target.path.is_empty() {
        match repo.lookup(&target.key).await {
            Ok(Found::File(entry)) => {
                let entries = repo.view(entry).filter(|entry| filter.accepts(entry)).into_iter().collect();
                printer.print(&repo, entries)?;
                return printer.finish();
            }
            Ok(Found::Missing) if repo.store.has_directories() => return Err(no_directory()),
            Err(error) if error.is(Cause::NotDirectory) => return Err(no_directory()),
            other => drop(other?),
        }
    }
    match list(&repo, &target, args, &filter, &mut printer).await {
        Err(error) if (error.is(Cause::NotFound) || error.is(Cause::NoSuchBucket)) && is_excused(&repo, &target) => {
            output::note(&format!("ERROR : {}error listing: directory not found", name_of(&repo)));
        }
        other => other?,
    }
    printer.finish()
}

/// The root of a repository that nobody wrote to yet is an empty listing, not an error.
fn is_excused(repo: &Repo, target: &Target) -> bool {
    matches!(target.given.as_str(), "/" | ".") || repo.encryption.is_some() && target.path.is_empty()
}

fn name_of(repo: &Repo) -> String {
    if repo.base.key().is_empty() { String::new() } else { format!("{}: ", repo.base.key()) }
}

async fn list(repo: &Repo, target: &Target, args: &Parsed, filter: &Filter<'_>, printer: &mut Printer) -> Result<()> {
    let recursive = args.is_set("recursive");
    let depth = match args.int("max-depth") {
        levels if levels > 0 => Depth::Levels(levels as usize),
        _ if recursive => Depth::All,
        _ => Depth::Levels(1),
    };
    let accepted = |entries: Vec<Entry>| -> Vec<Entry> {
        entries
            .into_iter()
            .filter_map(|entry| repo.view(entry))
            .filter(|entry| filter.accepts_kind(entry) && filter.accepts(entry))
            .collect()
    };
    if recursive && args.text("sort").is_none() {
        return repo.store.walk(&target.key, depth, &mut |entries| printer.print(repo, accepted(entries))).await;
    }
    let (by, reverse) = (args.text("sort").unwrap_or("path"), args.is_set("reverse"));
    if by == "path" && !reverse && depth == Depth::Levels(1) && repo.store.lists_in_order() {
        return repo.store.walk(&target.key, depth, &mut |entries| printer.print(repo, accepted(entries))).await;
    }
    let mut all = Held::default();
    repo.store
        .walk(&target.key, depth, &mut |entries| {
            for entry in accepted(entries) {
                all.push(&entry);
            }
            Ok(())
        })
        .await?;
    all.sort(
        match by {
            "size" => By::Size,
            "mtime" => By::Modified,
            _ => By::Name,
        },
        reverse,
    );
    all.dedup();
    all.visit(&mut |entries| printer.print(repo, entries))
}

struct Filter<'a> {
    dirs_only: bool,
    files_only: bool,
    newer_than: i64,
    older_than: i64,
    name: Option<&'a str>,
}

impl<'a> Filter<'a> {
    fn new(args: &'a Parsed) -> Self {
        Self {
            dirs_only: args.is_set("dirs-only"),
            files_only: args.is_set("files-only"),
            newer_than: args.int("newer-than"),
            older_than: args.int("older-than"),
            name: args.text("name").filter(|name| !name.is_empty()),
        }
    }

    fn accepts_kind(&self, entry: &Entry) -> bool {
        !(self.dirs_only && !entry.dir || self.files_only && entry.dir)
    }

    fn accepts(&self, entry: &Entry) -> bool {
        let seconds = seconds(entry.modified);
        (self.newer_than <= 0 || seconds > self.newer_than)
            && (self.older_than <= 0 || seconds < self.older_than)
            && self.name.is_none_or(|pattern| glob::matches(pattern, split(&entry.key).1))
    }
}

/// Whole seconds, rounded down.
fn seconds(time: Timestamp) -> i64 {
    time.as_millisecond().div_euclid(1000)
}

enum Format {
    Short,
    Long,
    Json,
}

/// Prints entries as they come, without keeping them.
struct Printer {
    format: Format,
    zone: TimeZone,
    out: std::io::BufWriter<std::io::Stdout>,
    printed: bool,
}

impl Printer {
    fn new(format: &str) -> Self {
        let format = match format {
            "json" => Format::Json,
            "long" => Format::Long,
            _ => Format::Short,
        };
        Self { format, zone: TimeZone::system(), out: std::io::BufWriter::new(std::io::stdout()), printed: false }
    }

    fn print(&mut self, repo: &Repo, entries: Vec<Entry>) -> Result<()> {
        for entry in entries {
            let path = repo.base.strip(&entry.key);
            let slash = if entry.dir { "/" } else { "" };
            let written = match self.format {
                Format::Short => writeln!(self.out, "{path}{slash}"),
                Format::Long => writeln!(self.out, "{}\t{}\t{path}{slash}", self.time(&entry), entry.size),
                // One line in all: whoever reads JSON does not mind, and one reader in the field needs it.
                Format::Json => write!(
                    self.out,
                    "{}{{\"path\":{},\"size\":{},\"mtime\":{},\"mtime_str\":\"{}\",\"is_dir\":{}}}",
                    if self.printed { "," } else { "[" },
                    quote(path),
                    entry.size,
                    seconds(entry.modified),
                    self.time(&entry),
                    entry.dir,
                ),
            };
            written.map_err(|error| failed(&error))?;
            self.printed = true;
        }
        Ok(())
    }

    fn time(&self, entry: &Entry) -> String {
        let time = Timestamp::from_second(seconds(entry.modified)).unwrap_or(Timestamp::UNIX_EPOCH);
        let zoned = time.to_zoned(self.zone.clone());
        let format = if zoned.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        zoned.strftime(format).to_string()
    }

    fn finish(mut self) -> Result<()> {
        let end = match (&self.format, self.printed) {
            (Format::Json, true) => "]\n",
            (Format::Json, false) => "[]\n",
            _ => "",
        };
        self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush()).map_err(|error| failed(&error))
    }
}

fn failed(error: &std::io::Error) -> Error {
    Error::file("write", std::path::Path::new("/dev/stdout"), error)
}

/// A JSON string in the contract's escapes.
fn quote(text: &str) -> String {
    let mut quoted = serde_json::Value::from(text).to_string();
    for (letter, escape) in
        [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")]
    {
        if quoted.contains(letter) {
            quoted = quoted.replace(letter, escape);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_like_the_reference() {
        assert_eq!(quote("a<b>&\"\u{2028}"), r#""a\u003cb\u003e\u0026\"\u2028""#);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        assert_eq!(seconds(Timestamp::from_millisecond(-1).unwrap()), -1);
        assert_eq!(seconds(Timestamp::from_millisecond(1_700_000_000_700).unwrap()), 1_700_000_000);
    }
}
