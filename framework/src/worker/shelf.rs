//! The run's store, for workers that can't reach it themselves: served by the coordinator, and reached by a worker.

use super::client::{FIRST_PAUSE, LAST_PAUSE};
use super::incoming::Incoming;
use super::peers::Whole;
use super::wire::coordinator_client::CoordinatorClient;
use super::wire::{self, CHUNK_BYTES};
use crate::store::{Answer, Created, Found, Remote, Store, StoreError, folder_for_files};
use crate::{Context, Fault, Result};
use arrow::buffer::MutableBuffer;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// An object's content, in pieces.
pub(super) type Chunks = BoxStream<'static, Result<wire::Chunk, Status>>;

/// Cuts a content into pieces; there is at least one.
fn cut(content: Bytes) -> impl Iterator<Item = Bytes> + Send + 'static {
    (0..content.len().div_ceil(CHUNK_BYTES).max(1)).map(move |index| {
        let begin = index * CHUNK_BYTES;
        content.slice(begin..content.len().min(begin + CHUNK_BYTES))
    })
}

/// A content as a stream of pieces.
pub(super) fn chunks(content: Bytes) -> Chunks {
    stream::iter(cut(content).map(|content| Ok(wire::Chunk { content }))).boxed()
}

/// Puts pieces together, aligned so that arrays can be used where they lie.
async fn join(mut chunks: Streaming<wire::Chunk>) -> Result<Bytes, Status> {
    let mut whole = MutableBuffer::new(0);
    while let Some(chunk) = chunks.message().await? {
        whole.extend_from_slice(&chunk.content);
    }
    Ok(Bytes::from_owner(Whole(whole)))
}

/// The coordinator's side.
pub(super) struct Shelf(RwLock<Option<Store>>);

impl Shelf {
    pub(super) fn new(store: Store) -> Self {
        Self(RwLock::new(Some(store)))
    }

    /// The run's store.
    ///
    /// # Errors
    /// The run is over.
    pub(super) fn store(&self) -> Result<Store> {
        let store = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        store.context("the run is over").map_err(|error| error.fault(Fault::Unavailable))
    }

