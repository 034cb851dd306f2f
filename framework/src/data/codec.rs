//! The one codec: artifacts to canonical bytes and back. Equal artifacts have equal bytes.
//!
//! | kind | canonical bytes |
//! |---|---|
//! | frame | an Arrow IPC file without compression: batches of [`BATCH_ROWS`](super::BATCH_ROWS) rows, columns in one layout |
//! | tensors | a safetensors file without metadata |
//! | model | a safetensors file whose one metadata entry, `ropeway`, is the JSON object `{kind, spec}` |
//! | metrics | a JSON object; numbers that JSON can't write are `"NaN"`, `"inf"` and `"-inf"` |
//! | list | a JSON array with kind, digest and length of every item |
//! | bytes | the bytes |
//!
//! JSON has its keys in order and no spaces. All NaNs of metrics are one; those of frames and tensors keep their bits.

use super::json::read_json;
use super::unnamed::Unnamed;
use super::{Artifact, Kind, List, Metrics, Model, Pieces, Ref, Tensors, ipc, tensor_file};
use crate::{Context, Error, Result};
use bytes::Bytes;
use serde_json::{Number, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An artifact in canonical form; a list's items stand beside it, each under its own digest.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its name.
    pub reference: Ref,
    /// Its canonical bytes.
    pub pieces: Pieces,
    /// The artifact as [`decode`] gives it, sharing the pieces, where those are more than one.
    pub whole: Option<Artifact>,
    /// The items of a list, in order; empty for everything else.
    pub items: Vec<Encoded>,
}

impl Encoded {
    /// The canonical bytes in one row; a copy, where they are in several pieces.
    pub fn bytes(&self) -> Bytes {
        self.pieces.join()
    }
}

/// The canonical form of an artifact. Columns of frames that are in canonical form already, and large tensors, are
/// shared and not copied.
///
/// # Errors
/// Something that has no canonical form: a column that is a union, nulls where the schema says that there are none,
/// more than 2 GiB of text in one batch, a tensor called `__metadata__`.
///
/// ```
/// use ropeway_framework::data::{Artifact, Metrics, decode, encode};
///
/// let encoded = encode(&Artifact::Metrics(Metrics::new().with("loss", 0.25).with("accuracy", f64::NAN)))?;
/// assert_eq!(&*encoded.bytes(), br#"{"accuracy":"NaN","loss":0.25}"#);
/// let decoded = decode(encoded.reference, encoded.bytes(), &mut |_| unreachable!("no list"))?;
/// assert_eq!(Metrics::try_from(decoded)?.get("loss"), Some(0.25));
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
pub fn encode(artifact: &Artifact) -> Result<Encoded> {
    encode_owned(artifact.clone())
}

/// Like [`encode`], for an artifact that is needed no more: of a frame that nobody else has, what must be copied is let
/// go of on the way, so that there are never two copies of it.
///
/// # Errors
/// As [`encode`].
pub fn encode_owned(artifact: Artifact) -> Result<Encoded> {
    let Artifact::List(list) = artifact else { return Ok(Unnamed::of(artifact)?.named()) };
    let items = list.items().iter().map(encode).collect::<Result<Vec<_>>>()?;
    let references: Vec<Ref> = items.iter().map(|item| item.reference).collect();
    Ok(Encoded { items, ..encode_list(&references)? })
}

/// The canonical form of a list of stored artifacts. They are only named, so that none of them need be read.
///
/// # Errors
/// None that is known.
pub fn encode_list(items: &[Ref]) -> Result<Encoded> {
    Ok(Unnamed::list(items)?.named())
}

/// The artifacts that the canonical bytes of a list name, in order.
///
/// # Errors
/// Bytes that are no list.
pub fn list_items(bytes: &[u8]) -> Result<Vec<Ref>> {
    Ok(serde_json::from_slice(bytes)?)
}

/// The artifact of canonical bytes; `fetch` gives the items of a list. Frames and tensors share the bytes.
///
/// The bytes are not checked against the digest: whoever read them does that.
///
/// # Errors
/// Bytes that are not what the reference says, or an item that can't be fetched.
pub fn decode(reference: Ref, bytes: Bytes, fetch: &mut dyn FnMut(Ref) -> Result<Artifact>) -> Result<Artifact> {
    let Ref { kind, digest, bytes: length } = reference;
    if bytes.len() as u64 != length {
        let found = bytes.len();
        return Err(Error::new(format!("{kind} {} should have {length} bytes, but has {found}", digest.short())));
    }
    match kind {
        Kind::Frame => guarded(|| ipc::read(bytes)).map(Artifact::Frame),
        Kind::Tensors => guarded(|| read_tensors(bytes)),
        Kind::Model => guarded(|| read_model(bytes)),
        Kind::Metrics => read_metrics(&bytes),
        Kind::List => read_list(&bytes, fetch),
        Kind::Bytes => Ok(Artifact::Bytes(bytes)),
    }
    .map_err(|error| error.context(format!("can't read {kind} {}", digest.short())))
}

