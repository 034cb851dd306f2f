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
const MISTAKES: [(&str, &str, &str, &[&str]); 14] = [
    ("\"evaluate\"", "\"evalute\"", "p.toml:18:8", &["evalute", "did you mean `evaluate`"]),
    ("epochs = 2", "epoch = 2", "p.toml:15:36", &["epoch", "did you mean `epochs`"]),
    ("rows = \"split.test\"", "row = \"split.test\"", "p.toml:19:25", &["row", "did you mean `rows`"]),
    ("seed = 1", "sed = 1", "p.toml:2:1", &["sed", "did you mean `seed`"]),
    ("from = \"rows\"", "form = \"rows\"", "p.toml:9:1", &["form", "did you mean `from`"]),
    ("split.test", "split.tests", "p.toml:19:", &["tests", "did you mean"]),
    ("from = \"rows\"", "from = \"row\"", "p.toml:9:", &["row", "did you mean `rows`"]),
    ("epochs = 2", "epochs = \"two\"", "p.toml:15:45", &["number", "two"]),
    ("epochs = 2", "epochs = 0", "p.toml:15:45", &["0"]),
    ("train = 0.8", "train = 1.8", "p.toml:10:", &["1.8"]),
    ("model = \"fit\", rows", "rows", "p.toml:19", &["model"]),
    ("from = \"rows\"", "from = \"score\"", "p.toml:", &["score"]),
    ("seed = 1", "seed = ", "p.toml:2:", &[]),
    ("[stage.split]", "[stage.rows]", "p.toml:", &["rows"]),
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
    assert!(ended.code == Some(2) && ended.stderr.contains("binary.toml"), "{ended:?}");
}

#[test]
fn a_wrong_override_is_shown() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    let ended = project.run(&["check", "p.toml", "--set", "fit.epoch=3"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("did you mean `epochs`"), "{ended:?}");
    let ended = project.run(&["check", "p.toml", "--set", "fti.epochs=3"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("fit"), "{ended:?}");
    let ended = project.run(&["check", "p.toml", "--set", "nonsense"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("nonsense"), "{ended:?}");
}

#[test]
fn a_store_that_cannot_be_used_is_named() {
    let project = Project::new();
    project.write("p.toml", GOOD);
    project.write("file", "not a folder");
    for (url, code, word) in
        [("fil://x", 2, "file://"), ("s3://bucket/prefix", 2, "s3"), ("file://file/store", 3, "file/store")]
    {
        let ended = project.run(&["run", "p.toml", "--store", url]);
        assert_eq!(ended.code, Some(code), "{url}: {ended:?}");
        assert!(ended.stderr.contains(word) && !ended.stderr.contains("panicked"), "{url}: {ended:?}");
    }
}

#[test]
fn a_stage_that_fails_ends_with_1_and_keeps_what_was_done() {
    let project = Project::new();
    let text = GOOD.replace(
        "[stage.rows]\nuse = \"dataset.wine\"",
        "[stage.rows]\nuse = \"read.csv\"\nwith = { path = \"a.csv\" }",
    );
    project.write("p.toml", &text);
    let absent = project.run(&["run", "p.toml"]);
    assert!(absent.code == Some(1) && absent.stdout.contains("a.csv"), "{absent:?}");
    assert!(absent.stdout.contains("1 failed, 3 skipped"), "{absent:?}");

    // An empty file, then one whose test part has a label that training never saw.
    project.write("a.csv", "");
    let empty = project.run(&["run", "p.toml"]);
    assert!(empty.code == Some(1) && empty.stdout.contains("a.csv"), "{empty:?}");

    project.write("a.csv", "x,label\nNaN,a\n2,b\n3,a\n4,b\n5,a\n6,b\n7,a\n8,b\n9,a\n1,b\n");
    let nan = project.run(&["run", "p.toml", "--format", "json"]);
    assert_eq!(nan.code, Some(1), "{nan:?}");
    let outcomes = nan.outcomes();
    assert_eq!((outcomes["rows"].as_str(), outcomes["split"].as_str()), ("done", "done"), "{nan:?}");
    assert!(nan.stdout.contains('x'), "the column is named: {nan:?}");
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
