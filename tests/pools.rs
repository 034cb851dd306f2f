//! Pools: workers come when there is work for them, and go when there is none.

use crate::kills::{children, lives};
use crate::support::{Ended, Project, Running};
use serde_json::Value;
use std::collections::BTreeSet;

/// A stage that ends when there is a file of its name; not for ever, lest a failing test hang.
fn held(name: &str, from: &str, needs: &str) -> String {
    let script = format!("for i in $(seq 6000); do [ -e {name} ] && break; sleep 0.01; done; cat");
    format!(
        "[stage.{name}]\nuse = \"command\"\nfrom = \"{from}\"\nneeds = {{ {needs} }}\n\
         with = {{ run = [\"sh\", \"-c\", \"{script}\"] }}\n"
    )
}

/// A pipeline over the wines with two pools: small workers of one core, and a large one of little memory.
fn pipeline(stages: &[String]) -> String {
    let small = "[pool.small]\nmax = 2\ncpus = 1\nidle = \"1s\"\nprice = 1.0\n";
    let large = "[pool.large]\nmax = 1\ncpus = 3\nmemory = \"64MiB\"\nidle = \"1s\"\nprice = 4.0\nstart = \"5s\"\n";
    let head = "name = \"elastic\"\nseed = 1\n";
    format!("{head}{small}{large}[stage.rows]\nuse = \"dataset.wine\"\n{}", stages.concat())
}

/// Lets stages end.
fn release(project: &Project, stages: &[&str]) {
    for name in stages {
        project.write(name, "");
    }
}

/// Hears events until one of a name is about something; it may have been heard already.
fn until(running: &mut Running, event: &str, field: &str, value: &str) -> Value {
    let wanted = |said: &Value| said["event"] == event && said[field] == value;
    let heard = running.heard.iter().find(|said| wanted(said)).cloned();
    heard.unwrap_or_else(|| running.until(wanted))
}

/// The names of all workers that joined, without the one in the run's own process.
fn joined(ended: &Ended) -> BTreeSet<String> {
    let events = ended.events().into_iter().filter(|said| said["event"] == "worker_joined");
    let names = events.map(|said| said["worker"].as_str().unwrap().to_owned());
    names.filter(|name| name != "embedded").collect()
}

/// Where a stage ran.
fn place(ended: &Ended, stage: &str) -> String {
    let events = ended.events();
    let start = events.iter().find(|said| said["event"] == "attempt_started" && said["name"] == stage);
    start.unwrap()["worker"].as_str().unwrap().to_owned()
}

#[test]
fn two_pools_scale_up_and_back_to_zero_while_a_run_goes_on() {
    let stages = [
        held("first", "rows", "cpus = 1"),
        held("wide", "first", "cpus = 3"),
        held("last", "wide", "memory = \"128MiB\""),
    ];
    let text = pipeline(&stages);
    let embedded = Project::new();
    embedded.write("p.toml", &text);
    release(&embedded, &["first", "wide", "last"]);
    let reference = embedded.run(&["run", "p.toml", "--format", "json", "--embedded", "--cores", "3"]).ok();
    assert!(joined(&reference).is_empty());

    let project = Project::new();
    project.write("p.toml", &text);
    let mut running = Running::start(&project, &["run", "p.toml", "--format", "json"]);
    let run = running.process.id();
    until(&mut running, "attempt_started", "name", "first");
    assert_eq!(children(run).len(), 1, "a small worker, and no large one yet");
    release(&project, &["first"]);
    until(&mut running, "attempt_started", "name", "wide");
    until(&mut running, "worker_left", "worker", "small-1");
    release(&project, &["wide"]);
    let start = until(&mut running, "attempt_started", "name", "last");
    assert_eq!(start["worker"], "small-2", "the first one has gone");
    let left = until(&mut running, "worker_left", "worker", "large-1");
    assert!(left["lost"].is_null(), "{left}");
    // It has said farewell; its process ends soon after.
    while children(run).into_iter().filter(|child| lives(*child)).count() > 1 {
        std::thread::yield_now();
    }
    release(&project, &["last"]);
    let ended = running.end().ok();
    assert_eq!(ended.digests(), reference.digests());
    assert_eq!(joined(&ended).into_iter().collect::<Vec<_>>(), ["large-1", "small-1", "small-2"]);
    assert!(!ended.stdout.contains("\"warning\""), "{}", ended.stdout);
}

#[test]
fn a_worker_starts_before_the_stage_that_needs_it_is_ready() {
    let project = Project::new();
    project.write("p.toml", pipeline(&[held("first", "rows", "cpus = 1"), held("wide", "first", "cpus = 3")]));
    release(&project, &["first", "wide"]);
    let run = ["run", "p.toml", "--format", "json"];
    let unknown = project.run(&run).ok();
    assert_eq!(place(&unknown, "wide"), "large-1");

    // What stages cost is known from the first run now, and its results are gone.
    std::fs::remove_dir_all(project.path().join(".ropeway/memo")).unwrap();
    std::fs::remove_file(project.path().join("first")).unwrap();
    let mut running = Running::start(&project, &run);
    until(&mut running, "worker_joined", "worker", "large-1");
    assert!(running.heard.iter().all(|said| said["event"] != "stage_started" || said["name"] != "wide"));
    release(&project, &["first"]);
    let again = running.end().ok();
    assert_eq!(again.digests(), unknown.digests());
}

