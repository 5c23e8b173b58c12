//! A long list of objects: their text waits in a file without a name, and only what puts them in order is kept in memory.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

use serde_json::{Value, json};

use super::{Format, object};
use crate::error::{CliError, Result};

/// Objects that are written once all of them were seen.
pub(crate) struct Spool<O> {
    format: Format,
    file: BufWriter<File>,
    /// Behind the last one.
    end: u64,
    /// What puts each in order, and where its text is.
    items: Vec<(O, u64, u64)>,
}

/// What stands around the items of a list.
struct Frame {
    head: String,
    between: &'static str,
    tail: String,
}

impl<O: Ord> Spool<O> {
    /// # Errors
    /// When there is no room for temporary files.
    pub(crate) fn new(format: Format) -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| failed(&error))?;
        Ok(Self { format, file: BufWriter::new(file), end: 0, items: Vec::new() })
    }

    /// Takes an object with its kind; `name` is what it is called in a list of names.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn add(&mut self, order: O, name: &str, object: &Value) -> Result<()> {
        let text = match self.format {
            Format::Name => format!("{name}\n"),
            format => item(object, format)?,
        };
        self.file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
        let begin = self.end;
        self.end += text.len() as u64;
        self.items.push((order, begin, self.end));
        Ok(())
    }

    /// Writes all of them, in order.
    ///
    /// # Errors
    /// When the file cannot be read; what is written to may end before.
    pub(crate) fn write(mut self, out: &mut dyn Write) -> Result<()> {
        let frame = frame(self.format, self.items.is_empty())?;
        self.items.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut file = BufReader::new(self.file.into_inner().map_err(|error| failed(error.error()))?);
        // A reader that went away (`| head`) is no error.
        let mut gone = out.write_all(frame.head.as_bytes()).is_err();
        for (at, (_, begin, end)) in self.items.iter().enumerate() {
            if gone {
                return Ok(());
            }
            let mut text = vec![0; usize::try_from(end - begin).unwrap_or(0)];
            file.seek(SeekFrom::Start(*begin))
                .and_then(|_| file.read_exact(&mut text))
                .map_err(|error| failed(&error))?;
            let between = if at == 0 { "" } else { frame.between };
            gone = out.write_all(between.as_bytes()).and_then(|()| out.write_all(&text)).is_err();
        }
        let _ = out.write_all(frame.tail.as_bytes()).and_then(|()| out.flush());
        Ok(())
    }
}

fn failed(error: &io::Error) -> CliError {
    CliError::refused("the list cannot be put in order", format!("its temporary file: {error}"))
}

/// Where the items of a rendered list begin, and what comes behind them.
fn around(format: Format) -> (&'static str, &'static str) {
    match format {
        Format::Json => ("\"items\": [\n", "\n  ]"),
        _ => ("items:\n", ""),
    }
}

/// An object as it stands in a list.
fn item(object: &Value, format: Format) -> Result<String> {
    let text = object::text(&json!({"items": [object]}), format)?;
    let (head, tail) = around(format);
    let begin = text.find(head).map_or(0, |at| at + head.len());
    let end = if tail.is_empty() { text.len() } else { text.rfind(tail).unwrap_or(text.len()) };
    Ok(text[begin..end].to_owned())
}

fn frame(format: Format, empty: bool) -> Result<Frame> {
    if format == Format::Name {
        return Ok(Frame { head: String::new(), between: "", tail: String::new() });
    }
    let items = if empty { json!([]) } else { json!(["THE ITEMS"]) };
    let whole = object::text(&object::list(&items), format)?;
    if empty {
        return Ok(Frame { head: whole, between: "", tail: String::new() });
    }
    let place = item(&json!("THE ITEMS"), format)?;
    let (head, tail) = whole.split_once(&place).unwrap_or((&whole, ""));
    let between = if format == Format::Json { ",\n" } else { "" };
    Ok(Frame { head: head.to_owned(), between, tail: tail.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::ResourceExt;

    fn secret(name: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"a": "b", "on": "off"}},
            "stringData": {"text": "two\nlines ]\n  ]", "items": "[\n"}}))
        .unwrap()
    }

    #[test]
    fn it_is_what_all_at_once_would_be() {
        for format in [Format::Json, Format::Yaml, Format::Name] {
            for count in [0, 1, 3] {
                let secrets: Vec<Secret> = (0..count).map(|number| secret(&format!("s{number}"))).collect();
                let mut spool = Spool::new(format).unwrap();
                for secret in secrets.iter().rev() {
                    let value = object::with_type(secret).unwrap();
                    spool.add(secret.name_any(), &object::name(secret), &value).unwrap();
                }
                let mut told = Vec::new();
                spool.write(&mut told).unwrap();
                let wanted = object::render(&secrets, false, format, false).unwrap();
                assert_eq!(String::from_utf8(told).unwrap(), wanted, "{count}");
            }
        }
    }
}
