//! The workers: what each has, runs and holds, and where there is room.

use super::devices::Devices;
use super::hash::ByNumber;
use super::holders::{Holders, MOST_HELD};
use super::index::Index;
use super::{Blob, Capacity, Lane, Needs, PoolId, TaskId, Time, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An attempt of a task, by its number.
pub(super) type Attempt = (TaskId, u32);

/// The work that waits in a worker's lane takes about this long, in microseconds: it hides the way to the scheduler
/// and back.
pub(super) const QUEUE_MICROS: u64 = 5_000;
/// Attempts that may wait in a worker's lane.
pub(super) const QUEUE_MOST: usize = 1024;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) has: Capacity,
    /// What it runs and what waits there, as far as it has said.
    pub(super) lane: Lane<Attempt>,
    pub(super) devices: Devices,
    /// It takes nothing new: it will go.
    pub(super) draining: bool,
    /// It takes nothing new but the task that it is kept for.
    pub(super) reserved: bool,
    /// What the attempts that wait in its lane will take of its cores, in microseconds.
    pub(super) queued_micros: u64,
    /// Since when it runs nothing, if it runs nothing.
    pub(super) idle: Option<Time>,
    /// How many that wait in its lane were asked back.
    pub(super) recalled: usize,
    /// What it made or read last, the oldest first.
    held: VecDeque<Blob>,
}

impl Worker {
    /// Whether an attempt would start at once.
    pub(super) fn has_room(&self, needs: &Needs) -> bool {
        self.lane.has_room(needs) && self.devices.fit(needs) && self.has.is_where(needs)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.draining && !self.reserved
    }

    /// How much longer its lane may get, in microseconds.
    fn queue_room(&self) -> u64 {
        if self.lane.waiting().len() >= QUEUE_MOST {
            return 0;
        }
        let cores = (self.has.millicores / 1000).max(1);
        (QUEUE_MICROS * cores).saturating_sub(self.queued_micros)
    }

    /// What part of `needs` is free, in thousandths of the scarcest. It only grows while nothing new is taken: as long
    /// as somebody waits in the lane, who will take what becomes free, it is nothing.
    pub(super) fn progress(&self, needs: &Needs) -> u64 {
        if self.lane.waiting().len() > 0 {
            return 0;
        }
        let part = |free: u64, needed: u64| match needed {
            0 => 1000,
            needed => (u128::from(free) * 1000 / u128::from(needed)).min(1000) as u64,
        };
        let cores = part(self.lane.free_millicores(), needs.millicores);
        let memory = part(self.lane.free_memory(), needs.memory);
        let devices = part(self.devices.free(), needs.gpus);
        cores.min(memory).min(devices)
    }

    /// How many attempts with such needs would start at once, up to `most`.
    pub(super) fn places(&self, needs: &Needs, most: u32) -> u32 {
        if !self.has_room(needs) {
            return 0;
        }
        let part = |free: u64, needed: u64| free.checked_div(needed).unwrap_or(u64::MAX);
        let cores = part(self.lane.free_millicores(), needs.millicores);
        let memory = part(self.lane.free_memory(), needs.memory);
        let most = cores.min(memory).min(u64::from(most)) as u32;
        if needs.devices() == 0 {
            return most;
        }
        let mut devices = self.devices.clone();
        (0..most).take_while(|_| devices.take(needs).is_some()).count() as u32
    }
}

/// Numbers for the search of room: cores and memory that are free, the best device share and device memory, whole
/// devices, and 1 if it is open or 2 if it also has the coordinator's files.
const ROOM: usize = 6;

/// Numbers for the search of a lane that may get longer: microseconds, all cores and all memory, and open as above.
const QUEUE: usize = 4;

/// All workers, in slots that are used again.
#[derive(Debug)]
pub(super) struct Workers {
    slots: Vec<Option<Worker>>,
    vacant: Vec<u32>,
    ids: ByNumber<WorkerId, u32>,
    /// Of workers without devices, and of those with.
    room: [Index<ROOM>; 2],
    queue: Index<QUEUE>,
    backlog: Index<1>,
    /// Workers that changed since the indices were last brought up to date. What ends and starts again in one step
    /// changes nothing in the end, and who searches nothing need not wait for the indices.
    stale: Vec<u32>,
    holders: Holders,
    /// How many workers there are of each kind that take new work.
    kinds: BTreeMap<Capacity, u32>,
    /// How many of them there are of each pool.
    pools: BTreeMap<PoolId, u32>,
    /// Thousandths of cores and of devices, of all workers.
    total: (u64, u64),
    machines: BTreeMap<u32, BTreeSet<u32>>,
}

