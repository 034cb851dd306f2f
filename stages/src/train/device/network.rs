//! Networks on a device: layers, one after the other.

use super::layer::{Carried, Gradients, Kept, Layer, Takes};
use candle_core::{DType, Result, Tensor};

/// Layers, and how many weight tensors each has.
pub(in crate::train) struct Network(Vec<(Box<dyn Layer>, usize)>);

impl Network {
    pub(in crate::train) fn new(layers: Vec<(Box<dyn Layer>, usize)>) -> Self {
        Self(layers)
    }

    /// Runs rows through the layers. The weight tensors are those of all layers, in order.
    pub(super) fn forward(
        &self,
        mut weights: &[Tensor],
        input: &Tensor,
        carried: &mut Carried<'_>,
    ) -> Result<(Tensor, Vec<Kept>)> {
        let (mut values, mut all) = (input.clone(), Vec::with_capacity(self.0.len()));
        for (layer, count) in &self.0 {
            let (own, rest) = weights.split_at(*count);
            let (output, kept) = layer.forward(own, &values, carried)?;
            (values, weights) = (output, rest);
            all.push(kept);
        }
        Ok((values, all))
    }

    /// The gradients of all weights, in order, and of the input if it is `wanted`.
    pub(super) fn backward(
        &self,
        mut weights: &[Tensor],
        kept: Vec<Kept>,
        gradient: Tensor,
        wanted: bool,
    ) -> Result<Gradients> {
        let (mut gradient, mut all) = (Some(gradient), Vec::with_capacity(weights.len()));
        for ((layer, count), kept) in self.0.iter().zip(kept).rev() {
            let Some(outer) = gradient.take() else { break };
            let (before, own) = weights.split_at(weights.len() - count);
            // Below the first layer with weights nothing is asked for, unless the input's gradient is.
            let found = layer.backward(own, kept, &outer, wanted || !before.is_empty())?;
            all.extend(found.weights.into_iter().rev());
            (gradient, weights) = (found.input, before);
        }
        all.reverse();
        Ok(Gradients { weights: all, input: gradient })
    }

    /// What its input comes in, where passes compute in `dtype`.
    pub(super) fn reads(&self, dtype: DType) -> DType {
        match self.0.first() {
            Some((first, _)) if first.looks_up() => DType::F32,
            _ => dtype,
        }
    }

    /// What a pass of a row of so many values takes.
    pub(super) fn takes(&self, width: usize) -> Takes {
        self.0.iter().fold(Takes { output: width, ..Takes::default() }, |sum, (layer, _)| {
            let own = layer.takes(sum.output);
            Takes {
                output: own.output,
                kept: sum.kept + own.kept,
                scratch: sum.scratch.max(own.scratch),
                apart: sum.apart.max(own.apart),
            }
        })
    }
}
