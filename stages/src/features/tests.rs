//! Fitting and applying together.

use super::apply::Features;
use super::fit::fit;
use super::params::Fit;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray,
    UInt8Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type};
use proptest::prelude::*;
use ropeway_framework::Result;
use ropeway_framework::data::{Frame, Model, Tensors};
use ropeway_framework::stage::{Apply, Cancel, Params, Threads};
use serde_json::{Value, json};
use std::sync::Arc;

fn learn_on(rows: &Frame, params: Value, threads: usize) -> Result<Model> {
    let params: Fit = serde_json::from_value(params)?;
    fit(rows.clone(), Params(params), Threads(threads), Cancel::default())
}

fn learn(rows: &Frame, params: Value) -> Features {
    Features::new(&learn_on(rows, params, 1).unwrap()).unwrap()
}

fn learn_fails(rows: &Frame, params: Value) -> String {
    format!("{:?}", learn_on(rows, params, 2).unwrap_err())
}

fn frame<const N: usize>(columns: [(&str, ArrayRef); N]) -> Frame {
    Frame::from_columns(columns).unwrap()
}

fn numbers(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn feature(frame: &Frame, name: &str) -> Vec<f32> {
    let column = cast(&frame.column(name).unwrap(), &DataType::Float32).unwrap();
    column.as_primitive::<Float32Type>().values().to_vec()
}

fn names(frame: &Frame) -> Vec<String> {
    frame.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// A table with a column of every kind.
fn mixed(rows: usize, salt: u64) -> Frame {
    let noise = |row: usize| (row as u64 + salt).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 33;
    let maybe = |row: usize, value: f64| (noise(row) % 11 != 0).then_some(value);
    let city = ["Oslo", "Rome", "Kyiv", "Lima"];
    let x: ArrayRef = Arc::new(Float64Array::from_iter((0..rows).map(|row| maybe(row, noise(row) as f64 / 1e6))));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| (noise(row) % 100) as i64)));
    let c: ArrayRef = Arc::new(StringArray::from_iter(
        (0..rows).map(|row| (noise(row) % 5 != 4).then(|| city[(noise(row) % 4) as usize])),
    ));
    let t: ArrayRef =
        Arc::new(TimestampMillisecondArray::from_iter_values((0..rows).map(|row| noise(row) as i64 * 1_000_000)));
    let words: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("word{} and {}", noise(row) % 9, row % 3))));
    let bytes: Vec<u8> = (0..rows * 4).map(|item| item as u8).collect();
    let item = Arc::new(Field::new_list_field(DataType::UInt8, false));
    let image: ArrayRef = Arc::new(FixedSizeListArray::new(item, 4, Arc::new(UInt8Array::from(bytes)), None));
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| (noise(row) % 2) as i64)));
    frame([("x", x), ("n", n), ("city", c), ("when", t), ("words", words), ("image", image), ("label", label)])
}

fn everything() -> Value {
    json!({ "target": "label", "steps": [
        { "impute": "median" },
        { "clip": { "low": -1e6, "high": 1e6, "columns": ["x"] } },
        { "log1p": ["n"] },
        { "date": { "parts": ["year", "month", "hour", "weekday"] } },
        { "text": { "columns": ["words"], "buckets": 16, "ngrams": 2 } },
        { "onehot": { "columns": ["city", "when.month"] } },
        { "bucket": { "buckets": 4, "columns": ["when.hour"] } },
        { "scale": "standard" },
    ]})
}

/// The same rows, cut into batches.
fn cut(rows: &Frame, at: &[usize]) -> Frame {
    let batch = rows.to_batch().unwrap();
    let mut ends: Vec<usize> = at.iter().map(|at| at % (rows.rows() + 1)).chain([0, rows.rows()]).collect();
    ends.sort_unstable();
    let parts = ends.windows(2).map(|pair| batch.slice(pair[0], pair[1] - pair[0])).collect();
    Frame::new(rows.schema().clone(), parts).unwrap()
}

fn assert_same(one: &Frame, other: &Frame) {
    assert_eq!(one.schema(), other.schema());
    // Arrow compares floats by value; there are no NaN and no negative zeros but by equal operations.
    assert_eq!(one.to_batch().unwrap(), other.to_batch().unwrap());
}

