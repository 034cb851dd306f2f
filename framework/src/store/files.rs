//! A store in a folder.

use super::StoreError;
use super::backend::{Created, Found, Leftovers};
use super::offload::{LONG, offload};
use super::staging::Staging;
use super::tiers::Content;
use crate::data::{Digest, Pieces};
use arrow::buffer::MutableBuffer;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Files in a folder.
///
/// A file is written under a name of its own in `staging/` and then linked to its place. Linking fails if there is
/// something already, and is atomic, so that of several processes one wins and nobody ever sees half a file. Files
/// are not synced to the disk: what a power cut tears is found by its digest or length, and computed anew.
pub(super) struct Files(Arc<Folder>);

struct Folder {
    url: String,
    root: PathBuf,
    staging: Staging,
}

impl Files {
    /// The store in a folder, which need not exist yet.
    pub(super) fn new(url: String, root: PathBuf) -> Self {
        let staging = Staging::new(root.join("staging"));
        Self(Arc::new(Folder { url, root, staging }))
    }

    pub(super) fn url(&self) -> &str {
        &self.0.url
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Makes the folder, if there is none.
    pub(super) fn make(&self) {
        // Whoever writes there hears of it.
        let _ = fs::create_dir_all(&self.0.root);
    }

    /// The kernel that serves the folder and the folder's number there, if there is one; two paths with one identity are
    /// one folder.
    pub(super) fn identity(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let folder = fs::metadata(&self.0.root).ok()?;
        Some(format!("{}:{}:{}", crate::store::kernel(), folder.dev(), folder.ino()))
    }

    pub(super) async fn create(&self, path: &str, content: Pieces) -> Result<Created, StoreError> {
        let (folder, path) = (self.0.clone(), path.to_owned());
        offload(content.len() as u64, move || folder.create(&path, &content)).await
    }

    /// Creates the object that is named after the digest of its content, which is digested while it is written, and
    /// opens it; on this thread.
    pub(super) fn create_digested(
        &self,
        content: &Pieces,
        name: impl Fn(Digest) -> String,
    ) -> Result<(Digest, Created, Content), StoreError> {
        let folder = &self.0;
        let staged = folder.staging.write_digested(content);
        let (staged, digest) = staged.map_err(|error| folder.error("write", "staging", &error))?;
        let path = name(digest);
        let created = folder.publish(&staged, &path)?;
        let opened = open_file(&folder.root.join(&path)).map_err(|error| folder.error("read", &path, &error))?;
        Ok((digest, created, opened))
    }

    pub(super) async fn open(&self, path: &str, expected: u64) -> Result<Option<Content>, StoreError> {
        let (folder, path) = (self.0.clone(), path.to_owned());
        offload(expected, move || {
            found(open_file(&folder.root.join(&path))).map_err(|error| folder.error("read", &path, &error))
        })
        .await
    }

    pub(super) async fn part(&self, path: &str, from: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        let (folder, path) = (self.0.clone(), path.to_owned());
        offload(length, move || {
            found(read_part(&folder.root.join(&path), from, length))
                .map_err(|error| folder.error("read", &path, &error))
        })
        .await
    }

    /// Whether a file exists; if so it counts as new from now on.
    pub(super) fn touch(&self, path: &str) -> bool {
        touch(&self.0.root.join(path))
    }

    /// Gives a file one more name; whether there is such a file.
    pub(super) fn link(&self, path: &str, to: &Path) -> io::Result<bool> {
        let file = self.0.root.join(path);
        match touch(&file) {
            true => Ok(found(link(&file, to))?.is_some()),
            false => Ok(false),
        }
    }

    pub(super) fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        let metadata = found(fs::metadata(self.0.root.join(path)));
        Ok(metadata.map_err(|error| self.0.error("read", path, &error))?.map(|metadata| metadata.len()))
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Found>, StoreError> {
        let (this, folder) = (self.0.clone(), folder.to_owned());
        // A folder may have any number of files: always on a thread that may block.
        offload(LONG, move || {
            let mut all = Vec::new();
            walk(&this.root.join(&folder), &folder, &mut all).map_err(|error| this.error("list", &folder, &error))?;
            Ok(all)
        })
        .await
    }

    pub(super) fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.0.root.join(folder))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.extend(entry.file_name().into_string());
                }
            }
            Ok(names)
        };
        Ok(found(read()).map_err(|error| self.0.error("list", folder, &error))?.unwrap_or_default())
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), StoreError> {
        let file = self.0.root.join(path);
        found(fs::remove_file(&file)).map_err(|error| self.0.error("remove", path, &error))?;
        // The folder goes with its last file; one that still has others stays.
        file.parent().map(fs::remove_dir);
        Ok(())
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let target = self.0.root.join(to);
        let rename = || -> io::Result<()> {
            make_parent(&target)?;
            fs::rename(self.0.root.join(from), &target)
        };
        Ok(found(rename()).map_err(|error| self.0.error("write", to, &error))?.is_some())
    }

    pub(super) fn close(&self) {
        self.0.staging.close();
    }

    pub(super) fn sweep(&self, dry_run: bool) -> Result<Leftovers, StoreError> {
        self.0.staging.sweep(dry_run).map_err(|error| self.0.error("remove", "staging", &error))
    }
}

