//! Which part of the structures that Kubernetes defines our definitions accept.
//!
//! Their Rust types come from `k8s-openapi` and follow newer Kubernetes versions. What the API server keeps is this
//! list and nothing else, the same as where KubeBlocks is installed, so that an object means the same in both.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{CONDITION_REASON, CONDITION_TYPE, QUANTITY, with};

/// `name: fields`. A `!` behind the name makes the structure atomic for server-side apply, a `*` behind a field makes it
/// required. `[T]` is a list, `{T}` a map from text to T, `[T]!` an atomic list, `[T]name` a list with that key.
const TYPES: &[(&str, &str)] = &[
    ("LabelSelector!", "matchLabels:{string} matchExpressions:[LabelSelectorRequirement]"),
    ("LabelSelectorRequirement", "key*:string operator*:string values:[string]"),
    ("EnvVar", "name*:string value:string valueFrom:EnvVarSource"),
    (
        "EnvVarSource",
        "configMapKeyRef:KeySelector fieldRef:ObjectFieldSelector resourceFieldRef:ResourceFieldSelector \
         secretKeyRef:KeySelector",
    ),
    ("KeySelector!", "key*:string name:string optional:boolean"),
    ("ObjectFieldSelector!", "apiVersion:string fieldPath*:string"),
    ("ResourceFieldSelector!", "containerName:string divisor:quantity resource*:string"),
    ("EnvFromSource", "prefix:string configMapRef:EnvSourceRef secretRef:EnvSourceRef"),
    ("EnvSourceRef!", "name:string optional:boolean"),
    (
        "VolumeMount",
        "name*:string mountPath*:string mountPropagation:string readOnly:boolean subPath:string subPathExpr:string",
    ),
    ("ResourceRequirements", "claims:[ResourceClaim]name limits:{quantity} requests:{quantity}"),
    ("ResourceClaim", "name*:string"),
    ("VolumeResourceRequirements", "limits:{quantity} requests:{quantity}"),
    ("SecretReference!", "name:string namespace:string"),
    (
        "ObjectReference!",
        "apiVersion:string fieldPath:string kind:string name:string namespace:string resourceVersion:string uid:string",
    ),
    (
        "PersistentVolumeClaimSpec",
        "accessModes:[string] dataSource:TypedLocalObjectReference dataSourceRef:TypedObjectReference \
         resources:VolumeResourceRequirements selector:LabelSelector storageClassName:string \
         volumeAttributesClassName:string volumeMode:string volumeName:string",
    ),
    ("TypedLocalObjectReference!", "apiGroup:string kind*:string name*:string"),
    ("TypedObjectReference", "apiGroup:string kind*:string name*:string namespace:string"),
    ("Toleration", "effect:string key:string operator:string tolerationSeconds:int64 value:string"),
    (
        "TopologySpreadConstraint",
        "labelSelector:LabelSelector matchLabelKeys:[string]! maxSkew*:int32 minDomains:int32 \
         nodeAffinityPolicy:string nodeTaintsPolicy:string topologyKey*:string whenUnsatisfiable*:string",
    ),
    ("Affinity", "nodeAffinity:NodeAffinity podAffinity:PodAffinity podAntiAffinity:PodAffinity"),
    (
        "NodeAffinity",
        "preferredDuringSchedulingIgnoredDuringExecution:[PreferredSchedulingTerm] \
         requiredDuringSchedulingIgnoredDuringExecution:NodeSelector",
    ),
    ("PreferredSchedulingTerm", "preference*:NodeSelectorTerm weight*:int32"),
    ("NodeSelector!", "nodeSelectorTerms*:[NodeSelectorTerm]"),
    ("NodeSelectorTerm!", "matchExpressions:[LabelSelectorRequirement] matchFields:[LabelSelectorRequirement]"),
    (
        "PodAffinity",
        "preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm] \
         requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]",
    ),
    ("WeightedPodAffinityTerm", "podAffinityTerm*:PodAffinityTerm weight*:int32"),
    (
        "PodAffinityTerm",
        "labelSelector:LabelSelector matchLabelKeys:[string]! mismatchLabelKeys:[string]! \
         namespaceSelector:LabelSelector namespaces:[string] topologyKey*:string",
    ),
];

/// Functions for `#[schemars(schema_with = …)]`, one per shape that our fields have.
macro_rules! shapes {
    ($($name:ident: $shape:literal,)+) => {
        $(pub(crate) fn $name(_: &mut SchemaGenerator) -> Schema { to_schema(shape($shape)) })+

        #[cfg(test)]
        const USED: &[&str] = &[$($shape),+];
    };
}

