//! The `train` stage on synthetic data: what it learns, that its bytes never change, and what it refuses.

mod balance;
mod device;
mod members;
mod models;
mod parts;
mod ring;
mod steps;

mod trees;
mod tuning;

use super::*;
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, StringArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type};
use rand::RngExt;
use ropeway_framework::data::{Artifact, Frame, Metrics, Model, Tensor, Tensors};
use ropeway_framework::stage::{
    Cancel, Checkpoint, Checkpoints, Models, Params, Parts, Progress, Report, ReportSink, Seed, Threads,
};
use ropeway_framework::{Error, Fault, Result};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

type Outcome = (Model, Metrics, Frame, Tensors);

/// Three noisy clouds around the corners of a triangle.
fn clouds(rows: usize, purpose: &str) -> Frame {
    let mut rng = Seed::new(5, "data").rng(purpose);
    let labels: Vec<i64> = (0..rows).map(|row| (row % 3) as i64).collect();
    let mut axis = |corner: [f64; 3]| -> ArrayRef {
        let values = labels.iter().map(|label| corner[*label as usize] + rng.random::<f64>() - 0.5);
        Arc::new(Float64Array::from_iter_values(values))
    };
    let (x, y) = (axis([0.0, 1.0, 0.0]), axis([0.0, 0.0, 1.0]));
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values(labels.iter().map(|label| label * 10)));
    Frame::from_columns([("x", x), ("label", label), ("y", y)]).unwrap()
}

/// Images of 8 x 8 with a bright bar: upright or lying, somewhere.
fn bars(rows: usize, purpose: &str) -> Frame {
    let mut rng = Seed::new(5, "data").rng(purpose);
    let (mut bytes, mut labels) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let place = rng.random_range(0..8usize);
        let upright = row % 2 == 0;
        labels.push(if upright { "upright" } else { "lying" });
        for pixel in 0..64 {
            let lit = place == if upright { pixel % 8 } else { pixel / 8 };
            bytes.push(rng.random_range(0..120u8) + if lit { 120 } else { 0 });
        }
    }
    let item = Arc::new(Field::new_list_field(DataType::UInt8, false));
    let image: ArrayRef = Arc::new(FixedSizeListArray::new(item, 64, Arc::new(UInt8Array::from(bytes)), None));
    let label: ArrayRef = Arc::new(StringArray::from(labels));
    Frame::from_columns([("image", image), ("label", label)]).unwrap()
}

fn line(rows: usize) -> Frame {
    let xs: Vec<f64> = (0..rows).map(|row| row as f64 / rows as f64).collect();
    let y: ArrayRef = Arc::new(Float64Array::from_iter_values(xs.iter().map(|x| 3.0 * x - 1.0)));
    let x: ArrayRef = Arc::new(Float64Array::from(xs));
    Frame::from_columns([("x", x), ("y", y)]).unwrap()
}

fn around(threads: usize) -> Surroundings {
    Surroundings { threads: Threads(threads), ..Surroundings::default() }
}

fn run_with(
    train: &Frame,
    valid: Option<&Frame>,
    resume: Option<Tensors>,
    spec: Value,
    around: Surroundings,
) -> Result<Outcome> {
    let spec: TrainSpec = serde_json::from_value(spec)?;
    let given = stage::Given {
        train: train.clone().into(),
        valid: valid.cloned().map(Parts::from),
        features: None,
        resume,
        init: None,
    };
    stage::train(given, Params(spec), Seed::new(7, "fit"), around)
}

fn run(train: &Frame, valid: Option<&Frame>, spec: Value) -> Result<Outcome> {
    run_with(train, valid, None, spec, around(2))
}

fn refused(train: &Frame, valid: Option<&Frame>, spec: Value) -> String {
    run(train, valid, spec).err().map(|error| format!("{error:?}")).unwrap_or_default()
}

/// Tensors by name, as bytes.
type Bytes = Vec<(String, Vec<u8>)>;

