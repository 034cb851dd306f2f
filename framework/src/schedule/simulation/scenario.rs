//! What a seed asks for: tasks, machines and misfortunes.

use crate::data::Digest;
use crate::schedule::{Capacity, Needs, Pool, PoolId, Time};
use crate::stage::Seed;
use crate::store::Key;
use rand::{Rng, RngExt};

/// One task of the pipeline.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) needs: Needs,
    pub(super) members: u32,
    pub(super) priority: i32,
    pub(super) group: u32,
    pub(super) stage: u32,
    /// How long it takes, in microseconds.
    pub(super) micros: u64,
    /// The tasks whose results it reads; they come before it.
    pub(super) after: Vec<usize>,
    /// Whether it fails whenever it runs.
    pub(super) fails: bool,
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
    /// Machines that are always there, but for the misfortunes.
    pub(super) machines: Vec<Capacity>,
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
        let tasks = rng.random_range(1..60);
        let machines = rng.random_range(0..6);
        let mut this = Self::sized(seed, tasks, machines, &mut rng);
        let calm = seed.is_multiple_of(8);
        if !calm {
            let mut often = |most| if rng.random_range(0..2) == 0 { 0 } else { rng.random_range(0..most) };
            let (lost, twice, late) = (often(20), often(100), often(200));
            this.chaos = Chaos { lost, twice, late, failures: often(200), stragglers: often(100) };
            let faults = rng.random_range(0..20);
            let horizon = [100_000, 3_000_000, 30_000_000][rng.random_range(0..3)];
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
        Self::sized(seed, 16, 2, &mut rng)
    }

    /// Thousands of machines.
    pub(super) fn large(seed: u64) -> Self {
        let mut rng = Seed::new(seed, "simulation").rng("large");
        let mut this = Self::sized(seed, 6_000, 3_000, &mut rng);
        this.chaos = Chaos { lost: 1, twice: 20, late: 50, failures: 20, stragglers: 5 };
        this.faults = (0..300).map(|_| rng.random_range(0..5_000_000)).collect();
        this.crashes = vec![rng.random_range(5_000..30_000)];
        this.check_every = 2_000;
        this
    }

    fn sized(seed: u64, tasks: usize, machines: usize, rng: &mut impl Rng) -> Self {
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
        let machines = std::iter::once(most).chain(some.collect::<Vec<_>>()).collect();
        let chain = rng.random_range(0..3);
        let kinds = rng.random_range(1..8);
        let kinds: Vec<(Needs, u32)> = (0..kinds).map(|_| kind(rng)).collect();
        let mixed_priorities = rng.random_range(0..3) == 0;
        let tasks = (0..tasks)
            .map(|task: usize| {
                let (needs, members) = kinds[rng.random_range(0..kinds.len())];
                let stage = rng.random_range(0..4);
                let near = task.saturating_sub(20);
                let mut after: Vec<usize> = (0..rng.random_range(0..=chain))
                    .filter(|_| task > 0)
                    .map(|_| rng.random_range(near..task))
                    .collect();
                after.sort_unstable();
                after.dedup();
                Spec {
                    needs,
                    members,
                    priority: if mixed_priorities { rng.random_range(-1..2) } else { 0 },
                    group: rng.random_range(0..3),
                    stage,
                    micros: match stage {
                        0 => rng.random_range(20..200),
                        1 => rng.random_range(500..5_000),
                        2 => rng.random_range(50_000..200_000),
                        _ => rng.random_range(500_000..3_000_000),
                    },
                    after,
                    fails: rng.random_range(0..40) == 0,
                }
            })
            .collect();
        let pool = (rng.random_range(0..3) == 0).then(|| Pool {
            id: PoolId(0),
            capacity: Capacity { millicores: 4000, memory: 16 << 30, pool: Some(PoolId(0)), ..Capacity::default() },
            min: rng.random_range(0..2),
            max: rng.random_range(1..6),
            idle: Time::from_millis(rng.random_range(10..5_000)),
            startup: Time::from_millis(rng.random_range(10..1_000)),
            price: 1.0,
        });
        let chaos = Chaos::default();
        let (faults, crashes) = (Vec::new(), Vec::new());
        Self { seed, tasks, machines, pool, chaos, faults, crashes, store_fails: false, check_every: 1 }
    }

    /// What each task gives if nothing goes wrong; nothing if it fails or is never run.
    pub(super) fn results(&self) -> Vec<Option<Digest>> {
        let mut results: Vec<Option<Digest>> = Vec::new();
        for (task, spec) in self.tasks.iter().enumerate() {
            let inputs: Option<Vec<Digest>> = spec.after.iter().map(|from| results[*from]).collect();
            results.push(inputs.filter(|_| !spec.fails).map(|inputs| Digest::of(&compute(task, &inputs))));
        }
        results
    }
}

fn kind(rng: &mut impl Rng) -> (Needs, u32) {
    let device = rng.random_range(0..4) == 0;
    let members = if rng.random_range(0..6) == 0 { rng.random_range(2..4) } else { 1 };
    let cores = [0, 500, 1000, 1000, 1000, 2000][rng.random_range(0..6)];
    let needs = Needs {
        millicores: if members == 1 && rng.random_range(0..6) == 0 { 8000 } else { cores },
        memory: [0, 0, 1 << 30, 16 << 30][rng.random_range(0..4)],
        gpus: if device { [250, 400, 500, if members == 1 { 2000 } else { 500 }][rng.random_range(0..4)] } else { 0 },
        gpu_memory: if device { [0, 1 << 30, 4 << 30][rng.random_range(0..3)] } else { 0 },
        files: rng.random_range(0..5) == 0,
        peers: members > 1,
    };
    (needs, members)
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
