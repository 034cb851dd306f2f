//! Dropout on a device.

use super::layer::{Carried, Gradients, Kept, Layer, Takes};
use candle_core::{Result, Tensor};

/// Zeros values by chance in training and scales the others up. Which ones comes from the seed, by the same numbers as
/// on the processor: they are drawn there, and cross over as one byte a value.
pub(in crate::train) struct Dropout {
    /// Of 65,536 values, so many are dropped.
    pub(in crate::train) limit: u32,
    pub(in crate::train) scale: f64,
}

impl Layer for Dropout {
    fn forward(&self, _: &[Tensor], input: &Tensor, carried: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let Some(chance) = &mut carried.chance else { return Ok((input.clone(), Kept::default())) };
        let mut marks = vec![0; 2 * input.elem_count()];
        chance.fill_bytes(&mut marks);
        let stays = |mark: &[u8; 2]| u8::from(u32::from(u16::from_le_bytes(*mark)) >= self.limit);
        let stays: Vec<u8> = marks.as_chunks().0.iter().map(stays).collect();
        let factors = Tensor::from_vec(stays, input.shape(), input.device())?.to_dtype(input.dtype())?;
        let factors = factors.affine(self.scale, 0.0)?;
        Ok(((input * &factors)?, Kept::of([factors])))
    }

    fn backward(&self, _: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [factors] = kept.take()?;
        let input = wanted.then(|| gradient.reshape(factors.shape())? * factors).transpose()?;
        Ok(Gradients { weights: Vec::new(), input })
    }

    fn takes(&self, width: usize) -> Takes {
        Takes { output: width, kept: 2 * width, scratch: 2 * width, apart: 0 }
    }
}
