//! The different values of a column that is seen piece by piece.

use crate::train::target::Classes;
use ropeway_framework::{Error, Result};
use std::collections::BTreeMap;

/// Which values occurred, and how often. Each has a number, in the order in which they were first seen.
pub(super) struct Tally {
    seen: Seen,
    rows: Vec<usize>,
}

enum Seen {
    Integers(BTreeMap<i64, u32>),
    Texts(BTreeMap<String, u32>),
    Booleans,
}

/// Values in order.
pub(super) struct Tallied {
    pub(super) classes: Classes,
    /// How many rows each has.
    pub(super) rows: Vec<usize>,
    /// The place of what was seen first, second, ...
    pub(super) places: Vec<u32>,
}

impl Tally {
    /// For values like these; none of them is counted yet.
    pub(super) fn like(classes: &Classes) -> Self {
        match classes {
            Classes::Integers(_) => Self { seen: Seen::Integers(BTreeMap::new()), rows: Vec::new() },
            Classes::Texts(_) => Self { seen: Seen::Texts(BTreeMap::new()), rows: Vec::new() },
            Classes::Booleans => Self { seen: Seen::Booleans, rows: vec![0; 2] },
        }
    }

    /// Counts values that occur so often; gives their numbers.
    ///
    /// # Errors
    /// They are of another type than those before.
    pub(super) fn add(&mut self, classes: &Classes, rows: &[usize]) -> Result<Vec<u32>> {
        let mut next = self.rows.len() as u32;
        let mut new = || {
            next += 1;
            next - 1
        };
        let numbers: Vec<u32> = match (&mut self.seen, classes) {
            (Seen::Integers(seen), Classes::Integers(values)) => {
                values.iter().map(|value| *seen.entry(*value).or_insert_with(&mut new)).collect()
            }
            (Seen::Texts(seen), Classes::Texts(values)) => {
                values.iter().map(|value| *seen.entry(value.clone()).or_insert_with(&mut new)).collect()
            }
            (Seen::Booleans, Classes::Booleans) => vec![0, 1],
            _ => return Err(Error::new("it is of another type than in the parts before")),
        };
        self.rows.resize(next as usize, 0);
        numbers.iter().zip(rows).for_each(|(number, rows)| self.rows[*number as usize] += rows);
        Ok(numbers)
    }

    /// All that was seen, sorted.
    pub(super) fn done(self) -> Tallied {
        let (classes, numbers): (Classes, Vec<u32>) = match self.seen {
            Seen::Integers(seen) => {
                let (values, numbers) = seen.into_iter().unzip();
                (Classes::Integers(values), numbers)
            }
            Seen::Texts(seen) => {
                let (values, numbers) = seen.into_iter().unzip();
                (Classes::Texts(values), numbers)
            }
            Seen::Booleans => (Classes::Booleans, vec![0, 1]),
        };
        let mut places = vec![0; numbers.len()];
        numbers.iter().enumerate().for_each(|(place, number)| places[*number as usize] = place as u32);
        let rows = numbers.iter().map(|number| self.rows[*number as usize]).collect();
        Tallied { classes, rows, places }
    }
}
