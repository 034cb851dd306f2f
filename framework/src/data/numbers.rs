//! Named numbers in JSON, for `#[serde(with = ...)]`: those that JSON has no number for are texts, as in artifacts. By
//! default `serde_json` writes them as `null`, which nobody can read back.

use super::codec::{read_number, write_number};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) fn serialize<S: Serializer>(numbers: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().map(|(name, value)| (name, write_number(*value))))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let number = |(name, value): (String, Value)| match &value {
        Value::Null => Ok((name, f64::NAN)),
        value => match read_number(value) {
            Some(number) => Ok((name, number)),
            None => Err(D::Error::custom(format!("{name:?} is {value}, which is no number"))),
        },
    };
    values.into_iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use crate::data::Metrics;

    #[test]
    fn what_json_has_no_number_for_comes_back() {
        let odd = [("a", f64::NAN), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", 0.1), ("e", -0.0)];
        let text = serde_json::to_string(&odd.into_iter().collect::<Metrics>()).unwrap();
        assert_eq!(text, r#"{"a":"NaN","b":"inf","c":"-inf","d":0.1,"e":-0.0}"#);
        let read: Metrics = serde_json::from_str(&text).unwrap();
        assert!(read.iter().zip(odd).all(|((_, found), (_, value))| found.to_bits() == value.to_bits()), "{read:?}");
        let before: Metrics = serde_json::from_str(r#"{"a":null}"#).unwrap();
        assert!(before.get("a").unwrap().is_nan());
        assert!(serde_json::from_str::<Metrics>(r#"{"a":"x"}"#).is_err());
    }
}
