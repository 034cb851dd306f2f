//! Artifacts in order.

use super::Artifact;
use std::sync::Arc;

/// Artifacts in order; they may be of different kinds.
#[derive(Clone, Debug, Default)]
pub struct List(Arc<[Artifact]>);

impl List {
    /// The artifacts.
    pub fn items(&self) -> &[Artifact] {
        &self.0
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<A: Into<Artifact>> FromIterator<A> for List {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        Self(items.into_iter().map(Into::into).collect())
    }
}
