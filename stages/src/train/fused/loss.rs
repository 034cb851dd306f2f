//! The softmax with its cross-entropy.

use super::{look, misfit, values};
use crate::train::loss::{Objective, Truth};
use candle_core::{CpuStorage, CustomOp1, DType, Error, Layout, Result, Shape, Tensor};

/// The mean negative log likelihood of each row's class over a softmax: `logits` of shape `[rows, classes]`, `classes`
/// as `u32` of shape `[rows]`.
///
/// # Errors
/// Other shapes or types, no rows, and a class beyond the last: its row is named.
pub fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    let (rows, width) = logits.dims2()?;
    if classes.dims() != [rows] || rows == 0 || classes.dtype() != DType::U32 {
        return misfit("cross_entropy", &format!("one class (u32) for each of {rows} rows"), classes);
    }
    let classes = classes.to_vec1::<u32>()?;
    if let Some(row) = classes.iter().position(|class| *class as usize >= width) {
        return Err(Error::Msg(format!("row {row} is of class {}, but there are {width}, from 0", classes[row])));
    }
    logits.contiguous()?.apply_op1(Fused { classes })
}

struct Fused {
    classes: Vec<u32>,
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let truth = Truth::Classes(&self.classes);
        let sums = Objective::CrossEntropy.losses(values(logits, layout)?, truth, &[], 1.0, None);
        Ok((CpuStorage::F32(vec![sums.mean() as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let scale = gradient.to_scalar::<f32>()? / self.classes.len() as f32;
        let mut slopes = vec![0.0; logits.elem_count()];
        look(logits, |logits| {
            Objective::CrossEntropy.losses(logits, Truth::Classes(&self.classes), &[], scale, Some(&mut slopes));
        })?;
        Tensor::from_vec(slopes, logits.shape(), logits.device()).map(Some)
    }
}
