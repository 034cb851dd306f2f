//! The engine of devices, on the processor: it is to learn what the processor's own engine learns.

use super::engine::NetworkEngine;
use super::fit::{Engine, fit};
use super::lesson::{Training, Validation};
use super::pool::Pool;
use super::state::State;
use super::*;
use crate::train::device::room::{Room, is_out_of_memory};
use crate::train::device::{DeviceEngine, Place, places};
use candle_core::{DType, Device};
use ropeway_framework::stage::{DeviceShare, Devices, Gang};

fn here(dtype: DType, memory: Option<u64>) -> Place {
    Place { device: Device::Cpu, dtype, memory }
}

fn given(train: &Frame, valid: Option<&Frame>, resume: Option<Tensors>) -> stage::Given {
    let (train, valid) = (Parts::from(train.clone()), valid.cloned().map(Parts::from));
    stage::Given { train, valid, features: None, resume, init: None }
}

fn run_there(place: Place, given: stage::Given, spec: Value, around: &Surroundings) -> Result<Outcome> {
    stage::train_on(vec![place], given, &serde_json::from_value(spec)?, Seed::new(7, "fit"), around)
}

/// Hears what is said.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl ReportSink for Ear {
    fn report(&self, report: Report) {
        self.0.lock().unwrap().extend(report.line);
    }
}

fn heard() -> (Arc<Ear>, Surroundings) {
    let ear = Arc::new(Ear::default());
    (ear.clone(), Surroundings { progress: Progress::new(ear), ..around(1) })
}

fn close(found: f64, expected: f64, share: f64, what: &str) {
    assert!((found - expected).abs() <= share * expected.abs().max(0.01), "{what}: {found} is not {expected}");
}

/// Colour images of 7 x 6, so that no square divides them.
fn patches(rows: usize) -> Frame {
    let mut rng = Seed::new(5, "patches").rng("data");
    let bytes: Vec<u8> = (0..rows * 3 * 42).map(|_| rng.random()).collect();
    let item = Arc::new(Field::new_list_field(DataType::UInt8, false));
    let image: ArrayRef = Arc::new(FixedSizeListArray::new(item, 126, Arc::new(UInt8Array::from(bytes)), None));
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row % 3 / 2)));
    Frame::from_columns([("image", image), ("label", label)]).unwrap()
}

/// Gradients and losses of one step, by the processor's engine and by that of devices.
fn compare(rows: &Frame, spec: Value) {
    compare_with(here(DType::F32, None), 2e-5, rows, spec);
}

fn compare_with(place: Place, tolerance: f32, rows: &Frame, spec: Value) {
    let name = spec.to_string();
    let spec: TrainSpec = serde_json::from_value(spec).unwrap();
    let (train, description) = stage::read(rows, &spec, 1).unwrap();
    let network = description.network().unwrap();
    let (chance, shards) = (Seed::new(3, "train").child("step-0"), spec.shards.map_or(4, Shards::get));
    let pool = Pool::new(1).unwrap();
    let mut weights = network.initial(&chance);
    // Weights that begin at zero would hide what comes after them.
    let mut rng = chance.rng("shift");
    weights.iter_mut().for_each(|weight| *weight += 0.2 * rng.random::<f32>() - 0.1);
    let class_weights = match description.objective.classifies() {
        true => vec![0.5, 2.0, 1.0],
        false => Vec::new(),
    };
    let augmenter = || spec.augment.map(|rule| augment::Augmenter::new(rule, &spec.model).unwrap());
    let both = (Training::Whole(&train), Some(Validation::Whole(&train)));
    let mut own = NetworkEngine::new(&network, description.objective, both, shards, &pool);
    (own.weights, own.augmenter) = (class_weights.clone(), augmenter());
    let counts = (shards, spec.optimizer.moments());
    let progress = Progress::default();
    let both = (Training::Whole(&train), Some(Validation::Whole(&train)));
    let mut there = DeviceEngine::new(&network, description.objective, both, counts, vec![place], &progress).unwrap();
    (there.weights, there.augmenter) = (class_weights, augmenter());
    let names: Vec<String> = network.places().map(|(name, ..)| name).collect();
    if let Some(first) = names.iter().find(|name| !spec.freeze.is_empty() && name.starts_with(&spec.freeze[0])) {
        let all = network.places().map(|(name, ..)| name).collect();
        let frozen = || init::freeze(&network, &spec.freeze, &weights, &all).unwrap();
        own.frozen = frozen();
        there.freeze(frozen()).unwrap();
        assert!(names.len() > 2, "{first} is frozen and others are not");
    }

    let order: Vec<u32> = (0..rows.rows() as u32).rev().collect();
    let expected = own.gradients(&weights, &order, &chance, 0..shards).unwrap();
    let found = there.gradients(&weights, &order, &chance, 0..shards).unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((found.correct, found.rows, found.weight), (expected.correct, expected.rows, expected.weight));
        close(found.loss, expected.loss, 1e-5, &name);
    }
    let sums = [own.gradient(), there.gradient()];
    let sums = sums.map(|gradient| gradient::tests::collected(&*gradient, weights.len(), weights.len()));
    let largest = sums[0].iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for (index, (expected, found)) in sums[0].iter().zip(&sums[1]).enumerate() {
        assert!((found - expected).abs() <= tolerance * largest.max(0.1), "{name} {index}: {found} is not {expected}");
    }
    let (expected, found) = (
        loss::Sums::total(own.evaluate(&weights, 0..own.blocks()).unwrap()),
        loss::Sums::total(there.evaluate(&weights, 0..there.blocks()).unwrap()),
    );
    assert_eq!((found.correct, found.rows), (expected.correct, expected.rows), "{name}");
    close(found.loss, expected.loss, 1e-5, &name);
}

