//! Runs over a network that is slow, loses much, and breaks: the bytes stay the same, and nobody waits for ever.

use crate::lab::{COORDINATOR, Lab};
use crate::support::{Ended, MUCH, Process, Project, Running, TOKEN, all_digits, digits};
use serde_json::Value;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

/// So much that one worker alone is busy for longer than a silent one is waited for.
const MORE: [&str; 2] = ["--set", "best.trials=240"];

/// The outputs of a run in one process.
fn reference(work: [&str; 2]) -> BTreeMap<String, Value> {
    Project::new().run(&all_digits(&work)).ok().digests()
}

/// A run that computes nothing itself and takes workers from the network.
fn start(lab: &Lab, project: &Project, more: &[&str]) -> Running {
    let mut arguments = all_digits(&["--workers", "0", "--listen", COORDINATOR, "--token", TOKEN]);
    arguments.extend(more);
    let mut running = Running::of(lab.coordinator(project, &arguments));
    assert_eq!(running.address(), COORDINATOR);
    running
}

fn join(lab: &Lab, worker: usize, project: &Project, more: &[&str]) -> Process {
    let name = format!("guest-{worker}");
    let mut arguments = vec!["worker", "--join", COORDINATOR, "--token", TOKEN, "--name", &name];
    arguments.extend(more);
    Process::start(lab.worker(worker, project, &arguments))
}

fn is_result(said: &Value) -> bool {
    said["event"] == "task_finished"
}

fn is_loss(said: &Value) -> bool {
    said["event"] == "warning" && said["message"].as_str().unwrap().starts_with("the worker is lost")
}

/// How often a worker was taken into the run.
fn joins(worker: &Ended) -> usize {
    worker.stderr.matches(": joined run ").count()
}

#[track_caller]
fn same(run: &Ended, reference: &BTreeMap<String, Value>) {
    assert_eq!(&run.digests(), reference);
    assert!(!run.stdout.contains("not deterministic"), "{}", run.stdout);
}

#[test]
fn a_slow_wire_that_loses_much_changes_nothing() {
    let Some(mut lab) = Lab::new(2) else { return };
    let reference = Project::new().run(&digits(&[])).ok().digests();
    (0..2).for_each(|worker| lab.spoil(worker, 20, 2));
    for store in [".ropeway", "memory://"] {
        let (project, elsewhere) = (Project::new(), Project::new());
        let small = digits(&["--store", store]);
        let run = start(&lab, &project, &small[4..]);
        let workers = [0, 1].map(|worker| join(&lab, worker, &elsewhere, &[]));
        same(&run.end().ok(), &reference);
        // One whose way in took long may have missed the run.
        drop(workers);
    }
}

#[test]
fn a_worker_that_is_cut_off_comes_back_with_what_it_has_done() {
    let Some(lab) = Lab::new(1) else { return };
    let reference = reference(MUCH);
    for more in [&MUCH[..], &[&MUCH[..], &["--store", "memory://"]].concat()] {
        let (project, elsewhere) = (Project::new(), Project::new());
        let mut run = start(&lab, &project, more);
        let worker = join(&lab, 0, &elsewhere, &[]);
        run.until(is_result);
        lab.cut(0);
        run.until(is_loss);
        lab.heal(0);
        same(&run.end().ok(), &reference);
        let worker = worker.end().ok();
        assert!(joins(&worker) > 1, "{}", worker.stderr);
    }
}

#[test]
fn a_short_break_is_nobodys_loss() {
    let Some(lab) = Lab::new(1) else { return };
    let reference = reference(MUCH);
    for more in [&MUCH[..], &[&MUCH[..], &["--store", "memory://"]].concat()] {
        let (project, elsewhere) = (Project::new(), Project::new());
        let mut run = start(&lab, &project, more);
        let worker = join(&lab, 0, &elsewhere, &[]);
        run.until(is_result);
        lab.cut(0);
        // Shorter than anybody's patience.
        sleep(Duration::from_millis(1100));
        lab.heal(0);
        let run = run.end().ok();
        same(&run, &reference);
        assert!(!run.events().iter().any(is_loss), "{}", run.stdout);
        let worker = worker.end().ok();
        assert_eq!(joins(&worker), 1, "{}", worker.stderr);
    }
}

#[test]
fn others_do_the_work_of_one_that_is_cut_off() {
    let Some(lab) = Lab::new(2) else { return };
    let (project, elsewhere) = (Project::new(), Project::new());
    let mut run = start(&lab, &project, &MUCH);
    let workers = [0, 1].map(|worker| join(&lab, worker, &elsewhere, &["--patience", "3"]));
    run.until(is_result);
    lab.cut(0);
    same(&run.end().ok(), &reference(MUCH));
    let [cut_off, other] = workers.map(Process::end);
    other.ok();
    // Nothing told it: it noticed by itself.
    assert_eq!(cut_off.code, Some(3), "{cut_off:?}");
    assert!(cut_off.stderr.contains("no coordinator at"), "{}", cut_off.stderr);
}

#[test]
fn a_worker_that_slept_is_no_danger_when_it_wakes() {
    let Some(lab) = Lab::new(2) else { return };
    let reference = reference(MORE);
    for workers in [1, 2] {
        let (project, elsewhere) = (Project::new(), Project::new());
        let mut run = start(&lab, &project, &MORE);
        let sleeper = join(&lab, 0, &elsewhere, &["--patience", "1"]);
        let other = (workers == 2).then(|| join(&lab, 1, &elsewhere, &[]));
        run.until(is_result);
        sleeper.signal("STOP");
        run.until(is_loss);
        sleeper.signal("CONT");
        same(&run.end().ok(), &reference);
        if let Some(other) = other {
            other.end().ok();
        }
        // Where another has done its work meanwhile, it may come too late to hear that the run is over.
        let sleeper = sleeper.end();
        assert!(sleeper.code == Some(0) || workers == 2 && sleeper.code == Some(3), "{sleeper:?}");
    }
}

#[test]
fn a_worker_outlives_a_coordinator_that_vanishes_from_the_network() {
    let Some(lab) = Lab::new(1) else { return };
    let (project, elsewhere) = (Project::new(), Project::new());
    let mut run = start(&lab, &project, &MUCH);
    let worker = join(&lab, 0, &elsewhere, &[]);
    run.until(is_result);
    lab.cut(0);
    // Nothing of its end reaches the worker.
    run.process.kill();
    lab.heal(0);
    same(&start(&lab, &project, &MUCH).end().ok(), &reference(MUCH));
    let worker = worker.end().ok();
    assert_eq!(joins(&worker), 2, "{}", worker.stderr);
}
