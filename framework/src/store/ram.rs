//! A store that lives as long as its process, partly in its memory and partly in files of its own.

use super::backend::{Created, Found, Leftovers};
use super::blobs::BLOBS;
use super::brief::{Brief, Common};
use super::exchange::{Exchange, Surplus};
use super::files::{link, open_file, read_part};
use super::named::{Name, Named};
use super::offload::{LONG, offload};
use super::staging::Staging;
use super::tiers::Content;
use super::{Key, Memo, StoreError};
use crate::data::{Digest, Pieces};
use crate::process_folder::EXCHANGE;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Objects of this process. Blobs stay in memory until they are [released](Ram::release); then they go to files, as do
/// long objects that are no blobs at once. What other processes put into the [exchange](Exchange) stays there as long
/// as it has room.
///
/// The files are in a folder of the process's own among the system's temporary files. It is removed with the store;
/// after a `kill -9`, by the next process that opens such a store. Clones share the objects.
#[derive(Clone)]
pub(super) struct Ram(Arc<Inner>);

struct Inner {
    objects: Mutex<Objects>,
    files: Staging,
    exchange: Option<Exchange>,
}

#[derive(Default)]
struct Objects {
    named: Named<Object>,
    common: Common,
}

struct Object {
    place: Place,
    modified: Millis,
}

/// A time of the calendar in half of its room: milliseconds since 1970.
#[derive(Clone, Copy)]
struct Millis(u64);

impl Millis {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.0)).unwrap_or(UNIX_EPOCH)
    }
}

/// A memo that is there as bytes.
pub(super) struct Sealed;

enum Place {
    Memory(Pieces),
    File(PathBuf, u64),
    /// A memo that this process wrote itself.
    Memo(Brief),
}

impl Object {
    fn new(place: Place) -> Self {
        Self { place, modified: Millis::now() }
    }

    /// Somebody would have created it now.
    fn touch(&mut self) -> Created {
        self.modified = Millis::now();
        Created::Already
    }

    fn bytes(&self) -> u64 {
        match &self.place {
            Place::Memory(content) => content.len() as u64,
            Place::File(_, bytes) => *bytes,
            Place::Memo(brief) => brief.memo().seal().map_or(0, |sealed| sealed.len() as u64),
        }
    }
}

const URL: &str = "memory://";

/// The folder of a process is called so, and more.
pub(super) const PREFIX: &str = "ropeway-spill-";

/// Up to a page, a file would cost the machine as much memory as it frees in the process.
const PAGE: u64 = 4096;

impl Ram {
    /// An empty store.
    pub(super) fn new() -> Self {
        Self::with_exchange(&folder(), Exchange::in_memory(PREFIX))
    }

    /// One all of whose files are in a folder.
    #[cfg(test)]
    pub(super) fn in_folder(parent: &Path) -> Self {
        Self::with_exchange(parent, None)
    }

    fn with_exchange(parent: &Path, exchange: Option<Exchange>) -> Self {
        let files = Staging::with_prefix(parent.to_owned(), PREFIX);
        Self(Arc::new(Inner { objects: Mutex::default(), files, exchange }))
    }

    pub(super) fn url(&self) -> &str {
        URL
    }

    /// Creates an object; it stays in memory if it is short, or if there is room for it and its owner counts it.
    pub(super) async fn create(&self, path: &str, content: Pieces, room: bool) -> Result<Created, StoreError> {
        let (name, length) = (Name::of(path), content.len() as u64);
        if let Some(object) = self.0.lock().named.get_mut(name) {
            return Ok(object.touch());
        }
        let long = if path.starts_with(BLOBS) { PAGE } else { LONG };
        let place = match room {
            // The memory of its own that a short object has is not counted; neither is that of memos and logs.
            _ if length <= long => Place::Memory(Bytes::copy_from_slice(&content.join()).into()),
            true => Place::Memory(content),
            false => Place::File(self.write(path, content).await?, length),
        };
        Ok(self.0.insert(name, Object::new(place)))
    }

    /// Creates a memo.
    pub(super) fn create_memo(&self, key: Key, memo: &Memo) -> Created {
        let name = Name::Memo(key);
        let Objects { named, common } = &mut *self.0.lock();
        match named.insert_if_none(name, || Object::new(Place::Memo(common.shorten(memo)))) {
            Some(object) => object.touch(),
            None => Created::Now,
        }
    }