fn bytes(tensors: &Tensors) -> Bytes {
    tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect()
}

fn all(outcome: &Outcome) -> (Bytes, Bytes, Metrics, String) {
    let curve = format!("{:?}", outcome.2.to_batch().unwrap());
    (bytes(outcome.0.tensors()), bytes(&outcome.3), outcome.1.clone(), curve)
}

fn mlp() -> Value {
    json!({
        "model": {"mlp": {"hidden": [16], "dropout": 0.1}}, "epochs": 6, "batch": 70, "shards": 4, "clip": 1.0,
        "optimizer": {"adam": {"rate": 0.01}}, "schedule": {"cosine": {"epochs": 6, "warmup": 1}},
        "early_stop": {"patience": 5}, "class_weights": "balanced",
    })
}

#[test]
fn an_mlp_separates_clouds_and_applies() {
    let (train, valid) = (clouds(600, "train"), clouds(200, "valid"));
    let spec = json!({"model": {"mlp": {"hidden": [16]}}, "epochs": 30, "optimizer": {"adam": {"rate": 0.01}}});
    let (model, metrics, curve, _) = run(&train, Some(&valid), spec).unwrap();
    assert!(metrics.get("valid.accuracy").unwrap() > 0.9, "{metrics:?}");
    assert_eq!((curve.rows(), metrics.get("epochs")), (30, Some(30.0)));
    let losses = curve.column("train.loss").unwrap();
    let losses = losses.as_primitive::<Float64Type>();
    assert!(losses.value(29) < losses.value(0) / 2.0);

    let applied = load(&model).unwrap();
    assert_eq!((applied.target(), applied.input().fields().len()), (Some("label"), 2));
    let found = applied.apply(&valid).unwrap();
    assert_eq!(found.schema(), &applied.output());
    assert_eq!(found.schema().field(1).metadata()["classes"], r#"["0","10","20"]"#);
    let predictions = found.column("prediction").unwrap();
    let truth = valid.column("label").unwrap();
    let pairs = predictions.as_primitive::<Int64Type>().values().iter().zip(truth.as_primitive::<Int64Type>().values());
    let accuracy = pairs.filter(|(a, b)| a == b).count() as f64 / 200.0;
    assert_eq!(Some(accuracy), metrics.get("valid.accuracy"));
    let probabilities = found.column("probability").unwrap();
    let sums = probabilities.as_fixed_size_list().values().as_primitive::<Float32Type>().values().chunks(3);
    assert!(sums.map(|row| row.iter().sum::<f32>()).all(|sum| (sum - 1.0).abs() < 1e-5));
}

#[test]
fn a_row_is_predicted_the_same_in_any_company() {
    let rows = clouds(300, "train");
    let spec = json!({"model": {"mlp": {}}, "epochs": 1});
    let applied = load(&run(&rows, None, spec).unwrap().0).unwrap();
    let batch = rows.to_batch().unwrap();
    let probabilities = |start: usize, count: usize| -> Vec<f32> {
        let part = Frame::new(rows.schema().clone(), vec![batch.slice(start, count)]).unwrap();
        let found = applied.apply(&part).unwrap().column("probability").unwrap();
        found.as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec()
    };
    let whole = probabilities(0, 300);
    for (start, count) in [(0, 1), (77, 1), (299, 1), (3, 100), (64, 65)] {
        assert_eq!(probabilities(start, count), whole[start * 3..(start + count) * 3]);
    }
    assert_eq!(applied.apply(&Frame::new(rows.schema().clone(), vec![]).unwrap()).unwrap().rows(), 0);
}

#[test]
fn a_cnn_tells_bars_apart() {
    let spec = json!({
        "model": {"cnn": {"input": [1, 8, 8], "channels": [4, 8]}}, "epochs": 8, "batch": 32,
        "optimizer": {"sgd": {"rate": 0.1, "momentum": 0.9}},
    });
    let (model, metrics, ..) = run(&bars(400, "train"), Some(&bars(100, "valid")), spec).unwrap();
    assert!(metrics.get("valid.accuracy").unwrap() > 0.95, "{metrics:?}");
    let found = load(&model).unwrap().apply(&bars(2, "valid")).unwrap().column("prediction").unwrap();
    assert_eq!(found.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["upright", "lying"]);
}

#[test]
fn linear_and_logistic_models_find_their_line() {
    for loss in [json!("auto"), json!("mae"), json!({"huber": {"delta": 0.5}})] {
        let spec = json!({
            "target": "y", "model": {"linear": {}}, "epochs": 200, "batch": 20, "loss": loss,
            "optimizer": {"adam": {"rate": 0.05}}, "schedule": {"linear": {"epochs": 200}},
        });
        let (model, ..) = run(&line(100), Some(&line(10)), spec).unwrap();
        let weight = model.tensors().get("dense1.weight").unwrap().values::<f32>().unwrap()[0];
        let bias = model.tensors().get("dense1.bias").unwrap().values::<f32>().unwrap()[0];
        assert!((weight - 3.0).abs() < 0.02 && (bias + 1.0).abs() < 0.02, "{weight} {bias}");
        let found = load(&model).unwrap().apply(&line(2)).unwrap().column("prediction").unwrap();
        assert!((found.as_primitive::<Float64Type>().value(1) - 0.5).abs() < 0.02);
    }
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..100).map(|i| f64::from(i) / 50.0 - 1.0)));
    let late: ArrayRef = Arc::new(BooleanArray::from_iter((0..100).map(|i| Some(i >= 50))));
    let rows = Frame::from_columns([("x", x), ("late", late)]).unwrap();
    let spec = json!({"target": "late", "model": {"logistic": {}}, "epochs": 50, "optimizer": {"sgd": {"rate": 1.0}}});
    let (model, metrics, ..) = run(&rows, None, spec).unwrap();
    assert!(metrics.get("train.accuracy").unwrap() > 0.95);
    let found = load(&model).unwrap().apply(&rows).unwrap();
    assert!(!found.column("prediction").unwrap().as_boolean().value(0));
    let probabilities = found.column("probability").unwrap();
    let values = probabilities.as_fixed_size_list().values().as_primitive::<Float32Type>().clone();
    assert!(values.value(0) > 0.9 && values.value(1) < 0.1 && values.value(199) > 0.9);
}

