//! What a process that is killed at any moment leaves behind, with real processes.

use super::backend::Backend;
use super::files::Files;
use super::ram::Ram;
use super::{Commit, Key, Memo, Store};
use crate::data::{Artifact, Digest, Kind, Ref};
use crate::runtime;
use object_store::local::LocalFileSystem;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the child finds the store; without it the child's test does nothing.
const STORE: &str = "ROPEWAY_TEST_KILLED_STORE";

async fn task(store: &Store, number: u64) -> Commit {
    let key = Key(Digest::of(&number.to_le_bytes()));
    let content: Vec<u8> = (0..400_000u64).map(|index| ((index * (number + 1)) >> 3) as u8).collect();
    let output = store.put(&Artifact::Bytes(content.into())).await.unwrap();
    let outputs = [("out".to_owned(), output)].into();
    let memo = Memo { outputs, stage: "test".into(), seconds: 1.0, device: "cpu".into(), build: "test".into() };
    store.commit(key, &memo).await.unwrap()
}

/// A store for processes that are killed: `far:FOLDER` is a remote one with a cache of the machine, which is small.
async fn open(url: &str) -> Store {
    let Some(folder) = url.strip_prefix("far:").map(Path::new) else {
        return Store::open(url).await.unwrap().with_memory(1 << 20);
    };
    let far = folder.join("far");
    std::fs::create_dir_all(&far).unwrap();
    let store = Store::on(Arc::new(LocalFileSystem::new_with_prefix(far).unwrap()));
    store.with_machine(&folder.join("machine"), LIMIT)
}

/// What the cache of the machine may have: ten artifacts.
const LIMIT: u64 = 4_000_000;

#[test]
#[ignore = "run by the tests below as a process of its own"]
fn child() {
    let Ok(url) = std::env::var(STORE) else { return };
    runtime().unwrap().block_on(async {
        let store = open(&url).await;
        for number in 0.. {
            task(&store, number).await;
            println!("task {number}");
        }
    });
}

/// Starts a process that works on a store, and kills it when it has said that many tasks are done.
fn kill_after(tasks: usize, url: &str, temporary: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::killed::child", "--ignored", "--nocapture"])
        .env(STORE, url)
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.filter(|line| line.contains("task ")).take(tasks).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(told, tasks);
}

/// Every blob has the digest that it is called by.
async fn check_blobs(backend: &Backend) {
    for found in backend.list("blobs").await.unwrap() {
        let content = backend.read(&found.path, found.bytes).await.unwrap().unwrap();
        assert_eq!(found.name(), Digest::of(&content).to_string());
    }
}

#[test]
fn a_kill_at_any_moment_leaves_whole_results_only() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", folder.path().display());
    for round in 1..=12 {
        kill_after(round, &url, temporary.path());
        runtime().unwrap().block_on(async {
            // Opening removes what the dead process was writing.
            let store = Store::open(&url).await.unwrap();
            assert_eq!(count(&folder.path().join("staging")), 0);
            let mut committed = 0;
            while let Some(memo) = store.memo(Key(Digest::of(&u64::to_le_bytes(committed)))).await.unwrap() {
                store.get(memo.outputs["out"]).await.unwrap();
                committed += 1;
            }
            assert!(committed >= round as u64);
            // The next attempt finds what is committed, and adds what is not.
            assert_eq!(task(&store, committed - 1).await, Commit::Same);
            check_blobs(store.backend()).await;
        });
    }
    assert_eq!(count(temporary.path()), 0);
}

#[test]
fn a_kill_leaves_no_temporary_files_for_long() {
    let temporary = tempfile::tempdir().unwrap();
    for round in 1..=6 {
        // More than its memory holds: it is moving artifacts to files.
        kill_after(5 * round, "memory://", temporary.path());
        assert_eq!(count(temporary.path()), 1, "the dead process's folder");
        let next = Ram::in_folder(temporary.path());
        assert!(next.sweep(false).unwrap().files > 0);
        assert_eq!(count(temporary.path()), 0);
    }
}

#[test]
fn a_kill_leaves_the_cache_of_the_machine_whole() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("far:{}", folder.path().display());
    for round in 1..=6 {
        // It fills the cache and takes away from it at the same time.
        kill_after(3 * round, &url, temporary.path());
        runtime().unwrap().block_on(async {
            let store = open(&url).await;
            assert_eq!(count(&folder.path().join("machine/staging")), 0);
            let cache = Backend::Files(Files::new("file://cache".into(), folder.path().join("machine")));
            check_blobs(&cache).await;
            let blobs = cache.list("blobs").await.unwrap();
            assert!(!blobs.is_empty());
            assert!(blobs.iter().map(|found| found.bytes).sum::<u64>() <= LIMIT + 400_000);
            for found in &blobs {
                let digest = found.name().parse().unwrap();
                store.get(Ref { kind: Kind::Bytes, digest, bytes: found.bytes }).await.unwrap();
            }
        });
    }
    assert_eq!(count(temporary.path()), 0);
}

fn count(folder: &Path) -> usize {
    folder.read_dir().map_or(0, Iterator::count)
}
