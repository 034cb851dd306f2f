//! The store as stages see it. Stages block, the store does not: here the one meets the other.
//!
//! Call none of this from a thread of the runtime, which would wait for itself.

use crate::data::{Artifact, Ref, Tensors};
use crate::stage::{Checkpoints, Fetch};
use crate::store::{CheckpointLog, Key, Store};
use crate::{Result, runtime};
use std::sync::Arc;

impl Store {
    /// Reads artifacts, for threads that may block.
    pub fn fetcher(&self) -> Arc<dyn Fetch> {
        Arc::new(Blocking(self.clone()))
    }

    /// Keeps the checkpoints of a task, for threads that may block.
    pub fn checkpoints(&self, key: Key) -> Arc<dyn Checkpoints> {
        Arc::new(Blocking(self.checkpoint_log(key)))
    }
}

struct Blocking<T>(T);

impl Fetch for Blocking<Store> {
    fn fetch(&self, reference: Ref) -> Result<Artifact> {
        runtime()?.block_on(self.0.get(reference))
    }
}

impl Checkpoints for Blocking<CheckpointLog> {
    fn newest(&self) -> Result<Option<Tensors>> {
        runtime()?.block_on(self.0.newest())
    }

    fn save(&self, state: Tensors) -> Result<()> {
        runtime()?.block_on(self.0.save(&state))
    }
}
