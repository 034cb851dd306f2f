//! `read.safetensors`: named tensors from a file, such as weights to begin a training with.

use super::files::{Paths, broken, fingerprint};
use super::sniff::{kind, wrong_kind};
use bytes::Bytes;
use ropeway_framework::data::{Tensors, read_safetensors};
use ropeway_framework::stage::{FnStage, Params};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// The parameters of `read.safetensors`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SafetensorsParams {
    /// The file: a path, glob or URL, or a list of them, whose tensors come together.
    pub path: Paths,
}

pub(super) fn stage() -> FnStage {
    ropeway_framework::stage::stage(read)
        .version(1)
        .about("Reads named tensors from safetensors files: weights of a model, for the input `init` of `train`.")
        .fingerprint(|params: SafetensorsParams| fingerprint(&params.path.find()?))
        .reads_anywhere(|params: SafetensorsParams| params.path.are_remote())
}

fn read(Params(params): Params<SafetensorsParams>) -> Result<Tensors> {
    let mut all = Tensors::new();
    for source in params.path.find()? {
        let mut bytes = Vec::new();
        source.open()?.read_to_end(&mut bytes).map_err(|error| broken(source.name(), error))?;
        let bytes = Bytes::from(bytes);
        let tensors = read_safetensors(bytes.clone()).map_err(|error| refused(source.name(), &bytes, error))?;
        for (name, tensor) in tensors.iter() {
            if all.contains(name) {
                return Err(Error::new(format!("the tensor {name:?} of {} is in an earlier file too", source.name())));
            }
            all.insert(name, tensor.clone());
        }
    }
    Ok(all)
}

/// Says what a file is instead, if that is known; else why it can't be read.
fn refused(name: &str, bytes: &[u8], error: Error) -> Error {
    let head = bytes.get(..32).unwrap_or(bytes);
    match kind(head) {
        Some(_) => wrong_kind(name, "safetensors file", head),
        None => error.context(format!("{name} is no safetensors file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use std::collections::HashMap;

    #[test]
    fn files_of_others_are_read_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        let weight = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        candle_core::safetensors::save(&HashMap::from([("dense1.weight", weight)]), &path).unwrap();
        let params = |paths: Vec<&str>| Params(SafetensorsParams { path: paths.into_iter().collect() });
        let name = path.to_str().unwrap();
        let tensors = read(params(vec![name])).unwrap();
        assert_eq!(tensors.get("dense1.weight").unwrap().values::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);

        let copy = folder.path().join("copy.safetensors");
        std::fs::copy(&path, &copy).unwrap();
        let error = read(params(vec![name, copy.to_str().unwrap()])).unwrap_err();
        assert!(error.to_string().contains("\"dense1.weight\"") && error.to_string().contains("earlier file"));

        let whole = std::fs::read(&path).unwrap();
        for length in [1, 7, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read(params(vec![name])).unwrap_err().to_string();
            assert!(error.contains("net.safetensors is no safetensors file"), "{error}");
        }
    }
    #[test]
    fn what_is_no_safetensors_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        let name = path.to_str().unwrap();
        let fail = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let params = Params(SafetensorsParams { path: [name].into_iter().collect() });
            read(params).unwrap_err()
        };
        assert_eq!(fail(b"").to_string(), format!("{name} is empty (0 bytes)"));
        for (content, kind) in [
            (&b"PAR1 and then some more bytes, as many as a header has"[..], "a Parquet file"),
            (b"PK\x03\x04 and then some more bytes, as many as a header has", "a ZIP archive: unpack it first"),
            (b"\x93NUMPY", "a NumPy array"),
        ] {
            let error = fail(content);
            assert_eq!(error.to_string(), format!("{name} is no safetensors file"));
            assert_eq!(error.advice(), Some(format!("it is {kind}").as_str()));
        }
        let text = fail(b"x,label\n1,a\n2,b\n3,a\n").to_string();
        assert!(text.starts_with(&format!("{name} is no safetensors file: ")), "{text}");
        assert!(text.to_lowercase().contains("header"), "{text}");
    }
}
