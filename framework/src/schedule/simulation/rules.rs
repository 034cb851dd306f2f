//! What every decision of the scheduler keeps to, said a second time, without its indices: it is compared with all
//! workers and all lines.

use crate::schedule::lines::Line;
use crate::schedule::scheduler::Scheduler;
use crate::schedule::workers::Worker;
use crate::schedule::{Action, GroupId, Needs, RunId, TaskId, WHOLE, WorkerId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What an attempt takes of a worker, without devices.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    millicores: u64,
    memory: u64,
}

impl Room {
    fn add(&mut self, needs: &Needs) {
        self.millicores += needs.millicores;
        self.memory = self.memory.saturating_add(needs.memory);
    }

    fn fits(&self, needs: &Needs) -> bool {
        needs.millicores <= self.millicores && needs.memory <= self.memory
    }
}

/// One start that the step chose among all that waited.
struct Choice<'a> {
    task: TaskId,
    line: &'a Line,
    priority: i32,
    worker: WorkerId,
    queued: bool,
}

/// What a step found.
#[derive(Clone, Copy)]
pub(super) struct Before {
    /// The task that workers were kept for.
    kept: Option<TaskId>,
    /// Whether a task avoided a worker.
    choosy: bool,
}

impl Before {
    pub(super) fn of(scheduler: &Scheduler) -> Self {
        let kept = scheduler.reservation.as_ref().map(|kept| kept.task);
        Self { kept, choosy: !scheduler.avoided.is_empty() }
    }
}

/// Checks what one step left behind and what it started.
pub(super) fn check(scheduler: &Scheduler, actions: &[Action], before: Before) {
    nobody_waits_beside_room(scheduler);
    // Behind one that avoids a worker others may have stood that come later in rank.
    if !before.choosy {
        the_first_in_rank_starts(scheduler, actions, before.kept);
    }
}

/// What is free on a worker for one who comes now.
fn room(scheduler: &Scheduler, worker: &Worker) -> Room {
    let mut used = Room::default();
    for (task, _) in worker.lane.running() {
        used.add(&scheduler.lines.get(scheduler.tasks[&task].line).needs);
    }
    let left = |has: u64, used: u64| has.checked_sub(used).expect("a worker gives what it has");
    Room { millicores: left(worker.has.millicores, used.millicores), memory: left(worker.has.memory, used.memory) }
}

/// Tasks that wait for a place, but for gangs.
fn waiting(scheduler: &Scheduler) -> impl Iterator<Item = &Line> {
    scheduler.lines.iter().filter(|line| line.len() > 0 && line.members == 1)
}

fn nobody_waits_beside_room(scheduler: &Scheduler) {
    for (slot, worker) in scheduler.workers.iter().filter(|(_, worker)| worker.is_open()) {
        let free = room(scheduler, worker);
        for Line { needs, .. } in waiting(scheduler).filter(|line| scheduler.takes(line, slot)) {
            let behind = worker.lane.waiting().len() > 0 && (needs.millicores > 0 || needs.memory > 0);
            let here = !behind && free.fits(needs) && worker.devices.fit(needs) && worker.has.is_where(needs);
            assert!(!here, "{needs} wait although {:?} has room", worker.id);
        }
    }
}

/// Whoever starts is first of those that could have started there: its run has the highest priority, or uses least of
/// what is its due; within a run it has the highest priority, and among equals its group uses least.
fn the_first_in_rank_starts(scheduler: &Scheduler, actions: &[Action], kept: Option<TaskId>) {
    // As it was before the last choice, then before the one before, and so on.
    let mut usage = usage(scheduler);
    let mut given: BTreeMap<WorkerId, Room> = BTreeMap::new();
    for action in actions.iter().rev() {
        let Action::Start { task, worker, queued, .. } = action else { continue };
        let Some(entry) = scheduler.tasks.get(task) else { continue };
        let line = scheduler.lines.get(entry.line);
        for whose in [(line.run, None), (line.run, Some(line.group))] {
            let used = usage.entry(whose).or_default();
            *used = (used.0 - line.needs.millicores, used.1 - line.needs.gpus);
        }
        if !queued {
            given.entry(*worker).or_default().add(&line.needs);
        }
        // Who needs nothing is in nobody's way.
        let light = line.needs.millicores == 0 && line.needs.memory == 0;
        let chosen = !light && line.members == 1 && entry.live.len() == 1 && Some(*task) != kept;
        if chosen {
            let choice = Choice { task: *task, line, priority: entry.priority, worker: *worker, queued: *queued };
            is_first(scheduler, &choice, &usage, given.get(worker).copied().unwrap_or_default());
        }
    }
}

fn is_first(scheduler: &Scheduler, choice: &Choice<'_>, usage: &Usage, given: Room) {
    let Some(slot) = scheduler.workers.slot(choice.worker) else { return };
    let Some(worker) = scheduler.workers.get(slot) else { return };
    let mut free = room(scheduler, worker);
    free.millicores += given.millicores;
    free.memory += given.memory;
    let kept = scheduler.reservation.as_ref().map(|kept| kept.task);
    for other in waiting(scheduler).filter(|other| !std::ptr::eq(*other, choice.line)) {
        let Some((priority, _, first)) = other.first() else { continue };
        let fits = if choice.queued { worker.has.fits(&other.needs) } else { free.fits(&other.needs) };
        if !scheduler.takes(other, slot) {
            continue;
        }
        if !fits || other.needs.on_device() || !worker.has.is_where(&other.needs) || kept == Some(first) {
            continue;
        }
        let who = format!("{first:?} waits, {:?} starts on {:?}", choice.task, choice.worker);
        let rank = |line: &Line, priority: i32| {
            let share = |whose| share(scheduler, usage.get(&whose).copied().unwrap_or_default());
            let standing = scheduler.lines.shares.standing(line.run);
            let of_run = share((line.run, None)) / u64::from(standing.weight);
            (Reverse(standing.priority), of_run, line.run, Reverse(priority), share((line.run, Some(line.group))))
        };
        let (ours, theirs) = (rank(choice.line, choice.priority), rank(other, priority.0));
        assert!(ours <= theirs, "{who}: {theirs:?} before {ours:?}");
    }
}

/// What the attempts of runs, and of each group of theirs, take: thousandths of cores and of devices.
type Usage = BTreeMap<(RunId, Option<GroupId>), (u64, u64)>;

fn usage(scheduler: &Scheduler) -> Usage {
    let mut usage = Usage::new();
    for entry in scheduler.tasks.values() {
        let line = scheduler.lines.get(entry.line);
        let live = entry.live.len() as u64;
        for whose in [(line.run, None), (line.run, Some(line.group))] {
            let used = usage.entry(whose).or_default();
            used.0 += live * line.needs.millicores;
            used.1 += live * line.needs.gpus;
        }
    }
    usage
}

/// The dominant share of all that the workers have, in 2^-32.
fn share(scheduler: &Scheduler, (millicores, gpus): (u64, u64)) -> u64 {
    let workers = scheduler.workers.iter().map(|(_, worker)| &worker.has);
    let (cores, devices) = workers.fold((0u64, 0u64), |(cores, devices), has| {
        (cores.saturating_add(has.millicores), devices + has.devices.len() as u64 * WHOLE)
    });
    let part = |used: u64, all: u64| ((u128::from(used) << 32) / u128::from(all.max(1))) as u64;
    part(millicores, cores).max(part(gpus, devices))
}
