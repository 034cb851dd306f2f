//! Class imbalance: rows of rarer classes are drawn more often.

use super::labels::Labels;
use rand::RngExt;
use ropeway_framework::stage::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is done about classes of which there are few rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Their rows are taken more often: an epoch has as many rows of every class as of the largest.
    Oversample,
}

/// How often an epoch takes each row: so that all classes have as many rows as the largest, and the rows of a class are
/// taken equally often, or once more, by chance.
///
/// It is a systematic sample (Madow and Madow, "On the Theory of Systematic Sampling", 1944): which rows are taken once
/// more is known from one number drawn for the class and from the rows of the class before, so that a walk over parts
/// needs no others.
#[derive(Debug)]
pub(super) struct Sampler {
    labels: Arc<Labels>,
    /// Rows by class.
    counts: Vec<u64>,
    most: u64,
}

/// The draws of one epoch, row by row in the order in which it walks over them.
pub(super) struct Draws {
    sampler: Arc<Sampler>,
    /// Where each class stands: rows of it that were passed, and what was drawn for it.
    classes: Vec<(u64, u64)>,
}

impl Sampler {
    /// One for rows of these classes, of which there are so many each.
    pub(super) fn new(labels: Arc<Labels>, counts: &[usize]) -> Self {
        let counts: Vec<u64> = counts.iter().map(|count| *count as u64).collect();
        let most = counts.iter().copied().max().unwrap_or(0);
        Self { labels, counts, most }
    }

    /// Rows of an epoch.
    pub(super) fn rows(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count() * self.most as usize
    }

    /// The draws of an epoch.
    pub(super) fn draws(self: &Arc<Self>, chance: &Seed, epoch: u64) -> Draws {
        let mut rng = chance.rng(&format!("balance/epoch-{epoch}"));
        let classes = self.counts.iter().map(|count| (0, rng.random_range(0..(*count).max(1)))).collect();
        Draws { sampler: self.clone(), classes }
    }
}

impl Draws {
    /// How often the next row is taken; at least once.
    pub(super) fn next(&mut self, row: u32) -> usize {
        let Sampler { labels, counts, most } = &*self.sampler;
        let class = labels.get(row as usize);
        let (passed, drawn) = &mut self.classes[class];
        // Both are below 2^32.
        let taken = |rows: u64| (rows * most + *drawn) / counts[class];
        *passed += 1;
        (taken(*passed) - taken(*passed - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_class_is_taken_as_often_as_the_largest(
            classes in prop::collection::vec(0..5u32, 1..300), seed in 0..99u64,
        ) {
            let mut counts = vec![0; 5];
            classes.iter().for_each(|class| counts[*class as usize] += 1);
            let most = counts.iter().copied().max().unwrap();
            let sampler = Arc::new(Sampler::new(Arc::new(classes.iter().copied().collect()), &counts));
            let mut draws = sampler.draws(&Seed::new(seed, "train"), 4);
            let times: Vec<usize> = (0..classes.len()).map(|row| draws.next(row as u32)).collect();
            for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let of_class: Vec<usize> =
                    times.iter().zip(&classes).filter(|(_, other)| **other as usize == class).map(|(times, _)| *times).collect();
                prop_assert_eq!(of_class.iter().sum::<usize>(), most);
                prop_assert!(of_class.iter().all(|times| *times == most / count || *times == most.div_ceil(*count)));
            }
            prop_assert_eq!(times.iter().sum::<usize>(), sampler.rows());
        }
    }

    #[test]
    fn each_epoch_draws_others() {
        let classes = (0..1030).map(|row| u32::from(row >= 1000)).collect();
        let sampler = Arc::new(Sampler::new(Arc::new(classes), &[1000, 30]));
        let once_more = |epoch| -> Vec<u32> {
            let mut draws = sampler.draws(&Seed::new(1, "train"), epoch);
            (0..1030).filter(|row| draws.next(*row) == 34).collect()
        };
        assert_eq!((once_more(0).len(), once_more(0)), (10, once_more(0)));
        assert!((1..9).any(|epoch| once_more(epoch) != once_more(0)));
    }
}