/// The tensors of a safetensors file, whoever wrote it; its metadata is left out.
///
/// # Errors
/// Bytes that are no such file, or a damaged one.
pub fn read_safetensors(bytes: Bytes) -> Result<Tensors> {
    guarded(|| tensor_file::parse(bytes)).map(|(tensors, _)| tensors)
}

/// Makes a panic of a reader an error. Arrow's and safetensors' readers check what they read, but panic or overflow on
/// some kinds of damage (an unknown unit of time, two children of a list) that can't be seen beforehand.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the reader was making is dropped, and it shares nothing that could be left half changed.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Error::new("the bytes are damaged")))
}

fn read_tensors(bytes: Bytes) -> Result<Artifact> {
    match tensor_file::read(bytes)? {
        (tensors, None) => Ok(Artifact::Tensors(tensors)),
        (_, Some(_)) => Err(Error::new("it is a model")),
    }
}

fn read_model(bytes: Bytes) -> Result<Artifact> {
    let (tensors, about) = tensor_file::read(bytes)?;
    described(&about.context("the model has no description")?, tensors).map(Artifact::Model)
}

pub(super) fn described(about: &str, tensors: Tensors) -> Result<Model> {
    let about = read_json(about.as_bytes())?;
    let kind = about.get("kind").and_then(Value::as_str).context("the model has no kind")?;
    let spec = about.get("spec").context("the model has no description")?;
    Model::new(kind, spec, tensors)
}

fn read_metrics(bytes: &[u8]) -> Result<Artifact> {
    let Value::Object(fields) = read_json(bytes)? else { return Err(Error::new("expected a JSON object")) };
    let numbers = fields.into_iter().map(|(name, value)| match read_number(&value) {
        Some(number) => Ok((name, number)),
        None => Err(Error::new(format!("{name:?} is no number"))),
    });
    Ok(Artifact::Metrics(numbers.collect::<Result<Metrics>>()?))
}

fn read_list(bytes: &[u8], fetch: &mut dyn FnMut(Ref) -> Result<Artifact>) -> Result<Artifact> {
    Ok(Artifact::List(
        list_items(bytes)?.into_iter().map(fetch).collect::<Result<Vec<_>>>()?.into_iter().collect::<List>(),
    ))
}

pub(super) fn write_number(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "inf".into(),
        None => "-inf".into(),
    }
}

