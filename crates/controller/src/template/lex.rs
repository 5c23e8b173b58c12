//! Text and actions, and the words inside actions.

use super::TemplateError;

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.`, alone.
    Dot,
    /// `.name`. `glued` when nothing stands between it and the word before it.
    Field { name: String, glued: bool },
    /// `$name`; `$` has the empty name.
    Variable(String),
    /// A name: function or keyword.
    Word(String),
    /// A text literal.
    Text(String),
    /// A number, as written.
    Number(String),
    /// `(`, `)`, `|`, `,`, `=`, `:=`.
    Sign(&'static str),
}

/// A part of the template, with the line where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    Action(usize, Vec<Token>),
}

pub(super) fn lex(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut trim = false;
    let line_of = |rest: &str| 1 + text[..text.len() - rest.len()].matches('\n').count();
    while let Some(at) = rest.find("{{") {
        let line = line_of(&rest[at..]);
        let mut before = if trim { rest[..at].trim_start() } else { &rest[..at] };
        let mut inside = &rest[at + 2..];
        if let Some(trimmed) = inside.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace)) {
            before = before.trim_end();
            inside = trimmed;
        }
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let (tokens, after, trim_after) = action(inside).map_err(|what| TemplateError { line, what })?;
        if let Some(tokens) = tokens {
            parts.push(Part::Action(line, tokens));
        }
        rest = after;
        trim = trim_after;
    }
    let tail = if trim { rest.trim_start() } else { rest };
    if !tail.is_empty() {
        parts.push(Part::Text(tail.to_owned()));
    }
    Ok(parts)
}

/// The words of an action (none for a comment), what follows it, and whether white space there is dropped.
type Action<'a> = (Option<Vec<Token>>, &'a str, bool);

fn action(inside: &str) -> Result<Action<'_>, String> {
    if let Some(comment) = inside.trim_start().strip_prefix("/*") {
        let (_, after) = comment.split_once("*/").ok_or("a comment is not closed")?;
        let after = after.trim_start();
        return match (after.strip_prefix("}}"), after.strip_prefix("-}}")) {
            (Some(after), _) => Ok((None, after, false)),
            (_, Some(after)) => Ok((None, after, true)),
            _ => Err("a comment fills its action alone".into()),
        };
    }
    let mut tokens = Vec::new();
    let mut rest = inside;
    loop {
        let trimmed = rest.trim_start();
        let spaced = trimmed.len() != rest.len();
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((Some(tokens), after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((Some(tokens), after, true));
        }
        let (token, after) = token(rest, spaced)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(rest: &str, spaced: bool) -> Result<(Token, &str), String> {
    let first = rest.chars().next().ok_or("{{ is not closed")?;
    let name_end = |text: &str| text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    match first {
        '"' => quoted(rest),
        '`' => {
            let (text, after) = rest[1..].split_once('`').ok_or("a ` is not closed")?;
            Ok((Token::Text(text.to_owned()), after))
        }
        '\'' => character(&rest[1..]),
        '$' => {
            let (name, after) = rest[1..].split_at(name_end(&rest[1..]));
            Ok((Token::Variable(name.to_owned()), after))
        }
        '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let (name, after) = rest[1..].split_at(name_end(&rest[1..]));
            let token = if name.is_empty() { Token::Dot } else { Token::Field { name: name.into(), glued: !spaced } };
            Ok((token, after))
        }
        ':' if rest.starts_with(":=") => Ok((Token::Sign(":="), &rest[2..])),
        _ if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') => {
            let end = rest[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
            let (number, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            Ok((Token::Number(number.to_owned()), after))
        }
        _ if first.is_alphabetic() || first == '_' => {
            let (name, after) = rest.split_at(name_end(rest));
            Ok((Token::Word(name.to_owned()), after))
        }
        _ => match ["(", ")", "|", ",", "="].into_iter().find(|sign| rest.starts_with(sign)) {
            Some(sign) => Ok((Token::Sign(sign), &rest[1..])),
            None => Err(format!("unexpected {first:?}")),
        },
    }
}

/// A Go string literal; its escapes are those of Go.
fn quoted(rest: &str) -> Result<(Token, &str), String> {
    let mut text = String::new();
    let mut from = &rest[1..];
    loop {
        let mut chars = from.chars();
        match chars.next().filter(|c| *c != '\n').ok_or("a \" is not closed")? {
            '"' => return Ok((Token::Text(text), chars.as_str())),
            '\\' => {
                let (char, after) = escape(chars.as_str())?;
                text.push(char);
                from = after;
            }
            char => {
                text.push(char);
                from = chars.as_str();
            }
        }
    }
}

/// A character literal is its number.
fn character(rest: &str) -> Result<(Token, &str), String> {
    let mut chars = rest.chars();
    let (char, after) = match chars.next().ok_or("a ' is not closed")? {
        '\\' => escape(chars.as_str())?,
        char => (char, chars.as_str()),
    };
    let after = after.strip_prefix('\'').ok_or("a ' is not closed")?;
    Ok((Token::Number(u32::from(char).to_string()), after))
}

fn escape(rest: &str) -> Result<(char, &str), String> {
    let mut chars = rest.chars();
    let kind = chars.next().ok_or("a \" is not closed")?;
    let after = chars.as_str();
    let digits = |count: usize, radix: u32, from: usize| {
        let digits = rest.get(from..from + count)?;
        let char = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
        Some((char, &rest[from + count..]))
    };
    let simple = |char: char| Some((char, after));
    match kind {
        'n' => simple('\n'),
        't' => simple('\t'),
        'r' => simple('\r'),
        'a' => simple('\x07'),
        'b' => simple('\x08'),
        'f' => simple('\x0c'),
        'v' => simple('\x0b'),
        '\\' | '"' | '\'' => simple(kind),
        'x' => digits(2, 16, 1),
        'u' => digits(4, 16, 1),
        'U' => digits(8, 16, 1),
        '0'..='7' => digits(3, 8, 0),
        _ => None,
    }
    .ok_or_else(|| format!("unknown escape \\{kind}"))
}
