//! Boosted trees: what they learn, that threads change nothing, and what they refuse.

use super::*;

fn trees(more: Value) -> Value {
    let mut spec = json!({"model": {"trees": {"rounds": 30, "min_rows": 5, "depth": 4}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// A ring around a disc, which no line parts.
fn ring(rows: usize, purpose: &str) -> Frame {
    let mut rng = Seed::new(5, "data").rng(purpose);
    let points: Vec<(f64, f64)> =
        (0..rows).map(|_| (rng.random::<f64>() * 2.0 - 1.0, rng.random::<f64>() * 2.0 - 1.0)).collect();
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values(points.iter().map(|(x, _)| *x)));
    let y: ArrayRef = Arc::new(Float64Array::from_iter_values(points.iter().map(|(_, y)| y * 1e6)));
    let inside = points.iter().map(|(x, y)| Some(x * x + y * y < 0.4));
    let label: ArrayRef = Arc::new(BooleanArray::from_iter(inside));
    let number: ArrayRef = Arc::new(Float64Array::from_iter_values(points.iter().map(|(x, y)| 50.0 + x * y)));
    Frame::from_columns([("x", x), ("y", y), ("label", label), ("number", number)]).unwrap()
}

#[test]
fn trees_learn_classes_and_numbers() {
    let (train, valid) = (ring(1000, "train"), ring(300, "valid"));
    let part = |rows: &Frame, target: &str| rows.select(&["x", "y", target]).unwrap();
    for loss in ["auto", "bce"] {
        let (model, metrics, curve, _) =
            run(&part(&train, "label"), Some(&part(&valid, "label")), trees(json!({"loss": loss}))).unwrap();
        assert!(metrics.get("valid.accuracy").unwrap() > 0.95, "{loss} {metrics:?}");
        assert_eq!(curve.rows(), 30);
        let found = load(&model).unwrap().apply(&valid).unwrap().column("prediction").unwrap();
        let truth = valid.column("label").unwrap();
        let right = (0..300).filter(|row| found.as_boolean().value(*row) == truth.as_boolean().value(*row)).count();
        assert_eq!(metrics.get("valid.accuracy"), Some(right as f64 / 300.0));
    }
    for loss in [json!("mse"), json!("mae"), json!({"huber": {"delta": 0.2}})] {
        let spec = trees(json!({"target": "number", "loss": loss}));
        let metrics = run(&part(&train, "number"), Some(&part(&valid, "number")), spec).unwrap().1;
        let none = if loss == json!("mae") { 0.25 } else { 0.11 };
        assert!(metrics.get("valid.loss").unwrap() < none / 3.0, "{loss} {metrics:?}");
    }
    let metrics = run(&clouds(600, "train"), Some(&clouds(200, "valid")), trees(json!({}))).unwrap().1;
    assert!(metrics.get("valid.accuracy").unwrap() > 0.85, "{metrics:?}");
}

#[test]
fn threads_do_not_change_a_tree() {
    // Some rows have another's class: whoever is ever more sure of the others loses more and more by them.
    let (train, rows) = (clouds(500, "train"), clouds(170, "valid"));
    let labels = (0..170).map(|row| if row % 9 == 0 { (row + 1) % 3 * 10 } else { row % 3 * 10 });
    let column = |name: &str| rows.column(name).unwrap();
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(labels));
    let valid = Frame::from_columns([("x", column("x")), ("label", labels), ("y", column("y"))]).unwrap();
    let mut spec = trees(json!({"class_weights": "balanced", "early_stop": {"patience": 3}}));
    spec["model"]["trees"]["rate"] = json!(1.0);
    let one = run_with(&train, Some(&valid), None, spec.clone(), around(1)).unwrap();
    for threads in [2, 4, 8] {
        assert!(all(&run_with(&train, Some(&valid), None, spec.clone(), around(threads)).unwrap()) == all(&one));
    }
    // Early stopping leaves the trees of the best round.
    let best = one.1.get("best.epoch").unwrap();
    assert!(best < one.1.get("epochs").unwrap(), "{:?}", one.1);
    assert_eq!(one.0.tensors().get("roots").unwrap().elements(), 3 * best as usize);
}

#[test]
fn trees_that_overshoot_stop_at_their_round_and_depth_has_an_end() {
    let rows = line(100);
    let spec = |more: Value| {
        let mut model = json!({"rounds": 500, "min_rows": 1});
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"target": "y", "model": {"trees": model}})
    };
    let error = refused(&rows, None, spec(json!({"rate": 3.0})));
    assert!(error.contains(" after round ") && error.contains("lower `model.trees.rate`"), "{error}");
    let deep = spec(json!({"rounds": 2, "depth": 1_000_000_000_000_u64}));
    assert!(run(&rows, None, deep).unwrap().1.get("train.loss").unwrap() < 1.0);
}

#[test]
fn what_trees_do_not_know_is_refused_and_damaged_ones_too() {
    let rows = clouds(90, "train");
    let said = refused(&rows, None, trees(json!({"clip": 1.0})));
    assert!(said.contains("`clip` is for networks; the model `trees` does not know it"), "{said}");
    let (model, _, _, state) = run(&rows, None, trees(json!({}))).unwrap();
    let error = run_with(&rows, None, Some(state), trees(json!({})), around(1)).unwrap_err();
    assert!(error.to_string().contains("takes no input \"resume\""), "{error}");
    let nodes = model.tensors().get("left").unwrap().elements();
    let damage: [(&str, Tensor); 4] = [
        ("left", Tensor::from_vec(vec![nodes], vec![0u32; nodes]).unwrap()),
        ("left", Tensor::from_vec(vec![nodes], vec![u32::MAX; nodes]).unwrap()),
        ("feature", Tensor::from_vec(vec![nodes], vec![7i32; nodes]).unwrap()),
        ("roots", Tensor::from_vec(vec![1], vec![nodes as u32]).unwrap()),
    ];
    for (name, tensor) in damage {
        let spec: Value = model.parse().unwrap();
        let tensors = model.tensors().clone().with(name, tensor);
        assert!(load(&Model::new("trees", &spec, tensors).unwrap()).is_err(), "{name}");
    }
}
