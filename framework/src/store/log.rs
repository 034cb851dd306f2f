//! Numbered logs: what happened in a run.

use super::numbered::Numbered;
use super::{Store, StoreError};
use crate::Result;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

pub(super) const RUNS: &str = "runs";

/// Entries of a log that are read at the same time.
const AT_ONCE: usize = 16;

/// The log of a run: entries with consecutive numbers from 1 that are never changed. An entry is JSON lines.
///
/// Several processes may append to one log; each entry gets a number of its own.
#[derive(Clone)]
pub struct Log {
    store: Store,
    run: String,
    numbered: Numbered,
}

impl Log {
    pub(super) fn new(store: Store, run: &str) -> Self {
        Self { store, run: run.to_owned(), numbered: Numbered::new(format!("{RUNS}/{run}"), ".jsonl") }
    }

    /// The name of the run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Writes the first entry, unless somebody else did; whether it is this one. So a run gets its name.
    ///
    /// # Errors
    /// The store can't be written, or the run has a name that can't be a folder's.
    pub async fn begin(&self, entry: Bytes) -> Result<bool> {
        self.check()?;
        self.numbered.begin(self.store.backend(), entry).await.map_err(StoreError::report)
    }

    /// Adds an entry and gives its number.
    ///
    /// # Errors
    /// As [`Log::begin`].
    pub async fn append(&self, entry: Bytes) -> Result<u64> {
        self.check()?;
        self.numbered.append(self.store.backend(), entry).await.map_err(StoreError::report)
    }

    /// The numbers of the entries, in order.
    ///
    /// # Errors
    /// The store can't be read, or the run has a name that can't be a folder's.
    pub async fn list(&self) -> Result<Vec<u64>> {
        self.check()?;
        self.numbered.list(self.store.backend()).await.map_err(StoreError::report)
    }

    /// The entry of a number, if there is one.
    ///
    /// # Errors
    /// As [`Log::list`].
    pub async fn read(&self, number: u64) -> Result<Option<Bytes>> {
        self.check()?;
        self.numbered.read(self.store.backend(), number).await.map_err(StoreError::report)
    }

    /// All entries in order; none if there is no such run.
    ///
    /// # Errors
    /// As [`Log::list`].
    pub async fn read_all(&self) -> Result<Vec<Bytes>> {
        let entries = futures::stream::iter(self.list().await?).map(|number| self.read(number)).buffered(AT_ONCE);
        // One that was collected since it was listed is not there any more.
        entries.try_filter_map(|entry| async move { Ok(entry) }).try_collect().await
    }

    /// The entry with the highest number.
    ///
    /// # Errors
    /// As [`Log::list`].
    pub async fn newest(&self) -> Result<Option<(u64, Bytes)>> {
        let Some(number) = self.list().await?.pop() else { return Ok(None) };
        Ok(self.read(number).await?.map(|entry| (number, entry)))
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !self.run.is_empty() && self.run.len() <= 200 && !self.run.starts_with('.') && self.run.chars().all(plain) {
            return Ok(());
        }
        let message = format!("{:?} can't be the name of a run", self.run);
        let help = "use up to 200 letters, digits, `-`, `_` and `.`, and begin with none of the dots".to_owned();
        Err(StoreError::Address { message, help }.report())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_can_not_leave_its_folder() {
        let runtime = crate::runtime().unwrap();
        for name in ["", "..", "../x", "a/b", "a\\b", ".hidden", "a b"] {
            let error = runtime.block_on(Store::memory().log(name).append("x".into())).unwrap_err();
            assert_eq!(error.to_string(), format!("{name:?} can't be the name of a run"));
        }
    }
}
