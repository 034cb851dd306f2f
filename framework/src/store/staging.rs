//! Where files are written before they get their names, and how those of dead processes are told from others.

use super::backend::Leftovers;
use crate::data::{Digest, Pieces};
use crate::process_folder::{Orphan, ProcessFolder};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A folder with one folder for each process that writes.
pub(super) struct Staging {
    folder: PathBuf,
    /// How the folders of processes are called.
    prefix: &'static str,
    session: Mutex<Option<Arc<ProcessFolder>>>,
    /// Nothing is written any more: nobody would remove it.
    closed: AtomicBool,
    next: AtomicU64,
}

impl Staging {
    /// In a folder that has nothing else in it.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self::with_prefix(folder, "p")
    }

    /// In a folder where only what begins with the prefix is ours.
    pub(super) fn with_prefix(folder: PathBuf, prefix: &'static str) -> Self {
        Self { folder, prefix, session: Mutex::new(None), closed: AtomicBool::new(false), next: AtomicU64::new(0) }
    }

    /// Writes a file under a name that nobody else uses.
    pub(super) fn write(&self, content: &Pieces) -> io::Result<PathBuf> {
        self.make(&|file| content.iter().try_for_each(|piece| (&*file).write_all(piece))).map(|(path, ())| path)
    }

    /// The same, and the digest of what was written.
    pub(super) fn write_digested(&self, content: &Pieces) -> io::Result<(PathBuf, Digest)> {
        self.make(&|file| Digest::while_writing(content, file))
    }

    /// Copies a file that was just opened to one of its own; gives that and its length. The system copies it: no page of
    /// it is this process's meanwhile.
    pub(super) fn copy(&self, from: &File) -> io::Result<(PathBuf, u64)> {
        // No more than this: whoever may still write it could go on for ever.
        let length = from.metadata()?.len();
        self.make(&|to| io::copy(&mut from.take(length), &mut &*to))
    }

    /// Makes a file that nobody may write again.
    fn make<T>(&self, write: &dyn Fn(&File) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mut last = io::Error::from(ErrorKind::NotFound);
        for _ in 0..3 {
            let session = self.session()?;
            let path = session.path().join(&name);
            let opened = File::options().write(true).create_new(true).mode(0o444).open(&path);
            match opened.and_then(|file| write(&file)) {
                Ok(made) => return Ok((path, made)),
                // Somebody removed the folder, as `rm -r` does.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.leave(&session);
                    last = error;
                }
                Err(error) => {
                    // Half a file helps nobody, least of all on a full disk.
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
            }
        }
        Err(last)
    }

    /// Gives a file of somebody else's a name here that nobody else uses; both names are the same file.
    pub(super) fn adopt(&self, file: &Path) -> io::Result<PathBuf> {
        let path = self.name()?;
        fs::hard_link(file, &path).map(|()| path)
    }

    /// A name that nobody else uses.
    pub(super) fn name(&self) -> io::Result<PathBuf> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        Ok(self.session()?.path().join(name))
    }

    /// A folder of this process's own, which goes with the process.
    pub(super) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.session()?.path().join(name);
        fs::create_dir_all(&folder).map(|()| folder)
    }

    /// Removes this process's folder, with all that is in it, for good.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let closed = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = closed {
            // At once, even if others still write there.
            let _ = fs::remove_dir_all(session.path());
        }
    }

    /// Removes the folders of dead processes, or only counts what is in them.
    pub(super) fn sweep(&self, dry_run: bool) -> io::Result<Leftovers> {
        let mut left = Leftovers::default();
        for orphan in Orphan::all(&self.folder, self.prefix)? {
            for file in orphan.files() {
                left.files += 1;
                left.bytes += file.metadata().map_or(0, |metadata| metadata.len());
            }
            if !dry_run {
                orphan.remove();
            }
        }
        Ok(left)
    }

    fn session(&self) -> io::Result<Arc<ProcessFolder>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        if self.closed.load(Ordering::Relaxed) {
            return Err(io::Error::other("the store is closed"));
        }
        fs::create_dir_all(&self.folder)?;
        let made = Arc::new(ProcessFolder::create(&self.folder, self.prefix)?);
        *session = Some(made.clone());
        Ok(made)
    }

    fn leave(&self, lost: &Arc<ProcessFolder>) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.as_ref().is_some_and(|session| Arc::ptr_eq(session, lost)) {
            *session = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let root = tempfile::tempdir().unwrap();
        let living = Staging::new(root.path().to_owned());
        let kept = living.write(&b"living".to_vec().into()).unwrap();

        // A process that was killed: its folder is there, and nobody holds the lock.
        let dead = root.path().join("pdead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), b"").unwrap();
        fs::write(dead.join("0"), b"half").unwrap();

        let expected = Leftovers { files: 1, bytes: 4 };
        assert_eq!(living.sweep(true).unwrap(), expected);
        assert!(dead.exists());
        assert_eq!(living.sweep(false).unwrap(), expected);
        assert!(!dead.exists());
        assert_eq!(living.sweep(false).unwrap(), Leftovers::default());
        assert_eq!(fs::read(kept).unwrap(), b"living");
    }

    #[test]
    fn a_removed_folder_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::new(root.path().join("staging"));
        staging.write(&b"one".to_vec().into()).unwrap();
        fs::remove_dir_all(root.path().join("staging")).unwrap();
        assert_eq!(fs::read(staging.write(&b"two".to_vec().into()).unwrap()).unwrap(), b"two");
    }
}
