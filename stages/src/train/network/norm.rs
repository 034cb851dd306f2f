//! Layer normalisation.

use super::layer::{Kept, Layer, Parameter, Pass, Start};
use super::simd::vectorized;
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// What keeps the quotient finite where all values are equal.
const EPSILON: f32 = 1e-5;

/// Lanes of a sum: fixed, so that wider registers do not change its order.
const LANES: usize = 16;

/// Brings the values of every row, pixel or token to mean 0 and variance 1, then scales and shifts each by weights of
/// its own (Ba, Kiros and Hinton, "Layer Normalization", 2016).
///
/// There is no batch normalisation: its means run over the batch, so a shard's gradient would depend on the other
/// shards' rows, and a prediction on its company.
pub(super) struct LayerNorm {
    pub(super) name: String,
    pub(super) width: usize,
}

#[inline(always)]
fn sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (index, value) in values.enumerate() {
        lanes[index % LANES] += value;
    }
    lanes.iter().sum()
}

impl LayerNorm {
    #[inline(always)]
    fn normalise(&self, weights: &[f32], input: &[f32], output: &mut [f32], moments: &mut [f32]) {
        let (scale, shift) = weights.split_at(self.width);
        let rows = input.chunks_exact(self.width).zip(output.chunks_exact_mut(self.width));
        for ((input, output), moments) in rows.zip(moments.chunks_exact_mut(2)) {
            let mean = sum(input.iter().copied()) / self.width as f32;
            let variance = sum(input.iter().map(|x| (x - mean) * (x - mean))) / self.width as f32;
            let inverse = 1.0 / (variance + EPSILON).sqrt();
            moments.copy_from_slice(&[mean, inverse]);
            for (((output, input), scale), shift) in output.iter_mut().zip(input).zip(scale).zip(shift) {
                *output = (input - mean) * inverse * scale + shift;
            }
        }
    }

    #[inline(always)]
    fn gradients(&self, scale: &[f32], pass: &mut Pass<'_>, gradient: &mut [f32], moments: &[f32]) {
        let width = self.width;
        let (scale_gradient, shift_gradient) = gradient.split_at_mut(width);
        for (row, moments) in moments.chunks_exact(2).enumerate() {
            let place = row * width..(row + 1) * width;
            let (input, outer) = (&pass.input[place.clone()], &pass.output_gradient[place.clone()]);
            let (mean, inverse) = (moments[0], moments[1]);
            let gradients = scale_gradient.iter_mut().zip(shift_gradient.iter_mut());
            for (((scale, shift), input), outer) in gradients.zip(input).zip(outer) {
                *scale += outer * (input - mean) * inverse;
                *shift += outer;
            }
            if let Some(inner) = &mut pass.input_gradient {
                let terms = || input.iter().zip(outer).zip(scale);
                let plain = sum(terms().map(|((_, outer), scale)| outer * scale)) / width as f32;
                let along =
                    sum(terms().map(|((input, outer), scale)| outer * scale * (input - mean) * inverse)) / width as f32;
                for (inner, ((input, outer), scale)) in inner[place].iter_mut().zip(terms()) {
                    *inner = inverse * (outer * scale - plain - (input - mean) * inverse * along);
                }
            }
        }
    }
}

impl Layer for LayerNorm {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.width
    }

    fn outputs(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![
            Parameter { name: "scale".into(), shape: vec![self.width], start: Start::One },
            Parameter { name: "shift".into(), shape: vec![self.width], start: Start::Zero },
        ]
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::LayerNorm { width: self.width, epsilon: f64::from(EPSILON) }))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, _: Option<&mut dyn Rng>) {
        kept.columns.resize(input.len() / self.width * 2, 0.0);
        vectorized(
            #[inline(always)]
            || self.normalise(weights, input, output, &mut kept.columns),
        );
    }

    fn backward(&self, weights: &[f32], mut pass: Pass<'_>, gradient: &mut [f32], kept: &mut Kept) {
        gradient.fill(0.0);
        vectorized(
            #[inline(always)]
            || self.gradients(&weights[..self.width], &mut pass, gradient, &kept.columns),
        );
    }
}
