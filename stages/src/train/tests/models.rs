//! What the models for text and for categories learn, and what they refuse.

use super::*;

/// Texts of which half have a `q` somewhere.
pub(super) fn texts(rows: usize, purpose: &str) -> Frame {
    let mut rng = Seed::new(5, "data").rng(purpose);
    let mut text = |row: usize| {
        let mut letters: Vec<u8> = (0..rng.random_range(1..12)).map(|_| b"abcdefgh"[rng.random_range(0..8)]).collect();
        if row.is_multiple_of(2) {
            let place = rng.random_range(0..letters.len());
            letters[place] = b'q';
        }
        String::from_utf8(letters).unwrap()
    };
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(&mut text)));
    let label: ArrayRef = Arc::new(BooleanArray::from_iter((0..rows).map(|row| Some(row.is_multiple_of(2)))));
    Frame::from_columns([("text", text), ("label", label)]).unwrap()
}

pub(super) fn transformer() -> Value {
    json!({
        "model": {"transformer": {"length": 12, "width": 16, "heads": 2, "layers": 1, "dropout": 0.1}}, "epochs": 12,
        "batch": 32, "shards": 4, "optimizer": {"adam": {"rate": 0.01}},
    })
}

#[test]
fn a_transformer_reads_text() {
    let (model, metrics, ..) = run(&texts(400, "train"), Some(&texts(100, "valid")), transformer()).unwrap();
    assert!(metrics.get("valid.accuracy").unwrap() > 0.95, "{metrics:?}");
    let names: Vec<&str> = model.tensors().iter().map(|(name, _)| name).collect();
    assert!(
        names.contains(&"attention1.heads.qkv.weight") && names.contains(&"feed_forward1.dense2.bias"),
        "{names:?}"
    );
    let text: ArrayRef =
        Arc::new(StringArray::from(vec!["abqab", "cccc", "", "ä much longer text than was ever seen"]));
    let found = load(&model).unwrap().apply(&Frame::from_columns([("text", text)]).unwrap()).unwrap();
    let found = found.column("prediction").unwrap();
    assert_eq!((found.as_boolean().value(0), found.as_boolean().value(1)), (true, false));
}

#[test]
fn a_transformer_reads_lists_of_tokens() {
    let tokens = |values: Vec<i32>| -> ArrayRef {
        let item = Arc::new(Field::new_list_field(DataType::Int32, false));
        Arc::new(FixedSizeListArray::new(item, 3, Arc::new(arrow::array::Int32Array::from(values)), None))
    };
    let label: ArrayRef = Arc::new(StringArray::from_iter_values((0..60).map(|row| ["a", "b"][row % 2])));
    let rows = |values| Frame::from_columns([("tokens", tokens(values)), ("label", label.clone())]).unwrap();
    let train = rows((0..60).flat_map(|row| [row % 2 + 1, 5, -(row % 3)]).collect());
    let spec = json!({"model": {"transformer": {"width": 8, "heads": 1, "vocabulary": 6}}, "epochs": 20});
    let (_, metrics, ..) = run(&train, None, spec.clone()).unwrap();
    assert_eq!(metrics.get("train.accuracy"), Some(1.0));
    let strange = (0..180).map(|place| if place == 100 { 6 } else { 1 }).collect();
    let error = refused(&rows(strange), None, spec.clone());
    assert!(error.contains("column \"tokens\" has the token 6 in row 33 (the first is row 0)"), "{error}");
    let padded_before = (0..180).map(|place| if place == 99 { -1 } else { 1 }).collect();
    let error = refused(&rows(padded_before), None, spec);
    assert!(error.contains("column \"tokens\" has tokens after a negative number in row 33"), "{error}");
}

/// Cities and days with a number each, to be guessed from their names alone.
pub(super) fn journeys(rows: usize, purpose: &str) -> Frame {
    let mut rng = Seed::new(5, "data").rng(purpose);
    let places: Vec<(usize, i64)> = (0..rows).map(|_| (rng.random_range(0..5), rng.random_range(1..8))).collect();
    let cities = ["Bern", "Graz", "Kiel", "Nancy", "Siena"];
    let city: ArrayRef = Arc::new(StringArray::from_iter_values(places.iter().map(|(city, _)| cities[*city])));
    let day: ArrayRef = Arc::new(Int64Array::from_iter_values(places.iter().map(|(_, day)| *day)));
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values(places.iter().map(|_| rng.random::<f64>())));
    let late = places.iter().map(|(city, day)| Some([3, 1, 4, 1, 5][*city] + i64::from(*day == 5) * 3 > 3));
    let late: ArrayRef = Arc::new(BooleanArray::from_iter(late));
    Frame::from_columns([("city", city), ("x", x), ("day", day), ("late", late)]).unwrap()
}

pub(super) fn tabular() -> Value {
    json!({
        "target": "late", "epochs": 30, "batch": 64, "shards": 2, "optimizer": {"adam": {"rate": 0.02}},
        "model": {"mlp": {
            "hidden": [16, 16], "residual": true, "norm": true, "embed": {"columns": ["city", "day"], "rare": 2},
        }},
    })
}

#[test]
fn categories_get_vectors_and_unseen_ones_a_slot_of_their_own() {
    let (model, metrics, ..) = run(&journeys(600, "train"), Some(&journeys(200, "valid")), tabular()).unwrap();
    assert!(metrics.get("valid.accuracy").unwrap() > 0.98, "{metrics:?}");
    assert_eq!(model.tensors().get("embedding.city").unwrap().shape(), [6, 3]);
    assert_eq!(model.tensors().get("embedding.day").unwrap().shape(), [8, 4]);
    let applied = load(&model).unwrap();
    assert_eq!(applied.input().field(0).data_type(), &DataType::Utf8);
    let rows = |cities: Vec<Option<&str>>| {
        let count = cities.len();
        let city: ArrayRef = Arc::new(StringArray::from(cities));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![0.5; count]));
        let day: ArrayRef = Arc::new(Int64Array::from(vec![1; count]));
        let found = applied.apply(&Frame::from_columns([("city", city), ("x", x), ("day", day)]).unwrap()).unwrap();
        let found = found.column("probability").unwrap();
        found.as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec()
    };
    let found = rows(vec![Some("Siena"), Some("Graz"), Some("Oslo"), None]);
    assert!(found[1] > 0.5 && found[3] < 0.5 && found[4..6] == found[6..8] && found[2..4] != found[4..6], "{found:?}");
}

#[test]
fn what_the_new_models_cannot_read_is_named() {
    let rows = journeys(40, "train");
    let embed = |columns: Value| {
        let spec = json!({"target": "late", "model": {"mlp": {"embed": {"columns": columns}}}});
        refused(&rows, None, spec)
    };
    assert!(embed(json!(["city", "dya"])).contains("`model.mlp.embed`: ") && embed(json!(["dya"])).contains("\"day\""));
    assert!(embed(json!(["city", "late"])).contains("names \"late\", which is the target"));
    assert!(embed(json!(["city", "x"])).contains("\"x\", which is of type Float64; categories are text"));
    assert!(embed(json!(["day"])).contains("column \"city\" is of type Utf8; a model reads numbers only"));
    let transformer = json!({"target": "late", "model": {"transformer": {}}});
    assert!(refused(&rows, None, transformer.clone()).contains("reads one column besides the target \"late\""));
    let number = rows.select(&["x", "late"]).unwrap();
    assert!(refused(&number, None, transformer).contains("is of type Float64; a transformer reads text or lists"));
}
