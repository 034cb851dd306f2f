//! Where the objects of a store lie: in a folder, in this process, in an object store, or with another process.

use super::commit::memo_path;
use super::files::Files;
use super::objects::Objects;
use super::ram::Ram;
use super::remote::Remote;
use super::tiers::Content;
use super::{Key, Memo, StoreError};
use crate::data::Pieces;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Named objects that are created once and never changed. Names are relative paths with `/`.
pub(super) enum Backend {
    /// Files in a folder, mapped into memory when they are read.
    Files(Files),
    /// Objects of this process, which end with it.
    Ram(Ram),
    /// Anything that `object_store` speaks to.
    Objects(Objects),
    /// Whatever another process keeps.
    Remote(Arc<dyn Remote>),
}

/// How a creation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there now, with this content.
    Now,
    /// Something of that name was there before; it is untouched.
    Already,
}

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub path: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was created, or last found in the way of a creation.
    pub modified: SystemTime,
}

impl Found {
    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// What dead processes left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Backend {
    pub(super) fn url(&self) -> &str {
        match self {
            Backend::Files(files) => files.url(),
            Backend::Ram(ram) => ram.url(),
            Backend::Objects(objects) => objects.url(),
            Backend::Remote(remote) => remote.url(),
        }
    }

    /// Whether its objects come from another machine, so that files of this one are nearer.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Backend::Objects(_) | Backend::Remote(_))
    }

    /// Creates an object, whole or not at all, if there is none of that name.
    pub(super) async fn create(&self, path: &str, content: impl Into<Pieces>) -> Result<Created, StoreError> {
        let content = content.into();
        match self {
            Backend::Files(files) => files.create(path, content).await,
            Backend::Ram(ram) => ram.create(path, content, false).await,
            Backend::Objects(objects) => objects.create(path, content).await,
            Backend::Remote(remote) => remote.create(path, content.join()).await,
        }
    }

    /// Creates a blob. One that is kept in this process may stay in its memory until it is [released](Self::release)
    /// if there is `room`; its bytes are counted by their owner.
    pub(super) async fn create_blob(&self, path: &str, content: Pieces, room: bool) -> Result<Created, StoreError> {
        match self {
            Backend::Ram(ram) => ram.create(path, content, room).await,
            _ => self.create(path, content).await,
        }
    }

    /// Creates a memo, as [`create`](Self::create) does.
    pub(super) async fn create_memo(&self, key: Key, memo: &Memo) -> Result<Created, StoreError> {
        match self {
            Backend::Ram(ram) => Ok(ram.create_memo(key, memo)),
            _ => self.create(&memo_path(key), memo.seal()?).await,
        }
    }

    /// A memo; `Err` says what is wrong with the one that is there.
    pub(super) async fn memo(&self, key: Key) -> Result<Option<Result<Memo, String>>, StoreError> {
        if let Backend::Ram(ram) = self
            && let Ok(memo) = ram.memo(key)
        {
            return Ok(memo.map(Ok));
        }
        let sealed = self.read(&memo_path(key), 0).await?;
        Ok(sealed.map(|sealed| Memo::unseal(&sealed)))
    }

    /// Creates a blob from a file that this process put where the store's own process sees it; `None` if that is not
    /// possible.
    pub(super) async fn adopt(&self, path: &str) -> Result<Option<Created>, StoreError> {
        match self {
            Backend::Remote(remote) => remote.adopt(path).await,
            _ => Ok(None),
        }
    }

    /// Has a blob in no memory of this process any more.
    pub(super) async fn release(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Backend::Ram(ram) => ram.release(path).await,
            _ => Ok(()),
        }
    }

    /// An object's content; `expected` is about how many bytes it has (0 for few).
    pub(super) async fn open(&self, path: &str, expected: u64) -> Result<Option<Content>, StoreError> {
        match self {
            Backend::Files(files) => files.open(path, expected).await,
            Backend::Ram(ram) => ram.open(path).await,
            Backend::Objects(objects) => Ok(objects.read(path).await?.map(Content::heap)),
            Backend::Remote(remote) => Ok(remote.read(path).await?.map(Content::heap)),
        }
    }

    /// An object's content, not counted: for what is no artifact.
    pub(super) async fn read(&self, path: &str, expected: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.open(path, expected).await?.map(Content::into_bytes))
    }

    /// Part of an object, if it is in this process or on this machine.
    pub(super) async fn part(&self, path: &str, from: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        match self {
            Backend::Files(files) => files.part(path, from, length).await,
            Backend::Ram(ram) => ram.part(path, from, length).await,
            Backend::Objects(_) | Backend::Remote(_) => Ok(None),
        }
    }

    /// Gives the file of an object one more name; whether it has a file on this machine.
    pub(super) fn link(&self, path: &str, to: &Path) -> io::Result<bool> {
        match self {
            Backend::Files(files) => files.link(path, to),
            Backend::Ram(ram) => ram.link(path, to),
            Backend::Objects(_) | Backend::Remote(_) => Ok(false),
        }
    }

    /// How many bytes an object has, if it exists.
    pub(super) async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self {
            Backend::Files(files) => files.size(path),
            Backend::Ram(ram) => Ok(ram.size(path)),
            Backend::Objects(objects) => objects.size(path).await,
            Backend::Remote(remote) => remote.size(path).await,
        }
    }

    /// The objects under a folder, however deep, in the order of their paths.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Found>, StoreError> {
        let mut found = match self {
            Backend::Files(files) => files.list(folder).await?,
            Backend::Ram(ram) => ram.list(folder),
            Backend::Objects(objects) => objects.list(folder).await?,
            Backend::Remote(remote) => remote.list(folder).await?,
        };
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The names of the folders in a folder, in order.
    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let mut folders = match self {
            Backend::Files(files) => files.folders(folder)?,
            Backend::Ram(ram) => ram.folders(folder),
            Backend::Objects(objects) => objects.folders(folder).await?,
            Backend::Remote(remote) => remote.folders(folder).await?,
        };
        folders.sort();
        Ok(folders)
    }

    /// Removes an object; that there is none is fine.
    pub(super) async fn remove(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Backend::Files(files) => files.remove(path),
            Backend::Ram(ram) => ram.remove(path),
            Backend::Objects(objects) => objects.remove(path).await,
            Backend::Remote(remote) => remote.remove(path).await,
        }
    }

    /// Moves an object to `corrupt/`, where a person may look at it; whether there was one.
    pub(super) async fn set_aside(&self, path: &str) -> Result<bool, StoreError> {
        let to = format!("{CORRUPT}/{}", path.replace('/', "-"));
        match self {
            Backend::Files(files) => files.rename(path, &to),
            Backend::Ram(ram) => Ok(ram.rename(path, &to)),
            Backend::Objects(objects) => objects.rename(path, &to).await,
            Backend::Remote(remote) => remote.set_aside(path).await,
        }
    }

    /// Removes (or only counts) the half-written files of dead processes. Object stores have none.
    pub(super) async fn sweep(&self, dry_run: bool) -> Result<Leftovers, StoreError> {
        match self {
            Backend::Files(files) => files.sweep(dry_run),
            Backend::Ram(ram) => ram.sweep(dry_run),
            Backend::Objects(_) | Backend::Remote(_) => Ok(Leftovers::default()),
        }
    }
}

/// Where corrupt objects are moved.
pub(super) const CORRUPT: &str = "corrupt";
