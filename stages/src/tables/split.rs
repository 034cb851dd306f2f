//! Parts of a table for training, validation and test.

use super::pick::{Classes, apportion, shuffle, take_rows};
use arrow::array::Array;
use arrow::row::{RowConverter, SortField};
use rand::Rng;
use ropeway_framework::data::{Frame, Kind};
use ropeway_framework::stage::{Call, Input, Output, Outputs, ParamSchema, Seed, Signature, Stage};
use ropeway_framework::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The parts by name; the first that is given is the default output.
const PARTS: [&str; 3] = ["train", "valid", "test"];

/// How far the fractions may add up to more than 1, for `0.7 + 0.2 + 0.1`.
const SLACK: f64 = 1e-9;

/// What the `split` stage is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Fields")]
struct Parts(Fields);

/// The parameters, not checked against each other yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    /// The fraction of the rows to train on.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<f64>,
    /// The fraction of the rows to choose a model by.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<f64>,
    /// The fraction of the rows that only the final score sees.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<f64>,
    /// A column (the label): each of its values is spread over the parts in the same proportions.
    #[serde(skip_serializing_if = "Option::is_none")]
    stratify: Option<String>,
    /// A column (a patient, a customer): rows that share its value stay in one part.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// A column: the earliest rows are for training, the latest for the test; nothing is shuffled.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
}

impl Fields {
    /// The fraction of each part in [`PARTS`], and of the rows that no part gets.
    fn fractions(&self) -> [f64; 4] {
        let [train, valid, test] = self.given().map(Option::unwrap_or_default);
        let rest = 1.0 - (train + valid + test);
        [train, valid, test, if rest > SLACK { rest } else { 0.0 }]
    }

    fn given(&self) -> [Option<f64>; 3] {
        [self.train, self.valid, self.test]
    }
}

impl TryFrom<Fields> for Parts {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        let parts = PARTS.into_iter().zip(fields.given());
        let given: Vec<(&str, f64)> = parts.filter_map(|(name, part)| Some((name, part?))).collect();
        if given.is_empty() {
            return Err(Error::usage("which parts? give `train`, `valid` and `test` as fractions of the rows"));
        }
        for (name, part) in &given {
            if !(*part > 0.0 && *part <= 1.0) {
                return Err(Error::usage(format!("`{name}` must be a fraction over 0 and at most 1, but is {part}")));
            }
        }
        let sum: f64 = given.iter().map(|(_, part)| part).sum();
        if sum > 1.0 + SLACK {
            return Err(Error::usage(format!("the parts add up to {sum}, which is more than all rows")));
        }
        let ways = [("stratify", &fields.stratify), ("group", &fields.group), ("time", &fields.time)];
        let ways: Vec<&str> = ways.into_iter().filter_map(|(name, column)| column.as_ref().map(|_| name)).collect();
        match ways.as_slice() {
            [first, second, ..] => Err(Error::usage(format!("`{first}` and `{second}` can't be combined"))),
            _ => Ok(Self(fields)),
        }
    }
}

/// The `split` stage. Its outputs are the parts that its parameters name; rows keep their order in each part.
///
/// Part sizes are exact: the largest-remainder rounding of the fractions. With `stratify` that holds for each class,
/// and every class is in every part; with `group` sizes are as near as whole groups allow.
pub(super) struct Split {
    signature: Signature,
}

impl Split {
    pub(super) fn new() -> Self {
        let rows = Input { name: "rows".into(), kind: Some(Kind::Frame), ..Input::default() };
        let signature = Signature {
            version: 1,
            about: "Splits rows into train, valid and test: at random, stratified, by group or by time.".into(),
            inputs: vec![rows],
            outputs: PARTS.map(|part| Output::new(part, Kind::Frame)).into(),
            params: Some(ParamSchema::of::<Parts>()),
            seeded: true,
            ..Signature::default()
        };
        Self { signature }
    }
}

