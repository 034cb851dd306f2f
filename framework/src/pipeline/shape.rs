//! What a JSON Schema expects, read without compiling it, and said in words.

use super::diagnostic::join;
use super::tree::{Content, Item};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A schema's root, to look `$ref` up in.
#[derive(Clone, Copy)]
pub(super) struct Root<'s>(pub(super) &'s Value);

/// A schema with what it refers to: all of `parts` hold, and one of each group of `choices`.
#[derive(Default)]
pub(super) struct Shape<'s> {
    pub(super) parts: Vec<&'s Map<String, Value>>,
    pub(super) choices: Vec<&'s [Value]>,
}

/// A range of numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Bounds {
    low: Option<f64>,
    high: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
}

/// One of several forms that serde's enums have in TOML.
pub(super) enum Variant<'s> {
    /// `"auto"`: names of variants without contents.
    Names(Vec<&'s str>),
    /// `{ mlp = ... }`: a variant with contents.
    Table(&'s str),
    /// Anything else.
    Other,
}

impl<'s> Root<'s> {
    pub(super) fn shape(self, schema: &'s Value) -> Shape<'s> {
        let mut shape = Shape::default();
        self.collect(schema, &mut shape);
        shape
    }

    fn collect(self, schema: &'s Value, shape: &mut Shape<'s>) {
        let Some(map) = schema.as_object() else { return };
        // A schema may refer to itself; each part is taken once.
        if shape.parts.iter().any(|part| std::ptr::eq(*part, map)) {
            return;
        }
        shape.parts.push(map);
        if let Some(target) = map.get("$ref").and_then(Value::as_str).and_then(|name| self.target(name)) {
            self.collect(target, shape);
        }
        for part in map.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect(part, shape);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(choices) = map.get(key).and_then(Value::as_array) {
                shape.choices.push(choices);
            }
        }
    }

    fn target(self, name: &str) -> Option<&'s Value> {
        self.0.pointer(name.strip_prefix('#')?)
    }

    /// The options of a choice; an option that is nothing but a choice itself gives its own.
    pub(super) fn options(self, choice: &'s [Value]) -> Vec<&'s Value> {
        let mut found = Vec::new();
        let mut left: Vec<(&'s Value, usize)> = choice.iter().rev().map(|option| (option, 0)).collect();
        while let Some((option, depth)) = left.pop() {
            let shape = self.shape(option);
            let says_more = ["type", "properties", "const", "enum", "additionalProperties"];
            let only_choice = !shape.parts.iter().any(|part| says_more.iter().any(|key| part.contains_key(*key)));
            match shape.choices.as_slice() {
                [inner] if only_choice && depth < 8 => {
                    left.extend(inner.iter().rev().map(|option| (option, depth + 1)))
                }
                _ => found.push(option),
            }
        }
        found
    }

    pub(super) fn variant(self, option: &'s Value) -> Variant<'s> {
        let shape = self.shape(option);
        if !shape.choices.is_empty() {
            return Variant::Other;
        }
        if let Some(allowed) = shape.allowed() {
            let names: Option<Vec<&str>> = allowed.into_iter().map(Value::as_str).collect();
            return names.map_or(Variant::Other, Variant::Names);
        }
        let (properties, required) = (shape.properties(), shape.required());
        match (properties.as_slice(), required.as_slice()) {
            ([name], [must]) if name == must && shape.closed() && !is_tag(&shape.property(name)) => {
                Variant::Table(name)
            }
            _ => Variant::Other,
        }
    }

    /// "a number between 0 and 1", "`auto`, `cpu` or `cuda`", "a list or a string".
    pub(super) fn expected(self, schema: &'s Value) -> String {
        let mut names = Vec::new();
        let mut phrases = Vec::new();
        self.phrases(schema, 0, &mut names, &mut phrases);
        let mut all: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        all.extend(phrases);
        if all.is_empty() { "something else".into() } else { join(all, "or") }
    }

    fn phrases(self, schema: &'s Value, depth: usize, names: &mut Vec<String>, phrases: &mut Vec<String>) {
        let shape = self.shape(schema);
        if let Some(allowed) = shape.allowed() {
            for value in allowed.into_iter().filter(|value| !value.is_null()) {
                let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            return;
        }
        let mut add = |phrase: String| {
            if !phrases.contains(&phrase) {
                phrases.push(phrase);
            }
        };
        if depth > 0
            && let Variant::Table(name) = self.variant(schema)
        {
            return add(format!("{{ {name} = ... }}"));
        }
        if let Some(types) = shape.types() {
            let range = shape.bounds().in_words();
            for name in types {
                match name {
                    "integer" => add(format!("a whole number{range}")),
                    "number" => add(format!("a number{range}")),
                    "string" => add("a string".into()),
                    "boolean" => add("true or false".into()),
                    "array" => add("a list".into()),
                    "object" => add("a table".into()),
                    _ => {}
                }
            }
        } else if depth < 8 {
            for option in shape.choices.iter().flat_map(|choice| choice.iter()) {
                self.phrases(option, depth + 1, names, phrases);
            }
        }
    }
}

/// Whether a property only says which form a table has: `kind = "tpe"`.
fn is_tag(schemas: &[&Value]) -> bool {
    schemas.iter().any(|schema| schema.get("const").is_some())
}

impl<'s> Shape<'s> {
    /// The JSON types that fit, if not all do.
    pub(super) fn types(&self) -> Option<Vec<&'s str>> {
        let mut found: Option<Vec<&str>> = None;
        for part in &self.parts {
            let types: Vec<&str> = match part.get("type") {
                Some(Value::String(one)) => vec![one],
                Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
                _ => continue,
            };
            found = Some(match found {
                Some(before) => before.into_iter().filter(|name| types.contains(name)).collect(),
                None => types,
            });
        }
        found
    }

    /// The only values that fit, if there is such a list.
    pub(super) fn allowed(&self) -> Option<Vec<&'s Value>> {
        self.parts.iter().find_map(|part| match (part.get("const"), part.get("enum")) {
            (Some(one), _) => Some(vec![one]),
            (None, Some(Value::Array(many))) => Some(many.iter().collect()),
            _ => None,
        })
    }

    /// The names of the properties, each once, in order of name within each part.
    pub(super) fn properties(&self) -> Vec<&'s str> {
        let mut seen = BTreeSet::new();
        let keys = self.parts.iter().filter_map(|part| part.get("properties")?.as_object()).flat_map(Map::keys);
        keys.map(String::as_str).filter(|name| seen.insert(*name)).collect()
    }

    /// What a property must be.
    pub(super) fn property(&self, name: &str) -> Vec<&'s Value> {
        self.parts.iter().filter_map(|part| part.get("properties")?.get(name)).collect()
    }

    pub(super) fn required(&self) -> Vec<&'s str> {
        let mut seen = BTreeSet::new();
        let lists = self.parts.iter().filter_map(|part| part.get("required")?.as_array()).flatten();
        lists.filter_map(Value::as_str).filter(|name| seen.insert(*name)).collect()
    }

    /// What keys that are no properties must be.
    pub(super) fn additional(&self) -> Vec<&'s Value> {
        let values = self.parts.iter().filter_map(|part| part.get("additionalProperties"));
        values.filter(|value| value.is_object() || **value == Value::Bool(true)).collect()
    }

    /// Whether other keys than the properties are mistakes.
    pub(super) fn closed(&self) -> bool {
        let says_no = |key: &str| self.parts.iter().any(|part| part.get(key) == Some(&Value::Bool(false)));
        says_no("additionalProperties") || says_no("unevaluatedProperties")
    }

    /// Whether it says nothing of other keys than the properties. Serde would pass over them, and so over typos.
    pub(super) fn silent(&self) -> bool {
        let speaks = ["additionalProperties", "unevaluatedProperties", "patternProperties"];
        self.choices.is_empty()
            && self.parts.iter().any(|part| part.contains_key("properties"))
            && !self.parts.iter().any(|part| speaks.iter().any(|key| part.contains_key(*key)))
    }

    pub(super) fn bounds(&self) -> Bounds {
        let tightest = |key: &str, pick: fn(f64, f64) -> f64| {
            self.parts.iter().filter_map(|part| part.get(key)?.as_f64()).reduce(pick)
        };
        Bounds {
            low: tightest("minimum", f64::max),
            high: tightest("maximum", f64::min),
            above: tightest("exclusiveMinimum", f64::max),
            below: tightest("exclusiveMaximum", f64::min),
        }
    }

    /// The bounds with those of Rust's integer type.
    pub(super) fn type_bounds(&self) -> Bounds {
        let mut bounds = self.bounds();
        let format = self.parts.iter().find_map(|part| part.get("format")?.as_str()).unwrap_or_default();
        let (low, high) = match format {
            "uint8" => (0.0, f64::from(u8::MAX)),
            "uint16" => (0.0, f64::from(u16::MAX)),
            "uint32" => (0.0, f64::from(u32::MAX)),
            "int8" => (f64::from(i8::MIN), f64::from(i8::MAX)),
            "int16" => (f64::from(i16::MIN), f64::from(i16::MAX)),
            "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
            _ => return bounds,
        };
        bounds.low = bounds.low.or(bounds.above.is_none().then_some(low));
        bounds.high = bounds.high.or(bounds.below.is_none().then_some(high));
        bounds
    }

    /// The smallest or largest of a count such as `minItems`.
    pub(super) fn count(&self, key: &str) -> Option<u64> {
        self.parts.iter().find_map(|part| part.get(key)?.as_u64())
    }
}

