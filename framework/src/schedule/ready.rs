//! The tasks that wait for a place.

use super::{Needs, Task, TaskId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A place in a line: higher priority first, then earlier arrival.
type Place = (Reverse<i32>, u64, TaskId);

/// Tasks that wait for a place, in order. Those of equal needs wait in one line, so that finding the next one that fits
/// costs as much as there are different needs, however many tasks wait.
#[derive(Debug, Default)]
pub(super) struct Ready {
    lines: BTreeMap<Needs, BTreeSet<Place>>,
    arrivals: u64,
    waiting: usize,
}

impl Ready {
    pub(super) fn push(&mut self, task: &Task) {
        self.arrivals += 1;
        let place = (Reverse(task.priority), self.arrivals, task.id);
        self.lines.entry(task.needs).or_default().insert(place);
        self.waiting += 1;
    }

    /// The first task that `fits` says there is room for.
    pub(super) fn pop(&mut self, fits: impl Fn(&Needs) -> bool) -> Option<TaskId> {
        let (_, line) = self
            .lines
            .iter()
            .filter(|(needs, _)| fits(needs))
            .filter_map(|(needs, line)| line.first().map(|first| (*first, *needs)))
            .min()?;
        let tasks = self.lines.get_mut(&line)?;
        let (_, _, task) = tasks.pop_first()?;
        if tasks.is_empty() {
            self.lines.remove(&line);
        }
        self.waiting -= 1;
        Some(task)
    }

    pub(super) fn remove(&mut self, id: TaskId) {
        for line in self.lines.values_mut() {
            let before = line.len();
            line.retain(|(_, _, task)| *task != id);
            self.waiting -= before - line.len();
        }
        self.lines.retain(|_, line| !line.is_empty());
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }
}
