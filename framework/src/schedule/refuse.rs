//! What can never run, and why.

use super::devices::Devices;
use super::scheduler::Scheduler;
use super::task::{Place, State};
use super::timers::Due;
use super::{Action, Capacity, Needs, PoolId, TaskId, Time, WHOLE};

/// How long tasks wait for a worker that can run them after the last one is lost.
const GRACE: Time = Time::from_secs(60);

impl Capacity {
    /// How many tasks with such needs it can run at the same time, up to `most`.
    pub(crate) fn holds(&self, needs: &Needs, most: u32) -> u32 {
        if !self.fits(needs) {
            return 0;
        }
        let part = |has: u64, needed: u64| has.checked_div(needed).unwrap_or(u64::MAX);
        let cores = part(self.millicores, needs.millicores);
        let memory = part(self.memory, needs.memory);
        let most = cores.min(memory).min(u64::from(most)) as u32;
        if needs.devices() == 0 {
            return most;
        }
        let mut devices = Devices::new(&self.devices);
        (0..most).take_while(|_| devices.take(needs).is_some()).count() as u32
    }
}

impl Scheduler {
    /// Whether the workers that are here could run a task of a line, if they did nothing else.
    pub(super) fn possible_now(&mut self, line: u32) -> bool {
        let at = self.lines.get(line);
        if let Some((changes, possible)) = at.possible
            && changes == self.changes
        {
            return possible;
        }
        let possible = self.places(&at.needs, at.members, false) >= u64::from(at.members);
        self.lines.get_mut(line).possible = Some((self.changes, possible));
        possible
    }

    /// Whether a worker was lost lately that may come back, and with it one that can run this.
    pub(super) fn may_come_back(&self, needs: &Needs) -> bool {
        needs.is_sound() && self.lost.is_some_and(|lost| self.now < lost + GRACE)
    }

    /// How many members all workers hold, with those that can be started or without.
    fn places(&self, needs: &Needs, members: u32, started: bool) -> u64 {
        let kinds = self.workers.kinds().iter().map(|(has, count)| (has, *count));
        // Those of a pool that are here are counted already.
        let more = |pool: &PoolId, max: u32| max.saturating_sub(self.workers.of_pool(*pool));
        let pools = self.pools.iter().filter(|_| started).map(|(pool, (has, max))| (has, more(pool, *max)));
        let mut places = 0u64;
        for (has, count) in kinds.chain(pools) {
            places = places.saturating_add(u64::from(has.holds(needs, members)).saturating_mul(u64::from(count)));
            if places >= u64::from(members) {
                break;
            }
        }
        places
    }

    /// Says why a task of a line can never run, if it can't.
    pub(super) fn possible_ever(&mut self, line: u32) -> Result<(), String> {
        let nobody = self.workers.kinds().is_empty() && self.pools.values().all(|(_, max)| *max == 0);
        let Line { needs, members } = Line::of(self, line);
        if !needs.is_sound() {
            let gpus = needs.gpus as f64 / WHOLE as f64;
            return Err(format!("it needs {gpus} GPUs; more than one must be a whole number"));
        }
        if nobody || self.possible_now(line) {
            return Ok(());
        }
        let places = self.places(&needs, members, true);
        if places >= u64::from(members) {
            return Ok(());
        }
        if members > 1 && places > 0 {
            return Err(format!(
                "its {members} members need {needs} each, at the same time; all workers and pools together hold \
                 {places}"
            ));
        }
        Err(self.lacking(&needs))
    }

    /// What no worker has enough of.
    fn lacking(&self, needs: &Needs) -> String {
        let pools = self.pools.values().filter(|(_, max)| *max > 0);
        let all = self.workers.kinds().keys().chain(pools.map(|(has, _)| has));
        // One without cores is there for those that only wait.
        let all: Vec<&Capacity> = all.filter(|has| has.millicores > 0).collect();
        let most = |of: fn(&Capacity) -> u64| all.iter().map(|has| of(has)).max().unwrap_or(0);
        let nor = if self.pools.is_empty() { "" } else { " and no pool can start one with more" };
        let just = |needs: Needs| format!("it needs {}; the largest worker has ", without_cores(&needs));
        let devices = most(|has| has.devices.len() as u64);
        if needs.devices() > devices {
            let has = if devices == 0 { "none".to_owned() } else { devices.to_string() };
            return just(Needs { gpus: needs.gpus, gpu_memory: 0, ..Needs::default() }) + &has + nor;
        }
        let memory = most(|has| has.devices.iter().copied().max().unwrap_or(0));
        if needs.gpu_memory > memory {
            let has = Capacity { devices: vec![memory], files: true, memory: u64::MAX, ..Capacity::default() };
            let has = has.to_string();
            let has = has.split_once(", ").map_or(has.as_str(), |(_, gpu)| gpu);
            return just(Needs { gpus: needs.gpus, gpu_memory: needs.gpu_memory, ..Needs::default() }) + has + nor;
        }
        let one = Capacity { files: true, memory: u64::MAX, ..Capacity::default() };
        let cores = most(|has| has.millicores);
        if needs.millicores > cores {
            let needs = Needs { millicores: needs.millicores, ..Needs::default() };
            let has = Capacity { millicores: cores, ..one };
            return format!("it needs {needs}; the largest worker has {has}{nor}");
        }
        let memory = most(|has| has.memory);
        if needs.memory > memory {
            let has = Needs { memory, ..Needs::default() };
            return just(Needs { memory: needs.memory, ..Needs::default() }) + &without_cores(&has) + nor;
        }
        format!("it needs {needs}; no worker has all of that at once{nor}")
    }

    /// Notes which lines nobody can serve any more; they wait a while for a worker that can.
    pub(super) fn look_for_stranded(&mut self) {
        let active: Vec<u32> = self.lines.active().collect();
        active.into_iter().for_each(|line| self.look_if_stranded(line));
    }

    pub(super) fn look_if_stranded(&mut self, line: u32) {
        let stranded = self.possible_ever(line).is_err();
        let now = self.now;
        let at = self.lines.get_mut(line);
        if stranded && at.stranded.is_none() {
            self.timers.set(now + GRACE, Due::Stranded);
        }
        at.stranded = stranded.then(|| at.stranded.unwrap_or(now));
    }

    pub(super) fn refuse_stranded(&mut self) {
        self.look_for_stranded();
        let active: Vec<u32> = self.lines.active().collect();
        for line in active {
            let since = self.lines.get(line).stranded;
            if since.is_none_or(|since| since + GRACE > self.now) {
                continue;
            }
            let Err(reason) = self.possible_ever(line) else { continue };
            let tasks: Vec<Place> = self.lines.get(line).all().collect();
            // A gang that lacks a member goes on without.
            let stuck = |task: &TaskId| self.tasks.get(task).is_some_and(|entry| entry.state == State::Waiting);
            let tasks: Vec<TaskId> = tasks.into_iter().map(|(.., task)| task).filter(stuck).collect();
            for task in tasks {
                self.decide(task, Some(Action::Refused { task, reason: reason.clone() }));
            }
        }
    }
}

/// What a task of a line needs.
struct Line {
    needs: Needs,
    members: u32,
}

impl Line {
    fn of(scheduler: &Scheduler, line: u32) -> Self {
        let line = scheduler.lines.get(line);
        Self { needs: line.needs, members: line.members }
    }
}

fn without_cores(needs: &Needs) -> String {
    let all = needs.to_string();
    all.split_once(", ").map_or(all.clone(), |(_, rest)| rest.to_owned())
}
