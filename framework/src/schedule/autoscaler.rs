//! How many workers there should be: starts them before they are needed, and stops them when they are not.

use super::{Capacity, Needs, PoolId, Time, WorkerId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Workers of one kind that can be started and stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub id: PoolId,
    /// What each worker has.
    pub capacity: Capacity,
    /// There are always so many.
    pub min: u32,
    /// There are never more.
    pub max: u32,
    /// How long a worker is idle before it is stopped.
    pub idle: Time,
    /// How long a worker takes from the order to its first task.
    pub startup: Time,
    /// What an hour of a worker costs, in any currency.
    pub price: f64,
}

/// One order of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// Tasks that run, wait, or will be ready at some time, as the graph says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// What each needs.
    pub needs: Needs,
    /// How many places they take: of a gang, one for each member.
    pub places: u64,
    /// How many of them must run at the same time.
    pub together: u32,
    /// How long each takes, if that is known.
    pub each: Option<Time>,
    /// When they are ready.
    pub ready: Time,
}

/// A worker of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub worker: WorkerId,
    /// Of which pool.
    pub pool: PoolId,
    /// Since when it runs nothing, if it runs nothing.
    pub idle: Option<Time>,
    /// It was told to stop.
    pub draining: bool,
}

/// What the autoscaler sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The workers of the pools.
    pub workers: Vec<Present>,
    /// What the pools are to serve.
    pub demand: Vec<Demand>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Start a worker. [`Autoscaler::came`] must hear of it.
    Start {
        /// Of which pool.
        pool: PoolId,
        /// By which order.
        order: OrderId,
    },
    /// Forget an order: its worker did not come. If it comes yet, it must be turned away.
    Abandon(OrderId),
    /// Stop a worker that is idle.
    Stop(WorkerId),
}

/// An order is given up after so many times the pool's usual start…
const PATIENCE: u32 = 3;
/// …and this.
const SLACK: Time = Time::from_secs(10);
const FIRST_BACKOFF: Time = Time::from_secs(1);
const LONGEST_BACKOFF: Time = Time::from_secs(300);
/// So many workers of a pool may come and fall without having done anything; then their successors are waited for.
const MOST_FALLEN: u32 = 5;
const FIRST_REST: Time = Time::from_millis(50);
/// Work that is done sooner than this needs no further worker, however fast workers start.
const LEAST_HORIZON: Time = Time::from_secs(1);

/// Decides how many workers each pool has.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    /// The cheapest first.
    pools: Vec<State>,
    orders: u64,
}

#[derive(Clone, Debug)]
struct State {
    pool: Pool,
    /// Orders whose worker has not come, and when they were given.
    ordered: BTreeMap<OrderId, Time>,
    failures: u32,
    /// Workers that came and fell without having done anything, one after the other.
    fallen: u32,
    /// No order is given before.
    pause: Time,
}

impl Autoscaler {
    /// Of these pools.
    pub fn new(pools: Vec<Pool>) -> Self {
        let state = |pool| State { pool, ordered: BTreeMap::new(), failures: 0, fallen: 0, pause: Time::ZERO };
        let mut pools: Vec<State> = pools.into_iter().map(state).collect();
        pools.sort_by(|a, b| a.pool.price.total_cmp(&b.pool.price).then(a.pool.id.cmp(&b.pool.id)));
        Self { pools, orders: 0 }
    }

    /// The worker of an order has come; whether the order still stood. If not, it must be turned away.
    pub fn came(&mut self, order: OrderId) -> bool {
        let state = self.pools.iter_mut().find(|state| state.ordered.contains_key(&order));
        let Some(state) = state else { return false };
        state.ordered.remove(&order);
        state.failures = 0;
        true
    }

    /// A worker of a pool is lost that had come; `served` tells whether it had done anything. While they only come to
    /// fall, more and more time passes before another is asked for.
    pub fn lost(&mut self, now: Time, pool: PoolId, served: bool) {
        let Some(state) = self.pools.iter_mut().find(|state| state.pool.id == pool) else { return };
        state.fallen = if served { 0 } else { state.fallen.saturating_add(1) };
        if let Some(more) = state.fallen.checked_sub(MOST_FALLEN + 1) {
            let rest = FIRST_REST.saturating_mul(1 << more.min(16)).min(LONGEST_BACKOFF);
            state.pause = state.pause.max(now + rest);
        }
    }

