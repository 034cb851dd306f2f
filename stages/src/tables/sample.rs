//! A random choice of rows.

use super::pick::{Classes, apportion, below, shuffle, take_rows};
use rand::Rng;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Params, Seed};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the `sample` stage is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Fields")]
pub(super) struct Sample(Fields);

/// The parameters, not checked against each other yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    /// How many rows to draw; this or `fraction`.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<usize>,
    /// How many rows to draw, as a part of all; this or `rows`.
    #[schemars(range(min = 0.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    /// Whether a row may be drawn more than once.
    replace: bool,
    /// A column: each of its values gets its share of the rows (largest remainder).
    #[serde(skip_serializing_if = "Option::is_none")]
    stratify: Option<String>,
}

impl TryFrom<Fields> for Sample {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        match (fields.rows, fields.fraction) {
            (Some(_), Some(_)) => Err(Error::usage("`rows` and `fraction` say the same thing: give one of them")),
            (None, None) => Err(Error::usage("how many rows? give `rows` (a number) or `fraction` (a part of all)")),
            (Some(0), None) => Err(Error::usage("`rows` must be at least 1")),
            (None, Some(part)) if !(part > 0.0 && part.is_finite()) => {
                Err(Error::usage(format!("`fraction` must be over 0, but is {part}")))
            }
            (None, Some(part)) if part > 1.0 && !fields.replace => {
                Err(Error::usage(format!("`fraction` is {part}: more than all rows needs `replace = true`")))
            }
            _ => Ok(Self(fields)),
        }
    }
}

/// The stage. Rows keep their order.
pub(super) fn sample(rows: Frame, Params(Sample(params)): Params<Sample>, seed: Seed) -> Result<Frame> {
    let all = rows.rows();
    let count = match (params.rows, params.fraction) {
        (Some(count), _) => count,
        (None, fraction) => (fraction.unwrap_or_default() * all as f64).round() as usize,
    };
    if all == 0 || count == 0 {
        return Err(Error::new(format!("a sample of {count} of {all} rows is empty")));
    }
    if count > all && !params.replace {
        return Err(Error::new(format!("{count} rows can't be drawn from {all}"))
            .help("draw fewer, or let rows be drawn again with `replace = true`"));
    }
    let classes = match &params.stratify {
        Some(column) => Classes::of(rows.column(column)?)?.rows,
        None => vec![(0..all).collect()],
    };
    let sizes: Vec<f64> = classes.iter().map(|class| class.len() as f64).collect();
    let mut random = seed.rng("sample");
    let mut drawn = Vec::with_capacity(count);
    for (class, count) in classes.into_iter().zip(apportion(count, &sizes)) {
        draw(class, count, params.replace, &mut random, &mut drawn);
    }
    drawn.sort_unstable();
    take_rows(&rows, &drawn)
}

fn draw(mut rows: Vec<usize>, count: usize, replace: bool, random: &mut impl Rng, drawn: &mut Vec<usize>) {
    if replace {
        drawn.extend((0..count).map(|_| rows[below(random, rows.len())]));
    } else {
        shuffle(&mut rows, count, random);
        drawn.extend_from_slice(&rows[..count.min(rows.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use serde_json::json;
    use std::sync::Arc;

    fn numbers(count: i64) -> Frame {
        let x: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        let class: ArrayRef = Arc::new(Int64Array::from_iter_values((0..count).map(|i| i64::from(i % 10 == 0))));
        Frame::from_columns([("x", x), ("class", class)]).unwrap()
    }

    fn draw(params: serde_json::Value, seed: u64) -> Result<Vec<i64>> {
        let params: Sample = serde_json::from_value(params)?;
        let rows = sample(numbers(1000), Params(params), Seed::new(seed, "sample"))?;
        Ok(rows.column("x")?.as_primitive::<Int64Type>().values().to_vec())
    }

    #[test]
    fn without_replacement_rows_are_distinct_and_in_order() {
        let rows = draw(json!({"fraction": 0.25}), 1).unwrap();
        assert_eq!(rows.len(), 250);
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(rows, draw(json!({"rows": 250}), 1).unwrap());
        assert_ne!(rows, draw(json!({"rows": 250}), 2).unwrap());
        assert_eq!(draw(json!({"rows": 1000}), 3).unwrap(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn with_replacement_rows_repeat() {
        let rows = draw(json!({"fraction": 2.0, "replace": true}), 1).unwrap();
        assert_eq!(rows.len(), 2000);
        assert!(rows.windows(2).any(|pair| pair[0] == pair[1]) && rows.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn classes_keep_their_shares() {
        let rows = draw(json!({"rows": 100, "stratify": "class"}), 1).unwrap();
        assert_eq!(rows.iter().filter(|x| **x % 10 == 0).count(), 10);
    }

    #[test]
    fn mistakes_are_named() {
        for (params, words) in [
            (json!({}), "how many rows"),
            (json!({"rows": 1, "fraction": 0.1}), "say the same thing"),
            (json!({"fraction": 0.0}), "over 0"),
            (json!({"fraction": 1.5}), "replace"),
            (json!({"rows": 0}), "at least 1"),
            (json!({"rows": 1001}), "can't be drawn"),
            (json!({"fraction": 0.0001}), "is empty"),
            (json!({"rows": 5, "stratify": "clas"}), "no column"),
            (json!({"row": 5}), "unknown field"),
        ] {
            let error = draw(params.clone(), 1).unwrap_err().to_string();
            assert!(error.contains(words), "{params}: {error}");
        }
    }
}
