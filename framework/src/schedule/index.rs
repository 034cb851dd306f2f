//! Finds a worker with room among many, at a cost that does not grow with their number.

/// A tournament tree over the slots of workers. A node knows the largest of each number below it, so that whole
/// subtrees without room are passed over. Slots that were never set have zeros.
#[derive(Clone, Debug)]
pub(super) struct Index<const N: usize> {
    /// In heap order: the root is 1, the children of `i` are `2i` and `2i + 1`, and the leaves are the last half.
    nodes: Vec<[u64; N]>,
}

impl<const N: usize> Index<N> {
    pub(super) fn new() -> Self {
        Self { nodes: vec![[0; N]; 2] }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    pub(super) fn set(&mut self, slot: u32, value: [u64; N]) {
        while slot as usize >= self.leaves() {
            self.grow();
        }
        let mut at = self.leaves() + slot as usize;
        if self.nodes[at] == value {
            return;
        }
        self.nodes[at] = value;
        while at > 1 {
            at /= 2;
            let best = most(&self.nodes[2 * at], &self.nodes[2 * at + 1]);
            if self.nodes[at] == best {
                return;
            }
            self.nodes[at] = best;
        }
    }

    /// A slot that has at least `want` of each and for which `fits` holds. Where there is a choice, it goes to where
    /// there is more of the first number, then to the lower slot.
    pub(super) fn find(&self, want: &[u64; N], mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        self.descend(1, want, &mut fits)
    }

    fn descend(&self, at: usize, want: &[u64; N], fits: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        if self.nodes[at].iter().zip(want).any(|(has, want)| has < want) {
            return None;
        }
        if at >= self.leaves() {
            let slot = (at - self.leaves()) as u32;
            return fits(slot).then_some(slot);
        }
        let (left, right) = (2 * at, 2 * at + 1);
        let right_first = self.nodes[right][0] > self.nodes[left][0];
        let (first, second) = if right_first { (right, left) } else { (left, right) };
        self.descend(first, want, fits).or_else(|| self.descend(second, want, fits))
    }

    fn grow(&mut self) {
        let leaves = self.leaves();
        let mut nodes = vec![[0; N]; 4 * leaves];
        nodes[2 * leaves..3 * leaves].copy_from_slice(&self.nodes[leaves..]);
        for at in (1..2 * leaves).rev() {
            nodes[at] = most(&nodes[2 * at], &nodes[2 * at + 1]);
        }
        self.nodes = nodes;
    }
}

fn most<const N: usize>(a: &[u64; N], b: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|i| a[i].max(b[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_all_finds(
            sets in prop::collection::vec((0u32..40, [0u64..5, 0u64..5]), 0..200),
            want in [0u64..6, 0u64..6],
        ) {
            let mut index = Index::<2>::new();
            let mut plain = [[0; 2]; 64];
            for (slot, value) in sets {
                index.set(slot, value);
                plain[slot as usize] = value;
            }
            let has = |value: &[u64; 2]| value[0] >= want[0] && value[1] >= want[1];
            let found = index.find(&want, |slot| has(&plain[slot as usize]));
            prop_assert_eq!(found.is_some(), plain.iter().any(has));
        }
    }

    #[test]
    fn the_slot_with_most_is_found_first() {
        let mut index = Index::<1>::new();
        [3, 7, 5, 7].iter().enumerate().for_each(|(slot, free)| index.set(slot as u32, [*free]));
        assert_eq!(index.find(&[2], |_| true), Some(1));
        assert_eq!(index.find(&[8], |_| true), None);
    }
}
