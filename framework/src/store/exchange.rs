//! Where other processes of this machine put large blobs for the store in this process, and take them from: files that
//! all of them map. As long as they are few they are in memory (`/dev/shm`), so that no hand-over waits for a disk.

use super::staging::Staging;
use crate::process_folder::EXCHANGE;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What of the machine's memory an exchange takes at most: so many bytes, and this part of what is free there.
const MOST: u64 = 256 << 20;
const PART: u64 = 4;
/// Less is not worth it.
const LEAST: u64 = 64 << 20;
/// The folder for files that are memory (shm_overview(7)).
const MEMORY: &str = "/dev/shm";

/// The part of an exchange that is in memory.
pub(super) struct Exchange {
    files: Staging,
    limit: u64,
    inside: Mutex<Inside>,
}

/// The objects in memory, the oldest first, and how many bytes they have.
#[derive(Default)]
struct Inside {
    objects: VecDeque<Surplus>,
    bytes: u64,
    /// Bytes of those that are on their way to the disk.
    leaving: u64,
}

/// An object, and how it goes when there is too much.
pub(super) struct Surplus {
    pub(super) path: String,
    bytes: u64,
    /// Whether the store has it elsewhere.
    pub(super) is_copy: bool,
}

impl Exchange {
    /// An exchange in the memory of this machine, if it has room for one and nobody has said where else temporary files
    /// are to be.
    pub(super) fn in_memory(prefix: &'static str) -> Option<Self> {
        let folder = Path::new(MEMORY);
        if std::env::temp_dir() != Path::new("/tmp") {
            return None;
        }
        let room = rustix::fs::statvfs(folder).ok()?;
        let limit = (room.f_bavail.saturating_mul(room.f_frsize) / PART).min(MOST);
        (limit >= LEAST).then(|| Self::new(folder, prefix, limit))
    }

    pub(super) fn new(folder: &Path, prefix: &'static str, limit: u64) -> Self {
        Self { files: Staging::with_prefix(folder.to_owned(), prefix), limit, inside: Mutex::default() }
    }

    pub(super) fn files(&self) -> &Staging {
        &self.files
    }

    /// Counts an object that came, or a copy of one; gives those that are to go, the oldest first. The newest stays,
    /// however large it is: somebody is about to map it.
    pub(super) fn came(&self, path: &str, bytes: u64, is_copy: bool) -> Vec<Surplus> {
        let mut inside = self.inside();
        inside.objects.push_back(Surplus { path: path.to_owned(), bytes, is_copy });
        inside.bytes += bytes;
        let mut all = Vec::new();
        while inside.bytes > self.limit
            && inside.objects.len() > 1
            && let Some(surplus) = inside.objects.pop_front()
        {
            inside.bytes -= surplus.bytes;
            inside.leaving += surplus.bytes;
            all.push(surplus);
        }
        all
    }

    /// An object has gone, or can't.
    pub(super) fn left(&self, surplus: &Surplus) {
        self.inside().leaving -= surplus.bytes;
    }

    /// Whether whoever brings more must wait until others are gone.
    pub(super) fn is_crowded(&self) -> bool {
        let inside = self.inside();
        inside.bytes + inside.leaving > 2 * self.limit
    }

    #[cfg(test)]
    pub(super) fn is_leaving(&self) -> bool {
        self.inside().leaving > 0
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a file's name lead to where its content is now: who was told the name finds it still.
    pub(super) fn moved(&self, name: &Path, to: &Path) -> io::Result<()> {
        let link = self.files.name()?;
        symlink(to, &link)?;
        fs::rename(&link, name)
    }

    /// The folder in which the others work.
    pub(super) fn folder(&self) -> io::Result<PathBuf> {
        self.files.folder(EXCHANGE)
    }
}
