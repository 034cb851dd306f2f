//! Where a task that is not committed yet can go on.

use super::backend::Backend;
use super::numbered::Numbered;
use super::{Key, Store, StoreError};
use crate::Result;
use crate::data::{Artifact, Digest, Kind, Ref, Tensors, decode, encode};
use bytes::{Bytes, BytesMut};

pub(super) const CHECKPOINTS: &str = "checkpoints";

/// Checkpoints that are kept: the newest, and one more in case that one is corrupt.
const KEPT: u64 = 2;

/// The digits of a digest; they stand before the content, and leave it aligned to 64 bytes.
const HEADER: usize = 64;

/// The numbered checkpoints of a task. Only the last two are kept.
#[derive(Clone)]
pub struct CheckpointLog {
    store: Store,
    numbered: Numbered,
}

impl CheckpointLog {
    pub(super) fn new(store: Store, key: Key) -> Self {
        Self { store, numbered: Numbered::new(format!("{CHECKPOINTS}/{key}"), "") }
    }

    /// The newest checkpoint that can be read. Corrupt ones are passed over, and said.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn newest(&self, passed_over: &mut dyn FnMut(String)) -> Result<Option<Tensors>> {
        let backend = self.store.backend();
        for number in self.numbered.list(backend).await.map_err(StoreError::report)?.into_iter().rev() {
            // One that was removed meanwhile had a newer one after it, or its task is committed.
            let Some(bytes) = self.numbered.read(backend, number).await.map_err(StoreError::report)? else { continue };
            match open(bytes) {
                Ok(state) => return Ok(Some(state)),
                Err(reason) => passed_over(format!(
                    "checkpoint {number} can't be used, and the one before it is looked at: {reason}"
                )),
            }
        }
        Ok(None)
    }

    /// Keeps one more and removes those before the last two.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn save(&self, state: &Tensors) -> Result<()> {
        let sealed = seal(state)?;
        self.try_save(sealed).await.map_err(StoreError::report)
    }

    async fn try_save(&self, sealed: Bytes) -> Result<(), StoreError> {
        let backend = self.store.backend();
        let newest = self.numbered.append(backend, sealed).await?;
        for old in self.numbered.list(backend).await? {
            if old + KEPT <= newest {
                backend.remove(&self.numbered.path(old)).await?;
            }
        }
        Ok(())
    }
}

/// Removes all checkpoints of a task.
pub(super) async fn forget(backend: &Backend, key: Key) -> Result<(), StoreError> {
    // Most tasks have none; this is asked after each.
    if matches!(backend, Backend::Ram(ram) if ram.has_none(CHECKPOINTS)) {
        return Ok(());
    }
    for found in backend.list(&format!("{CHECKPOINTS}/{key}")).await? {
        backend.remove(&found.path).await?;
    }
    Ok(())
}

/// The digest of a state and its canonical bytes.
fn seal(state: &Tensors) -> Result<Bytes> {
    let encoded = encode(&Artifact::Tensors(state.clone()))?;
    let mut sealed = BytesMut::with_capacity(HEADER + encoded.pieces.len());
    sealed.extend_from_slice(encoded.reference.digest.to_string().as_bytes());
    encoded.pieces.iter().for_each(|piece| sealed.extend_from_slice(piece));
    Ok(sealed.freeze())
}

fn open(sealed: Bytes) -> Result<Tensors> {
    let cut_off = || crate::Error::new("it is cut off");
    let header = sealed.get(..HEADER).ok_or_else(cut_off)?;
    let digest: Digest = std::str::from_utf8(header)?.parse()?;
    let content = sealed.slice(HEADER..);
    if Digest::of(&content) != digest {
        return Err(crate::Error::new("its content does not match its digest"));
    }
    let reference = Ref { kind: Kind::Tensors, digest, bytes: content.len() as u64 };
    decode(reference, content, &mut |_| Err(crate::Error::new("tensors have no items")))?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Tensor;

    fn state(step: u32) -> Tensors {
        Tensors::new().with("step", Tensor::from_vec(vec![1], vec![step]).unwrap())
    }

    fn step(state: Option<Tensors>) -> Option<u32> {
        state.map(|state| state.get("step").unwrap().values::<u32>().unwrap()[0])
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        crate::runtime().unwrap().block_on(future)
    }

    #[test]
    fn the_newest_is_read_and_the_last_two_are_kept() {
        wait(async {
            let (store, key) = (Store::memory(), Key(Digest::of(b"task")));
            let log = store.checkpoint_log(key);
            assert!(log.newest(&mut |_| ()).await.unwrap().is_none());
            for number in 0..5 {
                log.save(&state(number)).await.unwrap();
            }
            // Another attempt, in another process.
            let other = store.checkpoint_log(key);
            assert_eq!(step(other.newest(&mut |_| ()).await.unwrap()), Some(4));
            assert_eq!(other.numbered.list(store.backend()).await.unwrap(), [4, 5]);
            // Both go on: neither is in the other's way.
            other.save(&state(10)).await.unwrap();
            log.save(&state(11)).await.unwrap();
            assert_eq!(step(other.newest(&mut |_| ()).await.unwrap()), Some(11));

            store.forget_checkpoints(key).await.unwrap();
            assert!(other.newest(&mut |_| ()).await.unwrap().is_none());
            assert!(store.backend().list(CHECKPOINTS).await.unwrap().is_empty());
        });
    }

    #[test]
    fn a_corrupt_one_is_passed_over() {
        wait(async {
            let store = Store::memory();
            let log = store.checkpoint_log(Key(Digest::of(b"task")));
            log.save(&state(1)).await.unwrap();
            let sealed = seal(&state(2)).unwrap();
            for bad in [sealed.slice(..sealed.len() - 1), sealed.slice(..10), Bytes::new()] {
                log.numbered.append(store.backend(), bad).await.unwrap();
                let mut said = Vec::new();
                assert_eq!(step(log.newest(&mut |line| said.push(line)).await.unwrap()), Some(1));
                assert!(said[0].contains(" can't be used"), "{said:?}");
            }
        });
    }
}
