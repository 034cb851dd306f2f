//! Named tensors in the safetensors layout: a JSON header, then the bytes of every tensor, widest type first.

use super::tensors::{Tensor, Tensors};
use crate::{Context, Error, Result};
use arrow::buffer::Buffer;
use bytes::Bytes;
use safetensors::tensor::{SafeTensors, View};
use safetensors::{Dtype, serialize};
use std::borrow::Cow;
use std::collections::HashMap;

/// The one metadata entry that a file of ours may have.
const ENTRY: &str = "ropeway";
/// The header's key for metadata; no tensor can have this name.
const RESERVED: &str = "__metadata__";
/// The header's length stands before it, in as many bytes; they are also the alignment of the widest type.
const PREFIX: usize = 8;

/// The canonical bytes of tensors, with a text about them.
pub(super) fn write(tensors: &Tensors, about: Option<String>) -> Result<Vec<u8>> {
    if tensors.contains(RESERVED) {
        return Err(Error::new(format!("a tensor can't be called {RESERVED:?}")));
    }
    let metadata = about.map(|about| HashMap::from([(ENTRY.to_owned(), about)]));
    Ok(serialize(tensors.iter().map(|(name, tensor)| (name, Borrowed(tensor))), metadata)?)
}

/// The tensors of canonical bytes and the text about them. They share the bytes unless those are misaligned.
pub(super) fn read(bytes: Bytes) -> Result<(Tensors, Option<String>)> {
    let (tensors, entries) = parse(bytes)?;
    let about = match entries {
        None => None,
        Some(entries) if entries.len() == 1 => Some(entries.get(ENTRY).context("foreign metadata")?.clone()),
        Some(_) => return Err(Error::new("foreign metadata")),
    };
    Ok((tensors, about))
}

/// The tensors of any file of the layout, and its metadata.
pub(super) fn parse(bytes: Bytes) -> Result<(Tensors, Option<HashMap<String, String>>)> {
    let file = match bytes.as_ptr().align_offset(PREFIX) {
        0 => Buffer::from(bytes),
        _ => Buffer::from(&*bytes),
    };
    let (header, metadata) = SafeTensors::read_metadata(&file)?;
    let mut tensors = Tensors::new();
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).context("a tensor without a description")?;
        let (start, end) = info.data_offsets;
        let place = PREFIX.checked_add(header).and_then(|first| first.checked_add(start));
        let place = place.filter(|place| place + (end - start) <= file.len()).context("it is cut off")?;
        let data = file.slice_with_length(place, end - start);
        tensors.insert(name, Tensor::from_bytes(info.dtype, info.shape.clone(), data)?);
    }
    Ok((tensors, metadata.metadata().clone()))
}

struct Borrowed<'a>(&'a Tensor);

impl View for Borrowed<'_> {
    fn dtype(&self) -> Dtype {
        self.0.dtype()
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.data())
    }
    fn data_len(&self) -> usize {
        self.0.data().len()
    }
}
