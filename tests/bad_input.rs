//! Bad input ends in a clear error, at its place, and loses nothing.

use crate::support::{Ended, Project};

const GOOD: &str = r#"name = "p"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.split]
use  = "split"
from = "rows"
with = { train = 0.8, test = 0.2 }

[stage.fit]
use  = "train"
from = { train = "split.train" }
with = { model = { softmax = {} }, epochs = 2 }

[stage.score]
use  = "evaluate"
from = { model = "fit", rows = "split.test" }
"#;

fn check(text: &str) -> Ended {
    let project = Project::new();
    project.write("p.toml", text);
    project.run(&["check", "p.toml"])
}

/// A change of the good pipeline, the place that the error must name, and words that it must have.
const MISTAKES: [(&str, &str, &str, &[&str]); 16] = [
    (
        "epochs = 2",
        "optimizer = { sgd = { rate = 0 } }",
        "p.toml:15:65",
        &["`optimizer.sgd.rate` of `train`: expected a number above 0, found 0"],
    ),
    (
        "epochs = 2",
        "optimizer = { sgd = { rate = inf } }",
        "p.toml:15:65",
        &["`stage.fit.with.optimizer.sgd.rate`: inf is not finite"],
    ),
    (
        "\"evaluate\"",
        "\"evalute\"",
        "p.toml:18:8",
        &["there is no kind of stage called `evalute`", "did you mean `evaluate`?"],
    ),
    ("epochs = 2", "epoch = 2", "p.toml:15:36", &["unknown parameter `epoch` of `train`", "did you mean `epochs`?"]),
    (
        "rows = \"split.test\"",
        "row = \"split.test\"",
        "p.toml:19:25",
        &["`evaluate` has no input `row`", "did you mean `rows`?"],
    ),
    ("seed = 1", "sed = 1", "p.toml:2:1", &["unknown key `sed`", "did you mean `seed`?"]),
    (
        "from = \"rows\"",
        "form = \"rows\"",
        "p.toml:9:1",
        &["unknown key `form` of stage `split`", "did you mean `from`?", "stage `split` lacks its input `rows`"],
    ),
    ("split.test", "split.tests", "p.toml:19:39", &["stage `split` has no output `tests`", "did you mean `test`?"]),
    ("from = \"rows\"", "from = \"row\"", "p.toml:9:9", &["there is no stage `row`", "did you mean `rows`?"]),
    (
        "epochs = 2",
        "epochs = \"two\"",
        "p.toml:15:45",
        &["`epochs` of `train`: expected a whole number of at least 1, found \"two\""],
    ),
    (
        "epochs = 2",
        "epochs = 0",
        "p.toml:15:45",
        &["`epochs` of `train`: expected a whole number of at least 1, found 0"],
    ),
    (
        "train = 0.8",
        "train = 1.8",
        "p.toml:10:18",
        &["`train` of `split`: expected a number between 0 and 1, found 1.8"],
    ),
    (
        "model = \"fit\", rows",
        "rows",
        "p.toml:19:8",
        &["stage `score` lacks its input `model`", "say where from: from = { model = \"...\" }"],
    ),
    (
        "from = \"rows\"",
        "from = \"score\"",
        "p.toml:9:8",
        &[
            "input `rows` of `split` takes a frame, but `score` is metrics",
            "did you mean `score.confusion`?",
            "`split` and `score` depend on each other in a circle: split -> score -> split",
            "`score` takes from `split` in line 19",
        ],
    ),
    ("seed = 1", "seed = ", "p.toml:2:8", &["this is not TOML: string values must be quoted"]),
    ("[stage.split]", "[stage.rows]", "p.toml:7:8", &["stage `rows` is defined twice", "it is first given in line 4"]),
];

#[test]
fn every_mistake_in_a_pipeline_is_shown_at_its_place() {
    check(GOOD).ok();
    for (from, to, place, words) in MISTAKES {
        assert!(GOOD.contains(from), "{from}");
        let ended = check(&GOOD.replacen(from, to, 1));
        assert_eq!(ended.code, Some(2), "{to}: {ended:?}");
        assert!(ended.stderr.contains(place), "{to}: no {place} in\n{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{to}: no {word:?} in\n{}", ended.stderr);
        }
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}

