//! Folders that belong to one process: they end with it, and what the dead left is told from what the living have.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
/// What other processes write to in such a folder.
pub(crate) const EXCHANGE: &str = "exchange";

/// A folder of this process, with all that is in it; it is removed when this is dropped.
///
/// It holds a file `lock` that the process keeps locked. The system lets go of the lock when the process ends, however
/// it ends, so whoever gets the lock knows that the process is dead; that holds between containers as well, where
/// process numbers mean nothing. A folder without that file is of a process that died just as it made it, or is making
/// it: it may be taken away, since then the process makes another.
#[derive(Debug)]
pub(crate) struct ProcessFolder {
    path: PathBuf,
    lock: Option<File>,
}

impl ProcessFolder {
    /// Makes one, with a name that begins with the prefix.
    pub(crate) fn create(parent: &Path, prefix: &str) -> io::Result<Self> {
        loop {
            // What goes wrong from here removes it again.
            let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
            let path = folder.path().join(LOCK);
            let lock = match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                lock => lock?,
            };
            match lock.try_lock() {
                // Where files can't be locked nobody can sweep either.
                Ok(()) | Err(TryLockError::Error(_)) if path.exists() => {
                    return Ok(Self { path: folder.keep(), lock: Some(lock) });
                }
                // A sweep was faster: it removes the folder, or has done so.
                Ok(()) | Err(_) => {}
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ProcessFolder {
    fn drop(&mut self) {
        remove(&self.path, self.lock.take());
    }
}

/// A folder of a dead process, which nobody else sweeps meanwhile.
pub(crate) struct Orphan {
    path: PathBuf,
    lock: Option<File>,
}

impl Orphan {
    /// Those in a folder whose names begin with a prefix.
    ///
    /// # Errors
    /// If the folder can't be read. There are none in a folder that does not exist.
    pub(crate) fn all(parent: &Path, prefix: &str) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(parent) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut orphans = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
                orphans.extend(Self::at(entry.path()));
            }
        }
        Ok(orphans)
    }

    fn at(path: PathBuf) -> Option<Self> {
        match File::options().read(true).write(true).open(path.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok().then_some(Self { path, lock: Some(lock) }),
            Err(error) if error.kind() == ErrorKind::NotFound => Some(Self { path, lock: None }),
            // Another user's, or no folder.
            Err(_) => None,
        }
    }

    /// The files in it.
    pub(crate) fn files(&self) -> impl Iterator<Item = fs::DirEntry> {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        files.filter(|file| file.file_name() != LOCK)
    }

    /// Removes it. What can't be removed (another user's) is left to others.
    pub(crate) fn remove(self) {
        match self.lock {
            Some(lock) => remove(&self.path, Some(lock)),
            // If it is empty: by now it may have a lock. But what stands there without one, where a lock comes before all
            // else and goes after it, a worker made that outlived its run.
            None => {
                let made = self.path.join(EXCHANGE);
                if made.exists() && !self.path.join(LOCK).exists() {
                    let _ = fs::remove_dir_all(made);
                }
                let _ = fs::remove_dir(&self.path);
            }
        }
    }
}

/// Removes a folder, the lock last: if the process dies meanwhile, the rest is still known as a dead one's.
fn remove(folder: &Path, lock: Option<File>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != LOCK {
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
        }
    }
    // It goes while it is held: whoever is just making this folder sees then that it is gone.
    let _ = fs::remove_file(folder.join(LOCK));
    // A network's file system keeps a folder that has open files.
    drop(lock);
    let _ = fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn sweep(parent: &Path) {
        Orphan::all(parent, "p").unwrap().into_iter().for_each(Orphan::remove);
    }

    #[test]
    fn the_dead_are_swept_wherever_they_died_and_the_living_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = ProcessFolder::create(parent.path(), "p").unwrap();
        fs::write(living.path().join("file"), "x").unwrap();
        // Killed before it had a lock, with one, at work, and as it removed what it had made.
        let dead = ["pnew", "plocked", "pworked", "premoved", "pmadeagain"].map(|name| parent.path().join(name));
        dead.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        dead[1..4].iter().for_each(|folder| fs::write(folder.join(LOCK), "").unwrap());
        // Somebody who did not know that it was gone wrote there.
        fs::create_dir_all(dead[4].join(EXCHANGE).join("blobs")).unwrap();
        fs::write(dead[2].join("rest.arrow"), "x").unwrap();
        fs::create_dir(dead[2].join("folder")).unwrap();
        fs::write(dead[2].join("folder/file"), "x").unwrap();
        fs::remove_file(dead[3].join(LOCK)).unwrap();
        // Not one of these.
        fs::create_dir(parent.path().join("other")).unwrap();
        fs::write(parent.path().join("pfile"), "x").unwrap();

        sweep(parent.path());
        assert_eq!(dead.map(|folder| folder.exists()), [false; 5]);
        assert!(living.path().join("file").exists());
        assert!(parent.path().join("other").exists() && parent.path().join("pfile").exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
        sweep(&path);
    }

    #[test]
    fn many_that_start_at_once_do_not_sweep_each_other() {
        let parent = tempfile::tempdir().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    sweep(parent.path());
                }
            });
            let make = || {
                let start = |_| {
                    sweep(parent.path());
                    ProcessFolder::create(parent.path(), "p").unwrap()
                };
                (0..200).map(start).collect::<Vec<_>>()
            };
            let makers = [0; 4].map(|_| scope.spawn(make));
            let all: Vec<_> = makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect();
            assert!(all.iter().all(|one| one.path().join(LOCK).exists()));
            ended.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
