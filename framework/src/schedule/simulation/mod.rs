//! A seeded simulation of everything that decides: the scheduler, the lanes, the autoscaler and the store's commits,
//! in a world where workers die, links break, messages come late, twice, in another order or never, stores fail, and
//! the coordinator is killed and started again.
//!
//! `ROPEWAY_SEED=123 cargo test -p ropeway-framework --release --lib simulation -- --nocapture` replays one seed and
//! prints what happened; `ROPEWAY_SEEDS=20000` asks for more of them.

mod coordinator;
mod lead;
mod ledger;
mod machine;
mod misfortune;
mod network;
mod rules;
mod scenario;
mod starvation;
mod tasks;
mod work;
mod world;

use scenario::Scenario;
use world::{Counts, World};

/// Seeds of the test run.
fn count() -> u64 {
    std::env::var("ROPEWAY_SEEDS").map_or(2_000, |seeds| seeds.parse().expect("ROPEWAY_SEEDS is a number"))
}

fn replay() -> Option<u64> {
    std::env::var("ROPEWAY_SEED").ok().map(|seed| seed.parse().expect("ROPEWAY_SEED is a number"))
}

/// One quarter of the seeds.
fn seeds(quarter: u64) {
    let (from, to) = (count() * quarter / 4, count() * (quarter + 1) / 4);
    // Two threads: the seeds have nothing to do with each other.
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (from..to).filter(|seed| seed % 2 == half).for_each(one));
        }
    });
}

fn one(seed: u64) {
    let run = std::panic::catch_unwind(|| World::new(Scenario::of(seed)).run());
    if let Err(panic) = run {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        panic!("seed {seed}: {text}\nreplay it: ROPEWAY_SEED={seed} cargo test simulation -- --nocapture");
    }
}

#[test]
fn replayed_seed() {
    if let Some(seed) = replay() {
        World::new(Scenario::of(seed)).aloud().run();
    }
}

#[test]
fn every_run_ends_as_without_faults_first_quarter() {
    seeds(0);
}

#[test]
fn every_run_ends_as_without_faults_second_quarter() {
    seeds(1);
}

#[test]
fn every_run_ends_as_without_faults_third_quarter() {
    seeds(2);
}

#[test]
fn every_run_ends_as_without_faults_fourth_quarter() {
    seeds(3);
}

#[test]
fn thousands_of_workers_are_no_different() {
    for seed in 0..3 {
        World::new(Scenario::large(seed)).run();
    }
}

#[test]
fn the_coordinator_may_be_killed_at_every_event() {
    let (mut all, mut seed) = (0, 0);
    while all < 300 {
        let scenario = Scenario::small(seed);
        let events = World::new(scenario.clone()).run().events;
        for event in 1..events {
            World::new(Scenario { crashes: vec![event], ..scenario.clone() }).run();
        }
        all += events;
        seed += 1;
    }
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..40 {
        let run = || World::new(Scenario::of(seed)).run();
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn what_is_hard_happens_often() {
    let counts: Counts = (0..200).map(|seed| World::new(Scenario::of(seed)).run().counts).sum();
    println!("{counts:?}");
    let Counts { queued, taken_back, replaced, doubled, expired, refused } = counts;
    assert!(queued > 2_000 && taken_back > 70, "{counts:?}");
    assert!(replaced > 15 && doubled > 15 && expired > 70 && refused > 40, "{counts:?}");
}
