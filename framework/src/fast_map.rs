//! Maps that are looked at for every task.

use std::collections::HashMap;

/// A map whose hash is quick. Whoever wants its keys to collide must know this process's memory; its order is no rule.
pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
