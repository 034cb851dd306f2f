//! Where an artifact is looked for: in memory, on this machine, at a peer, in the store.
//!
//! | tier | what is there | what it costs | its limit |
//! |---|---|---|---|
//! | memory | what this process used lately, decoded | a clone | [`Budget`]: past it the coldest go, and others wait |
//! | machine | what processes of this machine read from a remote store, as files | a mapping | [`Machine`]: a number of bytes |
//! | peers | what other workers hold | the network | theirs |
//! | store | everything | the network or a mapping | none |
//!
//! Whatever comes from below memory is checked against its digest. Content that is a file's is mapped: its pages are
//! taken from the process when they are cold, even if a stage holds the artifact, and come back when it is read.

mod budget;
mod held;
mod machine;
mod memory;
mod peers;

pub use peers::PeerSource;

pub(super) use budget::Lease;
pub(super) use held::Content;
pub(super) use machine::Machine;
pub(super) use memory::Form;

use super::StoreError;
use super::backend::{Backend, Created};
use super::blobs::blob_path;
use super::offload::offload;
use super::traffic::{Meter, Tier, moved};
use crate::data::{Owner, Pieces, Ref, Unnamed};
use budget::{Budget, Count, Passage, Rule};
use bytes::Bytes;
use held::{Held, cost};
use memory::Memory;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::timeout;

/// From so many bytes on, what one worker reads is shared with the others of its machine.
const SHARED: u64 = 64 << 10;
/// How long it may take to tell of that.
const TELLING: Duration = Duration::from_secs(1);

/// The four tiers of a store.
pub(super) struct Tiers {
    budget: Budget,
    memory: Memory,
    machine: OnceLock<Machine>,
    peers: OnceLock<Arc<dyn PeerSource>>,
    backend: Backend,
    pub(super) meter: Meter,
}

/// Content that an operation holds, still to be decoded.
pub(super) struct Loaded {
    held: Arc<Held>,
    _passage: Passage,
}

impl Loaded {
    /// The bytes in one row; they are counted as long as any slice of them lives.
    pub(super) fn bytes(&self) -> Bytes {
        self.held.pieces().join()
    }

    /// What must live as long as something that lies in its pieces, so that it is counted.
    pub(super) fn owner(&self) -> Owner {
        self.held.clone()
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.held.is_mapped()
    }
}

