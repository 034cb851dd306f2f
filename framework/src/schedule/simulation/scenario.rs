//! What a seed asks for: tasks, machines and misfortunes.

use super::tasks::specs;
use crate::data::Digest;
use crate::schedule::{Capacity, Needs, Pool, PoolId, Standing, Time};
use crate::stage::Seed;
use crate::store::Key;
use rand::{Rng, RngExt};

/// One task of the pipeline.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) needs: Needs,
    pub(super) members: u32,
    pub(super) run: u32,
    pub(super) priority: i32,
    pub(super) group: u32,
    pub(super) stage: u32,
    /// How long it takes, in microseconds.
    pub(super) micros: u64,
    /// The tasks whose results it reads; they come before it.
    pub(super) after: Vec<usize>,
    pub(super) fate: Fate,
    pub(super) retries: u32,
    /// By when it must be done, in microseconds from its submission.
    pub(super) deadline: Option<u64>,
}

/// What becomes of a task whenever it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    Fails,
    /// It fails in a way that would pass, and does not.
    NeverPasses,
    /// Nobody will ever have what it needs.
    Impossible,
}

/// What becomes of a task in the end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Result(Digest),
    /// This, or nothing: there is a deadline.
    InTime(Digest),
    Nothing,
}

/// What a scenario has most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Theme {
    /// A little of everything.
    Any,
    /// More short tasks, of different shapes, than there is room for at once.
    Lanes,
    /// Gangs that need several machines, which die.
    Gangs,
    /// No machine but those of a pool.
    Pool,
}

/// How often messages go astray, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chaos {
    pub(super) lost: u32,
    pub(super) twice: u32,
    pub(super) late: u32,
    /// How often an attempt fails in a way that passes.
    pub(super) failures: u32,
    /// How often an attempt takes 20 times as long.
    pub(super) stragglers: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) tasks: Vec<Spec>,
    /// The runs that share the machines.
    pub(super) runs: Vec<Standing>,
    /// Machines that are always there, but for the misfortunes.
    pub(super) machines: Vec<Capacity>,
    /// Within how many microseconds the machines come.
    pub(super) spread: u64,
    /// Whether it is known how long tasks take, so that they may wait in lanes from the beginning.
    pub(super) known: bool,
    pub(super) pool: Option<Pool>,
    pub(super) chaos: Chaos,
    /// When something happens to a machine or a link, in microseconds.
    pub(super) faults: Vec<u64>,
    /// After how many events the coordinator is killed.
    pub(super) crashes: Vec<u64>,
    pub(super) store_fails: bool,
    /// How many events lie between two checks of the books.
    pub(super) check_every: u64,
}