impl Folder {
    fn create(&self, path: &str, content: &Pieces) -> Result<Created, StoreError> {
        if touch(&self.root.join(path)) {
            return Ok(Created::Already);
        }
        let staged = self.staging.write(content).map_err(|error| self.error("write", path, &error))?;
        self.publish(&staged, path)
    }

    /// Gives a file that was written its place, if there is nothing yet.
    fn publish(&self, staged: &Path, path: &str) -> Result<Created, StoreError> {
        let target = self.root.join(path);
        let linked = make_parent(&target).and_then(|()| match fs::hard_link(staged, &target) {
            // The folder went with its last file just now.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_parent(&target).and_then(|()| fs::hard_link(staged, &target))
            }
            other => other,
        });
        // What can't be removed now is removed as the file of a dead process later.
        let _ = fs::remove_file(staged);
        match linked {
            Ok(()) => Ok(Created::Now),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Created::Already),
            // We could write there, so that it is the link which the file system does not know.
            Err(error) if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(EPERM) => {
                Err(StoreError::NoCreate {
                    reason: format!("its file system has no hard links ({error})"),
                    url: self.url.clone(),
                })
            }
            Err(error) => Err(self.error("write", path, &error)),
        }
    }

    fn error(&self, action: &'static str, path: &str, error: &io::Error) -> StoreError {
        StoreError::of_io(&self.url, action, path, error)
    }
}

/// "Operation not permitted": what Linux answers to a link on FAT. ("Permission denied" is another number.)
const EPERM: i32 = 1;

/// Whether a file exists; if so it counts as new from now on, so that [`collect`](super::Store::collect) does not
/// take it away between a `put` that found it and the commit that names it.
fn touch(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => {
            // A file of another user can't be touched; nothing is lost but the protection.
            let _ = file.set_modified(SystemTime::now());
            true
        }
        Err(error) => error.kind() != ErrorKind::NotFound && path.exists(),
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.is_dir() => fs::create_dir_all(parent),
        _ => Ok(()),
    }
}

/// "Not found" is an answer, not an error.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a file one more name, or, in another file system, a link to it.
pub(super) fn link(file: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(file, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => std::os::unix::fs::symlink(file, to),
        other => other,
    }
}

/// The content of a file, aligned so that arrays can be used where they lie; long ones are mapped.
pub(super) fn open_file(path: &Path) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length >= LONG {
        // SAFETY: a file in a store is complete before it gets its name and is never written again; it is only ever
        // unlinked or renamed, which leaves the mapped content as it is. That other programs keep to this is the
        // contract of the folder, as it is for every program that maps the files that it works on.
        let map = unsafe { memmap2::Mmap::map(&file) };
        // A process may have a limited number of mappings; beyond it, files are read.
        if let Ok(map) = map {
            return Ok(Content::Mapped(map));
        }
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut buffer = MutableBuffer::from_len_zeroed(length);
    file.read_exact(buffer.as_slice_mut())?;
    Ok(Content::Heap(Bytes::from_owner(Aligned(buffer)).into()))
}

