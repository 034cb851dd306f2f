//! Canonical bytes before they have a name.

use super::codec::{Encoded, described, encode, write_number};
use super::{Artifact, Digest, Kind, Pieces, Ref, canonical_json, ipc, tensor_file};
use crate::Result;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Canonical bytes that nobody has digested yet: who writes them somewhere does it on the way.
pub(crate) struct Unnamed {
    pub(crate) kind: Kind,
    pub(crate) pieces: Pieces,
    /// As in [`Encoded`].
    whole: Option<Artifact>,
}

impl Unnamed {
    fn new(kind: Kind, pieces: impl Into<Pieces>) -> Self {
        Self { kind, pieces: pieces.into(), whole: None }
    }

    /// Those of an artifact that is needed no more.
    ///
    /// # Errors
    /// As [`encode`].
    pub(crate) fn of(artifact: Artifact) -> Result<Self> {
        let kind = artifact.kind();
        Ok(match artifact {
            Artifact::Frame(frame) => {
                let (pieces, frame) = ipc::write(frame)?;
                Self { whole: Some(frame.into()), ..Self::new(kind, pieces) }
            }
            Artifact::Tensors(tensors) => {
                let (pieces, tensors) = tensor_file::write(&tensors, None)?;
                // Bytes in one piece are sooner decoded.
                let whole = (pieces.iter().len() > 1).then(|| tensors.into());
                Self { whole, ..Self::new(kind, pieces) }
            }
            Artifact::Model(model) => {
                let about = canonical_json(&json!({"kind": model.kind(), "spec": model.spec()}));
                let (pieces, tensors) = tensor_file::write(model.tensors(), Some(about.clone()))?;
                // Its description as it is read, which may be in another order.
                let whole = (pieces.iter().len() > 1).then(|| described(&about, tensors)).transpose()?;
                Self { whole: whole.map(Artifact::Model), ..Self::new(kind, pieces) }
            }
            Artifact::Metrics(metrics) => {
                let fields: Map<String, Value> =
                    metrics.iter().map(|(name, value)| (name.to_owned(), write_number(value))).collect();
                Self::new(kind, Bytes::from(canonical_json(&Value::Object(fields))))
            }
            Artifact::List(list) => {
                let names = list.items().iter().map(|item| Ok(encode(item)?.reference)).collect::<Result<Vec<_>>>()?;
                Self::list(&names)?
            }
            Artifact::Bytes(bytes) => Self::new(kind, bytes),
        })
    }

    /// Those of a list of artifacts that have names.
    pub(crate) fn list(items: &[Ref]) -> Result<Self> {
        Ok(Self::new(Kind::List, Bytes::from(canonical_json(&serde_json::to_value(items)?))))
    }

    /// The same with its name.
    pub(crate) fn named(self) -> Encoded {
        let Self { kind, pieces, whole } = self;
        let reference = Ref { kind, digest: Digest::of_pieces(&pieces), bytes: pieces.len() as u64 };
        Encoded { reference, pieces, whole, items: Vec::new() }
    }
}
