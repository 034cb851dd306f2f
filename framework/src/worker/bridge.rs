//! The store as stages see it. Stages block, the store does not: here the one meets the other.
//!
//! Call none of this from a thread of the runtime, which would wait for itself.

use crate::data::{Artifact, Digest, Ref, Tensors};
use crate::stage::{Checkpoints, Fetch, Keeper, Outcomes, Stored};
use crate::store::{CheckpointLog, Key, Store};
use crate::{Result, runtime};
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, OnceLock};

impl Store {
    /// Reads artifacts, for threads that may block.
    pub fn fetcher(&self) -> Arc<dyn Fetch> {
        Arc::new(Blocking(self.clone()))
    }

    /// Keeps artifacts, for threads that may block.
    pub fn keeper(&self) -> Arc<dyn Keeper> {
        Arc::new(Blocking(self.clone()))
    }

    /// Keeps the outcomes of a task's effects, for threads that may block.
    pub fn outcomes(&self, key: Key) -> Arc<dyn Outcomes> {
        Arc::new(Blocking((self.clone(), key)))
    }

    /// Keeps the checkpoints of a task, for threads that may block.
    pub fn checkpoints(&self, key: Key) -> Arc<dyn Checkpoints> {
        Arc::new(Blocking(LazyCheckpoints { store: self.clone(), key, log: OnceLock::new() }))
    }
}

struct Blocking<T>(T);

/// A task's checkpoints, which are not looked for before somebody asks: most tasks keep none.
struct LazyCheckpoints {
    store: Store,
    key: Key,
    log: OnceLock<CheckpointLog>,
}

impl LazyCheckpoints {
    fn log(&self) -> &CheckpointLog {
        self.log.get_or_init(|| self.store.checkpoint_log(self.key))
    }
}

impl Fetch for Blocking<Store> {
    fn fetch(&self, reference: Ref) -> Result<Artifact> {
        runtime()?.block_on(self.0.get(reference))
    }

    fn items(&self, list: Ref) -> Result<Vec<Ref>> {
        runtime()?.block_on(self.0.items(list))
    }

    fn link(&self, reference: Ref, to: &Path) -> Result<bool> {
        runtime()?.block_on(self.0.link(reference, to))
    }
}

impl Keeper for Blocking<Store> {
    fn put(&self, artifact: Artifact) -> Result<Stored> {
        let reference = runtime()?.block_on(self.0.put(&artifact))?;
        Ok(Stored::new(reference, self.0.fetcher()))
    }

    fn list(&self, items: &[Ref]) -> Result<Stored> {
        let reference = runtime()?.block_on(self.0.put_list(items))?;
        Ok(Stored::new(reference, self.0.fetcher()))
    }
}

impl Outcomes for Blocking<(Store, Key)> {
    fn recorded(&self, name: &str) -> Result<Option<Bytes>> {
        runtime()?.block_on(self.0.0.outcome(self.0.1, name))
    }

    fn record(&self, name: &str, outcome: Bytes) -> Result<Bytes> {
        runtime()?.block_on(self.0.0.record_outcome(self.0.1, name, outcome))
    }

    fn token(&self, name: &str) -> String {
        Digest::of_fields([b"once".as_slice(), self.0.1.0.as_bytes(), name.as_bytes()]).to_string()
    }
}

impl Checkpoints for Blocking<LazyCheckpoints> {
    fn newest(&self, passed_over: &mut dyn FnMut(String)) -> Result<Option<Tensors>> {
        runtime()?.block_on(self.0.log().newest(passed_over))
    }

    fn save(&self, state: Tensors) -> Result<()> {
        runtime()?.block_on(self.0.log().save(&state))
    }
}
