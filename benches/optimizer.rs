//! A step of each optimiser against a memory copy of as many bytes: a step that reads gradient, weight and moments
//! once, and writes weight and moments once, can't be faster than the copy.
//!
//! `cargo bench --bench optimizer`; needs 400 MB.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says what it measured, or fails")]

use ropeway::stages::train::{Optimizer, Positive, Share};
use std::hint::black_box;
use std::time::Instant;

/// More than any cache holds.
const WEIGHTS: usize = 16 << 20;
const ROUNDS: usize = 9;

fn seconds(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let rate = Positive::try_from(1e-3).unwrap();
    let optimizers = [
        ("sgd", Optimizer::sgd(rate, Share::default())),
        ("sgd, momentum", Optimizer::sgd(rate, Share::try_from(0.9).unwrap())),
        ("adam", Optimizer::adam(rate)),
        ("adamw", Optimizer::adamw(rate)),
    ];
    let gradients = vec![1e-3f32; WEIGHTS];
    let mut weights = vec![0.5f32; WEIGHTS];
    let (mut first, mut second) = (vec![0.0f32; WEIGHTS], vec![0.0f32; WEIGHTS]);
    for (name, optimizer) in optimizers {
        // Reads the gradient, and reads and writes the weight and each moment.
        let numbers = 1 + 2 * (1 + optimizer.moments());
        let bytes = (numbers * WEIGHTS * size_of::<f32>()) as f64;
        let (mut ours, mut ratios) = (Vec::new(), Vec::new());
        for number in 1..=ROUNDS as u64 {
            let mut moments = [&mut first[..], &mut second[..]];
            let moments = &mut moments[..optimizer.moments()];
            let step =
                seconds(|| optimizer.step(number, 1e-3, 1.0, black_box(&mut weights), &gradients, moments).unwrap());
            // A copy reads and writes: both count. Of memory as far apart as that of the step.
            let copy = seconds(|| black_box(&mut second).copy_from_slice(black_box(&first)));
            ours.push(bytes / step);
            ratios.push(step / (copy * bytes / (2 * WEIGHTS * size_of::<f32>()) as f64));
        }
        let (ours, ratio) = (median(ours) / 1e9, median(ratios));
        println!("{name:<14} {ours:5.1} GB/s; a copy of as many bytes would take 1/{ratio:.2} of the time");
    }
}
