//! The tasks that wait for a place.

use super::shares::Shares;
use super::task::Place;
use super::{GroupId, Needs, RunId, TaskId, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Tasks with the same needs, in order.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) needs: Needs,
    pub(super) members: u32,
    pub(super) run: RunId,
    pub(super) group: GroupId,
    tasks: BTreeSet<Place>,
    /// Attempts that have not ended.
    pub(super) live: u64,
    /// How many attempts had been started when its first task came to be the first.
    pub(super) since: u64,
    /// How often its first task was passed over for one nearer to its inputs.
    pub(super) passed: u32,
    /// Whether the workers could ever run it, as of so many changes of the workers.
    pub(super) possible: Option<(u64, bool)>,
    /// Since when no worker could ever run it.
    pub(super) stranded: Option<Time>,
    /// Whether it is among the active ones.
    listed: bool,
}

impl Line {
    pub(super) fn first(&self) -> Option<Place> {
        self.tasks.first().copied()
    }

    /// The first tasks, of the same priority as the very first.
    pub(super) fn front(&self, most: usize) -> impl Iterator<Item = TaskId> {
        let priority = self.tasks.first().map(|(priority, ..)| *priority);
        let alike = self.tasks.iter().take(most).take_while(move |(other, ..)| Some(*other) == priority);
        alike.map(|(.., task)| *task)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Place> {
        self.tasks.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }
}

/// Where a line stands among all: the smaller is served first. Between runs their priority comes first, then the one
/// that uses least of what is its due; within a run the priority of tasks, then the group that uses least, then arrival.
type Rank = ((Reverse<i32>, u64), RunId, Reverse<i32>, u64, u64);

/// All lines. Those with the same needs, members, run and group are one, so that to find the next task that fits costs
/// as much as there are different needs, however many tasks wait.
#[derive(Debug, Default)]
pub(super) struct Lines {
    all: Vec<Line>,
    ids: BTreeMap<(Needs, u32, RunId, GroupId), u32>,
    active: Vec<u32>,
    pub(super) shares: Shares,
    waiting: usize,
}

impl Lines {
    /// How many tasks wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn id(&mut self, needs: Needs, members: u32, (run, group): (RunId, GroupId)) -> u32 {
        let next = self.all.len() as u32;
        let id = *self.ids.entry((needs, members, run, group)).or_insert(next);
        if id == next {
            let tasks = BTreeSet::new();
            self.all.push(Line {
                needs,
                members,
                run,
                group,
                tasks,
                live: 0,
                since: 0,
                passed: 0,
                possible: None,
                stranded: None,
                listed: false,
            });
        }
        id
    }

    pub(super) fn get(&self, line: u32) -> &Line {
        &self.all[line as usize]
    }

    pub(super) fn get_mut(&mut self, line: u32) -> &mut Line {
        &mut self.all[line as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Line> {
        self.all.iter()
    }

    /// The lines in which somebody waits.
    pub(super) fn active(&self) -> impl Iterator<Item = u32> {
        self.active.iter().copied().filter(|line| !self.all[*line as usize].tasks.is_empty())
    }

    pub(super) fn insert(&mut self, line: u32, place: Place, starts: u64) {
        let at = &mut self.all[line as usize];
        if at.tasks.insert(place) {
            self.waiting += 1;
        }
        if at.first() == Some(place) {
            at.since = starts;
            at.passed = 0;
        }
        if !at.listed {
            at.listed = true;
            self.active.push(line);
        }
    }

    pub(super) fn remove(&mut self, line: u32, place: &Place, starts: u64) {
        let at = &mut self.all[line as usize];
        let first = at.first() == Some(*place);
        if !at.tasks.remove(place) {
            return;
        }
        self.waiting -= 1;
        if first {
            at.since = starts;
            at.passed = 0;
        }
        if at.tasks.is_empty() {
            at.listed = false;
            self.active.retain(|active| *active != line);
        }
    }

    /// Notes that an attempt of a line begins.
    pub(super) fn use_more(&mut self, line: u32) {
        let Line { needs, run, group, ref mut live, .. } = self.all[line as usize];
        *live += 1;
        self.shares.use_more(run, group, (needs.millicores, needs.gpus));
    }

    /// Notes that one ended.
    pub(super) fn use_less(&mut self, line: u32) {
        let Line { needs, run, group, ref mut live, .. } = self.all[line as usize];
        *live -= 1;
        self.shares.use_less(run, group, (needs.millicores, needs.gpus));
    }

    pub(super) fn rank(&self, line: u32, total: (u64, u64)) -> Option<Rank> {
        let line = self.get(line);
        let (priority, order, _) = line.first()?;
        let claim = self.shares.of(line.run, line.group, total);
        Some((claim.run, line.run, priority, claim.group, order))
    }

    /// The line that is served first among those that `fits` says there is a place for.
    pub(super) fn best(&self, total: (u64, u64), fits: impl Fn(u32, &Line) -> bool) -> Option<u32> {
        let fitting = self.active().filter(|line| fits(*line, self.get(*line)));
        fitting.filter_map(|line| Some((self.rank(line, total)?, line))).min().map(|(_, line)| line)
    }
}