    /// The worker of an order can't be started, or died before it came.
    pub fn failed(&mut self, now: Time, order: OrderId) {
        if let Some(state) = self.pools.iter_mut().find(|state| state.ordered.contains_key(&order)) {
            state.give_up(now, order);
        }
    }

    /// When to look again even if nothing happens.
    pub fn next(&self, now: Time, view: &View) -> Option<Time> {
        let of_pool = |state: &State| {
            let overdue = state.ordered.values().map(|at| *at + state.patience()).min();
            let idle = view.workers.iter().filter(|present| present.pool == state.pool.id && !present.draining);
            let idle = idle.filter_map(|present| Some(present.idle? + state.pool.idle)).min();
            let ready = view.demand.iter().map(|demand| demand.ready.saturating_sub(state.pool.startup)).min();
            [overdue, idle, ready, Some(state.pause)].into_iter().flatten().filter(|at| *at > now).min()
        };
        self.pools.iter().filter_map(of_pool).min()
    }

    /// Says what to start and to stop.
    pub fn step(&mut self, now: Time, view: &View) -> Vec<Scale> {
        let mut scales = Vec::new();
        for state in &mut self.pools {
            let overdue = state.ordered.iter().filter(|(_, at)| **at + state.patience() <= now);
            for order in overdue.map(|(order, _)| *order).collect::<Vec<_>>() {
                state.give_up(now, order);
                scales.push(Scale::Abandon(order));
            }
        }
        let soon = self.wanted(view, |pool| now + pool.startup);
        // What is needed again before it would be missed is not stopped.
        let later = self.wanted(view, |pool| now + pool.startup + pool.idle);
        for (at, state) in self.pools.iter_mut().enumerate() {
            let here = view.workers.iter().filter(|present| present.pool == state.pool.id);
            let (working, leaving): (Vec<Present>, Vec<Present>) = here.partition(|present| !present.draining);
            let ordered = state.ordered.len() as u32;
            let taken = working.len() as u32 + ordered;
            let most = state.pool.max.saturating_sub(leaving.len() as u32);
            if now >= state.pause {
                for _ in taken..soon[at].min(most) {
                    self.orders += 1;
                    let order = OrderId(self.orders);
                    state.ordered.insert(order, now);
                    scales.push(Scale::Start { pool: state.pool.id, order });
                }
            }
            let keep = later[at].max(soon[at]).saturating_sub(ordered);
            let surplus = (working.len() as u32).saturating_sub(keep);
            let mut idle: Vec<(Time, Reverse<WorkerId>)> = working
                .iter()
                .filter_map(|present| Some((present.idle?, Reverse(present.worker))))
                .filter(|(since, _)| taken > state.pool.max || *since + state.pool.idle <= now)
                .collect();
            idle.sort_unstable();
            scales.extend(idle.iter().take(surplus as usize).map(|(_, worker)| Scale::Stop(worker.0)));
        }
        scales
    }

