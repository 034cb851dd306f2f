//! The second command: a trained model as an endpoint.

use crate::support::{Ended, Project, root};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// Stops a server when dropped.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn digits() -> String {
    root().join("configs/digits.toml").display().to_string()
}

const SMALL: [&str; 4] = ["--set", "best.trials=3", "--set", "fit.epochs=3"];

/// Runs a small digits pipeline and serves it; gives the server and its URL.
pub(crate) fn serve_digits(project: &Project) -> (Server, String) {
    let config = digits();
    project.run(&[&["run", config.as_str()][..], &SMALL].concat()).ok();
    let serve = [&["serve", config.as_str(), "--listen", "127.0.0.1:0", "--format", "json"][..], &SMALL].concat();
    listening(project.command(&serve))
}

/// Starts a server and waits until it says where it listens.
fn listening(mut command: Command) -> (Server, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    (Server(child), format!("http://{}", said["address"].as_str().unwrap()))
}

#[test]
fn predictions_are_the_same_over_http_and_from_the_store() {
    let project = Project::new();
    let (_server, url) = serve_digits(&project);
    let config = digits();
    project.run(&["export", "split.test", "-o", "rows.csv"]).ok();
    let served = project.run(&["infer", &url, "rows.csv"]).ok();
    let stored = project.run(&[&["infer", config.as_str(), "rows.csv"][..], &SMALL].concat()).ok();
    assert!(served.stdout.starts_with("prediction,probability.0"), "{}", served.stdout);
    assert_eq!(served.stdout, stored.stdout);
    assert!(served.stdout.lines().count() > 200);
}

#[test]
fn rows_come_as_json_from_a_file_and_from_standard_input() {
    let project = Project::new();
    let (_server, url) = serve_digits(&project);
    let config = digits();
    project.run(&["export", "split.test", "-o", "rows.csv"]).ok();
    let lines = project.run(&["export", "split.test", "--as", "json"]).ok().stdout;
    project.write("rows.json", &lines);
    // One array of rows is as good as a row a line.
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    project.write("array.json", json!(rows).to_string());
    let infer = |target: &str, more: &[&str]| {
        let settings = if target == config { &SMALL[..] } else { &[] };
        let mut command = project.command(&[&["infer", target][..], more, settings].concat());
        // Where no file is named, the rows are on standard input, and JSON.
        command.stdin(std::fs::File::open(project.path().join("rows.json")).unwrap());
        Ended::of(command.output().unwrap()).ok().stdout
    };
    let predictions = infer(&url, &["rows.json"]);
    let first: Value = serde_json::from_str(predictions.lines().next().unwrap()).unwrap();
    assert!((0..10).contains(&first["prediction"].as_i64().unwrap()), "{first}");
    assert_eq!(first["probability"].as_array().unwrap().len(), 10, "{first}");
    assert_eq!(predictions.lines().count(), rows.len());
    for target in [url.as_str(), config.as_str()] {
        for more in [&["rows.json"][..], &["array.json"], &["-"], &[]] {
            assert!(infer(target, more) == predictions, "{target} {more:?}");
        }
        // They are the predictions for the same rows from CSV, and can be written as CSV.
        assert!(infer(target, &["rows.csv", "--as", "json"]) == predictions, "{target}");
        assert!(infer(target, &["-", "--as", "csv"]) == infer(target, &["rows.csv"]), "{target}");
    }
}

#[test]
fn a_plain_http_client_gets_a_prediction() {
    let project = Project::new();
    let (_server, url) = serve_digits(&project);
    let get =
        |path: &str| -> Value { ureq::get(format!("{url}{path}")).call().unwrap().body_mut().read_json().unwrap() };
    let metadata = get("/v2/models/digits");
    let inputs = metadata["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 64);
    let tensors: Vec<Value> = inputs
        .iter()
        .map(|input| json!({ "name": input["name"], "datatype": input["datatype"], "shape": [2], "data": [0, 0] }))
        .collect();
    let mut answer =
        ureq::post(format!("{url}/v2/models/digits/infer")).send_json(json!({ "inputs": tensors })).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer["outputs"][0]["name"], "prediction");
    assert_eq!(answer["outputs"][0]["shape"], json!([2]));
}

#[test]
fn what_has_not_run_cannot_be_served_and_a_port_in_use_is_named() {
    let project = Project::new();
    let unknown = project.run(&["serve", &digits()]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("has not run yet") && unknown.stderr.contains("ropeway run"), "{unknown:?}");

    let (_server, url) = serve_digits(&project);
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let config = digits();
    let second = project.run(&[&["serve", config.as_str(), "--listen", &address][..], &SMALL].concat());
    assert_eq!(second.code, Some(3), "{second:?}");
    assert!(second.stderr.contains("in use"), "{second:?}");
}