impl Stage for Split {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn outputs(&self, params: &Value) -> Vec<Output> {
        let given = |name: &&str| params.get(name).is_some_and(|part| !part.is_null());
        PARTS.into_iter().filter(given).map(|part| Output::new(part, Kind::Frame)).collect()
    }

    fn run(&self, call: Call) -> Result<Outputs> {
        let Parts(fields) = Parts::deserialize(&call.params).context("the parameters do not fit")?;
        let rows: Frame = call.input_as("rows")?;
        let parts = split(&rows, &fields, &call.seed)?;
        Ok(parts.into_iter().fold(Outputs::new(), |outputs, (name, part)| outputs.with(name, part)))
    }
}

/// The parts that `fields` asks for, by name.
fn split(rows: &Frame, fields: &Fields, seed: &Seed) -> Result<Vec<(&'static str, Frame)>> {
    let mut random = seed.rng("split");
    let fractions = fields.fractions();
    let all: Vec<usize> = (0..rows.rows()).collect();
    let mut parts = match (&fields.stratify, &fields.group, &fields.time) {
        (Some(column), _, _) => by_class(&Classes::of(rows.column(column)?)?, column, &fractions, &mut random)?,
        (_, Some(column), _) => by_group(&Classes::of(rows.column(column)?)?, all.len(), &fractions, &mut random),
        (_, _, Some(column)) => deal(&by_time(rows, column)?, &fractions),
        _ => {
            let mut order = all;
            let count = order.len();
            shuffle(&mut order, count, &mut random);
            deal(&order, &fractions)
        }
    };
    let mut named = Vec::new();
    for ((name, fraction), part) in PARTS.into_iter().zip(fields.given()).zip(&mut parts) {
        let Some(fraction) = fraction else { continue };
        if part.is_empty() {
            let error = Error::new(format!("the part `{name}` ({fraction} of {} rows) is empty", rows.rows()));
            return Err(match &fields.group {
                Some(group) => error.help(format!("column {group:?} has too few groups for so many parts")),
                None => error.help("give it a larger fraction, or leave it out"),
            });
        }
        part.sort_unstable();
        named.push((name, take_rows(rows, part)?));
    }
    Ok(named)
}

/// Cuts an order of rows into parts.
fn deal(order: &[usize], fractions: &[f64; 4]) -> Vec<Vec<usize>> {
    deal_counts(order, &apportion(order.len(), fractions))
}

fn deal_counts(order: &[usize], counts: &[usize]) -> Vec<Vec<usize>> {
    let mut rest = order;
    let mut part = |count: &usize| {
        let (here, later) = rest.split_at((*count).min(rest.len()));
        rest = later;
        here.to_vec()
    };
    counts.iter().map(&mut part).collect()
}

fn by_class(classes: &Classes, column: &str, fractions: &[f64; 4], random: &mut impl Rng) -> Result<Vec<Vec<usize>>> {
    let wanted: Vec<usize> = (0..fractions.len()).filter(|part| fractions[*part] > 0.0).collect();
    let named = wanted.iter().filter(|part| **part < PARTS.len()).count();
    let mut parts = vec![Vec::new(); fractions.len()];
    for (class, rows) in classes.rows.iter().enumerate() {
        if rows.len() < named {
            let label = classes.label(class);
            return Err(Error::new(format!(
                "class {label} of column {column:?} has {} row{}, too few for {named} parts",
                rows.len(),
                if rows.len() == 1 { "" } else { "s" }
            ))
            .help("drop the class with `sql`, join it with another, or split without `stratify`"));
        }
        let mut counts = apportion(rows.len(), fractions);
        every_part_gets_one(&mut counts, &wanted);
        let mut order = rows.clone();
        shuffle(&mut order, rows.len(), random);
        for (part, rows) in parts.iter_mut().zip(deal_counts(&order, &counts)) {
            part.extend(rows);
        }
    }
    Ok(parts)
}

