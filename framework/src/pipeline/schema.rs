//! The JSON Schema of pipeline files, for editors.

use super::{Batch, Pool, Replicas};
use crate::stage::{Needs, ParamSchema, Registry, Signature};
use serde_json::{Map, Value, json};

/// The JSON Schema (draft 2020-12) of pipeline files that use the stages of a registry. What `with` and `from` may
/// hold depends on `use`.
pub fn schema(registry: &Registry) -> Value {
    let mut definitions = Map::new();
    let mut rules = Vec::new();
    let (mut names, mut about) = (Vec::new(), Vec::new());
    for (name, stage) in registry.stages() {
        let signature = stage.signature();
        names.push(Value::from(name));
        about.push(Value::from(signature.about.as_str()));
        let mut then = Map::new();
        match &signature.params {
            Some(params) => {
                let key = format!("with.{name}");
                then.insert("with".into(), json!({ "$ref": pointer(&key) }));
                let required = params.schema().get("required").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
                definitions.insert(key.clone(), embedded(params.schema(), &key));
                let mut rule = json!({ "properties": then });
                if required {
                    rule["required"] = json!(["with"]);
                }
                rules.push((name, rule, signature));
            }
            None => rules.push((name, json!({ "properties": { "with": { "maxProperties": 0 } } }), signature)),
        }
    }
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|(name, mut then, signature)| {
            then["properties"]["from"] = from(signature);
            json!({ "if": { "properties": { "use": { "const": name } }, "required": ["use"] }, "then": then })
        })
        .collect();
    for (key, schema) in [
        ("needs", ParamSchema::of::<Needs>()),
        ("batch", ParamSchema::of::<Batch>()),
        ("replicas", ParamSchema::of::<Replicas>()),
        ("pool", ParamSchema::of::<Pool>()),
    ] {
        definitions.insert(key.into(), embedded(schema.schema(), key));
    }
    let reference = "^[a-z][a-z0-9_-]*(\\..+)?$";
    definitions.insert(
        "reference".into(),
        json!({ "type": "string", "pattern": reference, "description": "A stage, or one of its outputs: `stage.output`." }),
    );
    let name = json!({ "pattern": "^[a-z][a-z0-9_-]*$" });
    definitions.insert(
        "stage".into(),
        json!({
            "type": "object",
            "properties": {
                "use": {
                    "description": "What computes.",
                    "type": "string",
                    "enum": names,
                    "x-taplo": { "docs": { "enumValues": about } },
                },
                "from": { "description": "What it takes: a stage, a list of stages, or stages by port." },
                "with": { "description": "Its parameters.", "type": "object" },
                "needs": { "description": "What it needs of a worker.", "$ref": pointer("needs") },
            },
            "required": ["use"],
            "additionalProperties": false,
            "allOf": rules,
        }),
    );
    definitions.insert(
        "serve".into(),
        json!({
            "type": "object",
            "properties": {
                "apply": {
                    "description": "The stages whose models a request passes through, in order.",
                    "anyOf": [
                        { "$ref": pointer("reference") },
                        { "type": "array", "items": { "$ref": pointer("reference") }, "minItems": 1 },
                    ],
                },
                "batch": { "$ref": pointer("batch") },
                "replicas": { "$ref": pointer("replicas") },
            },
            "required": ["apply"],
            "additionalProperties": false,
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ropeway pipeline",
        "type": "object",
        "properties": {
            "name": { "description": "What to call the pipeline.", "type": "string" },
            "seed": { "description": "Where all chance comes from.", "type": "integer", "minimum": 0, "default": 0 },
            "store": {
                "description": "The URL of the store: file://, memory://, s3://, gs:// or az://.",
                "type": "string",
            },
            "stage": {
                "description": "The stages by name.",
                "type": "object",
                "propertyNames": name,
                "additionalProperties": { "$ref": pointer("stage") },
                "minProperties": 1,
            },
            "serve": {
                "description": "What can be served, by name.",
                "type": "object",
                "propertyNames": name,
                "additionalProperties": { "$ref": pointer("serve") },
            },
            "pool": {
                "description": "Where workers come from, by name.",
                "type": "object",
                "propertyNames": name,
                "additionalProperties": { "$ref": pointer("pool") },
            },
        },
        "required": ["stage"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// What `from` may be for a stage.
fn from(signature: &Signature) -> Value {
    let one = json!({ "$ref": pointer("reference") });
    let list = json!({ "type": "array", "items": one, "minItems": 1 });
    let port = |many: bool| if many { json!({ "anyOf": [one, list] }) } else { one.clone() };
    if signature.inputs.is_empty() && signature.open.is_none() {
        return json!({ "type": "object", "maxProperties": 0 });
    }
    let ports: Map<String, Value> =
        signature.inputs.iter().map(|input| (input.name.clone(), port(input.many))).collect();
    let others = if signature.open.is_some() { one.clone() } else { Value::Bool(false) };
    // None is required: a template may leave open what the stage that runs it gives.
    let table = json!({ "type": "object", "properties": ports, "additionalProperties": others });
    let mut forms = vec![one.clone(), table];
    if signature.open.is_some() || signature.inputs.iter().any(|input| input.many) {
        forms.push(list.clone());
    }
    json!({ "anyOf": forms })
}

fn pointer(key: &str) -> String {
    format!("#/$defs/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A schema of its own as a definition of another: what it refers to is now further down.
fn embedded(schema: &Value, key: &str) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
    }
    move_references(&mut schema, &pointer(key));
    schema
}

fn move_references(schema: &mut Value, to: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(reference) if key == "$ref" => {
                        if let Some(rest) = reference.strip_prefix('#') {
                            *reference = format!("{to}{rest}");
                        }
                    }
                    other => move_references(other, to),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, to)),
        _ => {}
    }
}
