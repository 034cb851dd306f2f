//! Places in nested parameters, written with dots: `optimizer.adamw.rate`.

use ropeway_framework::{Error, Result};
use serde_json::{Map, Value};

/// The value at a path, if there is one.
pub fn get<'a>(params: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(params, |value, segment| match value {
        Value::Object(map) => map.get(segment),
        Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Puts a value at a path; tables that are missing on the way are made.
///
/// The name of an algorithm stands for its table: `rate` in `optimizer.adamw.rate` goes into `optimizer = "adamw"`.
///
/// # Errors
/// Something on the way can't hold the rest of the path.
pub fn set(params: &mut Value, path: &str, value: Value) -> Result<()> {
    let mut place = params;
    let mut passed = 0;
    for segment in path.split('.') {
        let named = matches!(&*place, Value::String(name) if name == segment);
        if place.is_null() || named {
            *place = Value::Object(Map::new());
        }
        place = match place {
            Value::Object(map) => map.entry(segment).or_insert(Value::Null),
            Value::Array(items) => {
                let length = items.len();
                let item = segment.parse::<usize>().ok().and_then(|index| items.get_mut(index));
                item.ok_or_else(|| Error::usage(format!("there is no item {segment:?} among {length}")))?
            }
            other => {
                let before = path.get(..passed).unwrap_or_default().trim_end_matches('.');
                return Err(Error::usage(format!("`{before}` is {other}, which has no `{segment}`")));
            }
        };
        passed += segment.len() + 1;
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(mut params: Value, path: &str, value: Value) -> Result<Value> {
        set(&mut params, path, value)?;
        assert!(get(&params, path).is_some());
        Ok(params)
    }

    #[test]
    fn values_go_into_nested_tables() {
        let params = json!({"model": {"mlp": {"hidden": [64, 32]}}, "batch": 8});
        assert_eq!(
            with(params.clone(), "model.mlp.hidden", json!([1])).unwrap(),
            json!({"model": {"mlp": {"hidden": [1]}}, "batch": 8})
        );
        assert_eq!(
            with(params.clone(), "model.mlp.hidden.1", json!(5)).unwrap(),
            json!({"model": {"mlp": {"hidden": [64, 5]}}, "batch": 8})
        );
        assert_eq!(with(Value::Null, "a.b.c", json!(1)).unwrap(), json!({"a": {"b": {"c": 1}}}));
        assert_eq!(
            with(json!({"optimizer": "adamw"}), "optimizer.adamw.rate", json!(0.1)).unwrap(),
            json!({"optimizer": {"adamw": {"rate": 0.1}}})
        );
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let message = |params, path| with(params, path, json!(1)).unwrap_err().to_string();
        assert_eq!(message(json!({"a": {"batch": 8}}), "a.batch.size"), "`a.batch` is 8, which has no `size`");
        assert_eq!(
            message(json!({"optimizer": "sgd"}), "optimizer.adamw.rate"),
            "`optimizer` is \"sgd\", which has no `adamw`"
        );
        assert_eq!(message(json!({"hidden": [1, 2]}), "hidden.7"), "there is no item \"7\" among 2");
    }

    #[test]
    fn absent_places_have_no_value() {
        assert_eq!(get(&json!({"a": [1]}), "a.0"), Some(&json!(1)));
        assert_eq!(get(&json!({"a": [1]}), "a.b"), None);
        assert_eq!(get(&json!({"a": 1}), "a.b"), None);
    }
}
