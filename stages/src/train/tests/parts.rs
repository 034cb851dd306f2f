//! Training on rows that come in parts and are never all in memory.

use super::*;
use proptest::prelude::*;

/// The same rows in parts of these sizes; the last one takes what is left.
pub(super) fn parted(rows: &Frame, sizes: &[usize]) -> Vec<Frame> {
    let mut start = 0;
    let mut parts: Vec<Frame> = sizes
        .iter()
        .map(|size| {
            start += size;
            rows.slice(start - size, *size)
        })
        .collect();
    parts.push(rows.slice(start, rows.rows()));
    parts
}

/// The same parts, whose rows are cut into batches elsewhere.
fn cut(parts: &[Frame], every: usize) -> Vec<Frame> {
    let cut = |part: &Frame| {
        let pieces = (0..part.rows()).step_by(every).flat_map(|start| part.slice(start, every).batches().to_vec());
        Frame::new(part.schema().clone(), pieces.collect()).unwrap()
    };
    parts.iter().map(cut).collect()
}

pub(super) fn run_parts(train: &[Frame], valid: &[Frame], spec: Value, around: Surroundings) -> Result<Outcome> {
    resume_parts(train, valid, None, spec, around)
}

fn resume_parts(
    train: &[Frame],
    valid: &[Frame],
    resume: Option<Tensors>,
    spec: Value,
    around: Surroundings,
) -> Result<Outcome> {
    let spec: TrainSpec = serde_json::from_value(spec)?;
    let valid = (!valid.is_empty()).then(|| valid.iter().cloned().collect());
    let given = stage::Given { train: train.iter().cloned().collect(), valid, features: None, resume, init: None };
    stage::train(given, Params(spec), Seed::new(7, "fit"), around)
}

pub(super) fn with(mut spec: Value, key: &str, value: Value) -> Value {
    spec[key] = value;
    spec
}

/// What was learned, without the state: that knows of parts.
pub(super) fn learned(outcome: &Outcome) -> (Bytes, String, Metrics, String) {
    let (model, _, metrics, curve) = all(outcome);
    (model, outcome.0.spec().to_string(), metrics, curve)
}

pub(super) fn cases() -> Vec<(Frame, Frame, Value)> {
    let cnn = json!({
        "model": {"cnn": {"input": [1, 8, 8], "channels": [3], "dropout": 0.2}}, "epochs": 2, "batch": 50, "shards": 4,
        "augment": {"shift": 1, "flip": true},
    });
    let line_spec = json!({"target": "y", "model": {"linear": {}}, "epochs": 3, "batch": 16});
    vec![
        (clouds(500, "train"), clouds(170, "valid"), mlp()),
        (bars(230, "train"), bars(70, "valid"), cnn),
        (models::texts(100, "train"), models::texts(70, "valid"), with(models::transformer(), "epochs", json!(2))),
        (models::journeys(200, "train"), models::journeys(70, "valid"), with(models::tabular(), "epochs", json!(3))),
        (line(210), line(70), line_spec),
    ]
}

#[test]
fn a_buffer_for_all_rows_gives_the_bytes_of_one_frame() {
    for (train, valid, spec) in cases() {
        for mixed in [true, false] {
            let whole = learned(&run(&train, Some(&valid), with(spec.clone(), "shuffle", json!(mixed))).unwrap());
            // Not mixed, they come as they are, whatever the buffer.
            let through = if mixed { json!({"buffer": 5000}) } else { json!(false) };
            for sizes in [&[][..], &[1, 60, 0, 33]] {
                let spec = with(spec.clone(), "shuffle", through.clone());
                let parts = run_parts(&parted(&train, sizes), &parted(&valid, &[64, 2]), spec, around(2)).unwrap();
                assert!(learned(&parts) == whole, "{spec} in parts {sizes:?}", spec = parts.0.spec());
            }
        }
    }
}

