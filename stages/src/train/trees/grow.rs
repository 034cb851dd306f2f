//! One tree: grown level by level, each node split where the loss falls most.

use super::bins::Binned;
use super::forest::{LEAF, Node};
use crate::train::models::Trees;
use crate::train::pool::Pool;

/// Sums over the rows of a node or of a range.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    gradient: f64,
    curvature: f64,
    rows: usize,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.gradient += other.gradient;
        self.curvature += other.curvature;
        self.rows += other.rows;
    }

    fn without(self, other: Sum) -> Sum {
        Sum {
            gradient: self.gradient - other.gradient,
            curvature: self.curvature - other.curvature,
            rows: self.rows - other.rows,
        }
    }

    /// How far the loss falls, doubled, if these rows get a value of their own.
    fn gain(self, l2: f64) -> f64 {
        if self.curvature + l2 > 0.0 { self.gradient * self.gradient / (self.curvature + l2) } else { 0.0 }
    }

    fn value(self, spec: &Trees) -> f32 {
        let curvature = self.curvature + spec.l2.get();
        if curvature > 0.0 { (-spec.rate.get() * self.gradient / curvature) as f32 } else { 0.0 }
    }
}

#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    feature: usize,
    bin: u8,
}

/// What is grown on: each row's slope of the loss and its curvature.
pub(super) struct Slopes<'a> {
    pub(super) gradient: &'a [f32],
    pub(super) curvature: &'a [f32],
}

impl Slopes<'_> {
    fn of(&self, row: u32) -> Sum {
        let row = row as usize;
        Sum { gradient: f64::from(self.gradient[row]), curvature: f64::from(self.curvature[row]), rows: 1 }
    }
}

/// Grows a tree whose nodes are numbered from `first` on, and adds each row's value to `margins`, which lie `stride`
/// apart.
pub(super) fn grow(
    spec: &Trees,
    features: &[Binned],
    slopes: &Slopes<'_>,
    first: u32,
    pool: &Pool,
    (margins, stride): (&mut [f32], usize),
) -> Vec<Node> {
    let mut nodes = vec![Node::default()];
    let mut level: Vec<(usize, Vec<u32>)> = vec![(0, (0..slopes.gradient.len() as u32).collect())];
    for depth in 0..=spec.depth.get() {
        if level.is_empty() {
            break;
        }
        let mut next = Vec::new();
        for (place, rows) in level {
            let mut whole = Sum::default();
            rows.iter().for_each(|row| whole.add(slopes.of(*row)));
            let deep = depth == spec.depth.get() || whole.rows < 2 * spec.min_rows.get();
            let split = if deep { None } else { best(spec, features, slopes, &rows, whole, pool) };
            let Some(Split { feature, bin, .. }) = split else {
                let value = whole.value(spec);
                nodes[place] = Node { feature: LEAF, threshold: 0.0, left: 0, value };
                rows.iter().for_each(|row| margins[*row as usize * stride] += value);
                continue;
            };
            let left = nodes.len();
            let threshold = features[feature].ends[usize::from(bin)];
            nodes[place] = Node { feature: feature as i32, threshold, left: first + left as u32, value: 0.0 };
            nodes.extend([Node::default(); 2]);
            let (low, high): (Vec<u32>, Vec<u32>) =
                rows.into_iter().partition(|row| features[feature].rows[*row as usize] <= bin);
            next.extend([(left, low), (left + 1, high)]);
        }
        level = next;
    }
    nodes
}

/// The best split of some rows, the first of equals; `None` if none makes the loss fall.
fn best(
    spec: &Trees,
    features: &[Binned],
    slopes: &Slopes<'_>,
    rows: &[u32],
    whole: Sum,
    pool: &Pool,
) -> Option<Split> {
    let (l2, least) = (spec.l2.get(), spec.min_rows.get());
    let splits = pool.map(
        features.len(),
        || [Sum::default(); 256],
        |bins, index| {
            let feature = &features[index];
            bins[..=feature.ends.len()].fill(Sum::default());
            rows.iter().for_each(|row| bins[usize::from(feature.rows[*row as usize])].add(slopes.of(*row)));
            let (mut low, mut best) = (Sum::default(), None::<Split>);
            for (bin, sum) in bins[..feature.ends.len()].iter().enumerate() {
                low.add(*sum);
                let high = whole.without(low);
                if low.rows < least || high.rows < least {
                    continue;
                }
                let gain = low.gain(l2) + high.gain(l2) - whole.gain(l2);
                if gain > best.map_or(spec.min_gain.get(), |best| best.gain) {
                    best = Some(Split { gain, feature: index, bin: bin as u8 });
                }
            }
            best
        },
    );
    splits.into_iter().flatten().fold(None, |best: Option<Split>, split| match best {
        Some(best) if best.gain >= split.gain => Some(best),
        _ => Some(split),
    })
}
