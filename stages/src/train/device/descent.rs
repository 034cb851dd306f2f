//! One step down over tensors: clips and updates the weights, which stay where they are.

use crate::train::optimizer::{Rule, Update};
use candle_core::{Result, Tensor};

/// Values that are summed at once, before the sums are.
const ROW: usize = 1024;

/// The sum of a flat tensor, of shape `[1]`: in rows, so that a device has work for more than one of its parts.
pub(super) fn sum(values: &Tensor) -> Result<Tensor> {
    let (count, whole) = (values.elem_count(), values.elem_count() / ROW * ROW);
    let mut parts = Vec::new();
    if whole > 0 {
        parts.push(values.narrow(0, 0, whole)?.reshape(((), ROW))?.sum(1)?.sum_keepdim(0)?);
    }
    if whole < count {
        parts.push(values.narrow(0, whole, count - whole)?.sum_keepdim(0)?);
    }
    Tensor::cat(&parts, 0)?.sum_keepdim(0)
}

/// The gradient's norm, of shape `[1]`.
pub(super) fn norm(gradient: &Tensor) -> Result<Tensor> {
    sum(&gradient.sqr()?)?.sqrt()
}

/// The gradient, scaled down to a norm of `clip` if it is longer.
pub(super) fn clipped(gradient: &Tensor, norm: &Tensor, clip: f64) -> Result<Tensor> {
    // Nothing is read back for it: a norm of 0 gives an infinite quotient, and the factor 1.
    let factor = norm.recip()?.affine(clip, 0.0)?.minimum(&norm.ones_like()?)?;
    gradient.broadcast_mul(&factor)
}

impl Update {
    /// The weights and moments after the step.
    pub(super) fn over(
        &self,
        weights: &Tensor,
        gradient: &Tensor,
        moments: &[Tensor],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let times = |tensor: &Tensor, factor: f32| tensor.affine(f64::from(factor), 0.0);
        let decayed = |decay: f32| match decay {
            0.0 => Ok(gradient.clone()),
            decay => gradient + times(weights, decay)?,
        };
        match (self.rule, moments) {
            (Rule::Sgd { rate, decay, .. }, []) => Ok(((weights - times(&decayed(decay)?, rate)?)?, Vec::new())),
            (Rule::Sgd { rate, momentum, nesterov, decay }, [velocity, ..]) => {
                let gradient = decayed(decay)?;
                let velocity = (times(velocity, momentum)? + &gradient)?;
                let ahead = match nesterov {
                    true => (gradient + times(&velocity, momentum)?)?,
                    false => velocity.clone(),
                };
                Ok(((weights - times(&ahead, rate)?)?, vec![velocity]))
            }
            (Rule::Adam { beta1, beta2, rate, root, eps, keep }, [mean, square, ..]) => {
                let mean = (times(mean, beta1)? + times(gradient, 1.0 - beta1)?)?;
                let square = (times(square, beta2)? + times(&gradient.sqr()?, 1.0 - beta2)?)?;
                let below = square.sqrt()?.affine(f64::from(root), f64::from(eps))?;
                let weights = (times(weights, keep)? - (times(&mean, rate)? / below)?)?;
                Ok((weights, vec![mean, square]))
            }
            (Rule::Adam { .. }, _) => Err(candle_core::Error::Msg("Adam keeps two moments".to_owned())),
        }
    }
}
