//! Lists by reference: their items are named, not read.

use super::{Store, StoreError};
use crate::data::{Kind, Ref, encode_list, list_items};
use crate::{Error, Result};

impl Store {
    /// The items of a list, in order, without reading them.
    ///
    /// # Errors
    /// As [`Store::get`], or something that is no list.
    pub async fn items(&self, list: Ref) -> Result<Vec<Ref>> {
        if list.kind != Kind::List {
            return Err(Error::new(format!("expected a list, found {}", list.kind.with_article())));
        }
        list_items(&self.blob(list).await.map_err(StoreError::report)?)
    }

    /// Keeps a list of artifacts that are in the store already.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_list(&self, items: &[Ref]) -> Result<Ref> {
        let encoded = encode_list(items)?;
        self.put_bytes(encoded.reference, encoded.bytes()).await?;
        Ok(encoded.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Artifact, List};
    use crate::runtime;
    use bytes::Bytes;

    #[test]
    fn a_list_of_references_is_the_list_of_what_they_name() {
        runtime().unwrap().block_on(async {
            let store = Store::memory();
            let parts = ["b", "a", "b"].map(|part| Artifact::Bytes(Bytes::from_static(part.as_bytes())));
            let whole = store.put(&Artifact::List(parts.iter().cloned().collect::<List>())).await.unwrap();
            let items = store.items(whole).await.unwrap();
            assert_eq!(items.len(), 3);
            assert_eq!((items[0], items[0] == items[1]), (items[2], false));
            assert_eq!(store.put_list(&items).await.unwrap(), whole);
            assert_eq!(store.items(items[0]).await.unwrap_err().to_string(), "expected a list, found bytes");
        });
    }
}