#[test]
fn there_are_never_fewer_than_the_least_nor_more_than_the_most() {
    let project = Project::new();
    let names = ["a", "b", "c", "d", "e"];
    project.write("p.toml", pipeline(&names.map(|name| held(name, "rows", "cpus = 1"))));
    let set = ["run", "p.toml", "--format", "json", "--set", "pool.large.min=1", "--set", "pool.large.cpus=0.5"];
    let mut running = Running::start(&project, &set);
    let run = running.process.id();
    // The large one has nothing to do, and does not go.
    until(&mut running, "worker_joined", "worker", "large-1");
    let mut busy = BTreeSet::new();
    while busy.len() < 2 {
        let start = running.until(|said| said["event"] == "attempt_started");
        if names.contains(&start["name"].as_str().unwrap()) {
            busy.insert(start["worker"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(children(run).len(), 3);
    release(&project, &names);
    let ended = running.end().ok();
    let small = joined(&ended).into_iter().filter(|name| name.starts_with("small")).count();
    assert!(small >= 2);
    let mut there: BTreeSet<String> = BTreeSet::new();
    for said in ended.events() {
        let name = || said["worker"].as_str().unwrap().to_owned();
        match said["event"].as_str().unwrap() {
            "worker_joined" if name() != "embedded" => drop(there.insert(name())),
            "worker_left" => drop(there.remove(&name())),
            _ => {}
        }
        assert!(there.len() <= 3, "{there:?}");
    }
    assert!(there.contains("large-1"), "one is always there");
}

#[test]
fn what_no_pool_can_hold_is_refused_with_the_reason() {
    let project = Project::new();
    project.write("p.toml", pipeline(&[held("huge", "rows", "cpus = 64"), held("fat", "rows", "memory = \"1GiB\"")]));
    project.write("fat", "");
    let small = ["--set", "pool.small.memory=\"512MiB\"", "--set", "pool.large.memory=\"512MiB\""];
    let ended = project.run(&[&["run", "p.toml", "--format", "json"], &small[..]].concat());
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let error = |name: &str| {
        let stages = ended.stages();
        let stage = stages.iter().find(|stage| stage["name"] == name).unwrap();
        stage["error"].as_str().unwrap().to_owned()
    };
    let refused = "no worker can ever run this stage: it needs";
    assert_eq!(
        error("huge"),
        format!("{refused} 64 cores; the largest worker has 3 cores and no pool can start one with more")
    );
    assert!(
        error("fat").starts_with(&format!("{refused} 1 GiB of memory; the largest worker has ")),
        "{}",
        error("fat")
    );
    assert_eq!(ended.outcomes()["rows"], "done");
    let both = project.run(&["run", "p.toml", "--cores", "2"]);
    assert_eq!(both.code, Some(2), "{both:#?}");
}

#[test]
fn a_stage_that_ends_every_worker_gets_a_process_of_its_own_and_fails_in_it() {
    let project = Project::new();
    let text = "name = \"poison\"\nseed = 1\n[stage.rows]\nuse = \"dataset.wine\"\n\
                [stage.crash]\nuse = \"command\"\nfrom = \"rows\"\nwith = { run = [\"sh\", \"-c\", \"kill -9 $PPID\"] }\n";
    project.write("p.toml", text);
    let ended = project.run(&["run", "p.toml", "--format", "json", "--workers", "2"]);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert_eq!(ended.outcomes()["crash"], "failed");
    assert!(ended.stdout.contains("the process of its own that it ran in ended with signal: 9"), "{}", ended.stdout);
}

#[test]
fn a_crash_of_an_isolated_stage_takes_nothing_with_it() {
    let text = "name = \"crash\"\nseed = 1\n[stage.rows]\nuse = \"dataset.wine\"\n\
                [stage.crash]\nuse = \"command\"\nfrom = \"rows\"\nneeds = { isolate = true }\n\
                with = { run = [\"sh\", \"-c\", \"if [ -e well ]; then cat; else kill -9 $PPID; fi\"] }\n\
                [stage.count]\nuse = \"sql\"\nfrom = { wines = \"rows\" }\n\
                with = { query = \"SELECT count(*) AS wines FROM wines\" }\n";
    let reference = {
        let project = Project::new();
        project.write("p.toml", text);
        project.write("well", "");
        let plain = ["run", "p.toml", "--format", "json", "--set", "crash.needs.isolate=false"];
        project.run(&plain).ok().digests()
    };
    for more in [&[][..], &["--workers", "1"], &["--store", "memory://"]] {
        let project = Project::new();
        project.write("p.toml", text);
        let run = [&["run", "p.toml", "--format", "json"], more].concat();
        let crashed = project.run(&run);
        assert_eq!(crashed.code, Some(1), "{more:?}: {crashed:#?}");
        let outcomes = crashed.outcomes();
        assert_eq!((outcomes["crash"].as_str(), outcomes["count"].as_str()), ("failed", "done"), "{more:?}");
        assert!(crashed.stdout.contains("the process of its own that it ran in ended with signal: 9"), "{more:?}");
        project.write("well", "");
        assert_eq!(project.run(&run).ok().digests(), reference, "{more:?}");
    }
}
