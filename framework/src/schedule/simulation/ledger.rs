//! What the coordinator has asked of its workers and not heard the end of, kept beside the scheduler's own books: it
//! says whether what the scheduler asks next may be.

use super::scenario::{Fate, Spec};
use super::world::LATE;
use crate::schedule::attempts::MOST_MOVES;
use crate::schedule::scheduler::{FIRST_BACKOFF, LONGEST_BACKOFF};
use crate::schedule::{End, Time, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// No time passes between what is due and the tick that does it, but for rounding.
const ROUNDING: Time = Time::from_millis(1);

/// An attempt that was started and has not ended.
#[derive(Debug)]
struct Live {
    since: Time,
    stopping: bool,
}

/// One task, by the name that the scheduler knows it under.
#[derive(Debug, Default)]
struct Account {
    live: BTreeMap<(u32, WorkerId), Live>,
    /// Whether an attempt said that it is done.
    done: bool,
    failures: u32,
    /// It is not tried again before.
    rests: Time,
    expires: Option<Time>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    tasks: BTreeMap<u64, Account>,
    /// Gangs that the present step begins.
    gathered: BTreeSet<u64>,
    draining: BTreeSet<WorkerId>,
}

impl Ledger {
    pub(super) fn submitted(&mut self, now: Time, name: u64, spec: &Spec) {
        let expires = spec.deadline.map(|micros| now + Time::from_micros(micros));
        self.tasks.insert(name, Account { expires, ..Account::default() });
    }

    /// Whether an attempt of a task has not ended.
    pub(super) fn runs(&self, name: u64) -> bool {
        self.tasks.get(&name).is_some_and(|task| !task.live.is_empty())
    }

    pub(super) fn drains(&mut self, link: WorkerId) {
        self.draining.insert(link);
    }

    /// The scheduler starts an attempt of a task: only a straggler may be doubled, once; members of a gang that are lost
    /// are replaced; and what failed rests first.
    pub(super) fn starts(&mut self, now: Time, name: u64, spec: &Spec, at: (u32, WorkerId)) {
        assert!(!self.draining.contains(&at.1), "{name} starts on {:?}, which will go", at.1);
        let task = self.tasks.get_mut(&name).expect("it was submitted");
        assert!(task.expires.is_none_or(|at| now <= at + ROUNDING), "{name} starts after its deadline");
        assert!(now >= task.rests, "{name} failed and is tried again at once");
        assert!(task.live.keys().all(|(attempt, _)| *attempt != at.0), "attempt {} of {name} starts twice", at.0);
        if spec.members > 1 {
            let lacks = task.live.len() < spec.members as usize && task.live.values().all(|live| !live.stopping);
            assert!(lacks, "gang {name} lacks nobody: {:?}", task.live);
            if task.live.is_empty() {
                self.gathered.insert(name);
            }
        } else {
            let alone = task.live.len() <= 1 && task.live.values().all(|live| live.since + LATE <= now);
            assert!(alone, "{name} runs already: {:?}", task.live);
        }
        task.live.insert(at, Live { since: now, stopping: false });
    }

    /// A step of the scheduler is over: the gangs that it began are whole.
    pub(super) fn stepped<'a>(&mut self, spec: impl Fn(u64) -> &'a Spec) {
        for name in std::mem::take(&mut self.gathered) {
            let (live, members) = (&self.tasks[&name].live, spec(name).members as usize);
            assert_eq!(live.len(), members, "a part of gang {name} starts: {live:?}");
        }
    }

    pub(super) fn stops(&mut self, name: u64, at: (u32, WorkerId)) {
        let live = self.tasks.get_mut(&name).and_then(|task| task.live.get_mut(&at));
        let live = live.expect("what is stopped was started and has not ended");
        assert!(!std::mem::replace(&mut live.stopping, true), "an attempt of {name} is stopped twice");
    }

    pub(super) fn ended(&mut self, now: Time, name: u64, spec: &Spec, at: (u32, WorkerId), end: End) {
        let Some(task) = self.tasks.get_mut(&name) else { return };
        let Some(live) = task.live.remove(&at) else { return };
        let alone = spec.members > 1 || task.live.values().all(|twin| twin.stopping);
        match end {
            End::Done => task.done = true,
            End::Transient | End::Unavailable if alone && !live.stopping => {
                task.failures += 1;
                let doubled = FIRST_BACKOFF.saturating_mul(1 << (task.failures - 1).min(16));
                task.rests = now + doubled.min(LONGEST_BACKOFF);
            }
            _ => {}
        }
    }

    /// Whoever ran there runs no more.
    pub(super) fn lost(&mut self, link: WorkerId) {
        self.tasks.values_mut().for_each(|task| task.live.retain(|(_, at), _| *at != link));
    }

    pub(super) fn done(&self, now: Time, name: u64) {
        let task = &self.tasks[&name];
        assert!(task.done, "{name} is done and no attempt said so");
        assert!(task.expires.is_none_or(|at| now <= at + ROUNDING), "{name} is done after its deadline");
    }

    pub(super) fn failed(&self, name: u64, spec: &Spec) {
        let tries = self.tasks[&name].failures;
        assert!(
            spec.fate == Fate::Fails || tries > spec.retries,
            "{name} fails after {tries} tries of {}",
            spec.retries
        );
        assert!(tries <= spec.retries.saturating_add(1 + MOST_MOVES), "{name} was tried {tries} times");
    }

    pub(super) fn expired(&self, now: Time, name: u64) {
        let expires = self.tasks[&name].expires;
        assert!(expires.is_some_and(|at| at <= now), "{name} expires at {now:?}, its deadline is {expires:?}");
    }

    /// Nothing of a task that is decided goes on.
    pub(super) fn is_over(&self, name: u64) {
        let task = &self.tasks[&name];
        assert!(task.live.values().all(|live| live.stopping), "{name} is over and goes on: {:?}", task.live);
    }
}
