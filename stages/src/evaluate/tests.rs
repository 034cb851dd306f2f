//! `evaluate` and `predict` with models that answer from a column.

use super::predict::predict;
use super::stage::evaluate;
use super::*;
use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use ropeway_framework::Result;
use ropeway_framework::data::{Frame, Metrics, Model, Tensors};
use ropeway_framework::stage::{Apply, Models, Params};
use std::collections::HashMap;
use std::sync::Arc;

/// Predicts what the column `x` says: a class if it is above one half, or the number itself.
struct Oracle {
    classes: bool,
}

impl Apply for Oracle {
    fn input(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, false)]))
    }
    fn output(&self) -> SchemaRef {
        if !self.classes {
            return Arc::new(Schema::new(vec![Field::new("prediction", DataType::Float64, false)]));
        }
        let metadata = HashMap::from([("classes".to_owned(), r#"["no","yes"]"#.to_owned())]);
        let list = DataType::new_fixed_size_list(DataType::Float32, 2, false);
        Arc::new(Schema::new(vec![
            Field::new("prediction", DataType::Utf8, false),
            Field::new("probability", list, false).with_metadata(metadata),
        ]))
    }
    fn target(&self) -> Option<&str> {
        Some("y")
    }
    fn apply(&self, rows: &Frame) -> Result<Frame> {
        let x = rows.column("x")?;
        let x = x.as_primitive::<arrow::datatypes::Float64Type>().values();
        let columns: Vec<ArrayRef> = if self.classes {
            let predictions = x.iter().map(|x| if *x > 0.5 { "yes" } else { "no" });
            let values: Vec<f32> = x.iter().flat_map(|x| [1.0 - *x as f32, *x as f32]).collect();
            let item = Arc::new(Field::new_list_field(DataType::Float32, false));
            let list = FixedSizeListArray::new(item, 2, Arc::new(Float32Array::from(values)), None);
            vec![Arc::new(StringArray::from_iter_values(predictions)), Arc::new(list)]
        } else {
            vec![rows.column("x")?]
        };
        Frame::new(self.output(), vec![RecordBatch::try_new(self.output(), columns)?])
    }
}

/// Fitted features that take one half from `x` and forget everything else.
struct Shift;

impl Apply for Shift {
    fn input(&self) -> SchemaRef {
        Oracle { classes: false }.input()
    }
    fn output(&self) -> SchemaRef {
        self.input()
    }
    fn apply(&self, rows: &Frame) -> Result<Frame> {
        rows.select(&["x"])?.map_numeric(|x| x - 0.5)
    }
}

fn models() -> Models {
    let registry = ropeway_framework::stage::Registry::new()
        .model("classes", |_| Ok(Box::new(Oracle { classes: true })))
        .model("numbers", |_| Ok(Box::new(Oracle { classes: false })))
        .model("shift", |_| Ok(Box::new(Shift)));
    Models::new(Arc::new(registry))
}

fn model(kind: &str) -> Model {
    Model::new(kind, &(), Tensors::new()).unwrap()
}

fn rows(x: Vec<f64>, y: ArrayRef) -> Frame {
    Frame::from_columns([("x", Arc::new(Float64Array::from(x)) as ArrayRef), ("y", y)]).unwrap()
}

fn run(kind: &str, rows: Frame, spec: EvaluateSpec) -> Result<(Metrics, Frame)> {
    evaluate(model(kind), None, rows, Params(spec), models())
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn classes_are_scored_and_confused() {
    let rows = rows(vec![0.1, 0.4, 0.35, 0.8], texts(&["no", "no", "yes", "yes"]));
    let (metrics, confusion) = run("classes", rows, EvaluateSpec::default()).unwrap();
    assert_eq!((metrics.get("accuracy"), metrics.get("auc")), (Some(0.75), Some(0.75)));
    assert_eq!((metrics.get("precision"), metrics.get("recall")), (Some(1.0), Some(0.5)));
    let counts = |name: &str| confusion.column(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((counts("as.no"), counts("as.yes")), (vec![2, 1], vec![0, 1]));
}

#[test]
fn numbers_are_scored() {
    let y: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let (metrics, confusion) = run("numbers", rows(vec![1.5, 2.0, 2.5], y), EvaluateSpec::default()).unwrap();
    assert_eq!((metrics.get("mae"), metrics.get("r2")), (Some(1.0 / 3.0), Some(0.75)));
    assert_eq!(confusion.rows(), 0);
}

#[test]
fn a_label_that_the_model_never_saw_is_counted() {
    let rows = rows(vec![0.1, 0.9, 0.9], texts(&["no", "maybe", "maybe"]));
    let error = run("classes", rows, EvaluateSpec::default()).unwrap_err();
    assert_eq!(error.to_string(), "column \"y\" has labels that the model never saw: \"maybe\" (2 rows)");
}

#[test]
fn what_cannot_be_scored_is_explained() {
    let empty = rows(vec![], texts(&[]));
    assert!(run("classes", empty, EvaluateSpec::default()).unwrap_err().to_string().contains("nothing to score"));
    let other = EvaluateSpec { target: Some("z".into()), ..EvaluateSpec::default() };
    let error = run("classes", rows(vec![0.1], texts(&["no"])), other).unwrap_err();
    assert!(error.to_string().contains("there is no column \"z\""), "{error}");
    let null: ArrayRef = Arc::new(StringArray::from(vec![Some("no"), None]));
    let error = run("classes", rows(vec![0.1, 0.2], null), EvaluateSpec::default()).unwrap_err();
    assert!(error.to_string().contains("null in row 1"), "{error}");
    let text = run("numbers", rows(vec![0.1], texts(&["no"])), EvaluateSpec::default()).unwrap_err();
    assert!(text.to_string().contains("not a number"), "{text}");
}

#[test]
fn numbers_that_are_none_are_named_with_their_row() {
    let truth = |y: Vec<f64>| Arc::new(Float64Array::from(y)) as ArrayRef;
    let fail =
        |x: Vec<f64>, y: Vec<f64>| run("numbers", rows(x, truth(y)), EvaluateSpec::default()).unwrap_err().to_string();
    for (bad, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let wrong = |column: &str| format!("column {column:?} is {word} in row 1 (the first is row 0)");
        assert_eq!(fail(vec![1.0, 2.0, 3.0], vec![1.0, bad, bad]), wrong("y"));
        assert_eq!(fail(vec![1.0, bad, 3.0], vec![1.0, 2.0, 3.0]), wrong("prediction"));
    }
    let null: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None]));
    let error = run("numbers", rows(vec![1.0, 2.0, 3.0], null), EvaluateSpec::default()).unwrap_err();
    assert_eq!(error.to_string(), "column \"y\" is null in row 2 (the first is row 0)");
    assert_eq!(error.advice(), Some("drop rows without an answer, with `sql` and WHERE"));
}

#[test]
fn predictions_stand_beside_the_rows() {
    let given = rows(vec![0.75, 1.25], texts(&["no", "yes"]));
    let spec = PredictSpec::default();
    let found = predict(model("classes"), Some(model("shift")), given, Params(spec.clone()), models()).unwrap();
    let names: Vec<&str> = found.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["x", "y", "prediction", "probability"]);
    let prediction = found.column("prediction").unwrap();
    assert_eq!(prediction.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["no", "yes"]);
    let again = predict(model("numbers"), None, found, Params(spec), models()).unwrap_err();
    assert!(again.to_string().contains("have a column \"prediction\" already"));
}
