//! What was asked: a pipeline file or a [`Builder`], resolved against the stages that a program knows.
//!
//! [`resolve`] never stops at the first mistake: it gives back all [`Diagnostic`]s, each with its place in the file,
//! and a [`Pipeline`] if none of them is an error.
//!
//! ```
//! use ropeway_framework::data::Metrics;
//! use ropeway_framework::pipeline::{SourceFile, resolve};
//! use ropeway_framework::stage::Registry;
//!
//! let registry = Registry::new().stage("empty", || Metrics::default());
//! let file = SourceFile::new("p.toml", "[stage.a]\nuse = \"emty\"\n");
//! let (pipeline, diagnostics) = resolve(&file, &registry, &[]);
//! assert!(pipeline.is_none());
//! assert_eq!(diagnostics[0].to_string(), "p.toml:2:7: there is no kind of stage called `emty`");
//! assert_eq!(diagnostics[0].help.as_deref(), Some("did you mean `empty`?"));
//! ```

mod builder;
mod choice;
mod diagnostic;
mod graph;
mod open;
mod overrides;
mod params;
mod parse;
mod pool;
mod resolve;
mod schema;
mod serve;
mod shape;
mod tree;
mod wiring;

#[cfg(test)]
mod tests;

pub use builder::{Builder, Wiring};
pub use diagnostic::{Diagnostic, Origin, Severity, SourceFile};
pub use overrides::Override;
pub use pool::Pool;
pub use resolve::resolve;
pub use schema::schema;
pub use serve::{Batch, Replicas};

use crate::stage::{Needs, Output, Stage};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Stages by name, wired, checked and complete.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What to call it.
    pub name: String,
    /// Where all chance comes from.
    pub seed: u64,
    /// The URL of the store, if the pipeline says.
    pub store: Option<String>,
    /// The stages in topological order; those that could change places are in the order of the file.
    pub stages: Vec<Node>,
    /// What can be served, by name.
    pub serve: BTreeMap<String, Serve>,
    /// Where workers come from, in the order of the file.
    pub pools: Vec<Pool>,
}

/// A stage of a pipeline.
#[derive(Clone)]
pub struct Node {
    /// Its name in the pipeline.
    pub name: String,
    /// Its name in the registry.
    pub uses: String,
    /// What computes.
    pub stage: Arc<dyn Stage>,
    /// What it is given, by port.
    pub inputs: BTreeMap<String, Source>,
    /// Its parameters, with every default filled in.
    pub params: serde_json::Value,
    /// What it needs of a worker.
    pub needs: Needs,
    /// What it gives, the default output first.
    pub outputs: Vec<Output>,
    /// Whether it is only a template of other stages; then it is not run on its own.
    pub template_only: bool,
}

/// What an input is given. Stages are meant by their position in [`Pipeline::stages`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Outputs of stages, in order; exactly one unless the port takes many.
    Outputs(Vec<(usize, String)>),
    /// A stage itself, to be run again and again.
    Template(usize),
}

/// Something to be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Serve {
    /// The fitted models that a request passes through, in order: stage and output.
    pub apply: Vec<(usize, String)>,
    /// How requests are put together.
    pub batch: Batch,
    /// How many servers there are.
    pub replicas: Replicas,
}

impl Pipeline {
    /// Builds a pipeline without a file.
    pub fn build(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    /// The stage of a name.
    pub fn stage(&self, name: &str) -> Option<&Node> {
        self.stages.iter().find(|node| node.name == name)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("uses", &self.uses)
            .field("inputs", &self.inputs)
            .field("params", &self.params)
            .field("needs", &self.needs)
            .field("outputs", &self.outputs)
            .field("template_only", &self.template_only)
            .finish_non_exhaustive()
    }
}
