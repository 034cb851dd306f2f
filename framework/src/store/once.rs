//! The outcomes of effects on the outside world, by task and name: `once/<key>/<name>`.

use super::backend::Created;
use super::{Key, Store, StoreError};
use crate::Result;
use crate::data::Digest;
use bytes::{BufMut, Bytes, BytesMut};

pub(super) const ONCE: &str = "once";

/// The digits of a digest; they stand before the content.
const HEADER: usize = 64;

impl Store {
    /// The outcome that is recorded for an effect of a task.
    ///
    /// # Errors
    /// The store can't be read, or the record is corrupt. A corrupt record is never set aside by itself: the effect
    /// has run.
    pub async fn outcome(&self, key: Key, name: &str) -> Result<Option<Bytes>> {
        self.read_outcome(key, name).await.map_err(StoreError::report)
    }

    /// Records the outcome of an effect of a task, unless there is one, and gives the one that is there now.
    ///
    /// # Errors
    /// As [`Store::outcome`], or the store can't be written.
    pub async fn record_outcome(&self, key: Key, name: &str, outcome: Bytes) -> Result<Bytes> {
        self.try_record(key, name, outcome).await.map_err(StoreError::report)
    }

    async fn read_outcome(&self, key: Key, name: &str) -> Result<Option<Bytes>, StoreError> {
        let path = path(key, name);
        let Some(sealed) = self.backend().read(&path, 0).await? else { return Ok(None) };
        open(&sealed).map(Some).map_err(|reason| StoreError::Corrupt {
            what: format!("the recorded outcome of effect {name:?} ({path})"),
            reason,
            url: self.url().to_owned(),
        })
    }

    async fn try_record(&self, key: Key, name: &str, outcome: Bytes) -> Result<Bytes, StoreError> {
        let (path, sealed) = (path(key, name), seal(&outcome));
        // One in the way may be collected before it is read: then the next round writes ours.
        for _ in 0..8 {
            if self.backend().create(&path, sealed.clone()).await? == Created::Now {
                return Ok(outcome);
            }
            if let Some(there) = self.read_outcome(key, name).await? {
                return Ok(there);
            }
        }
        let reason = "it can neither be created nor read".into();
        Err(StoreError::Unavailable { action: "write", path, reason, url: self.url().to_owned() })
    }
}

fn path(key: Key, name: &str) -> String {
    format!("{ONCE}/{key}/{name}")
}

/// The task that a record belongs to.
pub(super) fn task_of(path: &str) -> Option<Key> {
    path.split('/').nth(1)?.parse().ok()
}

/// The digest of an outcome and the outcome.
fn seal(outcome: &Bytes) -> Bytes {
    let mut sealed = BytesMut::with_capacity(HEADER + outcome.len());
    sealed.put_slice(Digest::of(outcome).to_string().as_bytes());
    sealed.put_slice(outcome);
    sealed.freeze()
}

fn open(sealed: &Bytes) -> Result<Bytes, String> {
    let header = sealed.get(..HEADER).ok_or("it is cut off")?;
    let outcome = sealed.slice(HEADER..);
    match header == Digest::of(&outcome).to_string().as_bytes() {
        true => Ok(outcome),
        false => Err("its content does not match its digest".to_owned()),
    }
}
