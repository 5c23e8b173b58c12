//! The generated definitions say exactly what the contract says: nothing is missing, nothing is added but what is
//! listed in [`ADDITIONS`].
//!
//! `contract/*.tsv` hold the contract as tables: one row per field (`fields`), per field of a structure of Kubernetes
//! (`core_types`), per kind, printer column, CEL rule and pattern. `-` is an empty cell. From them the expected schema
//! is built and compared with the generated one, node by node, descriptions aside.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kbbackup_api::schema;
use serde_json::{Map, Value, json};

/// What we add to the contract on purpose: field, and the enum member.
const ADDITIONS: &[(&str, &str, &str)] = &[("EncryptionConfig", "algorithm", "age")];

#[test]
fn schemas_match_the_contract_in_every_row() {
    let contract = Contract::read();
    let mut builder = Builder { contract: &contract, rows: BTreeSet::new(), rules: BTreeSet::new() };
    let mut differences = Vec::new();
    for crd in kbbackup_api::crds() {
        let kind = crd.spec.names.kind.clone();
        let expected = builder.kind(&kind);
        compare(&kind, &expected, &generated_schema(&crd), &mut differences);
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));

    let left: Vec<_> = contract.rows.iter().filter(|row| !builder.rows.contains(&row.line)).collect();
    assert!(left.is_empty(), "rows of types that no kind uses: {left:?}");
    let rules: BTreeSet<_> = contract.rules.iter().map(|rule| rule.id.clone()).collect();
    assert_eq!(builder.rules, rules, "every rule is named by a field row");
}

#[test]
fn names_and_scopes_match_the_contract() {
    let crds = by_kind();
    let rows = table(include_str!("contract/kinds.tsv"));
    assert_eq!(rows.len(), crds.len());
    for row in rows {
        let [kind, list, plural, singular, short, scope] = &row[..] else { panic!("{row:?}") };
        let crd = &crds[kind];
        let names = &crd.spec.names;
        assert_eq!(crd.metadata.name.as_deref(), Some(&*format!("{plural}.dataprotection.kubeblocks.io")));
        assert_eq!(crd.metadata.labels.as_ref().unwrap()["app.kubernetes.io/name"], "kubeblocks");
        assert_eq!(crd.spec.group, kbbackup_api::GROUP);
        assert_eq!(crd.spec.scope, *scope, "{kind}");
        assert_eq!(names.list_kind.as_ref(), Some(list));
        assert_eq!(names.plural, *plural);
        assert_eq!(names.singular.as_ref(), Some(singular));
        let short: Vec<_> = short.split_whitespace().map(str::to_owned).collect();
        assert_eq!(names.short_names.clone().unwrap_or_default(), short, "{kind}");
        assert_eq!(names.categories, Some(vec!["kubeblocks".to_owned()]));
        assert!(crd.spec.conversion.is_none());

        let [version] = &crd.spec.versions[..] else { panic!("{kind} has one version") };
        assert_eq!((version.name.as_str(), version.served, version.storage), (kbbackup_api::VERSION, true, true));
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some() && subresources.scale.is_none(), "{kind}");
    }
}

/// What the plugin's lists need beside the contract's.
const OWN_COLUMNS_OF_BACKUP: [&str; 7] =
    ["IN-NAMESPACE", "TYPE", "WORKLOAD", "INSTANCE", "PARENT", "START-TIME", "DELETION-TIME"];

#[test]
fn printer_columns_match_the_contract() {
    let mut expected: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for mut row in table(include_str!("contract/columns.tsv")) {
        let kind = row.remove(0);
        expected.entry(kind).or_default().push(row);
    }
    for (kind, crd) in by_kind() {
        let mut columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap_or_default();
        // Behind those of the contract, and not shown unless they are asked for: old clients do not notice them.
        let own = columns.split_off(expected[&kind].len());
        assert!(own.iter().all(|column| column.priority == Some(1) && column.format.is_none()), "{kind}");
        let own: Vec<&str> = own.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(own, if kind == "Backup" { &OWN_COLUMNS_OF_BACKUP[..] } else { &[] }, "{kind}");
        let found: Vec<Vec<String>> = columns
            .into_iter()
            .map(|column| {
                assert!(column.priority.is_none() && column.format.is_none(), "{kind} {}", column.name);
                vec![column.name, column.type_, column.json_path, column.description.unwrap_or_default()]
            })
            .collect();
        assert_eq!(found, expected[&kind], "{kind}");
    }
}

