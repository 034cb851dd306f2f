//! Runs in worker processes: the bytes are those of a run in one process, and nobody but its workers takes part.

use crate::support::{Ended, MUCH, Process, Project, Running, TOKEN, all_digits, another_build, digits, skip};
use std::fs;
use std::process::Command;

#[test]
fn any_number_of_worker_processes_gives_equal_bytes() {
    let first = Project::new().run(&digits(&[])).ok().digests();
    for workers in ["1", "2", "4"] {
        let ended = Project::new().run(&digits(&["--workers", workers])).ok();
        assert_eq!(ended.digests(), first, "with {workers} workers");
        assert_eq!(ended.stderr, "");
    }
    let ended = Project::new().run(&digits(&["--workers", "2", "--store", "memory://"])).ok();
    assert_eq!(ended.digests(), first, "with a store that only the coordinator reaches");
}

#[test]
fn a_worker_joins_from_elsewhere_and_is_all_there_is() {
    let first = Project::new().run(&digits(&[])).ok().digests();
    let (project, elsewhere) = (Project::new(), Project::new());
    let mut running =
        Running::start(&project, &digits(&["--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN]));
    let address = running.address();
    let join = ["worker", "--join", &address, "--token", TOKEN, "--name", "guest"];
    let worker = elsewhere.spawn(&join);
    assert_eq!(running.end().ok().digests(), first);
    let worker = Ended::of(worker.wait_with_output().unwrap()).ok();
    assert!(worker.stderr.contains("guest: joined run digits-1"), "{}", worker.stderr);
    assert_eq!(
        fs::read_dir(elsewhere.path()).unwrap().count(),
        0,
        "it leaves nothing in a folder that is none of the run's"
    );
}

#[test]
fn who_has_no_token_is_no_worker() {
    let project = Project::new();
    let mut running =
        Running::start(&project, &digits(&["--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN]));
    let address = running.address();
    let other = TOKEN.replace("00", "01");
    let stranger = project.run(&["worker", "--join", &address, "--token", &other, "--patience", "0"]);
    assert_eq!(stranger.code, Some(3), "{stranger:#?}");
    assert!(stranger.stderr.contains("can't join the coordinator"), "{}", stranger.stderr);
    let nonsense = project.run(&["worker", "--join", &address, "--token", "secret"]);
    assert_eq!(nonsense.code, Some(2), "{nonsense:#?}");
    assert!(nonsense.stderr.contains("this is no token"), "{}", nonsense.stderr);
    // Whoever speaks something else is not heard, and the run goes on.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let worker = project.spawn(&["worker", "--join", &address, "--token", TOKEN]);
    running.end().ok();
    Ended::of(worker.wait_with_output().unwrap()).ok();
}

#[test]
fn a_worker_of_another_build_is_refused_with_both_builds_named() {
    let project = Project::new();
    let other = another_build(&project);
    let mut running =
        Running::start(&project, &digits(&["--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN]));
    let address = running.address();
    let refused = Command::new(&other).args(["worker", "--join", &address, "--token", TOKEN]).output();
    let refused = Ended::of(refused.unwrap());
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert_eq!(refused.stderr.matches("(ropeway ").count(), 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("but this run is computed by"), "{}", refused.stderr);
    let welcome = project.spawn(&["worker", "--join", &address, "--token", TOKEN]);
    running.end().ok();
    Ended::of(welcome.wait_with_output().unwrap()).ok();
}

#[test]
fn what_waits_for_a_worker_to_join_is_said_and_others_reach_a_run_that_listens_everywhere() {
    let project = Project::new();
    let text = "name = \"p\"\n[stage.rows]\nuse = \"dataset.iris\"\n[stage.large]\nuse = \"sample\"\nfrom = \"rows\"\n\
                with = { rows = 5 }\nneeds = { cpus = 640 }\n";
    project.write("p.toml", text);
    let listen = ["run", "p.toml", "--format", "json", "--workers", "1", "--listen", "0.0.0.0:0", "--token", TOKEN];
    let mut running = Running::start(&project, &listen);
    let address = running.address();
    assert!(!address.starts_with("0.0.0.0"), "{address}");
    let warning = running.until(|said| said["event"] == "warning" && said["name"] == "large");
    let message = warning["message"].as_str().unwrap();
    assert!(message.starts_with("it waits for a worker to join that has 640 cores"), "{message}");
    // One that has joins, at the address that was said.
    let worker = project.spawn(&["worker", "--join", &address, "--token", TOKEN, "--cores", "640"]);
    running.end().ok();
    Ended::of(worker.wait_with_output().unwrap()).ok();
}

#[test]
fn a_worker_that_is_told_to_end_leaves_in_good_order() {
    let expected = Project::new().run(&all_digits(&MUCH)).ok().digests();
    let project = Project::new();
    let listen = ["--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN];
    let mut running = Running::start(&project, &all_digits(&[&MUCH[..], &listen].concat()));
    let address = running.address();
    let join = |name| {
        Process::start(
            project.command(&["worker", "--join", &address, "--token", TOKEN, "--cores", "1", "--name", name]),
        )
    };
    let goes = join("goes");
    running.until(|said| said["event"] == "attempt_ended");
    let stays = join("stays");
    running.until(|said| said["event"] == "worker_joined" && said["worker"] == "stays");
    goes.signal("TERM");
    assert_eq!(goes.end().code, Some(0));
    let ended = running.end().ok();
    assert_eq!(ended.digests(), expected);
    stays.end().ok();
    let left: Vec<_> = ended.events().into_iter().filter(|said| said["event"] == "worker_left").collect();
    let first = left.iter().find(|said| said["worker"] == "goes").unwrap();
    assert!(first["lost"].is_null(), "{first}");
    let stopped = |said: &serde_json::Value| said["event"] == "attempt_ended" && said["end"] == "lost";
    assert!(!ended.events().iter().any(stopped), "what it ran has ended there: {}", ended.stdout);
}

#[test]
fn who_comes_under_a_name_that_is_taken_gets_another_and_no_pool_takes_it_for_its_own() {
    let project = Project::new();
    let listen = ["--workers", "1", "--listen", "127.0.0.1:0", "--token", TOKEN];
    let mut running = Running::start(&project, &all_digits(&[&MUCH[..], &listen].concat()));
    let address = running.address();
    running.until(|said| said["event"] == "worker_joined" && said["worker"] == "local-1");
    let join = ["worker", "--join", &address, "--token", TOKEN, "--name", "local-1"];
    let mut guest = Process::start(project.command(&join));
    let joined = running.until(|said| said["event"] == "worker_joined");
    let name = joined["worker"].as_str().unwrap().to_owned();
    assert!(name.starts_with("local-1#"), "{name}");
    // That it goes is not the end of the pool's own one.
    guest.kill();
    let ended = running.end().ok();
    assert_eq!(ended.digests(), Project::new().run(&all_digits(&MUCH)).ok().digests());
    let left = ended.events().into_iter().filter(|said| said["event"] == "worker_left" && !said["lost"].is_null());
    assert_eq!(left.map(|said| said["worker"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), [name]);
}

#[test]
fn a_token_in_the_environment_is_for_runs_that_others_may_join() {
    let project = Project::new();
    for token in [TOKEN, "for something else"] {
        let mut command = project.command(&digits(&["--workers", "1"]));
        Ended::of(command.env("ROPEWAY_TOKEN", token).output().unwrap()).ok();
    }
}

#[test]
fn a_container_of_this_machine_does_not_read_its_own_files_for_the_runs() {
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        return skip("mount", "nothing can be mounted here");
    }
    let text = "name = \"p\"\n[stage.rows]\nuse = \"read.csv\"\nwith = { path = \"data.csv\" }\n";
    let project = Project::new();
    project.write("p.toml", text);
    project.write("data.csv", "x\n1\n2\n");
    project.write("older.csv", "x\n3\n4\n");
    let expected = project.run(&["run", "p.toml", "--format", "json", "--store", "memory://"]).ok().digests();
    let listen = ["run", "p.toml", "--format", "json", "--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN];
    let mut running = Running::start(&project, &listen);
    let address = running.address();
    let join = |name| project.command(&["worker", "--join", &address, "--token", TOKEN, "--name", name]);
    // The same kernel, the same path: another file.
    let worker = join("container");
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "sh", "-c", "mount --bind older.csv data.csv && exec \"$0\" \"$@\""]);
    apart.arg(worker.get_program()).args(worker.get_args()).current_dir(project.path());
    let container = Process::start(apart);
    let waits = running.until(|said| said["event"] == "warning" && said["name"] == "rows");
    let message = waits["message"].as_str().unwrap();
    assert!(message.contains("waits for a worker to join that has 1 core, the files of this machine"), "{message}");
    let near = Process::start(join("near"));
    let ended = running.end().ok();
    assert_eq!(ended.digests(), expected);
    let start = ended.events().into_iter().find(|said| said["event"] == "attempt_started").unwrap();
    assert_eq!(start["worker"], "near");
    near.end().ok();
    container.end().ok();
}
