//! Parameters: checked and made complete before anything runs.

use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// A type that a stage's `with` table is read into. Implemented for everything that serde and schemars can derive.
///
/// Put `#[serde(deny_unknown_fields)]` on structs, ranges in `#[schemars(range(...))]`, and rules between fields in
/// `#[serde(try_from = "...")]`: all of them are checked before anything runs, and shown at the place in the file.
pub trait Parameters: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static> Parameters for T {}

/// The parameters of a stage: their JSON Schema, and how to check and complete them.
#[derive(Clone)]
pub struct ParamSchema {
    schema: Arc<Schema>,
    normalise: fn(&Value) -> Result<Value, ParamError>,
}

/// A mistake in parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// Where: `["optimizer", "adamw", "rate"]`; array positions are numbers in decimal.
    pub path: Vec<String>,
    /// What.
    pub message: String,
}

impl ParamSchema {
    /// The schema of a type.
    pub fn of<T: Parameters>() -> Self {
        Self { schema: Arc::new(schema_for!(T)), normalise: normalise::<T> }
    }

    /// The JSON Schema.
    pub fn schema(&self) -> &Value {
        self.schema.as_value()
    }

    /// Reads parameters and writes them again, with every default filled in.
    ///
    /// # Errors
    /// The first mistake.
    pub fn normalise(&self, params: &Value) -> Result<Value, ParamError> {
        (self.normalise)(params)
    }
}

impl fmt::Debug for ParamSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParamSchema({:?})", self.schema.get("title"))
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path.join("."))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParamError {}

fn normalise<T: Parameters>(params: &Value) -> Result<Value, ParamError> {
    let empty = Value::Object(Map::new());
    let params = if params.is_null() { &empty } else { params };
    // Most are right: only for a mistake it matters where it is.
    let read = match T::deserialize(params) {
        Ok(read) => read,
        Err(_) => placed::<T>(params)?,
    };
    serde_json::to_value(&read).map_err(|error| ParamError { path: Vec::new(), message: error.to_string() })
}

/// Reads parameters; a mistake says where it is.
fn placed<T: Parameters>(params: &Value) -> Result<T, ParamError> {
    serde_path_to_error::deserialize(params).map_err(|error| ParamError {
        path: error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
                serde_path_to_error::Segment::Map { key } => Some(key.clone()),
                // The name of an enum's variant is the key of its table.
                serde_path_to_error::Segment::Enum { variant } => Some(variant.clone()),
                serde_path_to_error::Segment::Unknown => None,
            })
            .collect(),
        message: error.inner().to_string(),
    })
}

pub(super) fn expect_none(params: &Value) -> Result<Value, ParamError> {
    match params {
        Value::Null => Ok(Value::Null),
        Value::Object(map) => match map.keys().next() {
            None => Ok(Value::Null),
            Some(key) => Err(ParamError { path: vec![key.clone()], message: "this stage takes no parameters".into() }),
        },
        _ => Err(ParamError { path: Vec::new(), message: "this stage takes no parameters".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Clip {
        low: f64,
        #[serde(default = "one")]
        high: f64,
    }

    fn one() -> f64 {
        1.0
    }

    #[test]
    fn defaults_are_filled_in_and_mistakes_are_placed() {
        let schema = ParamSchema::of::<Clip>();
        assert_eq!(schema.normalise(&json!({"low": 0})).unwrap(), json!({"low": 0.0, "high": 1.0}));
        let error = schema.normalise(&json!({"low": "x"})).unwrap_err();
        assert_eq!(error.path, ["low"]);
        assert!(schema.normalise(&Value::Null).unwrap_err().message.contains("missing field `low`"));
    }
}
