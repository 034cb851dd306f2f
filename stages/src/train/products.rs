//! The gradient of a network's step of which the large part is computed where it is used.

use super::gradient::{Gradient, PIECE, Room, Shards};
use super::network::Workspace;
use super::network::matrices::WeightMatrix;
use super::phases::Phases;
use std::ops::Range;
use std::time::Duration;

/// The gradient of a step whose shards have gone backward through the network, but for the gradients of its matrices:
/// they never lie in memory, and move none.
pub(super) struct Products<'a> {
    pub(super) matrices: &'a [WeightMatrix],
    /// By shard, what its pass has left; nothing for a shard without rows.
    pub(super) passes: Vec<Option<&'a Workspace>>,
    /// The gradients of everything else.
    pub(super) others: Shards<'a>,
}

impl Products<'_> {
    fn matrix(&self, at: usize) -> Option<&WeightMatrix> {
        self.matrices.iter().find(|matrix| matrix.place.contains(&at))
    }
}

impl Gradient for Products<'_> {
    fn piece(&self, start: usize, end: usize) -> usize {
        match self.matrix(start) {
            Some(matrix) => matrix.piece(start, end, PIECE),
            None => {
                let next = self.matrices.iter().map(|matrix| matrix.place.start).find(|next| *next > start);
                self.others.piece(start, end.min(next.unwrap_or(end)))
            }
        }
    }

    fn values<'r>(&'r self, piece: Range<usize>, room: &'r mut Room) -> &'r [f32] {
        let Some(matrix) = self.matrix(piece.start) else { return self.others.values(piece, room) };
        let (rows, within) = matrix.rows(&piece);
        sum(matrix, &self.passes, &rows, &mut room[..matrix.values(&rows)]);
        &room[within]
    }

    fn phase<'p>(&self, phases: &'p mut Phases) -> &'p mut Duration {
        &mut phases.backward
    }
}

/// The tree over the shards: neighbours first.
fn sum(matrix: &WeightMatrix, passes: &[Option<&Workspace>], rows: &Range<usize>, out: &mut [f32]) {
    let (left, right) = match passes {
        [] | [None] => return out.fill(0.0),
        [Some(pass)] => return matrix.gradient(pass, rows, false, out),
        _ => passes.split_at(passes.len() / 2),
    };
    sum(matrix, left, rows, out);
    if let [Some(pass)] = right
        && matrix.adds_whole(pass, rows)
    {
        return matrix.gradient(pass, rows, true, out);
    }
    let mut other: Room = [0.0; PIECE];
    let other = &mut other[..out.len()];
    sum(matrix, right, rows, other);
    out.iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::columns::{Features, columns};
    use crate::train::engine::{Examples, NetworkEngine, Target};
    use crate::train::fit::Engine;
    use crate::train::gradient::tests::collected;
    use crate::train::lesson::Training;
    use crate::train::loss::Objective;
    use crate::train::network::{Field, Network};
    use crate::train::pool::Pool;
    use arrow::array::{ArrayRef, Float32Array};
    use rand::RngExt;
    use ropeway_framework::data::Frame;
    use ropeway_framework::stage::Seed;
    use serde_json::json;
    use std::sync::Arc;

    const ROWS: usize = 40;

    fn examples(width: usize) -> Examples {
        let mut rng = Seed::new(5, "products").rng("features");
        let column =
            |_| -> ArrayRef { Arc::new((0..ROWS).map(|_| Some(rng.random::<f32>() - 0.5)).collect::<Float32Array>()) };
        let arrays: Vec<ArrayRef> = (0..width).map(column).collect();
        let names: Vec<String> = (0..width).map(|index| format!("x{index}")).collect();
        let frame = Frame::from_columns(names.iter().map(String::as_str).zip(arrays)).unwrap();
        let features = Features::read(&frame, &columns(&frame, "label").unwrap(), 1).unwrap();
        Examples { features, target: Target::Classes((0..ROWS as u32).map(|row| row % 3).collect()) }
    }

    /// Bits, so that nothing is equal to another zero.
    fn all(gradient: &dyn Gradient, count: usize, part: usize) -> Vec<u32> {
        collected(gradient, count, part).into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn computed_where_it_is_used_or_before_a_gradient_has_the_same_bits() {
        let specs = [
            (json!({"softmax": {}}), 7),
            (json!({"mlp": {"hidden": [37, 12], "dropout": 0.3}}), 9),
            (json!({"mlp": {"hidden": [130, 2, 40], "activation": "tanh"}}), 61),
            (json!({"mlp": {"hidden": [1, 8]}}), 1),
            (json!({"cnn": {"input": [1, 4, 4], "channels": [3], "hidden": [20]}}), 16),
        ];
        for (spec, width) in specs {
            let spec = serde_json::from_value(spec).unwrap();
            let network = Network::new(&spec, &[Field::numbers(width)], 3).unwrap();
            let (examples, pool, chance) = (examples(width), Pool::new(2).unwrap(), Seed::new(2, "products"));
            let (count, weights) = (network.parameters(), network.initial(&chance));
            for shards in [2, 3, 8] {
                // So few rows that shards have one each, or none.
                for rows in [ROWS, 33, 8, 5] {
                    let rows: Vec<u32> = (0..rows as u32).rev().collect();
                    let engine = || {
                        NetworkEngine::new(
                            &network,
                            Objective::CrossEntropy,
                            (Training::Whole(&examples), None),
                            shards,
                            &pool,
                        )
                    };
                    let mut early = engine();
                    for shard in 0..shards {
                        early.gradients(&weights, &rows, &chance, shard..shard + 1).unwrap();
                    }
                    let expected = all(&Shards(early.computed()), count, count);
                    let mut late = engine();
                    late.gradients(&weights, &rows, &chance, 0..shards).unwrap();
                    for part in [count, 1000, 77] {
                        assert!(
                            all(&*late.gradient(), count, part) == expected,
                            "{spec:?} {shards} {} {part}",
                            rows.len()
                        );
                    }
                }
            }
        }
    }
}