#[test]
fn threads_do_not_change_a_byte() {
    let cnn = json!({
        "model": {"cnn": {"input": [1, 8, 8], "channels": [3], "dropout": 0.2, "blocks": 1}}, "epochs": 2, "batch": 100, "shards": 8,
    });
    let (clouds, more) = (clouds(500, "train"), clouds(170, "valid"));
    let mut text = models::transformer();
    text["epochs"] = json!(2);
    let cases = [
        (clouds, more, mlp()),
        (bars(230, "train"), bars(70, "valid"), cnn),
        (models::texts(100, "train"), models::texts(70, "valid"), text),
        (models::journeys(200, "train"), models::journeys(70, "valid"), models::tabular()),
    ];
    for (train, valid, spec) in cases {
        let one = all(&run_with(&train, Some(&valid), None, spec.clone(), around(1)).unwrap());
        for threads in [2, 4, 8] {
            assert!(all(&run_with(&train, Some(&valid), None, spec.clone(), around(threads)).unwrap()) == one);
        }
    }
}

#[test]
fn a_training_in_parts_ends_with_the_same_bytes() {
    let (train, valid) = (clouds(300, "train"), clouds(100, "valid"));
    for optimizer in [json!({"adamw": {}}), json!({"sgd": {"momentum": 0.9, "nesterov": true}}), json!({"sgd": {}})] {
        let spec = |epochs: usize| {
            let mut spec = mlp();
            spec["epochs"] = json!(epochs);
            spec["optimizer"] = optimizer.clone();
            spec
        };
        let whole = run(&train, Some(&valid), spec(6)).unwrap();
        let mut state = None;
        for epochs in [1, 4] {
            state = Some(run_with(&train, Some(&valid), state, spec(epochs), around(1)).unwrap().3);
        }
        let parts = run_with(&train, Some(&valid), state, spec(6), around(1)).unwrap();
        assert!(all(&parts) == all(&whole));
    }
}

