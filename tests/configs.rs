//! Every pipeline that we hand out is right; the small ones run.

use crate::support::{Project, root};
use std::fs;

#[test]
fn every_config_has_no_mistakes() {
    let mut checked = 0;
    for entry in fs::read_dir(root().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let ended = Project::new().run(&["check", &path.display().to_string()]).ok();
            assert!(ended.stdout.contains("no mistakes") && ended.stderr.is_empty(), "{ended:?}");
            checked += 1;
        }
    }
    assert!(checked >= 3);
}

#[test]
fn digits_are_read_with_few_mistakes() {
    let project = Project::new();
    let config = root().join("configs/digits.toml").display().to_string();
    let ended = project.run(&["run", &config, "--format", "json"]).ok();
    let stages = ended.stages();
    let score = stages.iter().find(|stage| stage["name"] == "score").unwrap();
    let accuracy = score["metrics"]["accuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.97, "test accuracy {accuracy}");
    // The second run does nothing.
    let again = project.run(&["run", &config, "--format", "json"]).ok();
    assert!(again.outcomes().values().all(|outcome| outcome == "cached"));
    assert_eq!(again.digests(), ended.digests());
}
