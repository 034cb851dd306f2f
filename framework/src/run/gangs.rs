//! The gangs of a run: which members are there, and who of them works together.

use super::coordinator::Coordinator;
use crate::Result;
use crate::schedule::{TaskId, WorkerId};
use crate::worker::{Chair, Circle, Present};
use std::collections::{BTreeMap, HashMap};

/// The gangs whose members run.
#[derive(Default)]
pub(super) struct Gangs(HashMap<TaskId, Gang>);

/// The members of a task that said that they are there.
#[derive(Default)]
struct Gang {
    epoch: u64,
    /// Whether there was a circle: the first one waits for all, later ones for nobody.
    formed: bool,
    /// By attempt.
    members: BTreeMap<u32, Member>,
}

struct Member {
    worker: WorkerId,
    seat: u64,
    memory: String,
}

impl Gang {
    /// The circle of those who are there, but for what only the crew knows of them.
    fn circle(&mut self, crew: &impl Fn(WorkerId) -> Option<(String, String)>) -> Vec<(u32, WorkerId, Circle)> {
        self.epoch += 1;
        self.formed = true;
        let known = |(attempt, member): (&u32, &Member)| {
            let (peer, machine) = crew(member.worker)?;
            let chair = Chair { peer, machine, seat: member.seat, memory: member.memory.clone() };
            Some((*attempt, member.worker, chair))
        };
        let members: Vec<(u32, WorkerId, Chair)> = self.members.iter().filter_map(known).collect();
        let chairs: Vec<Chair> = members.iter().map(|(.., chair)| chair.clone()).collect();
        let told = members.into_iter().enumerate().map(|(rank, (attempt, worker, _))| {
            (attempt, worker, Circle { epoch: self.epoch, rank, chairs: chairs.clone() })
        });
        told.collect()
    }
}

impl Gangs {
    /// A task is over.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.0.remove(&task);
    }
}

impl Coordinator<'_> {
    /// A member is there, or can't go on with the circle that it was in.
    pub(super) fn present(&mut self, worker: WorkerId, task: TaskId, attempt: u32, present: Present) -> Result<()> {
        if !self.tasks.get(&task).is_some_and(|task| task.runs(attempt, worker)) {
            return Ok(());
        }
        let gang = self.gangs.0.entry(task).or_default();
        let Present { after, seat, memory } = present;
        let before = gang.members.insert(attempt, Member { worker, seat, memory });
        // It knows of the newest circle, or will in a moment: that answers it.
        let answered = before.is_some() && after < gang.epoch;
        gang.epoch = gang.epoch.max(after);
        if !answered {
            self.gather(task);
        }
        Ok(())
    }

    /// A member is gone, for whatever reason.
    pub(super) fn absent(&mut self, task: TaskId, attempt: u32) {
        let Some(gang) = self.gangs.0.get_mut(&task) else { return };
        if gang.members.remove(&attempt).is_some() || !gang.formed {
            self.gather(task);
        }
    }

    /// Makes a new circle, if it is time.
    fn gather(&mut self, id: TaskId) {
        let Some(gang) = self.gangs.0.get_mut(&id) else { return };
        let Some(task) = self.tasks.get(&id) else { return };
        let all = task.live.keys().all(|attempt| gang.members.contains_key(attempt));
        if gang.members.is_empty() || !(gang.formed || all) {
            return;
        }
        let crew = &self.crew;
        for (attempt, worker, circle) in gang.circle(&|worker| crew.reached(worker)) {
            self.crew.tell_circle(worker, id, attempt, &circle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_names_its_members_in_order_and_each_has_its_rank() {
        let mut gang = Gang::default();
        for attempt in [3, 1, 7] {
            let member = Member { worker: WorkerId(u64::from(attempt)), seat: 1, memory: format!("m{attempt}") };
            gang.members.insert(attempt, member);
        }
        let reached = |worker: WorkerId| (worker.0 != 7).then(|| (format!("p{}", worker.0), "here".to_owned()));
        for epoch in 1..3 {
            let told = gang.circle(&reached);
            let ranks: Vec<(u32, u64, usize)> =
                told.iter().map(|(attempt, worker, circle)| (*attempt, worker.0, circle.rank)).collect();
            assert_eq!(ranks, [(1, 1, 0), (3, 3, 1)], "one that the crew does not know any more is not in");
            for (.., circle) in told {
                assert_eq!(circle.epoch, epoch);
                assert_eq!(circle.chairs.iter().map(|chair| &*chair.memory).collect::<Vec<_>>(), ["m1", "m3"]);
            }
        }
    }
}