#[test]
fn steps_do_what_they_say() {
    let rows = frame([
        ("a", numbers(&[Some(1.0), None, Some(3.0), Some(8.0)])),
        ("b", text(&[Some("y"), Some("x"), None, Some("y")])),
    ]);
    let steps = |steps: Value| learn(&rows, json!({ "steps": steps })).apply(&rows).unwrap();

    let got = steps(json!([{"impute": "median"}, {"onehot": {}}]));
    assert_eq!(names(&got), ["a", "b=x", "b=y", "b is null"]);
    assert_eq!(feature(&got, "a"), [1.0, 3.0, 3.0, 8.0]);
    assert_eq!(feature(&got, "b=y"), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(feature(&got, "b is null"), [0.0, 0.0, 1.0, 0.0]);
    let types: Vec<&DataType> = got.schema().fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&DataType::Float32, &DataType::UInt8, &DataType::UInt8, &DataType::UInt8]);

    let got = steps(json!([{"impute": "mode"}, {"ordinal": {}}, {"scale": {"method": "minmax", "columns": ["a"]}}]));
    assert_eq!(feature(&got, "a"), [0.0, 0.0, 2.0 / 7.0, 1.0]);
    assert_eq!(feature(&got, "b"), [1.0, 0.0, 1.0, 1.0]);

    let got = steps(json!([{"impute": 2}, {"bucket": {"edges": [2, 5]}}, {"hash": {"buckets": 8}}]));
    assert_eq!(feature(&got, "a"), [0.0, 1.0, 1.0, 2.0]);
    assert_eq!(got.columns(), 9);
    let row_sum: f32 = (0..8).map(|bucket| feature(&got, &format!("b#{bucket}"))[2]).sum();
    assert_eq!(row_sum, 1.0);

    let got = steps(json!([{"impute": "mean"}, {"clip": {"high": 3.5}}, {"onehot": {"max": 1}}]));
    assert_eq!(feature(&got, "a"), [1.0, 3.5, 3.0, 3.5]);
    assert_eq!(names(&got), ["a", "b=y", "b is null"]);

    let robust = json!([{"impute": "median"}, {"scale": "robust"}, {"impute": {"method": "constant", "value": "z"}}, {"onehot": {}}]);
    let got = steps(robust);
    assert_eq!(names(&got), ["a", "b=x", "b=y", "b=z"]);
    assert_eq!(feature(&got, "a")[1], 0.0);
    let got = steps(json!([{"impute": 0}, {"scale": "maxabs"}, {"log1p": ["a"]}, {"onehot": {}}]));
    assert_eq!(feature(&got, "a")[3], 2f32.ln());
}

#[test]
fn cyclic_parts_are_points_on_a_circle() {
    let noon: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![12 * 3_600_000, 0]));
    let rows = frame([("t", noon)]);
    let got =
        learn(&rows, json!({"steps": [{"date": {"parts": ["hour", "year"], "cyclic": true}}]})).apply(&rows).unwrap();
    assert_eq!(names(&got), ["t.hour.sin", "t.hour.cos", "t.year"]);
    assert_eq!(feature(&got, "t.hour.cos"), [-1.0, 1.0]);
    assert_eq!(feature(&got, "t.year"), [1970.0, 1970.0]);
}

#[test]
fn numbers_are_categories_where_they_are_named() {
    let rows = frame([("m", numbers(&[Some(10.0), Some(2.0), Some(2.5)]))]);
    let features = learn(&rows, json!({"steps": [{"onehot": ["m"]}]}));
    let got = features.apply(&rows).unwrap();
    assert_eq!(names(&got), ["m=2", "m=2.5", "m=10"]);
    assert_eq!(feature(&got, "m=10"), [1.0, 0.0, 0.0]);
}

#[test]
fn a_constant_column_becomes_zero() {
    let rows = frame([("a", numbers(&[Some(0.1); 7]))]);
    for method in ["standard", "minmax", "robust"] {
        let got = learn(&rows, json!({"steps": [{"scale": method}]})).apply(&rows).unwrap();
        assert_eq!(feature(&got, "a"), [0.0; 7], "{method}");
    }
}

