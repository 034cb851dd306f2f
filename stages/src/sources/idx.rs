//! `read.idx`: the format of MNIST and its kin (LeCun, Cortes and Burges, "The MNIST database of handwritten digits").
//!
//! Two zero bytes, one byte for the element type, one for the number of dimensions, each dimension as a big-endian
//! 32-bit number, then the elements in row-major order, big-endian.

use super::files::{Paths, Source, broken, fingerprint};
use super::sniff::{unpack, wrong_kind};
use arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch, make_array};
use arrow::buffer::Buffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema};
use ropeway_framework::data::{BATCH_ROWS, Frame};
use ropeway_framework::stage::{Cancel, FnStage, Params};
use ropeway_framework::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::sync::Arc;

/// The parameters of `read.idx`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdxParams {
    /// The images: a path, glob or URL, or a list of them; gzip or plain.
    pub images: Paths,
    /// Their labels, in the same order.
    pub labels: Paths,
}

pub(super) fn stage() -> FnStage {
    ropeway_framework::stage::stage(read_idx)
        .version(1)
        .about("Reads images and labels in the idx format of MNIST, gzip or plain: columns `image` and `label`.")
        .fingerprint(|params: IdxParams| {
            Ok(format!("{} {}", fingerprint(&params.images.find()?)?, fingerprint(&params.labels.find()?)?))
        })
        .reads_anywhere(|params: IdxParams| params.images.are_remote() && params.labels.are_remote())
}

fn read_idx(Params(params): Params<IdxParams>, cancel: Cancel) -> Result<Frame> {
    let (images, labels) = (params.images.find()?, params.labels.find()?);
    if images.len() != labels.len() {
        return Err(Error::usage(format!("there are {} image files, but {} label files", images.len(), labels.len())));
    }
    let mut parts: Vec<(ArrayRef, ArrayRef)> = Vec::new();
    let mut shape: Option<(String, Vec<usize>, DataType)> = None;
    for (images, labels) in images.iter().zip(&labels) {
        cancel.check()?;
        let (pixels, classes) = (read(images)?, read(labels)?);
        if classes.shape.len() != 1 || !classes.values.data_type().is_integer() {
            return Err(Error::new(format!(
                "{} has no labels, but values of shape {:?}",
                labels.name(),
                classes.shape
            ))
            .help("labels are one whole number an image; are `images` and `labels` mixed up?"));
        }
        let (count, sides) = pixels.shape.split_first().context(format!("{} has no images", images.name()))?;
        if classes.values.len() != *count {
            return Err(Error::new(format!(
                "{} has {count} images, but {} has {} labels",
                images.name(),
                labels.name(),
                classes.values.len()
            ))
            .help("images and labels must come in pairs of files, in the same order"));
        }
        match &shape {
            Some((first, known, kind)) if *known != sides || kind != pixels.values.data_type() => {
                return Err(Error::new(format!(
                    "images have the shape {known:?} in {first}, but {sides:?} in {}",
                    images.name()
                )));
            }
            _ => shape = Some((images.name().to_owned(), sides.to_vec(), pixels.values.data_type().clone())),
        }
        parts.push((pixels.values, cast(&classes.values, &DataType::Int64)?));
    }
    let (_, sides, kind) = shape.context("there are no images")?;
    let width: usize = sides.iter().product();
    let width = i32::try_from(width).map_err(|_| Error::new("an image has more than 2^31 values"))?;
    let item = Arc::new(Field::new_list_field(kind, false));
    let values = concat(&parts.iter().map(|(values, _)| values.as_ref()).collect::<Vec<_>>())?;
    let classes = concat(&parts.iter().map(|(_, classes)| classes.as_ref()).collect::<Vec<_>>())?;
    let image = FixedSizeListArray::try_new_with_length(item.clone(), width, values, None, classes.len())?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", DataType::FixedSizeList(item, width), false),
        Field::new("label", DataType::Int64, false),
    ]));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(image), classes])?;
    let starts = (0..batch.num_rows()).step_by(BATCH_ROWS);
    let batches = starts.map(|start| batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start))).collect();
    Frame::new(schema, batches)
}

/// The content of one file.
struct Idx {
    shape: Vec<usize>,
    values: ArrayRef,
}