pub(super) fn read_number(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        Some("NaN") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, Tensor};
    use super::*;
    use crate::damage::damaged;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn again(encoded: &Encoded) -> Artifact {
        decode(encoded.reference, encoded.bytes(), &mut |reference| {
            let item = encoded.items.iter().find(|item| item.reference == reference).unwrap();
            Ok(again(item))
        })
        .unwrap()
    }

    fn frame() -> Frame {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["one", "two", "three"]));
        Frame::from_columns([("id", ids), ("name", names)]).unwrap()
    }

    fn tensors() -> Tensors {
        Tensors::new()
            .with("bias", Tensor::from_vec(vec![3], vec![1u8, 2, 3]).unwrap())
            .with("weight", Tensor::from_vec(vec![2, 2], vec![0.5f32, -0.0, f32::NAN, 4.0]).unwrap())
            .with("none", Tensor::from_vec(vec![0, 7], Vec::<i64>::new()).unwrap())
            .with("step", Tensor::from_vec(vec![], vec![1e-300f64]).unwrap())
    }

    fn one_of_each() -> Vec<Artifact> {
        let spec = json!({"mean": 0.1 + 0.2, "names": ["b", "a"], "nested": {"z": 1, "a": -0.0}});
        let model = Model::new("features", &spec, tensors()).unwrap();
        let metrics = Metrics::new().with("loss", 1.0 / 3.0).with("worst", f64::NEG_INFINITY).with("none", f64::NAN);
        let list: List = [Artifact::Frame(frame()), Artifact::Metrics(metrics.clone())].into_iter().collect();
        vec![
            frame().into(),
            tensors().into(),
            model.into(),
            metrics.into(),
            list.into(),
            List::default().into(),
            Bytes::from_static(b"\0anything").into(),
            Bytes::new().into(),
        ]
    }

    #[test]
    fn every_kind_comes_back_with_the_same_bytes() {
        for artifact in one_of_each() {
            let encoded = encode(&artifact).unwrap();
            let decoded = again(&encoded);
            assert_eq!(decoded.kind(), artifact.kind());
            assert_eq!(encode(&decoded).unwrap().bytes(), encoded.bytes());
        }
    }

    /// Results are remembered by these digests: a change of the layout is a change of every key, and must be seen.
    #[test]
    fn the_layout_does_not_change_unseen() {
        let digests: Vec<String> =
            one_of_each().iter().map(|artifact| encode(artifact).unwrap().reference.digest.short()).collect();
        assert_eq!(digests, GOLDEN);
    }

    const GOLDEN: [&str; 8] = [
        "1c054041b675",
        "6faee40fc8c9",
        "1348754a963f",
        "b3008ca9292d",
        "62d36a09bf9a",
        "d53d18c23212",
        "64b57ad5c923",
        "af1349b9f5f9",
    ];

    #[test]
    fn models_and_tensors_keep_their_contents() {
        let encoded = encode(&one_of_each()[2]).unwrap();
        let model = Model::try_from(again(&encoded)).unwrap();
        assert_eq!((model.kind(), &model.spec()["mean"]), ("features", &json!(0.1 + 0.2)));
        for (name, tensor) in tensors().iter() {
            let read = model.tensors().get(name).unwrap();
            assert_eq!((read.dtype(), read.shape(), read.data()), (tensor.dtype(), tensor.shape(), tensor.data()));
        }
        assert_eq!(model.tensors().get("step").unwrap().values::<f64>().unwrap(), [1e-300]);
    }

    #[test]
    fn tensors_share_aligned_bytes_and_copy_others() {
        let encoded = encode(&tensors().into()).unwrap();
        let whole = Tensors::try_from(again(&encoded)).unwrap();
        let bytes = encoded.bytes();
        let range = bytes.as_ptr_range();
        assert!(range.contains(&whole.get("weight").unwrap().data().as_ptr()));
        let shifted = Bytes::from([b"x", &*bytes].concat()).slice(1..);
        let copied = decode(encoded.reference, shifted, &mut |_| unreachable!()).unwrap();
        assert_eq!(Tensors::try_from(copied).unwrap().get("step").unwrap().values::<f64>().unwrap(), [1e-300]);
    }

    #[test]
    fn a_reserved_name_is_refused() {
        let tensors = Tensors::new().with("__metadata__", Tensor::from_vec(vec![1], vec![0u8]).unwrap());
        let error = encode(&tensors.into()).unwrap_err();
        assert_eq!(error.to_string(), "a tensor can't be called \"__metadata__\"");
    }

    #[test]
    fn wrong_bytes_are_told() {
        let encoded = encode(&frame().into()).unwrap();
        let bytes = encoded.bytes();
        let cut = bytes.slice(..bytes.len() - 1);
        let error = decode(encoded.reference, cut.clone(), &mut |_| unreachable!()).unwrap_err();
        assert!(error.to_string().contains("should have"), "{error}");
        let reference = Ref { bytes: cut.len() as u64, ..encoded.reference };
        let error = decode(reference, cut, &mut |_| unreachable!()).unwrap_err();
        assert!(error.to_string().starts_with("can't read frame"), "{error}");
        let as_tensors = Ref { kind: Kind::Tensors, ..encoded.reference };
        assert!(decode(as_tensors, bytes, &mut |_| unreachable!()).is_err());
    }

    proptest! {
        #[test]
        fn metrics_come_back(values: Vec<(String, f64)>) {
            let metrics: Metrics = values.into_iter().collect();
            let read = Metrics::try_from(again(&encode(&metrics.clone().into()).unwrap())).unwrap();
            prop_assert_eq!(read.len(), metrics.len());
            for ((name, value), (read_name, read)) in metrics.iter().zip(read.iter()) {
                prop_assert_eq!(name, read_name);
                prop_assert!(value.to_bits() == read.to_bits() || value.is_nan() && read.is_nan());
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_another_artifact_but_no_panic() {
        let encoded: Vec<Encoded> = one_of_each().iter().map(|artifact| encode(artifact).unwrap()).collect();
        let samples: Vec<Vec<u8>> = encoded.iter().map(|encoded| encoded.bytes().to_vec()).collect();
        for (seed, encoded) in (0..).zip(&encoded) {
            // Most from one kind, the splices from all.
            let mut samples = samples.clone();
            samples.insert(0, encoded.bytes().to_vec());
            damaged(seed, 3_000, &samples, |bytes| {
                let reference = Ref { bytes: bytes.len() as u64, ..encoded.reference };
                let bytes = Bytes::copy_from_slice(bytes);
                let read = decode(reference, bytes, &mut |_| Err(Error::new("no such item")));
                // What was accepted must hold together: walk through all of it.
                if let Ok(artifact) = read {
                    let _ = encode(&artifact);
                }
            });
        }
    }
}
