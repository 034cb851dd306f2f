//! Grown trees: their nodes, applied and kept.

use crate::train::columns::Features;
use crate::train::pool::Pool;
use ropeway_framework::data::{Tensor, Tensors};
use ropeway_framework::{Context, Error, Result};

/// The feature of a node that has none.
pub(super) const LEAF: i32 = -1;

/// Rows that prediction looks at together.
const BLOCK: usize = 64;

/// A node: a question, or a leaf with a value. The right child comes after the left one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Node {
    pub(super) feature: i32,
    /// What is no larger goes left.
    pub(super) threshold: f32,
    pub(super) left: u32,
    pub(super) value: f32,
}

/// Trees that add up, one after the other, for each output by turns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::train) struct Forest {
    /// What every row begins with, an output each.
    pub(super) base: Vec<f32>,
    /// The first node of every tree.
    pub(super) roots: Vec<u32>,
    pub(super) nodes: Vec<Node>,
}

impl Forest {
    /// Nodes in all.
    pub(in crate::train) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The outputs of every row.
    pub(in crate::train) fn predict(&self, features: &Features, pool: &Pool) -> Vec<f32> {
        self.predict_from(&self.base, 0, features, pool)
    }

    /// What the trees from one on add to `start`, for every row.
    pub(super) fn predict_from(&self, start: &[f32], tree: usize, features: &Features, pool: &Pool) -> Vec<f32> {
        let (rows, width) = (features.rows(), features.width());
        let blocks = pool.map(rows.div_ceil(BLOCK), Vec::new, |values: &mut Vec<f32>, block| {
            let place = block * BLOCK..rows.min((block + 1) * BLOCK);
            values.resize(place.len() * width, 0.0);
            features.gather(place, values);
            values.chunks_exact(width).flat_map(|row| self.row(start, tree, row)).collect::<Vec<f32>>()
        });
        blocks.concat()
    }

    fn row(&self, start: &[f32], first: usize, row: &[f32]) -> Vec<f32> {
        let (mut outputs, count) = (start.to_vec(), start.len());
        for (tree, root) in self.roots.iter().enumerate().skip(first) {
            let mut node = self.nodes[*root as usize];
            while node.feature != LEAF {
                let right = row[node.feature as usize] > node.threshold;
                node = self.nodes[node.left as usize + usize::from(right)];
            }
            outputs[tree % count] += node.value;
        }
        outputs
    }

    /// Only the first trees.
    pub(super) fn truncate(&mut self, trees: usize) {
        if let Some(next) = self.roots.get(trees) {
            self.nodes.truncate(*next as usize);
            self.roots.truncate(trees);
        }
    }

    /// As tensors: `base`, `roots`, and for every node `feature` (-1 for a leaf), `threshold`, `left` and `value`.
    pub(in crate::train) fn tensors(&self) -> Result<Tensors> {
        fn flat<T: ropeway_framework::data::Element>(values: Vec<T>) -> Result<Tensor> {
            Tensor::from_vec(vec![values.len()], values)
        }
        let nodes = || self.nodes.iter();
        Ok(Tensors::new()
            .with("base", flat(self.base.clone())?)
            .with("roots", flat(self.roots.clone())?)
            .with("feature", flat(nodes().map(|node| node.feature).collect())?)
            .with("threshold", flat(nodes().map(|node| node.threshold).collect())?)
            .with("left", flat(nodes().map(|node| node.left).collect())?)
            .with("value", flat(nodes().map(|node| node.value).collect())?))
    }

    /// The trees of tensors, for rows of `width` values and `outputs` results each.
    ///
    /// # Errors
    /// Tensors that are no trees: a node that leads nowhere or in a circle, or asks for a feature that is not there.
    pub(in crate::train) fn read(tensors: &Tensors, width: usize, outputs: usize) -> Result<Self> {
        let base = tensors.get("base")?.values::<f32>()?.to_vec();
        let roots = tensors.get("roots")?.values::<u32>()?.to_vec();
        let (features, thresholds) =
            (tensors.get("feature")?.values::<i32>()?, tensors.get("threshold")?.values::<f32>()?);
        let (lefts, values) = (tensors.get("left")?.values::<u32>()?, tensors.get("value")?.values::<f32>()?);
        let rest = features.iter().zip(thresholds).zip(lefts).zip(values);
        let nodes: Vec<Node> = rest
            .map(|(((feature, threshold), left), value)| Node {
                feature: *feature,
                threshold: *threshold,
                left: *left,
                value: *value,
            })
            .collect();
        let lengths = [features.len(), thresholds.len(), lefts.len(), values.len()];
        let whole = lengths.iter().all(|length| *length == nodes.len());
        let count = nodes.len() as u64;
        let sound = |(place, node): (usize, &Node)| {
            let leads = node.left as usize > place && u64::from(node.left) + 1 < count;
            node.feature == LEAF || (leads && usize::try_from(node.feature).is_ok_and(|feature| feature < width))
        };
        let rooted = roots.iter().all(|root| u64::from(*root) < count);
        if !whole || !rooted || base.len() != outputs || !nodes.iter().enumerate().all(sound) {
            return Err(Error::new("the tensors are no trees of this model")).context("the model can't be read");
        }
        Ok(Self { base, roots, nodes })
    }
}
