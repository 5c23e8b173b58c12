//! Parameters of action sets: their schema, and values for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;

/// The parameters that backups and restores with an action set may be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParametersSchema {
    /// OpenAPI v3 schema: an object with one property per parameter, of type `string`, `number`, `integer`, `boolean` or
    /// `array` of texts.
    #[serde(rename = "openAPIV3Schema", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub open_api_v3_schema: Option<Map<String, Value>>,
}

/// The value of one parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParameterPair {
    /// Name of the parameter. It becomes the name of an environment variable.
    pub name: String,

    /// Its value as text. Numbers are written as text too; the entries of a list are separated by commas.
    pub value: String,
}
