//! What a layer is on a device.

use candle_core::{DType, Result, Tensor};
use rand::Rng;

/// The same function as that of a layer of the processor's networks, over tensors. Rows are dense, one after the other;
/// a layer that works on a part of a row (a pixel) takes as many parts as there are.
pub(in crate::train) trait Layer: Send + Sync {
    /// Computes the output, and what the backward pass needs.
    fn forward(&self, weights: &[Tensor], input: &Tensor, carried: &mut Carried<'_>) -> Result<(Tensor, Kept)>;

    /// Computes the gradients of the weights, in their order, and of the input if it is `wanted`.
    fn backward(&self, weights: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients>;

    /// Whether its input must come in f32 whatever passes compute in: it is numbers of vectors, not values.
    fn looks_up(&self) -> bool {
        false
    }

    /// What a pass of a row takes, if so many values of a row come in.
    fn takes(&self, width: usize) -> Takes;
}

/// What a forward pass carries from layer to layer besides the values.
#[derive(Default)]
pub(in crate::train) struct Carried<'a> {
    /// In training only.
    pub(super) chance: Option<&'a mut dyn Rng>,
    /// Where rows are sequences: 1 for every token, 0 beyond the sequence's end, in f32, of shape `[rows, length]`.
    pub(super) tokens: Option<Tensor>,
}

/// What a layer keeps from its forward pass for its backward pass.
#[derive(Default)]
pub(in crate::train) struct Kept {
    pub(super) tensors: Vec<Tensor>,
    /// Of the layers that it is made of.
    pub(super) inner: Vec<Kept>,
}

/// What a backward pass gives.
pub(in crate::train) struct Gradients {
    pub(super) weights: Vec<Tensor>,
    pub(super) input: Option<Tensor>,
}

/// Values a row that a pass holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::train) struct Takes {
    /// That leave the layer.
    pub(super) output: usize,
    /// From the forward to the backward pass.
    pub(super) kept: usize,
    /// While it is computed.
    pub(super) scratch: usize,
    /// Beside those of rows, however many rows there are.
    pub(super) apart: usize,
}

impl Kept {
    pub(super) fn of<const N: usize>(tensors: [Tensor; N]) -> Self {
        Self { tensors: tensors.into(), inner: Vec::new() }
    }

    /// What was kept, if it is as much as the layer keeps.
    pub(super) fn take<const N: usize>(self) -> Result<[Tensor; N]> {
        let found = self.tensors.len();
        self.tensors.try_into().map_err(|_| candle_core::Error::Msg(format!("a layer kept {found} tensors, not {N}")))
    }
}

/// A matrix product. On the processor candle has none of bf16 numbers: there it is the product in f32, rounded, which is
/// what a CUDA device computes.
pub(super) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dtype() == DType::BF16 && a.device().is_cpu() {
        return a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?)?.to_dtype(DType::BF16);
    }
    a.matmul(b)
}

/// The sum of the rows of a matrix, in f32.
pub(super) fn sum_rows(matrix: &Tensor) -> Result<Tensor> {
    matrix.to_dtype(DType::F32)?.sum(0)
}
