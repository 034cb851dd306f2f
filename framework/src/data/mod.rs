//! What flows between stages: immutable artifacts, named by the digest of their one canonical form.

mod canonical;
mod codec;
mod digest;
mod frame;
mod gather;
mod held;
mod ipc;
pub(crate) mod json;
mod list;
mod metrics;
mod model;
pub(crate) mod numbers;
mod pieces;
mod tensor_file;
mod tensors;
mod unnamed;
mod weight;

pub use codec::{Encoded, decode, encode, encode_list, encode_owned, list_items, read_safetensors};
pub use digest::Digest;
pub use frame::{BATCH_ROWS, Frame};
pub(crate) use held::Owner;
pub use json::canonical_json;
pub use list::List;
pub use metrics::Metrics;
pub use model::Model;
pub use pieces::Pieces;
pub use tensors::{Dtype, Element, Tensor, Tensors};
pub(crate) use unnamed::Unnamed;

use serde::{Deserialize, Serialize};
use std::fmt;

/// An immutable value that stages take and give. Cloning is cheap: the contents are shared.
#[derive(Clone, Debug)]
pub enum Artifact {
    /// A table: Arrow record batches of one schema.
    Frame(Frame),
    /// Named dense arrays.
    Tensors(Tensors),
    /// A fitted model: its kind, its description and its weights.
    Model(Model),
    /// Named numbers.
    Metrics(Metrics),
    /// Artifacts in order.
    List(List),
    /// Anything else.
    Bytes(bytes::Bytes),
}

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Artifact::Frame`]
    Frame,
    /// [`Artifact::Tensors`]
    Tensors,
    /// [`Artifact::Model`]
    Model,
    /// [`Artifact::Metrics`]
    Metrics,
    /// [`Artifact::List`]
    List,
    /// [`Artifact::Bytes`]
    Bytes,
}

/// The name of a stored artifact: what it is, the digest of its canonical bytes, and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ref {
    /// What it is.
    pub kind: Kind,
    /// BLAKE3 of its canonical bytes.
    pub digest: Digest,
    /// How many canonical bytes it has.
    pub bytes: u64,
}

impl Artifact {
    /// What this artifact is.
    pub fn kind(&self) -> Kind {
        match self {
            Artifact::Frame(_) => Kind::Frame,
            Artifact::Tensors(_) => Kind::Tensors,
            Artifact::Model(_) => Kind::Model,
            Artifact::Metrics(_) => Kind::Metrics,
            Artifact::List(_) => Kind::List,
            Artifact::Bytes(_) => Kind::Bytes,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Frame => "frame",
            Kind::Tensors => "tensors",
            Kind::Model => "model",
            Kind::Metrics => "metrics",
            Kind::List => "list",
            Kind::Bytes => "bytes",
        })
    }
}

impl Kind {
    /// Its name, as it stands in a sentence: `a frame`, but `metrics`.
    pub fn with_article(self) -> String {
        match self {
            Kind::Tensors | Kind::Metrics | Kind::Bytes => self.to_string(),
            Kind::Frame | Kind::Model | Kind::List => format!("a {self}"),
        }
    }
}

macro_rules! artifact_from {
    ($($variant:ident($inner:ty)),*) => {$(
        impl From<$inner> for Artifact {
            fn from(inner: $inner) -> Self {
                Artifact::$variant(inner)
            }
        }
        impl TryFrom<Artifact> for $inner {
            type Error = crate::Error;
            fn try_from(artifact: Artifact) -> crate::Result<Self> {
                match artifact {
                    Artifact::$variant(inner) => Ok(inner),
                    other => Err(crate::Error::new(format!(
                        "expected {}, found {}", Kind::$variant.with_article(), other.kind().with_article()
                    ))),
                }
            }
        }
    )*};
}

artifact_from!(Frame(Frame), Tensors(Tensors), Model(Model), Metrics(Metrics), List(List), Bytes(bytes::Bytes));
