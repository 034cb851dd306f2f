//! `command`: any program as a stage.
//!
//! What the program gets:
//!
//! - **stdin**: the input frame as an Arrow IPC stream (the input called `input`, or else the first frame by name);
//! - **`ROPEWAY_INPUT_<PORT>`**: the path of a file with that input, if there are several inputs or the one is no
//!   frame: an Arrow IPC file (Feather) for a frame, safetensors for tensors and models, JSON for metrics;
//! - **`ROPEWAY_PARAMS`**: its parameters, as a JSON object;
//! - **`ROPEWAY_SEED`**: a number below 2^32 that depends on the run's seed and the stage's name;
//! - of the environment only what programs need to start (`PATH`, `HOME` and a few more), what `env` states, and
//!   `PYTHONHASHSEED=0`, so that Python's sets have the same order in every run. A setting that is not named is not
//!   there: a result must not depend on who runs it.
//!
//! What it gives: an Arrow IPC stream on stdout, and nothing else there. What it writes to stderr becomes the stage's
//! log. It runs in the current directory and in a process group of its own; the whole group is killed when the program
//! ends, takes longer than `timeout`, or the run is interrupted; if the process that runs it is killed, the program is
//! killed with it (on Linux). Files among its arguments, such as the script, are
//! part of the key: a changed script runs again.
//!
//! ```python
//! import json, os, sys
//! import pyarrow as pa
//!
//! rows = pa.ipc.open_stream(sys.stdin.buffer).read_all()
//! params = json.loads(os.environ["ROPEWAY_PARAMS"])
//! with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as out:
//!     out.write_table(rows.slice(0, params["rows"]))
//! ```
//!
//! # Files instead of pipes
//!
//! With `io = "files"` no byte goes through a pipe:
//!
//! - every input is a file, also a single frame: **`ROPEWAY_INPUT_<PORT>`** is its path. If the store has it as a file on
//!   this machine, it is that very file, so that a program that maps it reads what other processes have in memory
//!   already; it may only be read. stdin is empty;
//! - **`ROPEWAY_OUTPUT`** is a folder, in which the program writes its result as `output.arrow`, an Arrow IPC file;
//! - what it writes to stdout is logged as what it writes to stderr is.
//!
//! ```python
//! import os
//! import pyarrow as pa
//!
//! with pa.memory_map(os.environ["ROPEWAY_INPUT_INPUT"]) as file:
//!     rows = pa.ipc.open_file(file).read_all()        # maps the columns, and copies nothing
//!     result = rows.filter(pa.compute.field("n") > 5)
//!     with pa.OSFile(os.environ["ROPEWAY_OUTPUT"] + "/output.arrow", "wb") as file:
//!         with pa.ipc.new_file(file, result.schema) as out:
//!             out.write_table(result)
//! ```

mod outcome;
mod ports;
mod process;

use self::ports::Wired;
use self::process::{Program, Travel};
use crate::period::Period;
use ropeway_framework::data::{Digest, Frame};
use ropeway_framework::stage::{Cancel, FnStage, Params, Progress, Registry, Scratch, Seed};
use ropeway_framework::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The parameters of `command`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The program and its arguments. No shell reads them; for one, say `["sh", "-c", "..."]`.
    pub run: Words,
    /// What the program finds in `ROPEWAY_PARAMS`.
    #[serde(default)]
    pub params: BTreeMap<String, serde_json::Value>,
    /// More environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long it may run: `"500ms"`, `"60s"`, `"5m"`, `"2h"`; as long as it needs if not stated.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// Whether what it writes to stderr is logged.
    #[serde(default = "yes")]
    pub log: bool,
    /// How its input and output travel.
    #[serde(default)]
    pub io: Io,
}

/// How frames travel to a program and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// As Arrow IPC streams on stdin and stdout.
    #[default]
    Pipe,
    /// As Arrow IPC files, which the program can map.
    Files,
}

fn yes() -> bool {
    true
}

/// A program and its arguments.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
#[schemars(with = "Vec<String>")]
pub struct Words {
    program: String,
    arguments: Vec<String>,
}

impl TryFrom<Vec<String>> for Words {
    type Error = &'static str;

    fn try_from(words: Vec<String>) -> Result<Self, Self::Error> {
        let mut words = words.into_iter();
        match words.next() {
            Some(program) if !program.is_empty() => Ok(Self { program, arguments: words.collect() }),
            _ => Err("expected a program and its arguments: [\"python3\", \"score.py\"]"),
        }
    }
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        std::iter::once(words.program).chain(words.arguments).collect()
    }
}

/// The stages of this module.
pub fn registry() -> Registry {
    Registry::new().stage("command", stage())
}

fn stage() -> FnStage {
    ropeway_framework::stage::stage(command)
        .inputs(["input"])
        .version(1)
        .about("Runs any program: Arrow IPC in on stdin and out on stdout, parameters and seed in the environment.")
        .fingerprint(|params: CommandParams| files(&params.run))
}

fn command(
    inputs: Wired,
    Params(params): Params<CommandParams>,
    seed: Seed,
    progress: Progress,
    cancel: Cancel,
    mut scratch: Scratch,
) -> Result<Frame> {
    let mut environment = ports::inherited();
    let travel = match params.io {
        Io::Pipe => {
            let first = inputs.first_frame();
            if inputs.0.len() > 1 || first.is_none() {
                environment.extend(inputs.files(&mut scratch)?);
            }
            Travel::Pipe(first.map(|frame| frame.load_as::<Frame>()).transpose()?)
        }
        Io::Files => {
            environment.extend(inputs.files(&mut scratch)?);
            let folder = scratch.path()?.join("output");
            std::fs::create_dir(&folder).context(format!("can't make {}", folder.display()))?;
            environment.push(("ROPEWAY_OUTPUT".into(), folder.clone().into_os_string()));
            Travel::File(folder.join("output.arrow"))
        }
    };
    environment.push(("ROPEWAY_PARAMS".into(), serde_json::to_string(&params.params)?.into()));
    environment.push(("ROPEWAY_SEED".into(), (seed.number("command") >> 32).to_string().into()));
    environment.push(("PYTHONHASHSEED".into(), "0".into()));
    environment.extend(params.env.into_iter().map(|(key, value)| (key.into(), value.into())));
    let program = Program {
        program: params.run.program,
        arguments: params.run.arguments,
        environment,
        timeout: params.timeout.map(Period::get),
        log: params.log,
    };
    program.run(&travel, &progress, &cancel)
}

/// The content of the files among the words, such as the script.
fn files(words: &Words) -> Result<String> {
    let mut whole = blake3::Hasher::new();
    for (place, word) in std::iter::once(&words.program).chain(&words.arguments).enumerate() {
        // A bare program name is looked up in PATH, even if a file here has that name.
        if (place == 0 && !word.contains('/')) || !Path::new(word).is_file() {
            continue;
        }
        let digest = File::open(word).and_then(|file| Digest::of_file(&file, file.metadata()?.len()));
        whole.update(&(place as u64).to_le_bytes());
        whole.update(digest.context(format!("can't read {word}"))?.as_bytes());
    }
    Ok(whole.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests;