    /// The memo of a key, if there is one; `Err` if another process wrote it, so that it must be read.
    pub(super) fn memo(&self, key: Key) -> Result<Option<Memo>, Sealed> {
        match self.0.lock().named.get(Name::Memo(key)).map(|object| &object.place) {
            None => Ok(None),
            Some(Place::Memo(brief)) => Ok(Some(brief.memo())),
            Some(Place::Memory(_) | Place::File(..)) => Err(Sealed),
        }
    }

    /// Creates a blob of few bytes; `None` if it has more.
    pub(super) fn create_short(&self, digest: Digest, content: &[u8]) -> Option<Created> {
        if content.len() as u64 > PAGE {
            return None;
        }
        let name = Name::Blob(digest);
        let make = || Object::new(Place::Memory(Bytes::copy_from_slice(content).into()));
        match self.0.lock().named.insert_if_none(name, make) {
            Some(object) => Some(object.touch()),
            None => Some(Created::Now),
        }
    }

    /// The folder in which other processes of this machine put blobs that are to be [adopted](Self::adopt).
    pub(super) fn exchange(&self) -> io::Result<PathBuf> {
        match &self.0.exchange {
            Some(exchange) => exchange.folder(),
            None => self.0.files.folder(EXCHANGE),
        }
    }

    /// Creates a blob from the file that another process put into the exchange; `None` if there is none. What has no room
    /// there any more goes to the disk beside it, unless the store had it before; it waits if that is too much.
    pub(super) async fn adopt(&self, path: &str) -> Result<Option<Created>, StoreError> {
        let error = |error: io::Error| StoreError::of_io(URL, "write", path, &error);
        let file = self.exchange().map_err(error)?.join(path);
        let Some(length) = found(std::fs::metadata(&file)).map_err(error)?.map(|metadata| metadata.len()) else {
            return Ok(None);
        };
        let exchange = self.0.exchange.as_ref();
        let adopted = found(exchange.map_or(&self.0.files, Exchange::files).adopt(&file)).map_err(error)?;
        let Some(place) = adopted else { return Ok(None) };
        let is_known = self.0.is_at(path, &file);
        let created = self.0.insert(Name::of(path), Object::new(Place::File(place, length)));
        if !is_known && let Some(exchange) = exchange {
            for surplus in exchange.came(path, length, created == Created::Already) {
                let leaving = self.clone().leave_exchange(surplus);
                match exchange.is_crowded() {
                    true => leaving.await,
                    false => drop(tokio::spawn(leaving)),
                }
            }
        }
        Ok(Some(created))
    }

    /// Moves a blob from the exchange's memory to the disk. One that can't go stays.
    async fn leave_exchange(self, surplus: Surplus) {
        // A copy gives its name to the store's own file.
        let released = if surplus.is_copy { self.release(&surplus.path).await } else { Ok(()) };
        let (file, length) = match self.0.lock().place(&surplus.path) {
            Some(Place::File(file, length)) => (file.clone(), *length),
            _ => (PathBuf::new(), 0),
        };
        offload(length, move || {
            let Some(exchange) = &self.0.exchange else { return };
            let left = released.map_err(io::Error::other).and_then(|()| match surplus.is_copy {
                // It was removed meanwhile.
                true if file.as_os_str().is_empty() => Ok(()),
                true => exchange.moved(&exchange.folder()?.join(&surplus.path), &file),
                false => self.0.move_out(exchange, &surplus.path, &file),
            });
            if let Err(error) = left {
                tracing::warn!("{} stays in memory: {error}", surplus.path);
            }
            exchange.left(&surplus);
        })
        .await;
    }