#[test]
fn a_state_of_another_training_is_refused() {
    let rows = clouds(100, "train");
    let spec = json!({"model": {"softmax": {}}, "epochs": 2});
    let state = run(&rows, None, spec.clone()).unwrap().3;
    let with = |key: &str, value: Value| {
        let mut spec = spec.clone();
        spec[key] = value;
        run_with(&rows, None, Some(state.clone()), spec, around(1)).unwrap_err().to_string()
    };
    assert!(with("batch", json!(50)).starts_with("input \"resume\": the state is of a training with another `batch`"));
    assert!(with("epochs", json!(1)).contains("has 2 epochs behind it, and `epochs` is 1"));
    let error = run_with(&rows, None, Some(Tensors::new()), spec.clone(), around(1)).unwrap_err();
    assert!(error.to_string().contains("no state of a training"), "{error}");
}

/// Keeps checkpoints until the plug is pulled, which is after so many of them.
#[derive(Default)]
struct Plug {
    saved: Mutex<Vec<Tensors>>,
    changed: Condvar,
    stop: AtomicUsize,
    cancel: Mutex<Cancel>,
}

impl Plug {
    fn pulled(&self, saved: &[Tensors]) -> bool {
        saved.len() >= self.stop.load(Ordering::SeqCst)
    }
}

impl Checkpoints for Plug {
    fn newest(&self, _: &mut dyn FnMut(String)) -> Result<Option<Tensors>> {
        Ok(self.saved.lock().unwrap().last().cloned())
    }

    fn save(&self, state: Tensors) -> Result<()> {
        let mut saved = self.saved.lock().unwrap();
        if !self.pulled(&saved) {
            saved.push(state);
        }
        self.changed.notify_all();
        Ok(())
    }
}

/// Checkpoints are written beside the training: here it waits for them after the epoch at which the plug is pulled.
impl ReportSink for Plug {
    fn report(&self, report: Report) {
        let epoch = report.metrics.iter().find(|(name, _)| name == "epoch").map(|(_, epoch)| *epoch);
        if epoch == Some(5.0) {
            let saved = self.saved.lock().unwrap();
            drop(self.changed.wait_while(saved, |saved| !self.pulled(saved)).unwrap());
            self.cancel.lock().unwrap().cancel();
        }
    }
}

/// Trains until the plug is pulled, after one checkpoint, and goes on from there: with the same result as `whole`. Gives
/// what a later attempt finds around it.
#[track_caller]
fn goes_on(whole: &Outcome, train: impl Fn(&Surroundings) -> Result<Outcome>) -> Surroundings {
    let plug = Arc::new(Plug { stop: AtomicUsize::new(1), ..Plug::default() });
    let surroundings = |threads: usize| Surroundings {
        checkpoint: Checkpoint::new(plug.clone()),
        progress: Progress::new(plug.clone()),
        ..around(threads)
    };
    let interrupted = surroundings(2);
    *plug.cancel.lock().unwrap() = interrupted.cancel.clone();
    assert_eq!(train(&interrupted).unwrap_err().whose(), Fault::Interrupted);
    assert_eq!(plug.saved.lock().unwrap().len(), 1);
    assert!(all(&train(&surroundings(1)).unwrap()) == all(whole));
    surroundings(1)
}

