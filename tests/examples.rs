//! Every example runs.

use crate::support::{Ended, Project, root};
use std::path::PathBuf;
use std::process::Command;

/// An example's program; cargo builds them beside the tests.
fn example(name: &str) -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ropeway"));
    Command::new(program.parent().unwrap().join("examples").join(name))
}

fn run(name: &str, arguments: &[&str], project: &Project) -> Ended {
    Ended::of(example(name).args(arguments).current_dir(project.path()).output().unwrap())
}

fn pipeline(name: &str) -> String {
    root().join("examples").join(name).display().to_string()
}

#[test]
fn a_custom_stage() {
    let project = Project::new();
    let ended = run("custom_stage", &["run", &pipeline("custom_stage.toml"), "--format", "json"], &project).ok();
    let stages = ended.stages();
    let score = stages.iter().find(|stage| stage["name"] == "score").unwrap();
    assert!(score["metrics"]["accuracy"].as_f64().unwrap() > 0.9, "{score}");
}

#[test]
fn a_stage_that_fits_and_one_that_applies() {
    let project = Project::new();
    run("fit_and_apply", &["run", &pipeline("fit_and_apply.toml")], &project).ok();
    let shown = run("fit_and_apply", &["export", "farthest", "--as", "csv"], &project).ok();
    assert!(shown.stdout.starts_with("wines,farthest\n178,"), "{}", shown.stdout);
}

#[test]
fn a_candle_module_trained_by_the_trainer() {
    let project = Project::new();
    let ended = run("trainer", &["run", &pipeline("trainer.toml"), "--format", "json"], &project).ok();
    let stages = ended.stages();
    let score = stages.iter().find(|stage| stage["name"] == "score").unwrap();
    assert!(score["metrics"]["accuracy"].as_f64().unwrap() > 0.9, "{score}");
}

#[test]
fn a_pipeline_made_in_rust() {
    let ended = run("builder", &[], &Project::new()).ok();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 12, "{ended:?}");
    assert!(
        lines[..5].iter().all(|line| line.ends_with("ran")) && lines[6..11].iter().all(|line| line.ends_with("cached"))
    );
    assert_eq!(lines[5], lines[11], "the same accuracy");
}

#[test]
fn a_stage_for_each_fold() {
    let project = Project::new();
    let ended = run("map", &["run", &pipeline("map.toml"), "--format", "json"], &project).ok();
    let stages = ended.stages();
    let mean = stages.iter().find(|stage| stage["name"] == "mean").unwrap();
    let metric = |name: &str| mean["metrics"][name].as_f64().unwrap();
    assert!(metric("worst") <= metric("accuracy") && metric("accuracy") <= metric("best"), "{mean}");
    assert!(metric("accuracy") > 0.97, "{mean}");
}

#[test]
fn an_effect_that_happens_once() {
    let ended = run("once", &[], &Project::new()).ok();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[..3], ["attempt 1: letter 1", "attempt 2: letter 1", "attempt 3: letter 1"]);
    assert!(lines[3].starts_with("1 sent: 178 wines have come ("), "{ended:?}");
}

#[test]
fn a_client_of_the_server() {
    let project = Project::new();
    let (_server, url) = crate::serving::serve_digits(&project);
    let ended = run("client", &[&url], &project).ok();
    assert!(ended.stdout.starts_with("digits ") && ended.stdout.contains("prediction"), "{ended:?}");
}

#[test]
fn a_new_project_is_the_example() {
    let project = Project::new();
    project.run(&["new", "mine"]).ok();
    let read = |file: &str| std::fs::read_to_string(project.path().join("mine").join(file)).unwrap();
    assert_eq!(read("src/main.rs"), std::fs::read_to_string(root().join("examples/custom_stage.rs")).unwrap());
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("name = \"mine\"") && manifest.contains("opt-level = 1"), "{manifest}");
    // What it holds is what the example's program runs.
    let ended = run("custom_stage", &["check", "mine/pipeline.toml"], &project).ok();
    assert!(ended.stdout.contains("no mistakes"), "{ended:?}");
    // Cargo understands the manifest.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(project.path().join("mine"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let again = project.run(&["new", "mine"]);
    assert!(again.code == Some(2) && again.stderr.contains("exists already"), "{again:?}");
}

/// `.ci/run` names a Python that has pyarrow and scikit-learn; without one, this test has nothing to run.
#[test]
fn a_stage_in_python() {
    let Ok(python) = std::env::var("ROPEWAY_TEST_PYTHON") else {
        println!("skipped: ROPEWAY_TEST_PYTHON names no Python with pyarrow and scikit-learn");
        return;
    };
    let project = Project::new();
    let script = root().join("examples/outliers.py").display().to_string();
    let program = format!("outliers.run=[{python:?}, {script:?}]");
    let run = |store: &str, cores: &str| {
        let pipeline = pipeline("outliers.toml");
        let common = ["run", &pipeline, "--set", &program, "--format", "json", "--store", store, "--cores", cores];
        project.run(&common).ok()
    };
    let first = run(".first", "1");
    assert!(first.stdout.contains("fitted 50 trees to 569 rows"), "stderr is the log: {}", first.stdout);
    assert_eq!(first.digests(), run(".second", "2").digests());
    let shown = project.run(&["export", "worst", "--store", ".first"]).ok();
    assert!(shown.stdout.starts_with("label,rows,outlier\n"), "{}", shown.stdout);
}