#[test]
fn all_mistakes_are_shown_at_once() {
    let text = GOOD.replace("\"evaluate\"", "\"evalute\"").replace("epochs = 2", "epoch = 2").replace("seed", "sed");
    let ended = check(&text);
    assert_eq!(ended.stderr.matches("error").count(), 3, "{}", ended.stderr);
}

#[test]
fn a_cycle_is_drawn() {
    let text = "name = \"p\"\n[stage.a]\nuse = \"sample\"\nfrom = \"b\"\nwith = { rows = 1 }\n\
                [stage.b]\nuse = \"sample\"\nfrom = \"a\"\nwith = { rows = 1 }\n";
    let ended = check(text);
    assert!(ended.code == Some(2) && ended.stderr.contains("a -> b -> a"), "{}", ended.stderr);
}

#[test]
fn a_file_that_is_not_there_is_named_with_its_neighbour() {
    let project = Project::new();
    project.write("pipeline.toml", GOOD);
    let ended = project.run(&["check", "pipelin.toml"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("did you mean pipeline.toml?"), "{ended:?}");
    let binary = project.write("binary.toml", [0xff, 0xfe, 0x00]);
    let ended = project.run(&["check", &binary.display().to_string()]);
    assert!(ended.code == Some(2) && ended.stderr.contains("can't read the pipeline file "), "{ended:?}");
    assert!(ended.stderr.contains("binary.toml: stream did not contain valid UTF-8"), "{ended:?}");
}

#[test]
fn a_wrong_override_is_shown() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    let ended = project.run(&["check", "p.toml", "--set", "fit.epoch=3"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("did you mean `epochs`"), "{ended:?}");
    let ended = project.run(&["check", "p.toml", "--set", "fti.epochs=3"]);
    let words = ["there is no stage `fti`", "did you mean `fit`?"];
    assert!(ended.code == Some(2) && words.iter().all(|words| ended.stderr.contains(words)), "{ended:?}");
    let ended = project.run(&["check", "p.toml", "--set", "nonsense"]);
    let words = ["error: `--set nonsense` is no setting", "help: write KEY=VALUE, such as `fit.epochs=3` or `seed=7`"];
    assert_eq!((ended.code, ended.stderr.lines().collect()), (Some(2), words.to_vec()));
}

#[test]
fn a_store_that_cannot_be_used_is_named() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    project.write("file", "not a folder");
    let mut stores = vec![
        ("fil://x", 2, "error: the store \"fil://x\" is of an unknown kind", "help: did you mean file://x?"),
        (
            "file://file/store",
            3,
            "error: can't list runs in the store file://file/store: Not a directory (os error 20)",
            "help: check the address, the network and the credentials, and run again",
        ),
    ];
    if !cfg!(feature = "s3") {
        stores.push((
            "s3://bucket/prefix",
            2,
            "error: this ropeway can't open s3://bucket/prefix: it was built without the feature `s3`",
            "help: install it with `cargo install ropeway --features s3`, or use file://PATH",
        ));
    }
    for (url, code, message, help) in stores {
        let ended = project.run(&["run", "p.toml", "--store", url]);
        assert_eq!((ended.code, ended.stderr.lines().collect()), (Some(code), vec![message, help]), "{url}");
    }
}

/// The good pipeline over a file `a.csv` with the columns `t`, `x` and `label`: the last two of ten rows are its test
/// part.
fn over_a_file() -> Project {
    let project = Project::new();
    let text = GOOD
        .replace("use = \"dataset.wine\"", "use = \"read.csv\"\nwith = { path = \"a.csv\" }")
        .replace("test = 0.2 }", "test = 0.2, time = \"t\" }");
    project.write("p.toml", text);
    project
}

/// Ten rows, of which these have another `x` or `label`.
fn ten_rows(other: impl Fn(usize) -> Option<&'static str>) -> String {
    let row = |t: usize| format!("{t},{}\n", other(t).unwrap_or(["1.5,a", "2.5,b"][t % 2]));
    (0..10).fold("t,x,label\n".to_owned(), |text, t| text + &row(t))
}

