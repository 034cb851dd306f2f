//! What runs have learned of the cost of stages, for the runs after them: `costs/00000001.json`, … The newest entry
//! holds all that is known; it is an estimate, and of two runs that write at the same time one is forgotten.

use super::numbered::Numbered;
use super::{Store, StoreError};
use crate::Result;
use bytes::Bytes;

pub(super) const COSTS: &str = "costs";

impl Store {
    /// The newest entry, if there is any.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn costs(&self) -> Result<Option<Bytes>> {
        self.newest_costs().await.map_err(StoreError::report)
    }

    /// Adds an entry. [`Store::collect`] takes the older ones away.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn add_costs(&self, entry: Bytes) -> Result<()> {
        let added = entries().append(self.backend(), entry).await;
        added.map(drop).map_err(StoreError::report)
    }

    async fn newest_costs(&self) -> Result<Option<Bytes>, StoreError> {
        match entries().list(self.backend()).await?.pop() {
            Some(newest) => entries().read(self.backend(), newest).await,
            None => Ok(None),
        }
    }
}

fn entries() -> Numbered {
    Numbered::new(COSTS.to_owned(), ".json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;
    use crate::store::Collect;
    use std::time::Duration;

    #[test]
    fn the_newest_entry_counts_and_survives_collection() {
        runtime().unwrap().block_on(async {
            let store = Store::memory();
            assert_eq!(store.costs().await.unwrap(), None);
            for entry in ["one", "two", "three"] {
                store.add_costs(entry.into()).await.unwrap();
            }
            assert_eq!(entries().list(store.backend()).await.unwrap().len(), 3);
            let collect = Collect { runs: Some(0), grace: Duration::ZERO, ..Collect::default() };
            // Of other stores' dead processes there may be leftovers too.
            assert!(store.collect(collect).await.unwrap().leftovers >= 2);
            assert_eq!(entries().list(store.backend()).await.unwrap().len(), 1);
            assert_eq!(store.costs().await.unwrap().unwrap(), "three");
            store.add_costs("four".into()).await.unwrap();
            assert_eq!(store.costs().await.unwrap().unwrap(), "four");
        });
    }
}
