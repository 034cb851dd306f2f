//! A store that another process keeps, and a store as another process sees it.

use super::backend::{Backend, CORRUPT, Created, Found};
use super::blobs::{BLOBS, blob_path};
use super::checkpoints::CHECKPOINTS;
use super::commit::MEMO;
use super::costs::COSTS;
use super::log::RUNS;
use super::named::Name;
use super::offload::offload;
use super::once::ONCE;
use super::tiers::Lease;
use super::{Store, StoreError};
use crate::data::{Digest, Ref};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::path::PathBuf;

/// The result of an operation on another process's store.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The objects of a store that another process keeps: what [`Store::remote`] needs, and what a [`Store`] itself is, so
/// that a server can hand requests on as they are.
///
/// Names are relative paths with `/`, such as `memo/12/<key>`. Objects are created once and never changed.
pub trait Remote: Send + Sync {
    /// The address, for messages.
    fn url(&self) -> &str;

    /// Creates an object, whole or not at all, if there is none of that name. When an answer was lost and it is asked
    /// again, an object with exactly this content may be its own: for a memo or a log's entry it should answer
    /// [`Created::Now`] then.
    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> Answer<'a, Created>;

    /// Creates a blob from the file of that path in the exchange that both processes see; `None` if
    /// there is none such.
    fn adopt<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Created>> {
        let _ = path;
        std::future::ready(Ok(None)).boxed()
    }

    /// An object's content; `None` if there is none.
    fn read<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>>;

    /// How many bytes an object has; `None` if there is none.
    fn size<'a>(&'a self, path: &'a str) -> Answer<'a, Option<u64>>;

    /// The objects under a folder, however deep.
    fn list<'a>(&'a self, folder: &'a str) -> Answer<'a, Vec<Found>>;

    /// The names of the folders in a folder.
    fn folders<'a>(&'a self, folder: &'a str) -> Answer<'a, Vec<String>>;

    /// Removes an object; that there is none is fine.
    fn remove<'a>(&'a self, path: &'a str) -> Answer<'a, ()>;

    /// Moves an object out of the way, to `corrupt/`; whether there was one.
    fn set_aside<'a>(&'a self, path: &'a str) -> Answer<'a, bool>;
}

/// Requests from other processes. Paths that lead anywhere but to the store's objects are refused.
impl Remote for Store {
    fn url(&self) -> &str {
        Store::url(self)
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        async move {
            admit(self, path)?;
            self.backend().create(path, bytes).await
        }
        .boxed()
    }

