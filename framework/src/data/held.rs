//! Artifacts that keep what their memory belongs to alive, so that it is known how long anybody has them.

use super::{Artifact, Tensor, Tensors};
use crate::Result;
use arrow::buffer::Buffer;
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;

/// What lives as long as anybody has part of an artifact.
pub(crate) type Owner = Arc<dyn Any + Send + Sync>;

/// A buffer, and what must live as long as it.
struct Held {
    buffer: Buffer,
    _owner: Owner,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

/// The same buffer, which keeps `owner` alive.
pub(super) fn hold(buffer: &Buffer, owner: &Owner) -> Buffer {
    match buffer.is_empty() {
        true => buffer.clone(),
        false => Buffer::from(Bytes::from_owner(Held { buffer: buffer.clone(), _owner: owner.clone() })),
    }
}

impl Artifact {
    /// The same artifact, whose columns and tensors keep `owner` alive as long as anybody has them.
    pub(crate) fn held_by(self, owner: &Owner) -> Result<Self> {
        Ok(match self {
            Artifact::Frame(frame) => frame.held_by(owner)?.into(),
            Artifact::Tensors(inner) => tensors(&inner, owner)?.into(),
            Artifact::Model(model) => {
                let inner = tensors(model.tensors(), owner)?;
                model.with_tensors(inner).into()
            }
            other => other,
        })
    }
}

fn tensors(inner: &Tensors, owner: &Owner) -> Result<Tensors> {
    let tensor = |(name, tensor): (&str, &Tensor)| {
        let data = hold(tensor.data(), owner);
        Ok((name.to_owned(), Tensor::from_bytes(tensor.dtype(), tensor.shape().to_vec(), data)?))
    };
    inner.iter().map(tensor).collect()
}
