//! A coordinator of many runs, asked by other processes.

use crate::kills::{Reference, Watched, children, lives};
use crate::support::{Ended, Process, Project, Running, TOKEN, another_build, digits, free_address};
use std::fs;
use std::process::Command;

/// How to start a coordinator.
fn coordinator<'a>(address: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["coordinator", "--listen", address, "--token", TOKEN], more].concat()
}

/// How to ask it for the digits pipeline.
fn asks<'a>(address: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    digits(&[&["--join", address, "--token", TOKEN], more].concat())
}

/// A coordinator that listens, and where.
fn listening(project: &Project, more: &[&str]) -> (Process, String) {
    let mut process = Process::start(project.command(&coordinator("127.0.0.1:0", more)));
    let said = process.hears("runs are asked for with: ");
    let address = said.rsplit(' ').next().unwrap().to_owned();
    (process, address)
}

#[test]
fn runs_that_are_asked_for_have_the_bytes_that_they_have_alone() {
    let project = Project::new();
    let alone = [&[][..], &["--seed", "8"]].map(|more| Project::new().run(&digits(more)).ok().digests());
    let (coordinator, address) = listening(&project, &["--workers", "2"]);
    let asked = [&[][..], &["--seed", "8"], &["--share", "3"]];
    let asked = asked.map(|more| Running::start(&project, &asks(&address, more)));
    let [first, other, again] = asked.map(|running| running.end().ok());
    assert_eq!([first.digests(), other.digests()], alone);
    assert_eq!(again.digests(), alone[0]);
    let workers = children(coordinator.id());
    assert_eq!(workers.len(), 2, "they are everybody's");
    // All of it is in the coordinator's store, and its workers wait for the next run.
    let cached = project.run(&asks(&address, &["--priority", "-1"])).ok();
    assert!(cached.outcomes().values().all(|outcome| outcome == "cached"), "{cached:?}");
    assert_eq!(children(coordinator.id()), workers);
    let shown = project.run(&["show"]).ok().stdout;
    assert_eq!(shown.matches(" done").count(), 4, "{shown}");
    assert!(cached.stderr.contains(&format!("file://{}", project.path().display())), "{}", cached.stderr);
    coordinator.signal("TERM");
    assert_eq!(coordinator.end().code, Some(0));
    assert!(!workers.into_iter().any(lives));
}

/// A pipeline whose one stage says so when it runs, and waits.
fn held(project: &Project) -> &'static str {
    let script = "echo $$ > held.id.new; mv held.id.new held.id; while ! [ -e go ]; do sleep 0.01; done; cat";
    let text = format!(
        "name = \"held\"\n[stage.rows]\nuse = \"dataset.iris\"\n[stage.held]\nuse = \"command\"\nfrom = \"rows\"\n\
         with = {{ run = [\"sh\", \"-c\", \"{script}\"] }}\n"
    );
    project.write("held.toml", text);
    "held.toml"
}

/// Waits until it runs; gives its process.
fn is_held(project: &Project) -> u32 {
    let program = project.path().join("held.id");
    while !program.exists() {
        std::thread::yield_now();
    }
    fs::read_to_string(program).unwrap().trim().parse().unwrap()
}

#[test]
fn a_coordinator_that_ends_and_comes_again_is_asked_again_and_what_runs_goes_on() {
    for signal in ["KILL", "TERM"] {
        let project = Project::new();
        let (address, pipeline) = (free_address(), held(&project));
        let start = || {
            let mut process = Process::start(project.command(&coordinator(&address, &["--workers", "0", "--quiet"])));
            process.hears("runs are asked for with: ");
            process
        };
        let mut first = start();
        let join = ["worker", "--join", &address, "--token", TOKEN, "--quiet"];
        let _worker = Process::start(project.command(&join));
        let client = ["run", pipeline, "--join", &address, "--token", TOKEN, "--format", "json"];
        let mut client = Running::start(&project, &client);
        let program = is_held(&project);
        first.signal(signal);
        client.until(|said| said["event"] == "warning" && said["name"] == "coordinator");
        first.wait();
        let _second = start();
        client.until(|said| said["event"] == "started");
        client.until(|said| said["event"] == "attempt_started" && said["name"] == "held");
        assert!(lives(program), "what runs goes on");
        project.write("go", "");
        let outcomes = client.end().ok().outcomes();
        assert_eq!((&*outcomes["rows"], &*outcomes["held"]), ("cached", "done"), "after SIG{signal}");
    }
}

