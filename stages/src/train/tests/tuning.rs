//! Fine-tuning, the search for a rate, and changed images.

use super::*;

fn run_from(init: Artifact, train: &Frame, spec: Value, progress: Progress) -> Result<Outcome> {
    let spec: TrainSpec = serde_json::from_value(spec)?;
    let around = Surroundings { progress, ..around(2) };
    let given =
        stage::Given { train: train.clone().into(), valid: None, features: None, resume: None, init: Some(init) };
    stage::train(given, Params(spec), Seed::new(7, "fit"), around)
}

/// Keeps the lines of the log.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl ReportSink for Log {
    fn report(&self, report: Report) {
        self.0.lock().unwrap().extend(report.line);
    }
}

#[test]
fn a_training_begins_with_the_weights_of_another_and_keeps_the_frozen_ones() {
    let rows = clouds(300, "train");
    let spec = |freeze: Value| json!({"model": {"mlp": {"hidden": [8, 6]}}, "epochs": 3, "freeze": freeze, "optimizer": {"adamw": {"rate": 0.01, "weight_decay": 0.5}}});
    let before = run(&rows, None, spec(json!([]))).unwrap().0;
    let log = Arc::new(Log::default());
    let tune = |init: Artifact, freeze: Value| run_from(init, &rows, spec(freeze), Progress::new(log.clone()));
    let model = |freeze: Value| tune(Artifact::Model(before.clone()), freeze).unwrap().0;
    let after = model(json!(["dense1", "dense2.bias"]));
    let (before, after) = (bytes(before.tensors()), bytes(after.tensors()));
    let changed: Vec<&str> =
        before.iter().zip(&after).filter(|(a, b)| a.1 != b.1).map(|(tensor, _)| tensor.0.as_str()).collect();
    assert_eq!(changed, ["dense2.weight", "dense3.bias", "dense3.weight"]);
    assert_eq!(log.0.lock().unwrap()[0], "6 of 6 weight tensors begin with those of \"init\"");

    // Another head: what fits is taken, and the rest said.
    let some = Tensors::new()
        .with("dense1.weight", Tensor::from_vec(vec![2, 8], vec![0.5f32; 16]).unwrap())
        .with("dense3.bias", Tensor::from_vec(vec![10], vec![0.5f32; 10]).unwrap())
        .with("head.bias", Tensor::from_vec(vec![3], vec![0.5f32; 3]).unwrap());
    let tuned = tune(Artifact::Tensors(some.clone()), json!(["dense1.weight"])).unwrap().0;
    assert_eq!(tuned.tensors().get("dense1.weight").unwrap().values::<f32>().unwrap(), [0.5; 16]);
    let said = log.0.lock().unwrap().last().unwrap().clone();
    let expected = "1 of 6 weight tensors begin with those of \"init\"; of another shape: dense3.bias ([10], here [3]); \
                    not there: dense1.bias, dense2.weight, dense2.bias, dense3.weight; not used: head.bias";
    assert_eq!(said, expected);

    let error = |init: Artifact, freeze: Value| format!("{:?}", tune(init, freeze).unwrap_err());
    let none = error(Artifact::Tensors(Tensors::new()), json!([]));
    assert!(none.contains("input \"init\": 0 of 6 weight tensors"), "{none}");
    let strange = error(Artifact::Tensors(some.clone()), json!(["dense9"]));
    assert!(strange.contains("`freeze` names \"dense9\", which is no layer of the model"), "{strange}");
    let random = error(Artifact::Tensors(some.clone()), json!(["dense1.weight", "dense2"]));
    assert!(random.contains("`freeze` keeps \"dense2.weight\", but input \"init\" has no such tensor"), "{random}");
    let all = error(Artifact::Tensors(some), json!(["dense1", "dense2", "dense3"]));
    assert!(all.contains("nothing left to train"), "{all}");
    let bad = Tensors::new().with("dense3.bias", Tensor::from_vec(vec![3], vec![f32::NAN; 3]).unwrap());
    assert!(error(Artifact::Tensors(bad), json!([])).contains("the tensor \"dense3.bias\" has the value NaN"));
    let double = Tensors::new().with("dense3.bias", Tensor::from_vec(vec![3], vec![0.0f64; 3]).unwrap());
    assert!(error(Artifact::Tensors(double), json!([])).contains("input \"init\": the tensor \"dense3.bias\""));
    assert!(error(Artifact::Metrics(Metrics::new()), json!([])).contains("not a model or tensors"));
    assert!(refused(&rows, None, spec(json!(["dense1"]))).contains("there is no such input"));
}

#[test]
fn a_good_rate_is_found() {
    let mut spec = mlp();
    (spec["find_rate"], spec["clip"]) = (json!({"steps": 60}), Value::Null);
    let rows = clouds(600, "train");
    let (model, metrics, curve, _) = run(&rows, None, {
        spec["early_stop"] = Value::Null;
        spec.clone()
    })
    .unwrap();
    let rate = metrics.get("rate").unwrap();
    assert!((1e-4..1.0).contains(&rate) && rate < metrics.get("rate.lowest").unwrap(), "{metrics:?}");
    assert!(curve.rows() > 20 && curve.column("smooth.loss").is_ok());
    // Nothing was trained, and threads change nothing.
    let again = run_with(&rows, None, None, spec.clone(), around(1)).unwrap();
    assert_eq!((again.1, bytes(again.0.tensors())), (metrics, bytes(model.tensors())));
    spec["find_rate"] = json!({"from": 1e20, "to": 1e30});
    assert!(refused(&rows, None, spec).contains("the loss grows beyond measure at once"));
}

#[test]
fn augmented_images_do_not_depend_on_threads() {
    let spec = json!({
        "model": {"cnn": {"input": [1, 8, 8], "channels": [4]}}, "epochs": 2, "batch": 64, "shards": 4,
        "augment": {"shift": 2, "flip": true},
    });
    let rows = bars(200, "train");
    let one = all(&run_with(&rows, None, None, spec.clone(), around(1)).unwrap());
    assert!(all(&run_with(&rows, None, None, spec.clone(), around(4)).unwrap()) == one);
    let mut plain = spec.clone();
    plain.as_object_mut().unwrap().remove("augment");
    assert!(all(&run(&rows, None, plain).unwrap()) != one);
    let mut tabular = spec;
    tabular["model"] = json!({"softmax": {}});
    assert!(refused(&rows, None, tabular).contains("`augment` is for images"));
}