#[test]
fn threads_and_batches_of_a_file_change_nothing() {
    for (train, valid, spec) in cases() {
        let spec = with(spec, "shuffle", json!({"buffer": 64}));
        let (train, valid) = (parted(&train, &[40, 25, 0]), parted(&valid, &[30]));
        let one = all(&run_parts(&train, &valid, spec.clone(), around(1)).unwrap());
        for (threads, every) in [(2, 1000), (4, 7), (8, 1)] {
            let again = run_parts(&cut(&train, every), &cut(&valid, every), spec.clone(), around(threads)).unwrap();
            assert!(all(&again) == one, "{threads} threads, batches of {every}");
        }
    }
}

/// Trains, stops after a checkpoint that is kept after some steps, goes on from it, and compares.
#[track_caller]
pub(super) fn goes_on_within_epochs(train: &[Frame], valid: &[Frame], spec: &Value) {
    for steps in [1, 2, 3, 7, 11] {
        let spec = with(spec.clone(), "checkpoint", json!({"steps": steps}));
        let whole = run_parts(train, valid, spec.clone(), around(2)).unwrap();
        goes_on(&whole, |around| run_parts(train, valid, spec.clone(), around.clone()));
    }
}

#[test]
fn an_interrupted_training_in_parts_goes_on_within_an_epoch() {
    let (train, valid) = (parted(&clouds(300, "train"), &[100, 90]), parted(&clouds(100, "valid"), &[50]));
    goes_on_within_epochs(&train, &valid, &with(mlp(), "shuffle", json!({"buffer": 70})));
}

#[test]
fn a_training_in_parts_is_resumed_with_more_epochs_and_refused_with_other_parts() {
    let rows = clouds(300, "train");
    let parts = parted(&rows, &[100, 90]);
    let spec = |epochs: usize| with(with(mlp(), "early_stop", Value::Null), "epochs", json!(epochs));
    let whole = run_parts(&parts, &[], spec(5), around(1)).unwrap();
    let state = run_parts(&parts, &[], spec(2), around(1)).unwrap().3;
    let rest = resume_parts(&parts, &[], Some(state.clone()), spec(5), around(2)).unwrap();
    assert!(all(&rest) == all(&whole));
    let other = resume_parts(&parted(&rows, &[101, 89]), &[], Some(state), spec(5), around(1)).unwrap_err();
    assert!(
        other.to_string().contains("of a training with another `parts`: [100,90,110], now [101,89,110]"),
        "{other}"
    );
}

#[test]
fn what_is_learned_in_parts_is_as_good() {
    // Sorted by class: without mixing over the parts a step would see one class only.
    let rows = clouds(600, "train");
    let batch = rows.to_batch().unwrap();
    let part = |class: usize| {
        let places = arrow::array::UInt32Array::from_iter_values((class as u32..600).step_by(3));
        Frame::new(rows.schema().clone(), vec![arrow::compute::take_record_batch(&batch, &places).unwrap()]).unwrap()
    };
    let parts: Vec<Frame> = (0..3).map(part).collect();
    let spec = json!({
        "model": {"mlp": {"hidden": [16]}}, "epochs": 30, "optimizer": {"adam": {"rate": 0.01}}, "shuffle": true,
    });
    let (_, metrics, ..) = run_parts(&parts, &[clouds(200, "valid")], spec, around(2)).unwrap();
    assert!(metrics.get("valid.accuracy").unwrap() > 0.9, "{metrics:?}");
}

#[test]
fn the_learning_rate_is_found_in_parts_too() {
    let rows = clouds(300, "train");
    let spec = json!({"model": {"mlp": {}}, "epochs": 1, "find_rate": {"steps": 40}, "shuffle": {"buffer": 5000}});
    let whole = run(&rows, None, with(spec.clone(), "shuffle", json!(true))).unwrap();
    let parts = run_parts(&parted(&rows, &[90, 90]), &[], spec, around(2)).unwrap();
    assert_eq!((whole.1, format!("{:?}", whole.2)), (parts.1, format!("{:?}", parts.2)));
}

