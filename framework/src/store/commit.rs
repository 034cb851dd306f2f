//! Results by key: who writes the memo first wins.

use super::backend::Created;
use super::blobs::blob_path;
use super::{Commit, Key, Memo, Store, StoreError};

pub(super) const MEMO: &str = "memo";

impl Store {
    pub(super) async fn read_memo(&self, key: Key) -> Result<Option<Memo>, StoreError> {
        let memo = self.backend().memo(key).await?.transpose();
        memo.map_err(|reason| StoreError::Corrupt {
            what: format!("memo {} ({})", key.0.short(), memo_path(key)),
            reason,
            url: self.url().to_owned(),
        })
    }

    /// The result that another process says it has committed, if it did.
    ///
    /// # Errors
    /// The store can't be read.
    pub(crate) async fn committed(&self, key: Key) -> crate::Result<Option<Memo>> {
        self.read_memo(key).await.map_err(StoreError::report)
    }

    pub(super) async fn try_commit(&self, key: Key, memo: &Memo) -> Result<Commit, StoreError> {
        // A memo in the way may be corrupt, or may be collected before it is read: then the next round writes ours.
        for _ in 0..8 {
            if self.backend().create_memo(key, memo).await? == Created::Now {
                return Ok(Commit::First);
            }
            match self.read_memo(key).await {
                Ok(Some(there)) if there.outputs == memo.outputs => return Ok(Commit::Same),
                Ok(Some(there)) if self.has_outputs(&there).await? => return Ok(Commit::Different(there)),
                Ok(Some(_)) => {
                    tracing::warn!("the outputs of memo {} are lost; it is replaced", key.0.short());
                    self.backend().set_aside(&memo_path(key)).await?;
                }
                Ok(None) => {}
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::warn!("{error}; it is replaced");
                    self.backend().set_aside(&memo_path(key)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable {
            action: "write",
            path: memo_path(key),
            reason: "it can neither be created nor read".into(),
            url: self.url().to_owned(),
        })
    }

    pub(super) async fn has_outputs(&self, memo: &Memo) -> Result<bool, StoreError> {
        for output in memo.outputs.values() {
            if self.backend().size(&blob_path(output.digest)).await? != Some(output.bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `memo/12/<key>`
pub(super) fn memo_path(key: Key) -> String {
    let key = key.to_string();
    format!("{MEMO}/{}/{key}", &key[..2])
}
