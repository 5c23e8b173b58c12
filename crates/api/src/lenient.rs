//! Reading what API servers really return where the shape is wider than our types.
//!
//! A quantity in a custom resource may be an integer (`cpu: 2`), and the API server stores it as it came. The
//! `Quantity` of `k8s-openapi` reads strings only, so numbers are turned into strings first.

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error};
use serde_json::Value;

/// Reads any structure that contains quantities: the values below `limits` and `requests`, and `divisor`.
pub(crate) fn quantities<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let mut value = Value::deserialize(deserializer)?;
    numbers_to_text(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// Reads a value that is itself a quantity.
pub(crate) fn quantity<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let mut value = Value::deserialize(deserializer)?;
    to_text(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

fn numbers_to_text(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(numbers_to_text),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &mut *field) {
                    ("limits" | "requests", Value::Object(amounts)) => amounts.values_mut().for_each(to_text),
                    ("divisor", amount) => to_text(amount),
                    _ => numbers_to_text(field),
                }
            }
        }
        _ => {}
    }
}

fn to_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use crate::v1alpha1::{BackupMethod, BackupRepoSpec};
    use serde_json::json;

    #[test]
    fn integer_quantities_are_read_as_text() {
        let method: BackupMethod = serde_json::from_value(json!({
            "name": "full",
            "runtimeSettings": { "resources": { "limits": { "cpu": 2, "memory": "1Gi" } } },
            "env": [{ "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": 1 } } }],
        }))
        .unwrap();
        let limits = method.runtime_settings.unwrap().resources.unwrap().limits.unwrap();
        assert_eq!(limits["cpu"].0, "2");
        assert_eq!(limits["memory"].0, "1Gi");
        let field = method.env[0].value_from.as_ref().unwrap().resource_field_ref.as_ref().unwrap();
        assert_eq!(field.divisor.as_ref().unwrap().0, "1");
    }

    #[test]
    fn an_integer_volume_capacity_is_read_as_text() {
        let repo: BackupRepoSpec = serde_json::from_value(
            json!({ "storageProviderRef": "s3", "pvReclaimPolicy": "Retain", "volumeCapacity": 0 }),
        )
        .unwrap();
        assert_eq!(repo.volume_capacity.unwrap().0, "0");
    }
}
