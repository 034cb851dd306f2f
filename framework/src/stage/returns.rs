//! What a stage gives back.

use super::{Output, Signature, Stored};
use crate::data::{Artifact, Frame, Kind, List, Metrics, Model, Tensors};
use crate::{Error, Result};
use bytes::Bytes;
use std::collections::BTreeMap;

/// One output of a call: an artifact, or one that is in the store already and need not be read to be given.
#[derive(Clone, Debug)]
pub enum Given {
    /// An artifact.
    Artifact(Artifact),
    /// One that is stored: kept by [`Keep`](super::Keep), or given by a task.
    Stored(Stored),
}

impl Given {
    /// The artifact, read if need be.
    ///
    /// # Errors
    /// It can't be read.
    pub fn load(&self) -> Result<Artifact> {
        match self {
            Given::Artifact(artifact) => Ok(artifact.clone()),
            Given::Stored(stored) => stored.load(),
        }
    }
}

impl<A: Into<Artifact>> From<A> for Given {
    fn from(artifact: A) -> Self {
        Given::Artifact(artifact.into())
    }
}

impl From<Stored> for Given {
    fn from(stored: Stored) -> Self {
        Given::Stored(stored)
    }
}

/// What a call gave, by output name.
#[derive(Clone, Debug, Default)]
pub struct Outputs(BTreeMap<String, Given>);

impl Outputs {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an output and hands the collection on.
    pub fn with(mut self, name: impl Into<String>, output: impl Into<Given>) -> Self {
        self.0.insert(name.into(), output.into());
        self
    }

    /// The output of a name.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    /// The outputs in the order of their names.
    pub fn into_map(self) -> BTreeMap<String, Given> {
        self.0
    }
}

/// Something that a stage function can return: an artifact, a [`Stored`] one, a tuple of them, or a `Result` of these.
///
/// The default output is called `output`; a tuple's are `output`, `output2` and so on until
/// [`FnStage::outputs`](super::FnStage::outputs) names them.
pub trait Returns {
    /// Adds the outputs to the signature.
    fn describe(signature: &mut Signature);

    /// The artifacts in the order of the signature's outputs.
    ///
    /// # Errors
    /// The stage failed.
    fn artifacts(self) -> Result<Vec<Given>>;
}

fn describe_output(signature: &mut Signature, kind: Option<Kind>) {
    let name = match signature.outputs.len() {
        0 => "output".to_owned(),
        n => format!("output{}", n + 1),
    };
    signature.outputs.push(Output { name, kind });
}

macro_rules! artifact_returns {
    ($($inner:ty => $kind:expr),*) => {$(
        impl Returns for $inner {
            fn describe(signature: &mut Signature) {
                describe_output(signature, $kind);
            }
            fn artifacts(self) -> Result<Vec<Given>> {
                Ok(vec![self.into()])
            }
        }
    )*};
}

artifact_returns!(
    Frame => Some(Kind::Frame),
    Tensors => Some(Kind::Tensors),
    Model => Some(Kind::Model),
    Metrics => Some(Kind::Metrics),
    List => Some(Kind::List),
    Bytes => Some(Kind::Bytes),
    Artifact => None,
    Stored => None
);

macro_rules! tuple_returns {
    ($($item:ident),*) => {
        impl<$($item: Returns),*> Returns for ($($item,)*) {
            fn describe(signature: &mut Signature) {
                $($item::describe(signature);)*
            }
            #[allow(non_snake_case)]
            fn artifacts(self) -> Result<Vec<Given>> {
                let ($($item,)*) = self;
                let mut artifacts = Vec::new();
                $(artifacts.extend($item.artifacts()?);)*
                Ok(artifacts)
            }
        }
    };
}

tuple_returns!(A, B);
tuple_returns!(A, B, C);
tuple_returns!(A, B, C, D);
tuple_returns!(A, B, C, D, E);

impl<R: Returns, E: Into<Error>> Returns for Result<R, E> {
    fn describe(signature: &mut Signature) {
        R::describe(signature);
    }
    fn artifacts(self) -> Result<Vec<Given>> {
        self.map_err(Into::into)?.artifacts()
    }
}
