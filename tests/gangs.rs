//! Training by several workers together: the same bytes at any number of them, whoever dies or comes meanwhile.

use crate::kills::{children, kill};
use crate::support::{Ended, Process, Project, Running, TOKEN, free_address, skip};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// A training of 8 shards on the digits, for some workers.
fn pipeline(workers: u32, epochs: u32) -> String {
    format!(
        r#"
        name = "together"
        seed = 5
        [stage.rows]
        use = "dataset.digits"
        [stage.split]
        use = "split"
        from = "rows"
        with = {{ train = 0.8, valid = 0.2, stratify = "label" }}
        [stage.fit]
        use = "train"
        from = {{ train = "split.train", valid = "split.valid" }}
        needs = {{ workers = {workers} }}
        [stage.fit.with]
        model = {{ mlp = {{ hidden = [64, 32], dropout = 0.1 }} }}
        epochs = {epochs}
        batch = 256
        clip = 1.0
        checkpoint = {{ steps = 20 }}
        "#
    )
}

fn project(workers: u32, epochs: u32) -> Project {
    let project = Project::new();
    project.write("p.toml", pipeline(workers, epochs));
    project
}

const RUN: [&str; 4] = ["run", "p.toml", "--format", "json"];

/// What one worker gives, in this process.
fn reference(epochs: u32) -> BTreeMap<String, Value> {
    project(1, epochs).run(&RUN).ok().digests()
}

fn is(said: &Value, event: &str) -> bool {
    said["event"] == event && said["name"] == "fit"
}

#[track_caller]
fn same(ended: &Ended, expected: &BTreeMap<String, Value>) {
    assert_eq!(ended.digests(), *expected);
    assert!(!ended.stdout.contains("not deterministic"), "{}", ended.stdout);
}

#[test]
fn any_number_of_workers_trains_the_same_bytes() {
    let expected = reference(12);
    // Without workers of its own a run has one, whatever a stage would like.
    same(&project(4, 12).run(&RUN).ok(), &expected);
    for workers in [1, 2, 3, 4, 8] {
        let number = workers.to_string();
        let ended = project(workers, 12).run(&[&RUN, &["--workers", &number][..]].concat()).ok();
        same(&ended, &expected);
        let started = ended.events().into_iter().filter(|said| is(said, "attempt_started"));
        let places: std::collections::BTreeSet<String> = started.map(|said| said["worker"].to_string()).collect();
        assert_eq!(places.len(), workers as usize, "each worker has a member");
    }
}

#[test]
fn members_that_die_and_come_change_nothing() {
    const EPOCHS: u32 = 400;
    let expected = reference(EPOCHS);
    let project = project(3, EPOCHS);
    let mut running = Running::start(&project, &[&RUN, &["--workers", "3"][..]].concat());
    let run = running.process.id();
    let (mut started, mut killed) = (0, 0);
    while let Some(said) = running.next() {
        started += usize::from(is(&said, "attempt_started"));
        // Each time that they are three again, another one dies.
        if is(&said, "attempt_started") && started >= 3 {
            let members = children(run);
            if let Some(member) = members.get(killed % 3) {
                killed += usize::from(kill(*member));
            }
        }
    }
    same(&running.end().ok(), &expected);
    assert!(killed >= 2, "{killed} members were killed");
}

#[test]
fn a_gang_that_dies_whole_goes_on_from_its_checkpoint() {
    const EPOCHS: u32 = 300;
    let expected = reference(EPOCHS);
    let project = project(2, EPOCHS);
    let mut running = Running::start(&project, &[&RUN, &["--workers", "2"][..]].concat());
    let run = running.process.id();
    running.until(|said| is(said, "progress"));
    // Another thread writes it, while the training goes on.
    let checkpoints = project.path().join(".ropeway/checkpoints");
    while !std::fs::read_dir(&checkpoints).is_ok_and(|mut tasks| tasks.next().is_some()) {
        std::thread::yield_now();
    }
    assert!(children(run).into_iter().filter(|member| kill(*member)).count() == 2);
    let ended = running.end().ok();
    same(&ended, &expected);
    assert!(ended.stdout.contains("from a checkpoint"), "{}", ended.stdout);
}

