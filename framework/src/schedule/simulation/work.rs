//! What workers do: run, stop, commit, and say how it went.

use super::machine::{Attempt, Run};
use super::scenario::{Fate, compute, key};
use super::world::{Happening, Order, Word, World};
use crate::data::{Artifact, Digest};
use crate::runtime;
use crate::schedule::{End, WorkerId};
use crate::store::{Commit, Memo};
use rand::RngExt;

impl World {
    /// Whether a machine still has an attempt.
    pub(super) fn runs(&self, machine: usize, life: u32, link: WorkerId, attempt: Attempt) -> bool {
        let machine = &self.machines[machine];
        machine.life == life && machine.has(link, attempt)
    }

    pub(super) fn worker_hears(&mut self, machine: usize, link: WorkerId, order: Order) {
        if self.machines[machine].link != Some(link) {
            return;
        }
        match order {
            Order::Start(attempt, run) => {
                self.machines[machine].take(attempt, run);
                self.start_waiting(machine, link);
            }
            Order::Stop(attempt) => self.stop(machine, link, attempt),
        }
    }

    pub(super) fn start_waiting(&mut self, machine: usize, link: WorkerId) {
        while let Some(attempt) = self.machines[machine].start_next() {
            let task = self.machines[machine].runs[&attempt].task;
            let slow = if self.chance(self.scenario.chaos.stragglers) { 20 } else { 1 };
            let usual = self.scenario.tasks[task].micros;
            let micros = usual * slow + self.rng.random_range(0..usual / 4 + 1);
            let life = self.machines[machine].life;
            self.after(micros, Happening::Computed { machine, life, link, attempt, micros });
        }
    }

    pub(super) fn stop(&mut self, machine: usize, link: WorkerId, attempt: Attempt) {
        let runs = self.machines[machine].lane.runs(attempt);
        let Some(run) = self.machines[machine].runs.get_mut(&attempt) else { return };
        if std::mem::replace(&mut run.stopping, true) {
            return;
        }
        let life = self.machines[machine].life;
        if runs {
            // It looks now and then whether it should stop; it may be done before.
            self.soon(300_000, Happening::Stopped { machine, life, link, attempt });
        } else {
            self.ended(machine, link, attempt, End::Stopped, 0, None);
        }
    }

    /// A stage has computed its result: it is kept, then committed. Nobody knows whether anybody still waits for it.
    pub(super) fn computed(&mut self, machine: usize, link: WorkerId, attempt: Attempt, micros: u64) {
        let run = self.machines[machine].runs[&attempt].clone();
        let spec = &self.scenario.tasks[run.task];
        if spec.fate == Fate::Fails {
            return self.ended(machine, link, attempt, End::Failed, micros, None);
        }
        if spec.fate == Fate::NeverPasses || self.chance(self.scenario.chaos.failures) {
            let end = if self.chance(200) { End::Unavailable } else { End::Transient };
            return self.ended(machine, link, attempt, end, micros, None);
        }
        match self.commit(&run, attempt) {
            Some(result) => self.ended(machine, link, attempt, End::Done, micros, Some(result)),
            None => self.ended(machine, link, attempt, End::Transient, micros, None),
        }
    }

    pub(super) fn commit(&mut self, run: &Run, attempt: Attempt) -> Option<Digest> {
        let bytes = compute(run.task, &run.inputs);
        let key = key(run.task, &run.inputs);
        let runtime = runtime().expect("there is a runtime");
        let reference = runtime.block_on(self.store.put(&Artifact::Bytes(bytes.into()))).ok()?;
        let memo = Memo {
            outputs: [("output".to_owned(), reference)].into(),
            stage: run.task.to_string(),
            seconds: 0.0,
            device: "cpu".into(),
            build: format!("{} {attempt:?} {:?}", self.life, self.now),
        };
        match runtime.block_on(self.store.commit(key, &memo)).ok()? {
            Commit::First => assert!(self.committed.insert(key), "task {} was committed twice", run.task),
            Commit::Same => {}
            Commit::Different(_) => panic!("task {} has two results", run.task),
        }
        Some(reference.digest)
    }

    pub(super) fn ended(
        &mut self,
        machine: usize,
        link: WorkerId,
        attempt: Attempt,
        end: End,
        micros: u64,
        result: Option<Digest>,
    ) {
        self.machines[machine].end(attempt);
        self.say(link, Word::Ended { attempt, end, micros, result });
        // A worker without a link only waits for what it ran to end.
        if self.machines[machine].link == Some(link) {
            self.start_waiting(machine, link);
        }
    }
}
