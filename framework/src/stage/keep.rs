//! Keeping artifacts while a stage runs.

use super::Stored;
use crate::data::{Artifact, Ref};
use crate::{Error, Result};
use std::sync::Arc;

/// Keeps artifacts in the store.
pub trait Keeper: Send + Sync {
    /// Keeps an artifact.
    fn put(&self, artifact: Artifact) -> Result<Stored>;
    /// Keeps a list of artifacts that are in the store already.
    fn list(&self, items: &[Ref]) -> Result<Stored>;
}

/// A way for a stage to keep artifacts before it ends: to hand them to tasks, or to give them back, without holding
/// them in memory. What no result names in the end goes with the next `gc`.
#[derive(Clone, Default)]
pub struct Keep(Option<Arc<dyn Keeper>>);

impl Keep {
    /// Artifacts kept by `keeper`.
    pub fn new(keeper: Arc<dyn Keeper>) -> Self {
        Self(Some(keeper))
    }

    /// Keeps an artifact.
    ///
    /// # Errors
    /// The store can't be written, or the call has none.
    pub fn put(&self, artifact: impl Into<Artifact>) -> Result<Stored> {
        self.keeper()?.put(artifact.into())
    }

    /// Keeps a [`List`](crate::data::List) of stored artifacts without reading them.
    ///
    /// # Errors
    /// As [`Keep::put`].
    pub fn list<'a>(&self, items: impl IntoIterator<Item = &'a Stored>) -> Result<Stored> {
        let items: Vec<Ref> = items.into_iter().map(|item| item.reference).collect();
        self.keeper()?.list(&items)
    }

    fn keeper(&self) -> Result<&Arc<dyn Keeper>> {
        self.0.as_ref().ok_or_else(|| Error::new("this call has no store to keep artifacts in"))
    }
}
