//! The run's store, for workers that can't reach it themselves: served by the coordinator, and reached by a worker.

use super::wire::coordinator_client::CoordinatorClient;
use super::wire::{self, CHUNK_BYTES};
use crate::store::{Access, Listed};
use crate::{Context, Error, Result};
use arrow::buffer::MutableBuffer;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

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

/// Puts pieces together, aligned so that arrays can be used where they lie. `expected` is about how many bytes come.
pub(super) async fn join(mut chunks: Streaming<wire::Chunk>, expected: u64) -> Result<Bytes> {
    let mut whole = MutableBuffer::with_capacity(usize::try_from(expected.min(1 << 30)).unwrap_or(0));
    while let Some(chunk) = chunks.message().await? {
        whole.extend_from_slice(&chunk.content);
    }
    Ok(Bytes::from_owner(Whole(whole)))
}

/// An aligned buffer as an owner of [`Bytes`].
struct Whole(MutableBuffer);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// The coordinator's side.
pub(super) struct Shelf(Arc<dyn Access>);

impl Shelf {
    pub(super) fn new(access: Arc<dyn Access>) -> Self {
        Self(access)
    }

    pub(super) async fn read(&self, object: wire::Object) -> Result<Chunks, Status> {
        match self.0.read(&object.path).await.map_err(status)? {
            Some(content) => Ok(chunks(content)),
            None => Err(Status::not_found("there is no such object")),
        }
    }

    pub(super) async fn create(&self, mut parts: Streaming<wire::CreatePart>) -> Result<wire::Created, Status> {
        let mut path = None;
        let mut content = BytesMut::new();
        while let Some(part) = parts.message().await? {
            path.get_or_insert(part.path);
            content.extend_from_slice(&part.content);
        }
        let path = path.ok_or_else(|| Status::invalid_argument("an object without a path"))?;
        let now = self.0.create(&path, content.freeze()).await.map_err(status)?;
        Ok(wire::Created { now })
    }

    pub(super) async fn size(&self, object: wire::Object) -> Result<wire::ObjectSize, Status> {
        Ok(wire::ObjectSize { bytes: self.0.size(&object.path).await.map_err(status)? })
    }

    pub(super) async fn list(&self, object: wire::Object) -> Result<wire::Listing, Status> {
        let objects = self.0.list(&object.path).await.map_err(status)?;
        let listed = |one: Listed| {
            let since = one.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified_millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            wire::Listed { path: one.path, bytes: one.bytes, modified_millis }
        };
        Ok(wire::Listing { objects: objects.into_iter().map(listed).collect() })
    }

    pub(super) async fn remove(&self, object: wire::Object) -> Result<wire::Nothing, Status> {
        self.0.remove(&object.path).await.map_err(status)?;
        Ok(wire::Nothing {})
    }

    pub(super) async fn set_aside(&self, object: wire::Object) -> Result<wire::ObjectSize, Status> {
        let moved = self.0.set_aside(&object.path).await.map_err(status)?;
        Ok(wire::ObjectSize { bytes: moved.then_some(0) })
    }
}

fn status(error: Error) -> Status {
    Status::failed_precondition(error.to_string())
}

/// The worker's side.
#[derive(Clone)]
pub(super) struct Reached(pub(super) CoordinatorClient<Channel>);

impl Access for Reached {
    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        let mut path = path.to_owned();
        let parts = cut(bytes).map(move |content| wire::CreatePart { path: std::mem::take(&mut path), content });
        let parts = stream::iter(parts);
        async move { Ok(self.0.clone().create(parts).await.map_err(error)?.into_inner().now) }.boxed()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            match self.0.clone().read(object(path)).await {
                Ok(chunks) => join(chunks.into_inner(), 0).await.map(Some).context("the connection broke"),
                Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
                Err(status) => Err(error(status)),
            }
        }
        .boxed()
    }

    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move { Ok(self.0.clone().size(object(path)).await.map_err(error)?.into_inner().bytes) }.boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        async move {
            let listing = self.0.clone().list(object(folder)).await.map_err(error)?.into_inner();
            let listed = |one: wire::Listed| {
                let modified = UNIX_EPOCH.checked_add(Duration::from_millis(one.modified_millis));
                Listed { path: one.path, bytes: one.bytes, modified: modified.unwrap_or(SystemTime::UNIX_EPOCH) }
            };
            Ok(listing.objects.into_iter().map(listed).collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.0.clone().remove(object(path)).await.map(drop).map_err(error) }.boxed()
    }

    fn set_aside<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<bool>> {
        async move { Ok(self.0.clone().set_aside(object(path)).await.map_err(error)?.into_inner().bytes.is_some()) }.boxed()
    }
}

fn object(path: &str) -> wire::Object {
    wire::Object { path: path.to_owned() }
}

fn error(status: Status) -> Error {
    match status.code() {
        tonic::Code::FailedPrecondition => Error::unavailable(status.message()),
        _ => Error::unavailable(format!("the coordinator can't be reached: {}", status.message())),
    }
}
