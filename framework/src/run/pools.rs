//! What starts workers and lets them go: the autoscaler decides, a fleet of each pool does it.

use super::coordinator::Coordinator;
use super::crew::Elsewhere;
use super::event::Event;
use super::gpus::Dealt;
use crate::fleet::{Fleet, LocalFleet, Recipe};
use crate::pipeline;
use crate::schedule::{self, Autoscaler, Capacity, OrderId, Pool, PoolId, Scale, Scheduler, Time, View, WorkerId};
use crate::worker::Gpus;
use crate::{Error, Result, machine};
use std::collections::BTreeMap;

/// How long a worker on this machine takes to its first task, unless the pool says.
const LOCAL_START: Time = Time::from_millis(200);
/// Whatever happens, the pools are looked after so often at most…
const PAUSE: Time = Time::from_millis(20);
/// …and so often at least.
const PULSE: Time = Time::from_millis(100);
/// Workers that do not come, one after another, until the fleet is given up.
const MOST_STILLBORN: u32 = 5;

/// The pools of a run.
pub(super) struct Pools {
    scaler: Autoscaler,
    /// By number.
    pools: Vec<Started>,
    /// Those that were started and have not ended, by name.
    workers: BTreeMap<String, Worker>,
    /// Whether the run goes on without them: a worker joined that none of them started, or there are many runs.
    goes_on: bool,
    /// What there is to say of pools whose workers do not come.
    warnings: Vec<Event>,
    last: Time,
    due: Time,
}

/// A pool and what starts its workers.
struct Started {
    pool: Pool,
    name: String,
    fleet: Box<dyn Fleet>,
    count: u64,
    /// How many of its workers in a row did not come.
    stillborn: u32,
}

struct Worker {
    pool: PoolId,
    order: OrderId,
    joined: bool,
}

impl Pools {
    /// The pools of workers that will join at an address, with those of this machine's CUDA devices that were dealt to
    /// each.
    pub(super) fn new(elsewhere: &Elsewhere, join: &str, gpus: &Gpus) -> Self {
        let dealt = Dealt::of(gpus, &elsewhere.pools).pools;
        let most = |pool: &pipeline::Pool, devices: &[usize]| match pool.gpus {
            gpus if gpus > 0 && !devices.is_empty() => (pool.max as usize).min(devices.len() / gpus as usize),
            _ => pool.max as usize,
        };
        let unsaid = elsewhere.pools.iter().zip(&dealt).filter(|(pool, _)| pool.memory == 0);
        let sharing: usize = unsaid.map(|(pool, devices)| most(pool, devices)).sum();
        // What its tasks may take: what the pool says, or else as much as others, of this machine, where all are.
        let room = |pool: &pipeline::Pool| match pool.memory {
            0 => machine::memory().map(|memory| memory / sharing.max(1) as u64),
            memory => Some(memory),
        };
        let started = |(id, (pool, devices)): (u32, (&pipeline::Pool, Vec<usize>))| {
            let each = if devices.is_empty() { 0 } else { pool.gpus as usize };
            let recipe = Recipe {
                join: join.to_owned(),
                token: elsewhere.token.clone(),
                pool: pool.name.clone(),
                cores: pool.cpus,
                gpus: each,
                room: room(pool),
                memory: elsewhere.memory,
                cache: elsewhere.cache.clone(),
            };
            let memory = gpus.memory().into_iter().enumerate().filter(|(device, _)| devices.contains(device));
            let memory = vec![memory.map(|(_, memory)| memory).min().unwrap_or(0); each];
            let most = u32::try_from(most(pool, &devices)).unwrap_or(u32::MAX);
            let (pool, name) = (described(PoolId(id), pool, (room(pool), memory), most), pool.name.clone());
            Started { pool, name, fleet: Box::new(LocalFleet::new(recipe, devices)), count: 0, stillborn: 0 }
        };
        let pools: Vec<Started> = (0..).zip(elsewhere.pools.iter().zip(dealt)).map(started).collect();
        let scaler = Autoscaler::new(pools.iter().map(|started| started.pool.clone()).collect());
        Self {
            scaler,
            pools,
            workers: BTreeMap::new(),
            goes_on: false,
            warnings: Vec::new(),
            last: Time::ZERO,
            due: Time::ZERO,
        }
    }

