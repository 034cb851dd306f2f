//! Fitted models.

use super::Tensors;
use crate::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A fitted model: data only. What its kind can do is in the registry
/// ([`Registry::model`](crate::stage::Registry::model)), so that a model outlives the program that fitted it.
#[derive(Clone, Debug)]
pub struct Model {
    kind: Arc<str>,
    spec: Arc<serde_json::Value>,
    tensors: Tensors,
}

impl Model {
    /// A model of a kind (`features`, `mlp`), its description as JSON, and its weights.
    ///
    /// # Errors
    /// A description that is no JSON (a map whose keys are not text).
    pub fn new(kind: &str, spec: &impl Serialize, tensors: Tensors) -> Result<Self> {
        let spec = serde_json::to_value(spec).context("a model's description must be JSON")?;
        Ok(Self { kind: kind.into(), spec: Arc::new(spec), tensors })
    }

    /// The same model with other weights.
    pub(super) fn with_tensors(self, tensors: Tensors) -> Self {
        Self { tensors, ..self }
    }

    /// What knows how to apply it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its description.
    pub fn spec(&self) -> &serde_json::Value {
        &self.spec
    }

    /// Its description, as the type that it was made of.
    ///
    /// # Errors
    /// A description of another shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&*self.spec).context(format!("this is no {:?} model that this version can read", self.kind))
    }

    /// Its weights.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}