#[test]
fn unknown_categories_are_zero_or_an_error() {
    let rows = frame([("b", text(&[Some("x"), Some("y")]))]);
    let later = frame([("b", text(&[Some("y"), Some("z")]))]);
    let got = learn(&rows, json!({"steps": [{"onehot": {}}]})).apply(&later).unwrap();
    assert_eq!((feature(&got, "b=x"), feature(&got, "b=y")), (vec![0.0, 0.0], vec![1.0, 0.0]));
    let strict = learn(&rows, json!({"steps": [{"onehot": {"unknown": "error", "max": 1}}]}));
    assert!(strict.apply(&rows).is_ok());
    let error = strict.apply(&later).unwrap_err().to_string();
    assert_eq!(error, "column \"b\" has the value \"z\" in row 1 (the first is row 0), which the training rows lack");
    let ordinal = learn(&rows, json!({"steps": [{"ordinal": {"unknown": -1}}]})).apply(&later).unwrap();
    assert_eq!(feature(&ordinal, "b"), [1.0, -1.0]);
    assert!(learn(&rows, json!({"steps": [{"ordinal": {}}]})).apply(&later).is_err());
}

#[test]
fn target_vectors_and_other_columns() {
    let rows = mixed(50, 1);
    let features = learn(&rows, everything());
    assert_eq!(features.target(), Some("label"));
    assert!(features.input().field_with_name("label").is_err());
    let got = features.apply(&rows).unwrap();
    assert_eq!(names(&got).last().map(String::as_str), Some("label"));
    assert_eq!(got.column("label").unwrap().data_type(), &DataType::Int64);
    assert_eq!(
        got.column("image").unwrap().as_fixed_size_list().values(),
        rows.column("image").unwrap().as_fixed_size_list().values()
    );
    assert_eq!(got.column("words").unwrap().as_fixed_size_list().value_length(), 16);
    // A request has no target and may have more columns.
    let request = rows.select(&["image", "words", "when", "city", "n", "x"]).unwrap();
    let request = request.with_column("extra", rows.column("n").unwrap()).unwrap();
    let answer = features.apply(&request).unwrap();
    assert_eq!(answer.schema(), &features.output());
    assert_eq!(
        features.apply(&request.select(&["x"]).unwrap()).unwrap_err().to_string(),
        "the features need more columns: there is no column \"n\""
    );
}

#[test]
fn types_may_differ_where_nothing_is_lost() {
    let rows = frame([("a", numbers(&[Some(1.0), Some(2.0)])), ("b", text(&[Some("1"), Some("x")]))]);
    let features = learn(&rows, json!({"steps": [{"onehot": {}}]}));
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let later = frame([("a", whole.clone()), ("b", whole)]);
    let got = features.apply(&later).unwrap();
    assert_eq!((feature(&got, "a"), feature(&got, "b=1")), (vec![1.0, 2.0], vec![1.0, 0.0]));
    let wrong = frame([("a", text(&[Some("1")])), ("b", text(&[Some("1")]))]);
    let error = features.apply(&wrong).unwrap_err().to_string();
    assert_eq!(error, "column \"a\": expected numbers, found Utf8");
}

