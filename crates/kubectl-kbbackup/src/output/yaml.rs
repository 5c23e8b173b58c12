//! YAML that means the same to readers of YAML 1.1, of which kubectl is one: to them a plain `off` is no text but a boolean.

use serde_json::{Map, Value};

/// Stands before a text that must be quoted until it is written; nobody has it in an object.
const MARK: char = '\u{E000}';

/// Writes a value.
///
/// # Errors
/// When it cannot be written as YAML.
pub(super) fn text(value: &Value) -> Result<String, serde_norway::Error> {
    let mut found = Vec::new();
    let marked = marked(value, &mut found);
    let mut text = serde_norway::to_string(&marked)?;
    found.sort();
    found.dedup();
    // The longest first: one may be the beginning of another.
    for word in found.iter().rev() {
        text = text.replace(&format!("{MARK}{word}"), &format!("'{word}'"));
    }
    Ok(text)
}

/// The value with a mark before every text and key that another reader would take for something else.
fn marked(value: &Value, found: &mut Vec<String>) -> Value {
    let mut mark = |text: &String| {
        if !is_ambiguous(text) {
            return text.clone();
        }
        found.push(text.clone());
        format!("{MARK}{text}")
    };
    match value {
        Value::String(text) => Value::String(mark(text)),
        Value::Array(items) => items.iter().map(|item| marked(item, found)).collect(),
        Value::Object(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let key = mark(key);
                object.insert(key, value.clone());
            }
            for value in object.values_mut() {
                *value = marked(value, found);
            }
            Value::Object(object)
        }
        other => other.clone(),
    }
}

/// Whether YAML 1.1 has another meaning for a plain text that YAML 1.2 takes as it stands: a boolean, or a number in a notation
/// of its own.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 6] = ["y", "yes", "on", "n", "no", "off"];
    let number = text.trim_start_matches(['-', '+']);
    let of_a_number = |c: char| c.is_ascii_hexdigit() || matches!(c, '_' | ':' | '.' | 'x' | 'o');
    WORDS.contains(&text.to_ascii_lowercase().as_str())
        || number.starts_with(|c: char| c.is_ascii_digit())
            && number.contains(['_', ':', 'x', 'o'])
            && number.chars().all(of_a_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_yaml_1_1_reads_as_something_else_is_quoted() {
        let value = json!({"a": "off", "b": ["No", "y", "offer"], "on": {"c": "1_000", "d": "0x1f", "e": "12:30:45"}});
        let written = text(&value).unwrap();
        assert_eq!(
            written,
            "a: 'off'\nb:\n- 'No'\n- 'y'\n- offer\n'on':\n  c: '1_000'\n  d: '0x1f'\n  e: '12:30:45'\n"
        );
        assert_eq!(serde_norway::from_str::<Value>(&written).unwrap(), value);
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        let script = "set -e\noff\n- no\n";
        let value = json!({"script": script, "time": "2026-01-02T03:04:05Z", "cron": "0 2 * * *", "image": "a/b:1.2",
            "digits": "17", "flag": true, "size": "10Gi", "version": "1.2.3"});
        let written = text(&value).unwrap();
        assert!(written.contains("\n  off\n") && written.contains("version: 1.2.3"), "{written}");
        assert!(written.contains("digits: '17'") && written.contains("flag: true"), "{written}");
        assert_eq!(serde_norway::from_str::<Value>(&written).unwrap(), value);
    }

    #[test]
    fn everything_that_is_installed_is_read_as_it_was() {
        for manifest in crate::install::catalogue().unwrap() {
            let written = text(manifest.value()).unwrap();
            assert!(!written.contains(MARK), "{}", manifest.short());
            assert_eq!(serde_norway::from_str::<Value>(&written).unwrap(), *manifest.value(), "{}", manifest.short());
        }
    }
}
