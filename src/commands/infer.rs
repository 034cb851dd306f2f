//! `ropeway infer`

use super::serve::endpoints;
use super::{did_you_mean, load, open_store};
use crate::cli::{Context, Exit, PipelineArgs};
use crate::data::Frame;
use crate::rows::{FileFormat, read, write_frame};
use crate::serving::{Client, Endpoint};
use crate::{Context as _, Error, Result};
use arrow::datatypes::SchemaRef;
use std::fs::File;
use std::io::{self, BufWriter, Read};

/// `ropeway infer TARGET ROWS`
#[derive(clap::Args)]
pub(crate) struct Infer {
    /// A pipeline file whose stages have run, or the URL of a server
    target: String,
    /// CSV or JSON rows; `-` for stdin
    #[arg(default_value = "-")]
    rows: String,
    /// Which endpoint or served model, if there are several
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What the rows are [default: as the file's name says, else JSON]
    #[arg(long = "from", value_enum, value_name = "FORMAT")]
    from: Option<FileFormat>,
    /// How to write the predictions [default: as the rows]
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// Another store than the pipeline's
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Change a value of the pipeline, as for `run`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl Infer {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let from = self.from.or_else(|| FileFormat::of(&self.rows)).unwrap_or(FileFormat::Json);
        let predictions = if self.target.starts_with("http://") || self.target.starts_with("https://") {
            let client = Client::new(&self.target)?;
            let model = match &self.model {
                Some(model) => model.clone(),
                None => only(client.models()?.into_iter().map(|entry| entry.name).collect())?,
            };
            let rows = self.read(from, &client.input_schema(&model)?)?;
            client.infer(&model, &rows)?
        } else {
            let args = PipelineArgs {
                pipeline: self.target.clone().into(),
                overrides: self.overrides.clone(),
                seed: None,
                store: self.store.clone(),
            };
            let pipeline = load(&args, context)?;
            let store = open_store(&args, &pipeline)?;
            let endpoint = self.choose(endpoints(&pipeline, &store, &context.registry, &self.target)?)?;
            endpoint.apply(&self.read(from, endpoint.schema())?)?
        };
        write_frame(BufWriter::new(io::stdout()), &predictions, self.format.unwrap_or(from))?;
        Ok(0)
    }

    fn read(&self, format: FileFormat, schema: &SchemaRef) -> Result<Frame> {
        let input: Box<dyn Read> = match self.rows.as_str() {
            "-" => Box::new(io::stdin().lock()),
            path => Box::new(File::open(path).map_err(|error| Error::usage(format!("can't read {path}: {error}")))?),
        };
        read(input, format, schema)
    }

    fn choose(&self, endpoints: Vec<Endpoint>) -> Result<Endpoint> {
        let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name().to_owned()).collect();
        let name = match &self.model {
            Some(name) => name.clone(),
            None => only(names.clone())?,
        };
        endpoints.into_iter().find(|endpoint| endpoint.name() == name).ok_or_else(|| {
            let error = Error::usage(format!("there is no endpoint {name:?}"));
            did_you_mean(error, &name, names.iter().map(String::as_str))
        })
    }
}

/// The one name there is.
fn only(mut names: Vec<String>) -> Result<String> {
    match names.len() {
        1 => names.pop().context("there is one name"),
        0 => Err(Error::usage("there are no models")),
        _ => Err(Error::usage(format!("there are several models: {}", names.join(", "))).help("name one with --model")),
    }
}
