//! What every store must do, run for each kind of store, and for one that fails half of the time.

use super::backend::{Backend, CORRUPT, Created};
use super::blobs::blob_path;
use super::collect::{Collect, Collected};
use super::commit::memo_path;
use super::faulty::{Faulty, Plan};
use super::files::Files;
use super::objects::Objects;
use super::ram::Ram;
use super::{Commit, Entry, Key, Memo, PeerSource, Store, StoreError};
use crate::data::{Artifact, Digest, Frame, Kind, List, Metrics, Model, Ref, Tensor, Tensors, encode};
use crate::{Fault, runtime};
use arrow::array::{ArrayRef, Float64Array};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use object_store::memory::InMemory;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens the place under test anew, as another process does: with nothing in its memory.
type Open<'a> = &'a (dyn Fn() -> Store + Sync);

/// What a failing disk does to an object.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

fn in_memory() -> impl Fn() -> Store + Sync {
    let place = Arc::new(InMemory::new());
    move || Store::on(place.clone())
}

fn in_ram(folder: &Path) -> impl Fn() -> Store + Sync {
    let ram = Ram::in_folder(folder);
    move || Store::new(Backend::Ram(ram.clone()))
}

/// With a cache of the machine, through another process's store.
fn with_machine(folder: &Path) -> impl Fn() -> Store + Sync {
    let (place, folder) = (Arc::new(InMemory::new()), folder.to_owned());
    move || Store::remote(Arc::new(Store::on(place.clone()))).with_machine(&folder, 1 << 30)
}

/// With peers that have nothing, or lie, or fail.
struct Peers;

impl PeerSource for Peers {
    fn fetch(&self, reference: Ref) -> BoxFuture<'_, crate::Result<Option<Bytes>>> {
        let answer = match reference.digest.as_bytes()[0] % 3 {
            0 => Ok(None),
            1 => Ok(Some(Bytes::from(vec![7; reference.bytes as usize]))),
            _ => Err(crate::Error::new("the peer is gone")),
        };
        futures::future::ready(answer).boxed()
    }
}

fn with_bad_peers() -> impl Fn() -> Store + Sync {
    let open = in_memory();
    move || open().with_peers(Arc::new(Peers))
}

/// With room for nothing.
fn without_memory(open: impl Fn() -> Store + Sync) -> impl Fn() -> Store + Sync {
    move || open().with_memory(0)
}

fn in_folder(root: &Path) -> impl Fn() -> Store + Sync {
    let root = root.to_owned();
    move || Store::new(Backend::Files(Files::new("file://test".into(), root.clone())))
}

fn on_faulty(faulty: Faulty, tries: u32) -> impl Fn() -> Store + Sync {
    move || Store::new(Backend::Objects(Objects::new("faulty://".into(), Arc::new(faulty.clone())).hurried(tries)))
}

fn for_every_store(check: impl AsyncFn(Open)) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime().unwrap();
    runtime.block_on(check(&in_memory()));
    runtime.block_on(check(&in_folder(&folder.path().join("store"))));
    runtime.block_on(check(&without_memory(in_folder(&folder.path().join("narrow")))));
    runtime.block_on(check(&in_ram(folder.path())));
    runtime.block_on(check(&without_memory(in_ram(folder.path()))));
    runtime.block_on(check(&with_machine(&folder.path().join("machine"))));
    runtime.block_on(check(&without_memory(with_machine(&folder.path().join("shared")))));
    runtime.block_on(check(&with_bad_peers()));
    for seed in 0..20 {
        runtime.block_on(check(&on_faulty(Faulty::new(Plan::Sometimes(seed)), 100)));
    }
    #[cfg(feature = "s3")]
    on_s3(check);
}

