//! What stages will ask of the workers, and when: the graph says what comes after what, the costs how long it takes.

use super::coordinator::Coordinator;
use super::course::Course;
use super::nodes::Node;
use super::task::kind;
use crate::schedule::{Demand, Device, Needs, Time};
use crate::{pipeline, stage};

/// A stage whose task waits for workers or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Since when.
    pub(super) since: Time,
    /// How long it is expected to take, if that is known.
    pub(super) takes: Option<Time>,
}

impl Begun {
    /// When it will be done. What is late is expected to be late as long again.
    fn end(&self, now: Time) -> Option<Time> {
        let end = self.since + self.takes?;
        Some(end.max(now + now.saturating_sub(end)))
    }
}

impl Coordinator<'_> {
    /// The stages that wait for others, as far as is known when those will be done.
    pub(super) fn upcoming(&self, now: Time) -> Vec<Demand> {
        self.courses.values().flat_map(|course| self.upcoming_of(course, now)).collect()
    }

    fn upcoming_of(&self, course: &Course<'_>, now: Time) -> Vec<Demand> {
        let mut demand = Vec::new();
        // When the outputs of each stage will be there.
        let mut there: Vec<Option<Time>> = vec![None; course.nodes.len()];
        for node in &course.wanted {
            there[*node] = match &course.nodes[*node] {
                Node::Ready(_) => Some(now),
                Node::Running => course.begun.get(node).and_then(|begun| begun.end(now)),
                Node::Waiting => {
                    let needed = course.pipeline.dependencies(*node);
                    let ready = needed.iter().map(|from| there[*from]).try_fold(now, |last, at| Some(last.max(at?)));
                    let stage = &course.pipeline.stages[*node];
                    let takes = self.usual(stage);
                    demand.extend(ready.and_then(|ready| in_demand(stage, ready, takes)));
                    ready.zip(takes).map(|(ready, takes)| ready + takes)
                }
                Node::Outside | Node::Failed => None,
            };
        }
        demand
    }

    /// How long a stage usually takes.
    fn usual(&self, stage: &pipeline::Node) -> Option<Time> {
        self.scheduler.costs().usual(*self.stages.get(&kind(&stage.name, &stage.uses))?, device(&stage.needs))
    }
}

fn in_demand(stage: &pipeline::Node, ready: Time, each: Option<Time>) -> Option<Demand> {
    // One that runs others takes no worker; what these need is not known before.
    let takes_room = !stage.stage.signature().submits;
    takes_room.then(|| Demand { each, ready, ..ahead(&stage.needs) })
}

/// Where a stage will compute. What `auto` means is decided once it is known how much there is to compute: until then it
/// is the processor.
fn device(needs: &stage::Needs) -> Device {
    match needs.device {
        stage::Device::Cuda => Device::Cuda,
        stage::Device::Cpu | stage::Device::Auto => Device::Cpu,
    }
}

/// What a stage will ask for.
fn ahead(needs: &stage::Needs) -> Demand {
    let members = needs.workers;
    let needs = Needs { peers: members > 1, ..super::attempts::needs(needs, device(needs), false) };
    Demand { needs, places: u64::from(members), together: members, each: None, ready: Time::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gangs_and_devices_are_foreseen() {
        let one = ahead(&stage::Needs::default());
        assert_eq!((one.places, one.together, one.needs.peers, one.needs.gpus), (1, 1, false, 0));
        let (workers, device, gpus) = (4, stage::Device::Cuda, 0.5);
        let gang = ahead(&stage::Needs { workers, device, gpus, gpu_memory: 7, ..stage::Needs::default() });
        assert_eq!((gang.places, gang.together, gang.needs.peers), (4, 4, true));
        assert_eq!((gang.needs.gpus, gang.needs.gpu_memory), (500, 7));
    }

    #[test]
    fn what_is_late_is_late_as_long_again() {
        let (since, second) = (Time::from_secs(10), Time::from_secs(1));
        let begun = Begun { since, takes: Some(5 * second) };
        assert_eq!(begun.end(since), Some(since + 5 * second));
        assert_eq!(begun.end(since + 5 * second), Some(since + 5 * second));
        assert_eq!(begun.end(since + 7 * second), Some(since + 9 * second));
        assert_eq!(Begun { since, takes: None }.end(since), None);
    }
}