impl Workers {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            ids: ByNumber::default(),
            room: [Index::new(), Index::new()],
            queue: Index::new(),
            backlog: Index::new(),
            stale: Vec::new(),
            holders: Holders::default(),
            kinds: BTreeMap::new(),
            pools: BTreeMap::new(),
            total: (0, 0),
            machines: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Takes a worker on; nothing if its name is taken.
    pub(super) fn join(&mut self, id: WorkerId, has: Capacity, now: Time) -> Option<u32> {
        if self.ids.contains_key(&id) {
            return None;
        }
        let slot = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.ids.insert(id, slot);
        self.total.0 = self.total.0.saturating_add(has.millicores);
        self.total.1 += has.devices.len() as u64 * super::WHOLE;
        self.machines.entry(has.machine).or_default().insert(slot);
        *self.kinds.entry(kind(&has)).or_default() += 1;
        has.pool.iter().for_each(|pool| *self.pools.entry(*pool).or_default() += 1);
        self.slots[slot as usize] = Some(Worker {
            id,
            lane: Lane::new(has.millicores, has.memory),
            devices: Devices::new(&has.devices),
            has,
            draining: false,
            reserved: false,
            queued_micros: 0,
            idle: Some(now),
            recalled: 0,
            held: VecDeque::new(),
        });
        self.changed(slot);
        Some(slot)
    }

    /// Lets a worker go; with it, the last of its kind may be gone.
    pub(super) fn leave(&mut self, id: WorkerId) -> Option<(u32, Worker)> {
        let slot = self.ids.remove(&id)?;
        let worker = self.slots[slot as usize].take()?;
        self.vacant.push(slot);
        self.total.0 = self.total.0.saturating_sub(worker.has.millicores);
        self.total.1 -= worker.has.devices.len() as u64 * super::WHOLE;
        if !worker.draining {
            self.forget_kind(&worker.has);
        }
        if let Some(machine) = self.machines.get_mut(&worker.has.machine) {
            machine.remove(&slot);
            if machine.is_empty() {
                self.machines.remove(&worker.has.machine);
            }
        }
        worker.held.iter().for_each(|blob| self.holders.remove(*blob, slot));
        self.changed(slot);
        Some((slot, worker))
    }

    pub(super) fn drain(&mut self, id: WorkerId) -> Option<u32> {
        let slot = self.slot(id)?;
        let worker = self.get_mut(slot).filter(|worker| !worker.draining)?;
        worker.draining = true;
        let has = worker.has.clone();
        self.forget_kind(&has);
        self.changed(slot);
        Some(slot)
    }

    fn forget_kind(&mut self, has: &Capacity) {
        one_less(&mut self.kinds, &kind(has));
        has.pool.iter().for_each(|pool| one_less(&mut self.pools, pool));
    }

    pub(super) fn slot(&self, id: WorkerId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Worker> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// For changes; [`Workers::changed`] must follow.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Worker> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Worker)> {
        self.slots.iter().enumerate().filter_map(|(slot, worker)| Some((slot as u32, worker.as_ref()?)))
    }

    /// The kinds of workers that take new work, and how many there are of each.
    pub(super) fn kinds(&self) -> &BTreeMap<Capacity, u32> {
        &self.kinds
    }

    /// How many workers of a pool take new work.
    pub(super) fn of_pool(&self, pool: PoolId) -> u32 {
        self.pools.get(&pool).copied().unwrap_or(0)
    }

    /// Thousandths of cores and of devices, of all workers.
    pub(super) fn total(&self) -> (u64, u64) {
        self.total
    }

    /// Notes that a worker changed.
    pub(super) fn changed(&mut self, slot: u32) {
        if self.stale.last() != Some(&slot) {
            self.stale.push(slot);
        }
    }

    /// Brings the indices up to date.
    pub(super) fn refresh(&mut self) {
        while let Some(slot) = self.stale.pop() {
            self.index(slot);
        }
    }

