//! What an attempt gives its coordinator to commit: small outputs travel in the reply, large ones are left in the exchange
//! of the machine, if there is one.

use super::wire::SMALL_BYTES;
use crate::data::{Artifact, Encoded, Ref, encode};
use crate::stage::Given;
use crate::store::{Store, size_hint};
use crate::{Context, Result, runtime};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Blobs of an attempt that are not in the store yet.
#[derive(Clone, Debug, Default)]
pub struct Unsaved {
    /// Those that travel with the word that it ended: the items of a list before it.
    pub blobs: Vec<(Ref, Bytes)>,
    /// Those that lie in the exchange, in the same order.
    pub left: Vec<Ref>,
}

impl Unsaved {
    /// How many bytes travel.
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.iter().map(|(_, content)| content.len() as u64).sum()
    }

    /// Takes an artifact's bytes along, after those of its items; gives its name.
    fn carry(&mut self, encoded: Encoded) -> Ref {
        for item in encoded.items {
            self.carry(item);
        }
        self.blobs.push((encoded.reference, encoded.pieces.join()));
        encoded.reference
    }
}

type Outputs = BTreeMap<String, Given>;
type Named = BTreeMap<String, Ref>;

/// The names of some outputs and what of them is not stored yet. Gives the outputs back if the attempt is to store them
/// and commit by itself: it reaches the store, or they are large and there is no exchange. For threads that may block.
pub(super) fn gather(store: &Store, outputs: Outputs) -> Result<Result<(Named, Unsaved), Outputs>> {
    if !store.is_with_another() {
        return Ok(Err(outputs));
    }
    let mut room = SMALL_BYTES;
    let mut small = BTreeMap::new();
    for (port, given) in &outputs {
        let Given::Artifact(artifact) = given else { continue };
        let encoded = if about(artifact) <= room { Some(encode(artifact).context(output(port))?) } else { None };
        let fits = |encoded: &Encoded| carried(encoded) <= room;
        match encoded.filter(fits) {
            Some(encoded) => {
                room -= carried(&encoded);
                small.insert(port.clone(), encoded);
            }
            None if store.has_exchange() => {}
            None => return Ok(Err(outputs)),
        }
    }
    let (mut names, mut unsaved) = (BTreeMap::new(), Unsaved::default());
    for (port, given) in outputs {
        let reference = match (small.remove(&port), given) {
            (_, Given::Stored(stored)) => stored.reference,
            (Some(encoded), _) => unsaved.carry(encoded),
            (None, Given::Artifact(artifact)) => {
                let left = runtime()?.block_on(store.leave(artifact)).context(output(&port))?;
                unsaved.left.extend(left.files);
                left.reference
            }
        };
        names.insert(port, reference);
    }
    Ok(Ok((names, unsaved)))
}

/// About how many bytes would travel.
fn about(artifact: &Artifact) -> u64 {
    let items = match artifact {
        Artifact::List(list) => list.items().iter().map(about).sum(),
        _ => 0,
    };
    size_hint(artifact) + items
}

fn carried(encoded: &Encoded) -> u64 {
    encoded.reference.bytes + encoded.items.iter().map(carried).sum::<u64>()
}

fn output(port: &str) -> String {
    format!("output {port:?}")
}
