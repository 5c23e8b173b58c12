//! The rarer functions of Sprig: patterns, addresses, digests, kinds, and maps that change.

use regex_lite::Regex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::eval::LIMIT;
use super::funcs::{self, Outcome, is_true, list, text};
use super::numbers::{float, int};

pub(super) fn call(name: &str, args: &[Value]) -> Outcome {
    let want = |count: usize| {
        if args.len() == count { Ok(()) } else { Err(format!("{name} wants {count} arguments, not {}", args.len())) }
    };
    let at_least = |count: usize| {
        if args.len() >= count { Ok(()) } else { Err(format!("{name} wants {count} arguments or more")) }
    };
    let arg = |index: usize| text(args.get(index).unwrap_or(&Value::Null));
    match name {
        // Each reports an error instead of giving nothing, which ours do anyway.
        "mustFromJson"
        | "mustToJson"
        | "mustToPrettyJson"
        | "mustToRawJson"
        | "mustFirst"
        | "mustLast"
        | "mustRest"
        | "mustInitial"
        | "mustAppend"
        | "mustPush"
        | "mustPrepend"
        | "mustReverse"
        | "mustUniq"
        | "mustWithout"
        | "mustHas"
        | "mustCompact"
        | "mustSlice"
        | "mustChunk"
        | "mustMerge"
        | "mustMergeOverwrite"
        | "mustDeepCopy"
        | "mustRegexMatch"
        | "mustRegexFind"
        | "mustRegexFindAll"
        | "mustRegexReplaceAll"
        | "mustRegexReplaceAllLiteral"
        | "mustRegexSplit" => {
            let plain = name.trim_start_matches("must");
            let first = plain[..1].to_lowercase();
            funcs::call(&format!("{first}{}", &plain[1..]), args)
        }
        // Patterns
        "regexMatch" => want(2).and_then(|()| Ok(json!(pattern(&arg(0))?.is_match(&arg(1))))),
        "regexFind" => want(2).and_then(|()| {
            Ok(json!(pattern(&arg(0))?.find(&arg(1)).map(|found| found.as_str().to_owned()).unwrap_or_default()))
        }),
        "regexFindAll" => want(3).and_then(|()| {
            let (regex, subject) = (pattern(&arg(0))?, arg(1));
            Ok(json!(regex.find_iter(&subject).take(most(&args[2])).map(|found| found.as_str()).collect::<Vec<_>>()))
        }),
        "regexReplaceAll" => want(3).and_then(|()| {
            let replaced = pattern(&arg(0))?.replace_all(&arg(1), arg(2).as_str()).into_owned();
            if replaced.len() > LIMIT { Err("regexReplaceAll: too long".into()) } else { Ok(json!(replaced)) }
        }),
        "regexReplaceAllLiteral" => want(3).and_then(|()| {
            Ok(json!(pattern(&arg(0))?.replace_all(&arg(1), regex_lite::NoExpand(&arg(2))).into_owned()))
        }),
        "regexSplit" => want(3).and_then(|()| {
            let (regex, subject) = (pattern(&arg(0))?, arg(1));
            Ok(json!(regex.splitn(&subject, most(&args[2])).collect::<Vec<_>>()))
        }),
        "regexQuoteMeta" => want(1).map(|()| json!(regex_lite::escape(&arg(0)))),
        // Text
        "splitn" => want(3).map(|()| {
            let (separator, subject) = (arg(0), arg(2));
            let parts = subject.splitn(most(&args[1]), separator.as_str()).enumerate();
            parts.map(|(at, part)| (format!("_{at}"), json!(part))).collect::<Map<_, _>>().into()
        }),
        "toStrings" => want(1).map(|()| json!(list(&args[0]).iter().map(text).collect::<Vec<_>>())),
        "sha256sum" => want(1).map(|()| json!(hex::encode(Sha256::digest(arg(0))))),
        "camelcase" => want(1).map(|()| json!(words(&arg(0)).iter().map(|word| capital(word)).collect::<String>())),
        "kebabcase" => want(1).map(|()| json!(words(&arg(0)).join("-"))),
        "snakecase" => want(1).map(|()| json!(words(&arg(0)).join("_"))),
        "urlParse" => want(1).map(|()| address(&arg(0))),
        // Kinds
        "kindOf" => want(1).map(|()| json!(kind(&args[0]))),
        "kindIs" => want(2).map(|()| json!(kind(&args[1]) == arg(0))),
        "deepEqual" => want(2).map(|()| json!(args[0] == args[1])),
        "deepCopy" => want(1).map(|()| args[0].clone()),
        "all" => Ok(json!(args.iter().all(is_true))),
        "any" => Ok(json!(args.iter().any(is_true))),
        // Lists
        "push" => funcs::call("append", args),
        "slice" => at_least(1).and_then(|()| {
            let items = list(&args[0]);
            let bound = |index: usize, default: usize| {
                args.get(index).map_or(Some(default), |value| usize::try_from(int(value)).ok())
            };
            let range = bound(1, 0).zip(bound(2, items.len()));
            let part = range.and_then(|(from, to)| items.get(from..to));
            part.map(|part| json!(part)).ok_or_else(|| "slice: out of range".to_owned())
        }),
        "chunk" => want(2).map(|()| {
            let size = usize::try_from(int(&args[0])).unwrap_or(0).max(1);
            json!(list(&args[1]).chunks(size).collect::<Vec<_>>())
        }),
        "until" => want(1).and_then(|()| steps(0, int(&args[0]), if int(&args[0]) < 0 { -1 } else { 1 })),
        "untilStep" => want(3).and_then(|()| steps(int(&args[0]), int(&args[1]), int(&args[2]))),
        // Maps. `set`, `unset` and the merges change the variable that they are given, see `eval`.
        "set" => want(3).and_then(|()| {
            let mut map = object(name, &args[0])?;
            map.insert(arg(1), args[2].clone());
            Ok(map.into())
        }),
        "unset" => want(2).and_then(|()| {
            let mut map = object(name, &args[0])?;
            map.shift_remove(&arg(1));
            Ok(map.into())
        }),
        "pick" | "omit" => at_least(1).and_then(|()| {
            let named: Vec<String> = args[1..].iter().map(text).collect();
            let mut map = object(name, &args[0])?;
            map.retain(|key, _| named.contains(key) == (name == "pick"));
            Ok(map.into())
        }),
        "pluck" => at_least(1).map(|()| {
            let key = arg(0);
            json!(args[1..].iter().filter_map(|map| map.get(&key)).collect::<Vec<_>>())
        }),
        "merge" => at_least(1).and_then(|()| merged(name, args.iter().rev())),
        "mergeOverwrite" => at_least(1).and_then(|()| merged(name, args.iter())),
        "dig" => at_least(3).map(|()| {
            let (keys, rest) = args.split_at(args.len() - 2);
            let found = keys.iter().try_fold(&rest[1], |value, key| value.get(text(key)));
            found.unwrap_or(&rest[0]).clone()
        }),
        "toRawJson" => want(1).map(|()| json!(args[0].to_string())),
        // Numbers
        "ceil" => want(1).map(|()| json!(float(&args[0]).ceil())),
        "floor" => want(1).map(|()| json!(float(&args[0]).floor())),
        "round" => at_least(2).map(|()| {
            let scale = 10f64.powi(i32::try_from(int(&args[1])).unwrap_or(0));
            json!((float(&args[0]) * scale).round() / scale)
        }),
        "toDecimal" => want(1).and_then(|()| {
            i64::from_str_radix(arg(0).trim(), 8).map(|number| json!(number)).map_err(|error| error.to_string())
        }),
        _ => Err(format!("there is no function {name}")),
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("pattern {text:?}: {error}"))
}

