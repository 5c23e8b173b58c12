//! Parameters that a user gives to a recipe, checked against the recipe's schema: the part of `OpenAPI` v3 that recipes
//! use.

use serde_json::{Map, Number, Value};

/// Why parameters were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The recipe does not take it.
    #[error("parameter {name} is not one that the action set takes here (it takes: {})", list(.takes))]
    Unknown {
        /// The parameter.
        name: String,
        /// What is taken.
        takes: Vec<String>,
    },
    /// The recipe takes it but does not say what it is.
    #[error("parameter {0} is not declared in the action set's schema")]
    Undeclared(String),
    /// A value that the schema refuses.
    #[error("parameter {name}={value:?} is not {wanted}")]
    Value {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
        /// What the schema wants.
        wanted: String,
    },
    /// The schema demands one that was not given.
    #[error("parameter {0} is required when any parameter is given")]
    Required(String),
    /// More than the recipe takes, so that one is given twice.
    #[error("{given} parameters are given, and the action set takes {takes} here")]
    TooMany {
        /// How many.
        given: usize,
        /// How many may be.
        takes: usize,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Checks `given` pairs against the names that an action `takes` and the `schema` of the recipe. Nothing given is always
/// fine, as in the contract.
///
/// # Errors
/// The first parameter that does not fit.
pub fn check<'a>(
    takes: &[String],
    schema: Option<&Map<String, Value>>,
    given: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), ParameterError> {
    let mut seen = Vec::new();
    let empty = Map::new();
    let properties = schema.and_then(|schema| schema.get("properties")?.as_object()).unwrap_or(&empty);
    for (name, value) in given {
        if !takes.iter().any(|taken| taken == name) {
            return Err(ParameterError::Unknown { name: name.to_owned(), takes: takes.to_vec() });
        }
        let property = properties.get(name).ok_or_else(|| ParameterError::Undeclared(name.to_owned()))?;
        check_value(property, value).map_err(|wanted| ParameterError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            wanted,
        })?;
        seen.push(name);
    }
    if seen.len() > takes.len() {
        return Err(ParameterError::TooMany { given: seen.len(), takes: takes.len() });
    }
    let required = schema.and_then(|schema| schema.get("required")?.as_array()).into_iter().flatten();
    let mut missing = required.filter_map(Value::as_str).filter(|name| !seen.contains(name));
    match missing.next() {
        Some(name) if !seen.is_empty() => Err(ParameterError::Required(name.to_owned())),
        _ => Ok(()),
    }
}

/// Checks one value; the error says what it should be.
fn check_value(property: &Value, text: &str) -> Result<(), String> {
    let value = convert(property, text)?;
    if let Some(allowed) = property.get("enum").and_then(Value::as_array)
        && !allowed.contains(&value)
    {
        let words: Vec<_> =
            allowed.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
        return Err(format!("one of {}", words.join(", ")));
    }
    match &value {
        Value::Number(number) => check_number(property, number),
        Value::String(text) => check_text(property, text),
        Value::Array(items) => check_items(property, items),
        _ => Ok(()),
    }
}

/// The value that a text stands for, by the type of its property.
fn convert(property: &Value, text: &str) -> Result<Value, String> {
    let unsigned = property.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
    match property.get("type").and_then(Value::as_str) {
        Some("integer") if unsigned => {
            text.parse::<u64>().map(Value::from).map_err(|_| "a whole number from 0 up".to_owned())
        }
        Some("integer") => {
            let signed = text.parse::<i64>().map(Value::from);
            signed.or_else(|_| text.parse::<u64>().map(Value::from)).map_err(|_| "a whole number".to_owned())
        }
        Some("number") => {
            let number = text.parse::<f64>().ok().and_then(Number::from_f64);
            number.map(Value::Number).ok_or_else(|| "a number".to_owned())
        }
        Some("boolean") => text.parse::<bool>().map(Value::from).map_err(|_| "true or false".to_owned()),
        Some("array") => {
            let items = property.get("items").cloned().unwrap_or_default();
            text.split(',').map(|item| convert(&items, item)).collect::<Result<_, _>>().map(Value::Array)
        }
        _ => Ok(Value::from(text)),
    }
}