    /// Lets go of the store.
    pub(super) fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn open(&self) -> Result<Store, Status> {
        self.store().map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(super) async fn read(&self, object: wire::Object) -> Result<Chunks, Status> {
        match Remote::read(&self.open()?, &object.path).await.map_err(status)? {
            Some(content) => Ok(chunks(content)),
            None => Err(Status::not_found("there is no such object")),
        }
    }

    pub(super) async fn create(&self, mut parts: Streaming<wire::CreatePart>) -> Result<wire::Created, Status> {
        let mut path = None;
        let mut content = Incoming::default();
        while let Some(part) = parts.message().await? {
            path.get_or_insert(part.path);
            content.add(&part.content).map_err(unwritten)?;
        }
        let path = path.ok_or_else(|| Status::invalid_argument("an object without a path"))?;
        // The logs of runs and what is learned of costs are the coordinator's.
        if ["runs/", "costs/", "corrupt/"].iter().any(|folder| path.starts_with(folder)) {
            return Err(Status::permission_denied(format!("{path} is not for a worker to write")));
        }
        let created = self.open()?.create_checked(&path, content.finish().map_err(unwritten)?).await.map_err(status)?;
        Ok(wire::Created { now: created == Created::Now })
    }

    pub(super) async fn adopt(&self, object: wire::Object) -> Result<wire::Created, Status> {
        match Remote::adopt(&self.open()?, &object.path).await.map_err(status)? {
            Some(created) => Ok(wire::Created { now: created == Created::Now }),
            None => Err(Status::not_found("there is no such file")),
        }
    }

    pub(super) async fn size(&self, object: wire::Object) -> Result<wire::ObjectSize, Status> {
        Ok(wire::ObjectSize { bytes: Remote::size(&self.open()?, &object.path).await.map_err(status)? })
    }

    pub(super) async fn list(&self, object: wire::Object) -> Result<wire::Listing, Status> {
        let objects = Remote::list(&self.open()?, &object.path).await.map_err(status)?;
        let listed = |one: Found| {
            let since = one.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified_millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            wire::Listed { path: one.path, bytes: one.bytes, modified_millis }
        };
        Ok(wire::Listing { objects: objects.into_iter().map(listed).collect() })
    }

    pub(super) async fn remove(&self, object: wire::Object) -> Result<wire::Nothing, Status> {
        // Checkpoints are all that a worker ever takes away.
        if !object.path.starts_with("checkpoints/") {
            return Err(Status::permission_denied(format!("{} is not for a worker to remove", object.path)));
        }
        Remote::remove(&self.open()?, &object.path).await.map_err(status)?;
        Ok(wire::Nothing {})
    }

    pub(super) async fn set_aside(&self, object: wire::Object) -> Result<wire::ObjectSize, Status> {
        if !object.path.starts_with("blobs/") && !object.path.starts_with("memo/") {
            return Err(Status::permission_denied(format!("{} is not for a worker to set aside", object.path)));
        }
        let moved = self.open()?.set_aside_checked(&object.path).await.map_err(status)?;
        Ok(wire::ObjectSize { bytes: moved.then_some(0) })
    }
}

/// There is no room for what a worker sends.
fn unwritten(error: std::io::Error) -> Status {
    let folder = folder_for_files();
    Status::failed_precondition(format!(
        "the coordinator can't write a temporary file in {}: {error}",
        folder.display()
    ))
}

fn status(error: StoreError) -> Status {
    Status::failed_precondition(error.to_string())
}

/// The worker's side.
pub(super) struct Reached {
    pub(super) url: String,
    pub(super) client: CoordinatorClient<Channel>,
    /// How long a coordinator that can't be reached is asked again.
    pub(super) patience: Duration,
}

impl Reached {
    /// Asks, and asks again while nobody answers: who needs the store waits for the coordinator to be back, as the
    /// worker itself does.
    async fn ask<T, F>(&self, question: impl Fn(CoordinatorClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let until = Instant::now() + self.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match question(self.client.clone()).await {
                Err(status) if is_silence(&status) && Instant::now() < until => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    fn error(&self, action: &'static str, path: &str, status: &Status) -> StoreError {
        StoreError::Unavailable {
            action,
            path: path.to_owned(),
            reason: status.message().to_owned(),
            url: format!("{} (reached through the coordinator)", self.url),
        }
    }
}

impl Remote for Reached {
    fn url(&self) -> &str {
        &self.url
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        async move {
            let asked = AtomicU32::new(0);
            let create = |mut client: CoordinatorClient<Channel>| {
                asked.fetch_add(1, Ordering::Relaxed);
                let mut first = path.to_owned();
                let parts = cut(bytes.clone());
                let parts = parts.map(move |content| wire::CreatePart { path: std::mem::take(&mut first), content });
                async move { client.create(stream::iter(parts)).await }
            };
            let created = self.ask(create).await.map_err(|status| self.error("write", path, &status))?;
            if created.into_inner().now {
                return Ok(Created::Now);
            }
            // Where an answer was lost, what is there may be ours.
            let ours = asked.into_inner() > 1 && self.read(path).await? == Some(bytes);
            Ok(if ours { Created::Now } else { Created::Already })
        }
        .boxed()
    }

    fn adopt<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Created>> {
        async move {
            let adopt = |mut client: CoordinatorClient<Channel>| async move { client.adopt(object(path)).await };
            match self.ask(adopt).await {
                Ok(created) => Ok(Some(if created.into_inner().now { Created::Now } else { Created::Already })),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(self.error("write", path, &status)),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>> {
        async move {
            let read = |mut client: CoordinatorClient<Channel>| async move {
                join(client.read(object(path)).await?.into_inner()).await
            };
            match self.ask(read).await {
                Ok(whole) => Ok(Some(whole)),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(self.error("read", path, &status)),
            }
        }
        .boxed()
    }

    fn size<'a>(&'a self, path: &'a str) -> Answer<'a, Option<u64>> {
        async move {
            let size = |mut client: CoordinatorClient<Channel>| async move { client.size(object(path)).await };
            let size = self.ask(size).await.map_err(|status| self.error("read", path, &status))?;
            Ok(size.into_inner().bytes)
        }
        .boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> Answer<'a, Vec<Found>> {
        async move {
            let list = |mut client: CoordinatorClient<Channel>| async move { client.list(object(folder)).await };
            let listing = self.ask(list).await;
            let listing = listing.map_err(|status| self.error("list", folder, &status))?.into_inner();
            let found = |one: wire::Listed| {
                let modified = UNIX_EPOCH.checked_add(Duration::from_millis(one.modified_millis));
                Found { path: one.path, bytes: one.bytes, modified: modified.unwrap_or(UNIX_EPOCH) }
            };
            Ok(listing.objects.into_iter().map(found).collect())
        }
        .boxed()
    }

    fn folders<'a>(&'a self, folder: &'a str) -> Answer<'a, Vec<String>> {
        async move {
            let inside = |found: Found| Some(found.path.strip_prefix(folder)?.split('/').nth(1)?.to_owned());
            let folders: BTreeSet<String> = self.list(folder).await?.into_iter().filter_map(inside).collect();
            Ok(folders.into_iter().collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a str) -> Answer<'a, ()> {
        async move {
            let remove = |mut client: CoordinatorClient<Channel>| async move { client.remove(object(path)).await };
            let removed = self.ask(remove).await;
            removed.map(drop).map_err(|status| self.error("remove", path, &status))
        }
        .boxed()
    }

    fn set_aside<'a>(&'a self, path: &'a str) -> Answer<'a, bool> {
        async move {
            let move_it = |mut client: CoordinatorClient<Channel>| async move { client.set_aside(object(path)).await };
            let moved = self.ask(move_it).await;
            let moved = moved.map_err(|status| self.error("write", path, &status))?;
            Ok(moved.into_inner().bytes.is_some())
        }
        .boxed()
    }
}

/// Whether a failure is the network's, or that of a coordinator that ends; one that answers says what is wrong in
/// other words.
fn is_silence(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

fn object(path: &str) -> wire::Object {
    wire::Object { path: path.to_owned() }
}