#[test]
fn gradients_are_those_of_the_processors_engine() {
    let clouds = clouds(75, "train");
    for activation in ["relu", "leaky_relu", "elu", "tanh", "sigmoid", "identity"] {
        compare(&clouds, json!({"model": {"mlp": {"hidden": [7, 5], "activation": activation}}}));
    }
    compare(&clouds, json!({"model": {"softmax": {}}}));
    let deep = json!({"hidden": [6, 6, 5, 5], "activation": "tanh", "residual": true, "norm": true, "dropout": 0.3});
    compare(&clouds, json!({"model": {"mlp": deep}}));
    compare(&clouds, json!({"model": {"mlp": {"hidden": [6, 4]}}, "freeze": ["dense2"]}));
    // More shards than rows: some are empty.
    compare(&super::clouds(5, "few"), json!({"model": {"softmax": {}}, "shards": 16}));
    for loss in [json!("mse"), json!("mae"), json!({"huber": {"delta": 0.4}})] {
        compare(&line(70), json!({"target": "y", "model": {"mlp": {"hidden": [5]}}, "loss": loss}));
    }
    let images = patches(18);
    for cnn in [
        json!({"input": [3, 7, 6], "channels": [4, 3], "hidden": [6]}),
        json!({"input": [3, 7, 6], "channels": [4], "kernel": 4, "activation": "tanh", "pool": 3, "dropout": 0.2}),
        json!({"input": [3, 7, 6], "channels": [4, 2], "kernel": 2, "padding": "valid", "activation": "elu", "pool": 1}),
        json!({"input": [3, 7, 6], "channels": [3], "blocks": 2, "activation": "sigmoid", "pool": 2}),
    ] {
        compare(&images, json!({"model": {"cnn": cnn}, "loss": "bce"}));
    }
    let augmented = json!({"cnn": {"input": [3, 7, 6], "channels": [2]}});
    compare(&images, json!({"model": augmented, "augment": {"shift": 2, "flip": true}}));
    compare(&models::journeys(70, "train"), models::tabular());
    for (heads, layers, dropout) in [(1, 1, 0.0), (4, 2, 0.2)] {
        let transformer = json!({"length": 9, "width": 8, "heads": heads, "layers": layers, "dropout": dropout});
        compare(&with_empty(models::texts(40, "train")), json!({"model": {"transformer": transformer}}));
    }
}

/// The texts, the second and the last of which are empty.
fn with_empty(texts: Frame) -> Frame {
    let texts = texts.to_batch().unwrap();
    let text = texts.column(0).as_string::<i32>().iter().enumerate();
    let last = texts.num_rows() - 1;
    let text: StringArray = text.map(|(row, text)| if [1, last].contains(&row) { Some("") } else { text }).collect();
    Frame::from_columns([("text", Arc::new(text) as ArrayRef), ("label", texts.column(1).clone())]).unwrap()
}

