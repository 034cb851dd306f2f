//! The binary tensor data extension: elements as little-endian bytes after the JSON object.
//!
//! Numbers have their native size, a `BOOL` is a byte 0 or 1, an element of `BYTES` is a 4-byte length and its bytes.

use crate::Datatype;
use crate::tensor::{elements, place};
use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float32Array, PrimitiveArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::*;
use half::bf16;
use ropeway_framework::{Context, Error, Result};
use std::sync::Arc;

/// The header that says how many bytes of a body are JSON.
pub(crate) const HEADER: &str = "inference-header-content-length";

/// The bytes of a body behind its JSON object; tensors take theirs in order.
pub(crate) struct Tail<'a>(Option<&'a [u8]>);

/// Takes a body apart, where the header says that it has binary data.
pub(crate) fn split(body: &[u8], header: Option<usize>) -> Result<(&[u8], Tail<'_>)> {
    let Some(length) = header else { return Ok((body, Tail(None))) };
    let (json, tail) = body.split_at_checked(length).ok_or_else(|| {
        Error::usage(format!("Inference-Header-Content-Length is {length}, and the body has {} bytes", body.len()))
    })?;
    Ok((json, Tail(Some(tail))))
}

impl<'a> Tail<'a> {
    /// The next `size` bytes.
    pub(crate) fn take(&mut self, size: u64) -> Result<&'a [u8]> {
        let tail = self.0.ok_or_else(|| {
            Error::usage("binary_data_size is given, and the header Inference-Header-Content-Length is missing")
                .help("the header gives the length of the JSON object, behind which the binary data stands")
        })?;
        let split = usize::try_from(size).ok().and_then(|size| tail.split_at_checked(size));
        let (taken, rest) = split.ok_or_else(|| {
            Error::usage(format!("binary_data_size is {size}, and {} bytes are left in the body", tail.len()))
        })?;
        self.0 = Some(rest);
        Ok(taken)
    }

    /// Checks that nothing is left over.
    pub(crate) fn finish(self) -> Result<()> {
        match self.0 {
            Some(rest) if !rest.is_empty() => {
                let message = format!("{} bytes at the end of the body belong to no tensor", rest.len());
                Err(Error::usage(message).help("each binary tensor says its size in the parameter binary_data_size"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads the elements of a tensor of this datatype and shape.
pub(crate) fn read(bytes: &[u8], datatype: Datatype, shape: &[usize]) -> Result<ArrayRef> {
    let count = elements(shape).context("the shape has too many elements")?;
    if let Some(size) = datatype.size()
        && count.checked_mul(size) != Some(bytes.len())
    {
        let message = format!("{} bytes do not fill the shape {shape:?} with {datatype} of {size} bytes", bytes.len());
        return Err(Error::usage(message));
    }
    Ok(match datatype {
        Datatype::Bool => {
            if let Some(index) = bytes.iter().position(|byte| *byte > 1) {
                let message = format!("at {}: the byte {} is no BOOL (0 or 1)", place(index, shape), bytes[index]);
                return Err(Error::usage(message));
            }
            Arc::new(BooleanArray::from_iter(bytes.iter().map(|byte| Some(*byte == 1))))
        }
        Datatype::Uint8 => numbers::<UInt8Type>(bytes, count),
        Datatype::Uint16 => numbers::<UInt16Type>(bytes, count),
        Datatype::Uint32 => numbers::<UInt32Type>(bytes, count),
        Datatype::Uint64 => numbers::<UInt64Type>(bytes, count),
        Datatype::Int8 => numbers::<Int8Type>(bytes, count),
        Datatype::Int16 => numbers::<Int16Type>(bytes, count),
        Datatype::Int32 => numbers::<Int32Type>(bytes, count),
        Datatype::Int64 => numbers::<Int64Type>(bytes, count),
        Datatype::Fp16 => numbers::<Float16Type>(bytes, count),
        Datatype::Fp32 => numbers::<Float32Type>(bytes, count),
        Datatype::Fp64 => numbers::<Float64Type>(bytes, count),
        Datatype::Bf16 => {
            let (pairs, _) = bytes.as_chunks::<2>();
            Arc::new(Float32Array::from_iter_values(pairs.iter().map(|pair| bf16::from_le_bytes(*pair).to_f32())))
        }
        Datatype::Bytes => strings(bytes, count, shape)?,
    })
}

/// Little-endian bytes as numbers; the copy aligns them.
fn numbers<T: ArrowPrimitiveType>(bytes: &[u8], count: usize) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(Buffer::from_slice_ref(bytes), 0, count), None))
}

fn strings(mut bytes: &[u8], count: usize, shape: &[usize]) -> Result<ArrayRef> {
    // Every element has four bytes of length at least: a shape can't ask for more memory than was sent.
    if bytes.len() / 4 < count {
        return Err(Error::usage(format!("{} bytes hold fewer than the {count} BYTES of {shape:?}", bytes.len())));
    }
    let mut values = BinaryBuilder::with_capacity(count, bytes.len());
    for index in 0..count {
        let element = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let Some((element, rest)) = element else {
            let message =
                format!("at {}: the element is longer than the {} bytes left", place(index, shape), bytes.len());
            return Err(Error::usage(message).help("BYTES are a 4-byte little-endian length, then that many bytes"));
        };
        values.append_value(element);
        bytes = rest;
    }
    match bytes.len() {
        0 => Ok(Arc::new(values.finish())),
        left => Err(Error::usage(format!("{left} bytes are left behind the {count} BYTES of {shape:?}"))),
    }
}

/// Appends elements, which must be of the datatype's Arrow type, without nulls.
pub(crate) fn write(values: &ArrayRef, datatype: Datatype, out: &mut Vec<u8>) {
    match datatype {
        Datatype::Bool => out.extend(values.as_boolean().values().iter().map(u8::from)),
        Datatype::Uint8 => append::<UInt8Type>(values, out),
        Datatype::Uint16 => append::<UInt16Type>(values, out),
        Datatype::Uint32 => append::<UInt32Type>(values, out),
        Datatype::Uint64 => append::<UInt64Type>(values, out),
        Datatype::Int8 => append::<Int8Type>(values, out),
        Datatype::Int16 => append::<Int16Type>(values, out),
        Datatype::Int32 => append::<Int32Type>(values, out),
        Datatype::Int64 => append::<Int64Type>(values, out),
        Datatype::Fp16 => append::<Float16Type>(values, out),
        Datatype::Fp32 => append::<Float32Type>(values, out),
        Datatype::Fp64 => append::<Float64Type>(values, out),
        Datatype::Bf16 => {
            let values = values.as_primitive::<Float32Type>().values();
            out.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()));
        }
        Datatype::Bytes => {
            let values = values.as_binary::<i32>();
            for index in 0..values.len() {
                let element = values.value(index);
                // Arrow's offsets are 31 bits, so the length fits.
                out.extend((element.len() as u32).to_le_bytes());
                out.extend(element);
            }
        }
    }
}

fn append<T: ArrowPrimitiveType>(values: &ArrayRef, out: &mut Vec<u8>) {
    out.extend(values.as_primitive::<T>().values().inner().as_slice());
}

// Numbers are copied as they lie in memory.
#[cfg(target_endian = "big")]
compile_error!("the binary tensor data extension needs a little-endian machine");