#[test]
fn every_field_is_explained() {
    fn walk(path: &str, schema: &Value, silent: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match property["description"].as_str() {
                Some(text) if text.ends_with('.') => {
                    let items = if property["type"] == "array" { &property["items"] } else { property };
                    // Below a structure of Kubernetes, Kubernetes' own documentation takes over.
                    if items["properties"]
                        .as_object()
                        .is_some_and(|fields| fields.values().any(|field| field.get("description").is_some()))
                    {
                        walk(&path, items, silent);
                    }
                }
                _ => silent.push(path),
            }
        }
    }
    let mut silent = Vec::new();
    for (kind, crd) in by_kind() {
        let root = schema::to_value(&crd).unwrap();
        let root = &root["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(root["description"].as_str().is_some_and(|text| !text.contains("Auto-generated")), "{kind}");
        for part in ["spec", "status"] {
            walk(&format!("{kind}.{part}"), &root["properties"][part], &mut silent);
        }
    }
    assert!(silent.is_empty(), "no description, or one that does not end with a full stop: {silent:#?}");
}

fn by_kind() -> BTreeMap<String, CustomResourceDefinition> {
    kbbackup_api::crds().into_iter().map(|crd| (crd.spec.names.kind.clone(), crd)).collect()
}

/// Rows of a table, `-` read as empty.
fn table(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').map(|cell| if cell == "-" { String::new() } else { cell.to_owned() }).collect())
        .collect()
}

#[derive(Debug)]
struct Row {
    line: usize,
    owner: String,
    field: String,
    type_: String,
    required: bool,
    default: String,
    validation: String,
}

struct RuleRow {
    id: String,
    location: String,
    rule: String,
    message: String,
}

struct Contract {
    rows: Vec<Row>,
    rules: Vec<RuleRow>,
    patterns: BTreeMap<String, String>,
}

impl Contract {
    fn read() -> Self {
        let fields = [include_str!("contract/fields.tsv"), include_str!("contract/core_types.tsv")];
        let rows = fields.into_iter().flat_map(table).enumerate().map(|(line, row)| {
            let [owner, field, type_, required, default, validation] = <[String; 6]>::try_from(row).unwrap();
            Row { line, owner, field, type_, required: required.starts_with("yes"), default, validation }
        });
        let rules = table(include_str!("contract/rules.tsv")).into_iter().map(|row| {
            let [id, kind, location, rule, message] = <[String; 5]>::try_from(row).unwrap();
            RuleRow { id, location: format!("{kind}{location}"), rule, message }
        });
        let patterns = table(include_str!("contract/patterns.tsv")).into_iter().map(|mut row| {
            let pattern = row.remove(1);
            (row.remove(0), pattern)
        });
        Self { rows: rows.collect(), rules: rules.collect(), patterns: patterns.collect() }
    }
}

/// Builds the expected schema and remembers which rows went into it.
struct Builder<'a> {
    contract: &'a Contract,
    rows: BTreeSet<usize>,
    rules: BTreeSet<String>,
}

