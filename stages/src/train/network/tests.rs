//! Gradients of every layer: against difference quotients, and against candle's own.

use super::*;
use crate::train::loss::{Objective, Truth};
use crate::train::models::ModelSpec;
use serde_json::{Value, json};

pub(super) fn network(spec: Value, inputs: usize, outputs: usize) -> Network {
    Network::new(&serde_json::from_value::<ModelSpec>(spec).unwrap(), &[Field::numbers(inputs)], outputs).unwrap()
}

pub(super) fn random(count: usize, purpose: &str) -> Vec<f32> {
    let mut rng = Seed::new(3, "network").rng(purpose);
    (0..count).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect()
}

/// Loss and gradient of a network on random rows, with the same chance at every call.
pub(super) fn run(network: &Network, weights: &[f32], rows: usize) -> (f64, Vec<f32>) {
    run_on(network, weights, &random(rows * network.inputs(), "input"))
}

pub(super) fn run_on(network: &Network, weights: &[f32], input: &[f32]) -> (f64, Vec<f32>) {
    let mut workspace = Workspace::default();
    let rows = input.len() / network.inputs();
    let truth: Vec<u32> = (0..rows).map(|row| (row % network.outputs()) as u32).collect();
    // Twice, to see that nothing is left over from an earlier step.
    let mut gradient = vec![f32::NAN; network.parameters()];
    let mut sums = Default::default();
    for _ in 0..2 {
        network.input(&mut workspace, rows).copy_from_slice(input);
        let mut rng = Seed::new(1, "chance").rng("dropout");
        network.forward(weights, &mut workspace, Some(&mut rng));
        let (output, output_gradient) = network.output(&mut workspace);
        let truth = Truth::Classes(&truth);
        sums = Objective::CrossEntropy.losses(output, truth, &[], 1.0 / rows as f32, Some(output_gradient));
        network.backward(weights, &mut workspace, &mut gradient);
    }
    (sums.mean(), gradient)
}

#[test]
fn gradients_are_difference_quotients() {
    let valid = json!({"cnn": {
        "input": [2, 10, 9], "channels": [2, 3], "activation": "tanh", "padding": "valid", "kernel": 2, "pool": 2,
    }});
    let deep = json!({"cnn": {
        "input": [3, 8, 8], "channels": [2, 1], "activation": "sigmoid", "kernel": 4, "hidden": [4], "dropout": 0.2,
    }});
    let specs = [
        (json!({"softmax": {}}), 5),
        (json!({"mlp": {"hidden": [7, 6], "activation": "tanh"}}), 5),
        (json!({"mlp": {"hidden": [6], "activation": "sigmoid"}}), 5),
        (json!({"mlp": {"hidden": [6], "activation": "elu"}}), 5),
        (json!({"mlp": {"hidden": [6], "activation": "leaky_relu", "dropout": 0.4}}), 5),
        (json!({"mlp": {"hidden": [1, 1], "activation": "identity"}}), 5),
        (json!({"cnn": {"input": [1, 5, 6], "channels": [3], "pool": 1, "activation": "tanh"}}), 30),
        (valid, 180),
        (deep, 192),
        (
            json!({"mlp": {"hidden": [6, 6, 5, 5], "activation": "tanh", "residual": true, "norm": true, "dropout": 0.2}}),
            4,
        ),
        (json!({"cnn": {"input": [2, 6, 6], "channels": [3], "blocks": 2, "activation": "tanh", "pool": 3}}), 72),
    ];
    for (spec, inputs) in specs {
        let network = network(spec.clone(), inputs, 3);
        slopes(&spec.to_string(), &network, &random(4 * inputs, "input"));
    }
}

/// Holds every weight's gradient against the difference quotient.
fn slopes(name: &str, network: &Network, input: &[f32]) {
    let weights = random(network.parameters(), "weights");
    let (_, gradient) = run_on(network, &weights, input);
    for index in 0..weights.len() {
        let at = |shift: f32| {
            let mut weights = weights.clone();
            weights[index] += shift;
            run_on(network, &weights, input).0
        };
        let slope = (at(2e-3) - at(-2e-3)) / 4e-3;
        let found = f64::from(gradient[index]);
        assert!((slope - found).abs() < 2e-3 + 0.02 * found.abs(), "{name} {index}: {slope} is not {found}");
    }
}

/// A network over a category, two numbers and another category.
pub(super) fn tabular() -> Network {
    let table = |name: &str, slots, width| Some(Table { name: name.to_owned(), slots, width });
    let fields = [
        Field { width: 1, table: table("carrier", 4, 3) },
        Field::numbers(2),
        Field { width: 1, table: table("origin", 3, 2) },
    ];
    let spec: ModelSpec = serde_json::from_value(json!({"mlp": {"hidden": [5], "activation": "tanh"}})).unwrap();
    Network::new(&spec, &fields, 3).unwrap()
}