#[test]
fn sequences_and_categories_are_learned_also_in_mixed_precision() {
    // Tokens that numbers of 8 bits do not tell apart.
    let item = Arc::new(Field::new_list_field(DataType::Int32, false));
    let values = (0..400).flat_map(|row| [512 + row % 2, 700, row % 600]);
    let values = Arc::new(arrow::array::Int32Array::from_iter_values(values));
    let tokens: ArrayRef = Arc::new(FixedSizeListArray::new(item, 3, values, None));
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values((0..400).map(|row| row % 2)));
    let rows = Frame::from_columns([("tokens", tokens), ("label", label)]).unwrap();
    let spec = json!({
        "model": {"transformer": {"width": 16, "heads": 2, "vocabulary": 1000}}, "epochs": 10, "batch": 40,
        "optimizer": {"adam": {"rate": 0.01}},
    });
    for dtype in [DType::F32, DType::BF16] {
        let (_, metrics, ..) =
            run_there(here(dtype, None), given(&rows, None, None), spec.clone(), &around(1)).unwrap();
        assert_eq!(metrics.get("train.accuracy"), Some(1.0), "{dtype:?}");
        let journeys = given(&models::journeys(400, "train"), Some(&models::journeys(100, "valid")), None);
        let (_, found, ..) = run_there(here(dtype, None), journeys, models::tabular(), &around(1)).unwrap();
        let (train, valid) = (models::journeys(400, "train"), models::journeys(100, "valid"));
        let (_, expected, ..) = run(&train, Some(&valid), models::tabular()).unwrap();
        close(found.get("valid.loss").unwrap(), expected.get("valid.loss").unwrap(), 0.1, "valid.loss");
    }
}

#[test]
fn any_number_of_devices_gives_the_same_bytes() {
    // The last batch has a single row, which is the last shard's and so the last device's.
    let short = (clouds(193, "train"), clouds(50, "valid"), json!({"model": {"mlp": {}}, "batch": 64, "epochs": 2}));
    for (train, valid, spec) in parts::cases().into_iter().chain([short]) {
        let spec = parts::with(parts::with(spec, "shards", json!(8)), "early_stop", json!({}));
        let run = |devices: usize| {
            let (ear, around) = heard();
            let places = vec![here(DType::F32, None); devices];
            let (given, spec) = (given(&train, Some(&valid), None), serde_json::from_value(spec.clone()).unwrap());
            let found = stage::train_on(places, given, &spec, Seed::new(7, "fit"), &around).unwrap();
            (all(&found), ear.0.lock().unwrap().concat())
        };
        let (one, said) = run(1);
        assert_eq!(said, "");
        for devices in [2, 3, 5, 8, 9] {
            let (found, said) = run(devices);
            assert!(found == one, "{devices} devices, {spec}");
            assert_eq!(said.contains("of 9 devices 8 compute"), devices == 9);
        }
    }
}

#[test]
fn a_gang_on_devices_gives_the_bytes_of_one_device() {
    // The last batch of an epoch has a single row: most shards have none.
    let (train, valid) = (clouds(193, "train"), clouds(50, "valid"));
    for (optimizer, freeze) in [(json!({"adam": {"rate": 0.02}}), false), (json!({"sgd": {"momentum": 0.9}}), true)] {
        let model = json!({"mlp": {"hidden": [9, 7], "norm": true, "dropout": 0.1}});
        let spec = json!({
            "model": model, "epochs": 3, "batch": 64, "shards": 8, "optimizer": optimizer, "clip": 0.4, "early_stop": {},
            "class_weights": "balanced", "curve": {"steps": 1}, "freeze": if freeze { json!(["dense1"]) } else { json!([]) },
        });
        let go = |devices: usize, gang: Gang| {
            let around = Surroundings { gang, ..around(1) };
            let mut given = given(&train, Some(&valid), None);
            if freeze {
                let init = json!({"model": model, "epochs": 1, "batch": 64});
                given.init = Some(run(&train, None, init).unwrap().0.into());
            }
            let spec = serde_json::from_value(spec.clone()).unwrap();
            all(&stage::train_on(vec![here(DType::F32, None); devices], given, &spec, Seed::new(7, "fit"), &around)
                .unwrap())
        };
        let alone = go(1, Gang::default());
        assert!(go(3, Gang::default()) == alone);
        for size in [2, 3, 8] {
            let members = ring::together(size, |rank, gang| go(1 + rank % 2, gang));
            assert!(members.iter().all(|member| *member == alone), "{size} members");
        }
    }
}