impl Builder<'_> {
    fn kind(&mut self, kind: &str) -> Value {
        let mut root = self.structure(kind, kind);
        let properties = root["properties"].as_object_mut().unwrap();
        assert_eq!(properties.keys().collect::<Vec<_>>(), ["spec", "status"], "{kind}");
        properties.insert("apiVersion".into(), json!({ "type": "string" }));
        properties.insert("kind".into(), json!({ "type": "string" }));
        properties.insert("metadata".into(), json!({ "type": "object" }));
        root
    }

    fn structure(&mut self, owner: &str, path: &str) -> Value {
        let mut schema = json!({ "type": "object", "properties": {} });
        self.fill(owner, path, &mut schema);
        schema
    }

    fn fill(&mut self, owner: &str, path: &str, schema: &mut Value) {
        let contract = self.contract;
        let mut found = false;
        for row in contract.rows.iter().filter(|row| row.owner == owner) {
            found = true;
            self.rows.insert(row.line);
            if row.validation == "inline" {
                self.fill(&row.type_, path, schema);
            } else if row.field.is_empty() {
                self.validate(row, path, schema);
            } else {
                self.field(row, path, schema);
            }
        }
        assert!(found, "{path}: the contract has no type {owner}");
    }

    fn field(&mut self, row: &Row, path: &str, schema: &mut Value) {
        let mut node = schema;
        let mut parts: Vec<_> = row.field.split('.').collect();
        let name = parts.pop().unwrap();
        for part in parts {
            node = node["properties"]
                .as_object_mut()
                .unwrap()
                .entry(part)
                .or_insert_with(|| json!({ "type": "object", "properties": {} }));
        }
        if row.required {
            let required = node.as_object_mut().unwrap().entry("required").or_insert_with(|| json!([]));
            required.as_array_mut().unwrap().push(name.into());
        }
        let path = format!("{path}.{}", row.field);
        let mut field = self.type_(&row.type_, &path);
        if !row.default.is_empty() {
            field["default"] = match row.type_.as_str() {
                "string" => json!(row.default),
                _ => serde_json::from_str(&row.default).unwrap(),
            };
        }
        self.validate(row, &path, &mut field);
        node["properties"][name] = field;
    }

    fn type_(&mut self, type_: &str, path: &str) -> Value {
        if let Some(items) = type_.strip_prefix("[]") {
            return json!({ "type": "array", "items": self.type_(items, &format!("{path}[]")) });
        }
        if let Some(values) = type_.strip_prefix("map[string]") {
            return json!({ "type": "object", "additionalProperties": self.type_(values, path) });
        }
        match type_ {
            "string" | "duration" => json!({ "type": "string" }),
            "boolean" | "integer" => json!({ "type": type_ }),
            "int32" | "int64" => json!({ "type": "integer", "format": type_ }),
            "date-time" => json!({ "type": "string", "format": type_ }),
            "quantity" => json!({ "x-kubernetes-int-or-string": true, "pattern": self.contract.patterns["QTY"] }),
            "object" => json!({ "type": "object", "properties": {} }),
            "any-object" => json!({ "type": "object" }),
            name => self.structure(name, path),
        }
    }

    fn validate(&mut self, row: &Row, path: &str, node: &mut Value) {
        let contract = self.contract;
        for token in tokens(&row.validation) {
            let (word, number) = token.split_once(' ').unwrap_or((token, ""));
            let number = number.parse::<i64>().ok();
            match (word, number) {
                ("min", Some(bound)) => node["minimum"] = json!(bound),
                ("max", Some(bound)) => node["maximum"] = json!(bound),
                ("minItems" | "maxItems" | "minLength" | "maxLength", Some(bound)) => node[word] = json!(bound),
                ("preserve", None) => node["x-kubernetes-preserve-unknown-fields"] = json!(true),
                ("atomic", None) => node["x-kubernetes-map-type"] = json!("atomic"),
                ("listAtomic", None) => node["x-kubernetes-list-type"] = json!("atomic"),
                _ => {
                    if let Some(members) = token.strip_prefix("enum(").and_then(|rest| rest.strip_suffix(')')) {
                        let ours =
                            ADDITIONS.iter().filter(|(owner, field, _)| *owner == row.owner && *field == row.field);
                        let members: Vec<_> = members.split(',').chain(ours.map(|(_, _, member)| *member)).collect();
                        node["enum"] = json!(members);
                    } else if let Some(key) = token.strip_prefix("listMap(").and_then(|rest| rest.strip_suffix(')')) {
                        node["x-kubernetes-list-type"] = json!("map");
                        node["x-kubernetes-list-map-keys"] = json!([key]);
                    } else if let Some(pattern) = contract.patterns.get(token) {
                        node["pattern"] = json!(pattern);
                    } else if token.starts_with("(C") {
                        // The rule sits on the parent, which names it as well.
                    } else {
                        self.rule(token, path, node);
                    }
                }
            }
        }
    }

    /// Rule `id` sits on this node or, if the table of rules says so, on its items.
    fn rule(&mut self, id: &str, path: &str, node: &mut Value) {
        let rule = self.contract.rules.iter().find(|rule| rule.id == id);
        let rule = rule.unwrap_or_else(|| panic!("{path}: what does {id} mean?"));
        let node = match rule.location.strip_prefix(path) {
            Some("") => node,
            Some("[]") => &mut node["items"],
            _ => panic!("{path}: rule {id} sits on {}", rule.location),
        };
        let rules = node.as_object_mut().unwrap().entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        rules.as_array_mut().unwrap().push(json!({ "rule": rule.rule, "message": rule.message }));
        self.rules.insert(id.to_owned());
    }
}

/// Splits at commas outside parentheses.
fn tokens(validation: &str) -> Vec<&str> {
    let mut depth = 0;
    validation
        .split(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .collect()
}

/// The schema of the only version, without descriptions.
fn generated_schema(crd: &CustomResourceDefinition) -> Value {
    let value = schema::to_value(crd).unwrap();
    let mut root = value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    without_descriptions(&mut root);
    root
}

fn without_descriptions(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("description");
    for (key, value) in node {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(without_descriptions),
            ("items" | "additionalProperties", value) => without_descriptions(value),
            _ => {}
        }
    }
}

/// Lists every place where two schemas differ, with what was expected there.
fn compare(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
        if expected != found {
            differences.push(format!("{path}: expected {expected}, found {found}"));
        }
        return;
    };
    let empty = Value::Object(Map::new());
    for key in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let path = if key == "properties" { path.to_owned() } else { format!("{path}.{key}") };
        match (expected.get(key), found.get(key)) {
            (Some(expected), Some(found)) if key == "required" => {
                if sorted(expected) != sorted(found) {
                    differences.push(format!("{path}: expected {expected}, found {found}"));
                }
            }
            (Some(expected), Some(found)) => compare(&path, expected, found, differences),
            // A structure without listed fields.
            (Some(value), None) | (None, Some(value)) if key == "properties" && *value == empty => {}
            (Some(expected), None) => differences.push(format!("{path}: expected {expected}, found nothing")),
            (None, Some(found)) => differences.push(format!("{path}: the contract does not have it, found {found}")),
            (None, None) => {}
        }
    }
}

fn sorted(names: &Value) -> BTreeSet<String> {
    names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