#[test]
fn fitted_features_are_applied_part_by_part() {
    let registry = ropeway_framework::stage::Registry::new().model("tenfold", |_| Ok(Box::new(Tenfold)));
    let around = Surroundings { models: Models::new(Arc::new(registry)), ..around(1) };
    let features = || Some(Model::new("tenfold", &(), Tensors::new()).unwrap());
    let run = |train: Parts<Frame>, shuffle: Value| {
        let spec = json!({"model": {"softmax": {}}, "epochs": 2, "shuffle": shuffle});
        let given = stage::Given { train, valid: None, features: features(), resume: None, init: None };
        stage::train(given, Params(serde_json::from_value(spec).unwrap()), Seed::new(7, "fit"), around.clone()).unwrap()
    };
    let rows = clouds(90, "train");
    let parts = run(parted(&rows, &[20, 30]).into_iter().collect(), json!({"buffer": 90}));
    assert!(learned(&parts) == learned(&run(rows.into(), json!(true))));
}

#[test]
fn what_is_wrong_with_a_part_is_named_before_the_first_step() {
    let softmax = || json!({"model": {"softmax": {}}});
    let refused = |train: &[Frame], valid: &[Frame], spec: Value| run_parts(train, valid, spec, around(2)).unwrap_err();
    let good = clouds(9000, "train");
    let one = std::slice::from_ref(&good);
    let spoiled = |row: usize, value: f64| {
        let mut values = good.column("y").unwrap().as_primitive::<Float64Type>().values().to_vec();
        values[row] = value;
        good.with_column("y", Arc::new(Float64Array::from(values))).unwrap()
    };
    let error = refused(&[good.clone(), spoiled(8191, f64::NAN)], &[], softmax());
    assert_eq!(error.to_string(), "input \"train\": part 1: column \"y\" is NaN in row 8191 (the first is row 0)");
    let error = refused(one, &[good.clone(), good.clone(), spoiled(5000, f64::INFINITY)], softmax());
    assert_eq!(error.to_string(), "input \"valid\": part 2: column \"y\" is inf in row 5000 (the first is row 0)");

    let nothing = good.slice(0, 0);
    assert_eq!(refused(&[], &[], softmax()).to_string(), "input \"train\" is a list without parts");
    let error = refused(&[nothing.clone(), nothing.clone()], &[], softmax());
    assert_eq!(error.to_string(), "input \"train\" has no rows in any of its 2 parts");
    let error = refused(one, std::slice::from_ref(&nothing), softmax());
    assert_eq!(error.to_string(), "input \"valid\" has no rows in any of its 1 parts");

    let error = refused(&[nothing, good.clone(), good.select(&["x", "label"]).unwrap()], &[], softmax());
    let expected = "input \"train\": part 2: its columns are \"x\" Float64, \"label\" Int64, but those of the parts before \
                    \"x\" Float64, \"label\" Int64, \"y\" Float64";
    assert_eq!(error.to_string(), expected);
    let same = good.with_column("label", Arc::new(Int64Array::from(vec![10; 9000]))).unwrap();
    assert!(refused(&[same.clone(), same.clone()], &[], softmax()).to_string().contains("has fewer than two classes"));
    let strange = good.with_column("label", Arc::new(Int64Array::from(vec![11; 9000]))).unwrap();
    let error = refused(one, &[same, strange], softmax()).to_string();
    assert!(
        error.contains("input \"valid\": part 1: column \"label\" has labels that the training part does not have"),
        "{error}"
    );
    let large = json!({"model": {"softmax": {}}, "batch": 18_001});
    let error = refused(&[good.clone(), good.clone()], &[], large).to_string();
    assert!(error.contains("`batch` is 18001, but input \"train\" has only 18000 rows"), "{error}");
    let error = refused(one, &[], json!({"model": {"trees": {}}}));
    assert!(error.to_string().contains("the model `trees` looks at all rows together"), "{error}");
    assert!(error.advice().unwrap().contains("gather = \"concat\""));
    // One class is enough for a part.
    let more = good.with_column("label", Arc::new(Int64Array::from(vec![20; 9000]))).unwrap();
    assert!(run_parts(&[more, good.clone()], &[], json!({"model": {"softmax": {}}, "epochs": 1}), around(1)).is_ok());
}

