//! Losses over tensors.

use super::activation::sigmoid;
use crate::train::loss::Objective;
use candle_core::{D, DType, Result, Tensor};

/// What rows lost.
pub(super) struct Losses {
    /// A loss a row, before weights.
    pub(super) losses: Tensor,
    /// 1 for a row whose class was predicted, else 0.
    pub(super) correct: Tensor,
    /// The gradient of the sum of the losses.
    pub(super) slope: Tensor,
}

impl Objective {
    /// The losses of rows of outputs, of shape `[rows, outputs]`; `truth` is a class or a number a row. All in f32.
    pub(super) fn over(self, outputs: &Tensor, truth: &Tensor) -> Result<Losses> {
        let truth = truth.unsqueeze(1)?;
        let (losses, correct, slope) = match self {
            Objective::CrossEntropy => cross_entropy(outputs, &truth)?,
            Objective::BinaryCrossEntropy => binary(outputs, &truth)?,
            Objective::SquaredError => {
                let error = (outputs - truth)?;
                (error.sqr()?, error.zeros_like()?, error.affine(2.0, 0.0)?)
            }
            Objective::AbsoluteError => {
                let error = (outputs - truth)?;
                (error.abs()?, error.zeros_like()?, error.sign()?)
            }
            Objective::Huber(delta) => {
                let error = (outputs - truth)?;
                let (size, delta) = (error.abs()?, f64::from(delta));
                let beyond = size.affine(delta, -0.5 * delta * delta)?;
                let losses = size.gt(delta as f32)?.where_cond(&beyond, &error.sqr()?.affine(0.5, 0.0)?)?;
                (losses, error.zeros_like()?, error.clamp(-delta as f32, delta as f32)?)
            }
        };
        Ok(Losses { losses: losses.flatten_all()?, correct: correct.flatten_all()?, slope })
    }
}

fn cross_entropy(outputs: &Tensor, truth: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let classes = outputs.dim(1)?;
    let numbers = Tensor::arange(0f32, classes as f32, outputs.device())?.unsqueeze(0)?;
    let own = numbers.broadcast_eq(truth)?;
    let largest = outputs.max_keepdim(D::Minus1)?;
    let (none, powers) = (outputs.zeros_like()?, outputs.broadcast_sub(&largest)?.exp()?);
    let total = powers.sum_keepdim(D::Minus1)?;
    let at = own.where_cond(outputs, &none)?.sum_keepdim(D::Minus1)?;
    let losses = (total.log()? - (at - &largest)?)?;
    let slope = (powers.broadcast_div(&total)? - own.to_dtype(DType::F32)?)?;
    // The first of equals counts as predicted, as on the processor.
    let beyond = Tensor::full(classes as f32, outputs.shape(), outputs.device())?;
    let numbers = numbers.broadcast_as(outputs.shape())?;
    let first = outputs.broadcast_eq(&largest)?.where_cond(&numbers, &beyond)?.min_keepdim(D::Minus1)?;
    Ok((losses, first.eq(truth)?.to_dtype(DType::F32)?, slope))
}

fn binary(x: &Tensor, truth: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    // max(x, 0) - x y + log(1 + exp(-|x|)): no overflow on either side.
    let rest = x.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
    let losses = ((x.relu()? - (x * truth)?)? + rest)?;
    let correct = x.ge(0f32)?.to_dtype(DType::F32)?.eq(truth)?.to_dtype(DType::F32)?;
    Ok((losses, correct, (sigmoid(x)? - truth)?))
}
