//! The scheduler, as the autoscaler sees it.

use super::scheduler::Scheduler;
use super::{Demand, Present, Time, View};

impl Scheduler {
    /// The workers of pools, and what runs and waits. Who knows the graph adds what will be ready later.
    pub fn view(&self) -> View {
        let workers = self.workers.iter().filter_map(|(_, worker)| {
            let pool = worker.has.pool?;
            Some(Present { worker: worker.id, pool, idle: worker.idle, draining: worker.draining })
        });
        let demand = self.lines.iter().filter_map(|line| {
            let waiting = line.len() as u64 * u64::from(line.members);
            let places = waiting + line.live;
            let each = line.first().and_then(|(.., first)| self.expected(first));
            let ready = Time::ZERO;
            (places > 0).then_some(Demand { needs: line.needs, places, together: line.members, each, ready })
        });
        View { workers: workers.collect(), demand: demand.collect() }
    }
}
