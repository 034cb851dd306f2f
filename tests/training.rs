//! Trainings that are killed, whose checkpoints are damaged, or that go wrong; and models on real data.

use crate::support::{Ended, Project, Running, root};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A training of many steps, and a checkpoint after every few of them, in the middle of epochs.
const LONG: &str = r#"name = "long"
seed = 3

[stage.rows]
use = "dataset.digits"

[stage.split]
use  = "split"
from = "rows"
with = { train = 0.8, valid = 0.2 }

[stage.fit]
use  = "train"
from = { train = "split.train", valid = "split.valid" }

[stage.fit.with]
model      = { mlp = { hidden = [128, 128], dropout = 0.1 } }
epochs     = 60
batch      = 32
optimizer  = { adam = { rate = 1e-3 } }
schedule   = { cosine = { epochs = 60, warmup = 1 } }
early_stop = { patience = 50 }
checkpoint = { steps = 7 }
curve      = { steps = 5 }
"#;

const RUN: [&str; 4] = ["run", "p.toml", "--format", "json"];

fn project(text: &str) -> Project {
    let project = Project::new();
    project.write("p.toml", text);
    project
}

/// Kills a run after so many words of its training about an epoch.
fn kill_after(project: &Project, epochs: usize) {
    let mut running = Running::start(project, &RUN);
    for _ in 0..epochs {
        running.until(|said| said["event"] == "progress" && said["name"] == "fit");
    }
    running.process.kill();
}