#[test]
fn a_gang_that_workers_are_lost_with_again_and_again_is_given_up() {
    let project = Project::new();
    // Without checkpoints none of its lives gets further than the one before.
    project.write("p.toml", pipeline(2, 1_000_000).replace("steps = 20", "steps = 1_000_000"));
    let mut running = Running::start(&project, &[&RUN, &["--workers", "2"][..]].concat());
    let run = running.process.id();
    // As if the training ended its workers before it had done anything.
    while let Some(said) = running.next() {
        if is(&said, "attempt_started") {
            for member in children(run) {
                kill(member);
            }
        }
    }
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert_eq!(ended.outcomes()["fit"], "failed");
    assert!(ended.stdout.contains("workers were lost while they had it, and it got no further"), "{}", ended.stdout);
}

#[test]
fn a_gang_outlives_its_coordinator() {
    const EPOCHS: u32 = 300;
    let expected = reference(EPOCHS);
    let project = project(2, EPOCHS);
    let address = free_address();
    let arguments = [&RUN, &["--workers", "0", "--listen", &address, "--token", TOKEN][..]].concat();
    let mut first = Running::start(&project, &arguments);
    first.address();
    let join = ["worker", "--join", &address, "--token", TOKEN, "--quiet", "--cores", "1"];
    let workers = [0; 2].map(|_| Process::start(project.command(&join)));
    first.until(|said| is(said, "progress"));
    first.process.kill();
    let ended = project.run(&arguments).ok();
    same(&ended, &expected);
    assert!(!ended.stdout.contains("from a checkpoint"), "it went on without a coordinator: {}", ended.stdout);
    drop(workers);
}

#[test]
fn members_that_share_no_memory_use_connections() {
    // In a namespace of its own a worker sees no other process.
    let apart = ["--fork", "--pid", "--mount-proc", "--kill-child"];
    if !Command::new("unshare").args(apart).arg("true").status().is_ok_and(|status| status.success()) {
        return skip("pid", "namespaces of processes can't be made here");
    }
    let expected = reference(12);
    let project = project(2, 12);
    let mut running = Running::start(
        &project,
        &[&RUN, &["--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN][..]].concat(),
    );
    let address = running.address();
    let workers = [0; 2].map(|_| {
        let worker = project.command(&["worker", "--join", &address, "--token", TOKEN, "--quiet", "--cores", "1"]);
        let mut command = Command::new("unshare");
        command.args(apart).arg(worker.get_program()).args(worker.get_args()).current_dir(project.path());
        Process::start(command)
    });
    same(&running.end().ok(), &expected);
    drop(workers);
}

#[test]
fn what_cannot_be_shared_is_refused_in_words() {
    let many = project(12, 2).run(&["check", "p.toml"]);
    assert_eq!(many.code, Some(2));
    let expected = "12 workers can't share 8 shards";
    assert!(many.stderr.contains(expected) && many.stderr.contains("p.toml:13:"), "{}", many.stderr);
    let project = project(8, 2);
    let few = project.run(&[&RUN, &["--workers", "2"][..]].concat());
    assert!(few.stdout.contains("its 8 members need"), "{}", few.stdout);

    // A sweep of rates has no steps to share.
    let sweep = pipeline(2, 2).replace("clip = 1.0", "clip = 1.0\nfind_rate = {}");
    project.write("sweep.toml", sweep);
    let check = project.run(&["check", "sweep.toml"]);
    assert!(
        check.code == Some(2) && check.stderr.contains("2 workers can't share 1 sweep of `find_rate`"),
        "{check:?}"
    );

    project.write("q.toml", "name = \"q\"\n[stage.rows]\nuse = \"dataset.wine\"\nneeds = { workers = 2 }\n");
    let check = project.run(&["check", "q.toml"]);
    assert_eq!(check.code, Some(2));
    let expected = "`dataset.wine` can't be computed by 2 workers together";
    assert!(check.stderr.contains(expected) && check.stderr.contains("q.toml:4"), "{}", check.stderr);
}
