//! What a store has lost, what is corrupt, and results that differ.

use super::*;

fn open(folder: &Path) -> Store {
    runtime().unwrap().block_on(Store::open(&folder.display().to_string())).unwrap()
}

/// The file with what the first stage gave.
fn blob(folder: &Path, report: &Report) -> PathBuf {
    let digest = report.stages[0].outputs["output"].to_string();
    folder.join("blobs").join(&digest[..2]).join(&digest)
}

#[test]
fn what_the_store_lost_is_made_again_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let open = || open(folder.path());
    let (first, _) = go(CHAIN, &open(), 2);
    let rows = blob(folder.path(), &first);
    let whole = std::fs::read(&rows).unwrap();
    // The rows are missing, then cut off, which shows when their memo is looked up.
    for content in [None, Some(&whole[..whole.len() / 2])] {
        std::fs::remove_file(&rows).unwrap();
        content.iter().for_each(|content| std::fs::write(&rows, content).unwrap());
        let (next, lines) = go(CHAIN, &open(), 2);
        use Outcome::{Cached, Done};
        assert_eq!(outcomes(&next), [("rows", Done), ("more", Cached), ("whole", Cached), ("sum", Cached)]);
        let said = warnings(&lines);
        assert!(matches!(&said[..], [one] if one.contains("is missing or cut off; it is computed again")), "{said:?}");
        assert_eq!(digests(&next), digests(&first));
        assert_eq!(std::fs::read(&rows).unwrap(), whole);
    }
    // So is a memo that is cut off.
    let key = first.stages[0].key.unwrap().to_string();
    let memo = folder.path().join("memo").join(&key[..2]).join(&key);
    let sealed = std::fs::read(&memo).unwrap();
    std::fs::remove_file(&memo).unwrap();
    std::fs::write(&memo, &sealed[..sealed.len() / 2]).unwrap();
    let (last, lines) = go(CHAIN, &open(), 2);
    let said = warnings(&lines);
    assert!(matches!(&said[..], [one] if one.contains("memo") && one.contains("it is computed again")), "{said:?}");
    assert_eq!(digests(&last), digests(&first));
    // And one that names other outputs than the stage has, as only a worker that lies commits it.
    std::fs::remove_file(&memo).unwrap();
    let store = open();
    let artifact = runtime().unwrap().block_on(store.put(&Metrics::new().into())).unwrap();
    let outputs = BTreeMap::from([("out".to_owned(), artifact)]);
    let (stage, device, build) = ("noise".to_owned(), "cpu".to_owned(), String::new());
    let lie = Memo { outputs, stage, seconds: 0.0, device, build };
    runtime().unwrap().block_on(store.commit(first.stages[0].key.unwrap(), &lie)).unwrap();
    let (honest, lines) = go(CHAIN, &store, 2);
    let said = warnings(&lines);
    assert!(matches!(&said[..], [one] if one.contains("names other outputs")), "{said:?}");
    assert_eq!(digests(&honest), digests(&first));
    let (third, _) = go(CHAIN, &open(), 2);
    assert!(third.stages.iter().all(|stage| stage.outcome == Outcome::Cached));
}

/// What a run warned of.
fn warnings(lines: &[Line]) -> Vec<&str> {
    let mut said = Vec::new();
    for line in lines {
        if let Event::Warning { message, .. } = &line.event {
            said.push(message.as_str());
        }
    }
    said
}

#[test]
fn what_is_corrupt_is_found_by_whoever_reads_it_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = || open(folder.path());
    let (first, _) = go(CHAIN, &open(), 2);
    let path = blob(folder.path(), &first);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    // The length is right, so only reading shows it: `more` needs the rows.
    let (second, lines) = go(&CHAIN.replace("0.25", "0.75"), &open(), 2);
    assert!(second.succeeded(), "{second:?}");
    let said = warnings(&lines);
    assert!(said.iter().any(|message| message.contains("corrupt")), "{said:?}");
    assert_eq!(second.stages[0].outputs, first.stages[0].outputs);
    let (third, _) = go(CHAIN, &open(), 2);
    assert!(third.stages.iter().all(|stage| stage.outcome == Outcome::Cached));
}