#[test]
fn an_interrupted_training_goes_on_from_its_checkpoint() {
    let (train, valid) = (clouds(300, "train"), clouds(100, "valid"));
    for cadence in [json!(1), json!({"steps": 1})] {
        let mut spec = mlp();
        (spec["checkpoint"], spec["curve"]) = (cadence, json!({"steps": 2}));
        let whole = run(&train, Some(&valid), spec.clone()).unwrap();
        goes_on(&whole, |around| run_with(&train, Some(&valid), None, spec.clone(), around.clone()));
    }
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    let (train, valid) = (clouds(60, "train"), clouds(60, "valid"));
    let spec = json!({
        "model": {"mlp": {"hidden": [64]}}, "epochs": 500, "batch": 60, "early_stop": {"patience": 3},
        "optimizer": {"sgd": {"rate": 2.0, "momentum": 0.5}},
    });
    let (_, metrics, curve, state) = run(&train, Some(&valid), spec.clone()).unwrap();
    let epochs = metrics.get("epochs").unwrap();
    assert!(epochs < 500.0 && metrics.get("best.epoch") == Some(epochs - 3.0), "{metrics:?}");
    let losses = curve.column("valid.loss").unwrap();
    let least = losses.as_primitive::<Float64Type>().values().iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(metrics.get("valid.loss"), Some(least));
    let mut longer = spec;
    longer["epochs"] = json!(900);
    assert_eq!(
        bytes(&run_with(&train, Some(&valid), Some(state.clone()), longer, around(1)).unwrap().3),
        bytes(&state)
    );
}

#[test]
fn parameters_out_of_range_are_refused_before_anything_runs() {
    let registry = registry();
    let stage = registry.get("train").unwrap();
    let refused = |mut spec: Value, path: &[&str], message: &str| {
        if spec.get("model").is_none() {
            spec["model"] = json!({"softmax": {}});
        }
        let error = stage.normalise(&spec).unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(error.message.contains(message), "{error}");
    };
    refused(
        json!({"optimizer": {"adam": {"rate": 0}}}),
        &["optimizer", "adam", "rate"],
        "0 is not a finite number above 0",
    );
    refused(json!({"epochs": 0}), &["epochs"], "nonzero");
    refused(json!({"checkpoint": {"steps": 0}}), &["checkpoint"], "expected a number of epochs, { steps = 500 }");
    refused(json!({"model": {"transformer": {"heads": 0}}}), &["model", "transformer", "heads"], "nonzero");
    refused(json!({"shards": 3}), &["shards"], "3 is not a power of two");
    refused(json!({"epoch": 3}), &["epoch"], "unknown field `epoch`");
    refused(
        json!({"model": {"mlp": {"dropout": 1.0}}}),
        &["model", "mlp", "dropout"],
        "1 is not at least 0 and below 1",
    );
    refused(json!({"class_weights": "even"}), &["class_weights"], "expected \"balanced\" or a table");
    let whole = stage.normalise(&json!({"model": {"mlp": {}}})).unwrap();
    assert_eq!(stage.normalise(&whole).unwrap(), whole);
    assert_eq!(whole["optimizer"]["adamw"]["rate"], json!(1e-3));
}

