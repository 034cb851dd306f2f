//! Activations, fused with the bias that comes before them.

use super::simd::vectorized;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a hidden layer does to its sums. Every one has a derivative that its result tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`
    #[default]
    Relu,
    /// `x`, or `0.01 x` below zero
    LeakyRelu,
    /// `x`, or `exp(x) - 1` below zero (Clevert et al., 2015)
    Elu,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x` as it is.
    Identity,
}

const LEAK: f32 = 0.01;

impl Activation {
    /// Adds the bias to every row of sums and applies the activation.
    pub(in crate::train) fn forward(self, bias: &[f32], output: &mut [f32]) {
        match self {
            Activation::Relu => rows(bias, output, |x| if x <= 0.0 { 0.0 } else { x }),
            Activation::LeakyRelu => rows(bias, output, |x| if x > 0.0 { x } else { LEAK * x }),
            Activation::Elu => rows(bias, output, |x| if x > 0.0 { x } else { x.exp_m1() }),
            Activation::Tanh => rows(bias, output, f32::tanh),
            Activation::Sigmoid => rows(bias, output, sigmoid),
            Activation::Identity => rows(bias, output, |x| x),
        }
    }

    /// Turns the gradient of the results into the gradient of the sums, and adds up the bias's.
    pub(in crate::train) fn backward(self, output: &[f32], gradient: &mut [f32], bias_gradient: &mut [f32]) {
        bias_gradient.fill(0.0);
        match self {
            Activation::Relu => back(output, gradient, bias_gradient, |y, g| if y > 0.0 { g } else { 0.0 }),
            Activation::LeakyRelu => back(output, gradient, bias_gradient, |y, g| if y > 0.0 { g } else { LEAK * g }),
            Activation::Elu => back(output, gradient, bias_gradient, |y, g| if y > 0.0 { g } else { (y + 1.0) * g }),
            Activation::Tanh => back(output, gradient, bias_gradient, |y, g| (1.0 - y * y) * g),
            Activation::Sigmoid => back(output, gradient, bias_gradient, |y, g| y * (1.0 - y) * g),
            Activation::Identity => back(output, gradient, bias_gradient, |_, g| g),
        }
    }
}

/// The logistic function, without overflow on either side.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

#[inline(always)]
fn rows(bias: &[f32], output: &mut [f32], activate: impl Fn(f32) -> f32) {
    vectorized(
        #[inline(always)]
        || {
            for row in output.chunks_exact_mut(bias.len()) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value = activate(*value + bias);
                }
            }
        },
    );
}

#[inline(always)]
fn back(output: &[f32], gradient: &mut [f32], bias: &mut [f32], through: impl Fn(f32, f32) -> f32) {
    let width = bias.len();
    vectorized(
        #[inline(always)]
        || {
            for (gradient, output) in gradient.chunks_exact_mut(width).zip(output.chunks_exact(width)) {
                for ((gradient, output), bias) in gradient.iter_mut().zip(output).zip(bias.iter_mut()) {
                    *gradient = through(*output, *gradient);
                    *bias += *gradient;
                }
            }
        },
    );
}
