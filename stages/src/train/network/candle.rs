//! Losses and gradients of networks, against those of candle's automatic differentiation.

use super::tests::{network, random, run, run_on, tabular};
use super::*;
use crate::train::loss::{Objective, Truth};
use candle_core::{D, DType, Device, Result, Tensor as Candle, Var};
use serde_json::json;
use std::collections::BTreeMap;

const HERE: Device = Device::Cpu;

/// The same network in candle: its loss and its gradients, by parameter.
fn candle(network: &Network, weights: &[f32], rows: usize, image: [usize; 3]) -> candle_core::Result<(f32, Vec<f32>)> {
    let vars: Vec<(Vec<usize>, Var)> = network
        .places()
        .map(|(_, shape, range)| Ok((shape.clone(), Var::from_vec(weights[range].to_vec(), shape, &Device::Cpu)?)))
        .collect::<candle_core::Result<_>>()?;
    let [channels, height, width] = image;
    let input = random(rows * network.inputs(), "input");
    let mut x = Candle::from_vec(input, (rows, channels, height, width), &Device::Cpu)?;
    let last = vars.len() / 2 - 1;
    for (index, pair) in vars.chunks(2).enumerate() {
        let (shape, weight, bias) = (&pair[0].0, &pair[0].1, &pair[1].1);
        x = if shape.len() == 4 {
            let x = x.conv2d(&weight.permute((3, 2, 0, 1))?.contiguous()?, (shape[0] - 1) / 2, 1, 1, 1)?;
            x.broadcast_add(&bias.reshape((1, shape[3], 1, 1))?)?
        } else {
            // Flattened channels last, as our networks do.
            let x = if x.rank() == 4 { x.permute((0, 2, 3, 1))?.flatten_from(1)? } else { x };
            x.matmul(weight)?.broadcast_add(bias)?
        };
        if index < last {
            x = x.relu()?;
        }
        if shape.len() == 4 {
            // Not by `max_pool2d`: in candle 0.11 its gradient is four times too small.
            let (n, c, h, w) = x.dims4()?;
            x = x.reshape((n * c * h / 2, 2, w / 2, 2))?.max(3)?.max(1)?.reshape((n, c, h / 2, w / 2))?;
        }
    }
    let truth: Vec<u32> = (0..rows).map(|row| (row % network.outputs()) as u32).collect();
    let loss = candle_nn::loss::cross_entropy(&x, &Candle::new(truth, &Device::Cpu)?)?;
    let gradients = loss.backward()?;
    let mut flat = Vec::new();
    for (_, var) in &vars {
        flat.extend(gradients.get(var).unwrap().flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((loss.to_scalar()?, flat))
}

#[test]
fn gradients_are_candles() {
    let cnn = json!({"cnn": {"input": [2, 12, 8], "channels": [4, 6], "hidden": [10]}});
    for (spec, image) in [(json!({"mlp": {"hidden": [33, 9]}}), [1, 4, 10]), (cnn, [2, 12, 8])] {
        let network = network(spec, image.iter().product(), 5);
        let weights = network.initial(&Seed::new(5, "init"));
        let (loss, gradient) = run(&network, &weights, 20);
        let (expected, gradients) = candle(&network, &weights, 20, image).unwrap();
        assert!((loss as f32 - expected).abs() < 1e-5);
        for (found, expected) in gradient.iter().zip(&gradients) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }
}

/// The weights of a network as candle's variables, and the arithmetic of its layers.
struct Twin(BTreeMap<String, Var>);

impl Twin {
    fn of(network: &Network, weights: &[f32]) -> Result<Self> {
        let var = |(name, shape, place): (String, Vec<usize>, Range<usize>)| {
            Ok((name, Var::from_vec(weights[place].to_vec(), shape, &HERE)?))
        };
        network.places().map(var).collect::<Result<_>>().map(Self)
    }

    fn dense(&self, x: &Candle, layer: &str) -> Result<Candle> {
        self.product(x, &format!("{layer}.weight"), &format!("{layer}.bias"))
    }

    fn product(&self, x: &Candle, weight: &str, bias: &str) -> Result<Candle> {
        x.matmul(&self.0[weight])?.broadcast_add(&self.0[bias])
    }

    fn norm(&self, x: &Candle, layer: &str) -> Result<Candle> {
        let shifted = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = shifted.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = shifted.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        normal.broadcast_mul(&self.0[&format!("{layer}.scale")])?.broadcast_add(&self.0[&format!("{layer}.shift")])
    }

    /// Self-attention of rows of so many tokens, which lie one below the other.
    fn attention(&self, x: &Candle, layer: &str, (rows, length, heads): (usize, usize, usize)) -> Result<Candle> {
        let width = x.dim(1)?;
        let depth = width / heads;
        let qkv = self.product(x, &format!("{layer}.qkv.weight"), &format!("{layer}.qkv.bias"))?;
        let part = |index: usize| {
            let part = qkv.narrow(1, index * width, width)?.reshape((rows, length, heads, depth))?;
            part.transpose(1, 2)?.contiguous()
        };
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let scores = (query.matmul(&key.t()?.contiguous()?)? / (depth as f64).sqrt())?;
        let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((rows * length, width))?;
        self.product(&mixed, &format!("{layer}.output.weight"), &format!("{layer}.output.bias"))
    }

    /// Holds a network's loss and gradient against candle's, of the outputs that candle computed.
    fn agrees(&self, network: &Network, weights: &[f32], input: &[f32], output: &Candle) -> Result<()> {
        let truth: Vec<u32> = (0..output.dim(0)?).map(|row| (row % network.outputs()) as u32).collect();
        let expected = candle_nn::loss::cross_entropy(output, &Candle::new(truth, &HERE)?)?;
        let gradients = expected.backward()?;
        let (loss, gradient) = run_on(network, weights, input);
        assert!((loss as f32 - expected.to_scalar::<f32>()?).abs() < 1e-5);
        for (name, _, place) in network.places() {
            let expected = gradients.get(&self.0[&name]).unwrap().flatten_all()?.to_vec1::<f32>()?;
            for (found, expected) in gradient[place].iter().zip(expected) {
                assert!((found - expected).abs() < 2e-5, "{name}: {found} is not {expected}");
            }
        }
        Ok(())
    }
}

#[test]
fn norms_and_residual_blocks_are_candles() -> Result<()> {
    let network =
        network(json!({"mlp": {"hidden": [6, 6], "activation": "tanh", "residual": true, "norm": true}}), 5, 3);
    let (weights, input) = (random(network.parameters(), "weights"), random(40, "input"));
    let twin = Twin::of(&network, &weights)?;
    let x = twin.dense(&Candle::from_vec(input.clone(), (8, 5), &HERE)?, "dense1")?.tanh()?;
    let x = (&x + twin.dense(&twin.norm(&x, "block2.norm")?, "block2.dense")?.tanh()?)?;
    twin.agrees(&network, &weights, &input, &twin.dense(&x, "dense3")?)
}

#[test]
fn embeddings_are_candles() -> Result<()> {
    let network = tabular();
    let input = [1.0, 0.3, -0.7, 2.0, 3.0, 0.9, 0.1, 0.0, 1.0, -0.2, 0.5, 1.0];
    let weights = random(network.parameters(), "weights");
    let twin = Twin::of(&network, &weights)?;
    let rows = Candle::from_slice(&input, (3, 4), &HERE)?;
    let vectors = |name: &str, column: usize| {
        let categories = rows.narrow(1, column, 1)?.flatten_all()?.to_dtype(DType::U32)?;
        twin.0[&format!("embedding.{name}")].index_select(&categories, 0)
    };
    let x = Candle::cat(&[vectors("carrier", 0)?, rows.narrow(1, 1, 2)?, vectors("origin", 3)?], 1)?;
    twin.agrees(&network, &weights, &input, &twin.dense(&twin.dense(&x, "dense1")?.tanh()?, "dense2")?)
}

#[test]
fn a_transformer_is_candles() -> Result<()> {
    let spec = json!({"transformer": {"width": 6, "heads": 2, "layers": 2, "feed_forward": 5, "vocabulary": 7}});
    let (network, shape) = (network(spec, 4, 3), (3, 4, 2));
    let (rows, length, _) = shape;
    let input: [u8; 12] = [3, 1, 4, 1, 2, 6, 5, 0, 6, 6, 0, 2];
    // Smaller ones, so that no rectifier is just at its edge.
    let weights: Vec<f32> = random(network.parameters(), "weights").iter().map(|weight| weight * 0.7).collect();
    let twin = Twin::of(&network, &weights)?;
    let tokens = Candle::from_slice(&input, rows * length, &HERE)?;
    let positions =
        Candle::from_vec((0..rows * length).map(|at| (at % length) as u32).collect(), rows * length, &HERE)?;
    let mut x = (twin.0["tokens.token"].index_select(&tokens.to_dtype(DType::U32)?, 0)?
        + twin.0["tokens.position"].index_select(&positions, 0)?)?;
    for number in [1, 2] {
        let block = format!("attention{number}");
        let mixed = twin.attention(&twin.norm(&x, &format!("{block}.norm"))?, &format!("{block}.heads"), shape)?;
        x = (x + mixed)?;
        let block = format!("feed_forward{number}");
        let hidden = twin.dense(&twin.norm(&x, &format!("{block}.norm"))?, &format!("{block}.dense1"))?.relu()?;
        x = (x + twin.dense(&hidden, &format!("{block}.dense2"))?)?;
    }
    let mean = twin.norm(&x, "norm")?.reshape((rows, length, 6))?.mean(1)?;
    let input = input.map(f32::from);
    twin.agrees(&network, &weights, &input, &twin.dense(&mean, "dense1")?)
}

#[test]
fn losses_are_candles() -> Result<()> {
    let outputs = Var::from_vec(random(64, "outputs").iter().map(|value| 3.0 * value).collect(), 64, &HERE)?;
    let values = outputs.to_vec1::<f32>()?;
    let classes: Vec<u32> = (0..64).map(|row| row % 2).collect();
    let numbers = random(64, "numbers");
    let truth = Candle::from_vec(numbers.clone(), 64, &HERE)?;
    let error = (outputs.as_tensor() - &truth)?;
    let small = (error.sqr()? * 0.5)?;
    let large = ((error.abs()? * 0.5)? - 0.125)?;
    let one = Candle::from_vec(classes.iter().map(|class| *class as f32).collect(), 64, &HERE)?;
    let binary = ((outputs.relu()? - (outputs.as_tensor() * one)?)? + (outputs.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let cases = [
        (Objective::SquaredError, Truth::Numbers(&numbers), error.sqr()?),
        (Objective::AbsoluteError, Truth::Numbers(&numbers), error.abs()?),
        (Objective::Huber(0.5), Truth::Numbers(&numbers), error.abs()?.le(0.5)?.where_cond(&small, &large)?),
        (Objective::BinaryCrossEntropy, Truth::Classes(&classes), binary),
    ];
    for (objective, truth, losses) in cases {
        let mut gradient = vec![f32::NAN; 64];
        let sums = objective.losses(&values, truth, &[], 1.0 / 64.0, Some(&mut gradient));
        let mean = losses.mean_all()?;
        assert!((sums.mean() as f32 - mean.to_scalar::<f32>()?).abs() < 1e-6, "{objective:?}");
        let expected = mean.backward()?.get(&outputs).unwrap().to_vec1::<f32>()?;
        for (found, expected) in gradient.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{objective:?}: {found} is not {expected}");
        }
    }
    Ok(())
}
