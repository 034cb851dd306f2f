//! The second tier: a folder of this machine that all its processes share, for stores that are far away.

use super::Content;
use crate::data::{Digest, Pieces, Ref, Unnamed};
use crate::store::backend::{Created, Found};
use crate::store::blobs::{BLOBS, blob_path};
use crate::store::files::Files;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Blobs as files, which every process that reads them maps, so that the machine has them in memory once.
///
/// It is laid out and written as a [store in a folder](Files) is: a file is complete when it gets its name, of several
/// processes that fill it one wins, and what the dead were writing is swept. It may lose anything at any time: all it
/// costs is reading from the store again. So no error of it is more than a warning.
pub(in crate::store) struct Machine {
    files: Files,
    limit: u64,
    /// Whether only processes of this run write there, each of which digests what it writes.
    trusted: bool,
    /// Bytes that this process added since it last looked at all.
    added: AtomicU64,
    told: AtomicBool,
}

/// A process looks at all files when it has added this part of the limit.
const PART: u64 = 16;

impl Machine {
    /// The cache in a folder, which need not exist yet, of at most `limit` bytes (and a sixteenth more for every other
    /// process that adds to it at the same time).
    pub(in crate::store) fn new(folder: &Path, limit: u64) -> Self {
        let files = Files::new(format!("file://{}", folder.display()), folder.to_owned());
        let machine = Self { files, limit, trusted: false, added: AtomicU64::new(0), told: AtomicBool::new(false) };
        machine.ok(machine.files.sweep(false));
        machine
    }

    /// The [exchange](crate::store::exchange) of a run in a folder: a cache that lives as long as the run, and from which
    /// its store takes what is [left](Self::leave) there. What is found there is not digested again.
    pub(in crate::store) fn exchange(folder: &Path) -> Self {
        Self { trusted: true, ..Self::new(folder, u64::MAX) }
    }

    /// Where it is and how many bytes it may have, for other processes to share; nothing of an exchange.
    pub(in crate::store) fn place(&self) -> Option<(&Path, u64)> {
        (!self.trusted).then(|| (self.files.root(), self.limit))
    }

    /// Whether what is found here needs no check.
    pub(in crate::store) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Adds a blob that has no name yet: it is digested while it is written. Gives its name, whether it is new, and its
    /// content; `None` if it can't. On this thread.
    pub(super) fn leave(&self, blob: &Unnamed) -> Option<(Ref, Created, Content)> {
        let left = self.ok(self.files.create_digested(&blob.pieces, blob_path))?;
        let (digest, created, content) = left;
        Some((Ref { kind: blob.kind, digest, bytes: blob.pieces.len() as u64 }, created, content))
    }

    /// The blob's content, not checked. It counts as just used.
    pub(super) async fn find(&self, reference: Ref) -> Option<Content> {
        let path = blob_path(reference.digest);
        if !self.files.touch(&path) {
            return None;
        }
        self.ok(self.files.open(&path, reference.bytes).await).flatten()
    }

    /// Adds a blob, whose content was checked; `None` if it can't.
    pub(super) async fn fill(&self, reference: Ref, content: impl Into<Pieces>) -> Option<Created> {
        if reference.bytes > self.limit {
            return None;
        }
        let created = self.ok(self.files.create(&blob_path(reference.digest), content.into()).await)?;
        if created == Created::Now {
            let added = self.added.fetch_add(reference.bytes, Ordering::Relaxed) + reference.bytes;
            if added > self.limit / PART {
                self.added.store(0, Ordering::Relaxed);
                self.shrink(reference.digest).await;
            }
        }
        Some(created)
    }

    pub(super) async fn part(&self, reference: Ref, from: u64, length: u64) -> Option<Bytes> {
        self.ok(self.files.part(&blob_path(reference.digest), from, length).await).flatten()
    }

    pub(super) fn link(&self, reference: Ref, to: &Path) -> io::Result<bool> {
        self.files.link(&blob_path(reference.digest), to)
    }

    pub(super) fn forget(&self, reference: Ref) {
        self.ok(self.files.remove(&blob_path(reference.digest)));
    }

    /// Removes what was not used for longest until the limit holds. Who has it mapped keeps it; and it does not matter
    /// if others do the same at the same time.
    async fn shrink(&self, but: Digest) {
        let Some(mut found) = self.ok(self.files.list(BLOBS).await) else { return };
        found.sort_by_key(|found| found.modified);
        let mut total: u64 = found.iter().map(|found| found.bytes).sum();
        let keep = but.to_string();
        for Found { path, bytes, .. } in &found {
            if total <= self.limit {
                break;
            }
            if !path.ends_with(&keep) && self.ok(self.files.remove(path)).is_some() {
                total -= bytes;
            }
        }
    }

    /// Warns once of what does not work.
    fn ok<T>(&self, result: Result<T, crate::store::StoreError>) -> Option<T> {
        result
            .inspect_err(|error| {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the cache of this machine does not work: {error}");
                }
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Kind;

    fn blob(index: u8) -> (Ref, Bytes) {
        let bytes = Bytes::from(vec![index; 1000]);
        (Ref { kind: Kind::Bytes, digest: Digest::of(&bytes), bytes: 1000 }, bytes)
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        crate::runtime().unwrap().block_on(future)
    }

    fn total(machine: &Machine) -> u64 {
        wait(machine.files.list(BLOBS)).unwrap().iter().map(|found| found.bytes).sum()
    }

    #[test]
    fn the_longest_unused_goes_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new(folder.path(), 10_000);
        for index in 0..10 {
            let (reference, bytes) = blob(index);
            assert_eq!(wait(machine.fill(reference, bytes)), Some(Created::Now));
        }
        assert!(wait(machine.find(blob(0).0)).is_some());
        let (reference, bytes) = blob(10);
        wait(machine.fill(reference, bytes.clone()));
        assert_eq!(total(&machine), 10_000);
        assert!(wait(machine.find(blob(0).0)).is_some());
        let found = (1..10).filter(|index| wait(machine.find(blob(*index).0)).is_some());
        assert_eq!(found.count(), 8);
        assert_eq!(wait(machine.find(reference)).unwrap().into_bytes(), bytes);
    }

    #[test]
    fn several_may_fill_and_shrink_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for process in 0..4u8 {
                let folder = folder.path();
                scope.spawn(move || {
                    let machine = Machine::new(folder, 8_000);
                    for round in 0..100u8 {
                        let (reference, bytes) = blob(round.wrapping_mul(7).wrapping_add(process) % 30);
                        assert!(wait(machine.fill(reference, bytes.clone())).is_some());
                        // Another one may have removed it meanwhile, but it is never half there.
                        if let Some(content) = wait(machine.find(reference)) {
                            assert_eq!(content.into_bytes(), bytes);
                        }
                    }
                    assert!(!machine.told.load(Ordering::Relaxed));
                });
            }
        });
        let machine = Machine::new(folder.path(), 8_000);
        assert!(total(&machine) <= 8_000 + 4 * 1000, "{}", total(&machine));
        assert_eq!(std::fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
    }
}