#[test]
fn what_comes_in_parts_is_trained_on_as_if_it_were_whole() {
    for (train, valid, spec) in parts::cases() {
        let there = |train: &[Frame], valid: &[Frame], spec: Value| {
            let (train, valid) = (train.iter().cloned().collect(), Some(valid.iter().cloned().collect()));
            let given = stage::Given { train, valid, features: None, resume: None, init: None };
            run_there(here(DType::F32, None), given, spec, &around(2)).unwrap()
        };
        let whole = there(std::slice::from_ref(&train), std::slice::from_ref(&valid), spec.clone());
        let buffered = parts::with(spec, "shuffle", json!({"buffer": 5000}));
        let found = there(&parts::parted(&train, &[1, 60, 0, 33]), &parts::parted(&valid, &[64, 2]), buffered);
        assert!(parts::learned(&found) == parts::learned(&whole), "{}", found.0.spec());
    }
}

#[test]
fn trainings_go_the_way_of_the_processors_engine() {
    let (train, valid) = (clouds(300, "train"), clouds(80, "valid"));
    let optimizers = [
        json!({"sgd": {"rate": 0.1, "weight_decay": 0.01}}),
        json!({"sgd": {"rate": 0.05, "momentum": 0.9}}),
        json!({"sgd": {"rate": 0.05, "momentum": 0.9, "nesterov": true}}),
        json!({"adam": {"rate": 0.01}}),
        json!({"adamw": {"rate": 0.01, "weight_decay": 0.1}}),
    ];
    for (optimizer, clip) in optimizers.into_iter().flat_map(|one| [(one.clone(), None), (one, Some(0.3))]) {
        let mut spec = json!({
            "model": {"mlp": {"hidden": [16, 8], "dropout": 0.1, "norm": true}}, "epochs": 4, "batch": 64,
            "optimizer": optimizer, "schedule": {"cosine": {"epochs": 4, "warmup": 1}}, "early_stop": {},
            "class_weights": "balanced", "curve": {"steps": 2},
        });
        if let Some(clip) = clip {
            spec["clip"] = json!(clip);
        }
        let (_, expected, curve, _) = run(&train, Some(&valid), spec.clone()).unwrap();
        let there = given(&train, Some(&valid), None);
        let (_, found, other, _) = run_there(here(DType::F32, None), there, spec.clone(), &around(1)).unwrap();
        assert_eq!(curve.schema(), other.schema());
        for name in ["rate", "gradient.norm", "train.loss", "valid.loss"] {
            let columns = [&curve, &other].map(|curve| curve.column(name).unwrap());
            let [expected, found] = columns.each_ref().map(|column| column.as_primitive::<Float64Type>().values());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected).filter(|(_, expected)| !expected.is_nan()) {
                close(*found, *expected, 2e-3, &format!("{name} of {spec}"));
            }
        }
        for name in ["epochs", "best.epoch", "steps", "parameters"] {
            assert_eq!(found.get(name), expected.get(name));
        }
    }
}

#[test]
fn the_same_device_gives_the_same_bytes_also_in_parts() {
    let (train, valid) = (bars(150, "train"), bars(70, "valid"));
    let spec = |epochs: usize| {
        json!({
            "model": {"cnn": {"input": [1, 8, 8], "channels": [3], "dropout": 0.2, "blocks": 1}}, "epochs": epochs,
            "batch": 60, "shards": 4, "early_stop": {"patience": 9},
        })
    };
    let run = |epochs, resume| {
        run_there(here(DType::F32, None), given(&train, Some(&valid), resume), spec(epochs), &around(1)).unwrap()
    };
    let whole = run(5, None);
    assert!(all(&run(5, None)) == all(&whole));
    let mut state = None;
    for epochs in [1, 3] {
        state = Some(run(epochs, state).3);
    }
    assert!(all(&run(5, state)) == all(&whole));
}