    /// How many workers each pool should have for what is ready by some time. Each demand goes to the cheapest pool
    /// that can serve it, and what is too much for that to the next.
    fn wanted(&self, view: &View, by: impl Fn(&Pool) -> Time) -> Vec<u32> {
        /// Parts of a worker are counted in 2^-20.
        const ONE: u128 = 1 << 20;
        let mut load = vec![0u128; self.pools.len()];
        let mut least = vec![0u64; self.pools.len()];
        for demand in &view.demand {
            let mut left = u128::from(demand.places);
            for (at, State { pool, .. }) in self.pools.iter().enumerate() {
                let holds = u128::from(pool.capacity.holds(&demand.needs, u32::MAX));
                if holds == 0 || demand.ready > by(pool) || left == 0 {
                    continue;
                }
                let mut workers = left * ONE / holds;
                let together = u128::from(demand.together).min(left);
                if let Some(each) = demand.each {
                    // Short work is done by fewer before more could come.
                    let horizon = pool.startup.max(LEAST_HORIZON).as_nanos();
                    let fewer = left * each.as_nanos().max(1) * ONE / holds / horizon;
                    // The members of a gang wait for each other.
                    let gang = if together > 1 { together * ONE / holds } else { 0 };
                    workers = workers.min(fewer.max(gang));
                }
                let free = (u128::from(pool.max) * ONE).saturating_sub(load[at]);
                let taken = workers.min(free);
                load[at] += taken;
                least[at] = least[at].max(together.div_ceil(holds).max(1) as u64);
                if taken == workers {
                    left = 0;
                } else {
                    left -= (taken * holds / ONE).min(left);
                }
            }
        }
        let wanted = |(at, state): (usize, &State)| {
            let workers = load[at].div_ceil(ONE).max(u128::from(least[at]));
            workers.clamp(u128::from(state.pool.min), u128::from(state.pool.max.max(state.pool.min))) as u32
        };
        self.pools.iter().enumerate().map(wanted).collect()
    }
}

impl State {
    fn patience(&self) -> Time {
        self.pool.startup.saturating_mul(PATIENCE) + SLACK
    }

