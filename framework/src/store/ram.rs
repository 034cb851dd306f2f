//! A store that lives as long as its process, partly in its memory and partly in files of its own.

use super::StoreError;
use super::backend::{Created, Found, Leftovers};
use super::blobs::BLOBS;
use super::files::{link, open_file, read_part};
use super::offload::{LONG, offload};
use super::staging::Staging;
use super::tiers::Content;
use crate::data::Pieces;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Objects of this process. Blobs stay in memory until they are [released](Ram::release); then they go to files, as do
/// long objects that are no blobs at once.
///
/// The files are in a folder of the process's own among the system's temporary files. It is removed with the store;
/// after a `kill -9`, by the next process that opens such a store. Clones share the objects.
#[derive(Clone)]
pub(super) struct Ram(Arc<Inner>);

struct Inner {
    objects: Mutex<BTreeMap<String, Object>>,
    files: Staging,
}

struct Object {
    place: Place,
    bytes: u64,
    modified: SystemTime,
}

enum Place {
    Memory(Pieces),
    File(PathBuf),
}

const URL: &str = "memory://";

/// The folder of a process is called so, and more.
pub(super) const PREFIX: &str = "ropeway-spill-";

/// Up to a page, a file would cost the machine as much memory as it frees in the process.
const PAGE: u64 = 4096;

impl Ram {
    /// An empty store.
    pub(super) fn new() -> Self {
        Self::in_folder(&folder())
    }

    pub(super) fn in_folder(parent: &Path) -> Self {
        let files = Staging::with_prefix(parent.to_owned(), PREFIX);
        Self(Arc::new(Inner { objects: Mutex::default(), files }))
    }

    pub(super) fn url(&self) -> &str {
        URL
    }

    /// Creates an object; it stays in memory if it is short, or if there is room for it and its owner counts it.
    pub(super) async fn create(&self, path: &str, content: Pieces, room: bool) -> Result<Created, StoreError> {
        let length = content.len() as u64;
        if let Some(object) = self.0.lock().get_mut(path) {
            object.modified = SystemTime::now();
            return Ok(Created::Already);
        }
        let long = if path.starts_with(BLOBS) { PAGE } else { LONG };
        let place = match room {
            // The memory of its own that a short object has is not counted; neither is that of memos and logs.
            _ if length <= long => Place::Memory(Bytes::copy_from_slice(&content.join()).into()),
            true => Place::Memory(content),
            false => Place::File(self.write(path, content).await?),
        };
        Ok(self.0.insert(path, Object { place, bytes: length, modified: SystemTime::now() }))
    }

    /// The folder in which other processes of this machine put blobs that are to be [adopted](Self::adopt).
    pub(super) fn exchange(&self) -> io::Result<PathBuf> {
        self.0.files.folder("exchange")
    }

    /// Creates a blob from the file that another process put into the exchange; `None` if there is none.
    pub(super) fn adopt(&self, path: &str) -> Result<Option<Created>, StoreError> {
        let error = |error: io::Error| StoreError::of_io(URL, "write", path, &error);
        let file = self.exchange().map_err(error)?.join(path);
        let Some(length) = found(std::fs::metadata(&file)).map_err(error)?.map(|metadata| metadata.len()) else {
            return Ok(None);
        };
        let place = Place::File(self.0.files.adopt(&file).map_err(error)?);
        Ok(Some(self.0.insert(path, Object { place, bytes: length, modified: SystemTime::now() })))
    }

