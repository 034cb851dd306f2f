//! Runs in worker processes: the bytes are those of a run in one process, whoever is killed.

use crate::support::{Ended, Project, Running, TOKEN, digits};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// The processes that a process started.
fn children(of: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    listed.unwrap_or_default().split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Whether a process lives: one that has ended has no command line any more.
fn lives(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Kills a process; whether it lived.
fn kill(process: u32) -> bool {
    lives(process) && std::process::Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success()
}

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
    // The same program but for one digit of the identity that the linker wrote into it.
    let mut program = fs::read(env!("CARGO_BIN_EXE_ropeway")).unwrap();
    let note = program.windows(16).position(|at| at == b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").or_else(|| {
        // The linker decides how long an identity is.
        program.windows(16).position(|at| at.starts_with(b"\x04\0\0\0") && at.ends_with(b"\x03\0\0\0GNU\0"))
    });
    program[note.unwrap() + 16] ^= 1;
    let other = project.write("other/ropeway", program);
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let mut running =
        Running::start(&project, &digits(&["--workers", "1", "--listen", "127.0.0.1:0", "--token", TOKEN]));
    let address = running.address();
    let refused = std::process::Command::new(&other).args(["worker", "--join", &address, "--token", TOKEN]).output();
    let refused = Ended::of(refused.unwrap());
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert_eq!(refused.stderr.matches("(ropeway ").count(), 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("but this run is computed by"), "{}", refused.stderr);
    running.end().ok();
}

/// Kills of workers that a run must survive, in all.
const KILLS: usize = 40;

#[test]
fn killed_workers_change_nothing() {
    let reference = Project::new().run(&digits(&[])).ok().digests();
    let mut kills = 0;
    for round in 0.. {
        if kills >= KILLS {
            break;
        }
        assert!(round < 5 * KILLS, "only {kills} workers were killed in {round} runs");
        let project = Project::new();
        let mut running = Running::start(&project, &digits(&["--workers", "3"]));
        let run = running.process.id();
        let mut heard = 0;
        // Every few events another worker dies.
        while running.next().is_some() {
            heard += 1;
            let workers = children(run);
            if heard % 4 == round % 4 && !workers.is_empty() {
                kills += usize::from(kill(workers[(round + heard) % workers.len()]));
            }
        }
        let ended = running.end().ok();
        assert_eq!(ended.digests(), reference, "round {round}");
        assert!(!ended.stdout.contains("not deterministic"), "{}", ended.stdout);
    }
}

/// Kills of the coordinator.
const CRASHES: usize = 20;

#[test]
fn a_killed_coordinator_goes_on_with_the_workers_that_it_had() {
    let reference = Project::new().run(&digits(&[])).ok();
    let events = reference.events().len();
    let reference = reference.digests();
    for crash in 0..CRASHES {
        let (project, elsewhere) = (Project::new(), Project::new());
        // A port that was free a moment ago: the second coordinator must have the first one's.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let arguments = digits(&["--workers", "0", "--listen", &address, "--token", TOKEN]);
        let mut first = Running::start(&project, &arguments);
        first.address();
        let join = ["worker", "--join", &address, "--token", TOKEN, "--quiet"];
        let workers = [elsewhere.spawn(&join), elsewhere.spawn(&join)];
        for _ in 0..events * crash / CRASHES {
            first.next();
        }
        first.process.kill();
        let again = project.run(&arguments).ok();
        assert_eq!(again.digests(), reference, "after crash {crash}");
        assert!(!again.stdout.contains("not deterministic"), "{}", again.stdout);
        for mut worker in workers {
            // One that came too late for the second run looks for a third.
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        let all = project.run(&digits(&[])).ok();
        assert!(all.outcomes().values().all(|outcome| outcome == "cached"), "{:?}", all.outcomes());
    }
}

#[test]
fn nothing_is_left_when_everything_is_killed() {
    let project = Project::new();
    let temporary = project.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = project.command(&digits(&["--workers", "3"]));
    let mut child = command.env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("task_finished") {}
    let workers = children(child.id());
    assert_eq!(workers.len(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    // The workers' pipes have closed: they end by themselves.
    while workers.iter().any(|id| lives(*id)) {
        std::thread::yield_now();
    }
    let again = project.command(&digits(&["--workers", "2"])).env("TMPDIR", &temporary).output().unwrap();
    Ended::of(again).ok();
    let left: BTreeSet<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(fs::read_dir(project.path().join(".ropeway/staging")).is_ok_and(|entries| entries.count() == 0));
}