    /// Moves a blob from memory to a file.
    pub(super) async fn release(&self, path: &str) -> Result<(), StoreError> {
        let content = match self.0.lock().place(path) {
            Some(Place::Memory(content)) if content.len() as u64 > PAGE => content.clone(),
            _ => return Ok(()),
        };
        let (inner, path) = (self.0.clone(), path.to_owned());
        // All in one, so that it also happens if nobody waits for it any more.
        offload(content.len() as u64, move || {
            let file = inner.files.write(&content).map_err(|error| StoreError::of_io(URL, "write", &path, &error))?;
            let mut objects = inner.lock();
            match objects.named.get_mut(Name::of(&path)) {
                Some(Object { place: place @ Place::Memory(_), .. }) => {
                    *place = Place::File(file, content.len() as u64);
                }
                // It was removed meanwhile, or somebody else did the same.
                _ => drop(std::fs::remove_file(file)),
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn open(&self, path: &str) -> Result<Option<Content>, StoreError> {
        let (file, length) = match self.0.lock().place(path) {
            None => return Ok(None),
            Some(Place::Memory(content)) => return Ok(Some(Content::Shared(content.clone()))),
            Some(Place::Memo(brief)) => return Ok(Some(Content::Shared(brief.memo().seal()?.into()))),
            Some(Place::File(file, length)) => (file.clone(), *length),
        };
        let opened = offload(length, move || open_file(&file)).await;
        found(opened).map_err(|error| StoreError::of_io(URL, "read", path, &error))
    }

    pub(super) async fn part(&self, path: &str, from: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        let slice = |content: &Pieces| {
            let start = usize::try_from(from).unwrap_or(usize::MAX);
            content.part(start, start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)))
        };
        let file = match self.0.lock().place(path) {
            None => return Ok(None),
            Some(Place::File(file, _)) => file.clone(),
            Some(Place::Memory(content)) => return Ok(Some(slice(content))),
            Some(Place::Memo(brief)) => return Ok(Some(slice(&brief.memo().seal()?.into()))),
        };
        let read = offload(length, move || read_part(&file, from, length)).await;
        found(read).map_err(|error| StoreError::of_io(URL, "read", path, &error))
    }

    pub(super) fn link(&self, path: &str, to: &Path) -> io::Result<bool> {
        let file = match self.0.lock().place(path) {
            Some(Place::File(file, _)) => file.clone(),
            _ => return Ok(false),
        };
        link(&file, to).map(|()| true)
    }

    pub(super) fn size(&self, path: &str) -> Option<u64> {
        self.0.lock().named.get(Name::of(path)).map(Object::bytes)
    }

    /// Whether there is nothing in a folder of neither blobs nor memos.
    pub(super) fn has_none(&self, folder: &str) -> bool {
        self.0.lock().named.has_none(folder)
    }

    pub(super) fn list(&self, folder: &str) -> Vec<Found> {
        let objects = self.0.lock();
        let found =
            |(path, object): (String, &Object)| Found { path, bytes: object.bytes(), modified: object.modified.time() };
        objects.named.inside(folder).map(found).collect()
    }

    pub(super) fn folders(&self, folder: &str) -> Vec<String> {
        let objects = self.0.lock();
        let name = |(path, _): (String, &Object)| Some(path[folder.len() + 1..].split_once('/')?.0.to_owned());
        let names: BTreeSet<String> = objects.named.inside(folder).filter_map(name).collect();
        names.into_iter().collect()
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), StoreError> {
        let removed = self.0.lock().named.remove(Name::of(path));
        if let Some(Object { place: Place::File(file, _), .. }) = removed {
            found(std::fs::remove_file(file)).map_err(|error| StoreError::of_io(URL, "remove", path, &error))?;
        }
        Ok(())
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> bool {
        let mut objects = self.0.lock();
        let Some(object) = objects.named.remove(Name::of(from)) else { return false };
        let before = objects.named.insert(Name::of(to), object);
        drop(objects);
        if let Some(Object { place: Place::File(file, _), .. }) = before {
            // What can't be removed goes with the folder.
            let _ = std::fs::remove_file(file);
        }
        true
    }

    pub(super) fn close(&self) {
        self.0.files.close();
        self.0.exchange.iter().for_each(|exchange| exchange.files().close());
    }

    pub(super) fn sweep(&self, dry_run: bool) -> Result<Leftovers, StoreError> {
        let folders = [Some(&self.0.files), self.0.exchange.as_ref().map(Exchange::files)];
        let mut left = Leftovers::default();
        for folder in folders.into_iter().flatten() {
            let found = folder.sweep(dry_run).map_err(|error| StoreError::of_io(URL, "remove", PREFIX, &error))?;
            left.files += found.files;
            left.bytes += found.bytes;
        }
        Ok(left)
    }

    async fn write(&self, path: &str, content: Pieces) -> Result<PathBuf, StoreError> {
        let inner = self.0.clone();
        let written = offload(content.len() as u64, move || inner.files.write(&content)).await;
        written.map_err(|error| StoreError::of_io(URL, "write", path, &error))
    }
}

impl Inner {
    /// Copies a blob to the disk; its names in the exchange lead there from then on.
    fn move_out(&self, exchange: &Exchange, path: &str, file: &Path) -> io::Result<()> {
        // That there is none any more is fine.
        let Some(from) = found(File::open(file))? else { return Ok(()) };
        let (moved, length) = self.files.copy(&from)?;
        match self.lock().named.get_mut(Name::of(path)) {
            Some(Object { place, .. }) => *place = Place::File(moved.clone(), length),
            // It was removed meanwhile.
            None => return std::fs::remove_file(moved),
        }
        [file, &exchange.folder()?.join(path)].iter().try_for_each(|name| exchange.moved(name, &moved))
    }

    /// Whether an object is the very file of that name.
    fn is_at(&self, path: &str, file: &Path) -> bool {
        let place = match self.lock().place(path) {
            Some(Place::File(place, _)) => place.clone(),
            _ => return false,
        };
        let number = |file: &Path| std::fs::metadata(file).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        number(&place).is_some_and(|place| number(file) == Some(place))
    }

    fn insert(&self, name: Name<'_>, object: Object) -> Created {
        let mut objects = self.lock();
        if objects.named.get(name).is_some() {
            drop(objects);
            if let Place::File(file, _) = object.place {
                // What can't be removed goes with the folder.
                let _ = std::fs::remove_file(file);
            }
            return Created::Already;
        }
        objects.named.insert(name, object);
        Created::Now
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    fn place(&self, path: &str) -> Option<&Place> {
        self.named.get(Name::of(path)).map(|object| &object.place)
    }
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
pub(crate) fn folder() -> PathBuf {
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

    fn blob(index: u8) -> Bytes {
        vec![index; 400_000].into()
    }

    fn path(index: u8) -> String {
        format!("blobs/aa/{index}")
    }

    /// A store whose exchange has room for two blobs.
    fn narrow(disk: &Path, memory: &Path) -> Ram {
        Ram::with_exchange(disk, Some(Exchange::new(memory, PREFIX, 1_000_000)))
    }

    /// Puts a blob into the exchange, as another process does.
    fn leave(ram: &Ram, index: u8) -> Option<Created> {
        let file = ram.exchange().unwrap().join(path(index));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, blob(index)).unwrap();
        wait(ram.adopt(&path(index))).unwrap()
    }

    /// Which of four blobs are still in the exchange's memory, once nothing leaves it any more. All can be read under both
    /// names.
    fn in_memory(ram: &Ram) -> [bool; 4] {
        while ram.0.exchange.as_ref().unwrap().is_leaving() {
            std::thread::yield_now();
        }
        [0, 1, 2, 3].map(|index| {
            let file = ram.exchange().unwrap().join(path(index));
            assert_eq!(std::fs::read(&file).unwrap(), blob(index), "under the exchange's name");
            assert_eq!(wait(ram.open(&path(index))).unwrap().unwrap().into_bytes(), blob(index));
            std::fs::symlink_metadata(file).unwrap().is_file()
        })
    }

    #[test]
    fn what_the_exchange_has_no_room_for_goes_to_the_disk_and_keeps_its_names() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ram = narrow(disk.path(), memory.path());
        assert_eq!(wait(ram.adopt(&path(0))).unwrap(), None);
        for index in 0..4 {
            assert_eq!(leave(&ram, index), Some(Created::Now));
            assert_eq!(wait(ram.adopt(&path(index))).unwrap(), Some(Created::Already));
        }
        assert_eq!(in_memory(&ram), [false, false, true, true]);
        let link = disk.path().join("link");
        assert!(ram.link(&path(0), &link).unwrap());
        assert_eq!(std::fs::read(link).unwrap(), blob(0));
        ram.close();
        let folders = [disk.path(), memory.path()];
        assert_eq!(folders.map(|folder| std::fs::read_dir(folder).unwrap().count()), [1, 0]);
    }

    #[test]
    fn copies_of_what_the_store_has_count_and_give_their_names_to_its_own() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ram = narrow(disk.path(), memory.path());
        for index in 0..4 {
            assert_eq!(wait(ram.create(&path(index), blob(index).into(), true)).unwrap(), Created::Now);
            assert_eq!(leave(&ram, index), Some(Created::Already));
        }
        assert_eq!(in_memory(&ram), [false, false, true, true]);
        // It is known by now.
        assert_eq!(wait(ram.adopt(&path(0))).unwrap(), Some(Created::Already));
        assert!(!ram.0.exchange.as_ref().unwrap().is_leaving());
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