#[test]
fn what_a_task_gave_is_made_again_if_the_stage_that_asked_for_it_finds_it_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let open = || open(folder.path());
    let (first, _) = go(SWEEP, &open(), 2);
    // What no stage gave, the tasks did.
    let given: Vec<String> =
        first.stages.iter().flat_map(|stage| stage.outputs.values()).map(Digest::to_string).collect();
    let folders = std::fs::read_dir(folder.path().join("blobs")).unwrap();
    let blobs = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let blobs = blobs.map(|blob| blob.unwrap().path());
    let of_task = blobs.filter(|path| !given.iter().any(|digest| path.ends_with(digest))).min().unwrap();
    let mut bytes = std::fs::read(&of_task).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&of_task).unwrap();
    std::fs::write(&of_task, &bytes).unwrap();
    // The tasks are known, and what asks for them is not.
    let registry = (*registry()).clone().stage("sweep", stage(sweep).inputs(["trial"]).version(2));
    let registry = Arc::new(registry);
    let (again, lines) = heard(SWEEP, &registry, &open(), &Options::default());
    assert!(again.succeeded(), "{again:?}");
    assert_eq!(digests(&again), digests(&first));
    let said = warnings(&lines);
    assert!(said.iter().any(|said| said.contains("corrupt") && said.contains("computes it again")), "{said:?}");
    bytes[middle] ^= 1;
    assert_eq!(std::fs::read(&of_task).unwrap(), bytes);
}

#[test]
fn two_runs_at_once_commit_each_key_once() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn counted(rows: Frame) -> Frame {
        CALLS.fetch_add(1, Ordering::Relaxed);
        rows
    }
    let registry = Arc::new((*registry()).clone().stage("counted", stage(counted).version(1)));
    let text = CHAIN.replace("\"round\"", "\"counted\"");
    let store = Store::memory();
    let results: Vec<Report> = std::thread::scope(|scope| {
        let one =
            || run(&pipeline(&text, &registry), &registry, &store, &Options::default(), &mut |_: &Line| {}).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|report| digests(report) == digests(&results[0])));
    let names: std::collections::BTreeSet<_> = results.iter().map(|report| report.run.clone()).collect();
    assert_eq!(names.len(), 4, "each run has a name of its own");
    // Runs that begin a stage before any of them has committed it compute it too, but only one commit is the first.
    let counted = results.iter().filter(|report| report.stages[2].outcome == Outcome::Done).count();
    assert!((1..=4).contains(&counted) && CALLS.load(Ordering::Relaxed) == counted, "{results:?}");
    let traffic = store.traffic();
    assert_eq!((traffic.first, traffic.different), (4, 0), "{traffic:?}");
    let done = results.iter().flat_map(|report| &report.stages).filter(|stage| stage.outcome == Outcome::Done).count();
    assert_eq!(traffic.first + traffic.same, done as u64, "{results:?}");
}

#[test]
fn an_unstable_stage_is_reported_and_the_first_result_counts() {
    // Nobody goes on before both runs are in the stage: neither finds what the other commits.
    let (calls, both) = (AtomicUsize::new(0), Barrier::new(2));
    let unstable = move || {
        both.wait();
        Metrics::new().with("calls", calls.fetch_add(1, Ordering::Relaxed) as f64)
    };
    let registry = Arc::new(Registry::new().stage("unstable", stage(unstable).version(1)));
    let built = pipeline("name = \"u\"\n[stage.a]\nuse = \"unstable\"\n", &registry);
    let store = Store::memory();
    let one = || {
        let mut warnings = Vec::new();
        let mut sink = |line: &Line| {
            if let Event::Warning { name, message } = &line.event {
                warnings.push(format!("{name}: {message}"));
            }
        };
        let report = run(&built, &registry, &store, &Options::default(), &mut sink).unwrap();
        (report, warnings)
    };
    let [(first, warned), (second, too)] = std::thread::scope(|scope| {
        let threads = [scope.spawn(one), scope.spawn(one)];
        threads.map(|thread| thread.join().unwrap())
    });
    let said =
        "a: the stage is not deterministic: another result was committed for the same key before; that one counts";
    assert_eq!([warned, too].concat(), [said]);
    assert!(first.succeeded() && digests(&first) == digests(&second), "{first:?} {second:?}");
    let traffic = store.traffic();
    assert_eq!((traffic.first, traffic.same, traffic.different), (1, 0, 1));
}

#[test]
fn another_result_takes_the_place_of_one_that_was_lost() {
    let calls = AtomicUsize::new(0);
    let unstable = move || Metrics::new().with("calls", calls.fetch_add(1, Ordering::Relaxed) as f64);
    let registry = Arc::new(Registry::new().stage("unstable", stage(unstable).version(1)));
    let built = pipeline("name = \"u\"\n[stage.a]\nuse = \"unstable\"\n", &registry);
    let folder = tempfile::tempdir().unwrap();
    let one = || run(&built, &registry, &open(folder.path()), &Options::default(), &mut |_: &Line| {}).unwrap();
    let first = one();
    std::fs::remove_file(blob(folder.path(), &first)).unwrap();
    let second = one();
    assert_eq!(outcomes(&second), [("a", Outcome::Done)]);
    assert_eq!(second.stages[0].metrics.get("calls"), Some(1.0));
    let third = one();
    assert_eq!((outcomes(&third), digests(&third)), (vec![("a", Outcome::Cached)], digests(&second)));
}
