//! The Open Inference Protocol, version 2, over HTTP: trained models as an endpoint, and the client for one.
//!
//! A [`Server`] answers for [`Endpoint`]s. An endpoint is a chain of loaded models that every request passes through
//! in order (usually the fitted features, then the trained model), so that callers send raw rows. The columns that
//! the chain reads are the endpoint's input tensors, those that it gives are its output tensors.
//!
//! # Tensors and columns
//!
//! | Arrow type of the column | datatype | shape |
//! |---|---|---|
//! | boolean, integers, floats | `BOOL`, `INT8` … `UINT64`, `FP16`, `FP32`, `FP64` | `[rows]` |
//! | text, binary | `BYTES` | `[rows]` |
//! | dates, times, timestamps, decimals | `BYTES`: ISO 8601 text, decimal text | `[rows]` |
//! | dictionary | that of its values | `[rows]` |
//! | fixed-size list of any of these | that of its items | `[rows, n]`, nested lists `[rows, n, m]` |
//!
//! An input may come in any shape `[rows, …]` that has the right number of elements a row, and in any number type
//! from which each of its values converts exactly (`INT64` for `FP64`, not 0.1 as `FP64` for `FP32`). `BF16` is read
//! and written as binary data only, as the protocol says. The protocol has no nulls, so they are refused in both
//! directions.
//!
//! JSON carries every other datatype. Floats are written with the fewest digits that read back to the same bits.
//! JSON has no numbers for them, so NaN and the infinities are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`,
//! as in the JSON mapping of Protocol Buffers, both ways. `BYTES` that are no UTF-8 need the
//! binary tensor data extension, which is complete: `binary_data_size`, `binary_data`, `binary_data_output`, and
//! requests of raw bytes (`Inference-Header-Content-Length: 0`).
//!
//! # Finding one's way
//!
//! `server` binds and stops, `accept` takes connections and `connection` drives one, `body` reads a request to its end,
//! `http` routes it, `infer` takes it apart and puts its answer together, `runner` decides when models run (dynamic
//! batching belongs there), `tensor` turns columns into tensors and back, `json` and `binary` are the two forms of a
//! tensor's elements, `message` chooses between them, `protocol` holds the JSON objects. `client` asks, and
//! `transport` is its side of HTTP.

mod accept;
mod binary;
mod body;
mod client;
mod connection;
mod convert;
mod datatype;
mod endpoint;
mod http;
mod infer;
mod json;
mod message;
mod metrics;
mod protocol;
mod refusal;
mod runner;
mod server;
mod tensor;
mod transport;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use datatype::Datatype;
pub use endpoint::Endpoint;
pub use metrics::MetricsServer;
pub use protocol::{IndexEntry, ModelMetadata, ServerMetadata, TensorMetadata};
pub use server::{Bound, Limits, Server};