#[test]
fn a_training_goes_on_from_its_checkpoint_and_elsewhere() {
    let (train, valid) = (clouds(300, "train"), clouds(100, "valid"));
    let mut spec = mlp();
    spec["checkpoint"] = json!({"steps": 1});
    let place = || here(DType::F32, None);
    let whole = run_there(place(), given(&train, Some(&valid), None), spec.clone(), &around(1)).unwrap();
    let there = |around: &Surroundings| run_there(place(), given(&train, Some(&valid), None), spec.clone(), around);
    let later = goes_on(&whole, there);
    // The device is gone, and the processor takes over.
    let rest = run_with(&train, Some(&valid), None, spec.clone(), later).unwrap();
    close(rest.1.get("valid.loss").unwrap(), whole.1.get("valid.loss").unwrap(), 0.02, "loss");
}

#[test]
fn mixed_precision_learns_and_keeps_its_weights_in_f32() {
    let spec = |precision: &str| {
        json!({
            "model": {"cnn": {"input": [1, 8, 8], "channels": [4, 8], "blocks": 1}}, "epochs": 8, "batch": 32,
            "optimizer": {"sgd": {"rate": 0.05, "momentum": 0.9}}, "precision": precision, "clip": 5.0,
        })
    };
    let run = |precision: &str, dtype| {
        let given = given(&bars(400, "train"), Some(&bars(100, "valid")), None);
        run_there(here(dtype, None), given, spec(precision), &around(1)).unwrap()
    };
    let (model, metrics, ..) = run("bf16", DType::BF16);
    assert!(metrics.get("valid.accuracy").unwrap() > 0.95, "{metrics:?}");
    let weights = model.tensors().get("conv2.weight").unwrap().values::<f32>().unwrap();
    // Numbers of 8 bits would all be multiples of a 256th of a power of two.
    assert!(weights.iter().any(|weight| weight.to_bits() & 0xffff != 0));
    let (_, exact, ..) = run("f32", DType::F32);
    close(metrics.get("valid.loss").unwrap(), exact.get("valid.loss").unwrap(), 0.5, "valid.loss");
    assert_ne!(metrics.get("valid.loss"), exact.get("valid.loss"));
}

/// A training whose engine asks `room` before each pass.
fn with_room(room: Room, batch: usize) -> (Result<State>, Vec<String>) {
    let (ear, around) = heard();
    let spec = json!({"model": {"mlp": {"hidden": [8]}}, "epochs": 3, "batch": batch, "shards": 2, "shuffle": false});
    let spec: TrainSpec = serde_json::from_value(spec).unwrap();
    let (rows, more) = (clouds(96, "train"), clouds(40, "valid"));
    let (train, description) = stage::read(&rows, &spec, 1).unwrap();
    let valid = stage::examples(&more, &description, 1).unwrap();
    let network = description.network().unwrap();
    let data = (Training::Whole(&train), Some(Validation::Whole(&valid)));
    let place = here(DType::F32, None);
    let mut engine =
        DeviceEngine::new(&network, description.objective, data, (2, 2), vec![place], &around.progress).unwrap();
    engine.limit(room);
    let weights = network.initial(&Seed::new(1, "train"));
    let fresh = State { moments: vec![vec![0.0; weights.len()]; 2], weights, ..State::default() };
    let plan = stage::plan(&spec, &[96], false).unwrap();
    let state = fit(&plan, &mut engine, (fresh, None), &Pool::new(1).unwrap(), &around);
    let said = ear.0.lock().unwrap().clone();
    (state, said)
}

#[test]
fn a_pass_that_does_not_fit_is_halved_and_said() {
    let (whole, said) = with_room(Room::endless(), 96);
    assert!(said.is_empty());
    let whole = whole.unwrap();
    // The device is full from the third pass on, but for ten rows.
    let passes = AtomicUsize::new(0);
    let room = Room::with(move |rows| match passes.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Ok(()),
        _ if rows <= 10 => Ok(()),
        _ => Err(candle_core::Error::Cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into())),
    });
    let (halved, said) = with_room(room, 96);
    let halved = halved.unwrap();
    let sizes: Vec<&str> = said.iter().map(|line| line.split(' ').next().unwrap()).collect();
    // 40 rows of validation, then down to 10 and, for those of a shard of 48, to 6.
    assert_eq!(sizes, ["40", "20"], "{said:?}");
    assert!(said[0].contains("40 rows at once do not fit into the device's memory: from now on it computes 20"));
    assert_eq!((halved.step, halved.epoch), (whole.step, whole.epoch));
    for (halved, whole) in halved.weights.iter().zip(&whole.weights) {
        assert!((halved - whole).abs() < 1e-5, "{halved} is not {whole}");
    }
}

