//! Order: who comes before whom, what is below, what is needed.

use super::{Pipeline, Source};
use crate::{Error, Result, nearest};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Puts nodes in topological order; of those that could come next, the one with the smallest number does.
///
/// `dependencies[n]` are the nodes that must come before `n`.
///
/// # Errors
/// The cycles, none of which share a node: each begins with its smallest node, and every node depends on the next
/// one, the last on the first.
pub(super) fn order(dependencies: &[Vec<usize>]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let count = dependencies.len();
    let mut waits: Vec<BTreeSet<usize>> =
        dependencies.iter().map(|before| before.iter().copied().filter(|node| *node < count).collect()).collect();
    let mut dependents = vec![Vec::new(); count];
    for (node, before) in waits.iter().enumerate() {
        for other in before {
            dependents[*other].push(node);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..count).filter(|node| waits[*node].is_empty()).map(Reverse).collect();
    let mut placed = vec![false; count];
    let mut order = Vec::with_capacity(count);
    let mut cycles = Vec::new();
    loop {
        while let Some(Reverse(node)) = ready.pop() {
            if std::mem::replace(&mut placed[node], true) {
                continue;
            }
            order.push(node);
            for dependent in &dependents[node] {
                waits[*dependent].remove(&node);
                if waits[*dependent].is_empty() {
                    ready.push(Reverse(*dependent));
                }
            }
        }
        // Every node that is left waits for one that is left, so following them leads into a cycle.
        let Some(start) = (0..count).find(|node| !placed[*node]) else { break };
        let mut path = vec![start];
        let cycle = loop {
            let last = path.last().copied().unwrap_or(start);
            let Some(next) = waits[last].first().copied() else { break vec![last] };
            match path.iter().position(|node| *node == next) {
                Some(position) => break path.split_off(position),
                None => path.push(next),
            }
        };
        // Going on as if the cycle were not there finds the other ones.
        for node in &cycle {
            waits[*node].clear();
            ready.push(Reverse(*node));
        }
        cycles.push(smallest_first(cycle));
    }
    if cycles.is_empty() { Ok(order) } else { Err(cycles) }
}

fn smallest_first(mut cycle: Vec<usize>) -> Vec<usize> {
    let smallest = cycle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(index, _)| index);
    cycle.rotate_left(smallest);
    cycle
}

impl Source {
    /// The stages that it names.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        let (outputs, template) = match self {
            Source::Outputs(outputs) => (outputs.as_slice(), None),
            Source::Template(node) => (&[][..], Some(*node)),
        };
        outputs.iter().map(|(node, _)| *node).chain(template)
    }
}

impl Pipeline {
    /// The number of a stage.
    pub fn index(&self, stage: &str) -> Option<usize> {
        self.stages.iter().position(|node| node.name == stage)
    }

    /// The stages whose results must be there before a stage can start: its inputs, and those of its templates.
    pub fn dependencies(&self, node: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut templates = vec![node];
        let mut seen = BTreeSet::from([node]);
        while let Some(node) = templates.pop() {
            for source in self.stages.get(node).iter().flat_map(|node| node.inputs.values()) {
                match source {
                    Source::Outputs(outputs) => found.extend(outputs.iter().map(|(node, _)| *node)),
                    Source::Template(template) if seen.insert(*template) => templates.push(*template),
                    Source::Template(_) => {}
                }
            }
        }
        found
    }

    /// The stages below a stage: those whose result may change when it changes. It is not among them.
    pub fn downstream(&self, node: usize) -> BTreeSet<usize> {
        let mut below = BTreeSet::from([node]);
        // Stages are in topological order, so one pass finds all.
        for (index, stage) in self.stages.iter().enumerate() {
            if stage.inputs.values().flat_map(Source::nodes).any(|before| below.contains(&before)) {
                below.insert(index);
            }
        }
        below.remove(&node);
        below
    }

    /// The stages to run so that the named ones have results: they themselves and all they depend on.
    /// A stage that is only a template of another is not among them, unless it is named.
    ///
    /// # Errors
    /// A name that is no stage.
    pub fn needed_for<S: AsRef<str>>(&self, names: &[S]) -> Result<BTreeSet<usize>> {
        let mut left = Vec::new();
        for name in names.iter().map(AsRef::as_ref) {
            let index = self.index(name).ok_or_else(|| {
                let error = Error::usage(format!("there is no stage `{name}`"));
                let known: Vec<&str> = self.stages.iter().map(|node| node.name.as_str()).collect();
                match nearest(name, known.iter().copied()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help(format!("the stages are {}", known.join(", "))),
                }
            })?;
            left.push(index);
        }
        let mut needed = BTreeSet::new();
        while let Some(node) = left.pop() {
            if needed.insert(node) {
                left.extend(self.dependencies(node));
            }
        }
        Ok(needed)
    }

    /// The stages that a whole run runs: all but those that are only templates of others.
    pub fn to_run(&self) -> BTreeSet<usize> {
        (0..self.stages.len()).filter(|node| !self.stages[*node].template_only).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_keep_their_order() {
        assert_eq!(order(&[vec![2], vec![], vec![], vec![0, 1]]).unwrap(), [1, 2, 0, 3]);
    }

    #[test]
    fn every_separate_cycle_is_found() {
        let cycles = order(&[vec![1], vec![0], vec![1], vec![3], vec![2]]).unwrap_err();
        assert_eq!(cycles, [vec![0, 1], vec![3]]);
    }

    fn edges(nodes: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec((0..nodes, 0..nodes), 0..nodes * 3)
    }

    proptest! {
        #[test]
        fn graphs_without_cycles_are_ordered(edges in edges(24), names in Just((0..24).collect::<Vec<usize>>()).prop_shuffle()) {
            let mut dependencies = vec![Vec::new(); 24];
            for (a, b) in edges.into_iter().filter(|(a, b)| a != b) {
                dependencies[names[a.max(b)]].push(names[a.min(b)]);
            }
            let order = order(&dependencies).unwrap();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..24).collect::<Vec<_>>());
            let position = |node: usize| order.iter().position(|other| *other == node).unwrap();
            for (node, before) in dependencies.iter().enumerate() {
                for other in before {
                    prop_assert!(position(*other) < position(node));
                }
            }
            // No node could have come before one with a greater number that stands before it.
            for (at, node) in order.iter().enumerate() {
                let ready = |other: usize| dependencies[other].iter().all(|before| position(*before) < at);
                prop_assert!((0..*node).all(|other| position(other) < at || !ready(other)));
            }
        }

        #[test]
        fn graphs_with_a_cycle_are_refused(edges in edges(16), length in 1..8usize) {
            let mut dependencies = vec![Vec::new(); 16];
            for (a, b) in edges {
                dependencies[a].push(b);
            }
            for (node, before) in dependencies.iter_mut().take(length).enumerate() {
                before.push((node + 1) % length);
            }
            let cycles = order(&dependencies).unwrap_err();
            let mut seen = BTreeSet::new();
            for cycle in cycles {
                prop_assert_eq!(cycle.first(), cycle.iter().min());
                for (node, next) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
                    prop_assert!(dependencies[*node].contains(next));
                    prop_assert!(seen.insert(*node));
                }
            }
        }
    }
}