fn read(source: &Source) -> Result<Idx> {
    let name = source.name();
    let (mut reader, head) = unpack(source)?;
    let (code, dimensions) = match head.as_slice() {
        [0, 0, code, dimensions, ..] if *dimensions > 0 => (*code, usize::from(*dimensions)),
        _ => return Err(wrong_kind(name, "idx file", &head)),
    };
    let (kind, size) = match code {
        0x08 => (DataType::UInt8, 1),
        0x09 => (DataType::Int8, 1),
        0x0b => (DataType::Int16, 2),
        0x0c => (DataType::Int32, 4),
        0x0d => (DataType::Float32, 4),
        0x0e => (DataType::Float64, 8),
        _ => return Err(wrong_kind(name, "idx file", &head)),
    };
    let mut header = vec![0; 4 + 4 * dimensions];
    reader.read_exact(&mut header).map_err(|error| broken(name, error))?;
    let sides = header.get(4..).unwrap_or_default().as_chunks::<4>().0;
    let shape: Vec<usize> = sides.iter().map(|side| u32::from_be_bytes(*side) as usize).collect();
    let bytes = shape.iter().try_fold(size, |bytes: usize, side| bytes.checked_mul(*side));
    let bytes = bytes.ok_or_else(|| wrong_kind(name, "idx file", &head))?;
    // Nothing is reserved for what a damaged header only claims; a packed file is at most 1032 times smaller.
    let most = usize::try_from(source.size().saturating_mul(1032)).unwrap_or(usize::MAX);
    let mut values = Vec::with_capacity(bytes.min(most));
    reader.by_ref().take(bytes as u64).read_to_end(&mut values).map_err(|error| broken(name, error))?;
    if values.len() < bytes {
        return Err(Error::new(format!(
            "{name} ends in the middle: its header promises {bytes} bytes, {} are there",
            values.len()
        ))
        .help("the file is truncated: copy or download it again"));
    }
    if reader.read(&mut [0]).map_err(|error| broken(name, error))? != 0 {
        return Err(Error::new(format!("{name} has bytes after its {bytes} values")).help("the file is damaged"));
    }
    if size > 1 {
        values.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    let length = bytes / size;
    let data = arrow::array::ArrayData::builder(kind).len(length).add_buffer(Buffer::from(values)).align_buffers(true);
    Ok(Idx { shape, values: make_array(data.build()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sniff::tests::gzip;
    use arrow::array::{Array, AsArray, Int64Array};
    use arrow::datatypes::{Int16Type, UInt8Type};
    use serde_json::json;
    use std::path::Path;

    fn idx(code: u8, shape: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, code, shape.len() as u8];
        shape.iter().for_each(|side| bytes.extend(side.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn at(folder: &Path, name: &str, content: &[u8]) -> String {
        std::fs::write(folder.join(name), content).unwrap();
        folder.join(name).display().to_string()
    }

    fn run(images: &[&str], labels: &[&str]) -> Result<Frame> {
        let params = serde_json::from_value(json!({ "images": images, "labels": labels })).unwrap();
        read_idx(Params(params), Cancel::default())
    }

    #[test]
    fn images_and_labels_plain_and_packed() {
        let folder = tempfile::tempdir().unwrap();
        let a = at(folder.path(), "a-images", &idx(8, &[2, 2, 3], &(0..12).collect::<Vec<u8>>()));
        let b = at(folder.path(), "b-images.gz", &gzip(&idx(8, &[1, 2, 3], &[9; 6])));
        let x = at(folder.path(), "a-labels", &idx(8, &[2], &[7, 255]));
        let y = at(folder.path(), "b-labels.gz", &gzip(&idx(8, &[1], &[3])));
        let frame = run(&[&a, &b], &[&x, &y]).unwrap();
        assert_eq!(frame.rows(), 3);
        let (image, label) = (frame.column("image").unwrap(), frame.column("label").unwrap());
        assert_eq!(image.as_fixed_size_list().value_length(), 6);
        assert_eq!(image.as_fixed_size_list().value(1).as_primitive::<UInt8Type>().values(), &[6, 7, 8, 9, 10, 11]);
        assert_eq!(label.as_any().downcast_ref::<Int64Array>().unwrap().values(), &[7, 255, 3]);
        assert!(frame.schema().fields().iter().all(|field| !field.is_nullable()));
        let wide = at(folder.path(), "wide", &idx(0x0b, &[2, 1], &[1, 2, 0xff, 0xfe]));
        let frame = run(&[&wide], &[&x]).unwrap();
        let image = frame.column("image").unwrap();
        assert_eq!(image.as_fixed_size_list().values().as_primitive::<Int16Type>().values(), &[258, -2]);
    }

    #[test]
    fn mistakes_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let images = at(folder.path(), "images", &idx(8, &[2, 2, 2], &[0; 8]));
        let labels = at(folder.path(), "labels", &idx(8, &[2], &[0; 2]));
        let fail = |images: &str, labels: &str| format!("{:?}", run(&[images], &[labels]).unwrap_err());
        let three = at(folder.path(), "three", &idx(8, &[3], &[0; 3]));
        assert!(fail(&images, &three).contains("has 2 images, but ") && fail(&images, &three).contains("has 3 labels"));
        assert!(fail(&labels, &images).contains("mixed up"));
        let cut = at(folder.path(), "cut", &idx(8, &[2, 2, 2], &[0; 7]));
        assert!(fail(&cut, &labels).contains("its header promises 8 bytes, 7 are there"));
        let head = at(folder.path(), "head", &idx(8, &[2, 2, 2], &[])[..9]);
        assert!(fail(&head, &labels).contains("ends in the middle"));
        let long = at(folder.path(), "long", &idx(8, &[2, 2, 2], &[0; 9]));
        assert!(fail(&long, &labels).contains("bytes after its 8 values"));
        let huge = at(folder.path(), "huge", &idx(8, &[u32::MAX, u32::MAX, u32::MAX], &[0; 9]));
        assert!(fail(&huge, &labels).contains("is no idx file"));
        let packed = gzip(&idx(8, &[2, 2, 2], &[0; 8]));
        let packed = at(folder.path(), "packed.gz", &packed[..packed.len() - 6]);
        assert!(fail(&packed, &labels).contains("ends in the middle"));
        let png = at(folder.path(), "png", b"\x89PNG\r\n\x1a\n");
        assert!(fail(&png, &labels).contains("is no idx file (help: it is a PNG image)"));
        let other = at(folder.path(), "other", &idx(8, &[2, 3, 3], &[0; 18]));
        let error = run(&[&images, &other], &[&labels, &three]).unwrap_err().to_string();
        assert!(error.contains("labels"), "{error}");
        let twin = at(folder.path(), "twin", &idx(8, &[2], &[0; 2]));
        let error = run(&[&images, &other], &[&labels, &twin]).unwrap_err().to_string();
        assert!(error.contains("images have the shape [2, 2] in ") && error.contains("[3, 3]"), "{error}");
    }
}
