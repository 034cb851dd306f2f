//! Writes of which nobody said whether they happened.

use super::proxy::{Fate, Proxy};
use super::server::{Server, hurried, options, url};
use crate::data::{Artifact, Digest, Ref};
use crate::runtime;
use crate::store::{Commit, Key, Memo, Store, StoreError};
use bytes::Bytes;
use std::time::Duration;

fn key(task: u64) -> Key {
    Key(Digest::of(&task.to_le_bytes()))
}

fn memo(output: Ref, seconds: f64) -> Memo {
    let outputs = [("out".to_owned(), output)].into();
    Memo { outputs, stage: "test".into(), seconds, device: "cpu".into(), build: "test".into() }
}

fn content(task: u64, bytes: usize) -> Artifact {
    let content: Vec<u8> = (0..bytes as u64).map(|index| ((index * (2 * task + 1)) >> 3) as u8).collect();
    Artifact::Bytes(content.into())
}

/// Commits tasks over a bad network, then looks at them and commits them again over a good one.
async fn each_is_committed_once(bad: &Store, good: &Store, bytes: usize) {
    for task in 0..16 {
        let output = bad.put(&content(task, bytes)).await.unwrap();
        let mine = memo(output, task as f64);
        assert_eq!(bad.commit(key(task), &mine).await.unwrap(), Commit::First, "its own result is no other's");
        assert_eq!(good.memo(key(task)).await.unwrap().as_ref(), Some(&mine));
        assert_eq!(Bytes::try_from(good.get(output).await.unwrap()).unwrap().len(), bytes);
        assert_eq!(bad.commit(key(task), &memo(output, -1.0)).await.unwrap(), Commit::Same);
        let other = good.put(&content(task, bytes + 1)).await.unwrap();
        assert_eq!(bad.commit(key(task), &memo(other, 0.0)).await.unwrap(), Commit::Different(mine));
    }
}

#[test]
fn a_lost_answer_is_not_another_result() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::new(server.address(), |request| if request % 2 == 0 { Fate::LoseAnswer } else { Fate::Arrive });
    let (bad, good) = (hurried(proxy.address(), "lost"), hurried(server.address(), "lost"));
    runtime().unwrap().block_on(each_is_committed_once(&bad, &good, 1000));
}

#[test]
fn answers_that_break_off_are_asked_for_again() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::new(server.address(), |request| match request % 3 {
        0 => Fate::CutAnswer(20),
        1 => Fate::CutAnswer(40_000),
        _ => Fate::Arrive,
    });
    let (bad, good) = (hurried(proxy.address(), "cut"), hurried(server.address(), "cut"));
    runtime().unwrap().block_on(async {
        each_is_committed_once(&bad, &good, 300_000).await;
        for task in 0..16 {
            let output = good.memo(key(task)).await.unwrap().unwrap().outputs["out"];
            let read = bad.clone().with_memory(0).bytes(output).await.unwrap();
            assert_eq!(Digest::of(&read), output.digest);
        }
    });
}

#[test]
fn requests_that_break_off_leave_nothing_half() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::new(server.address(), |request| match request % 3 {
        0 => Fate::CutRequest(20_000 * request as usize % 300_000),
        1 => Fate::CutRequest(100),
        _ => Fate::Arrive,
    });
    let (bad, good) = (hurried(proxy.address(), "half"), hurried(server.address(), "half"));
    runtime().unwrap().block_on(each_is_committed_once(&bad, &good, 300_000));
}

#[test]
fn answers_that_come_too_late_are_asked_for_again() {
    let Some(server) = Server::start() else { return };
    let late = Fate::Late(Duration::from_secs(2));
    let proxy = Proxy::new(server.address(), move |request| if request % 7 == 3 { late } else { Fate::Arrive });
    runtime().unwrap().block_on(async {
        let impatient = options(proxy.address()).into_iter().chain([("timeout".to_owned(), "1s".to_owned())]);
        let bad = Store::open_with(&url("late"), impatient).await.unwrap();
        let good = hurried(server.address(), "late");
        for task in 0..4 {
            let mine = memo(bad.put(&content(task, 1000)).await.unwrap(), task as f64);
            assert_eq!(bad.commit(key(task), &mine).await.unwrap(), Commit::First);
            assert_eq!(good.memo(key(task)).await.unwrap(), Some(mine));
        }
    });
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(server) = Server::start() else { return };
    let error = runtime().unwrap().block_on(Store::open_with("s3://buckett/x", options(server.address()))).unwrap_err();
    assert!(matches!(StoreError::of(&error), Some(StoreError::Unavailable { .. })), "{error}");
    assert!(error.to_string().contains("s3://buckett/x: there is no such bucket"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_is_told_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let opening = async |address| Store::open_with(&url("silent"), options(address)).await.unwrap_err().to_string();
    let told = runtime()
        .unwrap()
        .block_on(async { futures::future::join(opening(silent.local_addr().unwrap()), opening(gone)).await });
    let expected = "can't read anything in the store s3://bucket/silent: there is no answer within 15 s";
    assert_eq!(told.0, expected);
    // The client asks again for a while, with pauses by chance: it may have given up before.
    assert!(told.1 == expected || told.1.contains("Connection refused"), "{}", told.1);
}