/// The stage that failed, its message and its advice; all before it have a result, all after it are skipped.
fn failed(ended: &Ended) -> [String; 3] {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let stages = ended.stages();
    let place = stages.iter().position(|stage| stage["outcome"] == "failed").unwrap();
    assert!(
        stages[..place].iter().all(|stage| stage["outcome"] == "done" || stage["outcome"] == "cached"),
        "{ended:?}"
    );
    assert!(stages[place + 1..].iter().all(|stage| stage["outcome"] == "skipped"), "{ended:?}");
    ["name", "error", "help"].map(|field| stages[place][field].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_stage_that_fails_ends_with_1_and_says_why() {
    let project = over_a_file();
    let run = || project.run(&["run", "p.toml", "--format", "json"]);
    assert_eq!(failed(&run()), ["rows", "there is no file \"a.csv\"", "the folder has p.toml"]);

    project.write("a.csv", "");
    assert_eq!(failed(&run()), ["rows", "a.csv is empty (0 bytes)", ""]);
    // For people, the same stands below the table.
    let told = project.run(&["run", "p.toml"]);
    assert_eq!(told.code, Some(1));
    assert!(told.stdout.contains("\nrows: a.csv is empty (0 bytes)\nrun p-3 took "), "{told:?}");
    assert!(told.stdout.ends_with(": 1 failed, 3 skipped\n"), "{told:?}");
}

#[test]
fn a_missing_value_is_named_with_its_column_and_row() {
    let project = over_a_file();
    let run = || project.run(&["run", "p.toml", "--format", "json"]);
    let help = "fill or drop such rows: `features.fit` has the step `impute`, `sql` a WHERE";
    // What CSV says is not there, in either way.
    for missing in ["NaN,a", ",a"] {
        project.write("a.csv", ten_rows(|t| (t == 4).then_some(missing)));
        let message = "input \"train\": column \"x\" is null in row 4 (the first is row 0)";
        assert_eq!(failed(&run()), ["fit", message, help], "{missing}");
    }
    project.write("a.csv", ten_rows(|t| (t == 3).then_some("inf,b")));
    let message = "input \"train\": column \"x\" is inf in row 3 (the first is row 0)";
    assert_eq!(failed(&run()), ["fit", message, help]);
}

#[test]
fn what_no_training_can_do_is_named_by_its_stage_and_what_was_done_is_kept() {
    let project = over_a_file();
    project.write("a.csv", ten_rows(|_| None));
    let run = |change: &str| project.run(&["run", "p.toml", "--format", "json", "--set", change]);
    for (change, expected) in [
        ("fit.batch=9", "`batch` is 9, but input \"train\" has only 8 rows"),
        ("fit.target=\"lable\"", "there is no column \"lable\""),
        ("fit.model={linear={}}", "column \"label\" is of type Utf8; a regression needs numbers"),
        (
            "fit.model={cnn={input=[1,28,28]}}",
            "`model.cnn.input` is 1 x 28 x 28 = 784 values, but the feature columns have 2",
        ),
        ("fit.class_weights={c=2}", "`class_weights` names \"c\", which is no class"),
        ("fit.clip=1e-46", "`clip` is 1e-46, beyond the numbers that are computed with"),
        ("fit.model={mlp={hidden=[10000000000000000, 100]}}", "more than this machine can hold; layer dense"),
    ] {
        let [stage, error, help] = failed(&run(change));
        assert_eq!(stage, "fit", "{change}");
        assert!(error.contains(expected), "{change}: {error}");
        assert!(!help.is_empty(), "{change}: {error}");
    }
    let good = run("fit.batch=8").ok().outcomes();
    assert_eq!((good["split"].as_str(), good["fit"].as_str()), ("cached", "done"), "{good:?}");
}

#[test]
fn a_label_that_only_the_test_part_has_is_named_and_what_was_done_is_kept() {
    let project = over_a_file();
    project.write("a.csv", ten_rows(|t| (t >= 8).then_some("1.5,c")));
    let run = |more: &[&str]| project.run(&[&["run", "p.toml", "--format", "json"][..], more].concat());
    let message = "column \"label\" has labels that the model never saw: \"c\" (2 rows)";
    let help = "split with `stratify`, so that the training part has every label, or leave these rows out";
    assert_eq!(failed(&run(&[])), ["score", message, help]);
    let again = run(&["--only", "fit"]).ok().outcomes();
    assert!(again.values().all(|outcome| outcome == "cached"), "{again:?}");
}

/// Changes every file in a folder of the store's folders.
fn damage(project: &Project, folder: &str, change: impl Fn(&str, Vec<u8>) -> Vec<u8>) {
    for folder in std::fs::read_dir(project.path().join(".ropeway").join(folder)).unwrap() {
        for entry in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, change(&name, bytes)).unwrap();
        }
    }
}

