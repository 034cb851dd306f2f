//! What a server answers for: a chain of models under a name and a version.

use crate::tensor::Column;
use crate::{ModelMetadata, TensorMetadata};
use arrow::datatypes::{Field, Schema, SchemaRef};
use ropeway_framework::data::Frame;
use ropeway_framework::stage::Apply;
use ropeway_framework::{Context, Error, Fault, Result, nearest};
use std::fmt;
use std::sync::Arc;

/// A chain of models that a request passes through in order, under a name and a version.
pub struct Endpoint {
    name: String,
    version: String,
    chain: Vec<Arc<dyn Apply>>,
    schema: SchemaRef,
    inputs: Vec<Column>,
    outputs: Vec<Column>,
}

impl Endpoint {
    /// An endpoint. Its inputs are the columns that the first model reads, without those that a model of the chain
    /// was fitted to predict; its outputs are the columns that the last model gives.
    ///
    /// # Errors
    /// No models, a column that the protocol has no tensor for, or a model that reads a column which the one before
    /// it does not give.
    pub fn new<M: Into<Arc<dyn Apply>>>(
        name: impl Into<String>,
        version: impl Into<String>,
        chain: impl IntoIterator<Item = M>,
    ) -> Result<Self> {
        let (name, version) = (name.into(), version.into());
        let chain: Vec<Arc<dyn Apply>> = chain.into_iter().map(Into::into).collect();
        if name.is_empty() || version.is_empty() {
            return Err(Error::usage("an endpoint needs a name and a version"));
        }
        let context = format!("endpoint {name:?}");
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
            return Err(Error::usage("it has no models").context(context));
        };
        let is_target = |field: &Field| chain.iter().any(|model| model.target() == Some(field.name()));
        for pair in chain.windows(2) {
            let [before, after] = pair else { continue };
            check_link(&before.output(), &after.input(), is_target).context(&context)?;
        }
        let fields: Vec<_> = first.input().fields().iter().filter(|field| !is_target(field)).cloned().collect();
        if fields.is_empty() || last.output().fields().is_empty() {
            return Err(Error::usage("its models must read and give at least one column").context(context));
        }
        let inputs = fields.iter().map(Column::of).collect::<Result<_>>().context(&context)?;
        let outputs = last.output().fields().iter().map(Column::of).collect::<Result<_>>().context(&context)?;
        Ok(Self { name, version, chain, schema: Arc::new(Schema::new(fields)), inputs, outputs })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The tensors that it takes.
    pub fn inputs(&self) -> Vec<TensorMetadata> {
        self.inputs.iter().map(Column::metadata).collect()
    }

    /// The tensors that it gives.
    pub fn outputs(&self) -> Vec<TensorMetadata> {
        self.outputs.iter().map(Column::metadata).collect()
    }

    /// Passes rows through the chain.
    ///
    /// # Errors
    /// Those of the models, or a model that does not give one row a row.
    pub fn apply(&self, rows: &Frame) -> Result<Frame> {
        let mut frame = rows.clone();
        for model in &self.chain {
            frame = model.apply(&frame)?;
            if frame.rows() != rows.rows() {
                let message = format!("a model gave {} rows for {}", frame.rows(), rows.rows());
                return Err(Error::new(message).fault(Fault::Bug));
            }
        }
        Ok(frame)
    }

    pub(crate) fn metadata(&self, versions: Vec<String>) -> ModelMetadata {
        let platform = "ropeway".to_owned();
        ModelMetadata { name: self.name.clone(), versions, platform, inputs: self.inputs(), outputs: self.outputs() }
    }

    /// The columns that rows must have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn input_columns(&self) -> &[Column] {
        &self.inputs
    }

    pub(crate) fn output_columns(&self) -> &[Column] {
        &self.outputs
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

fn check_link(given: &Schema, read: &Schema, is_target: impl Fn(&Field) -> bool) -> Result<()> {
    let missing = read.fields().iter().find(|field| !is_target(field) && given.index_of(field.name()).is_err());
    let Some(missing) = missing else { return Ok(()) };
    let message = format!("a model reads column {:?}, which the model before it does not give", missing.name());
    Err(Error::usage(message)
        .help(format!("it gives {}", names(given.fields().iter().map(|field| field.name().as_str())))))
}

/// Finds a tensor by name.
///
/// # Errors
/// There is none; the error says which was probably meant, or which there are.
pub(crate) fn find(columns: &[Column], name: &str, what: &str) -> Result<usize> {
    columns.iter().position(|column| column.name() == name).ok_or_else(|| {
        let error = Error::usage(format!("the model has no {what} {name:?}"));
        match nearest(name, columns.iter().map(Column::name)) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error.help(format!("its {what}s are {}", names(columns.iter().map(Column::name)))),
        }
    })
}

/// At most a dozen names, quoted.
pub(crate) fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = all.into_iter();
    let mut names: Vec<String> = all.by_ref().take(12).map(|name| format!("{name:?}")).collect();
    match all.count() {
        0 => {}
        more => names.push(format!("and {more} more")),
    }
    names.join(", ")
}
