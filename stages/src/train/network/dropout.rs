//! Dropout.

use super::layer::{Kept, Layer, Pass};
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// Zeros values by chance in training and scales the others up (Srivastava et al., 2014). The share is rounded to a
/// multiple of 1/65536.
pub(super) struct Dropout {
    pub(super) name: String,
    pub(super) width: usize,
    pub(super) share: f64,
}

impl Dropout {
    /// Of 65,536 values, so many are dropped.
    fn limit(&self) -> u32 {
        (self.share * 65_536.0).round() as u32
    }

    fn scale(&self) -> f32 {
        (1.0 / (1.0 - self.share)) as f32
    }
}

impl Layer for Dropout {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.width
    }

    fn outputs(&self) -> usize {
        self.width
    }

    fn uses_chance(&self) -> bool {
        true
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::Dropout { limit: self.limit(), scale: f64::from(self.scale()) }))
    }

    fn forward(&self, _: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, chance: Option<&mut dyn Rng>) {
        let Some(chance) = chance else { return output.copy_from_slice(input) };
        kept.marks.resize(2 * input.len(), 0);
        chance.fill_bytes(&mut kept.marks);
        let (limit, scale) = (self.limit(), self.scale());
        for ((output, input), mark) in output.iter_mut().zip(input).zip(kept.marks.as_chunks::<2>().0) {
            *output = if u32::from(u16::from_le_bytes(*mark)) < limit { 0.0 } else { input * scale };
        }
    }

    fn backward(&self, _: &[f32], pass: Pass<'_>, _: &mut [f32], kept: &mut Kept) {
        let Some(input_gradient) = pass.input_gradient else { return };
        let (limit, scale) = (self.limit(), self.scale());
        let gradients = input_gradient.iter_mut().zip(&*pass.output_gradient);
        for ((to, from), mark) in gradients.zip(kept.marks.as_chunks::<2>().0) {
            *to = if u32::from(u16::from_le_bytes(*mark)) < limit { 0.0 } else { from * scale };
        }
    }
}