fn flip(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    bytes
}

#[test]
fn corrupt_results_are_found_said_and_computed_again() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    let first = project.run(&["run", "p.toml", "--format", "json"]).ok();
    // One byte of every blob is another one.
    damage(&project, "blobs", |_, bytes| flip(bytes));
    let again = project.run(&["run", "p.toml", "--format", "json", "--set", "fit.epochs=3"]).ok();
    assert!(again.stdout.contains("corrupt"), "{}", again.stdout);
    assert_eq!(again.digests()["split"], first.digests()["split"]);
}

#[test]
fn a_damaged_log_hides_no_other_run() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    let run = || project.run(&["run", "p.toml"]).ok();
    run();
    run();
    let log = project.path().join(".ropeway/runs/p-1/00000001.jsonl");
    let length = std::fs::metadata(&log).unwrap().len() as usize;
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&log, vec![0; length]).unwrap();
    for arguments in [&["show"][..], &["show", "last"], &["show", "score"]] {
        let shown = project.run(arguments).ok();
        assert!(shown.stderr.contains("warning: the log of run \"p-1\" is damaged"), "{shown:?}");
        assert!(!shown.stdout.is_empty(), "{shown:?}");
    }
    let asked = project.run(&["show", "p-1"]);
    assert!(asked.code != Some(0) && asked.stderr.contains("is damaged"), "{asked:?}");
}

#[test]
fn what_is_cut_off_is_found_said_and_computed_again() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    let run = || project.run(&["run", "p.toml", "--format", "json"]).ok();
    let first = run();
    for folder in ["memo", "blobs"] {
        damage(&project, folder, |_, bytes| bytes[..bytes.len() / 2].to_vec());
        let next = run();
        assert_eq!(next.digests(), first.digests());
        assert!(next.stdout.contains("it is computed again"), "{folder}: {}", next.stdout);
        assert!(run().outcomes().values().all(|outcome| outcome == "cached"), "{folder}");
    }
}

#[test]
fn a_corrupt_result_that_nobody_computes_with_is_found_by_who_asks_for_it() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    let run = || project.run(&["run", "p.toml", "--format", "json"]).ok();
    let first = run();
    for (stage, port) in [("fit", "model"), ("score", "metrics")] {
        let digests = first.digests()[stage].clone();
        let digest = digests[port].as_str().unwrap_or_else(|| panic!("{digests}")).to_owned();
        damage(&project, "blobs", |name, bytes| if name == digest { flip(bytes) } else { bytes });
        let file = if stage == "fit" { "fit.safetensors" } else { "score.json" };
        let asked = project.run(&["export", stage, "-o", file]);
        assert!(asked.code == Some(3) && asked.stderr.contains("corrupt"), "{asked:?}");
        assert!(asked.stderr.contains("run the pipeline again"), "{asked:?}");
        let second = run();
        assert_eq!(second.outcomes()[stage], "done", "{second:?}");
        assert_eq!(second.digests(), first.digests());
        project.run(&["export", stage, "-o", file]).ok();
    }
    // The numbers of a stage are read by whoever reports them.
    let digest = first.digests()["score"]["metrics"].as_str().unwrap().to_owned();
    damage(&project, "blobs", |name, bytes| if name == digest { flip(bytes) } else { bytes });
    let third = run();
    assert!(third.stdout.contains("corrupt") && third.stdout.contains("it is computed again"), "{third:?}");
    assert_eq!(third.outcomes()["score"], "done");
    assert_eq!(third.digests(), first.digests());
}
