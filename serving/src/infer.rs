//! One inference request, taken apart, and its answer, put together.

use crate::binary::{self, Tail};
use crate::endpoint::{Endpoint, find, names};
use crate::message::{flag, pack, parameter, seal, unpack};
use crate::protocol::{InferRequest, InferResponse, RequestOutput};
use crate::tensor::{Column, Tensor};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Error, Fault, Result};
use serde_json::value::RawValue;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    id: Option<String>,
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    output: usize,
    binary: bool,
}

/// The body of an answer and, where it has binary data, the length of its JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) header: Option<usize>,
}

/// The rows of a request and what it asks for.
///
/// # Errors
/// Anything in it that is wrong, in words for its sender.
pub(crate) fn decode(endpoint: &Endpoint, body: &[u8], header: Option<usize>) -> Result<(Asked, Frame)> {
    if header == Some(0) {
        return raw(endpoint, body);
    }
    let (json, mut tail) = binary::split(body, header)?;
    if json.is_empty() {
        return Err(Error::usage("the request has no body").help("it must be a JSON object with \"inputs\""));
    }
    let text = std::str::from_utf8(json).map_err(|error| {
        Error::usage(format!("the request is no JSON: byte {} is no UTF-8", error.valid_up_to()))
            .help("with binary data, the header Inference-Header-Content-Length gives the length of the JSON")
    })?;
    let request: InferRequest<&RawValue> = serde_json::from_str(text)
        .map_err(|error| Error::usage(format!("the request is no inference request: {error}")))?;
    let columns = columns(endpoint, &request, &mut tail)?;
    tail.finish()?;
    let all_binary = flag(&request.parameters, "binary_data_output")?.unwrap_or(false);
    let wanted = match request.outputs.as_deref() {
        None | Some([]) => everything(endpoint, all_binary),
        Some(outputs) => some(endpoint, outputs, all_binary)?,
    };
    Ok((Asked { id: request.id, wanted }, frame(endpoint, columns)?))
}

fn columns(endpoint: &Endpoint, request: &InferRequest<&RawValue>, tail: &mut Tail<'_>) -> Result<Vec<ArrayRef>> {
    let inputs = endpoint.input_columns();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; inputs.len()];
    let places = request.inputs.iter().map(|tensor| find(inputs, &tensor.name, "input")).collect::<Result<Vec<_>>>()?;
    for (wire, place) in request.inputs.iter().zip(places) {
        let (Some(input), Some(column)) = (inputs.get(place), columns.get_mut(place)) else { continue };
        let tensor = unpack(wire, tail)?;
        let read = input.read(tensor).context(format!("tensor {:?}", wire.name))?;
        if column.replace(read).is_some() {
            return Err(Error::usage(format!("tensor {:?} is given twice", wire.name)));
        }
    }
    let missing = inputs.iter().zip(&columns).filter(|(_, column)| column.is_none()).map(|(input, _)| input.name());
    let missing: Vec<&str> = missing.collect();
    match missing.as_slice() {
        [] => Ok(columns.into_iter().flatten().collect()),
        [one] => Err(Error::usage(format!("the input {one:?} is missing")).help(takes(inputs))),
        many => {
            Err(Error::usage(format!("the inputs {} are missing", names(many.iter().copied()))).help(takes(inputs)))
        }
    }
}

fn takes(inputs: &[Column]) -> String {
    format!("the model takes {}", names(inputs.iter().map(Column::name)))
}

fn frame(endpoint: &Endpoint, columns: Vec<ArrayRef>) -> Result<Frame> {
    let mut inputs = endpoint.input_columns().iter().zip(&columns);
    let Some((first, rows)) = inputs.next().map(|(input, column)| (input.name(), column.len())) else {
        return Err(Error::new("the model takes no inputs").fault(Fault::Bug));
    };
    if let Some((other, column)) = inputs.find(|(_, column)| column.len() != rows) {
        let message =
            format!("the inputs differ in rows: {first:?} has {rows}, {:?} has {}", other.name(), column.len());
        return Err(Error::usage(message).help("the first side of every tensor is the number of rows"));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = endpoint.schema().clone();
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    Frame::new(schema, vec![batch])
}

fn everything(endpoint: &Endpoint, binary: bool) -> Vec<Wanted> {
    (0..endpoint.output_columns().len()).map(|output| Wanted { output, binary }).collect()
}

fn some(endpoint: &Endpoint, outputs: &[RequestOutput], all_binary: bool) -> Result<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> = Vec::with_capacity(outputs.len());
    for asked in outputs {
        let output = find(endpoint.output_columns(), &asked.name, "output")?;
        if wanted.iter().any(|other| other.output == output) {
            return Err(Error::usage(format!("output {:?} is asked for twice", asked.name)));
        }
        for extension in ["classification", "shared_memory_region"] {
            if parameter(&asked.parameters, extension).is_some() {
                let message = format!("output {:?}: the parameter {extension:?} is not supported", asked.name);
                return Err(Error::usage(message));
            }
        }
        let binary = flag(&asked.parameters, "binary_data").context(format!("output {:?}", asked.name))?;
        wanted.push(Wanted { output, binary: binary.unwrap_or(all_binary) });
    }
    Ok(wanted)
}

/// A request without JSON: the body is the only input's data, and all outputs are answered as binary data.
fn raw(endpoint: &Endpoint, body: &[u8]) -> Result<(Asked, Frame)> {
    let [input] = endpoint.input_columns() else {
        let message = "a request of raw bytes (Inference-Header-Content-Length: 0) is for models with one input";
        return Err(Error::usage(message).help(takes(endpoint.input_columns())));
    };
    let read = match input.datatype.size() {
        Some(size) => {
            let row = input.width().saturating_mul(size);
            let shape = [&[body.len() / row.max(1)], input.sides.as_slice()].concat();
            let values = binary::read(body, input.datatype, &shape)?;
            input.read(Tensor { datatype: input.datatype, shape, values })
        }
        None => {
            let values: ArrayRef = std::sync::Arc::new(arrow::array::BinaryArray::from_vec(vec![body]));
            input.read(Tensor { datatype: input.datatype, shape: vec![1], values })
        }
    };
    let column = read.context(format!("tensor {:?}", input.name()))?;
    Ok((Asked { id: None, wanted: everything(endpoint, true) }, frame(endpoint, vec![column])?))
}

/// The answer to a request.
///
/// # Errors
/// An output that the models did not give as they said, or that the protocol can't carry.
pub(crate) fn encode(endpoint: &Endpoint, asked: Asked, frame: &Frame) -> Result<Answer> {
    let mut tensors = Vec::with_capacity(asked.wanted.len());
    for wanted in asked.wanted {
        let Some(output) = endpoint.output_columns().get(wanted.output) else { continue };
        let tensor = frame.column(output.name()).and_then(|column| output.write(&column));
        tensors.push((output.name(), tensor.context(format!("output {:?}", output.name()))?, wanted.binary));
    }
    let mut tail = Vec::new();
    let outputs = tensors.iter().map(|(name, tensor, binary)| pack(name, tensor, *binary, &mut tail)).collect();
    let response = InferResponse {
        model_name: endpoint.name().to_owned(),
        model_version: Some(endpoint.version().to_owned()),
        id: asked.id,
        outputs,
    };
    let (body, header) = seal(&response, &tail, tensors.iter().any(|(_, _, binary)| *binary))?;
    Ok(Answer { body, header })
}
