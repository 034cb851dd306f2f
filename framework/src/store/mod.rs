//! What is kept: artifacts by digest, results by key, numbered logs.
//!
//! ```text
//! blobs/ab/<digest>              an artifact in canonical form
//! memo/12/<key>                  the result of a task: this is the commit
//! runs/<run>/00000001.jsonl      what happened in a run
//! checkpoints/<key>/00000001     where a task that is not committed yet can go on
//! corrupt/…                      what was found corrupt and set aside
//! ```
//!
//! The store only creates, it never overwrites: blobs first, then the memo. Whoever writes the memo first wins, so a
//! retry, a zombie and a second copy of a task are harmless. Everything read is checked against its digest.

mod address;
mod backend;
mod blobs;
mod checkpoints;
mod collect;
mod commit;
mod error;
mod files;
mod log;
mod memo;
mod memory;
mod numbered;
mod objects;
mod offload;
mod staging;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod killed;
#[cfg(all(test, feature = "s3"))]
mod tests;

pub use checkpoints::CheckpointLog;
pub use collect::{Collect, Collected};
pub use error::StoreError;
pub use log::Log;
pub use memo::{Commit, Key, Memo};

use crate::Result;
use crate::data::{Artifact, Ref, encode};
use backend::Backend;
use blobs::{blob_path, restore};
use bytes::Bytes;
use commit::memo_path;
use memory::Memory;
use objects::Objects;
use offload::{offload, size_hint};
use std::fmt;
use std::sync::Arc;

/// Artifacts kept at the same time in the memory of this process, in canonical bytes, unless
/// [`Store::with_memory`] says otherwise.
const MEMORY: u64 = 256 << 20;

/// Items of a list that are read or written at the same time.
const AT_ONCE: usize = 8;

/// A place where artifacts are kept by digest and results by key. Cloning is cheap and shares the place.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    backend: Backend,
    memory: Memory,
}

/// Something that a store has and that can be [set aside](Store::discard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An artifact.
    Blob(Ref),
    /// A result.
    Memo(Key),
}

impl Store {
    /// Opens the store at an address: `memory://`, `file://PATH` or a bare path (either may be relative), and with
    /// the features `s3`, `gcs` and `azure` also `s3://bucket/prefix`, `gs://…` and `az://…`.
    ///
    /// A folder is made when something is first written. What dead processes left in it is removed. A remote store
    /// is checked once for put-if-absent.
    ///
    /// # Errors
    /// An address of no known kind, a store that can't be reached, or one that lacks put-if-absent.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, std::iter::empty()).await
    }

    /// Like [`Store::open`], with options for remote stores, such as `aws_access_key_id`; their names are those of
    /// the usual environment variables in any case, and unknown ones are ignored. A program passes its environment.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let backend = address::open(url, options).await.map_err(StoreError::report)?;
        Ok(Self::new(backend))
    }

    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::new(Backend::Objects(Objects::memory()))
    }

    /// A store on any object store.
    pub fn on(object_store: Arc<dyn object_store::ObjectStore>) -> Self {
        let url = object_store.to_string();
        Self::new(Backend::Objects(Objects::new(url, object_store)))
    }

    fn new(backend: Backend) -> Self {
        Self(Arc::new(Inner { backend, memory: Memory::new(MEMORY) }))
    }

    /// Keeps at most this many bytes of recently used artifacts in the memory of this process (256 MiB by default).
    pub fn with_memory(self, bytes: u64) -> Self {
        self.0.memory.set_cap(bytes);
        self
    }

    /// The address, as it was given.
    pub fn url(&self) -> &str {
        self.0.backend.url()
    }

    /// Keeps an artifact, the items of a list first. What is there already stays.
    ///
    /// # Errors
    /// The store can't be written: unreachable, read-only, full.
    pub async fn put(&self, artifact: &Artifact) -> Result<Ref> {
        let size = size_hint(artifact);
        let artifact = artifact.clone();
        let encoded = offload(size, move || encode(&artifact)).await?;
        let weight = self.write(&encoded).await.map_err(StoreError::report)?;
        // What stages see must not depend on whether this process made it or read it back, so that the memory keeps
        // the canonical form (batches of fixed size, say) as well.
        self.0.memory.keep(encoded.reference, restore(&encoded)?, weight);
        Ok(encoded.reference)
    }

    /// Reads an artifact: from memory if it was used lately, else from the store, checked against its digest.
    ///
    /// # Errors
    /// The store can't be read, or the artifact is missing or corrupt ([`StoreError::is_lost`]).
    pub async fn get(&self, reference: Ref) -> Result<Artifact> {
        Ok(self.load(reference).await?.0)
    }

    /// Reads the canonical bytes of an artifact, checked against its digest.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn bytes(&self, reference: Ref) -> Result<Bytes> {
        self.blob(reference).await.map_err(StoreError::report)
    }

    /// Whether the store itself (not just this process's memory) has an artifact of this name and length. Its
    /// content is checked only when it is read.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn has(&self, reference: Ref) -> Result<bool> {
        let size = self.0.backend.size(&blob_path(reference.digest)).await.map_err(StoreError::report)?;
        Ok(size == Some(reference.bytes))
    }

    /// The result that is remembered under a key.
    ///
    /// # Errors
    /// The store can't be read, or the memo is corrupt ([`StoreError::Corrupt`]).
    pub async fn memo(&self, key: Key) -> Result<Option<Memo>> {
        self.read_memo(key).await.map_err(StoreError::report)
    }

    /// Remembers a result, unless there is one already. Its outputs must have been [put](Store::put) before.
    ///
    /// A memo that is corrupt, or whose outputs are lost, is no result: it is set aside and replaced.
    ///
    /// # Errors
    /// The store can't be written or read.
    pub async fn commit(&self, key: Key, memo: &Memo) -> Result<Commit> {
        self.try_commit(key, memo).await.map_err(StoreError::report)
    }

    /// Sets aside what is of no use, so that it can be written again; whether there was anything to set aside.
    ///
    /// Besides [`Store::collect`] this is all that ever takes anything away. It is needed since a create-only store
    /// would otherwise keep a corrupt blob for ever, as it would a memo whose outputs are lost. A blob, and the items
    /// of a list, are checked again first: another process may have mended them meanwhile.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn discard(&self, entry: Entry) -> Result<bool> {
        match entry {
            Entry::Memo(key) => self.backend().set_aside(&memo_path(key)).await,
            Entry::Blob(reference) => self.set_aside_blob(reference).await,
        }
        .map_err(StoreError::report)
    }

    /// The log of a run. It comes into being with the first entry.
    pub fn log(&self, run: &str) -> Log {
        Log::new(self.clone(), run)
    }

    /// The runs that have a log, in the order of their names.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn runs(&self) -> Result<Vec<String>> {
        self.0.backend.folders(log::RUNS).await.map_err(StoreError::report)
    }

    /// The checkpoints of a task.
    pub fn checkpoint_log(&self, key: Key) -> CheckpointLog {
        CheckpointLog::new(self.clone(), key)
    }

    /// Removes the checkpoints of a task; call it after its commit.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn forget_checkpoints(&self, key: Key) -> Result<()> {
        checkpoints::forget(&self.0.backend, key).await.map_err(StoreError::report)
    }

    /// Removes what no kept result needs, and what dead processes left behind.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn collect(&self, options: Collect) -> Result<Collected> {
        collect::collect(self, options).await.map_err(StoreError::report)
    }
}

impl Store {
    fn backend(&self) -> &Backend {
        &self.0.backend
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url())
    }
}
