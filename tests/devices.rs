//! CUDA devices: what is asked for where there are none, and on a real one.

use crate::support::{Ended, Project};
use ropeway::worker::Gpus;
use serde_json::Value;

const FIT: &str = r#"name = "p"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.fit]
use  = "train"
from = { train = "rows" }
with = { model = { softmax = {} }, epochs = 2 }
"#;

fn run(more: &[&str]) -> Ended {
    let project = Project::new();
    project.write("p.toml", FIT);
    project.run(&[&["run", "p.toml", "--format", "json"], more].concat())
}

fn warnings(ended: &Ended) -> Vec<Value> {
    ended.events().into_iter().filter(|event| event["event"] == "warning").collect()
}

/// Why there are no devices here; nothing, said in a line, if there are some.
fn missing() -> Option<String> {
    let reason = Gpus::find().missing().map(str::to_owned);
    if reason.is_none() {
        println!("skipped: there are CUDA devices here");
    }
    reason
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_reason() {
    let Some(reason) = missing() else { return };
    let demanded = run(&["--set", "fit.needs.device=\"cuda\""]);
    assert_eq!(demanded.code, Some(1), "{demanded:?}");
    let stage = demanded.stages().into_iter().find(|stage| stage["name"] == "fit").unwrap();
    let error = stage["error"].as_str().unwrap();
    assert!(
        error.contains("no worker can ever run this stage: it needs 1 GPU; the largest worker has none"),
        "{error}"
    );
    assert_eq!(stage["help"], format!("{reason}; or say device = \"auto\" under `needs`"));

    let one = run(&["--gpus", "1"]);
    assert_eq!(one.code, Some(2), "{one:?}");
    assert!(one.stderr.contains("1 CUDA devices are asked for, but there are 0"), "{}", one.stderr);
    assert!(one.stderr.contains(&reason), "{}", one.stderr);
}

#[test]
fn who_leaves_it_open_gets_the_processor_and_hears_of_it_once() {
    let Some(reason) = missing() else { return };
    let automatic = run(&[]).ok();
    let stage = automatic.stages().into_iter().find(|stage| stage["name"] == "fit").unwrap();
    assert_eq!(stage["device"], "cpu");
    let said = warnings(&automatic);
    // A program that was built without CUDA has nothing to explain.
    match Gpus::is_built() {
        true => assert!(said.len() == 1 && said[0]["message"].as_str().unwrap().starts_with(&reason), "{said:?}"),
        false => assert!(said.is_empty(), "{said:?}"),
    }
    assert!(warnings(&run(&["--gpus", "0"]).ok()).is_empty());
    assert!(warnings(&run(&["--set", "fit.needs.device=\"cpu\""]).ok()).is_empty());
}

#[test]
#[ignore = "needs a CUDA device"]
fn cuda_trains_and_the_record_names_it() {
    let cuda = ["--set", "fit.needs.device=\"cuda\"", "--store", "memory://"];
    let (first, second) = (run(&cuda).ok(), run(&cuda).ok());
    assert_eq!(first.digests(), second.digests());
    let stage = first.stages().into_iter().find(|stage| stage["name"] == "fit").unwrap();
    assert!(stage["device"].as_str().unwrap().starts_with("cuda ("), "{stage}");
    let half = run(&[&cuda[..], &["--set", "fit.needs.gpus=0.5", "--set", "fit.precision=\"bf16\""]].concat()).ok();
    assert!(half.digests() != first.digests());
}
