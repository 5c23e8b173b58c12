//! The functions: Go's own, and those of Sprig that only turn texts, lists and maps into others.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::eval::{LIMIT, compare};
use super::numbers::{float, int};
use super::sprig;

/// How Go prints a value, except that nothing is printed for nothing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut items: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            items.sort();
            format!("map[{}]", items.join(" "))
        }
        // Go writes whole floats without a point.
        Value::Number(number) if number.is_f64() => float(value).to_string(),
        other => other.to_string(),
    }
}

/// Go's truth: what is zero or empty is false.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

pub(super) type Outcome = Result<Value, String>;

pub(super) fn call(name: &str, args: &[Value]) -> Outcome {
    let want = |count: usize| {
        if args.len() == count { Ok(()) } else { Err(format!("{name} wants {count} arguments, not {}", args.len())) }
    };
    let at_least = |count: usize| {
        if args.len() >= count { Ok(()) } else { Err(format!("{name} wants {count} arguments or more")) }
    };
    let arg = |index: usize| text(args.get(index).unwrap_or(&Value::Null));
    // One-argument functions of text.
    let of_text = |function: fn(&str) -> String| want(1).map(|()| json!(function(&arg(0))));
    // Two-argument functions of text: the subject comes last, so that it can be piped.
    let of_two = |function: fn(&str, &str) -> Value| want(2).map(|()| function(&arg(0), &arg(1)));
    match name {
        // Go
        "and" => Ok(args.iter().find(|value| !is_true(value)).or(args.last()).cloned().unwrap_or_default()),
        "or" => Ok(args.iter().find(|value| is_true(value)).or(args.last()).cloned().unwrap_or_default()),
        "not" => want(1).map(|()| json!(!is_true(&args[0]))),
        "eq" => {
            at_least(2).map(|()| json!(args[1..].iter().any(|other| compare(&args[0], other) == Some(Ordering::Equal))))
        }
        "ne" => want(2).map(|()| json!(compare(&args[0], &args[1]) != Some(Ordering::Equal))),
        "lt" => ordered(name, args, Ordering::is_lt),
        "le" => ordered(name, args, Ordering::is_le),
        "gt" => ordered(name, args, Ordering::is_gt),
        "ge" => ordered(name, args, Ordering::is_ge),
        "index" => {
            at_least(1).and_then(|()| args[1..].iter().try_fold(args[0].clone(), |value, key| item(&value, key)))
        }
        "len" => want(1).and_then(|()| length(&args[0])),
        "print" => Ok(json!(print(args))),
        "println" => Ok(json!(args.iter().map(text).collect::<Vec<_>>().join(" ") + "\n")),
        "printf" => at_least(1).and_then(|()| printf(&arg(0), &args[1..]).map(|text| json!(text))),
        "urlquery" => Ok(json!(url_query(&print(args)))),
        // Sprig: defaults
        "default" => at_least(1).map(|()| match args.get(1) {
            Some(given) if is_true(given) => given.clone(),
            _ => args[0].clone(),
        }),
        "empty" => want(1).map(|()| json!(!is_true(&args[0]))),
        "coalesce" => Ok(args.iter().find(|value| is_true(value)).cloned().unwrap_or_default()),
        "ternary" => want(3).map(|()| if is_true(&args[2]) { args[0].clone() } else { args[1].clone() }),
        "fail" => Err(arg(0)),
        "required" => want(2).and_then(|()| if is_true(&args[1]) { Ok(args[1].clone()) } else { Err(arg(0)) }),
        // Sprig: text
        "upper" => of_text(str::to_uppercase),
        "lower" => of_text(str::to_lowercase),
        "title" => of_text(|text| first_letters(text, char::to_ascii_uppercase)),
        "untitle" => of_text(|text| first_letters(text, char::to_ascii_lowercase)),
        "trim" => of_text(|text| text.trim().to_owned()),
        "nospace" => of_text(|text| text.split_whitespace().collect()),
        "trimAll" | "trimall" => of_two(|set, text| json!(text.trim_matches(|c| set.contains(c)))),
        "trimPrefix" => of_two(|part, text| json!(text.strip_prefix(part).unwrap_or(text))),
        "trimSuffix" => of_two(|part, text| json!(text.strip_suffix(part).unwrap_or(text))),
        "hasPrefix" => of_two(|part, text| json!(text.starts_with(part))),
        "hasSuffix" => of_two(|part, text| json!(text.ends_with(part))),
        "contains" => of_two(|part, text| json!(text.contains(part))),
        "replace" => want(3).map(|()| json!(arg(2).replace(&arg(0), &arg(1)))),
        "repeat" => want(2).and_then(|()| repeated(&arg(1), int(&args[0])).map(|text| json!(text))),
        "trunc" => want(2).map(|()| json!(truncated(&arg(1), int(&args[0])))),
        "substr" => want(3).map(|()| json!(substring(&arg(2), int(&args[0]), int(&args[1])))),
        "indent" => want(2).and_then(|()| indented(&arg(1), int(&args[0])).map(|text| json!(text))),
        "nindent" => want(2).and_then(|()| indented(&arg(1), int(&args[0])).map(|text| json!(format!("\n{text}")))),
        "quote" => Ok(json!(given(args).map(|value| quoted(&text(value))).collect::<Vec<_>>().join(" "))),
        "squote" => Ok(json!(given(args).map(|value| format!("'{}'", text(value))).collect::<Vec<_>>().join(" "))),
        "cat" => Ok(json!(given(args).map(text).collect::<Vec<_>>().join(" "))),
        "toString" => want(1).map(|()| json!(arg(0))),
        "b64enc" => of_text(|text| encode_base64(text.as_bytes())),
        "b64dec" => want(1).and_then(|()| decode_base64(&arg(0)).map(|text| json!(text))),
        // Sprig: lists
        "splitList" => of_two(|separator, text| json!(text.split(separator).collect::<Vec<_>>())),
        "split" => of_two(|separator, text| {
            text.split(separator)
                .enumerate()
                .map(|(at, part)| (format!("_{at}"), json!(part)))
                .collect::<Map<_, _>>()
                .into()
        }),
        "join" => want(2).map(|()| json!(list(&args[1]).iter().map(text).collect::<Vec<_>>().join(&arg(0)))),
        "list" | "tuple" => Ok(json!(args)),
        "first" => want(1).map(|()| list(&args[0]).first().cloned().unwrap_or_default()),
        "last" => want(1).map(|()| list(&args[0]).last().cloned().unwrap_or_default()),
        "rest" => want(1).map(|()| json!(list(&args[0]).get(1..).unwrap_or_default())),
        "initial" => want(1).map(|()| json!(list(&args[0]).split_last().map_or(&[][..], |(_, initial)| initial))),
        "reverse" => want(1).map(|()| json!(list(&args[0]).into_iter().rev().collect::<Vec<_>>())),
        "append" => want(2).map(|()| json!([list(&args[0]), vec![args[1].clone()]].concat())),
        "prepend" => want(2).map(|()| json!([vec![args[1].clone()], list(&args[0])].concat())),
        "concat" => Ok(json!(args.iter().flat_map(list).collect::<Vec<_>>())),
        "compact" => want(1).map(|()| json!(list(&args[0]).into_iter().filter(is_true).collect::<Vec<_>>())),
        "without" => at_least(1)
            .map(|()| json!(list(&args[0]).into_iter().filter(|v| !args[1..].contains(v)).collect::<Vec<_>>())),
        "has" => want(2).map(|()| json!(list(&args[1]).contains(&args[0]))),
        "uniq" => want(1).map(|()| {
            let mut seen: Vec<Value> = Vec::new();
            list(&args[0])
                .into_iter()
                .filter(|v| {
                    !seen.contains(v) && {
                        seen.push(v.clone());
                        true
                    }
                })
                .collect::<Vec<_>>()
                .into()
        }),
        "sortAlpha" => want(1).map(|()| {
            let mut texts: Vec<_> = list(&args[0]).iter().map(text).collect();
            texts.sort();
            json!(texts)
        }),
        // Sprig: maps
        "dict" => Ok(args
            .chunks(2)
            .map(|pair| (text(&pair[0]), pair.get(1).cloned().unwrap_or_default()))
            .collect::<Map<_, _>>()
            .into()),
        "get" => want(2).map(|()| args[0].get(arg(1)).cloned().unwrap_or_else(|| json!(""))),
        "hasKey" => want(2).map(|()| json!(args[0].get(arg(1)).is_some())),
        "keys" => Ok(json!(args.iter().filter_map(Value::as_object).flat_map(Map::keys).collect::<Vec<_>>())),
        "values" => Ok(json!(args.iter().filter_map(Value::as_object).flat_map(Map::values).collect::<Vec<_>>())),
        "toJson" => want(1).map(|()| json!(for_html(&args[0].to_string()))),
        "toPrettyJson" => want(1).map(|()| json!(for_html(&format!("{:#}", args[0])))),
        "fromJson" => {
            want(1).and_then(|()| serde_json::from_str(&arg(0)).map_err(|error| format!("fromJson: {error}")))
        }
        // Sprig: numbers
        "int" | "int64" | "atoi" => want(1).map(|()| json!(int(&args[0]))),
        "float64" => want(1).map(|()| json!(float(&args[0]))),
        "add" => fold(name, args, i64::checked_add),
        "add1" => want(1).and_then(|()| fold(name, &[args[0].clone(), json!(1)], i64::checked_add)),
        "sub" => want(2).and_then(|()| fold(name, args, i64::checked_sub)),
        "mul" => fold(name, args, i64::checked_mul),
        "div" => want(2).and_then(|()| fold(name, args, i64::checked_div)),
        "mod" => want(2).and_then(|()| fold(name, args, i64::checked_rem)),
        "max" => fold(name, args, |one, two| Some(one.max(two))),
        "min" => fold(name, args, |one, two| Some(one.min(two))),
        _ => sprig::call(name, args),
    }
}