impl Scenario {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Seed::new(seed, "simulation").rng("scenario");
        let theme = [Theme::Any, Theme::Lanes, Theme::Gangs, Theme::Pool][seed as usize % 4];
        let (tasks, machines) = match theme {
            Theme::Any => (rng.random_range(1..60), rng.random_range(0..6)),
            Theme::Lanes => (rng.random_range(30..200), rng.random_range(0..4)),
            Theme::Gangs => (rng.random_range(1..30), rng.random_range(1..6)),
            Theme::Pool => (rng.random_range(1..40), 0),
        };
        let mut this = Self::sized(seed, theme, tasks, machines, &mut rng);
        let calm = (seed / 4).is_multiple_of(8);
        if !calm {
            let mut often = |most| if rng.random_range(0..2) == 0 { 0 } else { rng.random_range(0..most) };
            let (lost, twice, late) = (often(20), often(100), often(200));
            this.chaos = Chaos { lost, twice, late, failures: often(200), stragglers: often(100) };
            let faults = rng.random_range(0..20);
            let horizons = match theme {
                Theme::Lanes => [10_000, 50_000, 200_000],
                Theme::Any | Theme::Gangs | Theme::Pool => [100_000, 3_000_000, 30_000_000],
            };
            let horizon = horizons[rng.random_range(0..3)];
            this.faults = (0..faults).map(|_| rng.random_range(0..horizon)).collect();
            let crashes = rng.random_range(0..4);
            this.crashes = (0..crashes).map(|_| rng.random_range(1..1_500)).collect();
            this.store_fails = rng.random_range(0..4) == 0;
        }
        this
    }

    /// Few tasks and no misfortunes.
    pub(super) fn small(seed: u64) -> Self {
        let mut rng = Seed::new(seed, "simulation").rng("small");
        Self::sized(seed, Theme::Any, 40, 2, &mut rng)
    }

    /// Thousands of machines.
    pub(super) fn large(seed: u64) -> Self {
        let mut rng = Seed::new(seed, "simulation").rng("large");
        let mut this = Self::sized(seed, Theme::Any, 6_000, 3_000, &mut rng);
        this.chaos = Chaos { lost: 1, twice: 20, late: 50, failures: 20, stragglers: 5 };
        this.faults = (0..300).map(|_| rng.random_range(0..5_000_000)).collect();
        this.crashes = vec![rng.random_range(5_000..30_000)];
        this.check_every = 2_000;
        this
    }

    fn sized(seed: u64, theme: Theme, tasks: usize, machines: usize, rng: &mut impl Rng) -> Self {
        // One machine can run everything, so that every run can end.
        let most = Capacity {
            millicores: 8000,
            memory: 64 << 30,
            devices: vec![16 << 30, 16 << 30],
            files: true,
            peers: true,
            ..Capacity::default()
        };
        let some = (0..machines).map(|machine| Capacity {
            millicores: 1000 * rng.random_range(1..9),
            memory: rng.random_range(1..65) << 30,
            devices: (0..[0, 0, 1, 2][rng.random_range(0..4)]).map(|_| rng.random_range(4..33) << 30).collect(),
            files: rng.random_range(0..2) == 0,
            peers: rng.random_range(0..4) > 0,
            pool: None,
            machine: machine as u32 + 1,
        });
        let some: Vec<Capacity> = some.collect();
        let pooled = theme == Theme::Pool || rng.random_range(0..3) == 0;
        let capacity = match theme {
            // Without it nothing would ever run.
            Theme::Pool => Capacity { pool: Some(PoolId(0)), ..most.clone() },
            _ => Capacity { millicores: 4000, memory: 16 << 30, pool: Some(PoolId(0)), ..Capacity::default() },
        };
        let machines: Vec<Capacity> = if theme == Theme::Pool { Vec::new() } else { [vec![most], some].concat() };
        let count = rng.random_range(1..4);
        let standing = |_| Standing { priority: rng.random_range(0..5) / 4, weight: rng.random_range(1..4) };
        let runs: Vec<Standing> = (0..count).map(standing).collect();
        let tasks = specs(theme, (tasks, runs.len()), &machines, rng);
        let pool = pooled.then(|| Pool {
            id: PoolId(0),
            capacity,
            min: rng.random_range(0..2),
            max: rng.random_range(1..6),
            idle: Time::from_millis(rng.random_range(10..5_000)),
            startup: Time::from_millis(rng.random_range(10..1_000)),
            price: 1.0,
        });
        let spread = if theme == Theme::Lanes { [1_000, 20_000, 100_000][rng.random_range(0..3)] } else { 1_000 };
        let known = theme == Theme::Lanes && rng.random_range(0..4) > 0;
        let chaos = Chaos::default();
        let (faults, crashes) = (Vec::new(), Vec::new());
        Self {
            seed,
            tasks,
            runs,
            machines,
            spread,
            known,
            pool,
            chaos,
            faults,
            crashes,
            store_fails: false,
            check_every: 1,
        }
    }

    /// Whether nothing goes wrong.
    pub(super) fn is_calm(&self) -> bool {
        let Chaos { lost, twice, late, failures, stragglers } = self.chaos;
        let messages = lost + twice + late + failures + stragglers;
        messages == 0 && self.faults.is_empty() && self.crashes.is_empty() && !self.store_fails
    }

    /// What becomes of each task.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (task, spec) in self.tasks.iter().enumerate() {
            let inputs: Option<Vec<Digest>> = spec.after.iter().map(|from| outcomes[*from].digest()).collect();
            let result = inputs.filter(|_| spec.fate == Fate::Works);
            let result = result.map(|inputs| Digest::of(&compute(task, &inputs)));
            let certain = |from: &usize| !matches!(outcomes[*from], Outcome::InTime(_));
            outcomes.push(match result {
                Some(digest) if !spec.is_urgent() && spec.after.iter().all(certain) => Outcome::Result(digest),
                Some(digest) => Outcome::InTime(digest),
                None => Outcome::Nothing,
            });
        }
        outcomes
    }
}

impl Outcome {
    fn digest(&self) -> Option<Digest> {
        match self {
            Self::Result(digest) | Self::InTime(digest) => Some(*digest),
            Self::Nothing => None,
        }
    }
}

/// The bytes that a task gives.
pub(super) fn compute(task: usize, inputs: &[Digest]) -> Vec<u8> {
    let mut bytes = format!("task {task}").into_bytes();
    inputs.iter().for_each(|input| bytes.extend(input.as_bytes()));
    bytes
}

/// The name under which a result is remembered.
pub(super) fn key(task: usize, inputs: &[Digest]) -> Key {
    let task = task.to_le_bytes();
    let inputs = inputs.iter().map(|digest| digest.as_bytes().as_slice());
    Key(Digest::of_fields(std::iter::once(task.as_slice()).chain(inputs)))
}