impl Bounds {
    pub(super) fn hold(&self, number: f64) -> bool {
        self.low.is_none_or(|low| number >= low)
            && self.high.is_none_or(|high| number <= high)
            && self.above.is_none_or(|above| number > above)
            && self.below.is_none_or(|below| number < below)
    }

    /// " between 0 and 1", " of at least 1", " above 0", or nothing.
    pub(super) fn in_words(self) -> String {
        let low = self.above.map(|above| format!("above {above}"));
        let low = low.or(self.low.map(|low| format!("of at least {low}")));
        let high = self.below.map(|below| format!("below {below}"));
        let high = high.or(self.high.map(|high| format!("of at most {high}")));
        match (self.low, self.high, low, high) {
            (Some(low), Some(high), _, _) if self.above.is_none() && self.below.is_none() => {
                format!(" between {low} and {high}")
            }
            (_, _, Some(low), Some(high)) => format!(" {low} and {high}"),
            (_, _, Some(one), None) | (_, _, None, Some(one)) => format!(" {one}"),
            _ => String::new(),
        }
    }
}

/// Whether a value is of a JSON type.
pub(super) fn fits(name: &str, item: &Item) -> bool {
    match &item.content {
        Content::Null => name == "null",
        Content::Bool(_) => name == "boolean",
        Content::Number(number) => name == "number" || (name == "integer" && !number.is_f64()),
        Content::String(_) => name == "string",
        Content::Array(_) => name == "array",
        Content::Table(_) => name == "object",
        Content::Wrong => true,
    }
}
