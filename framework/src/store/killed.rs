//! What a process that is killed at any moment leaves behind, with real processes.

use super::{Commit, Key, Memo, Store};
use crate::data::{Artifact, Digest};
use crate::runtime;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

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

#[test]
#[ignore = "run by the test below as a process of its own"]
fn child() {
    let Ok(url) = std::env::var(STORE) else { return };
    runtime().unwrap().block_on(async {
        let store = Store::open(&url).await.unwrap();
        for number in 0.. {
            task(&store, number).await;
            println!("task {number}");
        }
    });
}

#[test]
fn a_kill_at_any_moment_leaves_whole_results_only() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    for round in 1..=12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::killed::child", "--ignored", "--nocapture"])
            .env(STORE, &url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let told = lines.filter(|line| line.contains("task ")).take(round).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(told, round);

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
            for found in store.backend().list("blobs").await.unwrap() {
                let content = store.backend().read(&found.path, found.bytes).await.unwrap().unwrap();
                assert_eq!(found.name(), Digest::of(&content).to_string());
            }
        });
    }
}

fn count(folder: &Path) -> usize {
    folder.read_dir().map_or(0, Iterator::count)
}
