//! The commands, as people type them.

use crate::support::{Project, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

/// A model, its scores, and a stage that reads the model's weights from a file.
const TRAINED: &str = r#"name = "trained"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.fit]
use  = "train"
from = { train = "rows" }
with = { target = "label", model = { mlp = { hidden = [4] } }, epochs = 2 }

[stage.score]
use  = "evaluate"
from = { model = "fit", rows = "rows" }

[stage.weights]
use  = "read.safetensors"
with = { path = "fit.safetensors" }
"#;

#[test]
fn a_model_is_exported_as_safetensors_and_as_json() {
    let project = Project::new();
    project.write("trained.toml", TRAINED);
    project.run(&["run", "trained.toml", "--only", "fit"]).ok();
    let json: Value = serde_json::from_str(&project.run(&["export", "fit", "--as", "json"]).ok().stdout).unwrap();
    assert_eq!((&json["kind"], &json["spec"]["target"]), (&"network".into(), &"label".into()), "{json}");
    assert_eq!(json["spec"]["model"]["mlp"]["hidden"], json!([4]), "{json}");

    // Others read what is written.
    let file = project.path().join("fit.safetensors");
    project.run(&["export", "fit", "-o", "fit.safetensors"]).ok();
    let tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let shapes: BTreeMap<&str, &[usize]> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())).collect();
    let expected: [(&str, &[usize]); 4] =
        [("dense1.bias", &[4]), ("dense1.weight", &[13, 4]), ("dense2.bias", &[3]), ("dense2.weight", &[4, 3])];
    assert_eq!(shapes, expected.into());
    assert_eq!(json["tensors"].as_object().unwrap().len(), tensors.len());
    for (name, tensor) in &tensors {
        let written = &json["tensors"][name];
        assert_eq!((&written["shape"], &written["dtype"]), (&json!(tensor.dims()), &"F32".into()), "{name}");
        let values: Vec<f32> = serde_json::from_value(written["values"].clone()).unwrap();
        assert_eq!(values, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), "{name}");
        assert!(values.iter().any(|value| *value != 0.0), "{name} was trained");
    }
    // Nothing else is meant if nobody says how.
    let stdout = project.command(&["export", "fit"]).output().unwrap().stdout;
    assert!(stdout == std::fs::read(&file).unwrap());

    // And we read it again.
    project.run(&["run", "trained.toml", "--only", "weights"]).ok();
    let weights = project.run(&["export", "weights", "--as", "json"]).ok().stdout;
    assert_eq!(serde_json::from_str::<Value>(&weights).unwrap(), json["tensors"]);
}

#[test]
fn metrics_are_exported_as_csv_and_as_json() {
    let project = Project::new();
    project.write("trained.toml", TRAINED);
    let ended = project.run(&["run", "trained.toml", "--only", "score", "--format", "json"]).ok();
    let metrics = ended.stages().pop().unwrap()["metrics"].clone();
    assert_eq!(metrics["rows"], 178.0);
    let json = project.run(&["export", "score"]).ok().stdout;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), metrics);
    let csv = project.run(&["export", "score", "--as", "csv"]).ok().stdout;
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("name,value"));
    let pair = |line: &str| -> (String, Value) {
        let (name, value) = line.split_once(',').unwrap();
        (name.to_owned(), value.parse::<f64>().unwrap().into())
    };
    assert_eq!(Value::Object(lines.map(pair).collect()), metrics);
    project.run(&["export", "score", "-o", "score.csv"]).ok();
    assert_eq!(std::fs::read_to_string(project.path().join("score.csv")).unwrap(), csv);

    for (artifact, format, message, help) in [
        ("score", "parquet", "metrics can't be written as parquet", "choose another format with --as"),
        ("fit", "csv", "a model can't be written as csv", "choose another format with --as"),
        ("rows", "safetensors", "a frame can't be written as safetensors", "choose csv, json, parquet or arrow"),
    ] {
        let refused = project.run(&["export", artifact, "--as", format]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        assert_eq!(refused.stderr, format!("error: {message}\nhelp: {help}\n"));
        // No half of a file is left either.
        let file = format!("x.{format}");
        assert_eq!(project.run(&["export", artifact, "-o", &file]).stderr, refused.stderr);
        assert!(!project.path().join(file).exists() && !project.path().join("x.part").exists());
    }
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
