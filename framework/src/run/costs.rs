//! What stages cost, from one run to the next: kept in the store by the stages' names.

use super::attempts::needs;
use super::coordinator::Coordinator;
use super::forecast::Begun;
use super::task::{Task, Waiter};
use crate::schedule::{Costs, Device, Site, StageId, TaskId, Time, offers};
use crate::{Context, Result, runtime, stage};
use serde::{Deserialize, Serialize};

/// No task takes as many seconds.
const LONGEST: f64 = 1e9;

/// What was learned, and the names of the stages by their numbers.
#[derive(Default, Serialize, Deserialize)]
struct Learned {
    stages: Vec<String>,
    costs: Costs,
}

impl Coordinator<'_> {
    /// A task is about to compute: on what, and how long that may take. Gives its stage's number.
    pub(super) fn appraise(&mut self, id: TaskId) -> Result<StageId> {
        self.recall()?;
        self.tell_of_missing_gpus(id)?;
        let now = self.options.clock.elapsed();
        let next = StageId(self.stages.len() as u32);
        let deadline = self.tasks.get(&id).and_then(|task| self.deadline(task));
        let left = deadline.map(|deadline| deadline.saturating_sub(now));
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(next) };
        let stage = *self.stages.entry(task.request.kind()).or_insert(next);
        let costs = self.scheduler.costs();
        task.ready = now;
        task.device = match task.request.task.needs.device {
            stage::Device::Cpu => Device::Cpu,
            stage::Device::Cuda => Device::Cuda,
            stage::Device::Auto if !task.request.stage.signature().devices => Device::Cpu,
            stage::Device::Auto => cheapest(costs, stage, task, &self.crew.sites(), left),
        };
        let takes = costs.expect(stage, task.device, task.request.size()).map(|estimate| estimate.median);
        for waiter in &task.waiters {
            if let Waiter::Node(run, node) = waiter
                && let Some(course) = self.courses.get_mut(run)
            {
                course.begun.insert(*node, Begun { since: now, takes });
            }
        }
        Ok(stage)
    }

    /// Learns from a task that no scheduler knew of.
    pub(super) fn learn(&mut self, id: TaskId, seconds: f64) {
        let Some(task) = self.tasks.get(&id) else { return };
        let Some(stage) = self.stages.get(&task.request.kind()) else { return };
        let took = Time::from_secs_f64(seconds.clamp(0.0, LONGEST));
        self.scheduler.costs_mut().learn(*stage, task.device, task.request.size(), took);
    }

    /// Reads what earlier runs learned; once, and only by a run that computes something.
    fn recall(&mut self) -> Result<()> {
        if self.recalled.is_some() {
            return Ok(());
        }
        let entry = runtime()?.block_on(self.store.costs());
        let learned = match entry.map(|entry| entry.map(|entry| serde_json::from_slice::<Learned>(&entry))) {
            Ok(Some(Ok(learned))) if learned.costs.is_sound() => learned,
            Ok(None) => Learned::default(),
            Err(error) => {
                tracing::warn!("what earlier runs noted of the cost of stages can't be read: {error}");
                self.unread = true;
                Learned::default()
            }
            // They only make runs faster.
            Ok(Some(_)) => {
                tracing::warn!("what earlier runs noted of the cost of stages can't be read; it is learned again");
                Learned::default()
            }
        };
        self.stages = learned.stages.into_iter().zip((0..).map(StageId)).collect();
        *self.scheduler.costs_mut() = learned.costs.clone();
        self.recalled = Some(learned.costs);
        Ok(())
    }

    /// Keeps what this run learned for the runs after it.
    pub(super) fn remember(&mut self) {
        if self.unread || self.recalled.as_ref().is_none_or(|before| before == self.scheduler.costs()) {
            return;
        }
        let mut stages = vec![String::new(); self.stages.len()];
        for (name, StageId(at)) in &self.stages {
            if let Some(place) = stages.get_mut(*at as usize) {
                place.clone_from(name);
            }
        }
        let learned = Learned { stages, costs: self.scheduler.costs().clone() };
        let entry = serde_json::to_vec(&learned).context("costs must be JSON");
        let kept = entry.and_then(|entry| runtime()?.block_on(self.store.add_costs(entry.into())));
        // They only make runs faster.
        if let Err(error) = kept {
            tracing::warn!("what was learned of the cost of stages can't be kept: {error}");
        }
        self.recalled = Some(learned.costs);
    }
}

/// Where a task costs least and is done in the time that is left: `device = "auto"`.
fn cheapest(costs: &Costs, stage: StageId, task: &Task, sites: &[Site<'_>], left: Option<Time>) -> Device {
    let asked = &task.request.task.needs;
    let offers = offers(sites, |device| needs(asked, device, task.files));
    // What fits nowhere is refused, and the reason named.
    costs.choose(stage, task.request.size(), &offers, left).unwrap_or(Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::super::task::Request;
    use super::*;
    use crate::Error;
    use crate::data::Frame;
    use crate::schedule::{Capacity, RunId};
    use crate::stage::{Needs, Registry, TaskRequest};
    use serde_json::Value;
    use std::collections::BTreeMap;

    const STAGE: StageId = StageId(0);

    fn task() -> Box<Task> {
        let registry = Registry::new().stage("fit", stage::stage(|rows: Frame| Ok::<_, Error>(rows)).version(1));
        let task = TaskRequest {
            label: "fit".into(),
            stage: "fit".into(),
            params: Value::Null,
            inputs: BTreeMap::new(),
            seed: 1,
            needs: Needs::default(),
        };
        let request = Request::new(task, registry.get("fit").unwrap().clone(), BTreeMap::new());
        Task::new(RunId(0), request, Waiter::Node(RunId(0), 0))
    }

    #[test]
    fn an_automatic_device_is_the_cheapest_that_is_done_in_time() {
        let mut costs = Costs::default();
        costs.learn(STAGE, Device::Cpu, 0, Time::from_secs(100));
        costs.learn(STAGE, Device::Cuda, 0, Time::from_secs(5));
        let plain = Capacity { millicores: 4000, memory: u64::MAX, ..Capacity::default() };
        let gpu = Capacity { devices: vec![16 << 30], ..plain.clone() };
        let cheap = Site { has: &plain, price: 1.0, ready: Time::ZERO };
        let dear = Site { has: &gpu, price: 100.0, ready: Time::from_secs(20) };
        let decide =
            |left: Option<u64>, sites: &[Site<'_>]| cheapest(&costs, STAGE, &task(), sites, left.map(Time::from_secs));
        assert_eq!(decide(None, &[cheap, dear]), Device::Cpu);
        assert_eq!(decide(Some(200), &[cheap, dear]), Device::Cpu);
        assert_eq!(decide(Some(50), &[cheap, dear]), Device::Cuda);
        assert_eq!(decide(Some(50), &[cheap]), Device::Cpu, "there is nothing else");
        assert_eq!(decide(None, &[]), Device::Cpu, "it is refused, and the reason named");
    }

    #[test]
    fn costs_that_can_not_be_are_not_believed() {
        let mut costs = Costs::default();
        costs.learn(STAGE, Device::Cpu, 10, Time::from_secs(1));
        assert!(costs.is_sound());
        let text = serde_json::to_string(&costs).unwrap();
        assert!(serde_json::from_str::<Costs>(&text).unwrap().is_sound());
        let wrong = text.replace("\"total\":1", "\"total\":4294967295");
        assert_ne!(wrong, text);
        assert!(!serde_json::from_str::<Costs>(&wrong).unwrap().is_sound());
    }
}