#[test]
fn mistakes_are_explained() {
    let rows = frame([
        ("a", numbers(&[Some(1.0), None])),
        ("inf", numbers(&[Some(f64::INFINITY), Some(1.0)])),
        ("none", numbers(&[None, None])),
        ("b", text(&[Some("x"), None])),
    ]);
    for (params, words) in [
        (json!({"keep": ["a"]}), "column \"a\" has 1 null (or NaN) (help: fill them in"),
        (json!({"keep": ["a", "inf"]}), "; column \"inf\" has 1 value that are infinite"),
        (json!({"keep": ["inf"], "steps": [{"scale": "standard"}]}), "has 1 infinite value"),
        (json!({"keep": ["none"], "steps": [{"impute": "mean"}]}), "has no values: all are null"),
        (json!({"keep": ["b"]}), "column \"b\" is text, and no step makes numbers of it"),
        (json!({"target": "b"}), "the target \"b\" has 1 null"),
        (json!({"target": "c"}), "the target: there is no column \"c\""),
        (json!({"drop": ["c"]}), "`drop`: there is no column \"c\""),
        (json!({"drop": ["a", "b", "inf", "none"]}), "no column is left"),
        (
            json!({"keep": ["a"], "steps": [{"impute": 0}, {"log1p": ["a"]}, {"clip": {"high": 1, "columns": ["aa"]}}]}),
            "did you mean \"a\"",
        ),
    ] {
        let error = learn_fails(&rows, params.clone());
        assert!(error.contains(words), "{params}: {error}");
    }
    let many: Vec<String> = (0..1500).map(|number| format!("n{number}")).collect();
    let many = frame([("m", text(&many.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>()))]);
    assert!(learn_fails(&many, json!({"steps": [{"onehot": {}}]})).contains("has 1500 categories"));
    assert!(
        learn_fails(
            &rows.select(&["a"]).map(|rows| cut(&rows, &[])).unwrap(),
            json!({"steps": [{"scale": "standard"}]})
        )
        .contains("null")
    );

    let negative = frame([("a", numbers(&[Some(1.0), Some(-2.0)]))]);
    assert!(
        learn_fails(&negative, json!({"steps": [{"log1p": {}}]}))
            .contains("the value -2 in row 1 (the first is row 0)")
    );
    let clash = frame([("a=x", numbers(&[Some(1.0)])), ("a", text(&[Some("x")]))]);
    assert!(learn_fails(&clash, json!({"steps": [{"onehot": {}}]})).contains("two features would be called \"a=x\""));
    let features = learn(&negative, json!({}));
    let later = frame([("a", numbers(&[Some(1.0), Some(2.0), None]))]);
    assert_eq!(
        features.apply(&later).unwrap_err().to_string(),
        "column \"a\" is null (or NaN) in row 2 (the first is row 0)"
    );
}

/// A column of vectors of two numbers.
fn vectors(values: &[Option<[Option<f64>; 2]>]) -> ArrayRef {
    let items: Float64Array = values.iter().flat_map(|vector| vector.unwrap_or_default()).collect();
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    let there = values.iter().map(Option::is_some).collect::<Vec<_>>();
    Arc::new(FixedSizeListArray::new(item, 2, Arc::new(items), Some(there.into())))
}

#[test]
fn what_has_no_feature_when_it_is_applied_is_named_with_its_row() {
    let features = learn(&frame([("a", numbers(&[Some(1.0), Some(2.0)]))]), json!({}));
    let infinite = "column \"a\" is infinite or too large in row 1 (the first is row 0)";
    // What is finite as 64 bits need not be so as 32.
    for bad in [f64::INFINITY, f64::NEG_INFINITY, 1e39] {
        let error = features.apply(&frame([("a", numbers(&[Some(1.0), Some(bad), None]))])).unwrap_err();
        assert_eq!(error.to_string(), infinite, "{bad}");
        let help = "bound it before the features are fitted: `{ clip = { low = ..., high = ... } }`";
        assert_eq!(error.advice(), Some(help));
    }
    let error = features.apply(&frame([("a", numbers(&[Some(f64::NAN)]))])).unwrap_err();
    assert_eq!(error.to_string(), "column \"a\" is null (or NaN) in row 0 (the first is row 0)");
    let help = "fill it in with a step when the features are fitted: `{ impute = \"median\" }`";
    assert_eq!(error.advice(), Some(help));

    // Rows are counted over all batches.
    let many = frame([("a", numbers(&[&[Some(1.0); 5][..], &[Some(f64::INFINITY)]].concat()))]);
    let error = features.apply(&cut(&many, &[2, 4])).unwrap_err();
    assert_eq!(error.to_string(), "column \"a\" is infinite or too large in row 5 (the first is row 0)");

    let whole = [Some([Some(1.0), Some(2.0)]), Some([Some(3.0), Some(4.0)])];
    let features = learn(&frame([("v", vectors(&whole))]), json!({}));
    assert_eq!(features.apply(&frame([("v", vectors(&whole))])).unwrap().rows(), 2);
    let wrong = "the vector in column \"v\" has a null, NaN or infinite value in row 1 (the first is row 0)";
    for bad in [
        None,
        Some([Some(1.0), None]),
        Some([Some(f64::NAN), Some(1.0)]),
        Some([Some(1.0), Some(f64::INFINITY)]),
        Some([Some(f64::NEG_INFINITY), Some(1.0)]),
    ] {
        let rows = frame([("v", vectors(&[whole[0], bad, whole[1]]))]);
        let error = features.apply(&rows).unwrap_err();
        assert_eq!(error.to_string(), wrong, "{bad:?}");
        assert_eq!(error.advice(), Some("drop such rows with `sql`"));
        // When they are fitted, the same is refused in the same words.
        assert_eq!(learn_fails(&rows, json!({})), format!("{wrong} (help: drop such rows with `sql`)"), "{bad:?}");
    }
}