#[test]
fn buffers_are_checked_before_anything_runs() {
    let registry = registry();
    let stage = registry.get("train").unwrap();
    let normal = |shuffle: Value| stage.normalise(&json!({"model": {"softmax": {}}, "shuffle": shuffle}));
    assert_eq!(normal(json!({"buffer": 10})).unwrap()["shuffle"], json!({"buffer": 10}));
    assert_eq!(normal(json!(true)).unwrap(), stage.normalise(&json!({"model": {"softmax": {}}})).unwrap());
    for wrong in [json!({"buffer": 0}), json!(7), json!({"rows": 10})] {
        let error = normal(wrong).unwrap_err();
        assert_eq!(error.path, ["shuffle"]);
        assert!(error.message.contains("expected true, false or { buffer = 10_000 }"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever trains along sees, at every step that it turns to, the rows that are its own, whatever came before.
    #[test]
    fn members_see_the_rows_of_their_shards(
        sizes in prop::collection::vec(0..50usize, 1..6),
        batch in 1..24usize,
        buffer in 1..120usize,
        turns in prop::collection::vec((0..3u64, 0..40usize, 0..4usize, 1..5usize), 1..8),
    ) {
        let rows = sizes.iter().sum::<usize>();
        prop_assume!(rows > 0);
        let number: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)));
        let half: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64 / 2.0)));
        let frame = Frame::from_columns([("x", number), ("y", half)]).unwrap();
        let parts = cut(&parted(&frame, &sizes), 7);
        let sizes: Vec<usize> = parts.iter().map(Frame::rows).collect();
        let spec: TrainSpec = serde_json::from_value(json!({"model": {"linear": {}}, "target": "y"})).unwrap();
        let given = stream::Given { input: "train", parts: parts.into_iter().collect(), features: None };
        let survey = stream::survey(&given, &spec, false, &around(2)).unwrap();
        prop_assert_eq!(&survey.sizes, &sizes);
        let source = Arc::new(stream::Source::new(given, survey.description, &sizes));
        let shuffle = serde_json::from_value(json!({"buffer": buffer})).unwrap();
        let order = order::Order::in_parts(&sizes, batch, shuffle).unwrap();
        let chance = Seed::new(3, "train");
        let mut stream = stream::Stream::new(source, order.clone(), chance.clone(), 4, Cancel::default());
        for (epoch, step, first, count) in turns {
            let (step, mine) = (step % order.steps(), first..4.min(first + count));
            // A few steps in a row, over the end of the epoch.
            for ahead in 0..4 {
                let (epoch, step) = (epoch + ((step + ahead) / order.steps()) as u64, (step + ahead) % order.steps());
                stream.seek(epoch, step, &mine).unwrap();
                let all = order.epoch(&chance, epoch).step(step).to_vec();
                for shard in mine.clone() {
                    let part = all.len() * shard / 4..all.len() * (shard + 1) / 4;
                    if part.is_empty() {
                        continue;
                    }
                    let here = stream.here().unwrap();
                    let mut found = vec![0.0; part.len()];
                    here.rows.gather(here.place(&part), &mut found);
                    let wanted: Vec<f32> = all[part.clone()].iter().map(|row| *row as f32).collect();
                    prop_assert_eq!(&found, &wanted);
                    let mut picked = engine::Picked::default();
                    let loss::Truth::Numbers(numbers) = here.rows.truth(here.place(&part), &mut picked) else {
                        return Err(TestCaseError::fail("numbers"));
                    };
                    prop_assert_eq!(numbers, &wanted.iter().map(|row| row / 2.0).collect::<Vec<_>>()[..]);
                }
            }
        }
    }
}