/// `quote` and its like leave out what is nil.
fn given(args: &[Value]) -> impl Iterator<Item = &Value> {
    args.iter().filter(|value| !value.is_null())
}

fn ordered(name: &str, args: &[Value], holds: fn(Ordering) -> bool) -> Outcome {
    let [one, two] = args else { return Err(format!("{name} wants 2 arguments, not {}", args.len())) };
    compare(one, two).map(|order| json!(holds(order))).ok_or_else(|| format!("{name} cannot compare {one} with {two}"))
}

fn item(value: &Value, key: &Value) -> Outcome {
    match value {
        // A map of texts gives its zero value, the empty text, for a key that it does not have.
        Value::Object(map) => Ok(map.get(&text(key)).cloned().unwrap_or_else(|| json!(""))),
        Value::Array(items) => {
            let at = usize::try_from(int(key)).ok();
            at.and_then(|at| items.get(at)).cloned().ok_or_else(|| format!("index {key} is out of range"))
        }
        Value::Null => Ok(Value::Null),
        other => Err(format!("cannot index {other}")),
    }
}

fn length(value: &Value) -> Outcome {
    match value {
        Value::String(text) => Ok(json!(text.len())),
        Value::Array(items) => Ok(json!(items.len())),
        Value::Object(map) => Ok(json!(map.len())),
        Value::Null => Ok(json!(0)),
        other => Err(format!("{other} has no length")),
    }
}

