//! The cap on memory, under every order of operations: it holds, everything comes back, and nobody waits for ever.

use super::Store;
use super::backend::Backend;
use super::blobs::blob_path;
use super::files::Files;
use super::offload::LONG;
use super::ram::Ram;
use crate::data::{Artifact, Digest, Frame, List, Ref, Tensor, Tensors, encode};
use crate::runtime;
use arrow::array::{Array, ArrayRef, Int64Array};
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// What the largest artifact of these tests is counted with while it is put.
const LARGEST: u64 = 2 << 20;

/// What stages hold of short artifacts, which are not mapped and so can't be taken from them.
const SHORT: u64 = 12 * 4 * (2000 + 512);

fn content(index: u8, length: usize) -> Artifact {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at >> 8) as u8 ^ index).collect();
    bytes[0] = index;
    match index % 2 {
        0 => Bytes::from(bytes).into(),
        _ => Tensors::new().with("x", Tensor::from_vec(vec![length], bytes).unwrap()).into(),
    }
}

/// Stores of each kind: in this process, in a folder, far away, and far away without a cache of the machine.
fn stores(folder: &Path, cap: u64) -> Vec<Store> {
    let far = |name: &str| {
        let root = folder.join(name);
        std::fs::create_dir_all(&root).unwrap();
        Store::on(Arc::new(LocalFileSystem::new_with_prefix(root).unwrap()))
    };
    let stores = [
        Store::new(Backend::Ram(Ram::in_folder(folder))),
        Store::new(Backend::Files(Files::new("file://test".into(), folder.join("store")))),
        far("far").with_machine(&folder.join("machine"), 1 << 30),
        far("farther"),
    ];
    stores.map(|store| store.with_memory(cap)).into()
}

fn digest(artifact: &Artifact) -> Digest {
    encode(artifact).unwrap().reference.digest
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Get(u8),
    Hold(u8),
    LetGo,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..12u8).prop_map(Step::Put),
        3 => (0..12u8).prop_map(Step::Get),
        2 => (0..12u8).prop_map(Step::Hold),
        1 => Just(Step::LetGo),
    ]
}

