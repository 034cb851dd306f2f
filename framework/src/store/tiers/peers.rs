//! The third tier: other workers.

use crate::Result;
use crate::data::Ref;
use bytes::Bytes;
use futures::future::BoxFuture;

/// Where artifacts can be had from workers that hold them.
///
/// What it gives is checked against the digest, so that a peer that lies or cuts off costs time but no result: the
/// store is asked next. While it fetches, the artifact's bytes are already counted against this process's cap, and
/// others wait for it to end: it must end (give it a deadline), and the peer that is asked must answer without waiting
/// for memory of its own, as [`Store::at_hand`](super::super::Store::at_hand) does.
pub trait PeerSource: Send + Sync {
    /// The canonical bytes of an artifact, if a peer has them.
    ///
    /// # Errors
    /// A peer that should have had them failed; it is logged.
    fn fetch(&self, reference: Ref) -> BoxFuture<'_, Result<Option<Bytes>>>;
}