#[test]
fn a_killed_coordinator_loses_nothing_of_the_runs_that_it_saw_through() {
    let reference = Reference::new();
    for round in 0..6 {
        let project = Watched::new();
        let address = free_address();
        let start = || Process::start(project.command(&coordinator(&address, &["--workers", "0", "--quiet"])));
        let mut first = start();
        first.hears("runs are asked for with: ");
        let join = ["worker", "--join", &address, "--token", TOKEN, "--quiet"];
        let workers = [0; 2].map(|_| Process::start(project.command(&join)));
        let mut one = Running::of(project.command(&asks(&address, &[])));
        let other = Running::of(project.command(&asks(&address, &["--seed", "8"])));
        let mut finished = Vec::new();
        for _ in 0..=round * reference.events / 6 {
            let Some(said) = one.next() else { break };
            if said["event"] == "stage_finished" {
                finished.push(said["name"].as_str().unwrap().to_owned());
            }
        }
        first.kill();
        let second = start();
        let (one, other) = (one.end().ok(), other.end().ok());
        reference.same(&one);
        assert_ne!(one.digests(), other.digests());
        // What was said to be done is not done again; but the run may have ended before its coordinator.
        let (outcomes, again) = (one.outcomes(), one.stdout.contains("it is asked again"));
        assert!(!again || finished.iter().all(|stage| outcomes[stage] == "cached"), "{finished:?}: {outcomes:?}");
        drop((second, workers));
        assert_eq!(project.processes(), Vec::<u32>::new(), "left running");
    }
}

#[test]
fn the_run_of_a_client_that_is_killed_is_stopped_and_no_other() {
    let project = Project::new();
    let pipeline = held(&project);
    let (_coordinator, address) = listening(&project, &["--workers", "2", "--cores", "1"]);
    let join = ["run", pipeline, "--join", &address, "--token", TOKEN, "--format", "json"];
    let mut client = Running::start(&project, &join);
    let program = is_held(&project);
    let mut other = Running::start(&project, &asks(&address, &[]));
    other.until(|said| said["event"] == "stage_started");
    client.process.kill();
    while lives(program) {
        std::thread::yield_now();
    }
    other.end().ok();
    let shown = project.run(&["show"]).ok().stdout;
    let of = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(of("held-1").contains("interrupted") && of("digits-1").contains("done"), "{shown}");
    // One that is interrupted ends as a run of its own would.
    fs::remove_file(project.path().join("held.id")).unwrap();
    let client = Running::start(&project, &join);
    is_held(&project);
    client.process.signal("INT");
    let ended = client.end();
    assert_eq!((ended.code, &ended.events().pop().unwrap()["interrupted"]), (Some(130), &true.into()), "{ended:?}");
}

#[test]
fn who_asks_in_vain_is_told_why() {
    let project = Project::new();
    let (coordinator, address) = listening(&project, &[]);
    let refused = |project: &Project, arguments: &[&str], code, said: &str| {
        let ended = project.run(arguments);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(format!("{}{}", ended.stderr, ended.stdout).contains(said), "{ended:?}");
    };
    let token = TOKEN.replace('0', "1");
    let other = digits(&["--join", &address, "--token", &token, "--patience", "0"]);
    refused(&project, &other, 3, "are these the address and the token that it printed?");
    refused(&project, &digits(&["--join", &address]), 2, "a coordinator is asked with its token");
    for conflict in ["--workers=2", "--store=memory://", "--cores=1", "--embedded"] {
        refused(&project, &asks(&address, &[conflict]), 2, "cannot be used with");
    }
    refused(&project, &digits(&["--share", "2"]), 2, "--join");
    refused(&project, &asks(&address, &["--share", "0"]), 2, "--share");
    refused(&project, &asks(&address, &["--set", "best.trails=3"]), 2, "did you mean");
    // Relative paths mean something else from here.
    let away = Project::new();
    away.write("rows.csv", "x\n1\n");
    away.write("p.toml", "name = \"p\"\n[stage.a]\nuse = \"read.csv\"\nwith = { path = \"rows.csv\" }\n");
    let join = ["run", "p.toml", "--join", &address, "--token", TOKEN];
    refused(&away, &join, 1, "ask for it from the folder in which the coordinator runs");
    project.write("rows.csv", "x\n2\n");
    refused(&away, &join, 1, "ask for it from the folder in which the coordinator runs");
    // After all that it still takes runs.
    project.run(&asks(&address, &[])).ok();
    coordinator.signal("TERM");
    assert_eq!(coordinator.end().code, Some(0));
}

#[test]
fn a_client_of_another_build_is_refused_with_both_builds_named() {
    let project = Project::new();
    let (_coordinator, address) = listening(&project, &[]);
    let mut other = Command::new(another_build(&project));
    let ended = Ended::of(other.args(asks(&address, &[])).current_dir(project.path()).output().unwrap());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stderr.matches("(ropeway ").count(), 2, "{ended:?}");
    assert!(ended.stderr.contains("but this coordinator runs"), "{ended:?}");
}