#[test]
fn data_that_cannot_be_learned_from_is_named() {
    let rows = clouds(90, "train");
    let softmax = json!({"model": {"softmax": {}}});
    let empty = Frame::new(rows.schema().clone(), vec![]).unwrap();
    assert!(refused(&empty, None, softmax.clone()).contains("input \"train\" has no rows"));
    assert!(refused(&rows, Some(&empty), softmax.clone()).contains("input \"valid\" has no rows"));
    let large = json!({"model": {"softmax": {}}, "batch": 91});
    assert!(refused(&rows, None, large).contains("`batch` is 91, but input \"train\" has only 90 rows"));
    let target = json!({"model": {"softmax": {}}, "target": "lable"});
    assert!(refused(&rows, None, target).contains("did you mean \"label\""));
    assert!(refused(&rows, None, json!({"model": {"logistic": {}}})).contains("has 3 classes; logistic is for two"));
    let early = json!({"model": {"softmax": {}}, "early_stop": {}});
    assert!(refused(&rows, None, early).contains("`early_stop` watches"));
    let image = json!({"model": {"cnn": {"input": [1, 28, 28]}}});
    assert!(refused(&rows, None, image).contains("but the feature columns have 2"));
    let strange = json!({"model": {"softmax": {}}, "class_weights": {"30": 1.0}});
    assert!(refused(&rows, None, strange).contains("\"30\", which is no class"));
    let label: ArrayRef = Arc::new(Int64Array::from(vec![30; 90]));
    let valid = rows.with_column("label", label).unwrap();
    assert!(
        refused(&rows, Some(&valid), softmax.clone()).contains("input \"valid\": column \"label\" has labels that")
    );
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"; 90]));
    let error = refused(&rows.with_column("label", text).unwrap(), None, json!({"model": {"linear": {}}}));
    assert!(error.contains("column \"label\" is of type Utf8; a regression needs numbers"), "{error}");
    assert!(error.contains("to tell classes apart, or name another column"), "{error}");
    let resumed = json!({"model": {"softmax": {}}, "find_rate": {}});
    let error = run_with(&rows, None, Some(Tensors::new()), resumed, around(1)).unwrap_err().to_string();
    assert!(error.contains("takes no input \"resume\""), "{error}");
    let nan: ArrayRef = Arc::new(Float64Array::from_iter((0..90).map(|i| Some(if i == 40 { f64::NAN } else { 0.0 }))));
    let rows = rows.with_column("x", nan).unwrap();
    assert!(refused(&rows, None, softmax).contains("column \"x\" is NaN in row 40"));
}

#[test]
fn an_exploding_training_stops_at_its_step() {
    let spec = json!({
        "target": "y", "model": {"linear": {}}, "epochs": 100, "batch": 10, "optimizer": {"sgd": {"rate": 1e9}},
    });
    let error = refused(&line(100), None, spec);
    assert!(error.contains(" (epoch 1), at the rate 1e9") && error.contains("lower the rate"), "{error}");
}

#[test]
fn what_explodes_leaves_a_checkpoint_from_before() {
    let plug = Arc::new(Plug { stop: AtomicUsize::new(usize::MAX), ..Plug::default() });
    let surroundings = Surroundings { checkpoint: Checkpoint::new(plug.clone()), ..around(1) };
    // Each step, which is an epoch, makes the loss some thirty times as large.
    let spec = json!({
        "target": "y", "model": {"linear": {}}, "epochs": 100, "batch": 100, "optimizer": {"sgd": {"rate": 2.5}},
        "checkpoint": {"steps": 1},
    });
    let error = run_with(&line(100), None, None, spec, surroundings).unwrap_err().to_string();
    assert!(error.starts_with("the loss, ") && error.contains(" on average in the first epoch, is "), "{error}");
    let saved = plug.saved.lock().unwrap();
    let curve = saved.last().unwrap().get("curve").unwrap().values::<f64>().unwrap();
    let losses: Vec<f64> = curve.chunks(state::CURVE.len()).map(|row| row[4]).collect();
    assert!(losses.iter().all(|loss| *loss < 1e3 * losses[0].max(1.0)), "{losses:?}");
}

#[test]
fn a_single_step_too_far_gives_no_model() {
    let spec = |rate: f64| {
        json!({
            "target": "y", "model": {"linear": {}}, "epochs": 1, "batch": 100, "optimizer": {"sgd": {"rate": rate}},
        })
    };
    // A slope of a million or so, which is finite.
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..100).map(f64::from)));
    let y: ArrayRef = Arc::new(Float64Array::from_iter_values((0..100).map(|x| 1e4 * f64::from(x))));
    let steep = Frame::from_columns([("x", x), ("y", y)]).unwrap();
    let error = refused(&steep, None, spec(1e37));
    assert!(error.contains("a weight is inf at step 1 (epoch 1), at the rate 1e37"), "{error}");
    for rate in [1e39, 1e-50] {
        let error = refused(&line(100), None, spec(rate));
        assert!(
            error.contains(&format!("the rate {rate:e} is beyond the numbers that weights are kept in")),
            "{error}"
        );
    }
    // Finite weights whose outputs are not.
    let error = refused(&steep, Some(&steep), spec(1e25));
    assert!(error.contains("the validation loss is ") && error.contains(" at step 1 (epoch 1)"), "{error}");
}

