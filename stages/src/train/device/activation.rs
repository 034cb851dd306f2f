//! Activations over tensors.

use crate::train::Activation;
use candle_core::{Result, Tensor};

const LEAK: f64 = 0.01;

/// The logistic function: `exp` may be infinite, whose inverse is 0.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.neg()?.exp()?.affine(1.0, 1.0)?.recip()
}

impl Activation {
    /// Adds the bias to every row of sums and applies the activation.
    pub(super) fn activate(self, sums: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let x = sums.broadcast_add(bias)?;
        match self {
            Activation::Relu => x.relu(),
            Activation::LeakyRelu => x.maximum(&x.affine(LEAK, 0.0)?),
            Activation::Elu => x.elu(1.0),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => sigmoid(&x),
            Activation::Identity => Ok(x),
        }
    }

    /// The gradient of the sums, from that of the results.
    pub(super) fn slope(self, output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let below = |slope: &Tensor| output.gt(0f32)?.where_cond(gradient, slope);
        match self {
            Activation::Relu => below(&gradient.zeros_like()?),
            Activation::LeakyRelu => below(&gradient.affine(LEAK, 0.0)?),
            Activation::Elu => below(&(output.affine(1.0, 1.0)? * gradient)?),
            Activation::Tanh => output.sqr()?.affine(-1.0, 1.0)? * gradient,
            Activation::Sigmoid => (output * output.affine(-1.0, 1.0)?)? * gradient,
            Activation::Identity => Ok(gradient.clone()),
        }
    }
}
