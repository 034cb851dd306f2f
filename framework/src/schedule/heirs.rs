//! Tasks that become another run's: whoever asked for one first may be gone before it is done.

use super::scheduler::Scheduler;
use super::task::State;
use super::{GroupId, RunId, TaskId};

impl Scheduler {
    /// Whether a run is served before another one, as things are.
    pub(crate) fn precedes(&self, run: RunId, other: RunId) -> bool {
        let claim = |run| self.lines.shares.of(run, GroupId::default(), self.workers.total()).run;
        claim(run) < claim(other)
    }

    /// A task is another run's from now on: it waits in that one's line, and what it uses counts there.
    pub(super) fn pass_on(&mut self, id: TaskId, run: RunId) {
        let Some(entry) = self.tasks.get(&id).filter(|entry| entry.is_open()) else { return };
        let (old, place, live) = (entry.line, entry.place(), entry.live.len());
        let (is_waiting, vacancies) = (entry.state == State::Waiting, entry.vacancies);
        if self.reservation.as_ref().is_some_and(|kept| kept.task == id) {
            self.release();
        }
        let line = self.lines.get(old);
        let (needs, members, whose) = (line.needs, line.members, (run, line.group));
        let new = self.lines.id(needs, members, whose);
        for _ in 0..live {
            self.lines.use_less(old);
            self.lines.use_more(new);
        }
        if is_waiting {
            self.lines.remove(old, &place, self.starts);
            self.lines.insert(new, place, self.starts);
            self.hopeful.extend([old, new]);
        }
        let vacancies = vacancies.map(|mut vacancies| {
            let line = self.lines.id(needs, 1, whose);
            self.lines.remove(vacancies.line, &place, self.starts);
            self.lines.insert(line, place, self.starts);
            self.hopeful.extend([vacancies.line, line]);
            vacancies.line = line;
            vacancies
        });
        if let Some(entry) = self.tasks.get_mut(&id) {
            (entry.line, entry.vacancies) = (new, vacancies);
        }
    }
}