/// Sprig's lists may be nothing.
pub(super) fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::Null => Vec::new(),
        other => vec![other.clone()],
    }
}

fn fold(name: &str, args: &[Value], step: fn(i64, i64) -> Option<i64>) -> Outcome {
    let mut numbers = args.iter().map(int);
    let first = numbers.next().unwrap_or(0);
    numbers.try_fold(first, step).map(|number| json!(number)).ok_or_else(|| format!("{name} has no result"))
}

/// Go's `print` puts a space between two values of which neither is a text.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in args.iter().enumerate() {
        if at > 0 && !value.is_string() && !args[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&text(value));
    }
    out
}

fn printf(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let verb_at = after
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | ' ' | '#' | '.'))
            .ok_or("printf: a % without a verb")?;
        let (how, tail) = after.split_at(verb_at);
        let mut chars = tail.chars();
        let verb = chars.next().unwrap_or('%');
        rest = chars.as_str();
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = args.next().ok_or_else(|| format!("printf: nothing is left for %{verb}"))?;
        let flags = how.trim_start_matches(|c| "-+ #0".contains(c));
        let (left, zero) = (how[..how.len() - flags.len()].contains('-'), how.starts_with('0'));
        let (width, precision) =
            flags.split_once('.').map_or((flags, None), |(width, precision)| (width, Some(precision)));
        let size = |digits: &str| match digits.parse::<usize>() {
            _ if digits.is_empty() => Ok(0),
            Ok(size) if size <= LIMIT => Ok(size),
            _ => Err(format!("printf: {digits} is too wide")),
        };
        let width = size(width)?;
        let precision = precision.map(size).transpose()?;
        let shown = match (verb, value) {
            ('s' | 'v', value) => {
                let text = text(value);
                precision.map_or_else(|| text.clone(), |most| text.chars().take(most).collect())
            }
            ('d', Value::Number(_)) => int(value).to_string(),
            ('t', Value::Bool(bool)) => bool.to_string(),
            ('q', value) => quoted(&text(value)),
            ('x', Value::Number(_)) => format!("{:x}", int(value)),
            ('X', Value::Number(_)) => format!("{:X}", int(value)),
            ('f' | 'F', Value::Number(_)) => format!("{:.*}", precision.unwrap_or(6), float(value)),
            (_, value) => return Err(format!("printf: %{verb} cannot show {value}")),
        };
        let missing = width.saturating_sub(shown.chars().count());
        match (left, zero) {
            (true, _) => out.extend([shown, " ".repeat(missing)]),
            (false, true) => out.extend(["0".repeat(missing), shown]),
            (false, false) => out.extend([" ".repeat(missing), shown]),
        }
    }
    out.push_str(rest);
    match args.next() {
        None => Ok(out),
        Some(value) => Err(format!("printf: nothing in {format:?} shows {value}")),
    }
}

