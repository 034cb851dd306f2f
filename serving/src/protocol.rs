//! The JSON objects of the protocol's HTTP/REST form.

use crate::Datatype;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a server says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// Which server it is.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// The extensions of the protocol that it has.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// What a server says about a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// The versions that can be asked for.
    #[serde(default)]
    pub versions: Vec<String>,
    /// What runs it.
    #[serde(default)]
    pub platform: String,
    /// The tensors that it takes.
    pub inputs: Vec<TensorMetadata>,
    /// The tensors that it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// What a tensor of a model looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: Datatype,
    /// The length of each side, outermost first; -1 is any. The first side is the rows.
    pub shape: Vec<i64>,
}

/// A model in the list of a server's models (the index of the model repository extension).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// `READY`, or why it is not.
    #[serde(default)]
    pub state: String,
}

/// Whether a model is ready.
#[derive(Debug, Serialize)]
pub(crate) struct ModelReady<'a> {
    pub(crate) name: &'a str,
    pub(crate) ready: bool,
}

/// Settings of a request, an answer or one of its tensors.
pub(crate) type Parameters = Map<String, Value>;

/// A request; `D` is the form of its data: raw JSON when read, elements when written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(crate) struct InferRequest<D> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<Parameters>,
    pub(crate) inputs: Vec<WireTensor<D>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outputs: Option<Vec<RequestOutput>>,
}

/// An output that a request asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestOutput {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<Parameters>,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(crate) struct InferResponse<D> {
    #[serde(default)]
    pub(crate) model_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) outputs: Vec<WireTensor<D>>,
}

/// A tensor in a request or an answer. Binary data has no `data` but the parameter `binary_data_size`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(crate) struct WireTensor<D> {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) datatype: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<Parameters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<D>,
}

/// What every failed request is answered with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: String,
}