/// The checkpoints in a project's store, the newest last.
fn checkpoints(project: &Project) -> Vec<PathBuf> {
    let folder = project.path().join(".ropeway/checkpoints");
    let tasks = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        tasks.flat_map(|task| fs::read_dir(task).unwrap()).map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// What was said in the log.
fn logged(ended: &Ended) -> Vec<String> {
    let lines = ended.events().into_iter().filter(|event| event["event"] == "log");
    lines.map(|event| event["line"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_killed_training_goes_on_within_an_epoch_and_ends_with_the_same_bytes() {
    let reference = project(LONG).run(&RUN).ok().digests();
    let mut within = 0;
    for epochs in 1..=6 {
        let project = project(LONG);
        // Again and again: each attempt begins where the last one was killed.
        (0..3).for_each(|_| kill_after(&project, epochs));
        let again = project.run(&RUN).ok();
        assert_eq!(again.digests(), reference, "killed after {epochs}");
        let gone_on = logged(&again).iter().find_map(|line| {
            let step = line.strip_prefix("going on after step ")?.strip_suffix(", from a checkpoint")?;
            step.parse::<u64>().ok()
        });
        within += usize::from(gone_on.is_some_and(|step| !step.is_multiple_of(45)));
        assert_eq!(checkpoints(&project), Vec::<PathBuf>::new(), "none are left when the result is committed");
    }
    assert!(within > 0, "no attempt began within an epoch");
}

#[test]
fn a_damaged_checkpoint_is_said_and_the_one_before_it_used() {
    let reference = project(LONG).run(&RUN).ok().digests();
    let project = project(LONG);
    kill_after(&project, 20);
    let kept = checkpoints(&project);
    // One more if the kill came before the oldest was removed.
    assert!((2..=3).contains(&kept.len()), "{kept:?}");
    let newest = kept.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(newest).unwrap();
    fs::write(newest, bytes).unwrap();
    let again = project.run(&RUN).ok();
    let said = logged(&again);
    assert!(said.iter().any(|line| line.contains("can't be used") && line.contains("digest")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("going on after step ")), "{said:?}");
    assert_eq!(again.digests(), reference);
}

#[test]
fn a_training_that_goes_wrong_names_step_epoch_and_rate_and_keeps_its_checkpoint() {
    let text = LONG.replace("{ adam = { rate = 1e-3 } }", "{ sgd = { rate = 1e-3 } }");
    let text = text.replace("cosine = { epochs = 60, warmup = 1 }", "step = { every = 2, factor = 1e9 }");
    let project = project(&text);
    let ended = project.run(&RUN);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let stages = ended.stages();
    let fit = stages.iter().find(|stage| stage["name"] == "fit").unwrap();
    let error = fit["error"].as_str().unwrap();
    assert!(error.contains(" (epoch 3), at the rate 1e6"), "{error}");
    assert!(fit["help"].as_str().unwrap().contains("lower the rate"), "{fit}");
    assert!(!checkpoints(&project).is_empty());
}

#[test]
fn a_small_residual_network_reads_shifted_digits() {
    let config = root().join("configs/digits-cnn.toml").display().to_string();
    let project = Project::new();
    let ended = project.run(&["run", &config, "--format", "json", "--set", "fit.epochs=12"]).ok();
    let stages = ended.stages();
    let accuracy = stages.iter().find(|stage| stage["name"] == "score").unwrap()["metrics"]["accuracy"].as_f64();
    assert!(accuracy.unwrap() >= 0.97, "test accuracy {accuracy:?}");
    let steps = |event: &Value| event["event"] == "progress" && event["name"] == "fit";
    let heard = ended.events().into_iter().rfind(steps).unwrap();
    let times = ["time.forward", "time.backward", "time.optimizer"];
    for name in ["train.loss", "valid.loss", "rate", "gradient.norm", "steps/s"].iter().chain(&times) {
        assert!(heard["metrics"][name].is_number(), "{name} in {heard}");
    }
    let measured = |event: &Value| steps(event) && event["metrics"]["time.data"].is_number();
    assert!(ended.events().iter().any(measured), "no time for data");
    // The store has it when the run is over.
    let told = project.run(&["show", "last", "--format", "json"]).ok().events();
    let fit = told.iter().find(|line| line["what"] == "stage" && line["name"] == "fit").unwrap();
    assert_eq!(fit["progress"]["metrics"], heard["metrics"], "{fit}");
    let shown = project.run(&["show", "last"]).ok().stdout;
    assert!(shown.lines().any(|line| line.starts_with("fit ") && line.contains(" steps/s ")), "{shown}");
}

/// Lines of this very project: which are Rust and which are English?
#[test]
fn a_transformer_tells_rust_from_english() {
    let project = Project::new();
    let lines = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let mut csv = "text,label\n".to_owned();
    let mut add = |text: &str, label: &str| {
        let quoted = text.trim().replace('"', "\"\"");
        if quoted.chars().count() > 20 {
            csv.push_str(&format!("\"{quoted}\",{label}\n"));
        }
    };
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .iter()
        .for_each(|file| lines(file).lines().for_each(|line| add(line, "english")));
    for file in ["tests/kills.rs", "tests/network.rs", "src/lib.rs", "src/live.rs", "src/cli.rs", "src/table.rs"] {
        lines(file).lines().filter(|line| !line.contains("//")).for_each(|line| add(line, "rust"));
    }
    project.write("lines.csv", &csv);
    project.write(
        "p.toml",
        r#"name = "lines"
seed = 1

[stage.rows]
use  = "read.csv"
with = { path = "lines.csv" }

[stage.split]
use  = "split"
from = "rows"
with = { train = 0.8, test = 0.2, stratify = "label" }

[stage.fit]
use  = "train"
from = { train = "split.train" }

[stage.fit.with]
model         = { transformer = { length = 48, width = 32, heads = 2, layers = 1 } }
epochs        = 6
batch         = 32
optimizer     = { adam = { rate = 3e-3 } }
class_weights = "balanced"

[stage.score]
use  = "evaluate"
from = { model = "fit", rows = "split.test" }
"#,
    );
    let ended = project.run(&RUN).ok();
    let stages = ended.stages();
    let accuracy = stages.iter().find(|stage| stage["name"] == "score").unwrap()["metrics"]["accuracy"].as_f64();
    assert!(accuracy.unwrap() > 0.9, "{accuracy:?}");
}