/// A count of Go's: negative means all.
fn most(count: &Value) -> usize {
    usize::try_from(int(count)).unwrap_or(usize::MAX)
}

fn steps(from: i64, to: i64, step: i64) -> Outcome {
    let (way, step) = (i128::from(to) - i128::from(from), i128::from(step));
    if step == 0 || way.signum() != step.signum() {
        return Ok(json!([]));
    }
    let count = (way + step - step.signum()) / step;
    if count > LIMIT as i128 / 16 {
        return Err("too many numbers".into());
    }
    let numbers: Result<Vec<i64>, _> = (0..count).map(|at| i64::try_from(i128::from(from) + at * step)).collect();
    numbers.map(|numbers| json!(numbers)).map_err(|error| error.to_string())
}

fn object(name: &str, value: &Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map.clone()),
        Value::Null => Ok(Map::new()),
        other => Err(format!("{name} wants a map, not {other}")),
    }
}

/// Maps one over the other, the last on top, at every level.
fn merged<'a>(name: &str, maps: impl Iterator<Item = &'a Value>) -> Outcome {
    fn lay(under: &mut Map<String, Value>, over: Map<String, Value>) {
        for (key, value) in over {
            match (under.get_mut(&key), value) {
                (Some(Value::Object(below)), Value::Object(above)) => lay(below, above),
                (_, value) => drop(under.insert(key, value)),
            }
        }
    }
    let mut result = Map::new();
    for map in maps {
        lay(&mut result, object(name, map)?);
    }
    Ok(result.into())
}

/// Go's name for what a value is.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// The words of a name in any of the usual spellings, in lower case.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for char in text.chars() {
        if matches!(char, '-' | '_' | '.') || char.is_whitespace() {
            words.push(String::new());
        } else {
            if char.is_uppercase() && lower_before {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(char.to_lowercase());
            }
        }
        lower_before = char.is_lowercase() || char.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Sprig's view of an address.
fn address(text: &str) -> Value {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme_ends = rest.find(':').filter(|at| {
        let scheme = &rest[..*at];
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let (scheme, rest) = scheme_ends.map_or(("", rest), |at| (&rest[..at], &rest[at + 1..]));
    let Some(after) = rest.strip_prefix("//") else {
        let (opaque, path) = if scheme.is_empty() || rest.starts_with('/') { ("", rest) } else { (rest, "") };
        return json!({ "scheme": scheme.to_lowercase(), "userinfo": "", "host": "", "hostname": "", "path": path,
            "query": query, "opaque": opaque, "fragment": fragment });
    };
    let (authority, path) = after.find('/').map_or((after, ""), |at| after.split_at(at));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let hostname = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    json!({ "scheme": scheme.to_lowercase(), "userinfo": user, "host": host, "hostname": hostname, "path": path,
        "query": query, "opaque": "", "fragment": fragment })
}
