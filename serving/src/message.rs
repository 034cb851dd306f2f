//! A tensor in a message: in the JSON object itself, or as bytes behind it.

use crate::Datatype;
use crate::binary::{self, Tail};
use crate::json::{self, Elements};
use crate::protocol::{Parameters, WireTensor};
use crate::tensor::{Tensor, elements};
use ropeway_framework::{Context, Error, Result};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Puts a tensor into a message; binary data goes to the end of `tail`.
pub(crate) fn pack<'a>(name: &str, tensor: &'a Tensor, binary: bool, tail: &mut Vec<u8>) -> WireTensor<Elements<'a>> {
    let shape = tensor.shape.iter().map(|side| i64::try_from(*side).unwrap_or(i64::MAX)).collect();
    let mut wire = WireTensor {
        name: name.to_owned(),
        shape,
        datatype: tensor.datatype.to_string(),
        parameters: None,
        data: None,
    };
    if binary {
        let start = tail.len();
        binary::write(&tensor.values, tensor.datatype, tail);
        let size = Value::from(tail.len() - start);
        wire.parameters = Some(Parameters::from_iter([("binary_data_size".to_owned(), size)]));
    } else {
        wire.data = Some(Elements { datatype: tensor.datatype, values: &tensor.values });
    }
    wire
}

/// The bytes of a message and, where it has binary data, the length of its JSON.
pub(crate) fn seal(message: &impl Serialize, tail: &[u8], binary: bool) -> Result<(Vec<u8>, Option<usize>)> {
    let mut body = Vec::with_capacity(tail.len() + 256);
    serde_json::to_writer(&mut body, message)
        .map_err(|error| Error::usage(error).help("ask for binary data: the parameter \"binary_data_output\": true"))?;
    let header = binary.then_some(body.len());
    body.extend(tail);
    Ok((body, header))
}

/// Takes a tensor out of a message.
///
/// # Errors
/// Anything that is not as the protocol wants it; the error names the tensor.
pub(crate) fn unpack(wire: &WireTensor<&RawValue>, tail: &mut Tail<'_>) -> Result<Tensor> {
    take_out(wire, tail).context(format!("tensor {:?}", wire.name))
}

fn take_out(wire: &WireTensor<&RawValue>, tail: &mut Tail<'_>) -> Result<Tensor> {
    let datatype: Datatype = wire.datatype.parse()?;
    let shape = sides(&wire.shape)?;
    if let Some(region) = parameter(&wire.parameters, "shared_memory_region") {
        return Err(Error::usage(format!("shared memory ({region}) is not supported")).help("send the data itself"));
    }
    let values = match (parameter(&wire.parameters, "binary_data_size"), wire.data) {
        (Some(_), Some(_)) => return Err(Error::usage("it has both data and binary_data_size")),
        (Some(size), None) => {
            let size =
                size.as_u64().ok_or_else(|| Error::usage(format!("binary_data_size is {size}, no number of bytes")))?;
            binary::read(tail.take(size)?, datatype, &shape)?
        }
        (None, Some(data)) => json::read(data.get(), datatype, &shape)?,
        (None, None) => return Err(Error::usage("it has no data")),
    };
    Ok(Tensor { datatype, shape, values })
}

fn sides(shape: &[i64]) -> Result<Vec<usize>> {
    let sides: Option<Vec<usize>> = shape.iter().map(|side| usize::try_from(*side).ok()).collect();
    let sides = sides.ok_or_else(|| {
        Error::usage(format!("the shape {shape:?} has a negative side")).help("a request gives the length of each side")
    })?;
    elements(&sides).ok_or_else(|| Error::usage(format!("the shape {shape:?} has too many elements")))?;
    Ok(sides)
}

/// A parameter, unless it is missing or null.
pub(crate) fn parameter<'a>(parameters: &'a Option<Parameters>, name: &str) -> Option<&'a Value> {
    parameters.as_ref()?.get(name).filter(|value| !value.is_null())
}

/// A parameter that is true or false.
pub(crate) fn flag(parameters: &Option<Parameters>, name: &str) -> Result<Option<bool>> {
    match parameter(parameters, name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(Error::usage(format!("the parameter {name:?} is {other}, not true or false"))),
    }
}
