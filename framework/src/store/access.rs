//! The objects of a store by their paths, for processes that reach the store through this one.

use super::backend::{Backend, Created, Found};
use super::blobs::{BLOBS, blob_path};
use super::{Store, StoreError};
use crate::data::{Digest, Ref};
use crate::{Error, Result};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::SystemTime;

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was made.
    pub modified: SystemTime,
}

/// Named objects that are created once and never changed. Paths are those of the store's layout.
pub trait Access: Send + Sync {
    /// Creates an object, whole or not at all; whether there was none of that name.
    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;
    /// An object's content.
    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;
    /// How many bytes an object has, if it exists.
    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<u64>>>;
    /// The objects under a folder, however deep.
    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>>;
    /// Removes an object; that there is none is fine.
    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Moves an object to where a person may look at it; whether there was one.
    fn set_aside<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<bool>>;
}

impl Store {
    /// A store whose objects are reached through somebody else; `url` is what people read.
    pub fn through(url: String, access: Arc<dyn Access>) -> Self {
        Self::new(Backend::Remote { url, access })
    }

    /// Keeps canonical bytes that somebody else made, checked against their name. The items of a list come first.
    pub(crate) async fn put_bytes(&self, reference: Ref, bytes: Bytes) -> Result<()> {
        self.access().create(&blob_path(reference.digest), bytes).await.map(drop)
    }

    /// What tells whether a folder that another process sees is this store's; `None` for a store that is no folder.
    pub fn folder_identity(&self) -> Option<String> {
        match self.backend() {
            Backend::Files(files) => files.identity(),
            _ => None,
        }
    }

    /// The objects of this store, for those who reach it through this process. Blobs that are not what their names
    /// say and paths that are none of a store's are refused.
    pub fn access(&self) -> Arc<dyn Access> {
        Arc::new(Direct(self.clone()))
    }
}

struct Direct(Store);

impl Access for Direct {
    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        async move {
            check(path)?;
            if let Some(named) = path.strip_prefix(BLOBS) {
                let digest = super::offload::offload(bytes.len() as u64, {
                    let bytes = bytes.clone();
                    move || Digest::of(&bytes)
                });
                if !named.ends_with(&format!("/{}", digest.await)) {
                    return Err(Error::usage(format!("what was sent as {path} has another digest")));
                }
            }
            let created = self.0.backend().create(path, bytes).await.map_err(StoreError::report)?;
            Ok(created == Created::Now)
        }
        .boxed()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            check(path)?;
            self.0.backend().read(path, super::offload::LONG).await.map_err(StoreError::report)
        }
        .boxed()
    }

    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            check(path)?;
            self.0.backend().size(path).await.map_err(StoreError::report)
        }
        .boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        async move {
            check(folder)?;
            let found = self.0.backend().list(folder).await.map_err(StoreError::report)?;
            let listed = |found: Found| Listed { path: found.path, bytes: found.bytes, modified: found.modified };
            Ok(found.into_iter().map(listed).collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            check(path)?;
            // Checkpoints are all that a worker ever takes away.
            if !path.starts_with(super::checkpoints::CHECKPOINTS) {
                return Err(Error::usage(format!("{path} is not for a worker to remove")));
            }
            self.0.backend().remove(path).await.map_err(StoreError::report)
        }
        .boxed()
    }

    fn set_aside<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<bool>> {
        async move {
            check(path)?;
            self.0.backend().set_aside(path).await.map_err(StoreError::report)
        }
        .boxed()
    }
}

/// Paths that lead out of the store, or are none, are refused.
fn check(path: &str) -> Result<()> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    match path.split('/').all(plain) {
        true => Ok(()),
        false => Err(Error::usage(format!("{path:?} is no path in a store"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Artifact;
    use crate::runtime;

    #[test]
    fn a_store_through_another_keeps_and_gives_the_same() {
        let behind = Store::memory();
        let front = Store::through("memory://".into(), behind.access());
        let artifact = Artifact::Bytes(Bytes::from_static(b"hello"));
        let runtime = runtime().unwrap();
        let kept = runtime.block_on(front.put(&artifact)).unwrap();
        assert!(runtime.block_on(behind.has(kept)).unwrap());
        let read = runtime.block_on(behind.get(kept)).unwrap();
        assert!(matches!(read, Artifact::Bytes(bytes) if bytes == "hello"));
    }

    #[test]
    fn lies_and_ways_out_are_refused() {
        let access = Store::memory().access();
        let runtime = runtime().unwrap();
        let path = blob_path(Digest::of(b"true"));
        let lie = runtime.block_on(access.create(&path, Bytes::from_static(b"false"))).unwrap_err();
        assert!(lie.to_string().contains("another digest"), "{lie}");
        for path in ["", "/etc/passwd", "blobs/../../x", "blobs//x", "a b", "blobs/./x", "memo/\0"] {
            assert!(runtime.block_on(access.read(path)).is_err(), "{path:?}");
            assert!(runtime.block_on(access.create(path, Bytes::new())).is_err(), "{path:?}");
        }
        assert!(runtime.block_on(access.remove("memo/12/x")).is_err());
    }
}
