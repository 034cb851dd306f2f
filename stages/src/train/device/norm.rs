//! Layer normalisation on a device.

use super::layer::{Carried, Gradients, Kept, Layer, Takes, sum_rows};
use candle_core::{D, DType, Result, Tensor};

/// Brings the values of every row or pixel to mean 0 and variance 1, then scales and shifts each. It computes in f32,
/// whatever comes in.
pub(in crate::train) struct LayerNorm {
    pub(in crate::train) width: usize,
    /// What keeps the quotient finite where all values are equal.
    pub(in crate::train) epsilon: f64,
}

impl Layer for LayerNorm {
    fn forward(&self, weights: &[Tensor], input: &Tensor, _: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let values = input.reshape(((), self.width))?.to_dtype(DType::F32)?;
        let centred = values.broadcast_sub(&values.mean_keepdim(D::Minus1)?)?;
        let inverse = centred.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, self.epsilon)?.sqrt()?.recip()?;
        let even = centred.broadcast_mul(&inverse)?;
        let scaled = even.broadcast_mul(&weights[0].to_dtype(DType::F32)?)?;
        let output = scaled.broadcast_add(&weights[1].to_dtype(DType::F32)?)?.to_dtype(input.dtype())?;
        Ok((output, Kept::of([even, inverse])))
    }

    fn backward(&self, weights: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [even, inverse] = kept.take()?;
        let outer = gradient.reshape(((), self.width))?.to_dtype(DType::F32)?;
        let own = vec![sum_rows(&(&outer * &even)?)?, sum_rows(&outer)?];
        let inner = || {
            let scaled = outer.broadcast_mul(&weights[0].to_dtype(DType::F32)?)?;
            let along = (&scaled * &even)?.mean_keepdim(D::Minus1)?;
            let rest = scaled.broadcast_sub(&scaled.mean_keepdim(D::Minus1)?)?;
            (rest - even.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?.to_dtype(gradient.dtype())
        };
        Ok(Gradients { weights: own, input: wanted.then(inner).transpose()? })
    }

    fn takes(&self, width: usize) -> Takes {
        // In f32, which may be twice as much as the values are else.
        Takes { output: width, kept: 2 * width, scratch: 8 * width, apart: 0 }
    }
}
