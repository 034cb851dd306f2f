//! What is kept: artifacts by digest, results by key, numbered logs.
//!
//! ```text
//! blobs/ab/<digest>              an artifact in canonical form
//! memo/12/<key>                  the result of a task: this is the commit
//! runs/<run>/00000001.jsonl      what happened in a run
//! checkpoints/<key>/00000001     where a task that is not committed yet can go on
//! once/<key>/<name>              what came of a task's effect on the outside world
//! corrupt/…                      what was found corrupt and set aside
//! ```
//!
//! The store only creates, it never overwrites: blobs first, then the memo. Whoever writes the memo first wins, so a
//! retry, a zombie and a second copy of a task are harmless. Everything read is checked against its digest.

mod address;
mod backend;
mod blobs;
mod brief;
mod checkpoints;
mod collect;
mod commit;
mod costs;
mod error;
mod exchange;
mod files;
mod leave;
mod lists;
mod log;
mod memo;
mod metrics;
mod named;
mod numbered;
mod objects;
mod offload;
mod once;
mod ram;
mod remote;
mod staging;
mod tiers;
mod traffic;

#[cfg(test)]
mod capped;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod killed;
#[cfg(feature = "s3")]
#[cfg(test)]
mod tests;

pub use backend::{Created, Found};
pub use checkpoints::CheckpointLog;
pub use collect::{Collect, Collected};
pub use error::StoreError;
pub use log::Log;
pub use memo::{Commit, Key, Memo};
pub(crate) use metrics::{StoreMetrics, encode_traffic};
pub use remote::{Answer, Remote};
pub use tiers::PeerSource;
pub(crate) use traffic::Moved;
pub use traffic::{Tier, Traffic};

use crate::Result;
use crate::data::{Artifact, Ref};
use backend::Backend;
use blobs::blob_path;
use bytes::Bytes;
use commit::memo_path;
use objects::Objects;
pub(crate) use offload::{offload, size_hint};
use ram::Ram;
pub(crate) use ram::folder as folder_for_files;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tiers::{Lease, Machine, Tiers};
use tracing::{Instrument, debug_span};

/// What [`Store::with_memory`] is unless it says otherwise.
const MEMORY: u64 = 256 << 20;

/// Items of a list that are read or written at the same time.
const AT_ONCE: usize = 8;

/// A place where artifacts are kept by digest and results by key. Cloning is cheap and shares the place.
///
/// An artifact is looked for in four tiers: the memory of this process, the files of this machine
/// ([`with_machine`](Store::with_machine)), other workers ([`with_peers`](Store::with_peers)), and the store itself.
#[derive(Clone)]
pub struct Store(Arc<Tiers>);

/// Memory that is counted for what somebody makes.
pub(crate) struct Room {
    _lease: Lease,
}

