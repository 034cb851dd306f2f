//! The stages that a program knows.

use super::{Apply, IntoStage, LoadModel, Stage};
use crate::data::Model;
use crate::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The stages and kinds of model that a program knows, by name. A value: build one, hand it on, build another.
#[derive(Clone, Default)]
pub struct Registry {
    stages: BTreeMap<String, Arc<dyn Stage>>,
    models: BTreeMap<String, LoadModel>,
}

impl Registry {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stage; one of the same name is replaced.
    pub fn stage<M>(mut self, name: &str, stage: impl IntoStage<M>) -> Self {
        self.stages.insert(name.to_owned(), stage.into_stage());
        self
    }

    /// Adds a kind of model: what [`Model::kind`] says, and how to load one.
    pub fn model(mut self, kind: &str, load: LoadModel) -> Self {
        self.models.insert(kind.to_owned(), load);
        self
    }

    /// Adds all that another registry knows.
    pub fn merge(mut self, other: Registry) -> Self {
        self.stages.extend(other.stages);
        self.models.extend(other.models);
        self
    }

    /// The stage of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Stage>> {
        self.stages.get(name)
    }

    /// The stages in the order of their names.
    pub fn stages(&self) -> impl Iterator<Item = (&str, &Arc<dyn Stage>)> {
        self.stages.iter().map(|(name, stage)| (name.as_str(), stage))
    }

    /// The known stage name that `name` was probably meant to be.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.stages.keys().map(String::as_str))
    }

    /// Loads a model.
    ///
    /// # Errors
    /// A kind that is not known, or a model that can't be read.
    pub fn load(&self, model: &Model) -> Result<Box<dyn Apply>> {
        let load = self.models.get(model.kind()).ok_or_else(|| {
            let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
            Error::usage(format!("models of kind {:?} can't be applied", model.kind()))
                .help(format!("known kinds: {}", known.join(", ")))
        })?;
        load(model)
    }
}