fn check_number(property: &Value, number: &Number) -> Result<(), String> {
    let Some(value) = number.as_f64() else { return Ok(()) };
    let exclusive = |key: &str| property.get(key).and_then(Value::as_bool).unwrap_or(false);
    if let Some(least) = property.get("minimum").and_then(Value::as_f64)
        && (value < least || exclusive("exclusiveMinimum") && value <= least)
    {
        return Err(format!("{} {least}", if exclusive("exclusiveMinimum") { "more than" } else { "at least" }));
    }
    if let Some(most) = property.get("maximum").and_then(Value::as_f64)
        && (value > most || exclusive("exclusiveMaximum") && value >= most)
    {
        return Err(format!("{} {most}", if exclusive("exclusiveMaximum") { "less than" } else { "at most" }));
    }
    Ok(())
}

fn check_text(property: &Value, text: &str) -> Result<(), String> {
    let length = text.chars().count() as u64;
    if let Some(least) = property.get("minLength").and_then(Value::as_u64).filter(|least| length < *least) {
        return Err(format!("at least {least} characters long"));
    }
    if let Some(most) = property.get("maxLength").and_then(Value::as_u64).filter(|most| length > *most) {
        return Err(format!("at most {most} characters long"));
    }
    if let Some(pattern) = property.get("pattern").and_then(Value::as_str) {
        // A pattern that is none is the recipe's fault; what it would have refused is not known, so nothing passes.
        let matches = regex_lite::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
        if !matches {
            return Err(format!("of the form {pattern}"));
        }
    }
    Ok(())
}

fn check_items(property: &Value, items: &[Value]) -> Result<(), String> {
    let count = items.len() as u64;
    if let Some(least) = property.get("minItems").and_then(Value::as_u64).filter(|least| count < *least) {
        return Err(format!("a list of at least {least} items"));
    }
    if let Some(most) = property.get("maxItems").and_then(Value::as_u64).filter(|most| count > *most) {
        return Err(format!("a list of at most {most} items"));
    }
    let Some(item) = property.get("items") else { return Ok(()) };
    items.iter().try_for_each(|value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        check_value(item, &text).map_err(|wanted| format!("a list of values each {wanted}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> Result<(), ParameterError> {
        let schema = json!({ "type": "object", "required": ["level"], "properties": {
            "level": {"type": "integer", "minimum": 0, "maximum": 9},
            "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": true},
            "fast": {"type": "boolean"},
            "mode": {"type": "string", "enum": ["fast", "spread"]},
            "rate": {"type": "string", "pattern": "^[0-9]*[kM]?$", "maxLength": 4},
            "tables": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 2},
        }});
        let takes = ["level", "ratio", "fast", "mode", "rate", "tables", "ghost"].map(str::to_owned);
        check(&takes, schema.as_object(), pairs.iter().copied())
    }

    #[test]
    fn nothing_given_is_never_refused() {
        assert_eq!(checked(&[]), Ok(()));
        assert_eq!(check(&[], None, []), Ok(()));
    }

    #[test]
    fn behaviour_3_1_values_are_converted_by_type_and_checked() {
        for pair in
            [("ratio", "0.5"), ("fast", "true"), ("mode", "spread"), ("rate", "100k"), ("rate", ""), ("tables", "a,b")]
        {
            assert_eq!(checked(&[("level", "3"), pair]), Ok(()), "{pair:?}");
        }
        for (name, value, wanted) in [
            ("level", "10", "at most 9"),
            ("level", "x", "a whole number"),
            ("ratio", "0", "more than 0"),
            ("fast", "yes", "true or false"),
            ("mode", "slow", "one of fast, spread"),
            ("rate", "1G", "of the form ^[0-9]*[kM]?$"),
            ("rate", "10000k", "at most 4 characters long"),
            ("tables", "a,b,c", "a list of at most 2 items"),
            ("tables", "a,,", "a list of at most 2 items"),
        ] {
            let refused = ParameterError::Value { name: name.into(), value: value.into(), wanted: wanted.into() };
            assert_eq!(checked(&[(name, value)]), Err(refused), "{name}={value}");
        }
    }

    #[test]
    fn behaviour_3_1_not_more_are_given_than_are_taken() {
        let properties = json!({ "properties": {"level": {"type": "integer"}} });
        let given = |count: usize| check(&["level".to_owned()], properties.as_object(), vec![("level", "1"); count]);
        assert_eq!(given(1), Ok(()));
        assert_eq!(given(2), Err(ParameterError::TooMany { given: 2, takes: 1 }));
    }

    #[test]
    fn behaviour_3_1_only_declared_parameters_are_taken() {
        assert!(matches!(checked(&[("other", "1")]), Err(ParameterError::Unknown { .. })));
        assert_eq!(checked(&[("ghost", "1")]), Err(ParameterError::Undeclared("ghost".into())));
        assert_eq!(checked(&[("fast", "true")]), Err(ParameterError::Required("level".into())));
    }
}
