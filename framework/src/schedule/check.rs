//! Whether the scheduler's books are right.

use super::scheduler::Scheduler;
use super::task::State;
use super::workers::{QUEUE_MICROS, QUEUE_MOST};
use super::{Needs, Share};
use std::collections::BTreeMap;

impl Scheduler {
    /// Fails if a worker has given more than it has, or an attempt is not where its task says.
    pub(super) fn check(&self) {
        let mut lives = 0;
        for (slot, worker) in self.workers.iter() {
            let mut shares: Vec<Share> = Vec::new();
            let (mut millicores, mut memory, mut micros, mut recalled) = (0, 0, 0, 0);
            let waits = worker.lane.waiting().map(|attempt| (attempt, true));
            for ((id, number), waits) in worker.lane.running().map(|attempt| (attempt, false)).chain(waits) {
                let entry = &self.tasks[&id];
                let live = entry.live.iter().find(|live| live.attempt == number && live.slot == slot);
                let live = live.expect("the task knows its attempt");
                let Needs { millicores: cores, memory: bytes, .. } = self.lines.get(entry.line).needs;
                assert_eq!(live.queued, waits, "{id:?} knows whether it waits");
                shares.extend(&live.devices);
                lives += 1;
                if waits {
                    micros += u64::from(live.micros);
                    recalled += usize::from(live.stopping);
                } else {
                    millicores += cores;
                    memory += bytes;
                }
            }
            assert_eq!(millicores + worker.lane.free_millicores(), worker.has.millicores);
            assert!(memory <= worker.has.memory);
            assert_eq!((micros, recalled), (worker.queued_micros, worker.recalled), "{:?}", worker.id);
            let waits = worker.lane.waiting().len();
            let most = QUEUE_MICROS * (worker.has.millicores / 1000).max(1);
            assert!(micros <= most && waits <= QUEUE_MOST, "{:?} has {waits} waiting, of {micros} µs", worker.id);
            assert!(!worker.draining || recalled == waits, "{:?} will go and keeps what waits there", worker.id);
            let mut used: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            for share in &shares {
                let device = used.entry(share.device).or_default();
                device.0 += u64::from(share.share);
                device.1 += share.memory;
            }
            for (device, (share, memory)) in used {
                assert!(share <= 1000 && memory <= worker.has.devices[device as usize], "device {device} fits");
            }
            assert!(worker.devices.without(shares.iter()), "devices come back");
            let mut lane = worker.lane.clone();
            assert_eq!(lane.start_next(), None, "who can start has started");
        }
        let waiting = self.tasks.values().filter(|entry| entry.state == State::Waiting).count();
        let incomplete = self.tasks.values().filter(|entry| entry.vacancies.is_some());
        assert_eq!(waiting + incomplete.clone().count(), self.lines.waiting());
        for entry in incomplete {
            let members = self.lines.get(entry.line).members as usize;
            let places = entry.vacancies.map_or(0, |vacancies| vacancies.places as usize);
            assert!(entry.state == State::Active && places > 0 && entry.live.len() + places == members);
        }
        assert_eq!(self.tasks.values().map(|entry| entry.live.len()).sum::<usize>(), lives);
        assert_eq!(self.tasks.values().filter(|entry| entry.is_open()).count(), self.open());
        for entry in self.tasks.values() {
            let active = matches!(entry.state, State::Waiting | State::Backoff(_));
            assert!(!active || entry.live.is_empty(), "{:?}", entry.id);
        }
    }
}