/// A real server, if there is one: as it is, and through a bad network.
#[cfg(feature = "s3")]
fn on_s3(check: impl AsyncFn(Open)) {
    use super::tests::{proxy::Proxy, server};
    let Some(server) = server::Server::start() else { return };
    let runtime = runtime().unwrap();
    runtime.block_on(check(&|| server::hurried(server.address(), "direct")));
    for seed in 0..3 {
        let proxy = Proxy::bad(server.address(), seed);
        runtime.block_on(check(&|| server::hurried(proxy.address(), &format!("bad-{seed}"))));
        assert!(proxy.requests() > 0);
    }
}

/// Waits until the store's clock shows another time: what is written then is later than what was before.
async fn tick(store: &Store) {
    const MARK: &str = "corrupt/tick";
    let backend = store.backend();
    let time = async || {
        backend.create(MARK, Bytes::from_static(b"now")).await.unwrap();
        let found = backend.list(CORRUPT).await.unwrap();
        let modified = found.iter().find(|found| found.path == MARK).unwrap().modified;
        backend.remove(MARK).await.unwrap();
        modified
    };
    let before = time().await;
    while time().await <= before {}
}

fn text(text: &str) -> Artifact {
    Artifact::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

fn key(name: &str) -> Key {
    Key(Digest::of(name.as_bytes()))
}

fn memo(outputs: &[(&str, Ref)], seconds: f64) -> Memo {
    let outputs = outputs.iter().map(|(port, reference)| ((*port).to_owned(), *reference)).collect();
    Memo { outputs, stage: "test".into(), seconds, device: "cpu".into(), build: "test".into() }
}

fn one_of_each() -> Vec<Artifact> {
    let column: ArrayRef = Arc::new(Float64Array::from_iter_values((0..1000).map(f64::from)));
    let weights = Tensor::from_vec(vec![2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let tensors = Tensors::new().with("weights", weights);
    let inner: List = [text("a"), text("b"), text("a")].into_iter().collect();
    vec![
        Artifact::Frame(Frame::from_columns([("x", column)]).unwrap()),
        Artifact::Model(Model::new("linear", &serde_json::json!({"width": 3}), tensors.clone()).unwrap()),
        Artifact::Tensors(tensors),
        Artifact::Metrics(Metrics::new().with("loss", 0.25)),
        Artifact::List([Artifact::List(inner), text("c"), text("")].into_iter().collect()),
        Artifact::Bytes(vec![7; 300_000].into()),
    ]
}

/// Replaces an object's content, as a failing disk does.
async fn damage(store: &Store, path: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = store.backend().read(path, 0).await.unwrap().unwrap().to_vec();
    if let Ok(digest) = path.rsplit('/').next().unwrap().parse() {
        // The machine's copy is another one, which would do instead.
        store.0.forget(Ref { kind: Kind::Bytes, digest, bytes: 0 });
    }
    change(&mut bytes);
    store.backend().remove(path).await.unwrap();
    store.backend().create(path, bytes).await.unwrap();
}

fn fault(error: &crate::Error) -> &StoreError {
    StoreError::of(error).unwrap_or_else(|| panic!("no error of the store: {error}"))
}

#[test]
fn artifacts_come_back() {
    for_every_store(async |open| {
        let store = open();
        for artifact in one_of_each() {
            let reference = store.put(&artifact).await.unwrap();
            assert_eq!(reference, encode(&artifact).unwrap().reference);
            assert_eq!(open().put(&artifact).await.unwrap(), reference);
            for reader in [&store, &open()] {
                assert!(reader.has(reference).await.unwrap());
                let read = reader.get(reference).await.unwrap();
                assert_eq!(read.kind(), artifact.kind());
                assert_eq!(encode(&read).unwrap().reference, reference);
                assert_eq!(Digest::of(&reader.bytes(reference).await.unwrap()), reference.digest);
            }
        }
        let absent = encode(&text("absent")).unwrap().reference;
        assert!(!store.has(absent).await.unwrap());
        let error = store.get(absent).await.unwrap_err();
        assert!(matches!(fault(&error), StoreError::Missing { .. }) && fault(&error).is_lost());
        assert_eq!(error.whose(), Fault::Unavailable);
    });
}

#[test]
fn what_is_read_back_and_what_was_just_put_are_the_same() {
    // Two batches of a frame are one batch in canonical form, whoever asks.
    let column = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let one = Frame::from_columns([("x", column(vec![1.0, 2.0]))]).unwrap();
    let two = Frame::from_columns([("x", column(vec![3.0]))]).unwrap();
    let batches = [one.batches(), two.batches()].concat();
    let frame = Frame::new(one.schema().clone(), batches).unwrap();
    for_every_store(async |open| {
        let store = open();
        let reference = store.put(&frame.clone().into()).await.unwrap();
        for reader in [store, open()] {
            let read = Frame::try_from(reader.get(reference).await.unwrap()).unwrap();
            assert_eq!((read.rows(), read.batches().len()), (3, 1));
        }
    });
}

#[test]
fn the_first_result_stays() {
    for_every_store(async |open| {
        let store = open();
        let (a, b) = (store.put(&text("a")).await.unwrap(), store.put(&text("b")).await.unwrap());
        assert_eq!(store.memo(key("task")).await.unwrap(), None);
        let first = memo(&[("out", a)], 1.5);
        assert_eq!(store.commit(key("task"), &first).await.unwrap(), Commit::First);
        assert_eq!(open().commit(key("task"), &memo(&[("out", a)], 2.5)).await.unwrap(), Commit::Same);
        for other in [memo(&[("out", b)], 1.5), memo(&[("other", a)], 1.5), memo(&[], 1.5)] {
            assert_eq!(open().commit(key("task"), &other).await.unwrap(), Commit::Different(first.clone()));
        }
        assert_eq!(open().memo(key("task")).await.unwrap(), Some(first));
        assert_eq!(open().memo(key("another")).await.unwrap(), None);
    });
}

#[test]
fn of_many_committers_one_wins() {
    for_every_store(async |open| {
        let attempts = (0..24).map(|index| {
            let store = open();
            tokio::spawn(async move {
                let output = store.put(&text(&format!("{}", index % 12))).await.unwrap();
                let mine = memo(&[("out", output)], f64::from(index));
                (mine.clone(), store.commit(key("task"), &mine).await.unwrap())
            })
        });
        let ends: Vec<(Memo, Commit)> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        let winner = open().memo(key("task")).await.unwrap().unwrap();
        let firsts: Vec<&Memo> = ends.iter().filter(|end| end.1 == Commit::First).map(|end| &end.0).collect();
        assert_eq!(firsts, [&winner]);
        for (mine, end) in &ends {
            match end {
                Commit::First => {}
                Commit::Same => assert_eq!(mine.outputs, winner.outputs),
                Commit::Different(there) => {
                    assert_eq!(there, &winner);
                    assert_ne!(mine.outputs, winner.outputs);
                }
            }
        }
        for (mine, _) in &ends {
            assert!(open().get(mine.outputs["out"]).await.is_ok());
        }
    });
}

#[test]
fn no_log_entry_is_lost_or_written_twice() {
    for_every_store(async |open| {
        let begun = join_all((0..4).map(|index| {
            let log = open().log("digits-1");
            tokio::spawn(async move { log.begin(format!("begin {index}").into()).await.unwrap() })
        }));
        assert_eq!(begun.await.into_iter().filter(|begun| *begun.as_ref().unwrap()).count(), 1);
        let writers = (0..4).map(|writer| {
            let log = open().log("digits-1");
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for entry in 0..10 {
                    numbers.push(log.append(format!("{writer} {entry}").into()).await.unwrap());
                }
                numbers
            })
        });
        let numbers: Vec<Vec<u64>> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
        assert!(numbers.iter().all(|numbers| numbers.is_sorted()));
        let log = open().log("digits-1");
        assert_eq!(log.list().await.unwrap(), (1..=41).collect::<Vec<u64>>());
        let entries = log.read_all().await.unwrap();
        assert_eq!((entries.len(), entries.iter().collect::<BTreeSet<_>>().len()), (41, 41));
        for (writer, numbers) in numbers.iter().enumerate() {
            for (entry, number) in numbers.iter().enumerate() {
                assert_eq!(log.read(*number).await.unwrap().unwrap(), format!("{writer} {entry}"));
            }
        }
        assert_eq!(log.newest().await.unwrap(), Some((41, entries[40].clone())));
        open().log("another").append("x".into()).await.unwrap();
        assert_eq!(open().runs().await.unwrap(), ["another", "digits-1"]);
        assert!(open().log("none").read_all().await.unwrap().is_empty());
    });
}

#[test]
fn a_corrupt_blob_is_found_and_can_be_written_again() {
    for_every_store(async |open| {
        for artifact in one_of_each() {
            let reference = open().put(&artifact).await.unwrap();
            let path = blob_path(reference.digest);
            let changes: [Change; 4] =
                [&|bytes| bytes[0] ^= 1, &|bytes| bytes.truncate(bytes.len() / 2), &|bytes| bytes.clear(), &|bytes| {
                    bytes.push(0)
                }];
            for change in changes {
                damage(&open(), &path, change).await;
                let error = open().get(reference).await.unwrap_err();
                assert!(matches!(fault(&error), StoreError::Corrupt { .. }), "{error}");
                assert!(error.to_string().contains(&path), "{error}");
                assert!(open().discard(Entry::Blob(reference)).await.unwrap());
                assert!(!open().has(reference).await.unwrap());
                assert!(matches!(fault(&open().get(reference).await.unwrap_err()), StoreError::Missing { .. }));
                open().put(&artifact).await.unwrap();
                assert!(open().get(reference).await.is_ok());
            }
            assert!(!open().discard(Entry::Blob(reference)).await.unwrap());
            assert!(open().get(reference).await.is_ok());
        }
    });
}

#[test]
fn a_blob_of_the_wrong_length_is_mended_by_the_next_put() {
    for_every_store(async |open| {
        let reference = open().put(&text("cut off by a power cut")).await.unwrap();
        damage(&open(), &blob_path(reference.digest), |bytes| bytes.truncate(3)).await;
        assert!(!open().has(reference).await.unwrap());
        open().put(&text("cut off by a power cut")).await.unwrap();
        assert!(open().get(reference).await.is_ok());
    });
}

#[test]
fn a_corrupt_item_of_a_list_is_set_aside_with_the_list() {
    for_every_store(async |open| {
        let list = Artifact::List([text("good"), text("bad")].into_iter().collect());
        let reference = open().put(&list).await.unwrap();
        let bad = encode(&text("bad")).unwrap().reference;
        damage(&open(), &blob_path(bad.digest), |bytes| bytes[0] ^= 1).await;
        assert!(matches!(fault(&open().get(reference).await.unwrap_err()), StoreError::Corrupt { .. }));
        assert!(open().discard(Entry::Blob(reference)).await.unwrap());
        open().put(&list).await.unwrap();
        assert!(open().get(reference).await.is_ok());
    });
}

#[test]
fn a_corrupt_or_useless_memo_is_no_result() {
    for_every_store(async |open| {
        let output = open().put(&text("a")).await.unwrap();
        let mine = memo(&[("out", output)], 1.0);
        open().commit(key("task"), &mine).await.unwrap();
        let path = memo_path(key("task"));
        let changes: [Change; 3] = [&|bytes| bytes[20] ^= 1, &|bytes| bytes.truncate(40), &|bytes| bytes.clear()];
        for change in changes {
            damage(&open(), &path, change).await;
            let error = open().memo(key("task")).await.unwrap_err();
            assert!(matches!(fault(&error), StoreError::Corrupt { .. }), "{error}");
            assert_eq!(open().commit(key("task"), &mine).await.unwrap(), Commit::First);
            assert_eq!(open().memo(key("task")).await.unwrap().as_ref(), Some(&mine));
        }
        damage(&open(), &path, |bytes| bytes.clear()).await;
        assert!(open().discard(Entry::Memo(key("task"))).await.unwrap());
        assert!(!open().discard(Entry::Memo(key("task"))).await.unwrap());
        assert_eq!(open().memo(key("task")).await.unwrap(), None);

        // A result whose outputs are lost gives way to another one.
        let lost = encode(&text("lost")).unwrap().reference;
        assert_eq!(open().commit(key("task"), &memo(&[("out", lost)], 1.0)).await.unwrap(), Commit::First);
        assert_eq!(open().commit(key("task"), &mine).await.unwrap(), Commit::First);
    });
}

#[test]
fn collecting_keeps_what_is_needed() {
    for_every_store(async |open| {
        let store = open();
        let put = async |artifact: Artifact| store.put(&artifact).await.unwrap();
        let kept = put(text("kept")).await;
        let nested: List = [text("deep"), Artifact::List([text("deeper")].into_iter().collect())].into_iter().collect();
        let list = put(Artifact::List(nested)).await;
        let named = put(text("named by a run")).await;
        let orphan = put(text("orphan")).await;
        store.commit(key("done"), &memo(&[("out", kept), ("list", list)], 1.0)).await.unwrap();
        store.log("run").append(format!("{{\"output\":\"{}\"}}", named.digest).into()).await.unwrap();
        let state = Tensors::new().with("step", Tensor::from_vec(vec![1], vec![1u32]).unwrap());
        for task in ["done", "under way"] {
            store.checkpoint_log(key(task)).save(&state).await.unwrap();
        }
        let spoilt = put(text("spoilt")).await;
        damage(&store, &blob_path(spoilt.digest), |bytes| bytes.clear()).await;
        store.discard(Entry::Blob(spoilt)).await.unwrap();

        let young = store.collect(Collect::default()).await.unwrap();
        assert_eq!((young.blobs, young.memos, young.runs), (0, 0, 0));
        let spoilt = put(text("spoilt")).await;
        damage(&store, &blob_path(spoilt.digest), |bytes| bytes.clear()).await;
        store.discard(Entry::Blob(spoilt)).await.unwrap();
        store.checkpoint_log(key("done")).save(&state).await.unwrap();

        let all = Collect { grace: Duration::ZERO, unfinished: Duration::ZERO, ..Collect::default() };
        let told = open().collect(Collect { dry_run: true, ..all.clone() }).await.unwrap();
        assert!(open().has(orphan).await.unwrap());
        assert_eq!(open().collect(all.clone()).await.unwrap(), told);
        let nothing = Collected { kept_blobs: told.kept_blobs, kept_bytes: told.kept_bytes, ..Collected::default() };
        assert_eq!(open().collect(all).await.unwrap(), nothing);
        assert_eq!((told.blobs, told.memos, told.runs, told.checkpoints, told.leftovers), (1, 0, 0, 1, 1));
        assert_eq!(told.kept_blobs, 6);
        assert!(!open().has(orphan).await.unwrap());
        for reference in [kept, list, named] {
            assert!(open().get(reference).await.is_ok());
        }
        assert!(open().checkpoint_log(key("under way")).newest(&mut |_| ()).await.unwrap().is_some());
        assert!(open().checkpoint_log(key("done")).newest(&mut |_| ()).await.unwrap().is_none());
        assert!(open().backend().list(CORRUPT).await.unwrap().is_empty());
    });
}

#[test]
fn outcomes_are_recorded_once_and_the_first_counts() {
    for_every_store(async |open| {
        let of = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(open().outcome(key("task"), "charge").await.unwrap(), None);
        assert_eq!(open().record_outcome(key("task"), "charge", of("1")).await.unwrap(), of("1"));
        assert_eq!(open().record_outcome(key("task"), "charge", of("2")).await.unwrap(), of("1"));
        assert_eq!(open().outcome(key("task"), "charge").await.unwrap(), Some(of("1")));
        for (task, name) in [("task", "refund"), ("other", "charge")] {
            assert_eq!(open().outcome(key(task), name).await.unwrap(), None);
        }
        // Of many at once one is first, and all hear it.
        let stores: Vec<Store> = (0..8).map(|_| open()).collect();
        let record = |(number, store): (usize, &Store)| {
            let (store, outcome) = (store.clone(), Bytes::from(number.to_string()));
            async move { store.record_outcome(key("race"), "charge", outcome).await.unwrap() }
        };
        let heard: BTreeSet<Bytes> = join_all(stores.iter().enumerate().map(record)).await.into_iter().collect();
        assert_eq!(heard.len(), 1, "{heard:?}");
    });
}

#[test]
fn a_corrupt_outcome_is_an_error_and_stays() {
    for_every_store(async |open| {
        let store = open();
        store.record_outcome(key("task"), "charge", Bytes::from_static(b"1")).await.unwrap();
        let path = format!("once/{}/charge", key("task"));
        let changes: [Change; 2] = [&|bytes| bytes[64] ^= 1, &|bytes| bytes.truncate(9)];
        for change in changes {
            damage(&store, &path, change).await;
            for error in [
                open().outcome(key("task"), "charge").await.unwrap_err(),
                open().record_outcome(key("task"), "charge", Bytes::from_static(b"2")).await.unwrap_err(),
            ] {
                assert!(matches!(fault(&error), StoreError::Corrupt { .. }), "{error}");
                assert!(error.to_string().contains("effect \"charge\""), "{error}");
            }
        }
    });
}

#[test]
fn outcomes_go_with_the_results_of_their_tasks() {
    for_every_store(async |open| {
        let store = open();
        for (run, task) in [("run-1", "old"), ("run-2", "new")] {
            let output = store.put(&text(task)).await.unwrap();
            store.commit(key(task), &memo(&[("out", output)], 1.0)).await.unwrap();
            tick(&store).await;
            store.log(run).append(format!("{{\"key\":\"{}\"}}", key(task)).into()).await.unwrap();
        }
        for task in ["old", "new", "under way"] {
            store.record_outcome(key(task), "charge", Bytes::from_static(b"1")).await.unwrap();
        }
        let left = async || {
            let mut left = Vec::new();
            for task in ["old", "new", "under way"] {
                if open().outcome(key(task), "charge").await.unwrap().is_some() {
                    left.push(task);
                }
            }
            left
        };
        let all = Collect { grace: Duration::ZERO, unfinished: Duration::ZERO, ..Collect::default() };
        assert_eq!(open().collect(all.clone()).await.unwrap().outcomes, 0);
        let newest = Collect { runs: Some(1), ..all.clone() };
        assert_eq!(open().collect(Collect { dry_run: true, ..newest.clone() }).await.unwrap().outcomes, 1);
        assert_eq!(open().collect(newest).await.unwrap().outcomes, 1);
        assert_eq!(left().await, ["new", "under way"]);
        // A task without a result may be attempted again, until it is too old for that.
        let aged = Collect { age: Some(Duration::ZERO), ..all };
        assert_eq!(open().collect(aged).await.unwrap().outcomes, 2);
        assert!(left().await.is_empty());
    });
}

#[test]
fn collecting_can_keep_only_the_newest_runs() {
    for_every_store(async |open| {
        let store = open();
        let mut outputs = Vec::new();
        for (run, task) in [("run-1", "old"), ("run-2", "new")] {
            let output = store.put(&text(task)).await.unwrap();
            store.commit(key(task), &memo(&[("out", output)], 1.0)).await.unwrap();
            tick(&store).await;
            store.log(run).append(format!("{{\"key\":\"{}\"}}", key(task)).into()).await.unwrap();
            outputs.push(output);
        }
        let options =
            Collect { runs: Some(1), grace: Duration::ZERO, unfinished: Duration::ZERO, ..Collect::default() };
        let young = Collect { age: Some(Duration::from_secs(3600)), ..options.clone() };
        assert_eq!(store.collect(young).await.unwrap().memos, 0);
        let told = store.collect(options).await.unwrap();
        assert_eq!((told.runs, told.memos, told.blobs), (1, 1, 1));
        assert_eq!(open().runs().await.unwrap(), ["run-2"]);
        assert_eq!(open().memo(key("old")).await.unwrap(), None);
        assert!(!open().has(outputs[0]).await.unwrap());
        assert!(open().memo(key("new")).await.unwrap().is_some() && open().has(outputs[1]).await.unwrap());
        let none = Collect { runs: Some(0), grace: Duration::ZERO, unfinished: Duration::ZERO, ..Collect::default() };
        assert_eq!(store.collect(none).await.unwrap().kept_blobs, 0);
    });
}

#[test]
fn collecting_keeps_a_run_that_may_be_under_way() {
    for_every_store(async |open| {
        let store = open();
        for (run, last) in
            [("run-1", "{\"event\":\"finished\"}"), ("run-2", "{\"event\":\"started\"}"), ("run-3", "{}")]
        {
            let output = store.put(&text(run)).await.unwrap();
            store.commit(key(run), &memo(&[("out", output)], 1.0)).await.unwrap();
            store.log(run).append(format!("{{\"key\":\"{}\"}}", key(run)).into()).await.unwrap();
            store.log(run).append(last.into()).await.unwrap();
        }
        let state = Tensors::new().with("x", Tensor::from_vec(vec![1], vec![1.0f32]).unwrap());
        store.checkpoint_log(key("killed")).save(&state).await.unwrap();
        let options = Collect { runs: Some(1), grace: Duration::ZERO, ..Collect::default() };
        // What a task of it gave, and what waits for one: no log names them.
        let given = store.put(&text("of a task")).await.unwrap();
        store.commit(key("task"), &memo(&[("out", given)], 1.0)).await.unwrap();
        let waits = store.put(&text("for a task")).await.unwrap();
        let told = open().collect(options.clone()).await.unwrap();
        assert_eq!((told.runs, told.checkpoints), (1, 0));
        assert!(open().memo(key("task")).await.unwrap().is_some());
        assert!(open().has(given).await.unwrap() && open().has(waits).await.unwrap());
        assert_eq!(open().runs().await.unwrap(), ["run-2", "run-3"]);
        assert!(open().memo(key("run-2")).await.unwrap().is_some());
        let strict = Collect { unfinished: Duration::ZERO, ..options };
        let told = open().collect(strict).await.unwrap();
        assert_eq!((told.runs, told.checkpoints), (1, 1));
        assert_eq!(open().runs().await.unwrap(), ["run-3"]);
        // A run that is kept keeps what was written since it began; what nobody has a result of goes.
        assert!(open().memo(key("task")).await.unwrap().is_some() && open().has(given).await.unwrap());
        assert!(!open().has(waits).await.unwrap());
    });
}

fn io_error(kind: std::io::ErrorKind) -> object_store::Error {
    object_store::Error::Generic { store: "test", source: Box::new(std::io::Error::from(kind)) }
}

#[test]
fn trouble_is_told() {
    let told = |plan: Plan| {
        let store = on_faulty(Faulty::new(plan), 1)();
        let error = runtime().unwrap().block_on(store.put(&text("x"))).unwrap_err();
        assert_eq!(error.whose(), Fault::Unavailable);
        format!("{error:?}")
    };
    let path = blob_path(Digest::of(b"x"));
    assert_eq!(
        told(Plan::NoWrites(|| io_error(std::io::ErrorKind::StorageFull))),
        format!(
            "the store faulty:// is full: can't write {path} \
             (help: make room (`ropeway gc` removes what no result needs) and run again)"
        )
    );
    assert_eq!(
        told(Plan::NoWrites(|| io_error(std::io::ErrorKind::ReadOnlyFilesystem))),
        format!(
            "the store faulty:// does not let us write {path}: read-only filesystem or storage medium \
             (help: check the permissions, or choose another store with --store)"
        )
    );
    let lacking = || object_store::Error::NotImplemented { operation: "create".into(), implementer: "test".into() };
    assert!(told(Plan::NoWrites(lacking)).starts_with("the store faulty:// lacks put-if-absent: "));
    assert!(told(Plan::Nothing(|| io_error(std::io::ErrorKind::ConnectionRefused))).starts_with(&format!(
        "can't write {path} in the store faulty://: connection refused (help: check the address"
    )));
}

#[test]
fn what_does_not_pass_is_tried_a_bounded_number_of_times() {
    let faulty = Faulty::new(Plan::Nothing(|| io_error(std::io::ErrorKind::ConnectionReset)));
    let store = on_faulty(faulty.clone(), 5)();
    runtime().unwrap().block_on(store.memo(key("task"))).unwrap_err();
    assert_eq!(faulty.operations(), 5);
    let faulty = Faulty::new(Plan::NoWrites(|| io_error(std::io::ErrorKind::StorageFull)));
    let store = on_faulty(faulty.clone(), 5)();
    runtime().unwrap().block_on(store.put(&text("x"))).unwrap_err();
    assert_eq!(faulty.operations(), 1);
}

#[test]
fn put_if_absent_is_checked() {
    let probe = |plan: Plan| {
        let objects = Objects::new("s3://bucket".into(), Arc::new(Faulty::new(plan))).hurried(100);
        runtime().unwrap().block_on(async { objects.probe().await.and(objects.probe().await) })
    };
    probe(Plan::Sometimes(1)).unwrap();
    let error = probe(Plan::Overwrites).unwrap_err().report();
    assert_eq!(error.whose(), Fault::Unavailable);
    assert_eq!(
        error.to_string(),
        "the store s3://bucket lacks put-if-absent: it overwrote an object that it was told to create only"
    );
    let denied = || object_store::Error::PermissionDenied { path: "probe".into(), source: "no".into() };
    probe(Plan::NoWrites(denied)).unwrap();
    assert!(matches!(probe(Plan::Nothing(denied)), Err(StoreError::Denied { .. })));
}

#[test]
fn a_conflict_is_not_yet_a_result() {
    let cloud = |first| Objects::cloud("s3://bucket".into(), Arc::new(Faulty::new(Plan::Conflicts(first)))).hurried(5);
    runtime().unwrap().block_on(async {
        for bytes in [Bytes::from_static(b"small"), vec![7; 300_000].into()] {
            let patient = cloud(6);
            assert_eq!(patient.create("memo/x", bytes.clone().into()).await.unwrap(), Created::Now);
            assert_eq!(patient.read("memo/x").await.unwrap(), Some(bytes.clone()));
            let error = cloud(1000).create("memo/x", bytes.into()).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        }
    });
}

#[test]
fn relative_addresses_and_bare_paths_open() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
    runtime().unwrap().block_on(async {
        let store = Store::open(&format!("file://{name}/store")).await.unwrap();
        assert!(!folder.path().join("store").exists(), "nothing was written yet");
        let reference = store.put(&text("x")).await.unwrap();
        assert!(folder.path().join("store").join(blob_path(reference.digest)).exists());
        assert!(Store::open(&format!("./{name}/store")).await.unwrap().get(reference).await.is_ok());
        assert_eq!(store.url(), format!("file://{name}/store"));
        assert!(Store::open("fil://x").await.unwrap_err().advice().unwrap().contains("file://x"));
    });
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere.
    if std::fs::write(folder.path().join("probe"), b"").is_err() {
        let error = runtime().unwrap().block_on(in_folder(folder.path())().put(&text("x"))).unwrap_err();
        assert!(matches!(fault(&error), StoreError::Denied { .. }), "{error}");
    }
}
