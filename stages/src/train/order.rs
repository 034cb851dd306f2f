//! In which order the rows of an epoch come.
//!
//! It is computed from the seed, the epoch, the sizes of the parts, the batch and the buffer, and from nothing else: so a
//! training goes on at any step without looking at the rows before it, and all who train together know which rows are
//! whose without reading them.

use super::sampler::{Draws, Sampler};
use super::shuffle::Shuffle;
use rand::seq::SliceRandom;
use ropeway_framework::stage::Seed;
use ropeway_framework::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// Rows of a buffer where the pipeline does not say how many.
const BUFFER: usize = 16_384;

/// The order of the rows of a training part, which may itself come in parts. Rows are numbered over all of them, from 0.
///
/// An epoch is cut into windows, each of as many whole steps as the buffer has rows for. Each epoch takes the parts in
/// another order, and each window mixes the rows that fall into it. If one window takes them all, there is nothing for
/// the parts to do: then the order is that of the same rows in one piece.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The rows of each part.
    parts: Arc<[Range<u32>]>,
    /// How often rows are taken, if not once each.
    sampler: Option<Arc<Sampler>>,
    batch: usize,
    /// Steps of a window, at most.
    window: usize,
    shuffled: bool,
}

/// The rows of one epoch, window by window.
pub(super) struct Epoch {
    order: Order,
    chance: Seed,
    epoch: u64,
    walk: Walk,
    window: Window,
}

/// Some steps of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Window {
    pub(super) steps: Range<usize>,
    /// The parts that its rows are of, in the order in which the epoch takes them.
    pub(super) parts: Vec<usize>,
    /// The rows of all its steps, in their order.
    pub(super) rows: Vec<u32>,
}

/// Where an epoch stands in the parts that it walks through.
struct Walk {
    /// The parts that are left, the next one last.
    parts: Vec<usize>,
    part: usize,
    rows: Range<u32>,
    draws: Option<Draws>,
    /// How often the row before must still be taken.
    again: usize,
}

impl Order {
    /// The order of rows in one piece: mixed over all of them, or as far as a buffer reaches.
    ///
    /// # Errors
    /// More rows than can be numbered.
    pub(super) fn whole(rows: usize, batch: usize, shuffle: Shuffle) -> Result<Self> {
        Self::new(&[rows], batch, shuffle, usize::MAX)
    }

    /// The order of rows in parts of these sizes.
    ///
    /// # Errors
    /// As [`Order::whole`].
    pub(super) fn in_parts(sizes: &[usize], batch: usize, shuffle: Shuffle) -> Result<Self> {
        Self::new(sizes, batch, shuffle, BUFFER)
    }

    fn new(sizes: &[usize], batch: usize, shuffle: Shuffle, most: usize) -> Result<Self> {
        let mut parts = Vec::with_capacity(sizes.len());
        let mut first = 0u32;
        for size in sizes {
            let end = u32::try_from(*size).ok().and_then(|size| first.checked_add(size));
            let end = end.ok_or_else(|| Error::new(format!("there are more than {} rows to train on", u32::MAX)))?;
            parts.push(first..end);
            first = end;
        }
        let (shuffled, buffer) = match shuffle {
            // Which rows a window has makes no difference then.
            Shuffle::Switch(false) => (false, BUFFER),
            Shuffle::Switch(true) => (true, most),
            Shuffle::Buffer(buffer) => (true, buffer.buffer.get()),
        };
        Ok(Self { parts: parts.into(), sampler: None, batch, window: buffer.div_ceil(batch).max(1), shuffled })
    }

    /// The same, with rows that are taken as often as a sampler says.
    pub(super) fn drawn(self, sampler: Sampler) -> Self {
        Self { sampler: Some(Arc::new(sampler)), ..self }
    }

    /// Rows a step.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Rows of an epoch.
    pub(super) fn rows(&self) -> usize {
        match &self.sampler {
            Some(sampler) => sampler.rows(),
            None => self.parts.last().map_or(0, |part| part.end as usize),
        }
    }

    /// Steps of an epoch. The last one takes what is left.
    pub(super) fn steps(&self) -> usize {
        self.rows().div_ceil(self.batch)
    }

    /// How many rows a step takes.
    pub(super) fn rows_of(&self, step: usize) -> usize {
        self.batch.min(self.rows().saturating_sub(step * self.batch))
    }

