//! From Rust types to the schema that the API server enforces.
//!
//! Whatever a derive can say is said next to the field. Here is the rest: patterns and rules used more than once, the
//! [embedded](core_types) structures of Kubernetes, and the last touch on each generated definition.

pub mod core_types;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// Pattern of object names, as far as the schema checks them.
pub const NAME: &str = r"^[a-z0-9]([a-z0-9\.\-]*[a-z0-9])?$";
/// Pattern of quantities written as text.
pub const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// Pattern of time zone offsets.
pub const TIME_ZONE: &str = r"^(\+|\-)(0[0-9]|1[0-3]):([0-5][0-9])$";
/// Pattern of the point in time of a restore.
pub const RESTORE_TIME: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$";
/// Pattern of a repository's path prefix.
pub const PATH_PREFIX: &str = r"^([a-zA-Z0-9-_]+/?)*$";
/// Pattern of the reason of a condition.
pub const CONDITION_REASON: &str = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
/// Pattern of the type of a condition.
pub const CONDITION_TYPE: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// One CEL rule, as the value of `x-kubernetes-validations`.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!([{ "rule": rule, "message": message }])
}

/// The rule of a value that cannot be changed once it is there.
pub(crate) fn immutable(message: &str) -> Value {
    rule("self == oldSelf", message)
}

/// The rule of an optional value that can be neither added nor dropped later: `field` of the object that carries it.
pub(crate) fn fixed_presence(field: &str) -> Value {
    rule(&format!("has(oldSelf.{field}) == has(self.{field})"), &format!("forbidden to update spec.{field}"))
}

/// The rule of a claim or volume that needs a source, a path, or both.
pub(crate) fn source_or_path() -> Value {
    json!([source_or_path_rule()])
}

/// [`source_or_path`] for a value that is fixed as well.
pub(crate) fn immutable_source_or_path(message: &str) -> Value {
    json!([source_or_path_rule(), { "rule": "self == oldSelf", "message": message }])
}

fn source_or_path_rule() -> Value {
    json!({
        "rule": "self.volumeSource != '' || self.mountPath !=''",
        "message": "at least one exists for volumeSource and mountPath.",
    })
}

/// Marks a field with a default as required. The API server fills in defaults before it checks what is required.
pub(crate) fn require(field: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        let required = schema.ensure_object().entry("required").or_insert_with(|| json!([]));
        if let Some(names) = required.as_array_mut()
            && !names.iter().any(|name| name == field)
        {
            names.push(field.into());
        }
    }
}

/// A JSON object with any content, kept as it is.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The last touch on a derived definition: the facts that all eight share, and the parts of the derived schema that
/// the contract does not have.
pub(crate) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata.labels.get_or_insert_default().insert("app.kubernetes.io/name".into(), "kubeblocks".into());
    let names = &mut crd.spec.names;
    names.categories = Some(vec!["kubeblocks".into()]);
    names.list_kind = Some(format!("{}List", names.kind));
    for version in &mut crd.spec.versions {
        if let Some(CustomResourceValidation { open_api_v3_schema: Some(root) }) = &mut version.schema {
            finish_root(root);
        }
    }
    crd
}

fn finish_root(root: &mut JSONSchemaProps) {
    visit(root, &mut |schema| {
        no_null(schema);
        unwrap_lines(schema);
    });
    root.title = None;
    // An object without a spec passes; what is missing in it is for the controller to say.
    root.required = None;
    let properties = root.properties.get_or_insert_default();
    for (name, type_, description) in [
        ("apiVersion", "string", "Group and version of this object: dataprotection.kubeblocks.io/v1alpha1."),
        ("kind", "string", "Kind of this object, in CamelCase and singular."),
        ("metadata", "object", ""),
    ] {
        let description = (!description.is_empty()).then(|| description.to_owned());
        properties
            .insert(name.into(), JSONSchemaProps { type_: Some(type_.into()), description, ..Default::default() });
    }
}

/// `Option` makes a derived schema nullable. The contract's fields are not: a `null` is dropped by the API server.
fn no_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(members) = &mut schema.enum_ {
        members.retain(|member| !member.0.is_null());
    }
}

/// A description is wrapped where the source is wrapped; whoever shows it wraps it again. Paragraphs stay.
fn unwrap_lines(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let paragraphs: Vec<_> = description.split("\n\n").map(|lines| lines.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
}

/// Calls `touch` on a schema and everything below it.
fn visit(schema: &mut JSONSchemaProps, touch: &mut impl FnMut(&mut JSONSchemaProps)) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    };
    touch(schema);
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        visit(property, touch);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        visit(items, touch);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        visit(values, touch);
    }
}

/// A definition as plain JSON with whole numbers written as such (`10`, not `10.0`), ready to be printed.
pub fn to_value(crd: &CustomResourceDefinition) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(crd)?;
    whole_numbers(&mut value);
    Ok(value)
}

fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                *value = json!(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Merges `more` into an object schema.
pub(crate) fn with(mut schema: Value, more: &[(&str, Value)]) -> Value {
    let fields: &mut Map<String, Value> = match schema.as_object_mut() {
        Some(fields) => fields,
        None => return schema,
    };
    for (key, value) in more {
        fields.insert((*key).to_owned(), value.clone());
    }
    schema
}