#[test]
fn gradients_of_embeddings_are_difference_quotients() {
    let network = tabular();
    // Categories that are none are the unseen one.
    let input = [1.0, 0.3, -0.7, 2.0, 3.0, 0.9, 0.1, 0.0, 1.0, -0.2, 0.5, 7.0, -1.0, 1.0, 1.0, 1.0];
    slopes("embedding", &network, &input);
    let names: Vec<String> = network.places().map(|(name, ..)| name).collect();
    assert_eq!(names[..3], ["embedding.carrier", "embedding.origin", "dense1.weight"]);
    let start = network.initial(&Seed::new(1, "init"));
    assert!(start[..3].iter().all(|value| *value == 0.0) && start[3..12].iter().all(|value| *value != 0.0));
}

#[test]
fn gradients_of_a_transformer_are_difference_quotients() {
    let spec = json!({"transformer": {"width": 6, "heads": 2, "layers": 2, "feed_forward": 5, "vocabulary": 7}});
    let network = network(spec.clone(), 5, 3);
    // A full sequence, shorter ones, one of one token, an empty one.
    let input = [
        [3.0, 1.0, 4.0, 1.0, 5.0],
        [2.0, 6.0, 5.0, -1.0, -1.0],
        [0.0, -1.0, -1.0, -1.0, -1.0],
        [-1.0; 5],
        [6.0, 6.0, 0.0, 2.0, -1.0],
    ];
    slopes("transformer", &network, &input.concat());
}

/// What lies beyond a sequence's end does not matter, and neither does its company.
#[test]
fn padding_and_company_do_not_change_a_sequence() {
    let spec = json!({"transformer": {"width": 8, "heads": 2, "layers": 1, "vocabulary": 9}});
    let network = network(spec, 6, 3);
    let weights = network.initial(&Seed::new(2, "init"));
    let outputs = |rows: &[[f32; 6]]| {
        let mut workspace = Workspace::default();
        network.input(&mut workspace, rows.len()).copy_from_slice(&rows.concat());
        network.forward(&weights, &mut workspace, None).to_vec()
    };
    let (short, long) = ([1.0, 2.0, -1.0, -1.0, -1.0, -1.0], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let alone = outputs(&[short]);
    assert_eq!(outputs(&[long, short])[3..], alone);
    assert_eq!(outputs(&[short, long, long, short])[9..], alone);
    // The order of its tokens does.
    assert_ne!(outputs(&[[2.0, 1.0, -1.0, -1.0, -1.0, -1.0]]), alone);
}

fn spec_of_three() -> Value {
    json!({"cnn": {"input": [1, 8, 8], "channels": [2, 2, 2], "kernel": 3}})
}

#[test]
fn layers_that_do_not_fit_are_named() {
    let error = |spec: Value, inputs: usize| {
        let spec: ModelSpec = serde_json::from_value(spec).unwrap();
        Network::new(&spec, &[Field::numbers(inputs)], 2).err().unwrap().to_string()
    };
    assert_eq!(error(spec_of_three(), 64), "layer conv3: `model.cnn.kernel` is 3, but only 2 x 2 pixels come in");
    let spec: ModelSpec = serde_json::from_value(spec_of_three()).unwrap();
    let error_of_three = Network::new(&spec, &[Field::numbers(64)], 2).err().unwrap();
    let way = "input 1 x 8 x 8, conv1 2 x 8 x 8, pool1 2 x 4 x 4, conv2 2 x 4 x 4, pool2 2 x 2 x 2; use fewer";
    assert!(error_of_three.advice().unwrap().contains(way), "{error_of_three:?}");
    for hidden in [1_u64 << 63, 10_000_000_000_000_000] {
        let spec = json!({"mlp": {"hidden": [16, hidden]}});
        assert!(error(spec, 64).contains("more than this machine can hold; layer dense"), "{hidden}");
    }
    let spec = json!({"cnn": {"input": [1, 8, 8], "channels": [2], "pool": 9}});
    assert_eq!(error(spec, 64), "layer pool1: `model.cnn.pool` is 9, but only 8 x 8 pixels come in");
    let spec = json!({"transformer": {"width": 10, "heads": 4}});
    let expected = "layer attention1: `model.transformer.heads` is 4, which does not divide `width` = 10";
    assert_eq!(error(spec, 64), expected);
    let spec = json!({"mlp": {"hidden": [8, 4], "residual": true}});
    assert!(error(spec, 64).starts_with("`model.mlp.residual` has no layer to add: none of `hidden` = [8, 4]"));
    let spec = json!({"cnn": {"input": [1, 28, 28]}});
    assert!(
        error(spec, 64).starts_with("`model.cnn.input` is 1 x 28 x 28 = 784 values, but the feature columns have 64")
    );
}

#[test]
fn weights_go_into_tensors_and_back() {
    let network = network(json!({"cnn": {"input": [1, 6, 6], "channels": [2]}}), 36, 3);
    let weights = network.initial(&Seed::new(5, "init"));
    let tensors = network.tensors(&weights).unwrap();
    assert_eq!(tensors.get("conv1.weight").unwrap().shape(), [3, 3, 1, 2]);
    assert_eq!(network.weights(&tensors).unwrap(), weights);
    assert!(network.weights(&Tensors::new()).is_err());
}
