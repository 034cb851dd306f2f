//! What a worker runs, and what waits there in line. The scheduler and the worker follow the same rule, so that the
//! scheduler's books say what the worker does.

use super::Needs;
use std::collections::{BTreeMap, VecDeque};

/// The attempts that a worker was given: those that run, and a line of those that run as soon as there is room.
///
/// The rule: the first in line starts when its cores and its memory are free; nobody overtakes, but for those who need
/// neither. So the order in which attempts come and end decides who runs, however the two interleave. Devices play
/// no part: the scheduler gives them to an attempt before it sends it.
#[derive(Clone, Debug)]
pub struct Lane<T> {
    has: Room,
    free: Room,
    running: BTreeMap<T, Room>,
    waiting: VecDeque<(T, Room)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    millicores: u64,
    memory: u64,
}

impl Room {
    fn of(needs: &Needs) -> Self {
        Self { millicores: needs.millicores, memory: needs.memory }
    }

    fn fits(&self, needs: &Self) -> bool {
        needs.millicores <= self.millicores && needs.memory <= self.memory
    }
}

impl<T: Copy + Ord> Lane<T> {
    /// The empty lane of a worker with so many thousandths of a core and so many bytes of memory.
    pub fn new(millicores: u64, memory: u64) -> Self {
        let has = Room { millicores, memory };
        Self { has, free: has, running: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Puts an attempt at the end of the line, and says whether it can ever run here; if not, it is not taken.
    /// [`Lane::start_next`] says who starts.
    #[must_use]
    pub fn push(&mut self, attempt: T, needs: &Needs) -> bool {
        let room = Room::of(needs);
        if !self.has.fits(&room) {
            return false;
        }
        // Who needs nothing is in nobody's way.
        if room == Room::default() {
            self.waiting.push_front((attempt, room))
        } else {
            self.waiting.push_back((attempt, room))
        }
        true
    }

    /// The next attempt that starts now, if any. Ask until there is none, after each push and each end.
    pub fn start_next(&mut self) -> Option<T> {
        let (attempt, needs) = self.waiting.pop_front_if(|(_, needs)| self.free.fits(needs))?;
        self.free.millicores -= needs.millicores;
        self.free.memory -= needs.memory;
        self.running.insert(attempt, needs);
        Some(attempt)
    }

    /// Whether an attempt that is put in line now would start at once.
    pub fn has_room(&self, needs: &Needs) -> bool {
        let room = Room::of(needs);
        room == Room::default() || self.waiting.is_empty() && self.free.fits(&room)
    }

    /// An attempt that ran or waited is gone; whether there was one.
    pub fn end(&mut self, attempt: T) -> bool {
        if let Some(needs) = self.running.remove(&attempt) {
            self.free.millicores += needs.millicores;
            self.free.memory += needs.memory;
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|(other, _)| *other != attempt);
        self.waiting.len() < before
    }

    /// Whether an attempt runs, rather than waits.
    pub fn runs(&self, attempt: T) -> bool {
        self.running.contains_key(&attempt)
    }

    /// Who runs, in the order of their names.
    pub fn running(&self) -> impl ExactSizeIterator<Item = T> {
        self.running.keys().copied()
    }

    /// Who waits, first to last.
    pub fn waiting(&self) -> impl DoubleEndedIterator<Item = T> + ExactSizeIterator {
        self.waiting.iter().map(|(attempt, _)| *attempt)
    }

    /// The thousandths of a core that nobody uses.
    pub fn free_millicores(&self) -> u64 {
        self.free.millicores
    }

    /// The bytes of memory that nobody uses.
    pub fn free_memory(&self) -> u64 {
        self.free.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needs(millicores: u64) -> Needs {
        Needs { millicores, ..Needs::default() }
    }

    fn start(lane: &mut Lane<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lane.start_next()).collect()
    }

    #[test]
    fn nobody_overtakes_but_who_needs_nothing() {
        let mut lane = Lane::new(2000, 0);
        assert!(lane.push(1, &needs(1000)) && lane.push(2, &needs(2000)) && lane.push(3, &needs(1000)));
        assert_eq!(start(&mut lane), [1]);
        assert!(lane.push(4, &needs(0)));
        assert_eq!(start(&mut lane), [4]);
        assert!(!lane.has_room(&needs(1000)), "2 is before it");
        assert!(lane.end(1));
        assert_eq!(start(&mut lane), [2]);
        assert!(lane.end(2) && !lane.end(2));
        assert_eq!(start(&mut lane), [3]);
        assert!(!lane.push(5, &needs(2001)), "it never fits");
    }

    proptest! {
        /// The scheduler hears of ends later than they happen. Its books still come to what the worker does.
        #[test]
        fn it_does_not_matter_how_pushes_and_ends_interleave(
            attempts in prop::collection::vec((0u64..5, 1usize..8), 1..60),
        ) {
            let mut worker = Lane::new(4, 0);
            let mut books = Lane::new(4, 0);
            let mut late: VecDeque<u32> = VecDeque::new();
            for (at, (millicores, lag)) in attempts.into_iter().enumerate() {
                let at = at as u32;
                prop_assert!(worker.push(at, &needs(millicores)) && books.push(at, &needs(millicores)));
                start(&mut worker);
                start(&mut books);
                // Somebody ends at the worker; the scheduler hears some of the ends so far.
                let first = worker.running().next();
                if let Some(ended) = first {
                    worker.end(ended);
                    start(&mut worker);
                    late.push_back(ended);
                }
                while late.len() > lag {
                    books.end(late.pop_front().unwrap());
                    start(&mut books);
                }
            }
            for ended in late {
                books.end(ended);
                start(&mut books);
            }
            prop_assert!(worker.running().eq(books.running()));
            prop_assert!(worker.waiting().eq(books.waiting()));
        }
    }
}
