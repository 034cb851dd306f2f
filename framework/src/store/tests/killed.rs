//! The server, or a client of it, is killed in the middle of its work.

use super::proxy::{Fate, Proxy};
use super::server::{Server, hurried};
use crate::data::{Artifact, Digest};
use crate::runtime;
use crate::store::{Commit, Key, Memo, Store};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the child finds the server; without it the child's test does nothing.
const ADDRESS: &str = "ROPEWAY_TEST_S3_ADDRESS";
/// Which of the children this is.
const CHILD: &str = "ROPEWAY_TEST_S3_CHILD";
const TASKS: u64 = 60;

fn key(task: u64) -> Key {
    Key(Digest::of(&task.to_le_bytes()))
}

/// Does a task: small and large outputs in turn, the same ones whoever does it; `seconds` says who did.
async fn attempt(store: &Store, task: u64, seconds: f64) -> Commit {
    let bytes = if task.is_multiple_of(4) { 400_000 } else { 2_000 };
    let content: Vec<u8> = (0..bytes).map(|index| ((index * (task + 1)) >> 3) as u8).collect();
    let output = store.put(&Artifact::Bytes(content.into())).await.unwrap();
    let outputs = [("out".to_owned(), output)].into();
    let memo = Memo { outputs, stage: "test".into(), seconds, device: "cpu".into(), build: "test".into() };
    store.commit(key(task), &memo).await.unwrap()
}

/// Every task has a result with its content, of the process that `winners` names.
async fn check(store: &Store, winners: &[Option<f64>]) {
    for (task, winner) in (0..).zip(winners) {
        let memo = store.memo(key(task)).await.unwrap().unwrap();
        assert_eq!(Some(memo.seconds), *winner, "task {task}");
        store.get(memo.outputs["out"]).await.unwrap();
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing_and_commits_nothing_twice() {
    let Some(server) = Server::start() else { return };
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (server, done) = (&server, &done);
                scope.spawn(move || {
                    let store = hurried(server.address(), "killed");
                    let mut firsts = Vec::new();
                    for task in 0..TASKS {
                        let commit = runtime().unwrap().block_on(attempt(&store, task, f64::from(writer)));
                        firsts.push(commit == Commit::First);
                        assert!(matches!(commit, Commit::First | Commit::Same), "{commit:?}");
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    firsts
                })
            })
            .collect();
        for kill in 1..=8 {
            while done.load(Ordering::SeqCst) < kill * 3 * TASKS / 10 && writers.iter().any(|w| !w.is_finished()) {
                std::thread::sleep(Duration::from_millis(1));
            }
            server.kill_and_restart();
        }
        let firsts: Vec<Vec<bool>> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let winners: Vec<Option<f64>> = (0..TASKS as usize).map(|task| winner(&firsts, task)).collect();
        runtime().unwrap().block_on(check(&hurried(server.address(), "killed"), &winners));
    });
}

/// Who committed a task first; nobody else may think so.
fn winner(firsts: &[Vec<bool>], task: usize) -> Option<f64> {
    let mut winners = (0..).zip(firsts).filter(|(_, firsts)| firsts[task]).map(|(writer, _)| f64::from(writer));
    let winner: Option<f64> = winners.next();
    assert_eq!(winners.next(), None, "task {task} was committed twice");
    winner
}

#[test]
#[ignore = "run by the test below as a process of its own"]
fn child() {
    let (Ok(address), Ok(child)) = (std::env::var(ADDRESS), std::env::var(CHILD)) else { return };
    let store = hurried(address.parse().unwrap(), "processes");
    for task in 0..TASKS {
        let commit = runtime().unwrap().block_on(attempt(&store, task, child.parse().unwrap()));
        println!("task {task} {commit:?}");
    }
}

fn spawn(server: &Server, child: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::killed::child", "--ignored", "--nocapture"])
        .env(ADDRESS, server.address().to_string())
        .env(CHILD, child.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child said about its tasks, until it said so many things.
fn listen(child: &mut Child, tasks: usize) -> Vec<bool> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("task ")).take(tasks).map(|line| line.ends_with("First")).collect()
}

#[test]
fn of_two_processes_one_commits_each_task() {
    let Some(server) = Server::start() else { return };
    let mut children: Vec<Child> = (0..2).map(|child| spawn(&server, child)).collect();
    let firsts: Vec<Vec<bool>> = children.iter_mut().map(|child| listen(child, usize::MAX)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let winners: Vec<Option<f64>> = (0..TASKS as usize).map(|task| winner(&firsts, task)).collect();
    assert!(winners.iter().all(Option::is_some));
    runtime().unwrap().block_on(check(&hurried(server.address(), "processes"), &winners));
}

#[test]
fn a_client_that_is_killed_leaves_whole_results_only() {
    let Some(server) = Server::start() else { return };
    for round in 1..=6 {
        let mut child = spawn(&server, round);
        let told = listen(&mut child, 5 * round).len();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(told, 5 * round);
        runtime().unwrap().block_on(async {
            let store = hurried(server.address(), "processes");
            for task in 0..TASKS {
                match store.memo(key(task)).await.unwrap() {
                    Some(memo) => drop(store.get(memo.outputs["out"]).await.unwrap()),
                    None => assert!(task >= told as u64),
                }
            }
            for found in store.backend().list("blobs").await.unwrap() {
                let content = store.backend().read(&found.path, found.bytes).await.unwrap().unwrap();
                assert_eq!(found.name(), Digest::of(&content).to_string());
            }
        });
    }
}

#[test]
fn a_store_that_vanishes_is_waited_for() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::new(server.address(), |_| Fate::Arrive);
    let store = hurried(proxy.address(), "vanished");
    let runtime = runtime().unwrap();
    assert_eq!(runtime.block_on(attempt(&store, 1, 0.0)), Commit::First);
    server.kill();
    let before = proxy.connections();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| runtime.block_on(attempt(&store, 2, 0.0)));
        while proxy.connections() < before + 3 && !waits.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill_and_restart();
        assert_eq!(waits.join().unwrap(), Commit::First);
    });
}