    /// The rows of an epoch.
    pub(super) fn epoch(&self, chance: &Seed, epoch: u64) -> Epoch {
        let mut parts: Vec<usize> = (0..self.parts.len()).collect();
        if self.shuffled && self.window < self.steps() {
            parts.shuffle(&mut chance.rng(&format!("shuffle/epoch-{epoch}/parts")));
        }
        parts.reverse();
        let draws = self.sampler.as_ref().map(|sampler| sampler.draws(chance, epoch));
        let walk = Walk { parts, part: 0, rows: 0..0, draws, again: 0 };
        Epoch { order: self.clone(), chance: chance.clone(), epoch, walk, window: Window::default() }
    }
}

impl Epoch {
    /// The rows of a step, in their order. Steps before those that were asked for are gone.
    pub(super) fn step(&mut self, step: usize) -> &[u32] {
        let batch = self.order.batch;
        let window = self.window(step);
        let first = step.saturating_sub(window.steps.start) * batch;
        window.rows.get(first..window.rows.len().min(first + batch)).unwrap_or_default()
    }

    /// The window with a step.
    pub(super) fn window(&mut self, step: usize) -> &Window {
        let steps = self.order.steps();
        while self.window.steps.end <= step && self.window.steps.end < steps {
            let first = self.window.steps.end;
            self.window.steps = first..steps.min(first.saturating_add(self.order.window));
            let rows = self.window.steps.len().saturating_mul(self.order.batch);
            self.walk.take(&self.order, rows.min(self.order.rows() - first * self.order.batch), &mut self.window);
            if self.order.shuffled && step < self.window.steps.end {
                self.mix();
            }
        }
        &self.window
    }

    fn mix(&mut self) {
        let epoch = self.epoch;
        // An epoch of one window is mixed like rows in one piece always were.
        let purpose = match self.order.window < self.order.steps() {
            true => format!("shuffle/epoch-{epoch}/step-{}", self.window.steps.start),
            false => format!("shuffle/epoch-{epoch}"),
        };
        self.window.rows.shuffle(&mut self.chance.rng(&purpose));
    }
}

impl Walk {
    /// Takes the next rows, as they lie.
    fn take(&mut self, order: &Order, count: usize, window: &mut Window) {
        window.parts.clear();
        window.rows.clear();
        while window.rows.len() < count {
            if self.again > 0 {
                let taken = self.again.min(count - window.rows.len());
                self.again -= taken;
                self.add(window, std::iter::repeat_n(self.rows.start - 1, taken));
                continue;
            }
            if self.rows.is_empty() {
                let Some(part) = self.parts.pop() else { return };
                (self.part, self.rows) = (part, order.parts[part].clone());
                continue;
            }
            if let Some(draws) = &mut self.draws {
                self.again = draws.next(self.rows.start);
                self.rows.start += 1;
                continue;
            }
            let taken = (count - window.rows.len()).min(self.rows.len()) as u32;
            self.add(window, self.rows.start..self.rows.start + taken);
            self.rows.start += taken;
        }
    }

