//! What a decision of the scheduler costs: a million tasks on ten thousand workers, and how the cost depends on the
//! number of workers. The workers are only counted, so that nothing but decisions is measured.
//!
//! `cargo bench --bench scheduler`

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use ropeway::prelude::*;
use ropeway::schedule::{Action, Capacity, End, Event, Needs, Scheduler, Task, TaskId, Time, WorkerId};
use std::collections::VecDeque;
use std::time::Instant;

const TASKS: u64 = 1_000_000;
const WORKERS: u64 = 10_000;
/// Decisions a second that there must be at least.
const LEAST: f64 = 200_000.0;
/// Bytes that a waiting task may take.
const MOST_BYTES: f64 = 500.0;
/// Tasks a worker runs at the same time.
const PLACES: u64 = 4;

/// Drives a scheduler as if workers ran what they are told, first come, first done.
struct Drive {
    scheduler: Scheduler,
    running: VecDeque<(TaskId, u32, WorkerId)>,
    started: u64,
    done: u64,
}

impl Drive {
    fn new(workers: u64) -> Self {
        let mut drive = Self { scheduler: Scheduler::new(), running: VecDeque::new(), started: 0, done: 0 };
        for worker in 0..workers {
            let has = Capacity { millicores: PLACES * 1000, memory: 64 << 30, ..Capacity::default() };
            drive.send(Event::Joined { worker: WorkerId(worker), has });
        }
        drive
    }

    fn send(&mut self, event: Event) {
        for action in self.scheduler.step(Time::ZERO, event) {
            match action {
                Action::Start { task, attempt, worker, .. } => {
                    self.started += 1;
                    self.running.push_back((task, attempt, worker));
                }
                Action::Done(_) => self.done += 1,
                _ => {}
            }
        }
    }

    fn submit(&mut self, tasks: std::ops::Range<u64>) {
        for task in tasks {
            // Four kinds of needs, so that lines compete.
            let needs = Needs { millicores: 1000, memory: (task % 4) << 30, ..Needs::default() };
            self.send(Event::Submitted(Task::new(TaskId(task), needs)));
        }
    }

    fn end(&mut self, most: u64) {
        for _ in 0..most {
            let Some((task, attempt, worker)) = self.running.pop_front() else { return };
            self.send(Event::Ended { worker, task, attempt, end: End::Done, seconds: 60.0, made: Vec::new() });
        }
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("Linux says what is resident")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is a number")?;
    Ok(kibibytes * 1024.0)
}

/// Seconds that an end, with the start that follows, takes in steady state, if attempts end on the first `busy` of so
/// many workers. Where few of many are busy, what is decided about is in the processor's caches: what is left of the
/// cost of many is the algorithm's.
fn steady(workers: u64, busy: u64) -> f64 {
    const ROUNDS: u64 = 200_000;
    let mut drive = Drive::new(workers);
    drive.submit(0..workers * PLACES + ROUNDS + 1);
    drive.running.retain(|(.., worker)| worker.0 < busy);
    let begun = Instant::now();
    drive.end(ROUNDS);
    begun.elapsed().as_secs_f64() / ROUNDS as f64
}

/// The median of some measurements.
fn median(measure: impl Fn() -> f64) -> f64 {
    let mut all: Vec<f64> = (0..5).map(|_| measure()).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() -> Result<()> {
    let mut drive = Drive::new(WORKERS);
    let before = resident()?;
    let begun = Instant::now();
    drive.submit(0..TASKS);
    let submitted = begun.elapsed().as_secs_f64();
    let bytes = (resident()? - before) / TASKS as f64;
    let ending = Instant::now();
    drive.end(TASKS);
    let ended = ending.elapsed().as_secs_f64();
    assert_eq!((drive.started, drive.done), (TASKS, TASKS), "every task ran once");
    let decisions = 2.0 * TASKS as f64 / (submitted + ended);
    println!("{TASKS} tasks, {WORKERS} workers:");
    println!("  {:.0} submissions a second, {:.0} ends a second", TASKS as f64 / submitted, TASKS as f64 / ended);
    println!("  {decisions:.0} decisions a second, {:.1} times the least", decisions / LEAST);
    println!("  {bytes:.0} bytes a task, {:.2} of the most", bytes / MOST_BYTES);

    println!("an end and the start that follows it:");
    let few = median(|| steady(10, 10));
    for workers in [10, 100, 1_000, 10_000] {
        let (all, ten) = (median(|| steady(workers, workers)), median(|| steady(workers, 10)));
        let (micros, ratio, algorithm) = (all * 1e6, all / few, ten / few);
        println!(
            "  {workers:>6} workers: {micros:.2} µs, {ratio:.2} times that of 10; if only 10 are busy {algorithm:.2}"
        );
    }
    assert!(decisions >= LEAST && bytes <= MOST_BYTES, "a limit is missed");
    Ok(())
}