impl Tiers {
    pub(super) fn new(backend: Backend, cap: u64) -> Self {
        let (machine, peers) = (OnceLock::new(), OnceLock::new());
        let meter = Meter::default();
        Self { budget: Budget::new(cap), memory: Memory::default(), machine, peers, backend, meter }
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    pub(super) fn set_cap(&self, cap: u64) {
        self.budget.set_cap(cap);
    }

    /// The bytes that are held in memory.
    pub(super) fn count(&self) -> Count {
        self.budget.count()
    }

    #[cfg(test)]
    pub(super) fn has_machine(&self) -> bool {
        self.machine.get().is_some()
    }

    /// Adds the second tier.
    pub(super) fn set_machine(&self, machine: Machine) {
        // The first stays.
        let _ = self.machine.set(machine);
    }

    /// The second tier, if there is one.
    pub(super) fn machine(&self) -> Option<&Machine> {
        self.machine.get()
    }

    /// Adds the third tier.
    pub(super) fn set_peers(&self, peers: Arc<dyn PeerSource>) {
        // The first stays.
        let _ = self.peers.set(peers);
    }

    /// An artifact that is in memory.
    pub(super) async fn recall(&self, reference: Ref) -> Result<Option<Form>, StoreError> {
        let Some(kept) = self.memory.get(reference) else { return Ok(None) };
        self.meter.read(Tier::Memory, reference.bytes);
        if kept.held.is_cold() {
            let bytes = cost(reference.bytes);
            self.memory.warm(reference, self.admit(bytes).await?.lease(bytes));
        }
        Ok(Some(kept.form))
    }

    /// Reads and checks a blob from the nearest tier below memory that has it.
    pub(super) async fn load(&self, reference: Ref) -> Result<Loaded, StoreError> {
        let passage = self.admit(cost(reference.bytes)).await?;
        let content = self.find(reference).await?;
        let content = offload(reference.bytes, move || content.in_one_row()).await;
        Ok(self.hold(content, passage))
    }

    /// Counts content that an operation made or read.
    pub(super) fn hold(&self, content: Content, mut passage: Passage) -> Loaded {
        let held = Held::new(content, &mut passage);
        passage.give_back();
        Loaded { held, _passage: passage }
    }

    /// Keeps in memory what was loaded and decoded; gives what is kept.
    pub(super) fn keep(&self, reference: Ref, form: Form, loaded: &Loaded) -> Form {
        self.memory.keep(reference, form, &loaded.held)
    }

    /// Lets an operation through that is about to need so many bytes, once there is room for them.
    pub(super) async fn admit(&self, bytes: u64) -> Result<Passage, StoreError> {
        let _turn = self.budget.turn().await;
        loop {
            // Asked for before looking, so that nothing is missed in between.
            let changed = self.budget.changed();
            if let Some(passage) = self.budget.pass(bytes, Rule::Room) {
                return Ok(passage);
            }
            // Nobody else begins while it is our turn: what is not in memory's books now will not be.
            let alone = self.budget.is_idle();
            if self.evict().await? {
                continue;
            }
            if alone && let Some(passage) = self.budget.pass(bytes, Rule::Alone) {
                return Ok(passage);
            }
            if !alone {
                changed.await;
            }
        }
    }

    /// Counts bytes that somebody is about to make, for as long as the lease lives.
    pub(super) async fn make_room(&self, bytes: u64) -> Result<Lease, StoreError> {
        Ok(self.admit(bytes).await?.lease(bytes))
    }

    /// Keeps a blob, written once: in the store, for the machine, and in memory while there is room.
    ///
    /// Gives what is in memory now, if anything is.
    pub(super) async fn write(
        &self,
        reference: Ref,
        content: Pieces,
        mut passage: Passage,
    ) -> Result<Option<Loaded>, StoreError> {
        let held = Held::new(Content::Heap(content), &mut passage);
        let path = blob_path(reference.digest);
        // A copy of what is a file anyway is only kept while there is much room: the file can be mapped.
        let room = if self.has_files() { !self.budget.is_over_half() } else { !self.budget.is_over() };
        let mut ours = false;
        let mut adopted = false;
        if let Some(machine) = self.machine.get() {
            let filled = machine.fill(reference, held.pieces()).await;
            ours = filled == Some(Created::Now);
            adopted = filled.is_some() && self.backend.adopt(&path).await?.is_some();
        }
        // Twice at most: an existing blob of the wrong length was cut off by a crash of the machine.
        for _ in 0..if adopted { 0 } else { 2 } {
            let created = self.backend.create_blob(&path, held.pieces(), room).await?;
            ours |= self.machine.get().is_none() && created == Created::Now;
            if created == Created::Now {
                self.meter.wrote(reference.bytes);
                self.travelled(reference);
            }
            if created == Created::Now || self.backend.size(&path).await? == Some(reference.bytes) {
                break;
            }
            self.backend.set_aside(&path).await?;
        }
        if adopted && ours {
            self.meter.wrote(reference.bytes);
        }
        if room {
            return Ok(Some(Loaded { held, _passage: passage }));
        }
        // It does not stay in memory. But a file that was written just now, from these bytes, can be mapped.
        drop(held);
        passage.give_back();
        if !ours {
            return Ok(None);
        }
        let content = match self.machine.get() {
            Some(machine) => machine.find(reference).await,
            None => self.backend.open(&path, reference.bytes).await?,
        };
        match content {
            Some(content @ Content::Mapped(_)) if content.len() as u64 == reference.bytes => {
                let held = Held::new(content, &mut passage);
                drop(held.cool());
                Ok(Some(Loaded { held, _passage: passage }))
            }
            _ => Ok(None),
        }
    }

    /// Whether this process and the store's have an exchange.
    pub(super) fn has_exchange(&self) -> bool {
        self.machine.get().is_some_and(Machine::is_trusted)
    }

    /// Leaves a blob in the exchange, where the store's process takes it in; this process maps it from there. `None` if
    /// it has no room there. On this thread.
    pub(super) fn leave(&self, blob: &Unnamed) -> Option<(Ref, Content)> {
        let machine = self.machine.get().filter(|machine| machine.is_trusted())?;
        let (reference, created, content) = machine.leave(blob)?;
        if created == Created::Now {
            self.meter.wrote(reference.bytes);
        }
        Some((reference, content))
    }

    /// Whether what is written becomes a file of this machine at once.
    fn has_files(&self) -> bool {
        self.machine.get().is_some() || matches!(self.backend, Backend::Files(_))
    }

    /// Part of a blob, if it is in memory or in a file of this machine. Never waits for room.
    pub(super) async fn part(&self, reference: Ref, from: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        if let Some(kept) = self.memory.get(reference)
            && !kept.held.is_mapped()
        {
            let start = usize::try_from(from).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            return Ok(Some(kept.held.pieces().part(start, end)));
        }
        let path = blob_path(reference.digest);
        match self.machine.get() {
            Some(machine) => Ok(machine.part(reference, from, length).await),
            None => self.backend.part(&path, from, length).await,
        }
    }

    /// Links the file of a blob that is on this machine to a path; whether there was one.
    pub(super) fn link(&self, reference: Ref, to: &std::path::Path) -> std::io::Result<bool> {
        match self.machine.get() {
            Some(machine) => machine.link(reference, to),
            None => self.backend.link(&blob_path(reference.digest), to),
        }
    }

    /// Forgets what memory and this machine have of a blob that is not to be trusted.
    pub(super) fn forget(&self, reference: Ref) {
        self.memory.forget(reference);
        if let Some(machine) = self.machine.get() {
            machine.forget(reference);
        }
    }

    /// Reads and checks a blob in the store itself.
    pub(super) async fn in_store(&self, reference: Ref) -> Result<Content, StoreError> {
        let path = blob_path(reference.digest);
        let what = format!("{} {} ({path})", reference.kind, reference.digest.short());
        let url = self.backend.url().to_owned();
        let Some(content) = self.backend.open(&path, reference.bytes).await? else {
            return Err(StoreError::Missing { what, url });
        };
        self.meter.read(Tier::Store, reference.bytes);
        self.travelled(reference);
        check(reference, content).await.map_err(|reason| StoreError::Corrupt { what, reason, url })
    }

    /// Notes that an artifact was read from the store or written to it: if that is far away, it crossed the network.
    fn travelled(&self, reference: Ref) {
        if self.backend.is_remote() {
            moved(reference.bytes);
        }
    }

    async fn find(&self, reference: Ref) -> Result<Content, StoreError> {
        let Some(machine) = self.machine.get() else {
            return match self.at_peers(reference).await {
                Some(content) => Ok(content),
                None => self.in_store(reference).await,
            };
        };
        if let Some(content) = machine.find(reference).await {
            // Whoever wrote it there has digested it; only that it is whole is seen at once.
            let whole = machine.is_trusted() && content.len() as u64 == reference.bytes;
            let checked = if whole { Ok(content) } else { check(reference, content).await };
            match checked {
                Ok(content) => {
                    self.meter.read(Tier::Machine, reference.bytes);
                    return Ok(content);
                }
                Err(reason) => {
                    tracing::warn!("the cache's copy of {} is thrown away: {reason}", reference.digest.short());
                    machine.forget(reference);
                }
            }
        }
        let content = match self.at_peers(reference).await {
            Some(content) => content,
            None => self.in_store(reference).await?,
        };
        // From now on it is a file: this process maps it, and the others do so as well. What is small they have sooner
        // from whoever keeps the exchange.
        let bytes = content.into_bytes();
        if machine.is_trusted() && reference.bytes < SHARED {
            return Ok(Content::heap(bytes));
        }
        if machine.fill(reference, bytes.clone()).await == Some(Created::Now)
            && let Some(file) = machine.find(reference).await
            && file.len() == bytes.len()
        {
            if machine.is_trusted() {
                // It counts there, and goes when there is too much. That it can't be told is no reason to wait.
                let told = timeout(TELLING, self.backend.adopt(&blob_path(reference.digest))).await;
                if !matches!(told, Ok(Ok(_))) {
                    tracing::debug!("nobody counts the copy of {}", reference.digest.short());
                }
            }
            return Ok(file);
        }
        Ok(Content::heap(bytes))
    }

    async fn at_peers(&self, reference: Ref) -> Option<Content> {
        let digest = || reference.digest.short();
        match self.peers.get()?.fetch(reference).await {
            Ok(bytes) => match check(reference, Content::heap(bytes?)).await {
                Ok(content) => {
                    self.meter.read(Tier::Peer, reference.bytes);
                    moved(reference.bytes);
                    return Some(content);
                }
                Err(reason) => tracing::warn!("a peer sent something else as {}: {reason}", digest()),
            },
            Err(error) => tracing::warn!("{} can't be had from a peer: {error}", digest()),
        }
        None
    }

    /// Takes the coldest artifact out of memory, onto the disk if it is nowhere else; whether there was one.
    async fn evict(&self) -> Result<bool, StoreError> {
        let Some((reference, coldest)) = self.memory.take_coldest() else { return Ok(false) };
        if !coldest.held.is_mapped()
            && let Err(error) = self.backend.release(&blob_path(reference.digest)).await
        {
            self.memory.keep(reference, coldest.form, &coldest.held);
            return Err(error);
        }
        Ok(true)
    }
}

/// Content that is what its name says; `Err` says why it is not.
async fn check(reference: Ref, content: Content) -> Result<Content, String> {
    let found = content.len() as u64;
    if found != reference.bytes {
        return Err(format!("it has {found} bytes and should have {}", reference.bytes));
    }
    let (content, digest) = offload(found, move || {
        let digest = content.digest();
        (content, digest)
    })
    .await;
    match digest == reference.digest {
        true => Ok(content),
        false => Err(format!("its content has the digest {}", digest.short())),
    }
}