    /// Tells a scheduler which workers may come.
    pub(super) fn announce(&self, scheduler: Scheduler) -> Scheduler {
        let pools = self.pools.iter().map(|started| &started.pool);
        pools.fold(scheduler, |scheduler, pool| scheduler.with_pool(pool.id, pool.capacity.clone(), pool.max))
    }

    /// The pools as the autoscaler knows them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().map(|started| &started.pool)
    }

    /// A worker has come that says what it is called and which pool it was started for; the pool, if that is so.
    pub(super) fn join(&mut self, name: &str, pool: &str) -> Option<PoolId> {
        let ours = self.workers.get_mut(name).zip(self.pools.iter_mut().find(|started| started.name == pool));
        let Some((worker, started)) = ours.filter(|(worker, started)| worker.pool == started.pool.id) else {
            self.goes_on = true;
            return None;
        };
        if !worker.joined {
            worker.joined = true;
            started.stillborn = 0;
            self.scaler.came(worker.order);
        }
        Some(worker.pool)
    }

    /// A worker is lost that had come; `served` tells whether it had done anything. Its process ends too, should it live
    /// yet, so that there are never more than the pool's most.
    ///
    /// # Errors
    /// It can't be stopped.
    pub(super) fn lose(&mut self, now: Time, pool: PoolId, name: &str, served: bool) -> Result<()> {
        self.scaler.lost(now, pool, served);
        self.end(name)
    }

    fn end(&mut self, name: &str) -> Result<()> {
        self.stir();
        match self.workers.remove(name) {
            Some(worker) => self.started(worker.pool).map_or(Ok(()), |started| started.fleet.stop(name)),
            None => Ok(()),
        }
    }

    /// Something happened: the pools are looked after soon.
    pub(super) fn stir(&mut self) {
        self.due = self.due.min(self.last + PAUSE);
    }

    /// When the pools are to be looked after.
    pub(super) fn due(&self) -> Time {
        self.due
    }

    /// Starts the workers that are wanted, and gives those that are to go.
    ///
    /// # Errors
    /// Workers can't be started or do not come, again and again.
    pub(super) fn step(&mut self, now: Time, view: &View) -> Result<Vec<WorkerId>> {
        self.bury(now)?;
        let mut surplus = Vec::new();
        for scale in self.scaler.step(now, view) {
            match scale {
                Scale::Start { pool, order } => self.start(now, pool, order)?,
                Scale::Abandon(order) => self.abandon(order)?,
                Scale::Stop(worker) => surplus.push(worker),
            }
        }
        self.last = now;
        self.due = self.scaler.next(now, view).map_or(now + PULSE, |next| next.clamp(now + PAUSE, now + PULSE));
        Ok(surplus)
    }

    /// Forgets workers that ended. Of those that had joined the coordinator hears by itself.
    fn bury(&mut self, now: Time) -> Result<()> {
        let ended: Vec<_> = self.pools.iter_mut().flat_map(|started| started.fleet.ended()).collect();
        for ended in ended {
            if let Some(worker) = self.workers.remove(&ended.name)
                && !worker.joined
            {
                self.scaler.failed(now, worker.order);
                self.miss(worker.pool, &ended.how)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, now: Time, pool: PoolId, order: OrderId) -> Result<()> {
        let Some(started) = self.started(pool) else { return Ok(()) };
        started.count += 1;
        let name = format!("{}-{}", started.name, started.count);
        if let Err(error) = started.fleet.start(&name) {
            self.scaler.failed(now, order);
            return self.miss(pool, &error.to_string());
        }
        self.workers.insert(name, Worker { pool, order, joined: false });
        Ok(())
    }

    /// A worker has not come for so long that another is asked for.
    fn abandon(&mut self, order: OrderId) -> Result<()> {
        let named = self.workers.iter().find(|(_, worker)| worker.order == order);
        let Some((name, pool)) = named.map(|(name, worker)| (name.clone(), worker.pool)) else { return Ok(()) };
        self.end(&name)?;
        self.miss(pool, "no sign of life")
    }

    /// A worker that was started did not come. If it is one of many of its pool, and nobody else works for the run or is
    /// about to, the run is given up.
    fn miss(&mut self, pool: PoolId, how: &str) -> Result<()> {
        let others = self.goes_on || self.workers.values().any(|worker| worker.joined || worker.pool != pool);
        let Some(started) = self.started(pool) else { return Ok(()) };
        started.stillborn += 1;
        if started.stillborn < MOST_STILLBORN {
            return Ok(());
        }
        let message = format!("{MOST_STILLBORN} workers ended before they joined the run, the last with {how}");
        if others {
            started.stillborn = 0;
            let name = format!("pool {}", started.name);
            let message = format!("{message}; it is tried again, less and less often");
            self.warnings.push(Event::Warning { name, message });
            return Ok(());
        }
        Err(Error::unavailable(message)
            .help("start one by hand and see what it says: ropeway worker --join ADDRESS --token TOKEN"))
    }

    /// Whatever becomes of these workers, it goes on.
    pub(super) fn go_on(&mut self) {
        self.goes_on = true;
    }

    /// What there is to say, once.
    pub(super) fn warnings(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.warnings)
    }

    fn started(&mut self, pool: PoolId) -> Option<&mut Started> {
        self.pools.get_mut(pool.0 as usize)
    }
}

