//! Every operation against difference quotients, and against candle's own.

use super::*;
use crate::train::Activation;
use candle_core::{D, DType, Device, Module, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::RngExt;
use ropeway_framework::stage::Seed;
use std::sync::Arc;

const ACTIVATIONS: [Activation; 6] = [
    Activation::Relu,
    Activation::LeakyRelu,
    Activation::Elu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Identity,
];

fn random(shape: &[usize], purpose: &str) -> Var {
    let mut rng = Seed::new(3, "fused").rng(purpose);
    let values = (0..shape.iter().product()).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn list(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{what}: {found} is not {expected}");
    }
}

/// The number that a function makes of some variables: its gradients are its slopes.
fn slopes(vars: &[&Var], function: impl Fn() -> Tensor) {
    let gradients = function().backward().unwrap();
    for var in vars {
        let gradient = list(gradients.get(var).unwrap());
        let start = list(var);
        for index in 0..start.len() {
            let at = |shift: f32| {
                let mut moved = start.clone();
                moved[index] += shift;
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap()).unwrap();
                f64::from(function().to_scalar::<f32>().unwrap())
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            at(0.0);
            let found = f64::from(gradient[index]);
            assert!((slope - found).abs() < 5e-3 + 0.02 * found.abs(), "{index}: {slope} is not {found}");
        }
    }
}

/// Two ways to compute the same: results and gradients.
fn same(vars: &[&Var], ours: &Tensor, theirs: &Tensor, what: &str) {
    close(&list(ours), &list(theirs), what);
    let weights = random(ours.dims(), "weights");
    let gradients = |result: &Tensor| result.mul(weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let (ours, theirs) = (gradients(ours), gradients(theirs));
    for var in vars {
        close(&list(ours.get(var).unwrap()), &list(theirs.get(var).unwrap()), what);
    }
}

fn activate(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::Relu => x.relu(),
        Activation::LeakyRelu => candle_nn::ops::leaky_relu(x, 0.01),
        Activation::Elu => x.elu(1.0),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::Identity => Ok(x.clone()),
    }
    .unwrap()
}

/// A layer whose weights are begun at random, with them.
fn layer<L>(make: impl Fn(VarBuilder<'_>) -> Result<L>) -> (L, Var, Var) {
    let map = VarMap::new();
    let layer = make(VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
    let vars = map.data().lock().unwrap();
    let (weight, bias) = (vars["weight"].clone(), vars["bias"].clone());
    weight.set(&random(weight.dims(), "weight")).unwrap();
    bias.set(&random(bias.dims(), "bias")).unwrap();
    (layer, weight, bias)
}

#[test]
fn linear_layers() {
    for activation in ACTIVATIONS {
        let (linear, weight, bias) = layer(|vb| linear(5, 3, activation, vb));
        let input = random(&[2, 3, 5], "input");
        slopes(&[&input, &weight, &bias], || linear.forward(&input).unwrap().sqr().unwrap().mean_all().unwrap());
        // Wide enough for several parts, and a transposed input.
        let (linear, weight, bias) = layer(|vb| super::linear(300, 70, activation, vb));
        let input = random(&[300, 161], "input");
        let rows = input.t().unwrap();
        let sums = rows.matmul(&weight).unwrap().broadcast_add(&bias).unwrap();
        same(&[&input, &weight, &bias], &linear.forward(&rows).unwrap(), &activate(activation, &sums), "linear");
    }
}

#[test]
fn convolutions() {
    for (activation, kernel) in [(Activation::Tanh, 3), (Activation::Sigmoid, 2), (Activation::Identity, 1)] {
        let (conv, weight, bias) = layer(|vb| conv2d(2, 3, kernel, activation, vb));
        let input = random(&[2, 5, 4, 2], "input");
        slopes(&[&input, &weight, &bias], || conv.forward(&input).unwrap().sqr().unwrap().mean_all().unwrap());
    }
    for activation in ACTIVATIONS {
        let (conv, weight, bias) = layer(|vb| conv2d(3, 4, 3, activation, vb));
        let input = random(&[19, 9, 7, 3], "input");
        let first = |tensor: &Tensor| tensor.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let kernel = weight.permute((3, 2, 0, 1)).unwrap().contiguous().unwrap();
        let sums = first(&input).conv2d(&kernel, 1, 1, 1, 1).unwrap().permute((0, 2, 3, 1)).unwrap();
        let theirs = activate(activation, &sums.contiguous().unwrap().broadcast_add(&bias).unwrap());
        same(&[&input, &weight, &bias], &conv.forward(&input).unwrap(), &theirs, "conv2d");
    }
}

#[test]
fn pooling() {
    for (shape, size) in [([2, 4, 6, 3], 2), ([1, 7, 5, 2], 3), ([1, 4, 4, 1], 1)] {
        let input = random(&shape, "input");
        slopes(&[&input], || max_pool2d(&input, size).unwrap().sqr().unwrap().mean_all().unwrap());
    }
    // Not against candle's `max_pool2d`: in candle 0.11 its gradient is four times too small.
    let input = random(&[17, 6, 8, 5], "input");
    let squares = input.reshape((17 * 3, 2, 4, 2, 5)).unwrap();
    let theirs = squares.max(3).unwrap().max(1).unwrap().reshape((17, 3, 4, 5)).unwrap();
    same(&[&input], &max_pool2d(&input, 2).unwrap(), &theirs, "max_pool2d");
}

#[test]
fn cross_entropies() {
    let logits = random(&[7, 4], "logits");
    let classes = Tensor::new(&[0u32, 3, 1, 2, 2, 0, 1], &Device::Cpu).unwrap();
    slopes(&[&logits], || cross_entropy(&logits, &classes).unwrap());
    let theirs = candle_nn::loss::cross_entropy(&logits, &classes).unwrap();
    same(&[&logits], &cross_entropy(&logits, &classes).unwrap(), &theirs, "cross_entropy");
}

/// What has a place gets its gradient there, and what other operations make of it stays in the store.
#[test]
fn gradients_go_to_their_places() {
    let (dense, weight, bias) = layer(|vb| linear(6, 4, Activation::Tanh, vb));
    let input = random(&[3, 6], "input");
    let loss = || {
        let decay = weight.sqr().unwrap().sum_all().unwrap();
        (dense.forward(&input).unwrap().sqr().unwrap().mean_all().unwrap() + decay).unwrap()
    };
    let expected = loss().backward().unwrap();
    let mut flat = vec![0.0; 30];
    let places = Arc::new(Places::from([(weight.id(), 3..27)]));
    let store = collect(&places, &mut flat, || loss().backward()).unwrap();
    let decay = list(store.get(&weight).unwrap());
    let sum: Vec<f32> = flat[3..27].iter().zip(decay).map(|(placed, decay)| placed + decay).collect();
    close(&sum, &list(expected.get(&weight).unwrap()), "weight");
    close(&list(store.get(&bias).unwrap()), &list(expected.get(&bias).unwrap()), "bias");
    assert!(flat[..3].iter().chain(&flat[27..]).all(|value| *value == 0.0));
    assert!(loss().backward().unwrap().get(&weight).is_some());
}

#[test]
fn threads_do_not_change_a_bit() {
    let (conv, weight, bias) = layer(|vb| conv2d(1, 16, 3, Activation::Relu, vb));
    let (dense, dense_weight, _) = layer(|vb| linear(14 * 14 * 16, 200, Activation::Relu, vb));
    let input = random(&[35, 28, 28, 1], "input");
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let hidden = max_pool2d(&conv.forward(&input).unwrap(), 2).unwrap().flatten_from(1).unwrap();
            let output = dense.forward(&hidden).unwrap();
            let gradients = output.sqr().unwrap().sum(D::Minus1).unwrap().mean_all().unwrap().backward().unwrap();
            [&input, &weight, &bias, &dense_weight].map(|var| list(gradients.get(var).unwrap()))
        })
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let said = |result: Result<Tensor>| result.unwrap_err().to_string();
    let (dense, ..) = layer(|vb| linear(5, 3, Activation::Relu, vb));
    let (conv, ..) = layer(|vb| conv2d(2, 3, 3, Activation::Relu, vb));
    let images = random(&[2, 4, 4, 1], "images");
    let found = said(dense.forward(&images));
    assert!(found.contains("a linear layer reads rows of 5 values, not [2, 4, 4, 1]"), "{found}");
    let found = said(conv.forward(&images));
    assert!(found.contains("at least 3 x 3 pixels of 2 channels (last), not [2, 4, 4, 1]"), "{found}");
    assert!(said(max_pool2d(&images, 5)).contains("squares of 5 pixels a side do not fit 4 x 4"));
    let logits = random(&[2, 3], "logits");
    let classes = |classes: &[u32]| Tensor::new(classes, &Device::Cpu).unwrap();
    assert!(said(cross_entropy(&logits, &classes(&[0, 3]))).contains("row 1 is of class 3, but there are 3, from 0"));
    assert!(said(cross_entropy(&logits, &classes(&[0]))).contains("one class (u32) for each of 2 rows, not [1]"));
}
