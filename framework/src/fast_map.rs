//! Maps that are looked at for every task.

use std::collections::HashMap;

/// A map whose hash is quick and differs from process to process: nothing may depend on its order. Keys that collide can
/// only be guessed at, which suffices for those that come from who has the run's token.
pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