    /// Moves a blob from memory to a file.
    pub(super) async fn release(&self, path: &str) -> Result<(), StoreError> {
        let content = match self.0.lock().get(path) {
            Some(Object { place: Place::Memory(content), bytes, .. }) if *bytes > PAGE => content.clone(),
            _ => return Ok(()),
        };
        let (inner, path) = (self.0.clone(), path.to_owned());
        // All in one, so that it also happens if nobody waits for it any more.
        offload(content.len() as u64, move || {
            let file = inner.files.write(&content).map_err(|error| StoreError::of_io(URL, "write", &path, &error))?;
            let mut objects = inner.lock();
            match objects.get_mut(&path) {
                Some(Object { place: place @ Place::Memory(_), .. }) => *place = Place::File(file),
                // It was removed meanwhile, or somebody else did the same.
                _ => drop(std::fs::remove_file(file)),
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn open(&self, path: &str) -> Result<Option<Content>, StoreError> {
        let (file, length) = match self.0.lock().get(path) {
            None => return Ok(None),
            Some(Object { place: Place::Memory(content), .. }) => return Ok(Some(Content::Shared(content.clone()))),
            Some(Object { place: Place::File(file), bytes, .. }) => (file.clone(), *bytes),
        };
        let opened = offload(length, move || open_file(&file)).await;
        found(opened).map_err(|error| StoreError::of_io(URL, "read", path, &error))
    }

    pub(super) async fn part(&self, path: &str, from: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        let file = match self.0.lock().get(path) {
            None => return Ok(None),
            Some(Object { place: Place::File(file), .. }) => file.clone(),
            Some(Object { place: Place::Memory(content), .. }) => {
                let start = usize::try_from(from).unwrap_or(usize::MAX);
                let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
                return Ok(Some(content.part(start, end)));
            }
        };
        let read = offload(length, move || read_part(&file, from, length)).await;
        found(read).map_err(|error| StoreError::of_io(URL, "read", path, &error))
    }

    pub(super) fn link(&self, path: &str, to: &Path) -> io::Result<bool> {
        let file = match self.0.lock().get(path) {
            Some(Object { place: Place::File(file), .. }) => file.clone(),
            _ => return Ok(false),
        };
        link(&file, to).map(|()| true)
    }

    pub(super) fn size(&self, path: &str) -> Option<u64> {
        self.0.lock().get(path).map(|object| object.bytes)
    }

    pub(super) fn list(&self, folder: &str) -> Vec<Found> {
        let objects = self.0.lock();
        let inside = objects.range(format!("{folder}/")..).take_while(|(path, _)| is_in(path, folder));
        inside
            .map(|(path, object)| Found { path: path.clone(), bytes: object.bytes, modified: object.modified })
            .collect()
    }

    pub(super) fn folders(&self, folder: &str) -> Vec<String> {
        let objects = self.0.lock();
        let inside = objects.range(format!("{folder}/")..).take_while(|(path, _)| is_in(path, folder));
        let names: BTreeSet<&str> =
            inside.filter_map(|(path, _)| path[folder.len() + 1..].split_once('/').map(|(name, _)| name)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), StoreError> {
        let removed = self.0.lock().remove(path);
        if let Some(Object { place: Place::File(file), .. }) = removed {
            found(std::fs::remove_file(file)).map_err(|error| StoreError::of_io(URL, "remove", path, &error))?;
        }
        Ok(())
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> bool {
        let mut objects = self.0.lock();
        let Some(object) = objects.remove(from) else { return false };
        let before = objects.insert(to.to_owned(), object);
        drop(objects);
        if let Some(Object { place: Place::File(file), .. }) = before {
            // What can't be removed goes with the folder.
            let _ = std::fs::remove_file(file);
        }
        true
    }

    pub(super) fn close(&self) {
        self.0.files.close();
    }

    pub(super) fn sweep(&self, dry_run: bool) -> Result<Leftovers, StoreError> {
        self.0.files.sweep(dry_run).map_err(|error| StoreError::of_io(URL, "remove", PREFIX, &error))
    }

    async fn write(&self, path: &str, content: Pieces) -> Result<PathBuf, StoreError> {
        let inner = self.0.clone();
        let written = offload(content.len() as u64, move || inner.files.write(&content)).await;
        written.map_err(|error| StoreError::of_io(URL, "write", path, &error))
    }
}

impl Inner {
    fn insert(&self, path: &str, object: Object) -> Created {
        let mut objects = self.lock();
        if objects.contains_key(path) {
            drop(objects);
            if let Place::File(file) = object.place {
                // What can't be removed goes with the folder.
                let _ = std::fs::remove_file(file);
            }
            return Created::Already;
        }
        objects.insert(path.to_owned(), object);
        Created::Now
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the folders of processes are: `/tmp` is memory on many machines, of which there is not enough; `/var/tmp` is
/// the place for what is large (file-hierarchy(7)). Who sets `TMPDIR` has said where.
fn folder() -> PathBuf {
    let temporary = std::env::temp_dir();
    let large = Path::new("/var/tmp");
    if temporary == Path::new("/tmp") && large.is_dir() { large.to_owned() } else { temporary }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        crate::runtime().unwrap().block_on(future)
    }

    #[test]
    fn what_is_released_is_a_file_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let ram = Ram::in_folder(folder.path());
        let content = Bytes::from(vec![7; 300_000]);
        assert_eq!(wait(ram.create("blobs/aa/x", content.clone().into(), true)).unwrap(), Created::Now);
        assert_eq!(wait(ram.create("blobs/aa/x", content.clone().into(), true)).unwrap(), Created::Already);
        assert!(matches!(wait(ram.open("blobs/aa/x")).unwrap(), Some(Content::Shared(_))));
        wait(ram.release("blobs/aa/x")).unwrap();
        wait(ram.release("blobs/aa/x")).unwrap();
        wait(ram.release("blobs/aa/none")).unwrap();
        assert!(matches!(wait(ram.open("blobs/aa/x")).unwrap(), Some(Content::Mapped(_))));
        assert_eq!(wait(ram.open("blobs/aa/x")).unwrap().unwrap().into_bytes(), content);
        assert_eq!(wait(ram.part("blobs/aa/x", 299_990, 100)).unwrap().unwrap(), [7; 10].as_slice());
        assert_eq!(ram.size("blobs/aa/x"), Some(300_000));
        ram.remove("blobs/aa/x").unwrap();
        assert!(wait(ram.open("blobs/aa/x")).unwrap().is_none());
        drop(ram);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_room_a_blob_is_a_file_at_once_unless_it_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let ram = Ram::in_folder(folder.path());
        wait(ram.create("blobs/aa/short", vec![1; 100].into(), false)).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        wait(ram.create("blobs/aa/long", vec![1; 5000].into(), false)).unwrap();
        wait(ram.create("checkpoints/k/1", vec![1; LONG as usize + 1].into(), false)).unwrap();
        let session = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_dir(&session).unwrap().count(), 3, "two files and the lock");
        assert!(ram.rename("blobs/aa/long", "corrupt/x"));
        assert_eq!(ram.folders("blobs"), ["aa"]);
        assert_eq!(ram.list("corrupt").len(), 1);
    }
}