#[test]
fn threads_do_not_matter() {
    let rows = mixed(150_000, 3);
    let models: Vec<Model> = [1, 2, 5].iter().map(|threads| learn_on(&rows, everything(), *threads).unwrap()).collect();
    assert!(models.iter().all(|model| model.spec() == models[0].spec()));
    let features = Features::new(&models[0]).unwrap();
    let one = features.apply_on(&rows, 1).unwrap();
    assert_same(&one, &features.apply_on(&rows, 2).unwrap());
    assert_same(&one, &features.apply_on(&cut(&rows, &[70_000, 3]), 3).unwrap());
}

#[test]
fn no_rows_have_no_features() {
    let rows = mixed(40, 9);
    let features = learn(&rows, everything());
    let none = features.apply(&Frame::new(rows.schema().clone(), Vec::new()).unwrap()).unwrap();
    assert_eq!((none.rows(), none.columns()), (0, features.output().fields().len() + 1));
    assert!(learn_fails(&Frame::new(rows.schema().clone(), Vec::new()).unwrap(), everything()).contains("no rows"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn standard_has_mean_zero_and_deviation_one(values in proptest::collection::vec(-1e4f64..1e4, 8..300)) {
        prop_assume!(values.iter().any(|value| (value - values[0]).abs() > 1.0));
        let column: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
        let rows = frame([("a", numbers(&column))]);
        let got = feature(&learn(&rows, json!({"steps": [{"scale": "standard"}]})).apply(&rows).unwrap(), "a");
        let count = got.len() as f64;
        let mean = got.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let spread = got.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        prop_assert!(mean.abs() < 1e-5 && (spread - 1.0).abs() < 1e-4, "{mean} {spread}");
    }

    #[test]
    fn one_row_alone_gives_the_same_bits(rows in 20usize..400, salt in 0u64..1000) {
        let rows = mixed(rows, salt);
        let features = learn(&rows, everything());
        let all = features.apply(&rows).unwrap().to_batch().unwrap();
        let batch = rows.to_batch().unwrap();
        for row in 0..rows.rows() {
            let alone = Frame::new(rows.schema().clone(), vec![batch.slice(row, 1)]).unwrap();
            prop_assert_eq!(features.apply(&alone).unwrap().to_batch().unwrap(), all.slice(row, 1));
        }
    }

    #[test]
    fn batch_boundaries_do_not_matter(rows in 20usize..3000, salt in 0u64..1000, cuts in proptest::collection::vec(0usize..3000, 0..5)) {
        let rows = mixed(rows, salt);
        let pieces = cut(&rows, &cuts);
        let (one, other) = (learn_on(&rows, everything(), 1).unwrap(), learn_on(&pieces, everything(), 2).unwrap());
        prop_assert_eq!(one.spec(), other.spec());
        let features = Features::new(&one).unwrap();
        assert_same(&features.apply(&rows).unwrap(), &features.apply(&pieces).unwrap());
    }

    #[test]
    fn a_model_survives_its_text(rows in 20usize..300, salt in 0u64..1000) {
        let rows = mixed(rows, salt);
        let model = learn_on(&rows, everything(), 1).unwrap();
        let text = model.spec().to_string();
        let read: Value = serde_json::from_str(&text).unwrap();
        let again = Model::new(super::KIND, &read, Tensors::new()).unwrap();
        let (one, other) = (Features::new(&model).unwrap(), Features::new(&again).unwrap());
        prop_assert_eq!(one.input(), other.input());
        assert_same(&one.apply(&rows).unwrap(), &other.apply(&rows).unwrap());
    }
}