/// A pool for the autoscaler, of so many workers at most, each with so much memory and devices of so much.
fn described(id: PoolId, pool: &pipeline::Pool, (room, devices): (Option<u64>, Vec<u64>), max: u32) -> Pool {
    let capacity = Capacity {
        millicores: (pool.cpus * 1000.0).round() as u64,
        memory: room.unwrap_or(u64::MAX),
        devices,
        files: true,
        peers: true,
        pool: Some(id),
        ..Capacity::default()
    };
    let (idle, startup) = (pool.idle, pool.start.unwrap_or(LOCAL_START));
    Pool { id, capacity, min: pool.min.min(max), max, idle, startup, price: pool.price }
}

impl Coordinator<'_> {
    /// Starts workers for what waits or will, and lets those go that have nothing to do.
    pub(super) fn scale(&mut self) -> Result<()> {
        let now = self.options.clock.elapsed();
        if self.crew.due().is_none_or(|due| now < due) {
            return Ok(());
        }
        let mut view = self.scheduler.view();
        view.demand.extend(self.upcoming(now));
        let surplus = self.crew.scale(now, &view)?;
        self.crew.warnings().into_iter().try_for_each(|warning| self.tell_all(warning))?;
        for worker in surplus {
            self.step(schedule::Event::Draining(worker))?;
            self.crew.part(worker);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Ended;
    use crate::schedule::{Demand, Needs, Present};
    use crate::worker::Token;
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    /// Workers that only have names.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<BTreeSet<String>>>);

    impl Names {
        fn all(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().cloned().collect()
        }
    }

    /// Starts them; those of a stillborn fleet end at once.
    struct Fake {
        names: Names,
        stillborn: bool,
    }

    impl Fleet for Fake {
        fn start(&mut self, name: &str) -> Result<()> {
            assert!(self.names.0.lock().unwrap().insert(name.to_owned()), "{name} is new");
            Ok(())
        }

        fn stop(&mut self, name: &str) -> Result<()> {
            self.names.0.lock().unwrap().remove(name);
            Ok(())
        }

        fn ended(&mut self) -> Vec<Ended> {
            let names =
                if self.stillborn { std::mem::take(&mut *self.names.0.lock().unwrap()) } else { BTreeSet::new() };
            names.into_iter().map(|name| Ended { name, how: "exit status: 1".into() }).collect()
        }
    }

    /// One pool of up to three workers with a core each.
    fn pools(min: u32, stillborn: bool) -> (Pools, Names) {
        let (mut pools, mut names) = some(&["small"], min);
        pools.pools[0].fleet = Box::new(Fake { names: names[0].clone(), stillborn });
        (pools, names.remove(0))
    }

    /// Such pools.
    fn some(all: &[&str], min: u32) -> (Pools, Vec<Names>) {
        let token = Token::generate().unwrap();
        let (max, idle) = (3, Time::from_secs(5));
        let pool = |name: &&str| pipeline::Pool { name: (*name).into(), min, max, idle, ..Default::default() };
        let pools = all.iter().map(pool).collect();
        let elsewhere = Elsewhere { listen: String::new(), open: false, token, pools, memory: 0, cache: None };
        let mut pools = Pools::new(&elsewhere, "nowhere", &Gpus::default());
        let fake = |started: &mut Started| {
            let names = Names::default();
            started.fleet = Box::new(Fake { names: names.clone(), stillborn: false });
            names
        };
        let names = pools.pools.iter_mut().map(fake).collect();
        (pools, names)
    }

    fn demand(places: u64) -> Vec<Demand> {
        let needs = Needs { millicores: 1000, ..Needs::default() };
        vec![Demand { needs, places, together: 1, each: None, ready: Time::ZERO }]
    }

    fn idle(worker: u64, since: u64) -> Present {
        let (worker, idle) = (WorkerId(worker), Some(Time::from_secs(since)));
        Present { worker, pool: PoolId(0), idle, draining: false }
    }

    #[test]
    fn workers_come_for_work_and_go_without() {
        let (mut pools, names) = pools(0, false);
        let at = Time::from_secs;
        pools.step(at(0), &View::default()).unwrap();
        assert!(names.all().is_empty());
        pools.step(at(1), &View { workers: Vec::new(), demand: demand(2) }).unwrap();
        assert_eq!(names.all(), ["small-1", "small-2"]);
        assert_eq!(pools.join("small-1", "small"), Some(PoolId(0)));
        assert_eq!(pools.join("small-2", "small"), Some(PoolId(0)));
        assert_eq!(pools.join("guest", "small"), None);
        assert_eq!(pools.join("small-1", ""), None, "somebody else is called so");
        let workers = vec![idle(1, 10), idle(2, 10)];
        assert_eq!(pools.step(at(11), &View { workers: workers.clone(), demand: Vec::new() }).unwrap(), []);
        // Of those that were idle equally long the newest goes first.
        let all = [WorkerId(2), WorkerId(1)];
        assert_eq!(pools.step(at(15), &View { workers, demand: Vec::new() }).unwrap(), all);
    }

    #[test]
    fn a_lost_worker_is_replaced_and_never_lives_beside_its_successor() {
        let (mut pools, names) = pools(1, false);
        pools.step(Time::ZERO, &View::default()).unwrap();
        pools.join("small-1", "small").unwrap();
        pools.lose(Time::ZERO, PoolId(0), "small-1", true).unwrap();
        assert!(names.all().is_empty(), "its process may live yet");
        pools.step(Time::from_secs(1), &View::default()).unwrap();
        assert_eq!(names.all(), ["small-2"]);
    }

    #[test]
    fn workers_that_end_before_they_join_are_asked_for_again_with_pauses_and_then_given_up() {
        let (mut pools, _) = pools(1, true);
        let mut failed = None;
        for second in 0..60 {
            if let Err(error) = pools.step(Time::from_secs(second), &View::default()) {
                failed = Some((second, error.to_string()));
                break;
            }
        }
        let (second, error) = failed.unwrap();
        assert_eq!(error, "5 workers ended before they joined the run, the last with exit status: 1");
        assert!((1 + 2 + 4..60).contains(&second), "{second}");
    }

    #[test]
    fn a_pool_whose_workers_never_come_is_said_and_ends_no_run_that_others_work_for() {
        let (mut pools, _) = some(&["well", "broken"], 1);
        pools.pools[1].fleet = Box::new(Fake { names: Names::default(), stillborn: true });
        pools.step(Time::ZERO, &View::default()).unwrap();
        pools.join("well-1", "well").unwrap();
        let mut said = Vec::new();
        for second in 1..60 {
            let working = View { workers: vec![idle(1, 0)], demand: Vec::new() };
            pools.step(Time::from_secs(second), &working).unwrap();
            said.extend(pools.warnings());
        }
        let [Event::Warning { name, message }] = &said[..] else { panic!("{said:?}") };
        assert_eq!(name, "pool broken");
        assert!(message.contains("5 workers ended before they joined the run"), "{message}");
    }

    #[test]
    fn a_worker_that_never_joins_is_stopped_and_another_one_started() {
        let (mut pools, names) = pools(1, false);
        let mut seen = BTreeSet::new();
        let ended = (0..600).find_map(|second| {
            let ended = pools.step(Time::from_secs(second), &View::default()).err();
            assert!(names.all().len() <= 1);
            seen.extend(names.all());
            ended
        });
        assert_eq!(seen.len(), MOST_STILLBORN as usize);
        assert!(ended.unwrap().to_string().ends_with("the last with no sign of life"));
    }
}
