//! A hash that is the same in every process and forever: hashed features depend on it.

use std::hash::{BuildHasherDefault, Hasher};

/// FNV-1a with 64 bits (Fowler, Noll and Vo; <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>), its bits
/// then mixed by MurmurHash3's finaliser, because FNV leaves the high bits of short texts alike.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = Fnv::default();
    state.write(bytes);
    state.finish()
}

/// The same hash for Rust's maps.
pub(super) type Fixed = BuildHasherDefault<Fnv>;

/// The state of the hash.
#[derive(Clone, Copy)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        let raw = |text: &str| {
            let mut state = Fnv::default();
            state.write(text.as_bytes());
            state.0
        };
        // Test vectors of the FNV draft.
        assert_eq!(raw(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(raw("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(raw("foobar"), 0x8594_4171_f739_67e8);
        // The finaliser, from MurmurHash3's fmix64(1).
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c);
        assert_eq!(hash(b"foobar"), mix(0x8594_4171_f739_67e8));
    }
}
