//! Fully connected layers on a device.

use super::layer::{Carried, Gradients, Kept, Layer, Takes, product, sum_rows};
use crate::train::Activation;
use candle_core::{Result, Tensor};

/// `activation(input · weight + bias)`
pub(in crate::train) struct Dense {
    pub(in crate::train) inputs: usize,
    pub(in crate::train) outputs: usize,
    pub(in crate::train) activation: Activation,
}

impl Layer for Dense {
    fn forward(&self, weights: &[Tensor], input: &Tensor, _: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let input = input.reshape(((), self.inputs))?;
        let output = self.activation.activate(&product(&input, &weights[0])?, &weights[1])?;
        Ok((output.clone(), Kept::of([input, output])))
    }

    fn backward(&self, weights: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [input, output] = kept.take()?;
        let sums = self.activation.slope(&output, &gradient.reshape(((), self.outputs))?)?;
        let own = vec![product(&input.t()?, &sums)?, sum_rows(&sums)?];
        let input = wanted.then(|| product(&sums, &weights[0].t()?)).transpose()?;
        Ok(Gradients { weights: own, input })
    }

    fn takes(&self, width: usize) -> Takes {
        let output = width / self.inputs * self.outputs;
        Takes { output, kept: output, scratch: 3 * output + width, apart: 0 }
    }
}
