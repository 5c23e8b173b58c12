//! What an append-only file is made of: commands as clients send them, transactions, and notes of the time.
//!
//! Bytes are fed as they come. What a command does never matters here, only where it ends: values are passed over, not kept.

use crate::error::{Cause, Error, Result};

/// No line is longer: a count, a length, or a note.
const LONGEST_LINE: usize = 1024;
/// As far as the name of a command is looked at.
const WORD: usize = 8;
const NOTE_OF_TIME: &str = "#TS:";

/// What is expected next.
#[derive(Clone, Debug)]
enum Expected {
    /// A note, or the number of parts of a command.
    Start,
    /// The length of a part. So many parts are left, with it.
    Length { parts: u64, first: bool },
    /// The rest of a part with its line's end.
    Part { left: u64, parts: u64, first: bool },
}

/// Reads an append-only file, and knows where it may end.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    expected: Expected,
    line: Vec<u8>,
    /// The beginning of the command's name.
    word: Vec<u8>,
    within: bool,
    /// How much was fed, in bytes.
    pub(crate) at: u64,
    /// Behind the last whole command, or transaction, or note.
    pub(crate) whole: u64,
    /// The first and the last time that is noted before `whole`, in seconds since the Unix epoch.
    pub(crate) times: Option<(i64, i64)>,
    noted: Option<(i64, i64)>,
    /// Times up to here are wanted.
    limit: Option<i64>,
    /// Whether something later was met: what is wanted ends at `whole`.
    pub(crate) passed: bool,
}

impl Scanner {
    /// Begins at a byte between two commands; `times` are those before it.
    pub(crate) fn new(at: u64, times: Option<(i64, i64)>) -> Self {
        Self {
            expected: Expected::Start,
            line: Vec::new(),
            word: Vec::new(),
            within: false,
            at,
            whole: at,
            times,
            noted: times,
            limit: None,
            passed: false,
        }
    }

    /// The same, up to a time in seconds since the Unix epoch and with everything of that second.
    pub(crate) fn up_to(mut self, limit: Option<i64>) -> Self {
        self.limit = limit;
        self
    }

