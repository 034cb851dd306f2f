//! Embeddings on a device: vectors that are looked up, for categories and for tokens.
//!
//! The gradient of a table is a product with the table of who looked up what, in parts: sums with a fixed order, which a
//! scatter has not.

use super::layer::{Carried, Gradients, Kept, Layer, Takes, product, sum_rows};
use crate::train::network::Field;
use candle_core::{D, DType, Result, Tensor};

/// Values of a table of who looked up what that are there at once.
const LOOKUPS: usize = 1 << 22;

/// Replaces every category of a row by its vector; numbers stay.
pub(in crate::train) struct Embedding(pub(in crate::train) Vec<Field>);

/// The vectors of a sequence's tokens, each with that of its position added.
pub(in crate::train) struct Tokens {
    pub(in crate::train) vocabulary: usize,
    pub(in crate::train) length: usize,
    pub(in crate::train) width: usize,
}

/// The mean of a sequence's vectors; zeros for an empty one.
pub(in crate::train) struct Mean {
    pub(in crate::train) length: usize,
    pub(in crate::train) width: usize,
}

/// The gradient of `count` vectors, from the numbers of those that were looked up and the gradients of what they gave.
fn looked_up(numbers: &Tensor, count: usize, outer: &Tensor) -> Result<Tensor> {
    let (outer, all) = (outer.to_dtype(DType::F32)?, Tensor::arange(0u32, count as u32, numbers.device())?);
    let (all, rows, step) = (all.unsqueeze(0)?, numbers.elem_count(), (LOOKUPS / count).max(1));
    let mut sum = Tensor::zeros((count, outer.dim(1)?), DType::F32, numbers.device())?;
    for start in (0..rows).step_by(step) {
        let part = step.min(rows - start);
        let table = numbers.narrow(0, start, part)?.unsqueeze(1)?.broadcast_eq(&all)?.to_dtype(DType::F32)?;
        sum = (sum + product(&table.t()?, &outer.narrow(0, start, part)?)?)?;
    }
    Ok(sum)
}

impl Layer for Embedding {
    fn forward(&self, weights: &[Tensor], input: &Tensor, _: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let dtype = weights.first().map_or(input.dtype(), Tensor::dtype);
        let (mut from, mut parts, mut kept) = (0, Vec::new(), Vec::new());
        for field in &self.0 {
            let values = input.narrow(1, from, field.width)?;
            from += field.width;
            let Some(table) = &field.table else {
                parts.push(values.to_dtype(dtype)?);
                continue;
            };
            // A number that is none is the slot of what was not seen.
            let values = values.flatten_all()?;
            let known = (values.ge(0f32)? * values.lt(table.slots as f32)?)?;
            let slots = known.where_cond(&values, &values.zeros_like()?)?.to_dtype(DType::U32)?;
            parts.push(weights[kept.len()].index_select(&slots, 0)?);
            kept.push(slots);
        }
        Ok((Tensor::cat(&parts, 1)?, Kept { tensors: kept, inner: Vec::new() }))
    }

    fn backward(&self, _: &[Tensor], kept: Kept, gradient: &Tensor, _: bool) -> Result<Gradients> {
        let (mut from, mut own) = (0, Vec::new());
        for field in &self.0 {
            if let Some((table, slots)) = field.table.as_ref().zip(kept.tensors.get(own.len())) {
                own.push(looked_up(slots, table.slots, &gradient.narrow(1, from, table.width)?)?);
            }
            from += field.outputs();
        }
        // It is always the first layer: nobody asks for more.
        Ok(Gradients { weights: own, input: None })
    }

    fn looks_up(&self) -> bool {
        true
    }

    fn takes(&self, width: usize) -> Takes {
        let output = self.0.iter().map(Field::outputs).sum();
        Takes { output, kept: output + 2 * self.0.len(), scratch: 3 * output + 4 * width, apart: 2 * LOOKUPS }
    }
}

impl Layer for Tokens {
    fn forward(&self, weights: &[Tensor], input: &Tensor, carried: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let there = input.ge(0f32)?;
        let numbers = there.where_cond(input, &input.zeros_like()?)?.minimum((self.vocabulary - 1) as f32)?;
        let numbers = numbers.flatten_all()?.to_dtype(DType::U32)?;
        let tokens = there.to_dtype(DType::F32)?;
        let vectors = weights[0].index_select(&numbers, 0)?.reshape(((), self.length, self.width))?;
        let marks = tokens.to_dtype(vectors.dtype())?.unsqueeze(2)?;
        let output = vectors.broadcast_add(&weights[1])?.broadcast_mul(&marks)?;
        carried.tokens = Some(tokens);
        Ok((output.reshape(((), self.length * self.width))?, Kept::of([numbers, marks])))
    }

    fn backward(&self, _: &[Tensor], kept: Kept, gradient: &Tensor, _: bool) -> Result<Gradients> {
        let [numbers, marks] = kept.take()?;
        let outer = gradient.reshape(((), self.length, self.width))?.broadcast_mul(&marks)?;
        let tokens = looked_up(&numbers, self.vocabulary, &outer.reshape(((), self.width))?)?;
        let positions = sum_rows(&outer.reshape(((), self.length * self.width))?)?;
        // It is always the first layer: nobody asks for more.
        Ok(Gradients { weights: vec![tokens, positions], input: None })
    }

    fn looks_up(&self) -> bool {
        true
    }

    fn takes(&self, width: usize) -> Takes {
        let output = self.length * self.width;
        Takes { output, kept: output + 4 * width, scratch: 4 * output + 4 * width, apart: 2 * LOOKUPS }
    }
}

impl Layer for Mean {
    fn forward(&self, _: &[Tensor], input: &Tensor, carried: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let vectors = input.reshape(((), self.length, self.width))?;
        let Some(tokens) = &carried.tokens else {
            return Err(candle_core::Error::Msg("there is no mean of what is no sequence".to_owned()));
        };
        let shares = tokens.broadcast_div(&tokens.sum_keepdim(D::Minus1)?.maximum(1f32)?)?.unsqueeze(2)?;
        let output = vectors.to_dtype(DType::F32)?.broadcast_mul(&shares)?.sum(1)?;
        Ok((output.to_dtype(input.dtype())?, Kept::of([shares])))
    }

    fn backward(&self, _: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [shares] = kept.take()?;
        let inner = || {
            let outer = gradient.reshape(((), 1, self.width))?;
            outer.broadcast_mul(&shares.to_dtype(outer.dtype())?)?.reshape(((), self.length * self.width))
        };
        Ok(Gradients { weights: Vec::new(), input: wanted.then(inner).transpose()? })
    }

    fn takes(&self, width: usize) -> Takes {
        Takes { output: self.width, kept: self.width + 2 * self.length, scratch: 4 * width, apart: 0 }
    }
}
