//! Layers for candle modules whose passes are ours: the arithmetic of `train`'s own networks as candle operations.
//!
//! Each layer is one operation, forward and backward: a product with its bias and activation, a convolution through a
//! matrix of its patches, a softmax with its cross-entropy. Work is cut into parts that depend on the shapes only, and
//! goes to rayon's threads, as candle's own does: the bits are the same on any number of them.
//!
//! Weights lie as in the models of `train` (`[inputs, outputs]`, `[height, width, inputs, outputs]`), images have their
//! channels last, and everything is `f32` on the processor.
//!
//! ```
//! use candle_core::{Device, Module, Tensor};
//! use candle_nn::VarBuilder;
//! use ropeway_stages::train::{Activation, fused};
//!
//! /// For images of 28 x 28 pixels, of one channel.
//! struct Net {
//!     conv1: fused::Conv2d,
//!     conv2: fused::Conv2d,
//!     dense: fused::Linear,
//! }
//!
//! impl Net {
//!     fn new(vb: VarBuilder) -> candle_core::Result<Self> {
//!         Ok(Self {
//!             conv1: fused::conv2d(1, 16, 3, Activation::Relu, vb.pp("conv1"))?,
//!             conv2: fused::conv2d(16, 32, 3, Activation::Relu, vb.pp("conv2"))?,
//!             dense: fused::linear(7 * 7 * 32, 10, Activation::Identity, vb.pp("dense1"))?,
//!         })
//!     }
//!
//!     fn loss(&self, images: &Tensor, classes: &Tensor) -> candle_core::Result<Tensor> {
//!         let images = images.reshape(((), 28, 28, 1))?;
//!         let half = fused::max_pool2d(&self.conv1.forward(&images)?, 2)?;
//!         let quarter = fused::max_pool2d(&self.conv2.forward(&half)?, 2)?;
//!         fused::cross_entropy(&self.dense.forward(&quarter.flatten_from(1)?)?, classes)
//!     }
//! }
//! # let vars = candle_nn::VarMap::new();
//! # let net = Net::new(VarBuilder::from_varmap(&vars, candle_core::DType::F32, &Device::Cpu))?;
//! # let images = Tensor::rand(0f32, 1f32, (4, 784), &Device::Cpu)?;
//! # let gradients = net.loss(&images, &Tensor::new(&[1u32, 2, 3, 4], &Device::Cpu)?)?.backward()?;
//! # assert!(vars.all_vars().iter().all(|var| gradients.get(var).is_some()));
//! # Ok::<_, candle_core::Error>(())
//! ```

mod images;
mod linear;
mod loss;
mod sink;
#[cfg(test)]
mod tests;

pub use images::{Conv2d, conv2d, max_pool2d};
pub use linear::{Linear, linear};
pub use loss::cross_entropy;
pub(super) use sink::{Places, collect};

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// The values of an operation's argument.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => Err(Error::Msg("fused layers read contiguous tensors".to_owned())),
    }
}

/// Looks at the values of a tensor.
pub(super) fn look<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(work(values(storage, layout)?)),
        _ => Err(Error::Msg("fused layers run on the processor".to_owned())),
    }
}

/// A tensor that is not what a layer reads, said so.
fn misfit<R>(layer: &str, wanted: &str, found: &Tensor) -> Result<R> {
    Err(Error::Msg(format!("{layer} reads {wanted}, not {:?}", found.dims())))
}
