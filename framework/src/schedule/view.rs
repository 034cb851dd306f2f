//! The scheduler, as the autoscaler sees it.

use super::scheduler::Scheduler;
use super::{Demand, Present, Time, View};
use std::collections::BTreeMap;

impl Scheduler {
    /// The workers of pools, and what runs there or waits. Who knows the graph adds what will be ready later.
    pub fn view(&self) -> View {
        let workers = self.workers.iter().filter_map(|(_, worker)| {
            let pool = worker.has.pool?;
            Some(Present { worker: worker.id, pool, idle: worker.idle, draining: worker.draining })
        });
        // What others run asks nothing of the pools.
        let mut elsewhere: BTreeMap<u32, u64> = BTreeMap::new();
        for (_, worker) in self.workers.iter().filter(|(_, worker)| worker.has.pool.is_none()) {
            for (task, _) in worker.lane.running().chain(worker.lane.waiting()) {
                if let Some(entry) = self.tasks.get(&task) {
                    *elsewhere.entry(entry.line).or_default() += 1;
                }
            }
        }
        let demand = self.lines.iter().zip(0..).filter_map(|(line, at)| {
            let waiting = line.len() as u64 * u64::from(line.members);
            let places = waiting + line.live.saturating_sub(elsewhere.get(&at).copied().unwrap_or(0));
            let each = line.first().and_then(|(.., first)| self.expected(first));
            let ready = Time::ZERO;
            (places > 0).then_some(Demand { needs: line.needs, places, together: line.members, each, ready })
        });
        View { workers: workers.collect(), demand: demand.collect() }
    }
}
