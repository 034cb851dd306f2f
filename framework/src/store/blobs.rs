//! Artifacts by digest.

use super::backend::Created;
use super::offload::offload;
use super::{AT_ONCE, Store, StoreError};
use crate::data::{Artifact, Digest, Encoded, Kind, Ref, decode};
use crate::{Error, Fault, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use indexmap::IndexSet;
use std::collections::HashMap;

pub(super) const BLOBS: &str = "blobs";

impl Store {
    /// Writes an encoded artifact, its items first; gives its bytes with those of its items.
    pub(super) fn write<'a>(&'a self, encoded: &'a Encoded) -> BoxFuture<'a, Result<u64, StoreError>> {
        async move {
            let items: Vec<_> = encoded.items.iter().map(|item| self.write(item)).collect();
            let items = futures::stream::iter(items).buffered(AT_ONCE);
            let weight: u64 = items.try_fold(0, |sum, weight| async move { Ok(sum + weight) }).await?;
            let path = blob_path(encoded.reference.digest);
            // Twice at most: an existing blob of the wrong length was cut off by a crash of the machine.
            for _ in 0..2 {
                if self.backend().create(&path, encoded.bytes.clone()).await? == Created::Now
                    || self.backend().size(&path).await? == Some(encoded.reference.bytes)
                {
                    break;
                }
                self.backend().set_aside(&path).await?;
            }
            Ok(weight + encoded.reference.bytes)
        }
        .boxed()
    }

    /// Reads an artifact and its bytes with those of its items.
    pub(super) fn load(&self, reference: Ref) -> BoxFuture<'_, Result<(Artifact, u64)>> {
        async move {
            if let Some(found) = self.0.memory.get(reference) {
                return Ok(found);
            }
            let bytes = self.blob(reference).await.map_err(StoreError::report)?;
            let parts = items(reference, &bytes).map_err(StoreError::report)?;
            let loaded: Vec<(Artifact, u64)> = futures::stream::iter(parts.clone())
                .map(|part| self.load(part))
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            let weight = reference.bytes + loaded.iter().map(|(_, weight)| weight).sum::<u64>();
            let parts: HashMap<Ref, Artifact> =
                parts.into_iter().zip(loaded.into_iter().map(|(artifact, _)| artifact)).collect();
            let artifact = offload(reference.bytes, move || {
                decode(reference, bytes, &mut |part| {
                    parts.get(&part).cloned().ok_or_else(|| Error::new("it names an item that it did not name before"))
                })
            });
            let artifact = artifact.await.map_err(|error| unreadable(reference, &error).report())?;
            self.0.memory.keep(reference, artifact.clone(), weight);
            Ok((artifact, weight))
        }
        .boxed()
    }

    /// Reads and checks the bytes of a blob.
    pub(super) async fn blob(&self, reference: Ref) -> Result<Bytes, StoreError> {
        let path = blob_path(reference.digest);
        let what = || format!("{} {} ({path})", reference.kind, reference.digest.short());
        let url = || self.url().to_owned();
        let bytes = match self.backend().read(&path, reference.bytes).await? {
            Some(bytes) => bytes,
            None => return Err(StoreError::Missing { what: what(), url: url() }),
        };
        if bytes.len() as u64 != reference.bytes {
            let reason = format!("it has {} bytes and should have {}", bytes.len(), reference.bytes);
            return Err(StoreError::Corrupt { what: what(), reason, url: url() });
        }
        let content = bytes.clone();
        let digest = offload(reference.bytes, move || Digest::of(&content)).await;
        match digest == reference.digest {
            true => Ok(bytes),
            false => {
                let reason = format!("its content has the digest {}", digest.short());
                Err(StoreError::Corrupt { what: what(), reason, url: url() })
            }
        }
    }

    /// Sets a blob aside if it is corrupt, and those of its items that are.
    pub(super) fn set_aside_blob(&self, reference: Ref) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            self.0.memory.forget(reference);
            match self.blob(reference).await {
                Err(StoreError::Corrupt { .. }) => self.backend().set_aside(&blob_path(reference.digest)).await,
                Err(StoreError::Missing { .. }) => Ok(false),
                Err(error) => Err(error),
                Ok(bytes) => {
                    let mut any = false;
                    for item in items(reference, &bytes)? {
                        any |= self.set_aside_blob(item).await?;
                    }
                    Ok(any)
                }
            }
        }
        .boxed()
    }
}

/// `blobs/ab/<digest>`: two digits make the folders small enough for any file system.
pub(super) fn blob_path(digest: Digest) -> String {
    let digest = digest.to_string();
    format!("{BLOBS}/{}/{digest}", &digest[..2])
}

/// The canonical artifact of what was just encoded.
pub(super) fn restore(encoded: &Encoded) -> Result<Artifact> {
    let items: HashMap<Ref, &Encoded> = encoded.items.iter().map(|item| (item.reference, item)).collect();
    decode(encoded.reference, encoded.bytes.clone(), &mut |part| match items.get(&part) {
        Some(item) => restore(item),
        None => Err(Error::new("a list names an item that it does not have").fault(Fault::Bug)),
    })
}

/// The items that an artifact's canonical bytes name, each once: those of a list, in order.
pub(super) fn items(reference: Ref, bytes: &Bytes) -> Result<Vec<Ref>, StoreError> {
    if reference.kind != Kind::List {
        return Ok(Vec::new());
    }
    let mut items = IndexSet::new();
    decode(reference, bytes.clone(), &mut |item| {
        items.insert(item);
        Ok(Artifact::Bytes(Bytes::new()))
    })
    .map_err(|error| unreadable(reference, &error))?;
    Ok(items.into_iter().collect())
}

fn unreadable(reference: Ref, error: &Error) -> StoreError {
    let what = format!("{} {}", reference.kind, reference.digest.short());
    StoreError::Unreadable { what, reason: error.to_string() }
}
