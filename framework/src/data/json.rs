//! JSON with one text for each value, and the way back without rounding.

use crate::{Error, Result};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// How deep JSON may be nested; `serde_json` itself stops at the same depth.
const MAX_DEPTH: usize = 128;

/// JSON with the keys of every object in order: equal values give equal text.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// Adds [`canonical_json`] of a value to a text.
pub(crate) fn write(value: &Value, text: &mut String) {
    let separated = |first: bool, text: &mut String| {
        if !first {
            text.push(',');
        }
    };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                separated(index == 0, text);
                write_text(key, text);
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                separated(index == 0, text);
                write(item, text);
            }
            text.push(']');
        }
        Value::String(value) => write_text(value, text),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Null => text.push_str("null"),
        Value::Number(number) => text.push_str(&number.to_string()),
    }
}

/// Adds a text as JSON has it: as it is in most cases.
pub(crate) fn write_text(value: &str, text: &mut String) {
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

/// Reads JSON; every float is the nearest one to its text, so that what [`canonical_json`] wrote comes back bit for
/// bit. (By default `serde_json` trades the last bit of a float for speed.)
pub(super) fn read_json(text: &[u8]) -> Result<Value> {
    exact(serde_json::from_slice(text)?, 0)
}

fn exact(raw: &RawValue, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(Error::new("JSON is nested too deeply"));
    }
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let fields = fields.into_iter().map(|(key, value)| Ok((key, exact(value, depth + 1)?)));
            Ok(Value::Object(fields.collect::<Result<Map<_, _>>>()?))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            Ok(Value::Array(items.into_iter().map(|item| exact(item, depth + 1)).collect::<Result<_>>()?))
        }
        Some(b'-' | b'0'..=b'9') => number(text).map(Value::Number),
        _ => Ok(serde_json::from_str(text)?),
    }
}

fn number(text: &str) -> Result<Number> {
    let integer = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    match integer {
        Ok(integer) if text != "-0" => Ok(integer),
        _ => Number::from_f64(text.parse()?).ok_or_else(|| Error::new(format!("the number {text} is too large"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_json_has_one_form() {
        let value: Value = serde_json::from_str(r#"{"b": [1, {"z": 0, "a": null}], "a": 2}"#).unwrap();
        assert_eq!(canonical_json(&value), r#"{"a":2,"b":[1,{"a":null,"z":0}]}"#);
    }

    proptest! {
        #[test]
        fn texts_are_written_as_serde_does(value: String, control in "[\\x00-\\x7f]*") {
            for value in [Value::from(value), Value::from(control)] {
                prop_assert_eq!(canonical_json(&value), value.to_string());
            }
        }
    }

    #[test]
    fn integers_and_signed_zero_stay_what_they_are() {
        let text = r#"[-0.0,-1,0,1.0,18446744073709551615,-9223372036854775808,1e300,true,null,"\"é\n"]"#;
        assert_eq!(canonical_json(&read_json(text.as_bytes()).unwrap()), text.replace("1e300", "1e+300"));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for text in ["", "{", "[1,]", "1e999", "nul", "{\"a\":1}x", "\u{0}", &deep] {
            assert!(read_json(text.as_bytes()).is_err(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn floats_come_back_bit_for_bit(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = canonical_json(&Value::from(vec![value]));
            let read = read_json(text.as_bytes()).unwrap();
            prop_assert_eq!(read[0].as_f64().map(f64::to_bits), Some(bits));
        }
    }
}
