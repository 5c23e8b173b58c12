//! API objects as JSON, YAML or names.

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::yaml;
use crate::{error::Result, output::Format};

/// What was found, and whether exactly one object was asked for by name.
pub(crate) fn render<K>(objects: &[K], single: bool, format: Format, keep_managed: bool) -> Result<String>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    if format == Format::Name {
        return Ok(objects.iter().map(|object| name(object) + "\n").collect());
    }
    let mut values = objects.iter().map(|object| shown(object, keep_managed)).collect::<Result<Vec<_>>>()?;
    let whole = match values.as_mut_slice() {
        [only] if single => only.take(),
        _ => list(&Value::Array(values)),
    };
    text(&whole, format)
}

/// An object with its kind.
pub(crate) fn shown<K: Resource<DynamicType = ()> + Serialize>(object: &K, keep_managed: bool) -> Result<Value> {
    let mut value = with_type(object)?;
    if !keep_managed {
        strip_managed(&mut value);
    }
    Ok(value)
}

/// A list as kubectl makes it.
pub(crate) fn list(items: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}})
}

/// A value in the wanted format; a table has no meaning here and becomes YAML.
pub(crate) fn text<T: Serialize>(value: &T, format: Format) -> Result<String> {
    if format == Format::Json {
        return Ok(serde_json::to_string_pretty(value)? + "\n");
    }
    yaml::text(&serde_json::to_value(value)?)
        .map_err(|error| crate::error::CliError::refused("an object cannot be written as YAML", error.to_string()))
}

/// `backup.dataprotection.kubeblocks.io/nightly`.
pub(crate) fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let (kind, group) = (K::kind(&()).to_lowercase(), K::group(&()));
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", object.name_any())
}

/// Lists lose the kind of their items; this puts it back.
pub(crate) fn with_type<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Value> {
    let mut value = serde_json::to_value(object)?;
    if let Value::Object(fields) = &mut value {
        let rest = std::mem::take(fields);
        fields.insert("apiVersion".into(), json!(K::api_version(&())));
        fields.insert("kind".into(), json!(K::kind(&())));
        fields.extend(rest.into_iter().filter(|(key, _)| key != "apiVersion" && key != "kind"));
    }
    Ok(value)
}

pub(crate) fn strip_managed(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::api::ObjectMeta;

    fn secret(name: &str) -> Secret {
        Secret { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Secret::default() }
    }

    #[test]
    fn nothing_is_an_empty_list_that_parses() {
        let text = render::<Secret>(&[], false, Format::Json, false).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["items"], json!([]));
        assert_eq!(render::<Secret>(&[], false, Format::Name, false).unwrap(), "");
    }

    #[test]
    fn one_name_is_one_object_and_more_are_a_list() {
        let one = render(&[secret("a")], true, Format::Yaml, false).unwrap();
        assert!(one.starts_with("apiVersion: v1\nkind: Secret\n"), "{one}");
        let list = render(&[secret("a")], false, Format::Yaml, false).unwrap();
        assert!(list.contains("kind: List"), "{list}");
        assert_eq!(render(&[secret("a"), secret("b")], false, Format::Name, false).unwrap(), "secret/a\nsecret/b\n");
    }
}
