//! Candle modules under `Trainer`: the same networks of candle-nn's layers and of the fused ones, in turns.
//!
//! `cargo bench --bench modules`, or, for one training and its figures as JSON: `... -- mlp|cnn candle|fused EPOCHS`
//!
//! All that the networks share (the loop, the optimiser, the shards) is ours in both.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says what it measured, or fails")]

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::{Conv2dConfig, VarBuilder, loss};
use rand::RngExt;
use ropeway::stage::{Seed, Threads};
use ropeway::stages::train::fused::{self, max_pool2d};
use ropeway::stages::train::{Activation, Batch, Examples, Optimizer, Positive, Share, Surroundings, Trainer};
use serde_json::json;
use std::time::Instant;

/// As in the program `ropeway`: a step takes and returns much memory.
#[global_allocator]
static GLOBAL: ropeway::Allocator = ropeway::Allocator;

const ROWS: usize = 6400;
const ROUNDS: usize = 5;
const SIDE: usize = 28;
const CLASSES: usize = 10;

type Layers = Box<dyn Module>;

/// A network, its layers' kind, and its optimiser's.
#[derive(Clone, Copy)]
enum Net {
    Mlp,
    Cnn,
}

impl Net {
    fn batch(self) -> usize {
        match self {
            Net::Mlp => 128,
            Net::Cnn => 64,
        }
    }

    fn optimizer(self) -> Optimizer {
        let positive = |value| Positive::try_from(value).unwrap();
        match self {
            Net::Mlp => Optimizer::adam(positive(1e-3)),
            Net::Cnn => Optimizer::sgd(positive(0.01), Share::try_from(0.9).unwrap()),
        }
    }

    fn fused(self, vb: &VarBuilder<'_>) -> Result<Layers> {
        Ok(match self {
            Net::Mlp => {
                let dense = |name, inputs, outputs, activation| fused::linear(inputs, outputs, activation, vb.pp(name));
                let first = dense("dense1", SIDE * SIDE, 256, Activation::Relu)?;
                let second = dense("dense2", 256, 128, Activation::Relu)?;
                let third = dense("dense3", 128, CLASSES, Activation::Identity)?;
                Box::new(move |x: &Tensor| x.apply(&first)?.apply(&second)?.apply(&third))
            }
            Net::Cnn => {
                let first = fused::conv2d(1, 16, 3, Activation::Relu, vb.pp("conv1"))?;
                let second = fused::conv2d(16, 32, 3, Activation::Relu, vb.pp("conv2"))?;
                let inputs = SIDE * SIDE / 16 * 32;
                let dense = fused::linear(inputs, CLASSES, Activation::Identity, vb.pp("dense1"))?;
                Box::new(move |x: &Tensor| {
                    let x = max_pool2d(&x.reshape(((), SIDE, SIDE, 1))?.apply(&first)?, 2)?;
                    max_pool2d(&x.apply(&second)?, 2)?.flatten_from(1)?.apply(&dense)
                })
            }
        })
    }

    fn candle(self, vb: &VarBuilder<'_>) -> Result<Layers> {
        Ok(match self {
            Net::Mlp => {
                let dense = |name, inputs, outputs| candle_nn::linear(inputs, outputs, vb.pp(name));
                let first = dense("dense1", SIDE * SIDE, 256)?;
                let second = dense("dense2", 256, 128)?;
                let third = dense("dense3", 128, CLASSES)?;
                Box::new(move |x: &Tensor| x.apply(&first)?.relu()?.apply(&second)?.relu()?.apply(&third))
            }
            Net::Cnn => {
                let same = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
                let first = candle_nn::conv2d(1, 16, 3, same, vb.pp("conv1"))?;
                let second = candle_nn::conv2d(16, 32, 3, same, vb.pp("conv2"))?;
                let dense = candle_nn::linear(SIDE * SIDE / 16 * 32, CLASSES, vb.pp("dense1"))?;
                Box::new(move |x: &Tensor| {
                    let x = x.reshape(((), 1, SIDE, SIDE))?.apply(&first)?.relu()?.max_pool2d(2)?;
                    x.apply(&second)?.relu()?.max_pool2d(2)?.flatten_from(1)?.apply(&dense)
                })
            }
        })
    }

    /// Seconds of a training with so many epochs.
    fn train(self, fused: bool, rows: &Examples, epochs: usize) -> f64 {
        let build = move |vb: VarBuilder<'_>| if fused { self.fused(&vb) } else { self.candle(&vb) };
        let loss = move |net: &Layers, batch: &Batch| {
            let logits = net.forward(&batch.features)?;
            if fused {
                fused::cross_entropy(&logits, &batch.target)
            } else {
                loss::cross_entropy(&logits, &batch.target)
            }
        };
        let trainer = Trainer::new(build, loss).optimizer(self.optimizer()).batch(self.batch()).epochs(epochs);
        let around = Surroundings { threads: Threads(2), ..Surroundings::default() };
        let begun = Instant::now();
        trainer.fit(rows, None, &Seed::new(7, "fit"), &around).unwrap();
        begun.elapsed().as_secs_f64()
    }
}

fn examples() -> Examples {
    let mut rng = Seed::new(7, "modules").rng("rows");
    let pixels: Vec<f32> = (0..ROWS * SIDE * SIDE).map(|_| rng.random()).collect();
    let classes: Vec<u32> = (0..ROWS).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    Examples {
        features: Tensor::from_vec(pixels, (ROWS, SIDE * SIDE), &Device::Cpu).unwrap(),
        target: Tensor::new(classes, &Device::Cpu).unwrap(),
    }
}

fn main() {
    let nets = [("mlp", Net::Mlp), ("cnn", Net::Cnn)];
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rows = examples();
    if let [net, layers, epochs] = &words[..] {
        let net = nets.iter().find(|(name, _)| name == net).unwrap().1;
        let epochs = epochs.parse().unwrap();
        let seconds = net.train(layers == "fused", &rows, epochs);
        return println!("{}", json!({"seconds": seconds, "samples": ROWS * epochs}));
    }
    for (name, net) in nets {
        let (mut candle, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            candle.push(net.train(false, &rows, 1));
            ours.push(net.train(true, &rows, 1));
        }
        let mut ratios: Vec<f64> = candle.iter().zip(&ours).map(|(candle, ours)| candle / ours).collect();
        let [candle, ours, ratio] = [&mut candle, &mut ours, &mut ratios].map(|values| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        });
        let rate = |seconds: f64| ROWS as f64 / seconds;
        println!("{name}: candle-nn {:.0} samples/s, fused {:.0}: {ratio:.1} times", rate(candle), rate(ours));
    }
}