    fn adopt<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Created>> {
        async move {
            admit(self, path)?;
            match self.backend() {
                // Whoever reads it checks its digest, as always.
                Backend::Ram(ram) if path.starts_with(BLOBS) => ram.adopt(path).await,
                _ => Ok(None),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>> {
        async move {
            admit(self, path)?;
            let Some(bytes) = self.backend().size(path).await? else { return Ok(None) };
            // What comes from far away is in this process's memory until it is passed on.
            let Backend::Objects(_) = self.backend() else { return self.backend().read(path, bytes).await };
            let mut passage = self.0.admit(bytes).await?;
            let content = self.backend().read(path, bytes).await?;
            // Whoever takes it may be slow: it is counted, but nobody waits until it is gone.
            Ok(content.map(|content| Bytes::from_owner(Counted { content, _lease: passage.lease(bytes) })))
        }
        .boxed()
    }

    fn size<'a>(&'a self, path: &'a str) -> Answer<'a, Option<u64>> {
        async move {
            admit(self, path)?;
            self.backend().size(path).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> Answer<'a, Vec<Found>> {
        async move {
            admit(self, folder)?;
            self.backend().list(folder).await
        }
        .boxed()
    }

    fn folders<'a>(&'a self, folder: &'a str) -> Answer<'a, Vec<String>> {
        async move {
            admit(self, folder)?;
            self.backend().folders(folder).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a str) -> Answer<'a, ()> {
        async move {
            admit(self, path)?;
            self.backend().remove(path).await
        }
        .boxed()
    }

    fn set_aside<'a>(&'a self, path: &'a str) -> Answer<'a, bool> {
        async move {
            admit(self, path)?;
            self.backend().set_aside(path).await
        }
        .boxed()
    }
}

/// Content that is counted until nobody has any of it.
struct Counted {
    content: Bytes,
    _lease: Lease,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Store {
    /// Keeps canonical bytes that another process made, checked against their name. The items of a list come first.
    ///
    /// # Errors
    /// They are not what the name says, or the store can't be written.
    pub(crate) async fn put_bytes(&self, reference: Ref, bytes: Bytes) -> crate::Result<()> {
        let path = || blob_path(reference.digest);
        let put = async {
            let found = bytes.len() as u64;
            if found != reference.bytes {
                return Err(StoreError::Denied {
                    action: "write",
                    path: path(),
                    reason: format!("what was sent has {found} bytes, and was to have {}", reference.bytes),
                    url: self.url().to_owned(),
                });
            }
            check(self, path, bytes.clone(), |digest| digest == reference.digest).await?;
            if let Backend::Ram(ram) = self.backend()
                && ram.create_short(reference.digest, &bytes).is_some()
            {
                return Ok(());
            }
            self.backend().create(&path(), bytes).await.map(drop)
        };
        put.await.map_err(StoreError::report)
    }

    /// Creates an object for a process that is not to be believed: nothing is kept under a digest that it has not.
    pub(crate) async fn create_checked(&self, path: &str, bytes: Bytes) -> Result<Created, StoreError> {
        if path.starts_with(BLOBS) {
            check(self, || path.to_owned(), bytes.clone(), |digest| blob_path(digest) == path).await?;
        }
        Remote::create(self, path, bytes).await
    }

    /// Sets a blob or a memo aside for a process that is not to be believed: not if there is nothing wrong with it.
    pub(crate) async fn set_aside_checked(&self, path: &str) -> Result<bool, StoreError> {
        admit(self, path)?;
        match Name::of(path) {
            Name::Blob(digest) => {
                let expected = self.backend().size(path).await?.unwrap_or_default();
                let Some(content) = self.backend().open(path, expected).await? else { return Ok(false) };
                if offload(content.len() as u64, move || content.digest()).await == digest {
                    return Ok(false);
                }
            }
            Name::Memo(key) => match self.read_memo(key).await {
                Ok(None) => return Ok(false),
                Ok(Some(memo)) if self.has_outputs(&memo).await? => return Ok(false),
                Ok(Some(_)) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            },
            Name::Other(_) => return Ok(false),
        }
        self.backend().set_aside(path).await
    }

    /// The folder through which other processes of this machine hand over large blobs, if the store has one: a store in
    /// the memory of this process, which they can't see.
    pub(crate) fn exchange(&self) -> Option<PathBuf> {
        match self.backend() {
            Backend::Ram(ram) => ram.exchange().ok(),
            _ => None,
        }
    }

    /// Makes the store's folder if it has none yet, so that others can tell that it is the same one.
    pub(crate) fn make_folder(&self) {
        if let Backend::Files(files) = self.backend() {
            files.make();
        }
    }

    /// What tells whether a folder that another process sees is this store's; `None` for a store that is no folder, or
    /// whose folder is not there.
    pub(crate) fn folder_identity(&self) -> Option<String> {
        match self.backend() {
            Backend::Files(files) => files.identity(),
            _ => None,
        }
    }

    /// Whether small objects are in the memory of this process, so that nobody waits for them.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.backend(), Backend::Ram(_))
    }

    /// Whether the store is reached through another process, so that every call is a message.
    pub(crate) fn is_with_another(&self) -> bool {
        matches!(self.backend(), Backend::Remote(_))
    }
}

/// Checks content against the digest that its path names.
async fn check(
    store: &Store,
    path: impl Fn() -> String,
    bytes: Bytes,
    named: impl Fn(Digest) -> bool,
) -> Result<(), StoreError> {
    let digest = offload(bytes.len() as u64, move || Digest::of(&bytes)).await;
    match named(digest) {
        true => Ok(()),
        false => Err(StoreError::Denied {
            action: "write",
            path: path(),
            reason: format!("what was sent has the digest {}", digest.short()),
            url: store.url().to_owned(),
        }),
    }
}

/// Folders in which other processes may work.
const FOLDERS: [&str; 7] = [BLOBS, MEMO, RUNS, CHECKPOINTS, CORRUPT, COSTS, ONCE];

fn admit(store: &Store, path: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    let folder = path.split('/').next().unwrap_or_default();
    if path.len() <= 1000 && FOLDERS.contains(&folder) && path.split('/').all(part) {
        return Ok(());
    }
    Err(StoreError::Denied {
        action: "open",
        path: path.chars().take(100).collect(),
        reason: "that is no object of a store".into(),
        url: store.url().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::commit::memo_path;
    use super::*;
    use crate::data::Artifact;
    use crate::store::{Key, Memo};

    #[test]
    fn a_lie_is_not_kept() {
        let store = Store::memory();
        let path = blob_path(Digest::of(b"true"));
        let runtime = crate::runtime().unwrap();
        let lie = runtime.block_on(store.create_checked(&path, Bytes::from_static(b"false"))).unwrap_err();
        assert!(lie.to_string().contains("has the digest"), "{lie}");
        assert!(runtime.block_on(Remote::read(&store, &path)).unwrap().is_none());
        runtime.block_on(store.create_checked(&path, Bytes::from_static(b"true"))).unwrap();
    }

    #[test]
    fn what_is_healthy_is_not_set_aside() {
        let store = Store::memory();
        crate::runtime().unwrap().block_on(async {
            let made = store.put(&Artifact::Bytes(Bytes::from(vec![1; 9000]))).await.unwrap();
            let (key, blob) = (Key(Digest::of(b"key")), blob_path(made.digest));
            let memo = Memo {
                outputs: [("output".to_owned(), made)].into(),
                stage: "x".into(),
                seconds: 0.0,
                device: "cpu".into(),
                build: "x".into(),
            };
            store.commit(key, &memo).await.unwrap();
            for path in [blob.clone(), memo_path(key), memo_path(Key(Digest::of(b"other")))] {
                assert!(!store.set_aside_checked(&path).await.unwrap(), "{path}");
            }
            assert!(store.has(made).await.unwrap());
            // What is lost, or another content than its name says, goes.
            store.backend().remove(&blob).await.unwrap();
            assert!(store.set_aside_checked(&memo_path(key)).await.unwrap());
            store.backend().create(&blob, Bytes::from_static(b"false")).await.unwrap();
            assert!(store.set_aside_checked(&blob).await.unwrap());
            assert!(store.memo(key).await.unwrap().is_none() && !store.has(made).await.unwrap());
        });
    }

    #[test]
    fn nothing_but_objects_can_be_reached() {
        let store = Store::memory();
        let blob = super::super::blobs::blob_path(Digest::of(b"x"));
        for good in [blob.as_str(), "runs", "runs/digits-1/00000001.jsonl", "once/ab/send.mail"] {
            assert!(admit(&store, good).is_ok(), "{good}");
        }
        let long = format!("runs/{}", "x".repeat(2000));
        for bad in ["", "/", "..", "blobs/../../etc/passwd", "/etc/passwd", "staging/p1/0", "runs//x", "memo/\0", &long]
        {
            assert!(matches!(admit(&store, bad), Err(StoreError::Denied { .. })), "{bad}");
        }
    }
}
