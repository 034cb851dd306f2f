//! How a parameter of a space is written in a pipeline.

use super::{Domain, Parameter};
use ropeway_framework::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Exactly one of `float`, `log`, `int` and `choice`, and what goes with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Parameter")]
pub(super) struct Written {
    /// Real numbers, evenly: `[low, high]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    float: Option<[f64; 2]>,
    /// Real numbers, evenly in their logarithm: `[low, high]`. Or `true`, beside `float` or `int`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
    /// Whole numbers, evenly: `[low, high]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    int: Option<[i64; 2]>,
    /// Any of these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<Vec<Value>>,
    /// The distance between values, from the lower bound on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<f64>,
    /// Other parameters of the space and the values that they must have for this one to matter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    when: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug)]
enum Log {
    Bounds([f64; 2]),
    Flag(bool),
}

impl TryFrom<Written> for Parameter {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let flag = |log| match log {
            None => Ok(false),
            Some(Log::Flag(flag)) => Ok(flag),
            Some(Log::Bounds(_)) => Err(Error::usage("beside `float` or `int`, write `log = true`")),
        };
        let domain = match (written.float, written.log, written.int, written.choice) {
            (Some([low, high]), log, None, None) => Domain::Float { low, high, step: written.step, log: flag(log)? },
            (None, Some(Log::Bounds([low, high])), None, None) => {
                Domain::Float { low, high, step: written.step, log: true }
            }
            (None, log, Some([low, high]), None) => {
                Domain::Int { low, high, step: whole_step(written.step)?, log: flag(log)? }
            }
            (None, None, None, Some(_)) if written.step.is_some() => {
                return Err(Error::usage("a `choice` takes no `step`"));
            }
            (None, None, None, Some(values)) => Domain::Choice(values),
            _ => {
                return Err(Error::usage(
                    "write exactly one of `float = [low, high]`, `log = [low, high]`, `int = [low, high]` and \
                     `choice = [...]`",
                ));
            }
        };
        domain.check()?;
        Ok(Self { domain, when: written.when })
    }
}

impl From<Parameter> for Written {
    fn from(parameter: Parameter) -> Self {
        let written = Written { when: parameter.when, ..Written::default() };
        match parameter.domain {
            Domain::Float { low, high, log: true, .. } => Written { log: Some(Log::Bounds([low, high])), ..written },
            Domain::Float { low, high, step, log: false } => Written { float: Some([low, high]), step, ..written },
            Domain::Int { low, high, step, log } => Written {
                int: Some([low, high]),
                log: log.then_some(Log::Flag(true)),
                step: (step != 1).then_some(step as f64),
                ..written
            },
            Domain::Choice(values) => Written { choice: Some(values), ..written },
        }
    }
}

fn whole_step(step: Option<f64>) -> Result<i64> {
    match step {
        None => Ok(1),
        Some(step) if step.fract() == 0.0 && step.abs() < 9e15 => Ok(step as i64),
        Some(step) => Err(Error::usage(format!("the `step` of an `int` must be whole, not {step}"))),
    }
}

impl Serialize for Log {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Log::Bounds(bounds) => bounds.serialize(serializer),
            Log::Flag(flag) => flag.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Log {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LogVisitor)
    }
}

struct LogVisitor;

impl<'de> Visitor<'de> for LogVisitor {
    type Value = Log;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[low, high], or true beside `float` or `int`")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Log, E> {
        Ok(Log::Flag(flag))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Log, A::Error> {
        let low = items.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let high = items.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        Ok(Log::Bounds([low, high]))
    }
}

impl JsonSchema for Log {
    fn schema_name() -> Cow<'static, str> {
        "Log".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let bounds = generator.subschema_for::<[f64; 2]>();
        json_schema!({ "anyOf": [bounds, { "type": "boolean" }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(written: Value) -> Result<Parameter, String> {
        serde_json::from_value(written).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        let forms = [
            (json!({"log": [1e-4, 1e-1]}), Domain::log(1e-4, 1e-1)),
            (
                json!({"float": [0.0, 1.0], "step": 0.25}),
                Domain::Float { low: 0.0, high: 1.0, step: Some(0.25), log: false },
            ),
            (json!({"int": [1, 9], "step": 2.0}), Domain::Int { low: 1, high: 9, step: 2, log: false }),
            (json!({"int": [1, 9], "log": true}), Domain::Int { low: 1, high: 9, step: 1, log: true }),
            (
                json!({"choice": [[32], "relu", 3, null]}),
                Domain::Choice(vec![json!([32]), json!("relu"), json!(3), json!(null)]),
            ),
        ];
        for (written, domain) in forms {
            let parameter = read(written.clone()).unwrap();
            assert_eq!(parameter.domain, domain);
            assert_eq!(serde_json::to_value(parameter).unwrap(), written);
        }
        let long_form = read(json!({"float": [1, 2], "log": true, "when": {"a": 1}})).unwrap();
        assert_eq!(serde_json::to_value(long_form).unwrap(), json!({"log": [1.0, 2.0], "when": {"a": 1}}));
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = [
            (json!({}), "exactly one of"),
            (json!({"int": [1, 2], "choice": [1]}), "exactly one of"),
            (json!({"log": true}), "exactly one of"),
            (json!({"int": [1, 2], "log": [1, 2]}), "write `log = true`"),
            (json!({"int": [1.5, 2]}), "floating point"),
            (json!({"int": [1, 9], "step": 0.5}), "must be whole"),
            (json!({"choice": [1, 2], "step": 1}), "takes no `step`"),
            (json!({"log": [0, 1]}), "start above 0"),
            (json!({"log": [1]}), "[low, high]"),
            (json!({"log": "yes"}), "[low, high]"),
            (json!({"uniform": [0, 1]}), "unknown field `uniform`"),
        ];
        for (written, why) in mistakes {
            let message = read(written.clone()).unwrap_err();
            assert!(message.contains(why), "{written}: {message}");
        }
    }
}
