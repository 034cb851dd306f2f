//! The coordinator of the simulation: one life of it. All that it knows is gone when it is killed.

use super::scenario::{Scenario, Spec};
use crate::data::Digest;
use crate::schedule::{
    Autoscaler, Costs, Demand, Device, Event, GroupId, OrderId, PoolId, RunId, Scheduler, StageId, Task, TaskId, Time,
    WorkerId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// For others, or for the store to say whether its result is known.
    Waits,
    Looks,
    /// The scheduler has it under this name.
    Scheduled(u64),
    Done(Digest),
    Failed,
}

pub(super) struct Coordinator {
    pub(super) scheduler: Scheduler,
    pub(super) autoscaler: Autoscaler,
    pub(super) status: Vec<Status>,
    /// Links that were ever joined, and those that are.
    seen: BTreeSet<WorkerId>,
    pub(super) links: BTreeSet<WorkerId>,
    /// What the scheduler's names mean.
    names: BTreeMap<u64, usize>,
    /// What attempts said that they committed.
    pub(super) results: BTreeMap<u64, Digest>,
    submitted: u64,
    /// Workers that the pool was asked for and that have not come.
    pub(super) orders: BTreeSet<OrderId>,
    /// Those that have come, by their link.
    pub(super) ordered: BTreeMap<WorkerId, OrderId>,
    /// Links over which a result came.
    pub(super) served: BTreeSet<WorkerId>,
}

impl Coordinator {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut costs = Costs::default();
        for spec in scenario.tasks.iter().filter(|_| scenario.known) {
            costs.learn(StageId(spec.stage), Device::Cpu, 0, Time::from_micros(spec.micros));
        }
        let mut scheduler = Scheduler::new().with_costs(costs);
        // The machines may all come; until they do, nothing is refused.
        for (at, machine) in scenario.machines.iter().enumerate() {
            scheduler = scheduler.with_pool(PoolId(100 + at as u32), machine.clone(), 1);
        }
        if let Some(pool) = &scenario.pool {
            scheduler = scheduler.with_pool(pool.id, pool.capacity.clone(), pool.max);
        }
        for (run, standing) in (0..).map(RunId).zip(scenario.runs.iter().copied()) {
            scheduler.step(Time::ZERO, Event::Admitted { run, standing });
        }
        Self {
            scheduler,
            autoscaler: Autoscaler::new(scenario.pool.iter().cloned().collect()),
            status: vec![Status::Waits; scenario.tasks.len()],
            seen: BTreeSet::new(),
            links: BTreeSet::new(),
            names: BTreeMap::new(),
            results: BTreeMap::new(),
            submitted: 0,
            orders: BTreeSet::new(),
            ordered: BTreeMap::new(),
            served: BTreeSet::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.status.iter().all(|status| matches!(status, Status::Done(_) | Status::Failed))
    }

    /// Tasks whose inputs are there and that are not begun; those whose inputs will never be there fail.
    pub(super) fn ready(&mut self, tasks: &[Spec]) -> Vec<usize> {
        let mut ready = Vec::new();
        for (task, spec) in tasks.iter().enumerate() {
            if self.status[task] != Status::Waits {
                continue;
            }
            if spec.after.iter().any(|from| self.status[*from] == Status::Failed) {
                self.status[task] = Status::Failed;
            } else if spec.after.iter().all(|from| matches!(self.status[*from], Status::Done(_))) {
                self.status[task] = Status::Looks;
                ready.push(task);
            }
        }
        ready
    }

    pub(super) fn inputs(&self, spec: &Spec) -> Vec<Digest> {
        let result = |from: &usize| match self.status[*from] {
            Status::Done(digest) => digest,
            other => panic!("an input is {other:?}"),
        };
        spec.after.iter().map(result).collect()
    }

    /// The task that the scheduler calls so.
    pub(super) fn task(&self, name: TaskId) -> usize {
        self.names[&name.0]
    }

    /// The task that somebody calls so, if there is one.
    pub(super) fn known(&self, name: TaskId) -> Option<usize> {
        self.names.get(&name.0).copied()
    }

    /// The task that the scheduler calls so is decided, as failed unless it is said otherwise. That happens once.
    pub(super) fn decided(&mut self, name: TaskId) -> usize {
        let task = self.task(name);
        assert_eq!(self.status[task], Status::Scheduled(name.0), "a task ends once");
        self.status[task] = Status::Failed;
        task
    }

    /// A task under a new name, as the scheduler is given it.
    pub(super) fn name(&mut self, now: Time, task: usize, spec: &Spec) -> Task {
        self.submitted += 1;
        let name = self.submitted;
        self.names.insert(name, task);
        self.status[task] = Status::Scheduled(name);
        let inputs = self.inputs(spec).iter().map(|digest| (digest.into(), 1000)).collect();
        Task {
            members: spec.members,
            run: RunId(spec.run),
            priority: spec.priority,
            group: GroupId(spec.group),
            retries: spec.retries,
            deadline: spec.deadline.map(|micros| now + Time::from_micros(micros)),
            inputs,
            stage: StageId(spec.stage),
            ..Task::new(TaskId(name), spec.needs)
        }
    }

    /// Each incarnation joins once, whatever the network does.
    pub(super) fn admits(&mut self, link: WorkerId) -> bool {
        self.seen.insert(link) && self.links.insert(link)
    }

    /// One that is lost never joins again, even if its first word comes only now.
    pub(super) fn loses(&mut self, link: WorkerId) {
        self.seen.insert(link);
        self.links.remove(&link);
    }

    /// What will be ready later, as the graph says.
    pub(super) fn upcoming(&self, now: Time, tasks: &[Spec]) -> Vec<Demand> {
        let waits = |(task, _): &(usize, &Spec)| matches!(self.status[*task], Status::Waits);
        let demand = |(_, spec): (usize, &Spec)| {
            let ready = now + Time::from_micros(spec.after.iter().map(|from| tasks[*from].micros).max().unwrap_or(0));
            Demand { needs: spec.needs, places: u64::from(spec.members), together: spec.members, each: None, ready }
        };
        tasks.iter().enumerate().filter(waits).map(demand).collect()
    }
}
