//! How attempts and tasks end: with a result, with an error, because an input is lost, or because nobody waits any more.

use super::coordinator::{Coordinator, Ending};
use super::course::Course;
use super::crew::HERE;
use super::event::{Event, Outcome};
use super::nodes::Node;
use super::task::{Made, Request, Task, Waiter};
use crate::data::{Kind, Ref};
use crate::schedule::{self, End, RunId, TaskId, WorkerId};
use crate::store::{Entry, Store};
use crate::worker::{self, Failure};
use crate::{Error, Fault, Result, runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often an input of one task may be lost and made again before the store is given up.
const MOST_RECOVERIES: usize = 3;
/// From this many bytes on it matters where an artifact is.
pub(super) const LARGE: u64 = 64 << 10;

impl Coordinator<'_> {
    pub(super) fn ended(
        &mut self,
        worker: WorkerId,
        id: TaskId,
        attempt: u32,
        result: Result<worker::Outcome, Failure>,
    ) -> Result<()> {
        let Some(live) = self.tasks.get_mut(&id).and_then(|task| task.take(attempt, worker)) else {
            // Nobody waits for it any more; but its room is free again.
            return self.free(worker, id, attempt);
        };
        self.absent(id, attempt);
        self.tell_ended(id, attempt, &live, &result)?;
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let result = match result {
            Ok(outcome) if !task.promises(&outcome.outputs) => {
                // Or else whoever tries it again would find that it is known.
                self.discard_foreign(id)?;
                let error = Error::new("the worker gave other outputs than the stage's signature promises");
                Err(Failure::from(error))
            }
            result => result,
        };
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        let mut made = Vec::new();
        let mut seconds = 0.0;
        let end = match result {
            Ok(outcome) => {
                seconds = outcome.seconds;
                let large: Vec<&Ref> = outcome.outputs.values().filter(|one| one.bytes >= LARGE).collect();
                // What it read it has as well.
                let read = task.request.task.inputs.values().flatten().filter(|one| one.bytes >= LARGE);
                let has = || large.iter().copied().chain(read.clone());
                made.extend(has().map(|one| ((&one.digest).into(), one.bytes)));
                self.crew.holds(worker, has().map(|one| one.digest));
                let worker::Outcome { outputs, seconds, device, .. } = outcome;
                task.outcome = Some(Made { outputs, seconds, device });
                if outcome.differs {
                    let (run, name) = (task.run, task.label().to_owned());
                    let message = "the stage is not deterministic: another result was committed for the same key \
                                   before; that one counts"
                        .to_owned();
                    self.tell(run, Event::Warning { name, message })?;
                }
                End::Done
            }
            Err(_) if live.cancel.is_cancelled() => End::Stopped,
            Err(failure) => {
                // Its own inputs, or what its tasks gave.
                let given = live.given.as_ref();
                if let Some(lost) = failure.lost.as_deref().copied().or_else(|| given?.lost())
                    && task.recovered.iter().filter(|one| **one == lost).count() < MOST_RECOVERIES
                    && let Some(maker) = maker(&self.courses, task.run, &self.store, lost)
                {
                    // In this order, or else the scheduler would try it again at once.
                    self.step(schedule::Event::Cancelled(id))?;
                    self.free(worker, id, attempt)?;
                    return self.recover(id, lost, maker, failure.error);
                }
                let end = match failure.error.whose() {
                    Fault::Usage | Fault::Interrupted => End::Failed,
                    Fault::Unavailable => End::Unavailable,
                    Fault::Stage | Fault::Device | Fault::Bug => End::Transient,
                };
                task.failure = Some(failure.error);
                end
            }
        };
        match self.tasks.get(&id).is_some_and(|task| task.leads) {
            true => self.led(id, attempt, end),
            false => self.step(schedule::Event::Ended { worker, task: id, attempt, end, seconds, made }),
        }
    }

    /// An attempt that nobody waits for has ended: its room is free again.
    fn free(&mut self, worker: WorkerId, task: TaskId, attempt: u32) -> Result<()> {
        let (end, seconds, made) = (End::Stopped, 0.0, Vec::new());
        self.step(schedule::Event::Ended { worker, task, attempt, end, seconds, made })
    }

    /// An attempt that ran other tasks ended. It takes no room, so that no scheduler need know of it.
    fn led(&mut self, id: TaskId, attempt: u32, end: End) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        match end {
            End::Transient | End::Unavailable if attempt <= task.request.task.needs.retries => {
                self.rests.begin(self.options.clock.elapsed(), id, attempt);
                Ok(())
            }
            _ => match (task.outcome.take(), task.failure.take()) {
                (Some(made), _) => {
                    self.learn(id, made.seconds);
                    self.succeed(id, Outcome::Done, made)
                }
                (None, failure) => {
                    self.fail(id, failure.unwrap_or_else(|| Error::new("the task failed")))?;
                    self.abandon()
                }
            },
        }
    }

    /// Tries stages that run others again that have rested.
    pub(super) fn end_rests(&mut self) -> Result<()> {
        let clock = &self.options.clock;
        while let Some((id, attempt)) = self.rests.end(|| clock.elapsed()) {
            self.start(id, attempt, (HERE, self.options.cores.max(1)), Vec::new())?;
        }
        Ok(())
    }

    /// Stops tasks that nobody waits for any more: a stage that asked for them has failed.
    fn abandon(&mut self) -> Result<()> {
        let idle = |task: &Task| !task.waiters.is_empty() && task.waiters.iter().all(Waiter::is_gone);
        let abandoned: Vec<TaskId> = self.tasks.iter().filter(|(_, task)| idle(task)).map(|(id, _)| *id).collect();
        for id in abandoned {
            let Some(task) = self.drop_task(id)? else { continue };
            let (run, name) = (task.run, task.request.task.label.clone());
            self.tell(run, Event::TaskFinished { name, outcome: Outcome::Skipped, seconds: 0.0, error: None })?;
        }
        Ok(())
    }

    /// An input is lost: whatever made it runs again, and the task after it.
    pub(super) fn recover(&mut self, id: TaskId, lost: Ref, maker: Arc<Request>, error: Error) -> Result<()> {
        self.tell_stopped(id)?;
        let Some(mut task) = self.forget(id) else { return Ok(()) };
        let message = format!("{error}; stage {:?} computes it again", maker.task.label);
        let run = task.run;
        self.tell(run, Event::Warning { name: task.label().to_owned(), message })?;
        let discarded = runtime()?.block_on(self.store.discard(Entry::Blob(lost)));
        task.recovered.push(lost);
        let waiting = self.enlist(task);
        match discarded {
            Err(error) if self.serves() => return self.fail(waiting, error),
            discarded => drop(discarded?),
        }
        let mut again = Task::new(run, maker, Waiter::Task(waiting));
        again.again = true;
        self.look(again);
        Ok(())
    }

    pub(super) fn succeed(&mut self, id: TaskId, outcome: Outcome, made: Made) -> Result<()> {
        let Made { outputs, seconds, device } = made;
        self.tell_stopped(id)?;
        let Some(task) = self.forget(id) else { return Ok(()) };
        task.span.record("outcome", outcome.name());
        let alone = (task.waiters.len() == 1).then_some(task.run);
        for waiter in &task.waiters {
            let run = alone.or_else(|| self.whose(waiter));
            if let Some(course) = run.and_then(|run| self.courses.get_mut(&run)) {
                outputs.values().for_each(|made| drop(course.made.insert(*made, task.request.clone())));
            }
        }
        let mut moved = BTreeSet::new();
        for waiter in task.waiters.into_iter().filter(|waiter| !waiter.is_nobody()) {
            match waiter {
                Waiter::Node(run, node) => {
                    moved.insert(run);
                    if let Some(at) = self.courses.get_mut(&run).and_then(|course| course.nodes.get_mut(node)) {
                        *at = Node::Ready(outputs.clone());
                    }
                    self.close(
                        run,
                        node,
                        Ending {
                            outcome,
                            seconds,
                            device: device.clone(),
                            key: task.key,
                            outputs: outputs.clone(),
                            error: None,
                        },
                    )?;
                }
                Waiter::Stage(parent, reply) => {
                    if let Some(run) = alone.or_else(|| Some(self.tasks.get(&parent)?.run)) {
                        self.tell_finished(run, &task.request.task.label, outcome, seconds)?;
                    }
                    reply.give(&outputs);
                }
                Waiter::Task(waiting) => {
                    if let Some(task) = self.tasks.remove(&waiting) {
                        self.look(task);
                    }
                }
                // Its result is known now.
                Waiter::Same(mut same) => {
                    same.again = false;
                    self.look(same);
                }
            }
        }
        moved.into_iter().try_for_each(|run| self.advance(run))
    }

    pub(super) fn fail(&mut self, id: TaskId, error: Error) -> Result<()> {
        self.tell_stopped(id)?;
        let Some(task) = self.forget(id) else { return Ok(()) };
        task.span.record("outcome", Outcome::Failed.name());
        let mut moved = BTreeSet::new();
        for waiter in task.waiters.into_iter().filter(|waiter| !waiter.is_nobody()) {
            match waiter {
                Waiter::Node(run, node) => {
                    moved.insert(run);
                    self.fail_node(run, node, error.clone())?;
                }
                Waiter::Stage(parent, reply) => {
                    let name = task.request.task.label.clone();
                    let said = Some(error.to_string());
                    if let Some(run) = self.tasks.get(&parent).map(|parent| parent.run) {
                        let outcome = Outcome::Failed;
                        self.tell(run, Event::TaskFinished { name, outcome, seconds: 0.0, error: said })?;
                    }
                    reply.fail(error.clone());
                }
                Waiter::Task(waiting) => self.fail(waiting, error.clone())?,
                // With the same needs it would come to the same, and with others it may not.
                Waiter::Same(same) if same.shares_fate_with(&task.request) => {
                    let same = self.enlist(same);
                    self.fail(same, error.clone())?;
                }
                Waiter::Same(same) => self.look(same),
            }
        }
        moved.into_iter().try_for_each(|run| self.advance(run))
    }

    pub(super) fn forget(&mut self, id: TaskId) -> Option<Box<Task>> {
        let task = self.tasks.remove(&id)?;
        self.gangs.forget(id);
        if let Some(key) = task.key.filter(|key| self.under_way.get(key) == Some(&id)) {
            self.under_way.remove(&key);
        }
        Some(task)
    }
}

/// Who made an artifact, alone or as an item of a list: for a run, or else for another one.
fn maker(courses: &BTreeMap<RunId, Course<'_>>, run: RunId, store: &Store, lost: Ref) -> Option<Arc<Request>> {
    let others = courses.iter().filter(|(other, _)| **other != run).map(|(_, course)| course);
    let mut all = courses.get(&run).into_iter().chain(others);
    let has = |list: &Ref| -> Result<bool> { Ok(runtime()?.block_on(store.items(*list))?.contains(&lost)) };
    let of = |course: &Course<'_>| {
        let mut lists = course.made.iter().filter(|(reference, _)| reference.kind == Kind::List);
        // A list that can't be read is no help; whoever needs it finds that out.
        let made = course.made.get(&lost);
        made.or_else(|| lists.find_map(|(list, maker)| has(list).ok()?.then_some(maker))).cloned()
    };
    all.find_map(of)
}
