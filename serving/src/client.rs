//! A client for any server of the protocol.

use crate::binary;
use crate::message::{pack, seal, unpack};
use crate::protocol::{InferRequest, InferResponse, Parameters};
use crate::tensor::{Column, Tensor, elements, nest};
use crate::transport::{Transport, segment};
use crate::{Datatype, IndexEntry, ModelMetadata, ServerMetadata, TensorMetadata};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Error, Fault, Result};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::sync::{Arc, OnceLock};

/// About how many bytes of rows go into one request.
const REQUEST_BYTES: usize = 8 << 20;

/// A client that blocks. It speaks to any server of the protocol, with binary data where the server takes it.
///
/// ```no_run
/// # use ropeway_serving::Client;
/// # fn predict(rows: ropeway_framework::data::Frame) -> ropeway_framework::Result<()> {
/// let predictions = Client::new("http://127.0.0.1:8080")?.infer("digits", &rows)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    version: Option<String>,
    rows: usize,
    binary: OnceLock<bool>,
}

impl Client {
    /// A client of the server at a URL, such as `http://127.0.0.1:8080`. Nothing is sent yet.
    ///
    /// # Errors
    /// It is no URL.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { transport: Transport::new(url)?, version: None, rows: 4096, binary: OnceLock::new() })
    }

    /// Asks for this version of models; without, the server chooses.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sends at most this many rows in a request; 4096 by default, fewer where rows are large.
    pub fn rows_per_request(mut self, rows: usize) -> Self {
        self.rows = rows.max(1);
        self
    }

    /// Sends and asks for JSON, even where the server takes binary data.
    pub fn json(mut self) -> Self {
        self.binary = OnceLock::from(false);
        self
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// It can't be reached, or does not answer as the protocol says.
    pub fn server(&self) -> Result<ServerMetadata> {
        self.get("/v2")
    }

    /// The models of the server, by its repository index.
    ///
    /// # Errors
    /// It can't be reached, or has no such index.
    pub fn models(&self) -> Result<Vec<IndexEntry>> {
        let (_, body) = self.transport.exchange("/v2/repository/index", Some((b"{}", None)))?;
        parse(&body)
    }

    /// What the server says about a model: the names, types and shapes of its inputs and outputs.
    ///
    /// # Errors
    /// It can't be reached, or has no such model.
    pub fn metadata(&self, model: &str) -> Result<ModelMetadata> {
        self.get(&self.path(model))
    }

    /// The columns that a model takes, as Arrow types: text for `BYTES`, fixed-size lists for further sides.
    ///
    /// # Errors
    /// It can't be reached, has no such model, or takes tensors of any width.
    pub fn input_schema(&self, model: &str) -> Result<SchemaRef> {
        let mut fields = Vec::new();
        for input in self.metadata(model)?.inputs {
            let values = match input.datatype {
                Datatype::Bytes => DataType::Utf8,
                other => other.arrow(),
            };
            let mut sides = input.shape.iter().skip(1).rev();
            let nested = sides.try_fold(values, |inner, side| {
                let side = i32::try_from(*side).ok().filter(|side| *side >= 0)?;
                Some(DataType::FixedSizeList(Arc::new(Field::new("item", inner, false)), side))
            });
            let nested = nested.context(format!("input {:?} takes tensors of any width", input.name))?;
            fields.push(Field::new(input.name, nested, false));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// What a model gives for rows: one row a row. The rows' columns of the names of the model's inputs are sent,
    /// others are left out; numbers are sent in the model's type if no value changes by that.
    ///
    /// # Errors
    /// A column that is missing, has a null or another type; a server that can't be reached or refuses the rows.
    pub fn infer(&self, model: &str, rows: &Frame) -> Result<Frame> {
        let metadata = self.metadata(model)?;
        let binary = match self.binary.get() {
            Some(binary) => *binary,
            None => {
                let extensions = self.server()?.extensions;
                *self.binary.get_or_init(|| extensions.iter().any(|name| name == "binary_tensor_data"))
            }
        };
        let names: Vec<&str> = metadata.inputs.iter().map(|input| input.name.as_str()).collect();
        let lacks = |error: Error| {
            error.context(format!("model {model:?} takes a column that the rows lack")).fault(Fault::Usage)
        };
        let rows = rows.select(&names).map_err(lacks)?;
        let path = format!("{}/infer", self.path(model));
        let mut answers = Vec::new();
        for part in self.parts(&rows) {
            answers.push(self.infer_part(&path, &metadata.inputs, &part, binary)?);
        }
        let frame = join(&metadata.outputs, &answers)?;
        if frame.rows() != rows.rows() {
            return Err(Error::new(format!("the server gave {} rows for {}", frame.rows(), rows.rows())));
        }
        Ok(frame)
    }

    /// The rows in pieces of one request each; one piece without rows if there are none.
    fn parts(&self, rows: &Frame) -> Vec<RecordBatch> {
        let mut parts = Vec::new();
        for batch in rows.batches().iter().filter(|batch| batch.num_rows() > 0) {
            let row = (batch.get_array_memory_size() / batch.num_rows()).max(1);
            let size = self.rows.min(REQUEST_BYTES / row).max(1);
            for start in (0..batch.num_rows()).step_by(size) {
                parts.push(batch.slice(start, size.min(batch.num_rows() - start)));
            }
        }
        if parts.is_empty() {
            parts.push(RecordBatch::new_empty(rows.schema().clone()));
        }
        parts
    }

    fn infer_part(
        &self,
        path: &str,
        inputs: &[TensorMetadata],
        rows: &RecordBatch,
        binary: bool,
    ) -> Result<Vec<(String, Tensor)>> {
        let schema = rows.schema();
        let mut tensors = Vec::with_capacity(inputs.len());
        for ((input, column), field) in inputs.iter().zip(rows.columns()).zip(schema.fields()) {
            let tensor = Column::of(field).and_then(|of| fit(of.write(column)?, input));
            // What can't be sent is the rows' fault, and they are the caller's.
            let misfit = |error: Error| error.context(format!("column {:?}", input.name)).fault(Fault::Usage);
            tensors.push(tensor.map_err(misfit)?);
        }
        let mut tail = Vec::new();
        let packed = inputs.iter().zip(&tensors).map(|(input, tensor)| pack(&input.name, tensor, binary, &mut tail));
        let inputs = packed.collect();
        let parameters = binary.then(|| Parameters::from_iter([("binary_data_output".to_owned(), true.into())]));
        let request = InferRequest { id: None, parameters, inputs, outputs: None };
        let (body, header) = seal(&request, &tail, binary)?;
        let (header, answer) = self.transport.exchange(path, Some((&body, header)))?;
        outputs(&answer, header).context(format!("the answer of {} is not as the protocol says", self.transport.base()))
    }

    fn path(&self, model: &str) -> String {
        match &self.version {
            Some(version) => format!("/v2/models/{}/versions/{}", segment(model), segment(version)),
            None => format!("/v2/models/{}", segment(model)),
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (_, body) = self.transport.exchange(path, None)?;
        parse(&body).context(format!("{}{path}", self.transport.base()))
    }
}

/// Gives a tensor the datatype and shape that a model wants.
fn fit(tensor: Tensor, wanted: &TensorMetadata) -> Result<Tensor> {
    let mut tensor = tensor.convert(wanted.datatype)?;
    let sides: Option<Vec<usize>> = wanted.shape.iter().skip(1).map(|side| usize::try_from(*side).ok()).collect();
    // A side that may be of any length is taken as the column has it.
    let Some(sides) = sides else { return Ok(tensor) };
    let (rows, found) = tensor.shape.split_first().context("a tensor needs rows")?;
    if elements(found) != elements(&sides) {
        return Err(Error::usage(format!("the model takes rows of shape {sides:?}, found {found:?}")));
    }
    tensor.shape = [&[*rows], sides.as_slice()].concat();
    Ok(tensor)
}

fn outputs(body: &[u8], header: Option<usize>) -> Result<Vec<(String, Tensor)>> {
    let (json, mut tail) = binary::split(body, header)?;
    let text = std::str::from_utf8(json)?;
    let response: InferResponse<&RawValue> = serde_json::from_str(text)?;
    let tensors = response.outputs.iter().map(|wire| Ok((wire.name.clone(), unpack(wire, &mut tail)?)));
    let tensors = tensors.collect::<Result<_>>()?;
    tail.finish()?;
    Ok(tensors)
}

/// The answers below each other, in the order of the model's outputs. `BYTES` become text if all of them are.
fn join(outputs: &[TensorMetadata], answers: &[Vec<(String, Tensor)>]) -> Result<Frame> {
    let mut fields: Vec<Field> = Vec::with_capacity(outputs.len());
    let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(outputs.len()); answers.len()];
    for output in outputs {
        let name = &output.name;
        let tensors = answers.iter().map(|answer| {
            let found = answer.iter().find(|(found, _)| found == name).map(|(_, tensor)| tensor);
            found.filter(|tensor| !tensor.shape.is_empty()).context(format!("the server gave no rows of {name:?}"))
        });
        let tensors: Vec<&Tensor> = tensors.collect::<Result<_>>()?;
        let text = tensors.iter().all(|tensor| tensor.is_text());
        let Some(field) = tensors.first().map(|tensor| tensor.field(name, text)) else { continue };
        for (tensor, columns) in tensors.iter().zip(&mut columns) {
            if tensor.field(name, text) != field {
                return Err(Error::new(format!("the server changed the type or shape of {name:?} between rows")));
            }
            columns.push(nest(field.data_type(), tensor)?);
        }
        fields.push(field);
    }
    let schema = Arc::new(Schema::new(fields));
    let batches = columns.into_iter().map(|columns| Ok(RecordBatch::try_new(schema.clone(), columns)?));
    let batches = batches.collect::<Result<Vec<_>>>()?;
    Frame::new(schema, batches)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).context("the server's answer is not as the protocol says")
}
