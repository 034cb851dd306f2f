//! Artifacts by digest.

use super::offload::{offload, size_hint};
use super::tiers::Form;
use super::{AT_ONCE, Store, StoreError};
use crate::data::{Artifact, Digest, Kind, List, Ref, decode, encode_list, encode_owned};
use crate::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use indexmap::IndexSet;

pub(super) const BLOBS: &str = "blobs";

impl Store {
    /// Writes an artifact; the items of a list first, each by itself, so that a list may be larger than memory.
    pub(super) fn write(&self, artifact: Artifact) -> BoxFuture<'_, Result<Ref>> {
        async move {
            let items = match &artifact {
                Artifact::List(list) => {
                    let items: Vec<_> = list.items().iter().map(|item| self.write(item.clone())).collect();
                    futures::stream::iter(items).buffered(AT_ONCE).try_collect().await?
                }
                _ => Vec::new(),
            };
            // Both what the stage has and its canonical form are in memory for a while.
            let size = size_hint(&artifact);
            let passage = self.0.admit(size.saturating_mul(2)).await.map_err(StoreError::report)?;
            let encoded = offload(size, move || match artifact {
                Artifact::List(_) => encode_list(&items),
                other => encode_owned(other),
            });
            let encoded = encoded.await?;
            let reference = encoded.reference;
            let written = self.0.write(reference, encoded.pieces, passage).await.map_err(StoreError::report)?;
            // What stages see must not depend on whether this process made it or read it back, so that the memory
            // keeps the canonical form (batches of fixed size, say) as well.
            if let Some(written) = written {
                let form = match encoded.whole.filter(|_| !written.is_mapped()) {
                    Some(whole) => Form::Whole(whole.held_by(&written.owner())?),
                    None => form(reference, written.bytes())?,
                };
                self.0.keep(reference, form, &written);
            }
            Ok(reference)
        }
        .boxed()
    }

    /// Reads an artifact.
    pub(super) fn load(&self, reference: Ref) -> BoxFuture<'_, Result<Artifact>> {
        async move {
            let form = match self.0.recall(reference).await.map_err(StoreError::report)? {
                Some(form) => form,
                None => {
                    let loaded = self.0.load(reference).await.map_err(StoreError::report)?;
                    let bytes = loaded.bytes();
                    let form = offload(reference.bytes, move || form(reference, bytes)).await?;
                    self.0.keep(reference, form, &loaded)
                }
            };
            match form {
                Form::Whole(artifact) => Ok(artifact),
                Form::List(items) => {
                    let items: Vec<_> = items.iter().map(|item| self.load(*item)).collect();
                    let items: Vec<Artifact> = futures::stream::iter(items).buffered(AT_ONCE).try_collect().await?;
                    Ok(Artifact::List(items.into_iter().collect::<List>()))
                }
            }
        }
        .boxed()
    }

    /// Reads and checks the bytes of a blob.
    pub(super) async fn blob(&self, reference: Ref) -> Result<Bytes, StoreError> {
        Ok(self.0.load(reference).await?.bytes())
    }

    /// Has a blob read and checked, unless that was done lately.
    pub(super) async fn check(&self, reference: Ref) -> Result<(), StoreError> {
        match self.0.recall(reference).await? {
            Some(_) => Ok(()),
            None => self.0.load(reference).await.map(drop),
        }
    }

    /// Sets a blob aside if it is corrupt in the store, and those of its items that are.
    pub(super) fn set_aside_blob(&self, reference: Ref) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            self.0.forget(reference);
            match self.0.in_store(reference).await {
                Err(StoreError::Corrupt { .. }) => self.backend().set_aside(&blob_path(reference.digest)).await,
                Err(StoreError::Missing { .. }) => Ok(false),
                Err(error) => Err(error),
                Ok(content) => {
                    let mut any = false;
                    for item in items(reference, &content.into_bytes())? {
                        any |= self.set_aside_blob(item).await?;
                    }
                    Ok(any)
                }
            }
        }
        .boxed()
    }
}

/// What memory keeps of an artifact with these canonical bytes.
pub(super) fn form(reference: Ref, bytes: Bytes) -> Result<Form> {
    if reference.kind == Kind::List {
        let mut items = Vec::new();
        each_item(reference, bytes, &mut |item| items.push(item)).map_err(StoreError::report)?;
        return Ok(Form::List(items.into()));
    }
    let artifact = decode(reference, bytes, &mut |_| Err(Error::new("only lists have items")));
    artifact.map(Form::Whole).map_err(|error| unreadable(reference, &error).report())
}

/// `blobs/ab/<digest>`: two digits make the folders small enough for any file system.
pub(super) fn blob_path(digest: Digest) -> String {
    let digest = digest.to_string();
    format!("{BLOBS}/{}/{digest}", &digest[..2])
}

/// The items that an artifact's canonical bytes name, each once: those of a list, in order.
pub(super) fn items(reference: Ref, bytes: &Bytes) -> Result<Vec<Ref>, StoreError> {
    let mut items = IndexSet::new();
    if reference.kind == Kind::List {
        each_item(reference, bytes.clone(), &mut |item| {
            items.insert(item);
        })?;
    }
    Ok(items.into_iter().collect())
}

fn each_item(reference: Ref, bytes: Bytes, each: &mut dyn FnMut(Ref)) -> Result<(), StoreError> {
    let list = decode(reference, bytes, &mut |item| {
        each(item);
        Ok(Artifact::Bytes(Bytes::new()))
    });
    list.map(drop).map_err(|error| unreadable(reference, &error))
}

fn unreadable(reference: Ref, error: &Error) -> StoreError {
    let what = format!("{} {}", reference.kind, reference.digest.short());
    StoreError::Unreadable { what, reason: error.to_string() }
}
