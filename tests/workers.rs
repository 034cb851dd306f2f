//! Runs in worker processes: the bytes are those of a run in one process, and nobody but its workers takes part.

use crate::support::{Ended, Project, Running, TOKEN, digits};
use std::fs;

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