    fn give_up(&mut self, now: Time, order: OrderId) {
        self.ordered.remove(&order);
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.pause = now + doubled.min(LONGEST_BACKOFF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: PoolId = PoolId(1);

    fn pool(min: u32, max: u32) -> Pool {
        let capacity = Capacity { millicores: 4000, memory: u64::MAX, ..Capacity::default() };
        let (idle, startup) = (Time::from_secs(60), Time::from_secs(20));
        Pool { id: CPU, capacity, min, max, idle, startup, price: 1.0 }
    }

    fn demand(places: u64, ready: u64, each: Option<u64>) -> Demand {
        let needs = Needs { millicores: 1000, ..Needs::default() };
        Demand { needs, places, together: 1, each: each.map(Time::from_secs), ready: Time::from_secs(ready) }
    }

    fn present(worker: u64, idle: Option<u64>) -> Present {
        Present { worker: WorkerId(worker), pool: CPU, idle: idle.map(Time::from_secs), draining: false }
    }

    fn starts(scales: &[Scale]) -> usize {
        scales.iter().filter(|scale| matches!(scale, Scale::Start { .. })).count()
    }

    fn step(scaler: &mut Autoscaler, now: u64, workers: &[Present], demand: &[Demand]) -> Vec<Scale> {
        let view = View { workers: workers.to_vec(), demand: demand.to_vec() };
        scaler.step(Time::from_secs(now), &view)
    }

    #[test]
    fn as_many_as_are_needed_come_and_never_more_than_the_most() {
        let mut scaler = Autoscaler::new(vec![pool(0, 10)]);
        assert_eq!(starts(&step(&mut scaler, 0, &[], &[demand(9, 0, None)])), 3);
        assert_eq!(starts(&step(&mut scaler, 1, &[], &[demand(9, 0, None)])), 0, "they are on their way");
        assert_eq!(starts(&step(&mut scaler, 2, &[], &[demand(900, 0, None)])), 7);
    }

    #[test]
    fn a_worker_starts_before_its_task_is_ready_and_not_long_before() {
        let mut scaler = Autoscaler::new(vec![pool(0, 10)]);
        assert_eq!(step(&mut scaler, 0, &[], &[demand(1, 100, None)]), []);
        let view = View { workers: Vec::new(), demand: vec![demand(1, 100, None)] };
        assert_eq!(scaler.next(Time::ZERO, &view), Some(Time::from_secs(80)));
        assert_eq!(starts(&step(&mut scaler, 80, &[], &[demand(1, 100, None)])), 1);
    }

    #[test]
    fn idle_workers_stop_after_a_while_down_to_the_least() {
        let mut scaler = Autoscaler::new(vec![pool(1, 10)]);
        let workers = [present(1, Some(0)), present(2, Some(5)), present(3, None)];
        assert_eq!(step(&mut scaler, 59, &workers, &[demand(1, 0, None)]), []);
        assert_eq!(
            step(&mut scaler, 65, &workers, &[demand(1, 0, None)]),
            [Scale::Stop(WorkerId(1)), Scale::Stop(WorkerId(2))]
        );
        let idle = [present(4, Some(0))];
        assert_eq!(step(&mut scaler, 100, &idle, &[]), [], "one always stays");
    }

    #[test]
    fn what_is_needed_again_soon_does_not_stop() {
        let mut scaler = Autoscaler::new(vec![pool(0, 10)]);
        let idle = [present(1, Some(0))];
        assert_eq!(step(&mut scaler, 100, &idle, &[demand(1, 170, None)]), []);
        assert_eq!(step(&mut scaler, 100, &idle, &[demand(1, 190, None)]), [Scale::Stop(WorkerId(1))]);
    }

    #[test]
    fn short_work_brings_few_workers() {
        let mut scaler = Autoscaler::new(vec![pool(0, 100)]);
        assert_eq!(starts(&step(&mut scaler, 0, &[], &[demand(160, 0, Some(1))])), 2, "160 s / 4 cores / 20 s");
    }

    #[test]
    fn a_worker_that_does_not_come_is_asked_for_again_with_pauses() {
        let mut scaler = Autoscaler::new(vec![pool(0, 1)]);
        let wanted = [demand(1, 0, None)];
        let (mut orders, mut abandoned) = (Vec::new(), 0);
        for now in 0..3000 {
            for scale in step(&mut scaler, now, &[], &wanted) {
                match scale {
                    Scale::Start { .. } => orders.push(now),
                    Scale::Abandon(_) => abandoned += 1,
                    Scale::Stop(_) => panic!("there is nobody to stop"),
                }
            }
        }
        assert!(orders.len() - abandoned <= 1);
        let waits: Vec<u64> = orders.windows(2).map(|pair| pair[1] - pair[0] - 70).collect();
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn workers_that_only_come_to_fall_are_replaced_with_pauses() {
        let mut scaler = Autoscaler::new(vec![pool(1, 1)]);
        let (mut now, mut waits) = (0, Vec::new());
        for round in 0..20 {
            let begun = now;
            let order = loop {
                match scaler.step(Time::from_millis(now), &View::default())[..] {
                    [Scale::Start { order, .. }] => break order,
                    _ => now += 1,
                }
            };
            waits.push(now - begun);
            assert!(scaler.came(order));
            scaler.lost(Time::from_millis(now), CPU, round == 12);
        }
        assert_eq!(waits[..13], [0, 0, 0, 0, 0, 0, 50, 100, 200, 400, 800, 1600, 3200]);
        assert_eq!(waits[13..], [0, 0, 0, 0, 0, 0, 50], "one that did something is what they were waited for");
    }

    #[test]
    fn a_worker_that_comes_too_late_is_turned_away() {
        let mut scaler = Autoscaler::new(vec![pool(0, 1)]);
        let scales = step(&mut scaler, 0, &[], &[demand(1, 0, None)]);
        let [Scale::Start { order, .. }] = scales[..] else { panic!("{scales:?}") };
        assert_eq!(step(&mut scaler, 70, &[], &[]), [Scale::Abandon(order)]);
        assert!(!scaler.came(order));
    }

    #[test]
    fn the_cheapest_pool_that_can_serves_and_the_next_takes_the_rest() {
        let dear = Pool { id: PoolId(2), price: 5.0, ..pool(0, 10) };
        let mut scaler = Autoscaler::new(vec![dear, pool(0, 2)]);
        let scales = step(&mut scaler, 0, &[], &[demand(12, 0, None)]);
        let of =
            |id: u32| scales.iter().filter(|scale| matches!(scale, Scale::Start { pool, .. } if pool.0 == id)).count();
        assert_eq!((of(1), of(2)), (2, 1));
    }

    #[test]
    fn a_gang_gets_all_its_workers_however_short_it_is() {
        let mut scaler = Autoscaler::new(vec![pool(0, 10)]);
        let needs = Needs { millicores: 4000, ..Needs::default() };
        let gang = Demand { needs, places: 4, together: 4, ..demand(4, 0, Some(1)) };
        assert_eq!(starts(&step(&mut scaler, 0, &[], &[gang])), 4);
    }
}
