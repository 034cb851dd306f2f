//! Named tensors in the safetensors layout: a JSON header, then the bytes of every tensor, widest type first.

use super::Pieces;
use super::gather::Lent;
use super::tensors::{Tensor, Tensors};
use crate::{Context, Error, Result};
use arrow::buffer::Buffer;
use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;

/// The one metadata entry that a file of ours may have.
const ENTRY: &str = "ropeway";
/// The header's key for metadata; no tensor can have this name.
const RESERVED: &str = "__metadata__";
/// The header's length stands before it, in as many bytes; they are also the alignment of the widest type.
const PREFIX: usize = 8;
/// What a reader of safetensors takes as a header.
const LONGEST_HEADER: usize = 100_000_000;
/// Tensors of fewer bytes are copied, so that many of them are one piece.
const LARGE: usize = 64 << 10;

/// The canonical bytes of tensors, with a text about them. Large tensors are shared and not copied, unless they lie in
/// memory that is much larger than they are.
///
/// Gives the tensors too, sharing what the pieces share, and nothing else.
pub(super) fn write(tensors: &Tensors, about: Option<String>) -> Result<(Pieces, Tensors)> {
    if tensors.contains(RESERVED) {
        return Err(Error::new(format!("a tensor can't be called {RESERVED:?}")));
    }
    let mut inner: Vec<(&str, &Tensor)> = tensors.iter().collect();
    inner.sort_by(|(name, left), (other, right)| right.dtype().cmp(&left.dtype()).then(name.cmp(other)));
    let mut row = header(&inner, about)?;
    let mut pieces = Vec::new();
    let mut kept = Tensors::new();
    for (name, tensor) in inner {
        let data = if is_worth_sharing(tensor.data()) {
            pieces.push(Bytes::from(std::mem::take(&mut row)));
            pieces.push(Bytes::from_owner(Lent(tensor.data().clone())));
            tensor.data().clone()
        } else {
            row.extend_from_slice(tensor.data());
            Buffer::from(&**tensor.data())
        };
        kept.insert(name, Tensor::from_bytes(tensor.dtype(), tensor.shape().to_vec(), data)?);
    }
    pieces.push(row.into());
    Ok((pieces.into_iter().collect(), kept))
}

/// The header and what stands before it.
fn header(tensors: &[(&str, &Tensor)], about: Option<String>) -> Result<Vec<u8>> {
    let mut end = 0;
    let info = |(name, tensor): &(&str, &Tensor)| {
        let start = end;
        end += tensor.data().len();
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        ((*name).to_owned(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    };
    let infos = tensors.iter().map(info).collect();
    let metadata = Metadata::new(about.map(|about| HashMap::from([(ENTRY.to_owned(), about)])), infos)?;
    let mut text = serde_json::to_vec(&metadata)?;
    // What follows is aligned.
    text.resize(text.len().next_multiple_of(PREFIX), b' ');
    if text.len() > LONGEST_HEADER {
        return Err(Error::new("the names of the tensors are too long").help("give fewer or shorter ones"));
    }
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

/// Whether a buffer is large, has its memory for itself, and lies as one that is read back does.
fn is_worth_sharing(data: &Buffer) -> bool {
    let own = data.capacity() > 0 && data.capacity() <= data.len() + data.len() / 8;
    data.len() >= LARGE && own && data.as_ptr().align_offset(PREFIX) == 0
}

/// The tensors of canonical bytes and the text about them. They share the bytes unless those are misaligned.
pub(super) fn read(bytes: Bytes) -> Result<(Tensors, Option<String>)> {
    let file = match bytes.as_ptr().align_offset(PREFIX) {
        0 => Buffer::from(bytes),
        _ => Buffer::from(&*bytes),
    };
    let (header, metadata) = SafeTensors::read_metadata(&file)?;
    let about = match metadata.metadata() {
        None => None,
        Some(entries) if entries.len() == 1 => Some(entries.get(ENTRY).context("foreign metadata")?.clone()),
        Some(_) => return Err(Error::new("foreign metadata")),
    };
    let mut tensors = Tensors::new();
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).context("a tensor without a description")?;
        let (start, end) = info.data_offsets;
        let data = file.slice_with_length(PREFIX + header + start, end - start);
        tensors.insert(name, Tensor::from_bytes(info.dtype, info.shape.clone(), data)?);
    }
    Ok((tensors, about))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use safetensors::Dtype;
    use safetensors::tensor::View;
    use std::borrow::Cow;

    struct Plain<'a>(&'a Tensor);

    impl View for Plain<'_> {
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

    fn tensor(bytes: usize, wide: bool, offset: usize) -> Tensor {
        let memory: Vec<u8> = (0..bytes + offset).map(|index| index as u8).collect();
        let data = Buffer::from_vec(memory).slice_with_length(offset, bytes);
        let (dtype, shape) = if wide { (Dtype::F64, vec![bytes / 8]) } else { (Dtype::U8, vec![bytes]) };
        Tensor::from_bytes(dtype, shape, data).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The layout is that of the library, whatever is shared.
        #[test]
        fn pieces_are_what_safetensors_writes(
            tensors in prop::collection::btree_map(
                ".{0,8}",
                (prop::sample::select(vec![0, 8, 1000, LARGE - 8, LARGE, 3 * LARGE]), any::<bool>(), 0..200_000usize),
                0..6,
            ),
            about: Option<String>,
        ) {
            let tensors: Tensors =
                tensors.into_iter().map(|(name, (bytes, wide, offset))| (name, tensor(bytes, wide, offset))).collect();
            prop_assume!(!tensors.contains(RESERVED));
            let metadata = about.clone().map(|about| HashMap::from([(ENTRY.to_owned(), about)]));
            let views = tensors.iter().map(|(name, tensor)| (name, Plain(tensor)));
            let expected = safetensors::serialize(views, metadata).unwrap();
            let (pieces, kept) = write(&tensors, about.clone()).unwrap();
            prop_assert!(pieces.join() == expected);
            let (read, found) = read(pieces.join()).unwrap();
            prop_assert_eq!(found, about);
            for (name, tensor) in tensors.iter() {
                for same in [read.get(name).unwrap(), kept.get(name).unwrap()] {
                    prop_assert!(same.data() == tensor.data() && same.shape() == tensor.shape());
                    prop_assert!(same.data().as_ptr().align_offset(PREFIX) == 0);
                }
            }
        }
    }

    #[test]
    fn a_large_tensor_is_shared_and_part_of_a_larger_memory_is_not() {
        let large = tensor(10 * LARGE, true, 0);
        let (pieces, kept) = write(&Tensors::new().with("large", large.clone()), None).unwrap();
        assert_eq!(pieces.iter().nth(1).unwrap().as_ptr(), large.data().as_ptr());
        assert_eq!(kept.get("large").unwrap().data().as_ptr(), large.data().as_ptr());
        let part = tensor(LARGE, true, 10 * LARGE);
        let (pieces, kept) = write(&Tensors::new().with("part", part.clone()), None).unwrap();
        assert_eq!(pieces.iter().len(), 1);
        assert_ne!(kept.get("part").unwrap().data().as_ptr(), part.data().as_ptr());
    }
}