/// Does the steps as a stage would, which may hold what it got.
async fn walk(store: &Store, steps: Vec<Step>, lengths: &[usize]) {
    let mut held: Vec<(Ref, Artifact)> = Vec::new();
    let make = |index: u8| content(index, lengths[usize::from(index)]);
    for step in steps {
        match step {
            Step::Put(index) => drop(store.put(&make(index)).await.unwrap()),
            Step::Get(index) | Step::Hold(index) => {
                let reference = store.put(&make(index)).await.unwrap();
                let artifact = store.get(reference).await.unwrap();
                assert_eq!(digest(&artifact), reference.digest);
                if matches!(step, Step::Hold(_)) {
                    held.push((reference, artifact));
                }
            }
            Step::LetGo => held.clear(),
        }
    }
    for (reference, artifact) in held {
        assert_eq!(digest(&artifact), reference.digest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_cap_is_exceeded_by_one_artifact_at_most_and_everything_comes_back(
        cap in prop::sample::select(vec![0, 100_000, 1 << 20, 3 << 20]),
        lengths in prop::collection::vec(prop_oneof![1..2000usize, LONG as usize..1_000_000], 12),
        threads in prop::collection::vec(prop::collection::vec(step(), 1..12), 1..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        for store in stores(folder.path(), cap) {
            runtime().unwrap().block_on(async {
                let walks = threads.iter().map(|steps| {
                    let (store, steps, lengths) = (store.clone(), steps.clone(), lengths.clone());
                    tokio::spawn(async move { walk(&store, steps, &lengths).await })
                });
                for walk in futures::future::join_all(walks).await {
                    walk.unwrap();
                }
            });
            // One operation more, and what was only just used and is not any more has made room.
            runtime().unwrap().block_on(store.put(&Bytes::new().into())).unwrap();
            let count = store.0.count();
            prop_assert!(count.used <= cap, "{count:?} in {}", store.url());
            // Where there are no files, what stages hold can't be taken from them.
            let bounded = !store.backend().is_remote() || store.0.has_machine();
            prop_assert!(!bounded || count.peak <= cap + LARGEST + SHORT, "{count:?} in {}", store.url());
            for index in threads.iter().flatten().filter_map(|step| match step {
                Step::Put(index) | Step::Get(index) | Step::Hold(index) => Some(*index),
                Step::LetGo => None,
            }) {
                let reference = encode(&content(index, lengths[usize::from(index)])).unwrap().reference;
                let read = runtime().unwrap().block_on(store.get(reference)).unwrap();
                prop_assert_eq!(digest(&read), reference.digest);
            }
        }
    }
}

#[test]
fn much_goes_through_little() {
    const EACH: usize = 4 << 20;
    const CAP: u64 = 32 << 20;
    let folder = tempfile::tempdir().unwrap();
    for store in stores(folder.path(), CAP) {
        let names: Vec<Ref> = runtime().unwrap().block_on(async {
            let mut names = Vec::new();
            for index in 0..64u8 {
                names.push(store.put(&content(index, EACH)).await.unwrap());
                // As a stage does that reads the one before.
                let before = store.get(names[names.len().saturating_sub(2)]).await.unwrap();
                assert_eq!(digest(&before), names[names.len().saturating_sub(2)].digest);
            }
            names
        });
        let count = store.0.count();
        assert!(count.peak <= CAP && count.used <= CAP, "{count:?} in {}", store.url());
        // All 256 MiB at once, as a stage does that takes a list: more than may be in memory.
        let list: List = runtime().unwrap().block_on(async {
            let items = names.iter().map(|name| store.get(*name));
            futures::future::try_join_all(items).await.unwrap().into_iter().collect()
        });
        for (name, item) in names.iter().zip(list.items()) {
            assert_eq!(digest(item), name.digest);
        }
        let count = store.0.count();
        let bounded = !store.backend().is_remote() || store.0.has_machine();
        assert!(!bounded || count.peak <= CAP + 2 * EACH as u64, "{count:?} in {}", store.url());
    }
}

#[test]
fn a_list_larger_than_memory_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let list: List = (0..40u8).map(|index| content(index, 300_000)).collect();
    let whole = encode(&Artifact::List(list.clone())).unwrap().reference;
    for store in stores(folder.path(), 1 << 20) {
        runtime().unwrap().block_on(async {
            assert_eq!(store.put(&Artifact::List(list.clone())).await.unwrap(), whole);
            let read = store.get(whole).await.unwrap();
            assert_eq!(encode(&read).unwrap().reference, whole);
        });
    }
}

#[test]
fn what_was_larger_than_the_cap_is_there_at_once_when_it_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let giant = content(1, 1_000_000);
    for store in stores(folder.path(), 1000).into_iter().take(2) {
        runtime().unwrap().block_on(async {
            let reference = store.put(&giant).await.unwrap();
            assert_eq!(store.0.count().used, 0, "{}", store.url());
            let (one, two) = (store.get(reference).await.unwrap(), store.get(reference).await.unwrap());
            let address = |artifact: &Artifact| match artifact {
                Artifact::Tensors(tensors) => tensors.get("x").unwrap().data().as_ptr(),
                _ => unreachable!(),
            };
            assert_eq!(address(&one), address(&two), "it is mapped once");
        });
    }
}

#[test]
fn parts_are_at_hand_wherever_they_are() {
    let artifact = Artifact::Bytes((0..1_000_000u32).map(|at| (at >> 4) as u8).collect::<Vec<u8>>().into());
    let whole = encode(&artifact).unwrap();
    for cap in [0, 4 << 20] {
        let folder = tempfile::tempdir().unwrap();
        for store in stores(folder.path(), cap) {
            runtime().unwrap().block_on(async {
                assert_eq!(store.at_hand(whole.reference, 0, 10).await.unwrap(), None);
                store.put(&artifact).await.unwrap();
                let part = store.at_hand(whole.reference, 999_990, 100).await.unwrap();
                let far = cap == 0 && store.backend().is_remote() && !store.0.has_machine();
                assert_eq!(part, (!far).then(|| whole.bytes().slice(999_990..)), "{}", store.url());
            });
        }
    }
}

#[test]
fn a_file_can_be_linked_and_outlives_the_store() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let artifact = content(1, 500_000);
    let whole = encode(&artifact).unwrap();
    for (index, store) in stores(folder.path(), 0).into_iter().enumerate() {
        let to = out.path().join(index.to_string());
        runtime().unwrap().block_on(async {
            store.put(&artifact).await.unwrap();
            let linked = store.link(whole.reference, &to).await.unwrap();
            // The last one has no files at all.
            assert_eq!(linked, index != 3);
        });
        if index != 3 {
            assert_eq!(std::fs::read(&to).unwrap(), whole.bytes());
        }
    }
}

/// A table whose columns are shared and not copied when it is put.
fn table(salt: i64) -> Frame {
    let values = |factor: i64| (0..150_000).map(|row| row * factor + salt).collect::<Vec<_>>();
    let column = |factor: i64| Arc::new(Int64Array::from(values(factor))) as ArrayRef;
    Frame::from_columns([("a", column(3)), ("b", column(5))]).unwrap()
}

#[test]
fn a_frame_is_counted_as_long_as_any_column_of_it_lives() {
    let store = Store::memory();
    runtime().unwrap().block_on(async {
        let reference = store.put(&table(1).into()).await.unwrap();
        let frame = Frame::try_from(store.get(reference).await.unwrap()).unwrap();
        let column = frame.batches()[1].column(1).slice(10, 5);
        drop(frame);
        store.0.forget(reference);
        store.backend().remove(&blob_path(reference.digest)).await.unwrap();
        assert!(store.0.count().used >= reference.bytes, "{:?}", store.0.count());
        drop(column);
        assert_eq!(store.0.count().used, 0);
    });
}

#[test]
fn frames_leave_memory_for_files_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(folder.path(), 8 << 20) {
        runtime().unwrap().block_on(async {
            let mut references = Vec::new();
            for salt in 0..6 {
                references.push(store.put_owned(table(salt).into()).await.unwrap());
            }
            assert!(store.0.count().used <= 8 << 20, "{:?}", store.0.count());
            for (salt, reference) in references.into_iter().enumerate() {
                let read = Frame::try_from(store.get(reference).await.unwrap()).unwrap();
                assert_eq!(read.to_batch().unwrap(), table(salt as i64).to_batch().unwrap(), "{}", store.url());
                let part = store.at_hand(reference, 1_000_000, 2_000_000).await.unwrap();
                let whole = store.bytes(reference).await.unwrap();
                assert!(part.is_none_or(|part| part == whole.slice(1_000_000..3_000_000.min(whole.len()))));
            }
        });
    }
}
