//! Where the objects of a store lie: in a folder, or in an object store.

use super::StoreError;
use super::access::Access;
use super::files::Files;
use super::objects::Objects;
use bytes::Bytes;
use std::sync::Arc;
use std::time::SystemTime;

/// Named objects that are created once and never changed. Names are relative paths with `/`.
pub(super) enum Backend {
    /// Files in a folder, mapped into memory when they are read.
    Files(Files),
    /// Anything that `object_store` speaks to.
    Objects(Objects),
    /// Those of a store that another process reaches.
    Remote {
        /// What people read.
        url: String,
        /// The way there.
        access: Arc<dyn Access>,
    },
}

/// How a creation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there now, with this content.
    Now,
    /// Something of that name was there before; it is untouched.
    Already,
}

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
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
            Backend::Objects(objects) => objects.url(),
            Backend::Remote { url, .. } => url,
        }
    }

    /// Creates an object, whole or not at all, if there is none of that name.
    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<Created, StoreError> {
        match self {
            Backend::Files(files) => files.create(path, bytes).await,
            Backend::Objects(objects) => objects.create(path, bytes).await,
            Backend::Remote { access, .. } => {
                let created = access.create(path, bytes).await.map_err(|error| self.error("write", path, &error))?;
                Ok(if created { Created::Now } else { Created::Already })
            }
        }
    }

    /// An object's content; `expected` is about how many bytes it has (0 for few).
    pub(super) async fn read(&self, path: &str, expected: u64) -> Result<Option<Bytes>, StoreError> {
        match self {
            Backend::Files(files) => files.read(path, expected).await,
            Backend::Objects(objects) => objects.read(path).await,
            Backend::Remote { access, .. } => {
                access.read(path).await.map_err(|error| self.error("read", path, &error))
            }
        }
    }

    /// How many bytes an object has, if it exists.
    pub(super) async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self {
            Backend::Files(files) => files.size(path),
            Backend::Objects(objects) => objects.size(path).await,
            Backend::Remote { access, .. } => {
                access.size(path).await.map_err(|error| self.error("read", path, &error))
            }
        }
    }

    /// The objects under a folder, however deep, in the order of their paths.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Found>, StoreError> {
        let mut found = match self {
            Backend::Files(files) => files.list(folder).await?,
            Backend::Objects(objects) => objects.list(folder).await?,
            Backend::Remote { access, .. } => {
                let listed = access.list(folder).await.map_err(|error| self.error("list", folder, &error))?;
                let found = listed.into_iter();
                found.map(|one| Found { path: one.path, bytes: one.bytes, modified: one.modified }).collect()
            }
        };
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The names of the folders in a folder, in order.
    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let mut folders = match self {
            Backend::Files(files) => files.folders(folder)?,
            Backend::Objects(objects) => objects.folders(folder).await?,
            Backend::Remote { .. } => {
                let inside = |found: Found| Some(found.path.strip_prefix(folder)?.split('/').nth(1)?.to_owned());
                self.list(folder).await?.into_iter().filter_map(inside).collect()
            }
        };
        folders.dedup();
        folders.sort();
        Ok(folders)
    }

    /// Removes an object; that there is none is fine.
    pub(super) async fn remove(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Backend::Files(files) => files.remove(path),
            Backend::Objects(objects) => objects.remove(path).await,
            Backend::Remote { access, .. } => {
                access.remove(path).await.map_err(|error| self.error("remove", path, &error))
            }
        }
    }

    /// Moves an object to `corrupt/`, where a person may look at it; whether there was one.
    pub(super) async fn set_aside(&self, path: &str) -> Result<bool, StoreError> {
        let to = format!("{CORRUPT}/{}", path.replace('/', "-"));
        match self {
            Backend::Files(files) => files.rename(path, &to),
            Backend::Objects(objects) => objects.rename(path, &to).await,
            Backend::Remote { access, .. } => {
                access.set_aside(path).await.map_err(|error| self.error("write", &to, &error))
            }
        }
    }

    /// Removes (or only counts) the half-written files of dead processes. Object stores have none.
    pub(super) async fn sweep(&self, dry_run: bool) -> Result<Leftovers, StoreError> {
        match self {
            Backend::Files(files) => files.sweep(dry_run),
            Backend::Objects(_) | Backend::Remote { .. } => Ok(Leftovers::default()),
        }
    }

    /// Whether it is reached through another process, so that every call is a message.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Backend::Remote { .. })
    }

    fn error(&self, action: &'static str, path: &str, error: &crate::Error) -> StoreError {
        StoreError::Unavailable { action, path: path.into(), reason: error.to_string(), url: self.url().into() }
    }
}

/// Where corrupt objects are moved.
pub(super) const CORRUPT: &str = "corrupt";
