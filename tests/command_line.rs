//! The commands, as people type them.

use crate::support::{Project, root};
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PIPELINE: &str = r#"name = "wine"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.count]
use  = "sql"
from = { wines = "rows" }
with = { query = "SELECT label, count(*) AS wines FROM wines GROUP BY label ORDER BY label" }
"#;

fn project() -> Project {
    let project = Project::new();
    project.write("wine.toml", PIPELINE);
    project
}

#[test]
fn run_prints_a_summary_and_what_is_cached() {
    let project = project();
    let first = project.run(&["run", "wine.toml"]).ok();
    assert!(first.stdout.contains("run wine-1 took") && first.stdout.contains("2 done"), "{first:?}");
    let second = project.run(&["run", "wine.toml"]).ok();
    assert!(second.stdout.contains("2 cached"), "{second:?}");
}

#[test]
fn the_last_line_of_json_is_the_report() {
    let ended = project().run(&["run", "wine.toml", "--format", "json"]).ok();
    let last = ended.events().pop().unwrap();
    assert_eq!(last["event"], "finished");
    assert_eq!(last["run"], "wine-1");
    assert!(last["seconds"].as_f64().unwrap() > 0.0);
    for stage in ended.stages() {
        for field in ["name", "outcome", "seconds", "device", "outputs", "metrics"] {
            assert!(stage.get(field).is_some(), "{field} is missing in {stage}");
        }
        assert_eq!(stage["outputs"].as_object().unwrap().values().next().unwrap().as_str().unwrap().len(), 64);
    }
}

#[test]
fn plan_says_what_a_run_would_do() {
    let project = project();
    let states = || -> Vec<String> {
        let ended = project.run(&["plan", "wine.toml", "--format", "json"]).ok();
        ended.events().iter().map(|stage| stage["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(), ["run", "depends"]);
    project.run(&["run", "wine.toml", "--only", "rows"]).ok();
    assert_eq!(states(), ["cached", "run"]);
}

#[test]
fn what_a_stage_gave_can_be_shown_and_exported() {
    let project = project();
    project.run(&["run", "wine.toml"]).ok();
    let shown = project.run(&["show", "count"]).ok();
    assert!(shown.stdout.contains("| label | wines |") && shown.stdout.contains("3 rows, 2 columns"), "{shown:?}");
    assert!(project.run(&["show"]).ok().stdout.contains("wine-1"));
    assert!(project.run(&["show", "last"]).ok().stdout.contains("count"));
    let csv = project.run(&["export", "count"]).ok();
    assert_eq!(csv.stdout, "label,wines\n0,59\n1,71\n2,48\n");
    let json = project.run(&["export", "wine-1/count", "--as", "json"]).ok();
    assert_eq!(json.stdout.lines().next(), Some(r#"{"label":0,"wines":59}"#));
    for (file, magic) in [("count.parquet", &b"PAR1"[..]), ("count.arrow", &b"ARROW1"[..])] {
        project.run(&["export", "count", "-o", file]).ok();
        assert!(std::fs::read(project.path().join(file)).unwrap().starts_with(magic), "{file}");
    }
    let wrong = project.run(&["export", "cuont"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("did you mean \"count\"?"), "{wrong:?}");
}

#[test]
fn stages_are_listed_and_described() {
    let ended = project().run(&["stages"]).ok();
    for stage in ["read.csv", "sql", "split", "features.fit", "train", "tune", "evaluate", "command"] {
        assert!(ended.stdout.lines().any(|line| line.starts_with(&format!("{stage} "))), "{stage}");
    }
    let described = project().run(&["stages", "train"]).ok();
    assert!(described.stdout.contains("epochs") && described.stdout.contains("takes"), "{described:?}");
    let wrong = project().run(&["stages", "trian"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("did you mean \"train\"?"), "{wrong:?}");
}

#[test]
fn every_built_in_stage_is_described_and_pinned() {
    let ended = project().run(&["stages", "--format", "json"]).ok();
    for stage in ended.events() {
        assert!(stage["version"].as_u64().unwrap() >= 1, "{} has no version", stage["name"]);
        assert!(!stage["about"].as_str().unwrap().is_empty(), "{} has no description", stage["name"]);
    }
}

#[test]
fn the_schema_is_one_and_knows_the_stages() {
    let ended = project().run(&["schema"]).ok();
    let schema: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(ended.stdout.contains("features.fit"));
}

#[test]
fn gc_removes_what_no_kept_run_needs() {
    let project = project();
    project.run(&["run", "wine.toml"]).ok();
    let ended = project.run(&["gc", "--format", "json"]).ok();
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((told["blobs"].as_u64(), told["kept_blobs"].as_u64()), (Some(0), Some(2)), "{told}");
    let again = project.run(&["run", "wine.toml"]).ok();
    assert!(again.stdout.contains("2 cached"));
}

#[test]
fn a_size_that_is_none_is_said() {
    let ended = project().run(&["run", "wine.toml", "--memory", "12 apples"]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("expected a size like \"256MiB\" or \"2GB\", found \"12 apples\""),
        "{}",
        ended.stderr
    );
}

#[test]
fn help_and_version_go_to_stdout_and_a_wrong_flag_is_usage() {
    let project = project();
    assert!(project.run(&["--version"]).ok().stdout.starts_with("ropeway "));
    let help = project.run(&["--help"]).ok();
    for command in ["run", "check", "plan", "show", "stages", "serve", "infer", "export", "gc", "schema", "new"] {
        assert!(help.stdout.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
    }
    assert_eq!(project.run(&["run", "wine.toml", "--sped"]).code, Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let project = project();
    project.run(&["run", "wine.toml"]).ok();
    let mut child = project.command(&["export", "rows"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn ctrl_c_ends_with_130_and_a_later_run_goes_on() {
    let project = Project::new();
    let config = root().join("configs/digits.toml").display().to_string();
    let child = project.spawn(&["run", &config, "--format", "json"]);
    // Until it has begun in earnest: its first stage is committed.
    let until = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(project.path().join(".ropeway/memo")).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < until, "nothing was committed");
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    let plan = project.run(&["plan", &config, "--format", "json"]).ok();
    assert_eq!(plan.events()[0]["state"], "cached");
}
