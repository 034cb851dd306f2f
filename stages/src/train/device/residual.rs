//! Residual blocks on a device.

use super::layer::{Carried, Gradients, Kept, Layer, Takes};
use super::network::Network;
use candle_core::{Result, Tensor};

/// Adds to its input what some layers make of it.
pub(in crate::train) struct Residual {
    pub(in crate::train) branch: Network,
}

impl Layer for Residual {
    fn forward(&self, weights: &[Tensor], input: &Tensor, carried: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let (added, inner) = self.branch.forward(weights, input, carried)?;
        let output = (input + added.reshape(input.shape())?)?;
        Ok((output, Kept { tensors: Vec::new(), inner }))
    }

    fn backward(&self, weights: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let Gradients { weights, input } = self.branch.backward(weights, kept.inner, gradient.clone(), wanted)?;
        let input = input.map(|inner| gradient + inner.reshape(gradient.shape())?).transpose()?;
        Ok(Gradients { weights, input })
    }

    fn takes(&self, width: usize) -> Takes {
        let inner = self.branch.takes(width);
        Takes { output: width, kept: inner.kept + width, scratch: inner.scratch + 2 * width, apart: inner.apart }
    }
}
