//! A store on an object store.

use super::StoreError;
use super::backend::{Created, Found};
use super::offload::LONG;
use crate::data::Pieces;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// No try begins later than this after the first, so that an end comes even where each takes minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Objects in an object store. Failures that may pass are tried again after a pause that grows.
pub(super) struct Objects {
    url: String,
    store: Arc<dyn ObjectStore>,
    /// How often an operation is tried in all.
    tries: u32,
    /// Whether the client tries again by itself, without telling.
    stubborn: bool,
    /// The first pause; each is four times the one before.
    pause: Duration,
}

impl Objects {
    pub(super) fn new(url: String, store: Arc<dyn ObjectStore>) -> Self {
        Self { url, store, tries: 5, stubborn: false, pause: Duration::from_millis(50) }
    }

    /// A cloud's store. Its client tries again by itself, for minutes, but not a creation whose answer was lost: only
    /// who knows what was to be created can tell whether it was.
    pub(super) fn cloud(url: String, store: Arc<dyn ObjectStore>) -> Self {
        Self { stubborn: true, ..Self::new(url, store) }
    }

    /// The same with so many tries and no pauses between them.
    #[cfg(test)]
    pub(super) fn hurried(self, tries: u32) -> Self {
        Self { tries, pause: Duration::ZERO, ..self }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Finds out whether the store can be reached and refuses to overwrite.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        const PROBE: &str = "probe/put-if-absent";
        let first = match self.create(PROBE, Bytes::from_static(b"a store that overwrites this\n").into()).await {
            // Who may only read can still look at results; the first write will say what is the matter.
            Err(StoreError::Denied { .. }) => return self.size(PROBE).await.map(drop),
            first => first?,
        };
        // Other bytes than the first: an equal object would pass for one that was created and not told of.
        let second = Bytes::from_static(b"lacks put-if-absent\n");
        if first == Created::Now && self.create(PROBE, second.into()).await? == Created::Now {
            let reason = "it overwrote an object that it was told to create only".into();
            return Err(StoreError::NoCreate { reason, url: self.url.clone() });
        }
        Ok(())
    }

    pub(super) async fn create(&self, path: &str, content: Pieces) -> Result<Created, StoreError> {
        let length = content.len() as u64;
        // A question is cheaper than sending what is there already.
        if length >= LONG && self.size(path).await? == Some(length) {
            return Ok(Created::Already);
        }
        let (location, payload) = (Path::from(path), content.iter().cloned().collect::<PutPayload>());
        // Whether a failed try may have written it all the same. (A long object is a blob, where it does not matter.)
        let mut unsure = self.stubborn && length < LONG;
        let begun = Instant::now();
        for attempt in 1.. {
            let options = PutOptions::from(PutMode::Create);
            match self.store.put_opts(&location, payload.clone(), options).await {
                Ok(_) => return Ok(Created::Now),
                Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => {
                    if unsure {
                        match self.read(path).await? {
                            Some(there) if there == content.join() => return Ok(Created::Now),
                            Some(_) => return Ok(Created::Already),
                            None => {}
                        }
                    } else if !self.stubborn || self.size(path).await?.is_some() {
                        return Ok(Created::Already);
                    }
                    // S3 refuses with "conflict" while another creation is under way, and that one may fail.
                    let conflict = Error::Generic { store: "object store", source: error.into() };
                    self.pause(attempt, begun, "write", path, conflict).await?;
                }
                Err(error @ Error::NotFound { .. }) => {
                    let reason = format!("there is no such bucket or container ({error})");
                    let (path, url) = (path.to_owned(), self.url.clone());
                    return Err(StoreError::Unavailable { action: "write", path, reason, url });
                }
                Err(error) => {
                    self.pause(attempt, begun, "write", path, error).await?;
                    unsure = true;
                }
            }
        }
        Ok(Created::Already)
    }

    pub(super) async fn read(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let location = &Path::from(path);
        let read = || async move { self.store.get(location).await?.bytes().await };
        self.attempt("read", path, read).await
    }

    pub(super) async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        let location = &Path::from(path);
        let size = || async move { Ok(self.store.head(location).await?.size) };
        self.attempt("read", path, size).await
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Found>, StoreError> {
        let prefix = &Path::from(folder);
        let list = || async move {
            let found = self.store.list(Some(prefix)).map_ok(|meta| Found {
                path: meta.location.to_string(),
                bytes: meta.size,
                modified: SystemTime::from(meta.last_modified),
            });
            found.try_collect().await
        };
        Ok(self.attempt("list", folder, list).await?.unwrap_or_default())
    }

    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let prefix = &Path::from(folder);
        let list = || async move {
            let found = self.store.list_with_delimiter(Some(prefix)).await?.common_prefixes;
            Ok(found.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
        };
        Ok(self.attempt("list", folder, list).await?.unwrap_or_default())
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), StoreError> {
        let location = &Path::from(path);
        let remove = || async move { self.store.delete(location).await };
        self.attempt("remove", path, remove).await.map(drop)
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let (source, target) = (&Path::from(from), &Path::from(to));
        // Two steps that may each be repeated; `ObjectStore::rename` may not, once it has removed the source.
        let copy = || async move { self.store.copy(source, target).await };
        let copied = self.attempt("write", to, copy).await?.is_some();
        self.remove(from).await?;
        Ok(copied)
    }

    /// Tries an operation that may be repeated; "not found" is an answer.
    async fn attempt<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        action: &'static str,
        path: &str,
        operation: impl Fn() -> F,
    ) -> Result<Option<T>, StoreError> {
        let begun = Instant::now();
        for attempt in 1.. {
            match operation().await {
                Ok(value) => return Ok(Some(value)),
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => self.pause(attempt, begun, action, path, error).await?,
            }
        }
        Ok(None)
    }

    /// Waits before the next try, if the error may pass and there is a next one.
    async fn pause(
        &self,
        attempt: u32,
        begun: Instant,
        action: &'static str,
        path: &str,
        error: Error,
    ) -> Result<(), StoreError> {
        let passing = matches!(error, Error::Generic { .. } | Error::JoinError { .. });
        let told = StoreError::of_object(&self.url, action, path, &error);
        if attempt >= self.tries
            || begun.elapsed() > PATIENCE
            || !passing
            || !matches!(told, StoreError::Unavailable { .. })
        {
            return Err(told);
        }
        tracing::debug!("{told}; trying again");
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause * 4u32.pow(attempt - 1)).await;
        }
        Ok(())
    }
}