#[test]
fn labels_beyond_64_bits_with_a_sign_are_refused() {
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..4).map(f64::from)));
    let label: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![0, 1, u64::MAX, 1]));
    let rows = Frame::from_columns([("x", x), ("label", label)]).unwrap();
    let error = refused(&rows, None, json!({"model": {"softmax": {}}}));
    assert!(error.contains("column \"label\" has labels beyond what 64 bits with a sign hold"), "{error}");
}

/// A stand-in for fitted features: keeps `y` and the target, tenfold.
struct Tenfold;

impl ropeway_framework::stage::Apply for Tenfold {
    fn input(&self) -> arrow::datatypes::SchemaRef {
        clouds(3, "").schema().clone()
    }
    fn output(&self) -> arrow::datatypes::SchemaRef {
        self.input()
    }
    fn apply(&self, rows: &Frame) -> Result<Frame> {
        rows.select(&["y", "label"])?.map_numeric(|value| value * 10.0)?.with_column("label", rows.column("label")?)
    }
}

#[test]
fn fitted_features_come_first() {
    let registry = ropeway_framework::stage::Registry::new().model("tenfold", |_| Ok(Box::new(Tenfold)));
    let around = Surroundings { models: Models::new(Arc::new(registry)), ..around(1) };
    let features = Model::new("tenfold", &(), Tensors::new()).unwrap();
    let spec: TrainSpec = serde_json::from_value(json!({"model": {"softmax": {}}, "epochs": 1})).unwrap();
    let rows = clouds(90, "train");
    let given = stage::Given { train: rows.into(), valid: None, features: Some(features), resume: None, init: None };
    let (model, ..) = stage::train(given, Params(spec), Seed::new(7, "fit"), around).unwrap();
    let input = load(&model).unwrap().input();
    assert_eq!(input.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["y"]);
}

mod modules {
    use super::*;
    use candle_core::Module;
    use candle_nn::{Linear, VarBuilder, linear, loss};

    struct Net(Linear, Linear);

    impl Net {
        fn new(vb: VarBuilder<'_>) -> candle_core::Result<Self> {
            Ok(Self(linear(2, 16, vb.pp("a"))?, linear(16, 3, vb.pp("b"))?))
        }

        fn forward(&self, rows: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
            self.1.forward(&self.0.forward(rows)?.relu()?)
        }
    }

    fn trainer(epochs: usize) -> Trainer<Net> {
        Trainer::new(Net::new, |net: &Net, batch| loss::cross_entropy(&net.forward(&batch.features)?, &batch.target))
            .epochs(epochs)
            .optimizer(Optimizer::adam(Positive::try_from(0.01).unwrap()))
    }

    #[test]
    fn a_module_learns_resumes_and_predicts() {
        let (rows, valid) = (clouds(300, "train"), clouds(90, "valid"));
        let reader = Reader::fit(&rows, "label").unwrap();
        let (train, valid) = (reader.examples(&rows).unwrap(), reader.examples(&valid).unwrap());
        let seed = Seed::new(7, "fit");
        let whole = trainer(20).fit(&train, Some(&valid), &seed, &around(2)).unwrap();
        assert!(whole.metrics.get("valid.loss").unwrap() < 0.4, "{:?}", whole.metrics);
        let half = trainer(9).fit(&train, Some(&valid), &seed, &around(1)).unwrap();
        let rest = trainer(20).resume(Some(half.state)).fit(&train, Some(&valid), &seed, &around(1)).unwrap();
        assert_eq!(bytes(&rest.weights), bytes(&whole.weights));

        let model = whole.model("net", &reader).unwrap();
        let net = Net::new(weights(&model).unwrap()).unwrap();
        let found = reader.predictions(&net.forward(&train.features).unwrap()).unwrap();
        let (found, truth) = (found.column("prediction").unwrap(), rows.column("label").unwrap());
        let pairs = found.as_primitive::<Int64Type>().values().iter().zip(truth.as_primitive::<Int64Type>().values());
        assert!(pairs.filter(|(a, b)| a == b).count() > 270);
    }