/// What tells this machine, as long as it runs, from others.
pub(crate) fn kernel() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
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

    /// An empty store that lives as long as this process. Artifacts that find no room in memory are in files among the
    /// system's temporary ones.
    pub fn memory() -> Self {
        Self::new(Backend::Ram(Ram::new()))
    }

    /// A store that another process keeps.
    pub fn remote(remote: Arc<dyn Remote>) -> Self {
        Self::new(Backend::Remote(remote))
    }

    /// A store on any object store.
    pub fn on(object_store: Arc<dyn object_store::ObjectStore>) -> Self {
        let url = object_store.to_string();
        Self::new(Backend::Objects(Objects::new(url, object_store)))
    }

    /// A store in memory that fails by chance, from a seed: before it has done what it was asked, or after.
    #[cfg(test)]
    pub(crate) fn failing(seed: u64) -> Self {
        let faulty = Arc::new(faulty::Faulty::new(faulty::Plan::Sometimes(seed)));
        Self::new(Backend::Objects(Objects::new("faulty://".into(), faulty).hurried(2)))
    }

    fn new(backend: Backend) -> Self {
        Self(Arc::new(Tiers::new(backend, MEMORY)))
    }

    /// Holds at most this many bytes of artifacts in the memory of this process (256 MiB by default), and one artifact
    /// more when everything else is in use.
    ///
    /// An artifact counts as long as anybody holds it. Past the cap those that were not used for longest leave memory:
    /// they are in the store, in files of this machine, or, if the store is `memory://`, in temporary files of this
    /// process. Who reads or writes waits until there is room. What is a file's is mapped, and its pages leave memory
    /// when others need the room even while a stage holds the artifact; reading them brings them back.
    pub fn with_memory(self, bytes: u64) -> Self {
        self.0.set_cap(bytes);
        self
    }

    /// Shares what is read from a store that is far away with all processes of this machine, as files in a folder of
    /// at most `limit` bytes; the longest unused go first. Every process may fill it at once and may die at any time.
    /// For a store that is on this machine nothing changes.
    pub fn with_machine(self, folder: &Path, limit: u64) -> Self {
        if self.backend().is_remote() {
            self.0.set_machine(Machine::new(folder, limit));
        }
        self
    }

    /// The bytes of artifacts that this process may hold in memory.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.0.count().cap
    }

    /// The folder that it [shares](Self::with_machine) with all processes of this machine, and the most bytes there.
    pub(crate) fn machine(&self) -> Option<(&Path, u64)> {
        self.0.machine().and_then(Machine::place)
    }

    /// Shares the exchange of a store that another process of this machine keeps: what is large is mapped from there,
    /// and can be [left](Self::leave) there.
    pub(crate) fn with_exchange(self, folder: &Path) -> Self {
        self.0.set_machine(Machine::exchange(folder));
        self
    }

    /// Asks other workers for artifacts before it asks the store.
    pub fn with_peers(self, peers: Arc<dyn PeerSource>) -> Self {
        self.0.set_peers(peers);
        self
    }

    /// Removes this process's temporary files; long artifacts of a store in memory are gone then. Nothing can be written
    /// any more. For a program that ends: what other threads still hold then is never dropped.
    pub fn close(&self) {
        match self.backend() {
            Backend::Files(files) => files.close(),
            Backend::Ram(ram) => ram.close(),
            Backend::Objects(_) | Backend::Remote(_) => {}
        }
    }

    /// The address, as it was given.
    pub fn url(&self) -> &str {
        self.backend().url()
    }

    /// Makes room in memory for so many bytes that somebody is about to make. They are counted until the room is dropped,
    /// just before they are put.
    pub(crate) async fn make_room(&self, bytes: u64) -> Result<Room> {
        self.0.make_room(bytes).await.map(|lease| Room { _lease: lease }).map_err(StoreError::report)
    }

    /// Keeps an artifact, the items of a list first. What is there already stays.
    ///
    /// # Errors
    /// The store can't be written: unreachable, read-only, full.
    pub async fn put(&self, artifact: &Artifact) -> Result<Ref> {
        self.put_owned(artifact.clone()).await
    }

    /// Like [`Store::put`], for an artifact that is needed no more: what of a frame must be copied to bring it into
    /// form is let go of on the way.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_owned(&self, artifact: Artifact) -> Result<Ref> {
        self.write(artifact).instrument(debug_span!("store put")).await
    }

    /// Reads an artifact: from memory if it was used lately, else from the next tier that has it, checked against its
    /// digest.
    ///
    /// # Errors
    /// The store can't be read, or the artifact is missing or corrupt ([`StoreError::is_lost`]).
    pub async fn get(&self, reference: Ref) -> Result<Artifact> {
        self.load(reference).await
    }

    /// Reads the canonical bytes of an artifact, checked against its digest.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn bytes(&self, reference: Ref) -> Result<Bytes> {
        self.blob(reference).await.map_err(StoreError::report)
    }

    /// Up to `length` canonical bytes of an artifact from `offset` on, for another worker that asks: only if they are in
    /// the memory of this process or in a file of this machine, and not checked. It never waits for memory.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn at_hand(&self, reference: Ref, offset: u64, length: u64) -> Result<Option<Bytes>> {
        self.0.part(reference, offset, length).await.map_err(StoreError::report)
    }

    /// Gives the file with an artifact's canonical bytes the name `to`, for a program that maps it; whether there is
    /// such a file on this machine. It is the store's own: nobody may write it. In another file system than the
    /// store's, `to` becomes a symbolic link.
    ///
    /// # Errors
    /// The store can't be read, or the artifact is missing or corrupt; `to` can't be written.
    pub async fn link(&self, reference: Ref, to: &Path) -> Result<bool> {
        self.check(reference).await.map_err(StoreError::report)?;
        let linked = self.0.link(reference, to);
        linked.map_err(|error: io::Error| crate::Error::from(error).context(format!("can't make {}", to.display())))
    }

    /// Whether the store itself (not just this process's memory) has an artifact of this name and length. Its
    /// content is checked only when it is read.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn has(&self, reference: Ref) -> Result<bool> {
        let size = self.backend().size(&blob_path(reference.digest)).await.map_err(StoreError::report)?;
        Ok(size == Some(reference.bytes))
    }

    /// The result that is remembered under a key.
    ///
    /// # Errors
    /// The store can't be read, or the memo is corrupt ([`StoreError::Corrupt`]).
    pub async fn memo(&self, key: Key) -> Result<Option<Memo>> {
        let memo = self.read_memo(key).instrument(debug_span!("store memo")).await.map_err(StoreError::report)?;
        self.0.meter.looked_up(memo.is_some());
        Ok(memo)
    }

    /// Remembers a result, unless there is one already. Its outputs must have been [put](Store::put) before.
    ///
    /// A memo that is corrupt, or whose outputs are lost, is no result: it is set aside and replaced.
    ///
    /// # Errors
    /// The store can't be written or read.
    pub async fn commit(&self, key: Key, memo: &Memo) -> Result<Commit> {
        let commit =
            self.try_commit(key, memo).instrument(debug_span!("store commit")).await.map_err(StoreError::report)?;
        self.0.meter.committed(&commit);
        Ok(commit)
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
        self.backend().folders(log::RUNS).await.map_err(StoreError::report)
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
        checkpoints::forget(self.backend(), key).await.map_err(StoreError::report)
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
        self.0.backend()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url())
    }
}
