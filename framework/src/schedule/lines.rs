//! The tasks that wait for a place.

use super::task::Place;
use super::{GroupId, Needs, TaskId, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Tasks with the same needs, in order.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) needs: Needs,
    pub(super) members: u32,
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

/// Where a line stands among all: the smaller is served first. Priority comes first, then the group that uses least,
/// then arrival.
type Rank = (Reverse<i32>, u64, u64);

/// What a group uses: thousandths of cores and of devices.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    millicores: u64,
    gpus: u64,
}

/// All lines. Those with the same needs, members and group are one, so that to find the next task that fits costs as
/// much as there are different needs, however many tasks wait.
#[derive(Debug, Default)]
pub(super) struct Lines {
    all: Vec<Line>,
    ids: BTreeMap<(Needs, u32, GroupId), u32>,
    active: Vec<u32>,
    groups: BTreeMap<GroupId, Usage>,
    waiting: usize,
}

impl Lines {
    /// How many tasks wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn id(&mut self, needs: Needs, members: u32, group: GroupId) -> u32 {
        let next = self.all.len() as u32;
        let id = *self.ids.entry((needs, members, group)).or_insert(next);
        if id == next {
            let tasks = BTreeSet::new();
            self.all.push(Line {
                needs,
                members,
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

    /// Notes that a group uses more.
    pub(super) fn use_more(&mut self, line: u32) {
        let Line { needs, group, ref mut live, .. } = self.all[line as usize];
        *live += 1;
        let usage = self.groups.entry(group).or_default();
        usage.millicores += needs.millicores;
        usage.gpus += needs.gpus;
    }

    /// Notes that a group uses less.
    pub(super) fn use_less(&mut self, line: u32) {
        let Line { needs, group, ref mut live, .. } = self.all[line as usize];
        *live -= 1;
        if let Some(usage) = self.groups.get_mut(&group) {
            usage.millicores -= needs.millicores;
            usage.gpus -= needs.gpus;
            if usage.millicores == 0 && usage.gpus == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// The group's dominant share of all there is (Ghodsi et al.: Dominant Resource Fairness, 2011), in 2^-20.
    fn share(&self, group: GroupId, (millicores, gpus): (u64, u64)) -> u64 {
        let usage = self.groups.get(&group).copied().unwrap_or_default();
        let part = |used: u64, all: u64| (u128::from(used) << 20) as u64 / all.max(1);
        part(usage.millicores, millicores).max(part(usage.gpus, gpus))
    }

    pub(super) fn rank(&self, line: u32, total: (u64, u64)) -> Option<Rank> {
        let line = self.get(line);
        let (priority, order, _) = line.first()?;
        Some((priority, self.share(line.group, total), order))
    }

    /// The line that is served first among those that `fits` says there is a place for.
    pub(super) fn best(&self, total: (u64, u64), fits: impl Fn(u32, &Line) -> bool) -> Option<u32> {
        let fitting = self.active().filter(|line| fits(*line, self.get(*line)));
        fitting.filter_map(|line| Some((self.rank(line, total)?, line))).min().map(|(_, line)| line)
    }
}