    #[test]
    fn a_training_of_no_epochs_is_refused() {
        let rows = clouds(30, "train");
        let examples = Reader::fit(&rows, "label").unwrap().examples(&rows).unwrap();
        let error = trainer(0).fit(&examples, None, &Seed::new(1, ""), &around(1)).unwrap_err();
        assert!(error.to_string().contains("a training of 0 epochs"), "{error}");
    }

    #[test]
    fn a_loss_that_is_no_number_is_explained() {
        let rows = clouds(30, "train");
        let examples = Reader::fit(&rows, "label").unwrap().examples(&rows).unwrap();
        let trainer = Trainer::new(Net::new, |net: &Net, batch| net.forward(&batch.features));
        let error = trainer.fit(&examples, None, &Seed::new(1, ""), &around(1)).unwrap_err();
        assert!(error.to_string().contains("it must be one number"), "{error}");
    }
}

/// Samples a second, for people: `cargo test --release -p ropeway-stages --lib speed -- --ignored --nocapture`.
mod speed {
    use super::*;
    use std::time::Instant;

    fn images(rows: usize) -> Frame {
        let mut rng = Seed::new(5, "data").rng("images");
        let bytes: Vec<u8> = (0..rows * 784).map(|_| rng.random()).collect();
        let item = Arc::new(Field::new_list_field(DataType::UInt8, false));
        let image: ArrayRef = Arc::new(FixedSizeListArray::new(item, 784, Arc::new(UInt8Array::from(bytes)), None));
        let label: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row % 10)));
        Frame::from_columns([("image", image), ("label", label)]).unwrap()
    }

    #[test]
    #[ignore = "measures the machine, not the code"]
    fn speed() {
        let (rows, bare) = (12_800, network::gigaflops());
        println!("bare matrix products, 1 thread: {bare:.0} GFLOP/s");
        let images = images(rows);
        let cases = [
            (
                "mlp 784-256-128-10, batch 128, adam",
                json!({"model": {"mlp": {"hidden": [256, 128]}}, "epochs": 3, "batch": 128, "optimizer": {"adam": {}}}),
            ),
            (
                "cnn 1-16-32, 3x3, pooling, batch 64, momentum",
                json!({
                    "model": {"cnn": {"input": [1, 28, 28], "channels": [16, 32]}}, "epochs": 2, "batch": 64,
                    "optimizer": {"sgd": {"rate": 0.01, "momentum": 0.9}},
                }),
            ),
        ];
        for (name, spec) in cases {
            for threads in [1, 2] {
                let start = Instant::now();
                let epochs = spec["epochs"].as_u64().unwrap() as f64;
                let (model, metrics, ..) = run_with(&images, None, None, spec.clone(), around(threads)).unwrap();
                let seconds = start.elapsed().as_secs_f64();
                // No step was left out: a figure must be of the work that it names.
                let steps = epochs * rows as f64 / spec["batch"].as_f64().unwrap();
                assert_eq!(metrics.get("steps"), Some(steps));
                let applied = load(&model).unwrap();
                let start = Instant::now();
                applied.apply(&images).unwrap();
                let forward = rows as f64 / start.elapsed().as_secs_f64();
                println!("{name}, {threads} threads: {:.0}/s; applied {forward:.0}/s", epochs * rows as f64 / seconds);
            }
        }
    }
}