/// Up to `length` bytes of a file.
pub(super) fn read_part(path: &Path, from: u64, length: u64) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut part = Vec::with_capacity(usize::try_from(length).unwrap_or_default().min(LONGEST_PART));
    file.take(length).read_to_end(&mut part)?;
    Ok(part.into())
}

/// What is reserved for a part at most, whatever it is said to have.
const LONGEST_PART: usize = 4 << 20;

/// A 64-byte aligned buffer as an owner of [`Bytes`].
struct Aligned(MutableBuffer);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Adds the files under a folder. What vanishes meanwhile was never there.
fn walk(folder: &Path, name: &str, all: &mut Vec<Found>) -> io::Result<()> {
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else { continue };
        let path = format!("{name}/{file}");
        let Some(metadata) = found(entry.metadata())? else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), &path, all)?;
        } else {
            all.push(Found { path, bytes: metadata.len(), modified: metadata.modified()? });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new("file://test".into(), folder.path().join("not/there/yet"));
        (folder, files)
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        crate::runtime().unwrap().block_on(future)
    }

    #[test]
    fn small_files_are_aligned_and_long_ones_are_mapped() {
        let (_folder, files) = files();
        for length in [0, 1, 63, 1000, LONG as usize, LONG as usize + 1] {
            let content: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let path = format!("blobs/{length}");
            assert_eq!(wait(files.create(&path, content.clone().into())).unwrap(), Created::Now);
            let read = wait(files.open(&path, length as u64)).unwrap().unwrap();
            assert_eq!(matches!(read, Content::Mapped(_)), length >= LONG as usize);
            let read = read.into_bytes();
            assert_eq!(read, content);
            let part = wait(files.part(&path, 10, 100)).unwrap().unwrap();
            assert_eq!(part, content[10.min(length)..110.min(length)]);
            assert!(length == 0 || read.as_ptr().align_offset(64) == 0);
        }
    }

    #[test]
    fn a_mapped_file_outlives_its_name() {
        let (_folder, files) = files();
        let content = vec![7; LONG as usize];
        wait(files.create("blobs/x", content.clone().into())).unwrap();
        let read = wait(files.open("blobs/x", LONG)).unwrap().unwrap().into_bytes();
        files.remove("blobs/x").unwrap();
        assert!(wait(files.open("blobs/x", LONG)).unwrap().is_none());
        assert_eq!(read, content);
    }

    #[test]
    fn of_many_writers_one_wins_and_nothing_is_left() {
        let (folder, files) = files();
        let wins = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|index| {
                    let files = &files;
                    scope.spawn(move || wait(files.create("memo/x", vec![index; 3000].into())).unwrap())
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).filter(|made| *made == Created::Now).count()
        });
        assert_eq!(wins, 1);
        let read = wait(files.open("memo/x", 0)).unwrap().unwrap().into_bytes();
        assert!(read.len() == 3000 && read.iter().all(|byte| *byte == read[0]));
        drop(files);
        assert_eq!(fs::read_dir(folder.path().join("not/there/yet/staging")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_goes_with_its_last_file() {
        let (folder, files) = files();
        for path in ["checkpoints/k/1", "checkpoints/k/2"] {
            wait(files.create(path, Bytes::from_static(b"x").into())).unwrap();
        }
        assert_eq!(files.folders("checkpoints").unwrap(), ["k"]);
        assert_eq!(wait(files.list("checkpoints")).unwrap().len(), 2);
        files.remove("checkpoints/k/1").unwrap();
        files.remove("checkpoints/k/1").unwrap();
        assert_eq!(files.folders("checkpoints").unwrap(), ["k"]);
        files.remove("checkpoints/k/2").unwrap();
        assert!(!folder.path().join("not/there/yet/checkpoints/k").exists());
        assert!(wait(files.list("checkpoints")).unwrap().is_empty());
    }
}