    fn index(&mut self, slot: u32) {
        let (mut room, mut queue, mut backlog) = ([[0; ROOM]; 2], [0; QUEUE], [0]);
        if let Some(worker) = self.get(slot) {
            backlog = [(worker.lane.waiting().len() - worker.recalled) as u64];
            if worker.is_open() {
                let open = 1 + u64::from(worker.has.files);
                let [share, memory, whole] = worker.devices.most();
                let lane = &worker.lane;
                // Who comes now waits behind others, unless it needs nothing.
                let behind = lane.waiting().len() > 0;
                let (cores, bytes) = if behind { (0, 0) } else { (lane.free_millicores(), lane.free_memory()) };
                let with_devices = usize::from(!worker.has.devices.is_empty());
                room[with_devices] = [cores, bytes, share, memory, whole, open];
                queue = [worker.queue_room(), worker.has.millicores, worker.has.memory, open];
            }
        }
        let [without, with] = room;
        self.room[0].set(slot, without);
        self.room[1].set(slot, with);
        self.queue.set(slot, queue);
        self.backlog.set(slot, backlog);
    }

    /// The emptiest worker with room, but for one; a worker without devices for a task that needs none, if there is.
    pub(super) fn with_room(&mut self, needs: &Needs, but: Option<u32>) -> Option<u32> {
        let share = needs.share();
        let whole = if share == super::WHOLE { needs.devices() } else { 0 };
        let open = 1 + u64::from(needs.files);
        let want = [needs.millicores, needs.memory, share, needs.gpu_memory, whole, open];
        self.refresh();
        let fits = |slot| Some(slot) != but && self.get(slot).is_some_and(|worker| worker.has_room(needs));
        let without = || self.room[0].find(&want, fits);
        let with = || self.room[1].find(&want, fits);
        if needs.on_device() { with() } else { without().or_else(with) }
    }

    /// The open worker with room that holds most bytes of these inputs; else one on the same machine as a holder.
    pub(super) fn near(&self, needs: &Needs, inputs: &[(Blob, u64)]) -> Option<u32> {
        let has_room = |slot: &u32| self.get(*slot).is_some_and(|worker| worker.is_open() && worker.has_room(needs));
        let holders = self.holders.of(inputs);
        let itself = holders.iter().map(|(slot, _)| *slot).find(has_room);
        let beside = || {
            let (first, _) = holders.first()?;
            let machine = self.machines.get(&self.get(*first)?.has.machine)?;
            machine.iter().take(8).copied().find(has_room)
        };
        itself.or_else(beside)
    }

    /// How many bytes of these inputs a worker holds.
    pub(super) fn bytes_held(&self, inputs: &[(Blob, u64)], slot: u32) -> u64 {
        self.holders.bytes(inputs, slot)
    }

    pub(super) fn hold(&mut self, slot: u32, blob: Blob) {
        if self.get(slot).is_some()
            && self.holders.add(blob, slot)
            && let Some(worker) = self.get_mut(slot)
        {
            worker.held.push_back(blob);
            if worker.held.len() > MOST_HELD
                && let Some(oldest) = worker.held.pop_front()
            {
                self.holders.remove(oldest, slot);
            }
        }
    }

    /// The worker whose lane may best take one more attempt of so many microseconds.
    pub(super) fn with_queue(&mut self, needs: &Needs, micros: u64) -> Option<u32> {
        let want = [micros.max(1), needs.millicores, needs.memory, 1 + u64::from(needs.files)];
        self.refresh();
        self.queue.find(&want, |_| true)
    }

    /// Whether a worker's lane may take one more attempt of so many microseconds.
    pub(super) fn may_queue(&self, slot: u32, needs: &Needs, micros: u64) -> bool {
        self.get(slot)
            .is_some_and(|worker| worker.is_open() && worker.queue_room() >= micros.max(1) && worker.has.fits(needs))
    }

    /// The worker with the longest lane that is not asked back yet, but for one.
    pub(super) fn with_backlog(&mut self, but: u32) -> Option<u32> {
        self.refresh();
        self.backlog.find(&[1], |slot| slot != but)
    }
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Workers of one kind differ in their machine and pool only.
fn kind(has: &Capacity) -> Capacity {
    Capacity { machine: 0, pool: None, ..has.clone() }
}
