//! What a program is given besides stdin: its environment, and files with its inputs.

use ropeway_framework::data::{Artifact, Frame, encode};
use ropeway_framework::stage::Scratch;
use ropeway_framework::{Context, Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The variables that a program may inherit: what finds programs, homes, languages and devices.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYTHONHOME",
    "R_HOME",
    "R_LIBS",
    "JAVA_HOME",
    "JULIA_DEPOT_PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A variable and its value.
pub(super) type Variable = (OsString, OsString);

/// The variables that are inherited, as they are here.
pub(super) fn inherited() -> Vec<Variable> {
    INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))).collect()
}

/// The frame that goes to stdin.
pub(super) fn first_frame(inputs: &BTreeMap<String, Artifact>) -> Option<&Frame> {
    let frame = |artifact: &'_ Artifact| matches!(artifact, Artifact::Frame(_));
    let first = inputs.get("input").filter(|artifact| frame(artifact));
    match first.or_else(|| inputs.values().find(|artifact| frame(artifact))) {
        Some(Artifact::Frame(frame)) => Some(frame),
        _ => None,
    }
}

/// Writes the inputs to files and names them in variables, unless there is only the frame that goes to stdin.
///
/// # Errors
/// An input that has no file form, two whose variables would have one name, a full disk.
pub(super) fn files(inputs: &BTreeMap<String, Artifact>, scratch: &mut Scratch) -> Result<Vec<Variable>> {
    if inputs.len() == 1 && first_frame(inputs).is_some() {
        return Ok(Vec::new());
    }
    let mut variables: Vec<Variable> = Vec::new();
    for (port, artifact) in inputs {
        let ending = match artifact {
            Artifact::Frame(_) => "arrow",
            Artifact::Tensors(_) | Artifact::Model(_) => "safetensors",
            Artifact::Metrics(_) => "json",
            Artifact::Bytes(_) => "bin",
            Artifact::List(_) => {
                return Err(Error::usage(format!("input {port:?} is a list, which can't be handed to a program"))
                    .help("wire the artifacts of the list one by one"));
            }
        };
        let name: String = port
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' })
            .collect();
        let variable = OsString::from(format!("ROPEWAY_INPUT_{name}"));
        if variables.iter().any(|(other, _)| *other == variable) {
            return Err(Error::usage(format!("two inputs would be called {}", variable.display()))
                .help("give them names that differ in letters or digits"));
        }
        let path = scratch.path()?.join(format!("{}.{ending}", name.to_ascii_lowercase()));
        let bytes = encode(artifact).context(format!("input {port:?}"))?.bytes();
        std::fs::write(&path, bytes).context(format!("can't write input {port:?} to {}", path.display()))?;
        variables.push((variable, path.into_os_string()));
    }
    Ok(variables)
}
