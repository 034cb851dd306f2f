//! Self-attention on a device.

use super::layer::{Carried, Gradients, Kept, Layer, Takes, product, sum_rows};
use candle_core::{D, DType, Result, Tensor};

/// What is added to the shares of what lies beyond a sequence's end, before their powers are taken: those are 0 then.
const NOTHING: f64 = -1e30;

/// Multi-head self-attention: every token of a sequence takes from all of them, each by its share. What lies beyond a
/// sequence's end gives nothing; what it takes nobody reads.
pub(in crate::train) struct Attention {
    pub(in crate::train) length: usize,
    pub(in crate::train) width: usize,
    pub(in crate::train) heads: usize,
}

impl Attention {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    /// What multiplies the queries.
    fn scale(&self) -> f64 {
        1.0 / (self.depth() as f64).sqrt()
    }

    /// The matrices of all heads, of shape `[rows * heads, length, depth]`, from `parts` of them side by side in every
    /// token.
    fn apart(&self, tokens: &Tensor, parts: usize) -> Result<Vec<Tensor>> {
        let matrices = tokens.reshape(((), self.length, parts, self.heads, self.depth()))?.permute((2, 0, 3, 1, 4))?;
        let part = |part| matrices.get(part)?.contiguous()?.reshape(((), self.length, self.depth()));
        (0..parts).map(part).collect()
    }

    /// The way back.
    fn together(&self, parts: &[Tensor]) -> Result<Tensor> {
        let shape = ((), self.heads, self.length, self.depth());
        let parts = parts.iter().map(|part| part.reshape(shape)).collect::<Result<Vec<_>>>()?;
        let width = parts.len() * self.width;
        Tensor::stack(&parts, 0)?.permute((1, 3, 0, 2, 4))?.contiguous()?.reshape(((), width))
    }

    /// By how much each token takes from each, in f32.
    fn shares(&self, query: &Tensor, key: &Tensor, tokens: Option<&Tensor>) -> Result<Tensor> {
        let mut scores = product(query, &key.t()?)?.to_dtype(DType::F32)?;
        if let Some(tokens) = tokens {
            // 1 for a token gives 0, and 0 what leaves nothing.
            let beyond = tokens.affine(-NOTHING, NOTHING)?.reshape(((), 1, 1, self.length))?;
            let all = scores.reshape(((), self.heads, self.length, self.length))?;
            scores = all.broadcast_add(&beyond)?.reshape(((), self.length, self.length))?;
        }
        let powers = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
    }
}

impl Layer for Attention {
    fn forward(&self, weights: &[Tensor], input: &Tensor, carried: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let input = input.reshape(((), self.width))?;
        let mut heads = self.apart(&product(&input, &weights[0])?.broadcast_add(&weights[1])?, 3)?;
        let query = heads[0].affine(self.scale(), 0.0)?;
        let (value, key) = (heads.remove(2), heads.remove(1));
        let shares = self.shares(&query, &key, carried.tokens.as_ref())?.to_dtype(input.dtype())?;
        let mixed = self.together(&[product(&shares, &value)?])?;
        let output = product(&mixed, &weights[2])?.broadcast_add(&weights[3])?;
        let output = output.reshape(((), self.length * self.width))?;
        Ok((output, Kept::of([input, query, key, value, shares, mixed])))
    }

    fn backward(&self, weights: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [input, query, key, value, shares, mixed] = kept.take()?;
        let outer = gradient.reshape(((), self.width))?;
        let (output, output_bias) = (product(&mixed.t()?, &outer)?, sum_rows(&outer)?);
        let outer = self.apart(&product(&outer, &weights[2].t()?)?, 1)?.remove(0);

        let value_gradient = product(&shares.t()?.contiguous()?, &outer)?;
        let (inner, exact) = (product(&outer, &value.t()?)?.to_dtype(DType::F32)?, shares.to_dtype(DType::F32)?);
        // Through the softmax.
        let along = (&inner * &exact)?.sum_keepdim(D::Minus1)?;
        let inner = (inner.broadcast_sub(&along)? * exact)?.to_dtype(input.dtype())?;
        let query_gradient = product(&inner, &key)?.affine(self.scale(), 0.0)?;
        let key_gradient = product(&inner.t()?.contiguous()?, &query)?;
        let sums = self.together(&[query_gradient, key_gradient, value_gradient])?;
        let own = vec![product(&input.t()?, &sums)?, sum_rows(&sums)?, output, output_bias];
        let inner = || product(&sums, &weights[0].t()?)?.reshape(((), self.length * self.width));
        Ok(Gradients { weights: own, input: wanted.then(inner).transpose()? })
    }

    fn takes(&self, width: usize) -> Takes {
        let squares = self.heads * self.length * self.length;
        Takes { output: width, kept: 6 * width + squares, scratch: 8 * width + 8 * squares, apart: 0 }
    }
}
