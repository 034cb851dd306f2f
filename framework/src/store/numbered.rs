//! Objects with consecutive numbers in a folder: `00000001`, `00000002`, …

use super::StoreError;
use super::backend::{Backend, Created};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A folder of numbered objects. Two writers never take the same number.
#[derive(Clone)]
pub(super) struct Numbered {
    folder: String,
    suffix: &'static str,
    /// The number that this process wrote last.
    last: Arc<Mutex<Option<u64>>>,
}

impl Numbered {
    pub(super) fn new(folder: String, suffix: &'static str) -> Self {
        Self { folder, suffix, last: Arc::default() }
    }

    pub(super) fn path(&self, number: u64) -> String {
        format!("{}/{number:08}{}", self.folder, self.suffix)
    }

    /// The numbers that exist, in order.
    pub(super) async fn list(&self, backend: &Backend) -> Result<Vec<u64>, StoreError> {
        let found = backend.list(&self.folder).await?;
        let number = |name: &str| name.strip_suffix(self.suffix)?.parse().ok();
        let mut numbers: Vec<u64> = found.iter().filter_map(|found| number(found.name())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Creates the object of number 1, if there is none; whether it did.
    pub(super) async fn begin(&self, backend: &Backend, bytes: Bytes) -> Result<bool, StoreError> {
        let mut last = self.last.lock().await;
        let created = backend.create(&self.path(1), bytes).await? == Created::Now;
        if created {
            *last = Some(1);
        }
        Ok(created)
    }

    /// Creates the object of the next number and gives that number.
    pub(super) async fn append(&self, backend: &Backend, bytes: Bytes) -> Result<u64, StoreError> {
        let mut last = self.last.lock().await;
        let mut next = match *last {
            Some(last) => last + 1,
            None => self.next(backend).await?,
        };
        while backend.create(&self.path(next), bytes.clone()).await? == Created::Already {
            next = self.next(backend).await?.max(next + 1);
        }
        *last = Some(next);
        Ok(next)
    }

    pub(super) async fn read(&self, backend: &Backend, number: u64) -> Result<Option<Bytes>, StoreError> {
        backend.read(&self.path(number), 0).await
    }

    async fn next(&self, backend: &Backend) -> Result<u64, StoreError> {
        Ok(self.list(backend).await?.last().map_or(1, |newest| newest + 1))
    }
}
