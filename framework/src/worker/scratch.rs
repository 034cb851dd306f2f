//! Temporary files, none of which outlive their process for long: the next start removes what the dead left.

use crate::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const PREFIX: &str = "ropeway-scratch-";
const LOCK: &str = "lock";

/// This process's folder for temporary files. It is locked as long as the process lives, however it dies.
#[derive(Debug)]
pub(super) struct ScratchRoot {
    folder: tempfile::TempDir,
    _lock: File,
}

impl ScratchRoot {
    /// Makes the folder in `parent`, and removes those of dead processes.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        sweep(parent);
        let making = || format!("can't make a folder for temporary files in {}", parent.display());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).context(making())?;
        // It gets its name when it is locked: others that start now must not take it for a dead one's.
        let unnamed = folder.path().join("new-lock");
        let lock = File::create(&unnamed).context(making())?;
        lock.try_lock().context(making())?;
        fs::rename(&unnamed, folder.path().join(LOCK)).context(making())?;
        Ok(Self { folder, _lock: lock })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// Removes the folders whose lock nobody holds. What can't be removed (it is another user's) stays.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // No lock file yet: its owner is just making the folder.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_start_at_once_do_not_sweep_each_other() {
        let parent = tempfile::tempdir().unwrap();
        let start = || (0..50).map(|_| ScratchRoot::create(parent.path()).unwrap()).collect::<Vec<_>>();
        let all: Vec<ScratchRoot> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| one.path().join(LOCK).exists()));
    }

    #[test]
    fn the_dead_are_swept_and_the_living_stay() {
        let parent = tempfile::tempdir().unwrap();
        let living = ScratchRoot::create(parent.path()).unwrap();
        let dead = parent.path().join("ropeway-scratch-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("rest.arrow"), "x").unwrap();
        let other = ScratchRoot::create(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.path().exists() && other.path().exists());
    }
}