#[test]
fn a_server_that_is_asked_to_stop_stops() {
    let project = Project::new();
    let (mut server, _) = serve_digits(&project);
    let pid = server.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.0.wait().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_server_without_file_descriptors_left_recovers() {
    let project = Project::new();
    let config = digits();
    project.run(&[&["run", config.as_str()][..], &SMALL].concat()).ok();
    let serve = ["serve", config.as_str(), "--listen", "127.0.0.1:0", "--format", "json", "--head-timeout", "1"];
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 48 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ropeway")]);
    command.args(serve).args(SMALL).current_dir(project.path());
    let (_server, url) = listening(command);
    let address = url.strip_prefix("http://").unwrap();
    // More than it can take, none of which says a word.
    let _silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(ureq::get(format!("{url}/v2/health/ready")).call().unwrap().status(), 200);
}

#[test]
fn a_limit_that_is_no_number_is_refused() {
    let project = Project::new();
    let refused = project.run(&["serve", &digits(), "--idle-timeout", "soon"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("no number of seconds"), "{refused:?}");
}

#[test]
fn bad_rows_are_refused_with_the_reason() {
    let project = Project::new();
    project.run(&[&["run", digits().as_str()][..], &SMALL].concat()).ok();
    let infer = |rows: &str| -> Ended {
        project.write("rows.csv", rows);
        project.run(&[&["infer", digits().as_str(), "rows.csv"][..], &SMALL].concat())
    };
    let said = |ended: &Ended| ended.stderr.lines().map(str::to_owned).collect::<Vec<_>>();
    let missing = infer("a,b\n1,2\n");
    assert_eq!(missing.code, Some(2), "{missing:?}");
    let lacks = "error: the features need more columns: there is no column \"pixel_0_0\"";
    assert_eq!(said(&missing), [lacks, "help: the columns are a, b"]);
    let empty = infer("");
    assert_eq!(empty.code, Some(2), "{empty:?}");
    assert_eq!(said(&empty)[0], lacks);
    // A header without rows is right, and has no predictions.
    let rows = project.run(&["export", "split.test"]).ok().stdout;
    let header = rows.lines().next().unwrap();
    let none = infer(&format!("{header}\n")).ok().stdout;
    assert!(none.starts_with("prediction,probability.0,") && none.lines().count() == 1, "{none}");
    // Text where a number is wanted, and a value that is not there.
    let row = rows.lines().nth(1).unwrap();
    let wrong = |value: &str| infer(&format!("{header}\n{value},{}\n", row.split_once(',').unwrap().1));
    let text = wrong("x");
    assert_eq!(text.code, Some(2), "{text:?}");
    let parsing =
        "error: the rows: Parser error: Error while parsing value 'x' as type 'Int64' for column 0 at line 1.";
    assert!(text.stderr.starts_with(parsing), "{text:?}");
    let null = wrong("");
    assert_eq!(null.code, Some(2), "{null:?}");
    assert_eq!(said(&null)[0], "error: column \"pixel_0_0\" is null (or NaN) in row 0 (the first is row 0)");
}

#[test]
fn bad_rows_for_a_server_are_refused_with_the_reason() {
    let project = Project::new();
    let (_server, url) = serve_digits(&project);
    let infer = |rows: &str| -> String {
        project.write("rows.json", rows);
        let ended = project.run(&["infer", &url, "rows.json"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        ended.stderr
    };
    assert_eq!(infer("[1]"), "error: row 1 is no object\nhelp: write each row as {\"column\": value, …}\n");
    let null = infer("{\"a\": 1}");
    assert!(null.starts_with("error: column \"pixel_0_0\": at [0]: null, and the protocol has no nulls"), "{null}");
    let half = infer("{\"a\": ");
    assert!(half.starts_with("error: the rows are no JSON: EOF while parsing a value at line 1"), "{half}");
    project.write("rows.csv", "a,b\n1,2\n");
    let missing = project.run(&["infer", &url, "rows.csv"]);
    assert_eq!(missing.code, Some(2), "{missing:?}");
    let lacks = "error: model \"digits\" takes a column that the rows lack: there is no column \"pixel_0_0\"";
    assert_eq!(missing.stderr, format!("{lacks}\nhelp: the columns are a, b\n"));
}

const WINE: &str = r#"name = "wine"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.features]
use  = "features.fit"
from = "rows"
with = { target = "label", steps = [{ scale = "standard" }] }

[stage.scaled]
use  = "features.apply"
from = { rows = "rows", features = "features" }

[stage.fit]
use  = "train"
from = { train = "scaled" }
with = { model = { softmax = {} }, epochs = 2 }

[serve.wine]
apply = ["features", "fit"]
"#;

#[test]
fn a_value_that_no_model_can_read_is_the_fault_of_the_request() {
    let project = Project::new();
    project.write("w.toml", WINE);
    project.run(&["run", "w.toml"]).ok();
    let serve = ["serve", "w.toml", "--listen", "127.0.0.1:0", "--format", "json"];
    let (_server, url) = listening(project.command(&serve));
    let model = format!("{url}/v2/models/wine");
    let metadata: Value = ureq::get(&model).call().unwrap().body_mut().read_json().unwrap();
    let ask = |bad: &Value| -> (u16, Value) {
        let tensor = |input: &Value| {
            let data = if input["name"] == "alcohol" { json!([13.0, bad]) } else { json!([1.0, 1.0]) };
            json!({ "name": input["name"], "datatype": input["datatype"], "shape": [2], "data": data })
        };
        let inputs: Vec<Value> = metadata["inputs"].as_array().unwrap().iter().map(tensor).collect();
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.post(format!("{model}/infer")).send_json(json!({ "inputs": inputs })).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    };
    assert_eq!(ask(&json!(12.5)).0, 200);
    for (bad, word) in [("NaN", "null (or NaN)"), ("Infinity", "infinite or too large")] {
        let (status, answer) = ask(&json!(bad));
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == 400 && error.contains(&format!("column \"alcohol\" is {word} in row 1 (the first is row 0)")),
            "{status} {answer}"
        );
    }
    // The server has taken no harm.
    assert_eq!(ask(&json!(12.5)).0, 200);
}