fn repeated(text: &str, count: i64) -> Result<String, String> {
    let count = usize::try_from(count).unwrap_or(0);
    if text.len().saturating_mul(count) > LIMIT { Err("repeat: too long".into()) } else { Ok(text.repeat(count)) }
}

fn indented(text: &str, spaces: i64) -> Result<String, String> {
    let pad = repeated(" ", spaces)?;
    if pad.len().saturating_mul(text.lines().count()) > LIMIT {
        return Err("indent: too long".into());
    }
    Ok(pad.clone() + &text.replace('\n', &format!("\n{pad}")))
}

/// The first `count` characters, or the last when it is negative.
fn truncated(text: &str, count: i64) -> String {
    let length = text.chars().count();
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(length);
    if count >= 0 { text.chars().take(most).collect() } else { text.chars().skip(length - most).collect() }
}

fn substring(text: &str, from: i64, to: i64) -> String {
    let from = usize::try_from(from).unwrap_or(0);
    let to = usize::try_from(to).unwrap_or(usize::MAX);
    text.chars().take(to).skip(from).collect()
}

fn first_letters(text: &str, change: fn(&char) -> char) -> String {
    let mut begins = true;
    text.chars()
        .map(|char| {
            let changed = if begins { change(&char) } else { char };
            begins = char.is_whitespace();
            changed
        })
        .collect()
}

/// Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_control() => write!(out, "\\x{:02x}", u32::from(control)).unwrap_or(()),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// Go's JSON is safe to stand in HTML; the digest of a rendered text must not depend on who rendered it.
pub(super) fn for_html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn url_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => write!(out, "%{other:02X}").unwrap_or(()),
        }
    }
    out
}

fn encode_base64(bytes: &[u8]) -> String {
    // Kubernetes' own wire form of bytes is standard base64.
    match serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

fn decode_base64(text: &str) -> Result<String, String> {
    let bytes: k8s_openapi::ByteString =
        serde_json::from_value(json!(text)).map_err(|_| "b64dec: not base64".to_owned())?;
    String::from_utf8(bytes.0).map_err(|_| "b64dec: not text".to_owned())
}
