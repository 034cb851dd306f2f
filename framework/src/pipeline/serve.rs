//! `[serve.NAME]`: what a request passes through, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How requests are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// The most rows that are computed at once.
    #[schemars(range(min = 1))]
    pub rows: u32,
    /// How long a request waits for others: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "span_of_time")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$"))]
    pub wait: Duration,
}

/// How many servers there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, try_from = "ReplicasAsWritten")]
pub struct Replicas {
    /// The fewest; with 0, the first request after a pause waits for a server.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// How long a server may be idle: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "span_of_time")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$"))]
    pub idle: Duration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ReplicasAsWritten {
    /// The fewest; with 0, the first request after a pause waits for a server.
    min: u32,
    /// The most.
    #[schemars(range(min = 1))]
    max: u32,
    /// How long a server may be idle: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "span_of_time")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$"))]
    idle: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { rows: 64, wait: Duration::from_millis(1) }
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: 1, max: 1, idle: Duration::from_secs(60) }
    }
}

impl Default for ReplicasAsWritten {
    fn default() -> Self {
        let Replicas { min, max, idle } = Replicas::default();
        Self { min, max, idle }
    }
}

impl TryFrom<ReplicasAsWritten> for Replicas {
    type Error = String;

    fn try_from(ReplicasAsWritten { min, max, idle }: ReplicasAsWritten) -> Result<Self, String> {
        if min > max {
            return Err(format!("`min` is {min}, which is more than `max`, {max}"));
        }
        Ok(Self { min, max, idle })
    }
}

/// A length of time as text: `250us`, `1ms`, `1.5s`, `10m`, `1h`.
mod span_of_time {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    const UNITS: [(&str, u64); 5] =
        [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = time.as_nanos();
        let whole = UNITS.iter().rev().find(|(_, unit)| nanos.is_multiple_of(u128::from(*unit)) && nanos > 0);
        match whole {
            Some((name, unit)) => serializer.collect_str(&format_args!("{}{name}", nanos / u128::from(*unit))),
            None => serializer.collect_str(&format_args!("{}us", nanos / 1_000)),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no length of time; write \"1ms\" or \"60s\"")))
    }

    pub(super) fn parse(text: &str) -> Option<Duration> {
        let split = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, name) = text.split_at_checked(split)?;
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * (*unit as f64 / 1e9)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn times_have_units() {
        assert_eq!(span_of_time::parse("1ms"), Some(Duration::from_millis(1)));
        assert_eq!(span_of_time::parse("1.5s"), Some(Duration::from_millis(1500)));
        for wrong in ["", "1", "ms", "-1s", "1 day", "1e99h", "infs", "+1s"] {
            assert_eq!(span_of_time::parse(wrong), None, "{wrong:?}");
        }
        let batch: Batch = from_value(json!({"wait": "90s"})).unwrap();
        assert_eq!(to_value(&batch).unwrap(), json!({"rows": 64, "wait": "90s"}));
        assert_eq!(from_value::<Batch>(to_value(&batch).unwrap()).unwrap(), batch);
    }

    #[test]
    fn the_fewest_are_at_most_the_most() {
        let error = from_value::<Replicas>(json!({"min": 3, "max": 2})).unwrap_err();
        assert_eq!(error.to_string(), "`min` is 3, which is more than `max`, 2");
    }
}
