//! Named dense arrays.

use crate::{Error, Result};
use arrow::buffer::Buffer;
use arrow::datatypes::ArrowNativeType;
use std::collections::BTreeMap;

pub use safetensors::Dtype;

/// A dense array in row-major order. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Buffer,
}

/// A Rust type whose values are the elements of a tensor.
pub trait Element: ArrowNativeType {
    /// The tensor's element type.
    const DTYPE: Dtype;
}

macro_rules! element {
    ($($native:ty => $dtype:ident),*) => {$(
        impl Element for $native {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}

element!(f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

impl Tensor {
    /// A tensor of raw little-endian bytes.
    ///
    /// # Errors
    /// A number of bytes that does not fit shape and type.
    pub fn from_bytes(dtype: Dtype, shape: Vec<usize>, data: Buffer) -> Result<Self> {
        let bits = shape.iter().try_fold(dtype.bitsize(), |bits, side| bits.checked_mul(*side));
        if bits != data.len().checked_mul(8) {
            return Err(Error::new(format!(
                "a {dtype:?} tensor of shape {shape:?} does not have {} bytes",
                data.len()
            )));
        }
        Ok(Self { dtype, shape, data })
    }

    /// A tensor that takes over a vector.
    ///
    /// # Errors
    /// A number of values that does not fit the shape.
    pub fn from_vec<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self> {
        Self::from_bytes(T::DTYPE, shape, Buffer::from_vec(values))
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The length of each side, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The little-endian bytes of the elements.
    pub fn data(&self) -> &Buffer {
        &self.data
    }

    /// The elements.
    ///
    /// # Errors
    /// Another element type than the tensor's.
    pub fn values<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::new(format!("expected a {:?} tensor, found {:?}", T::DTYPE, self.dtype)));
        }
        if self.data.as_ptr().align_offset(align_of::<T>()) != 0 {
            return Err(Error::new("the tensor's bytes are not aligned to its type"));
        }
        Ok(self.data.typed_data::<T>())
    }
}

/// Named tensors, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor; one of the same name is replaced.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// Adds a tensor and hands the collection on.
    pub fn with(mut self, name: impl Into<String>, tensor: Tensor) -> Self {
        self.insert(name, tensor);
        self
    }

    /// The tensor of a name.
    ///
    /// # Errors
    /// No such tensor.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::new(format!("there is no tensor {name:?}")))
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Tensor)> for Tensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}
