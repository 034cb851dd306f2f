//! Every combination.

use super::{Sampler, View};
use crate::{Space, Values};
use ropeway_framework::stage::Seed;
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tries every combination of values once. Every domain must be finite; real numbers need a `step`.
///
/// The combinations come in an order that the seed scrambles, so that fewer trials than combinations still reach all
/// corners of the space. Parameters that do not matter in a combination do not multiply it. Neither the combinations
/// nor their order are kept anywhere: the point of a number is computed, however large the grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grid {}

impl Sampler for Grid {
    fn check(&self, space: &Space) -> Result<()> {
        if let Some((path, _)) = space.iter().find(|(_, parameter)| parameter.domain.size().is_none()) {
            return Err(Error::usage(format!(
                "a grid needs finite domains: give `{path}` a `step`, or make it a `choice`"
            )));
        }
        match points(space) {
            Some(_) => Ok(()),
            None => Err(Error::usage("the grid has more than 2^64 points; use another sampler")),
        }
    }

    fn limit(&self, space: &Space) -> Option<u64> {
        points(space)
    }

    fn sample(&self, view: View<'_>) -> Values {
        let size = points(view.space).unwrap_or(u64::MAX).max(1);
        point(view.space, scramble(view.index % size, size, view.seed))
    }
}

/// How many points a space has; `None` if there are 2^64 or more, or no end of them.
fn points(space: &Space) -> Option<u64> {
    let paths: Vec<&str> = space.ordered().map(|(path, _)| path).collect();
    count(space, &paths, &mut Values::new())
}

/// How many ways there are to go on from the values that are set.
fn count(space: &Space, paths: &[&str], values: &mut Values) -> Option<u64> {
    let Some((path, rest)) = paths.split_first() else { return Some(1) };
    if !space.active(path, values) {
        return count(space, rest, values);
    }
    let domain = &space.get(path)?.domain;
    let named = named(space, path);
    // No condition holds on a value that none names, so one of these stands for all.
    let mut total = match domain.size()? - named.len() as u64 {
        0 => 0,
        others => count(space, rest, values)?.checked_mul(others)?,
    };
    for position in named {
        values.insert(*path, domain.nth(position));
        total = total.checked_add(count(space, rest, values)?)?;
    }
    values.remove(path);
    Some(total)
}

/// The positions of the values of a parameter that conditions of others name, ascending.
fn named(space: &Space, path: &str) -> Vec<u64> {
    let Some(on) = space.get(path) else { return Vec::new() };
    let wanted = space.iter().filter_map(|(_, parameter)| parameter.when.get(path));
    let mut positions: Vec<u64> = wanted.filter_map(|value| on.domain.position(value)).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// The point of a number below [`points`].
fn point(space: &Space, mut index: u64) -> Values {
    let paths: Vec<&str> = space.ordered().map(|(path, _)| path).collect();
    let mut values = Values::new();
    for (place, path) in paths.iter().enumerate() {
        let Some(domain) = space.get(path).map(|parameter| &parameter.domain) else { continue };
        if !space.active(path, &values) {
            continue;
        }
        let rest = paths.get(place + 1..).unwrap_or_default();
        let named = named(space, path);
        let mut found = None;
        for &position in &named {
            values.insert(*path, domain.nth(position));
            let ways = count(space, rest, &mut values).unwrap_or(u64::MAX);
            if index < ways {
                found = Some(position);
                break;
            }
            index -= ways;
        }
        values.remove(path);
        let position = found.unwrap_or_else(|| {
            let ways = count(space, rest, &mut values).unwrap_or(u64::MAX).max(1);
            let other = index / ways;
            index %= ways;
            // The `other`-th of the positions that are not named.
            named.iter().fold(other, |position, taken| if *taken <= position { position + 1 } else { position })
        });
        values.insert(*path, domain.nth(position));
    }
    values
}

/// A permutation of `0..size` that the seed chooses: a Feistel network over the next power of four, walked until it
/// falls inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
fn scramble(index: u64, size: u64, seed: &Seed) -> u64 {
    let half = (u64::BITS - size.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let keys: [u64; 6] = std::array::from_fn(|round| seed.child("grid").number(&round.to_string()));
    let mut place = index;
    loop {
        let (mut left, mut right) = (place >> half, place & mask);
        for key in keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        place = left << half | right;
        if place < size {
            return place;
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Domain};
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn all(space: &Space) -> BTreeSet<String> {
        let seed = Seed::new(5, "study");
        let view = |index| View { space, direction: Direction::Minimize, seed: &seed, index, trials: &[] };
        let size = Grid::default().limit(space).unwrap();
        (0..size)
            .map(|index| {
                let values = Grid::default().sample(view(index));
                assert!(space.contains(&values));
                serde_json::to_string(&values).unwrap()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn scrambling_is_a_permutation(size in 1u64..700, run in any::<u64>()) {
            let seed = Seed::new(run, "study");
            let seen: BTreeSet<u64> = (0..size).map(|index| scramble(index, size, &seed)).collect();
            prop_assert_eq!(seen, (0..size).collect::<BTreeSet<_>>());
        }

        #[test]
        fn every_point_comes_once(a in 1usize..4, b in 1i64..5, wanted in 0i64..5, c in 1usize..4) {
            let space: Space = serde_json::from_value(json!({
                "a": {"choice": (0..a).collect::<Vec<_>>()},
                "b": {"int": [0, b]},
                "c": {"choice": (0..c).collect::<Vec<_>>(), "when": {"b": wanted.min(b)}},
                "d": {"choice": ["x", "y"], "when": {"c": 0}},
            }))
            .unwrap();
            let points = a * (b as usize + c + 1);
            prop_assert_eq!(all(&space).len(), points);
            prop_assert_eq!(Grid::default().limit(&space), Some(points as u64));
        }
    }

    #[test]
    fn a_plain_grid_is_the_product() {
        let step = Domain::Float { low: 0.0, high: 1.0, step: Some(0.5), log: false };
        let space = Space::new([("a", Domain::int(1, 4)), ("b", step), ("c", Domain::choice(["x", "y"]))]).unwrap();
        assert_eq!(all(&space).len(), 24);
    }

    #[test]
    fn endless_domains_are_refused() {
        let rate = Space::new([("rate", Domain::log(1e-4, 1.0))]).unwrap();
        let message = Grid::default().check(&rate).unwrap_err().to_string();
        assert_eq!(message, "a grid needs finite domains: give `rate` a `step`, or make it a `choice`");
        let vast = Space::new(["a", "b", "c"].map(|path| (path, Domain::int(0, 1 << 40)))).unwrap();
        assert!(Grid::default().check(&vast).unwrap_err().to_string().contains("2^64"));
    }
}
