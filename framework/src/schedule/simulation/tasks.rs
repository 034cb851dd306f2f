//! The tasks of a scenario.

use super::scenario::{Fate, Spec, Theme};
use crate::schedule::{Capacity, Needs};
use rand::{Rng, RngExt};

/// A deadline that nothing misses.
const FAR: u64 = 20 * 3600 * 1_000_000;

/// So many tasks of so many runs for these machines.
pub(super) fn specs(
    theme: Theme,
    (tasks, runs): (usize, usize),
    machines: &[Capacity],
    rng: &mut impl Rng,
) -> Vec<Spec> {
    let chain = if theme == Theme::Lanes { rng.random_range(0..8) / 7 } else { rng.random_range(0..3) };
    let kinds = rng.random_range(1..8);
    let kinds: Vec<(Needs, u32)> = (0..kinds).map(|_| kind(theme, machines, rng)).collect();
    let mixed_priorities = rng.random_range(0..3) == 0;
    let (odd, urgent) = (rng.random_range(0..2) == 0, rng.random_range(0..3) == 0);
    let stages = match theme {
        Theme::Any | Theme::Pool => 0..4,
        Theme::Lanes => 0..2,
        Theme::Gangs => 1..4,
    };
    let task = |task: usize| {
        let (needs, members) = kinds[rng.random_range(0..kinds.len())];
        let stage = rng.random_range(stages.clone());
        let near = task.saturating_sub(20);
        let mut after: Vec<usize> =
            (0..rng.random_range(0..=chain)).filter(|_| task > 0).map(|_| rng.random_range(near..task)).collect();
        after.sort_unstable();
        after.dedup();
        let fate = match rng.random_range(0..80) {
            0 | 1 => Fate::Fails,
            2 if odd => Fate::NeverPasses,
            3 if odd => Fate::Impossible,
            _ => Fate::Works,
        };
        let (needs, members) = if fate == Fate::Impossible { impossible(needs, rng) } else { (needs, members) };
        let retries = if fate == Fate::NeverPasses { rng.random_range(0..4) } else { u32::MAX };
        Spec {
            needs,
            members,
            run: rng.random_range(0..runs) as u32,
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
            fate,
            retries,
            deadline: match rng.random_range(0..12) {
                0 if urgent => Some([1_000, 100_000, 2_000_000][rng.random_range(0..3)]),
                1 => Some(FAR),
                _ => None,
            },
        }
    };
    (0..tasks).map(task).collect()
}

impl Spec {
    /// Whether its deadline decides what becomes of it.
    pub(super) fn is_urgent(&self) -> bool {
        self.deadline.is_some_and(|micros| micros < FAR)
    }
}

/// What tasks of one kind need, and how many members they have. All can run, at the latest when all machines are there.
fn kind(theme: Theme, machines: &[Capacity], rng: &mut impl Rng) -> (Needs, u32) {
    if theme == Theme::Gangs && rng.random_range(0..2) == 0 {
        return wide(machines, rng);
    }
    let device = theme != Theme::Lanes && rng.random_range(0..4) == 0;
    let members = match theme {
        Theme::Lanes => 1,
        Theme::Gangs => rng.random_range(1..5),
        Theme::Any | Theme::Pool if rng.random_range(0..6) == 0 => rng.random_range(2..4),
        Theme::Any | Theme::Pool => 1,
    };
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

/// A gang for which no machine is large enough alone.
fn wide(machines: &[Capacity], rng: &mut impl Rng) -> (Needs, u32) {
    let millicores = 1000 * rng.random_range(2..5);
    let reached = machines.iter().filter(|has| has.peers);
    let places: u64 = reached.map(|has| has.millicores / millicores).sum();
    (Needs { millicores, peers: true, ..Needs::default() }, rng.random_range(1..=places.min(12) as u32))
}

/// Needs that no machine and no pool has.
fn impossible(needs: Needs, rng: &mut impl Rng) -> (Needs, u32) {
    let one = match rng.random_range(0..5) {
        0 => Needs { millicores: 9000, ..needs },
        1 => Needs { memory: 1 << 40, ..needs },
        2 => Needs { gpus: 1500, ..needs },
        3 => Needs { gpus: 3000, ..needs },
        _ => return (Needs { millicores: 1000, ..needs }, 500_000),
    };
    (one, 1)
}
