//! Large results of a worker: it leaves them in the exchange, and says so with its reply; the process that keeps the store
//! takes them in before it commits. So they are written once, digested while they are written, and nobody waits for a
//! message about them.

use super::backend::{Backend, Created};
use super::blobs::{blob_path, form};
use super::offload::size_hint;
use super::{AT_ONCE, Store, StoreError};
use crate::Result;
use crate::data::{Artifact, Ref, Unnamed};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::task::block_in_place;

/// An artifact that a worker has made sure of.
pub(crate) struct Left {
    pub(crate) reference: Ref,
    /// Its blobs that are in the exchange and not in the store yet, the items of a list first.
    pub(crate) files: Vec<Ref>,
}

impl Store {
    /// Whether artifacts can be [left](Self::leave) for it.
    pub(crate) fn has_exchange(&self) -> bool {
        self.0.has_exchange()
    }

    /// Leaves an artifact that is needed no more in the exchange; what finds no room there is put into the store.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub(crate) fn leave(&self, artifact: Artifact) -> BoxFuture<'_, Result<Left>> {
        async move {
            let (mut files, mut names) = (Vec::new(), Vec::new());
            if let Artifact::List(list) = &artifact {
                let items: Vec<_> = list.items().iter().map(|item| self.leave(item.clone())).collect();
                let items: Vec<Left> = futures::stream::iter(items).buffered(AT_ONCE).try_collect().await?;
                names.extend(items.iter().map(|item| item.reference));
                files.extend(items.into_iter().flat_map(|item| item.files));
            }
            // Both what the stage has and what is written are in memory for a while.
            let passage = self.0.admit(size_hint(&artifact).saturating_mul(2)).await.map_err(StoreError::report)?;
            let blob = block_in_place(|| match artifact {
                Artifact::List(_) => Unnamed::list(&names),
                other => Unnamed::of(other),
            })?;
            let Some((reference, content)) = block_in_place(|| self.0.leave(&blob)) else {
                let encoded = block_in_place(|| blob.named());
                self.0.write(encoded.reference, encoded.pieces, passage).await.map_err(StoreError::report)?;
                return Ok(Left { reference: encoded.reference, files });
            };
            // What the stage had goes first: the file is what this process has from now on.
            drop(blob);
            let loaded = self.0.hold(content, passage);
            self.0.keep(reference, form(reference, loaded.bytes())?, &loaded);
            files.push(reference);
            Ok(Left { reference, files })
        }
        .boxed()
    }

    /// Creates a blob from what another process of this machine [left](Self::leave). Its content is checked when this
    /// process reads it.
    ///
    /// # Errors
    /// There is no such file, or the store can't be written.
    pub(crate) async fn take_in(&self, reference: Ref) -> Result<()> {
        let path = blob_path(reference.digest);
        let Backend::Ram(ram) = self.backend() else { return Err(missing(reference)) };
        let created = ram.adopt(&path).await.map_err(StoreError::report)?;
        if ram.size(&path) == Some(reference.bytes) {
            return Ok(());
        }
        if created == Some(Created::Now) {
            self.backend().set_aside(&path).await.map_err(StoreError::report)?;
        }
        Err(missing(reference))
    }
}

fn missing(reference: Ref) -> crate::Error {
    let Ref { kind, digest, bytes } = reference;
    crate::Error::unavailable(format!("the worker left no {kind} {} of {bytes} bytes in the exchange", digest.short()))
}

#[cfg(test)]
mod tests {
    use super::super::tiers::Machine;
    use super::*;
    use crate::data::{Digest, Kind, List, Tensor, Tensors};
    use crate::runtime;
    use bytes::Bytes;
    use std::sync::Arc;

    fn tensors(first: u8) -> Artifact {
        let values = (0..2_000_000u32).map(|at| (at >> 6) as u8 ^ first).collect();
        Tensors::new().with("x", Tensor::from_vec(vec![2_000_000], values).unwrap()).into()
    }

    /// A store in memory and that of a worker which shares its exchange.
    fn pair() -> (Store, Store) {
        let keeper = Store::memory();
        let worker = Store::remote(Arc::new(keeper.clone())).with_exchange(&keeper.exchange().unwrap());
        (keeper, worker)
    }

    #[test]
    fn what_is_left_is_in_the_store_once_it_is_taken_in_and_others_map_it() {
        let (keeper, worker) = pair();
        let other = Store::remote(Arc::new(keeper.clone())).with_exchange(&keeper.exchange().unwrap());
        let list: Artifact = [tensors(1), tensors(2), tensors(1)].into_iter().collect::<List>().into();
        let known = crate::data::encode(&list).unwrap().reference;
        runtime().unwrap().block_on(async {
            let left = worker.leave(list).await.unwrap();
            assert_eq!((left.reference, left.files.len(), left.files.last()), (known, 4, Some(&known)));
            assert!(!keeper.has(known).await.unwrap());
            for file in &left.files {
                keeper.take_in(*file).await.unwrap();
                assert!(keeper.has(*file).await.unwrap());
            }
            for store in [&keeper, &worker, &other] {
                let read = store.get(known).await.unwrap();
                assert_eq!(crate::data::encode(&read).unwrap().reference, known);
            }
            // Once more is the same.
            assert_eq!(worker.leave(tensors(2)).await.unwrap().reference, left.files[1]);
            keeper.take_in(left.files[1]).await.unwrap();
        });
    }

    #[test]
    fn what_is_not_there_or_is_cut_off_is_not_taken_in() {
        let (keeper, worker) = pair();
        runtime().unwrap().block_on(async {
            let left = worker.leave(tensors(3)).await.unwrap().reference;
            let longer = Ref { bytes: left.bytes + 1, ..left };
            let nowhere = Ref { kind: Kind::Bytes, digest: Digest::of(b"nowhere"), bytes: 7 };
            for lie in [longer, nowhere] {
                let error = keeper.take_in(lie).await.unwrap_err();
                assert!(error.to_string().contains("left no"), "{error}");
                assert!(!keeper.has(lie).await.unwrap());
            }
            keeper.take_in(left).await.unwrap();
        });
    }

    #[test]
    fn a_lie_about_a_digest_is_found_by_who_keeps_the_store() {
        let (keeper, worker) = pair();
        let folder = keeper.exchange().unwrap();
        let (truth, lie) = (Bytes::from(vec![1; 400_000]), vec![2; 400_000]);
        let reference = Ref { kind: Kind::Bytes, digest: Digest::of(&truth), bytes: 400_000 };
        let path = folder.join(blob_path(reference.digest));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, lie).unwrap();
        runtime().unwrap().block_on(async {
            keeper.take_in(reference).await.unwrap();
            let error = keeper.get(reference).await.unwrap_err();
            assert!(StoreError::of(&error).is_some_and(StoreError::is_lost), "{error}");
            drop(worker);
        });
    }

    #[test]
    fn a_cache_of_the_machine_is_no_exchange() {
        let folder = tempfile::tempdir().unwrap();
        let far = Store::remote(Arc::new(Store::memory()));
        assert!(!far.has_exchange());
        assert!(!far.with_machine(folder.path(), 1 << 30).has_exchange());
        assert!(!Machine::new(folder.path(), 1 << 30).is_trusted());
    }
}