    /// Reads on. Once a time behind the wanted ones was met, nothing more is read.
    ///
    /// # Errors
    /// [`Cause::Damaged`] with the place, when it is no append-only file.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() && !self.passed {
            let taken = match self.expected {
                Expected::Part { left, parts, first } => self.part(bytes, left, parts, first)?,
                Expected::Start | Expected::Length { .. } => self.line(bytes)?,
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Takes some of a part.
    fn part(&mut self, bytes: &[u8], left: u64, parts: u64, first: bool) -> Result<usize> {
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let now = &bytes[..taken];
        if first {
            let room = WORD.saturating_sub(self.word.len()).min(taken);
            self.word.extend_from_slice(&now[..room]);
        }
        // The last two bytes end the line.
        for (offset, byte) in now.iter().enumerate().skip(taken.saturating_sub(2)) {
            let wanted = match left - offset as u64 {
                2 => b'\r',
                1 => b'\n',
                _ => continue,
            };
            if *byte != wanted {
                return Err(self.damaged(offset as u64, "a value does not end where it should"));
            }
        }
        self.at += taken as u64;
        let left = left - taken as u64;
        self.expected = Expected::Part { left, parts, first };
        if left == 0 {
            self.next(parts - 1);
        }
        Ok(taken)
    }

    /// So many parts of the command are left.
    fn next(&mut self, parts: u64) {
        if parts > 0 {
            self.expected = Expected::Length { parts, first: false };
            return;
        }
        self.expected = Expected::Start;
        let word = std::mem::take(&mut self.word).to_ascii_uppercase();
        // Parts of up to eight bytes come with their line's end.
        match word.strip_suffix(b"\r\n").unwrap_or(&word) {
            b"MULTI" => self.within = true,
            b"EXEC" => self.within = false,
            _ => {}
        }
        self.settle();
    }

    /// Takes note of a place between two commands.
    fn settle(&mut self) {
        if !self.within {
            self.whole = self.at;
            self.times = self.noted;
        }
    }

    /// Takes some of a line.
    fn line(&mut self, bytes: &[u8]) -> Result<usize> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        self.line.extend_from_slice(&bytes[..taken]);
        if self.line.len() > LONGEST_LINE {
            return Err(self.damaged(0, "a line is too long"));
        }
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
            let begins = self.at + taken as u64 - line.len() as u64;
            self.at += taken as u64;
            let Some(()) = text.and_then(|text| self.read(text)) else {
                return Err(Error::new(Cause::Damaged, format!("at byte {begins}: this is no append-only file")));
            };
            if self.passed {
                self.at = begins;
            }
        } else {
            self.at += taken as u64;
        }
        Ok(taken)
    }

    /// Reads a line; `None` when it is not what belongs here.
    fn read(&mut self, text: &str) -> Option<()> {
        match self.expected {
            Expected::Start if text.starts_with('#') => {
                if let Some(time) = text.strip_prefix(NOTE_OF_TIME) {
                    let time: i64 = time.parse().ok()?;
                    if self.limit.is_some_and(|limit| time > limit) {
                        self.passed = true;
                        return Some(());
                    }
                    self.noted = Some(self.noted.map_or((time, time), |(first, last)| (first, last.max(time))));
                }
                self.settle();
            }
            Expected::Start => {
                let parts: u64 = text.strip_prefix('*')?.parse().ok()?;
                self.word.clear();
                self.expected = Expected::Length { parts, first: true };
                if parts == 0 {
                    return None;
                }
            }
            Expected::Length { parts, first } => {
                let size: u64 = text.strip_prefix('$')?.parse().ok()?;
                self.expected = Expected::Part { left: size.checked_add(2)?, parts, first };
            }
            Expected::Part { .. } => return None,
        }
        Some(())
    }

    fn damaged(&self, offset: u64, why: &str) -> Error {
        Error::new(Cause::Damaged, format!("at byte {}: {why}", self.at + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            text.extend_from_slice(word);
            text.extend_from_slice(b"\r\n");
        }
        text
    }

    fn set(value: &[u8]) -> Vec<u8> {
        command(&[b"SET", b"k", value])
    }

    #[test]
    fn it_may_end_behind_commands_transactions_and_notes() {
        let mut file = b"#TS:100\r\n".to_vec();
        let mut ends = vec![0, file.len()];
        file.extend(set(b"#TS:999\r\n*1\r\n\0\xff"));
        ends.push(file.len());
        for word in [&b"multi"[..], b"SET"] {
            file.extend(if word == b"SET" { set(b"") } else { command(&[word]) });
        }
        file.extend_from_slice(b"#TS:101\r\n");
        file.extend(command(&[b"EXEC"]));
        ends.push(file.len());
        file.extend_from_slice(b"#something else\r\n");
        ends.push(file.len());
        for cut in 0..=file.len() {
            // In pieces of every size.
            for size in [1, 2, 3, 7, 1000] {
                let mut scanner = Scanner::new(0, None);
                for piece in file[..cut].chunks(size) {
                    scanner.feed(piece).unwrap();
                }
                let whole = ends.iter().rfind(|end| **end <= cut).unwrap();
                assert_eq!((scanner.at, scanner.whole), (cut as u64, *whole as u64), "{cut} in pieces of {size}");
                let last = if *whole >= ends[3] { 101 } else { 100 };
                assert_eq!(scanner.times, (*whole > 0).then_some((100, last)));
            }
        }
    }

    #[test]
    fn what_is_later_is_left_out_and_a_transaction_as_a_whole() {
        let mut file = b"#TS:100\r\n".to_vec();
        file.extend(set(b"a"));
        file.extend_from_slice(b"#TS:102\r\n");
        file.extend(set(b"b"));
        let second = file.len() as u64;
        file.extend(command(&[b"MULTI"]));
        file.extend(set(b"c"));
        file.extend_from_slice(b"#TS:104\r\n");
        file.extend(command(&[b"EXEC"]));
        let all = file.len() as u64;
        let first = 9 + set(b"a").len() as u64;
        for (limit, whole, passed) in [
            (99, 0, true),
            (100, first, true),
            (101, first, true),
            (102, second, true),
            (103, second, true),
            (104, all, false),
        ] {
            for size in [1, 5, 1000] {
                let mut scanner = Scanner::new(0, None).up_to(Some(limit));
                for piece in file.chunks(size) {
                    scanner.feed(piece).unwrap();
                }
                assert_eq!((scanner.whole, scanner.passed), (whole, passed), "{limit}");
            }
        }
    }

    #[test]
    fn what_is_no_append_only_file_is_told_with_its_place() {
        let good = set(b"a").len();
        for (tail, place) in [
            (&b"REDIS0011"[..], None),
            (b"GET k\r\n", Some(good)),
            (b"*1\r\n:5\r\n", Some(good + 4)),
            (b"*1\r\n$1\r\nab\r\n", Some(good + 9)),
            (b"*0\r\n", Some(good)),
            (b"*-1\r\n", Some(good)),
            (b"*1\r\n$18446744073709551615\r\n", Some(good + 4)),
            (b"#TS:x\r\n", Some(good)),
            (b"*1\n", Some(good)),
        ] {
            let mut file = set(b"a");
            file.extend_from_slice(tail);
            let mut scanner = Scanner::new(0, None);
            let outcome = scanner.feed(&file);
            match place {
                None => assert!(outcome.is_ok() && scanner.whole == good as u64, "it may still become one"),
                Some(place) => {
                    let error = outcome.unwrap_err();
                    assert_eq!(error.cause, Cause::Damaged);
                    assert!(error.text.starts_with(&format!("at byte {place}:")), "{tail:?}: {}", error.text);
                }
            }
            assert_eq!(scanner.whole, good as u64);
        }
        assert!(Scanner::new(0, None).feed(&[b'x'; 2000]).is_err(), "no line is that long");
    }
}
