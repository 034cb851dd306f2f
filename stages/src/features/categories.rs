//! Categories: the distinct values that the training rows have, in order.

use super::column::{NO_TEXT, Text};
use super::fixed_hash::{Fixed, hash};
use super::operation::At;
use super::params;
use arrow::array::{ArrayRef, UInt8Array};
use arrow::buffer::ScalarBuffer;
use ropeway_framework::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// More categories than that are no categories, unless the user says how many are to be kept.
const TOO_MANY: usize = 1000;

/// Categories in order, and where each stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub(super) struct Categories {
    names: Vec<String>,
    places: HashMap<String, usize, Fixed>,
}

impl From<Vec<String>> for Categories {
    fn from(names: Vec<String>) -> Self {
        let places = names.iter().cloned().zip(0..).collect();
        Self { names, places }
    }
}

impl From<Categories> for Vec<String> {
    fn from(categories: Categories) -> Self {
        categories.names
    }
}

impl Categories {
    /// Text in the order of its bytes; numbers as text (`numeric`) in the order of the numbers.
    fn sorted(mut names: Vec<String>, numeric: bool) -> Self {
        match numeric {
            true => names.sort_by_cached_key(|name| {
                // The order of floats as integers: IEEE 754's total order.
                let bits = name.parse::<f64>().unwrap_or_default().to_bits() as i64;
                bits ^ (((bits >> 63) as u64) >> 1) as i64
            }),
            false => names.sort_unstable(),
        }
        names.into()
    }

    /// Where each of some values stands; `None` for those that are no category.
    fn places(&self, values: &[String]) -> Vec<Option<usize>> {
        values.iter().map(|value| self.places.get(value).copied()).collect()
    }
}

/// The number of each row's category.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ordinal {
    categories: Categories,
}

impl Ordinal {
    pub(super) fn learn(text: Text, numeric: bool) -> Self {
        Self { categories: Categories::sorted(text.values, numeric) }
    }

    /// The numbers; `unknown` for other values, NaN for missing ones.
    pub(super) fn apply(&self, text: &Text, unknown: Option<f64>, at: At) -> Result<Vec<f64>> {
        let places = self.categories.places(&text.values);
        let number = |(row, code): (usize, &u32)| match places.get(*code as usize) {
            None => Ok(f64::NAN),
            Some(Some(place)) => Ok(*place as f64),
            Some(None) => unknown.ok_or_else(|| {
                unknown_category(text, *code, row, at)
                    .help("give such categories a number: `{ ordinal = { unknown = -1 } }`")
            }),
        };
        text.codes.iter().enumerate().map(number).collect()
    }
}

fn unknown_category(text: &Text, code: u32, row: usize, at: At) -> Error {
    let value = text.values.get(code as usize).map(String::as_str).unwrap_or_default();
    Error::usage(format!(
        "column {:?} has the value {value:?} in {}, which the training rows lack",
        at.column,
        at.row(row)
    ))
}

/// One column for each category.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OneHot {
    categories: Categories,
    /// Whether a missing value is a category.
    missing: bool,
    /// Whether any other value is an error; then the known categories without a column.
    rare: Option<Categories>,
}

impl OneHot {
    pub(super) fn learn(text: &Text, numeric: bool, wanted: &params::OneHot, column: &str) -> Result<Self> {
        let counts = text.counts();
        let mut by_count: Vec<(usize, &String)> = counts.into_iter().zip(&text.values).collect();
        by_count.sort_unstable_by_key(|(count, name)| (Reverse(*count), *name));
        let frequent = by_count.partition_point(|(count, _)| *count >= wanted.min_count);
        let kept = wanted.max.map_or(frequent, |max| frequent.min(max));
        if wanted.max.is_none() && kept > TOO_MANY {
            return Err(Error::new(format!(
                "column {column:?} has {kept} categories: one feature for each is too many"
            ))
            .help("keep the most frequent with `{ onehot = { max = 100 } }`, or use `hash`, or `drop` the column"));
        }
        let names = |part: &[(usize, &String)]| part.iter().map(|(_, name)| (*name).clone()).collect::<Vec<_>>();
        let rare =
            (wanted.unknown == params::Unknown::Error).then(|| Categories::sorted(names(&by_count[kept..]), numeric));
        let missing = text.codes.contains(&NO_TEXT);
        if kept == 0 && !missing {
            return Err(Error::new(format!("column {column:?} has no category that is frequent enough"))
                .help(format!("`min_count` is {}: lower it, or `drop` the column", wanted.min_count)));
        }
        Ok(Self { categories: Categories::sorted(names(&by_count[..kept]), numeric), missing, rare })
    }