#[test]
fn memory_is_counted_before_it_is_taken() {
    // Room for 30 rows of shards of 48: each is halved, every time in the same way.
    let small = || Room::of(16_000, 9_000, 200);
    let (first, said) = with_room(small(), 96);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("48 rows at once do not fit"));
    let first = first.unwrap();
    assert!(first == with_room(small(), 96).0.unwrap());
    assert!(first.weights != with_room(Room::endless(), 96).0.unwrap().weights, "sums have another order");
    let none = with_room(Room::of(1_000, 9_000, 200), 96).0.unwrap_err();
    assert!(none.to_string().contains("does not hold a single row"), "{none}");
    assert!(none.advice().unwrap().contains("`gpu_memory`"));
    // As the stage counts it.
    let given = given(&clouds(96, "train"), None, None);
    let spec = json!({"model": {"mlp": {"hidden": [512]}}, "epochs": 1, "batch": 96});
    let (ear, around) = heard();
    run_there(here(DType::F32, Some(500_000)), given, spec, &around).unwrap();
    assert!(ear.0.lock().unwrap()[0].contains("do not fit into the device's memory"));
}

#[test]
fn errors_of_memory_are_told_from_others() {
    let cuda = |text: &str| is_out_of_memory(&candle_core::Error::Cuda(text.into()));
    assert!(cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
    assert!(cuda("CublasError(CUBLAS_STATUS_ALLOC_FAILED)"));
    assert!(!cuda("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")"));
    let room = Room::with(|_| Err(candle_core::Error::Cuda("CUDA_ERROR_ILLEGAL_ADDRESS".into())));
    let (state, said) = with_room(room, 96);
    let error = state.unwrap_err();
    assert!(error.to_string().starts_with("a device failed: ") && error.to_string().contains("ILLEGAL_ADDRESS"));
    assert!(error.advice().unwrap().contains("last checkpoint") && said.is_empty(), "{error}");
}

#[test]
fn a_training_that_goes_wrong_stops_at_its_step() {
    let spec = json!({
        "target": "y", "model": {"linear": {}}, "epochs": 100, "batch": 10, "optimizer": {"sgd": {"rate": 1e9}},
    });
    let found = run_there(here(DType::F32, None), given(&line(100), None, None), spec.clone(), &around(1));
    let expected = run(&line(100), None, spec).unwrap_err().to_string();
    let at = |error: &str| error.split(" at step ").nth(1).map(str::to_owned);
    assert_eq!(at(&found.unwrap_err().to_string()), at(&expected));
}

#[test]
fn the_rate_is_found_there_too() {
    let spec = json!({"model": {"mlp": {}}, "find_rate": {"steps": 30}, "optimizer": {"sgd": {}}, "batch": 50});
    let rows = clouds(300, "train");
    let (_, found, ..) = run_there(here(DType::F32, None), given(&rows, None, None), spec.clone(), &around(1)).unwrap();
    let (_, expected, ..) = run(&rows, None, spec).unwrap();
    close(found.get("rate").unwrap(), expected.get("rate").unwrap(), 1e-6, "rate");
}

#[test]
fn what_devices_do_not_compute_is_refused_or_left_to_the_processor() {
    let one = DeviceShare { ordinal: 0, share: 1000, memory: 1 << 30, name: String::new() };
    let decide = |spec: Value, shares: usize, demanded: bool| {
        let (ear, around) = heard();
        let devices = Devices::new(vec![one.clone(); shares], demanded);
        let spec: TrainSpec = serde_json::from_value(spec).unwrap();
        let place = places(&spec, &devices, &around.progress).map(|places| !places.is_empty());
        let said = ear.0.lock().unwrap().concat();
        place.map(|there| (there, said)).map_err(|error| error.to_string())
    };
    let trees = || json!({"model": {"trees": {}}});
    let error = decide(trees(), 1, true).unwrap_err();
    assert_eq!(error, "`model.trees` is computed on the processor only, but its `needs` demand CUDA");
    let said = "`model.trees` is computed on the processor only: no CUDA device is used".to_owned();
    assert_eq!(decide(trees(), 1, false).unwrap(), (false, said));
    assert_eq!(decide(trees(), 0, false).unwrap(), (false, String::new()));
    let (there, said) = decide(json!({"model": {"mlp": {}}, "precision": "bf16"}), 0, false).unwrap();
    assert!(!there && said.contains("the processor computes in f32"));
}

/// On a real device: `cargo test --release --features cuda -p ropeway-stages -- --ignored cuda`.
#[cfg(feature = "cuda")]
mod cuda {
    use super::*;

    fn there(dtype: DType, memory: Option<u64>) -> Place {
        Place { device: Device::new_cuda(0).unwrap(), dtype, memory }
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn gradients_on_cuda_are_those_of_the_processors_engine() {
        let compare = |rows: &Frame, spec: Value| compare_with(there(DType::F32, None), 1e-4, rows, spec);
        let deep = json!({"hidden": [6, 6, 5], "activation": "elu", "residual": true, "norm": true, "dropout": 0.3});
        compare(&clouds(75, "train"), json!({"model": {"mlp": deep}}));
        for loss in [json!("mse"), json!("mae"), json!({"huber": {"delta": 0.4}})] {
            compare(&line(70), json!({"target": "y", "model": {"mlp": {"activation": "sigmoid"}}, "loss": loss}));
        }
        let cnn = json!({"input": [3, 7, 6], "channels": [4, 3], "kernel": 4, "blocks": 1, "hidden": [6]});
        compare(&patches(18), json!({"model": {"cnn": cnn}, "loss": "bce", "augment": {"flip": true}}));
        compare(&models::journeys(70, "train"), models::tabular());
        let transformer = json!({"length": 9, "width": 8, "heads": 2, "layers": 2, "dropout": 0.2});
        compare(&with_empty(models::texts(40, "train")), json!({"model": {"transformer": transformer}}));
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn cuda_gives_the_same_bytes_again_in_both_precisions() {
        for dtype in [DType::F32, DType::BF16] {
            let spec = json!({
                "model": {"cnn": {"input": [1, 8, 8], "channels": [16, 32], "blocks": 1, "dropout": 0.1}}, "epochs": 8,
                "batch": 100, "clip": 1.0, "early_stop": {},
            });
            let run = || {
                let given = given(&bars(1000, "train"), Some(&bars(200, "valid")), None);
                run_there(there(dtype, None), given, spec.clone(), &around(1)).unwrap()
            };
            let first = run();
            assert!(all(&run()) == all(&first));
            assert!(first.1.get("valid.accuracy").unwrap() > 0.95, "{:?}", first.1);
        }
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn several_devices_and_threads_on_cuda_give_the_same_bytes() {
        // The same device counts as another one each time that it is opened.
        let spec: TrainSpec = serde_json::from_value(json!({
            "model": {"cnn": {"input": [1, 8, 8], "channels": [8], "dropout": 0.1}}, "epochs": 4, "batch": 96, "shards": 8,
            "clip": 1.0,
        }))
        .unwrap();
        let run = |devices: usize, threads: usize| {
            let given = given(&bars(961, "train"), Some(&bars(200, "valid")), None);
            let places = (0..devices).map(|_| there(DType::F32, None)).collect();
            all(&stage::train_on(places, given, &spec, Seed::new(7, "fit"), &around(threads)).unwrap())
        };
        let one = run(1, 1);
        assert!([(1, 4), (2, 1), (3, 4)].into_iter().all(|(devices, threads)| run(devices, threads) == one));
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn cuda_out_of_memory_is_told_from_other_errors() {
        let device = there(DType::F32, None).device;
        // More than any device has.
        let error = candle_core::Tensor::zeros(1usize << 42, DType::F32, &device).unwrap_err();
        assert!(is_out_of_memory(&error), "{error}");
    }
}