shapes! {
    affinity: "Affinity",
    env_vars: "[EnvVar]",
    label_selector: "LabelSelector",
    label_selector_requirements: "[LabelSelectorRequirement]",
    object_reference: "ObjectReference",
    persistent_volume_claim_spec: "PersistentVolumeClaimSpec",
    quantity: "quantity",
    resource_requirements: "ResourceRequirements",
    secret_key_selector: "KeySelector",
    secret_reference: "SecretReference",
    time: "date-time",
    tolerations: "[Toleration]",
    topology_spread_constraints: "[TopologySpreadConstraint]",
    volume_mounts: "[VolumeMount]",
}

/// Environment variables of which unknown fields are kept.
pub(crate) fn open_env_vars(_: &mut SchemaGenerator) -> Schema {
    to_schema(with(shape("[EnvVar]"), &[("x-kubernetes-preserve-unknown-fields", json!(true))]))
}

/// Sources of environment variables of which unknown fields are kept.
pub(crate) fn open_env_from_sources(_: &mut SchemaGenerator) -> Schema {
    to_schema(with(shape("[EnvFromSource]"), &[("x-kubernetes-preserve-unknown-fields", json!(true))]))
}

/// Conditions, with the bounds that Kubernetes gives them.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    to_schema(json!({ "type": "array", "items": {
        "type": "object",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "type": { "type": "string", "pattern": CONDITION_TYPE, "maxLength": 316 },
            "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
            "reason": { "type": "string", "pattern": CONDITION_REASON, "minLength": 1, "maxLength": 1024 },
            "message": { "type": "string", "maxLength": 32768 },
            "lastTransitionTime": shape("date-time"),
            "observedGeneration": with(shape("int64"), &[("minimum", json!(0))]),
        },
    }}))
}

fn to_schema(value: Value) -> Schema {
    Schema::try_from(value).unwrap_or_default()
}

/// The schema of a shape as written in [`TYPES`].
fn shape(text: &str) -> Value {
    if let Some((items, list)) = text.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
        let array = json!({ "type": "array", "items": shape(items) });
        return match list {
            "" => array,
            "!" => with(array, &[("x-kubernetes-list-type", json!("atomic"))]),
            key => {
                with(array, &[("x-kubernetes-list-type", json!("map")), ("x-kubernetes-list-map-keys", json!([key]))])
            }
        };
    }
    if let Some(values) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return json!({ "type": "object", "additionalProperties": shape(values) });
    }
    match text {
        "string" | "boolean" => json!({ "type": text }),
        "int32" | "int64" => json!({ "type": "integer", "format": text }),
        "date-time" => json!({ "type": "string", "format": text }),
        "quantity" => json!({ "x-kubernetes-int-or-string": true, "pattern": QUANTITY }),
        name => structure(name),
    }
}

fn structure(name: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
    for (type_name, fields) in TYPES.iter().filter(|(type_name, _)| type_name.trim_end_matches('!') == name) {
        if type_name.ends_with('!') {
            schema.insert("x-kubernetes-map-type".into(), json!("atomic"));
        }
        for (field, field_shape) in fields.split_whitespace().filter_map(|field| field.split_once(':')) {
            let field_name = field.trim_end_matches('*');
            if field.ends_with('*') {
                required.push(field_name);
            }
            properties.insert(field_name.to_owned(), shape(field_shape));
        }
    }
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema.insert("properties".into(), Value::Object(properties));
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(shape: &str, check: &mut impl FnMut(&str)) {
        let core = shape.trim_start_matches(['[', '{']);
        let core = core.split([']', '}']).next().unwrap_or_default();
        if core.chars().next().is_some_and(char::is_uppercase) {
            check(core);
        }
    }

    #[test]
    fn every_structure_named_is_listed_and_every_one_listed_is_used() {
        let mut named = vec!["EnvFromSource".to_owned()];
        let fields = TYPES.iter().flat_map(|(_, fields)| fields.split_whitespace());
        for shape in
            fields.filter_map(|field| field.split_once(':')).map(|(_, shape)| shape).chain(USED.iter().copied())
        {
            walk(shape, &mut |name| named.push(name.to_owned()));
        }
        let listed: Vec<_> = TYPES.iter().map(|(name, _)| name.trim_end_matches('!')).collect();
        for name in &named {
            assert!(listed.contains(&name.as_str()), "{name} is used but not listed");
        }
        for name in &listed {
            assert!(named.iter().any(|used| used == name), "{name} is listed but not used");
        }
    }

    #[test]
    fn shapes_are_read_as_documented() {
        assert_eq!(shape("[string]!")["x-kubernetes-list-type"], json!("atomic"));
        assert_eq!(
            shape("ResourceRequirements")["properties"]["claims"]["x-kubernetes-list-map-keys"],
            json!(["name"])
        );
        let selector = shape("KeySelector");
        assert_eq!(selector["required"], json!(["key"]));
        assert_eq!(selector["x-kubernetes-map-type"], json!("atomic"));
        assert_eq!(shape("{quantity}")["additionalProperties"]["pattern"], json!(QUANTITY));
    }
}
