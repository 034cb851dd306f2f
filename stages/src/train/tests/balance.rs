//! Rare classes, whose rows are taken more often.

use super::parts::{goes_on_within_epochs, learned, parted, run_parts, with};
use super::*;

/// Clouds of which the second and third have few rows.
fn uneven(rows: usize, purpose: &str) -> Frame {
    let whole = clouds(3 * rows, purpose);
    let kept = (0..3 * rows as u32).filter(|row| match row % 3 {
        0 => true,
        1 => row % 30 == 1,
        _ => row % 90 == 2,
    });
    let kept = arrow::array::UInt32Array::from_iter_values(kept);
    let batch = arrow::compute::take_record_batch(&whole.to_batch().unwrap(), &kept).unwrap();
    Frame::new(whole.schema().clone(), vec![batch]).unwrap()
}

fn spec() -> Value {
    json!({
        "model": {"mlp": {"hidden": [8], "dropout": 0.1}}, "epochs": 4, "batch": 64, "shards": 4, "balance": "oversample",
    })
}

/// The share of a class's rows that a model recognises.
fn recall(outcome: &Outcome, rows: &Frame, class: i64) -> f64 {
    let found = load(&outcome.0).unwrap().apply(rows).unwrap().column("prediction").unwrap();
    let truth = rows.column("label").unwrap();
    let pairs = found.as_primitive::<Int64Type>().values().iter().zip(truth.as_primitive::<Int64Type>().values());
    let of_class: Vec<bool> =
        pairs.filter(|(_, truth)| **truth == class).map(|(found, truth)| found == truth).collect();
    of_class.iter().filter(|right| **right).count() as f64 / of_class.len() as f64
}

#[test]
fn rare_classes_are_recognised_and_an_epoch_is_as_long_as_is_said() {
    let (train, valid) = (uneven(900, "train"), clouds(300, "valid"));
    let spec = with(spec(), "epochs", json!(10));
    let balanced = run(&train, Some(&valid), spec.clone()).unwrap();
    // Three classes, each with as many rows as the largest.
    assert_eq!(balanced.1.get("steps"), Some(10.0 * (3.0 * 900.0f64 / 64.0).ceil()));
    let plain = run(&train, Some(&valid), with(spec, "balance", Value::Null)).unwrap();
    let rare = |outcome: &Outcome| recall(outcome, &valid, 20);
    assert!(rare(&balanced) > 0.9 && rare(&plain) < 0.7, "{} and {}", rare(&balanced), rare(&plain));
}

#[test]
fn parts_threads_and_interruptions_change_nothing() {
    let (train, valid) = (uneven(400, "train"), clouds(90, "valid"));
    let whole = learned(&run(&train, Some(&valid), spec()).unwrap());
    let (parts, valids) = (parted(&train, &[100, 0, 70]), parted(&valid, &[50]));
    let all_rows = with(spec(), "shuffle", json!({"buffer": 5000}));
    assert!(learned(&run_parts(&parts, &valids, all_rows, around(2)).unwrap()) == whole);

    let mixed = with(spec(), "shuffle", json!({"buffer": 130}));
    let one = all(&run_parts(&parts, &valids, mixed.clone(), around(1)).unwrap());
    for threads in [2, 4, 8] {
        assert!(all(&run_parts(&parts, &valids, mixed.clone(), around(threads)).unwrap()) == one);
    }
    goes_on_within_epochs(&parts, &valids, &with(mixed, "epochs", json!(6)));
}

#[test]
fn what_cannot_be_balanced_is_refused() {
    let numbers = json!({"target": "y", "model": {"linear": {}}, "balance": "oversample"});
    assert!(refused(&line(50), None, numbers.clone()).contains("`balance` needs classes, but the target is a number"));
    let error = run_parts(&parted(&line(50), &[20]), &[], numbers, around(1)).unwrap_err();
    assert!(error.to_string().contains("`balance` needs classes"), "{error}");
    let twice = with(spec(), "class_weights", json!("balanced"));
    assert!(refused(&clouds(90, "train"), None, twice).contains("would both make up for rare classes"));
    let trees = json!({"model": {"trees": {}}, "balance": "oversample"});
    assert!(refused(&clouds(90, "train"), None, trees).contains("`balance` is for networks"));
    let registry = registry();
    let stage = registry.get("train").unwrap();
    let error = stage.normalise(&json!({"model": {"softmax": {}}, "balance": "over"})).unwrap_err();
    assert_eq!(error.path, ["balance"]);
    assert!(error.message.contains("oversample"), "{error}");
}
