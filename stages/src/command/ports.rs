//! What a program is given besides stdin: its environment, and files with its inputs.

use ropeway_framework::data::Kind;
use ropeway_framework::stage::{Argument, Call, Input, Scratch, Signature, Stored};
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

/// What is wired to the stage, by port: one input called `input`, or any others, not read yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Wired(pub(super) BTreeMap<String, Stored>);

impl Argument for Wired {
    fn describe(signature: &mut Signature) {
        let input = Input { name: "input".into(), optional: true, ..Input::default() };
        signature.inputs.push(input);
        signature.open = Some(None);
    }

    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        let one = |(port, stored): (&String, &Vec<Stored>)| Some((port.clone(), stored.first()?.clone()));
        Ok(Self(call.inputs.iter().filter_map(one).collect()))
    }
}

impl Wired {
    /// The frame that goes to stdin: the input called `input`, or else the first frame by name.
    pub(super) fn first_frame(&self) -> Option<&Stored> {
        let frame = |stored: &&Stored| stored.reference.kind == Kind::Frame;
        self.0.get("input").filter(frame).or_else(|| self.0.values().find(frame))
    }

    /// Names files with the inputs in variables. The files are the store's own where it has some on this machine.
    ///
    /// # Errors
    /// An input that has no file form or can't be read, two whose variables would have one name, a full disk.
    pub(super) fn files(&self, scratch: &mut Scratch) -> Result<Vec<Variable>> {
        let mut variables: Vec<Variable> = Vec::new();
        for (port, stored) in &self.0 {
            let ending = match stored.reference.kind {
                Kind::Frame => "arrow",
                Kind::Tensors | Kind::Model => "safetensors",
                Kind::Metrics => "json",
                Kind::Bytes => "bin",
                Kind::List => {
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
            stored.link(&path).context(format!("input {port:?}"))?;
            variables.push((variable, path.into_os_string()));
        }
        Ok(variables)
    }
}