    /// Whether a missing value is taken.
    pub(super) fn takes_missing(&self) -> bool {
        self.missing || self.rare.is_none()
    }

    /// The names of the columns: `carrier=AA`, and `carrier is null`.
    pub(super) fn names(&self, column: &str) -> Vec<String> {
        let categories = self.categories.names.iter().map(|category| format!("{column}={category}"));
        categories.chain(self.missing.then(|| format!("{column} is null"))).collect()
    }

    /// The columns.
    pub(super) fn apply(&self, text: &Text, at: At, out: &mut Vec<ArrayRef>) -> Result<()> {
        let mut places = self.categories.places(&text.values);
        let width = self.categories.names.len();
        let missing = self.missing.then_some(width);
        let known = |rare: &Categories, code: u32| {
            text.values.get(code as usize).is_none_or(|value| rare.places.contains_key(value))
        };
        if let Some(rare) = &self.rare {
            for (row, code) in text.codes.iter().enumerate() {
                let place = places.get(*code as usize).copied().unwrap_or(missing);
                if place.is_none() && *code == NO_TEXT {
                    return Err(Error::usage(format!("column {:?} is null in {}", at.column, at.row(row))).help(
                        "the training rows have no null there: add an `impute` step, or `unknown = \"ignore\"`",
                    ));
                }
                if place.is_none() && !known(rare, *code) {
                    return Err(unknown_category(text, *code, row, at)
                        .help("`unknown = \"ignore\"` gives it 0 in every column"));
                }
            }
        }
        // The place of a missing value stands behind the others.
        places.push(missing);
        out.extend(indicators(text, &places, width + usize::from(self.missing)));
        Ok(())
    }
}

/// Columns of 0 with a 1 in each row at the place of its value; `places` ends with that of a missing value.
fn indicators(text: &Text, places: &[Option<usize>], width: usize) -> Vec<ArrayRef> {
    let rows = text.codes.len();
    // One allocation for all of them: most of it is never written, and comes zeroed from the system.
    let mut flags = vec![0u8; width * rows];
    let last = places.len().saturating_sub(1);
    for (row, code) in text.codes.iter().enumerate() {
        let place = places.get((*code as usize).min(last)).copied().flatten();
        if let Some(flag) = place.and_then(|place| flags.get_mut(place * rows + row)) {
            *flag = 1;
        }
    }
    let flags = ScalarBuffer::from(flags);
    let column = |place: usize| Arc::new(UInt8Array::new(flags.slice(place * rows, rows), None)) as ArrayRef;
    (0..width).map(column).collect()
}

/// One of `buckets` columns for each row, by the hash of its value; a missing value has a hash too.
pub(super) fn hashed(text: &Text, buckets: usize) -> Vec<ArrayRef> {
    let place = |bytes: &[u8]| Some((hash(bytes) % buckets.max(1) as u64) as usize);
    let mut places: Vec<Option<usize>> = text.values.iter().map(|value| place(value.as_bytes())).collect();
    // No text holds this byte.
    places.push(place(&[0xff]));
    indicators(text, &places, buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_numbers() {
        let names = ["10", "-1", "2", "-0.5", "0", "-30"].map(str::to_owned).to_vec();
        assert_eq!(Categories::sorted(names.clone(), true).names, ["-30", "-1", "-0.5", "0", "2", "10"]);
        assert_eq!(Categories::sorted(names, false).names, ["-0.5", "-1", "-30", "0", "10", "2"]);
    }
}
