//! `ropeway export`

use super::{find_artifact, open};
use crate::cli::{Context, Exit};
use crate::data::{Artifact, Metrics, Ref};
use crate::rows::{FileFormat, tensors_as_json, write_frame};
use crate::store::Store;
use crate::{Context as _, Error, Result, runtime};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// `ropeway export ARTIFACT`
#[derive(clap::Args)]
pub(crate) struct Export {
    /// What to write: STAGE, STAGE.OUTPUT or RUN/STAGE.OUTPUT
    artifact: String,
    /// Where to write it [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to write it [default: as the file's name says, else CSV for tables, safetensors for models, JSON for the rest]
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// The store [default: file://.ropeway]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl Export {
    pub(crate) fn execute(self, _: &Context) -> Exit {
        let store = open(self.store.as_deref())?;
        let (reference, artifact) = find_artifact(&store, &self.artifact)?;
        let named = self.output.as_ref().and_then(|path| FileFormat::of(&path.to_string_lossy()));
        let format = self.format.or(named).unwrap_or(match artifact {
            Artifact::Frame(_) => FileFormat::Csv,
            Artifact::Tensors(_) | Artifact::Model(_) => FileFormat::Safetensors,
            _ => FileFormat::Json,
        });
        match &self.output {
            None => write(&store, reference, &artifact, format, BufWriter::new(io::stdout()))?,
            Some(path) => {
                // Written beside and then renamed: a reader sees the whole file or none.
                let beside = path.with_extension("part");
                let writing = || format!("can't write {}", path.display());
                let file = File::create(&beside).context(writing())?;
                let written = write(&store, reference, &artifact, format, BufWriter::new(file))
                    .and_then(|()| std::fs::rename(&beside, path).context(writing()));
                if written.is_err() {
                    let _ = std::fs::remove_file(&beside);
                }
                written?;
            }
        }
        Ok(0)
    }
}

fn write(
    store: &Store,
    reference: Ref,
    artifact: &Artifact,
    format: FileFormat,
    mut output: impl Write + Send,
) -> Result<()> {
    match (artifact, format) {
        (Artifact::Frame(frame), format) => return write_frame(output, frame, format),
        // The canonical bytes are safetensors already.
        (Artifact::Tensors(_) | Artifact::Model(_), FileFormat::Safetensors) | (Artifact::Bytes(_), _) => {
            output.write_all(&runtime()?.block_on(store.bytes(reference))?)?;
        }
        (Artifact::Metrics(metrics), FileFormat::Csv) => {
            writeln!(output, "name,value")?;
            metrics.iter().try_for_each(|(name, value)| writeln!(output, "{name},{value}"))?;
        }
        (artifact, FileFormat::Json) => {
            serde_json::to_writer(&mut output, &as_json(artifact)?)?;
            writeln!(output)?;
        }
        (artifact, format) => {
            let what = artifact.kind().with_article();
            return Err(Error::usage(format!("{what} can't be written as {format:?}").to_lowercase())
                .help("choose another format with --as"));
        }
    }
    Ok(output.flush()?)
}

fn as_json(artifact: &Artifact) -> Result<Value> {
    Ok(match artifact {
        Artifact::Frame(frame) => {
            let mut text = Vec::new();
            write_frame(&mut text, frame, FileFormat::Json)?;
            let rows = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
            Value::Array(rows.collect::<Result<_, _>>()?)
        }
        Artifact::Tensors(tensors) => tensors_as_json(tensors)?,
        Artifact::Model(model) => {
            json!({ "kind": model.kind(), "spec": model.spec(), "tensors": tensors_as_json(model.tensors())? })
        }
        Artifact::Metrics(metrics) => numbers(metrics),
        Artifact::List(list) => Value::Array(list.items().iter().map(as_json).collect::<Result<_>>()?),
        Artifact::Bytes(bytes) => Value::String(String::from_utf8_lossy(bytes).into_owned()),
    })
}

/// JSON has no infinities: they are written as text.
fn numbers(metrics: &Metrics) -> Value {
    let number = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
    metrics.iter().map(|(name, value)| (name.to_owned(), number(value))).collect()
}