    fn add(&self, window: &mut Window, rows: impl Iterator<Item = u32>) {
        if window.parts.last() != Some(&self.part) {
            window.parts.push(self.part);
        }
        window.rows.extend(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shuffle::ShuffleBuffer;
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    fn through(buffer: usize) -> Shuffle {
        Shuffle::Buffer(ShuffleBuffer { buffer: NonZeroUsize::new(buffer).unwrap() })
    }

    fn chance() -> Seed {
        Seed::new(7, "train")
    }

    /// The rows of an epoch, step by step, from one on.
    fn steps(order: &Order, epoch: u64, from: usize) -> Vec<Vec<u32>> {
        let mut epoch = order.epoch(&chance(), epoch);
        (from..order.steps()).map(|step| epoch.step(step).to_vec()).collect()
    }

    proptest! {
        #[test]
        fn an_epoch_has_every_row_once_and_goes_on_from_any_step(
            sizes in prop::collection::vec(0..40usize, 1..9), batch in 1..20usize, buffer in 1..200usize, from in 0..30usize,
        ) {
            let order = Order::in_parts(&sizes, batch, through(buffer)).unwrap();
            let all = steps(&order, 3, 0);
            let lengths: Vec<usize> = all.iter().map(Vec::len).collect();
            prop_assert_eq!(&lengths, &(0..order.steps()).map(|step| order.rows_of(step)).collect::<Vec<_>>());
            let from = from.min(order.steps());
            prop_assert_eq!(&all[from..], &steps(&order, 3, from)[..]);
            let mut rows = all.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..sizes.iter().sum::<usize>() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn an_epoch_of_draws_has_them_in_any_windows_and_goes_on_from_any_step(
            sizes in prop::collection::vec(0..40usize, 1..6), batch in 1..20usize, buffer in 1..200usize, from in 0..30usize,
        ) {
            let rows = sizes.iter().sum::<usize>() as u32;
            let classes: Vec<u32> = (0..rows).map(|row| u32::from(row % 7 == 3) + u32::from(row % 29 == 3)).collect();
            let mut counts = vec![0usize; 3];
            classes.iter().for_each(|class| counts[*class as usize] += 1);
            let sampler = || Sampler::new(Arc::new(classes.iter().copied().collect()), &counts);
            let order = Order::in_parts(&sizes, batch, through(buffer)).unwrap().drawn(sampler());
            let all = steps(&order, 3, 0);
            let from = from.min(order.steps());
            prop_assert_eq!(&all[from..], &steps(&order, 3, from)[..]);
            let mut times = vec![0usize; rows as usize];
            all.concat().iter().for_each(|row| times[*row as usize] += 1);
            let most = counts.iter().max().copied().unwrap();
            for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let times = || times.iter().zip(&classes).filter(|(_, of)| **of as usize == class).map(|(times, _)| *times);
                prop_assert_eq!(times().sum::<usize>(), most);
                prop_assert!(times().all(|times| (most / count..=most.div_ceil(*count)).contains(&times)));
            }
            let whole = Order::whole(rows as usize, batch, Shuffle::Switch(true)).unwrap().drawn(sampler());
            let parts = Order::in_parts(&sizes, batch, through(order.rows().max(1))).unwrap().drawn(sampler());
            prop_assert_eq!(steps(&parts, 1, 0), steps(&whole, 1, 0));
        }

        #[test]
        fn one_window_does_not_know_the_parts(sizes in prop::collection::vec(0..40usize, 1..9), batch in 1..20usize) {
            let rows = sizes.iter().sum::<usize>();
            let whole = Order::whole(rows, batch, Shuffle::Switch(true)).unwrap();
            for buffer in [rows.max(1), rows + 7] {
                let parts = Order::in_parts(&sizes, batch, through(buffer)).unwrap();
                prop_assert_eq!(steps(&parts, 5, 0), steps(&whole, 5, 0));
            }
        }

        #[test]
        fn rows_that_are_not_mixed_come_as_they_are(sizes in prop::collection::vec(0..40usize, 1..9), batch in 1..20usize) {
            let order = Order::in_parts(&sizes, batch, Shuffle::Switch(false)).unwrap();
            prop_assert_eq!(steps(&order, 1, 0).concat(), (0..order.rows() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn a_window_names_the_parts_of_its_rows(sizes in prop::collection::vec(0..40usize, 1..9), buffer in 1..99usize) {
            let order = Order::in_parts(&sizes, 5, through(buffer)).unwrap();
            let mut epoch = order.epoch(&chance(), 0);
            let mut step = 0;
            while step < order.steps() {
                let window = epoch.window(step).clone();
                let part = |row: &u32| order.parts.iter().position(|part| part.contains(row)).unwrap();
                let mut found: Vec<usize> = window.rows.iter().map(part).collect();
                found.sort_unstable();
                found.dedup();
                let mut named = window.parts;
                named.sort_unstable();
                prop_assert_eq!(named, found);
                step = window.steps.end;
            }
        }
    }

    #[test]
    fn epochs_seeds_and_windows_are_mixed_each_in_its_own_way() {
        let order = Order::in_parts(&[300, 500, 200], 10, through(100)).unwrap();
        let first = steps(&order, 0, 0);
        assert!(first == steps(&order, 0, 0) && first != steps(&order, 1, 0));
        let mut other = order.epoch(&Seed::new(8, "train"), 0);
        assert_ne!(other.step(0), first[0]);
        let places = |rows: &[Vec<u32>]| -> Vec<u32> {
            let rows = rows.concat();
            let least = rows.iter().min().copied().unwrap();
            rows.iter().map(|row| row - least).collect()
        };
        assert_ne!(places(&first[..10]), places(&first[10..20]));
        // Rows come from no further away than the buffer reaches.
        assert!(places(&first[..10]).iter().all(|row| *row < 100));
        assert!(Order::whole(1 << 33, 10, Shuffle::Switch(true)).unwrap_err().to_string().contains("4294967295"));
    }
}
