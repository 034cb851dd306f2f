//! An algorithm in a pipeline: by its name alone, or as a table with its parameters.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};
use std::fmt;
use std::marker::PhantomData;

/// Reads an externally tagged enum from `{ asha = { min = 1 } }` or from `"asha"`, which means `{ asha = {} }`.
pub(crate) fn read<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(NameOrTable(PhantomData))
}

/// The schema of what [`read`] reads.
pub(crate) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let variants = T::json_schema(generator);
    let variants = variants.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<String> =
        variants.iter().filter_map(|variant| variant.get("properties")?.as_object()?.keys().next().cloned()).collect();
    let table = generator.subschema_for::<T>();
    json_schema!({ "anyOf": [{ "enum": names }, table] })
}

struct NameOrTable<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for NameOrTable<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a table with a name and its parameters")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        T::deserialize(json!({ name: {} })).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