/// Moves single rows from the largest part to those named parts that rounding left empty.
fn every_part_gets_one(counts: &mut [usize], wanted: &[usize]) {
    for part in wanted.iter().copied().filter(|part| *part < PARTS.len()) {
        if counts[part] == 0 {
            let largest = (0..counts.len()).max_by_key(|other| (counts[*other], usize::MAX - other)).unwrap_or(part);
            counts[largest] -= 1;
            counts[part] += 1;
        }
    }
}

/// Whole groups, in random order but large ones first, each to the part that still misses the most rows.
fn by_group(groups: &Classes, rows: usize, fractions: &[f64; 4], random: &mut impl Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<&Vec<usize>> = groups.rows.iter().collect();
    let count = order.len();
    shuffle(&mut order, count, random);
    order.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut missing: Vec<i64> = apportion(rows, fractions).into_iter().map(|count| count as i64).collect();
    let mut parts = vec![Vec::new(); fractions.len()];
    for group in order {
        let open = (0..fractions.len()).filter(|part| fractions[*part] > 0.0);
        let Some(part) = open.max_by_key(|part| (missing[*part], usize::MAX - part)) else { break };
        missing[part] -= group.len() as i64;
        parts[part].extend_from_slice(group);
    }
    parts
}

/// The rows from the earliest to the latest; of equal times the first row comes first.
fn by_time(rows: &Frame, column: &str) -> Result<Vec<usize>> {
    let times = rows.column(column)?;
    if times.null_count() > 0 {
        let nulls = times.null_count();
        return Err(Error::new(format!(
            "column {column:?} has {nulls} null{}, so its rows have no order",
            if nulls == 1 { "" } else { "s" }
        ))
        .help(format!("drop these rows with `sql`: WHERE {column} IS NOT NULL")));
    }
    let converter = RowConverter::new(vec![SortField::new(times.data_type().clone())])?;
    let keys = converter.convert_columns(&[times])?;
    let mut order: Vec<usize> = (0..rows.rows()).collect();
    order.sort_by(|a, b| keys.row(*a).cmp(&keys.row(*b)));
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn table(rows: usize, key: impl Fn(i64) -> i64) -> Frame {
        let x: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(key)));
        Frame::from_columns([("x", x), ("key", key)]).unwrap()
    }

    fn parts(frame: &Frame, params: Value) -> Result<Vec<(&'static str, Vec<i64>)>> {
        let Parts(fields) = serde_json::from_value(params)?;
        let values = |frame: &Frame| frame.column("x").unwrap().as_primitive::<Int64Type>().values().to_vec();
        let parts = split(frame, &fields, &Seed::new(7, "split"))?;
        Ok(parts.iter().map(|(name, part)| (*name, values(part))).collect())
    }

    #[test]
    fn outputs_are_the_parts_that_are_given() {
        let stage = Split::new();
        let names = |params| stage.outputs(&params).into_iter().map(|output| output.name).collect::<Vec<_>>();
        assert_eq!(names(json!({"train": 0.8, "test": 0.2})), ["train", "test"]);
        let normal = stage.normalise(&json!({"train": 0.7, "valid": 0.15, "test": 0.15})).unwrap();
        assert_eq!(names(normal), ["train", "valid", "test"]);
    }

    #[test]
    fn random_parts_are_exact_and_in_order() {
        let got = parts(&table(1797, |x| x), json!({"train": 0.7, "valid": 0.15, "test": 0.15})).unwrap();
        assert_eq!(got.iter().map(|(_, rows)| rows.len()).collect::<Vec<_>>(), [1258, 270, 269]);
        assert!(got.iter().all(|(_, rows)| rows.windows(2).all(|pair| pair[0] < pair[1])));
        let mut all: Vec<i64> = got.into_iter().flat_map(|(_, rows)| rows).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1797).collect::<Vec<_>>());
    }

    #[test]
    fn time_is_not_shuffled() {
        let got = parts(&table(10, |x| 9 - x), json!({"train": 0.5, "test": 0.3, "time": "key"})).unwrap();
        assert_eq!(got, [("train", vec![5, 6, 7, 8, 9]), ("test", vec![2, 3, 4])]);
    }

    #[test]
    fn rare_classes_are_in_every_part() {
        let frame = table(1000, |x| i64::from(x < 4));
        let got = parts(&frame, json!({"train": 0.9, "valid": 0.05, "test": 0.05, "stratify": "key"})).unwrap();
        assert!(got.iter().all(|(_, rows)| rows.iter().any(|x| *x < 4)), "{got:?}");
    }

    #[test]
    fn mistakes_are_named() {
        let frame = table(10, |x| i64::from(x < 1));
        for (params, words) in [
            (json!({}), "which parts"),
            (json!({"train": 0.0}), "over 0"),
            (json!({"train": 70}), "at most 1"),
            (json!({"train": 0.9, "test": 0.2}), "more than all rows"),
            (json!({"train": 0.9, "stratify": "key", "time": "key"}), "can't be combined"),
            (json!({"train": 0.99, "test": 0.01}), "`test` (0.01 of 10 rows) is empty"),
            (json!({"train": 0.5, "test": 0.5, "stratify": "key"}), "class \"1\" of column \"key\" has 1 row, too few"),
            (json!({"train": 0.5, "test": 0.5, "stratify": "kei"}), "no column \"kei\""),
            (json!({"train": 0.4, "valid": 0.3, "test": 0.3, "group": "key"}), "is empty"),
            (json!({"tran": 0.4}), "unknown field `tran`"),
        ] {
            let error = parts(&frame, params.clone()).unwrap_err().to_string();
            assert!(error.contains(words), "{params}: {error}");
        }
    }

    #[test]
    fn rows_without_a_time_are_counted() {
        let frame = |nulls: usize| {
            let time: ArrayRef = Arc::new(Int64Array::from_iter((0..10).map(|x| (x >= nulls).then_some(x as i64))));
            table(10, |x| x).with_column("time", time).unwrap()
        };
        let params = json!({"train": 0.5, "test": 0.5, "time": "time"});
        for (nulls, said) in [(1, "1 null"), (3, "3 nulls")] {
            let error = parts(&frame(nulls), params.clone()).unwrap_err();
            assert_eq!(error.to_string(), format!("column \"time\" has {said}, so its rows have no order"));
            assert_eq!(error.advice(), Some("drop these rows with `sql`: WHERE time IS NOT NULL"));
        }
        assert_eq!(parts(&frame(0), params).unwrap()[1], ("test", vec![5, 6, 7, 8, 9]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn strata_keep_their_proportions(rows in 60usize..2000, classes in 1i64..8) {
            let frame = table(rows, |x| (x * x) % classes);
            let got = parts(&frame, json!({"train": 0.6, "valid": 0.2, "test": 0.2, "stratify": "key"}));
            // A class of one or two rows is refused; that has its own test.
            prop_assume!(got.is_ok());
            let got = got.unwrap();
            for class in 0..classes {
                let size = (0..rows as i64).filter(|x| (x * x) % classes == class).count() as f64;
                for ((_, part), fraction) in got.iter().zip([0.6, 0.2, 0.2]) {
                    let here = part.iter().filter(|x| (**x * **x) % classes == class).count() as f64;
                    prop_assert!(size == 0.0 || (here - size * fraction).abs() <= 1.0 + 1e-9);
                }
            }
        }

        #[test]
        fn no_group_is_in_two_parts(rows in 30usize..1000, groups in 10i64..30) {
            let frame = table(rows, |x| (x * 31) % groups);
            let got = parts(&frame, json!({"train": 0.6, "valid": 0.2, "test": 0.2, "group": "key"})).unwrap();
            let keys: Vec<std::collections::BTreeSet<i64>> =
                got.iter().map(|(_, part)| part.iter().map(|x| (x * 31) % groups).collect()).collect();
            prop_assert!(keys[0].is_disjoint(&keys[1]) && keys[0].is_disjoint(&keys[2]) && keys[1].is_disjoint(&keys[2]));
            prop_assert_eq!(got.iter().map(|(_, part)| part.len()).sum::<usize>(), rows);
        }
    }
}
