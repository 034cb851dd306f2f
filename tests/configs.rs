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

/// The commands in a file's comments that change a setting, as they stand there: what follows `ropeway run FILE`.
fn documented(text: &str) -> Vec<Vec<&str>> {
    let comments = text.lines().filter_map(|line| line.strip_prefix('#'));
    // Behind a second `#` stands what the command is for.
    let commands = comments.filter_map(|line| line.split('#').next()?.trim().strip_prefix("ropeway run "));
    let words = commands.map(|command| command.split_whitespace().skip(1).collect::<Vec<_>>());
    words.filter(|words| words.contains(&"--set")).collect()
}

#[test]
fn every_setting_that_a_config_documents_is_one() {
    let mut checked = 0;
    for entry in fs::read_dir(root().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let config = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let documented = documented(&text);
        // None is written in a way that this test overlooks.
        let mentioned = text.lines().filter(|line| line.starts_with('#')).map(|line| line.matches("--set").count());
        let found = documented.iter().flatten().filter(|word| **word == "--set").count();
        assert_eq!(found, mentioned.sum::<usize>(), "{config}");
        for words in documented {
            let ended = Project::new().run(&[&["check", config.as_str()][..], &words].concat()).ok();
            assert!(ended.stdout.contains("no mistakes") && ended.stderr.is_empty(), "{words:?}: {ended:?}");
        }
        checked += found;
    }
    assert!(checked >= 5, "{checked} settings");
}

#[test]
fn flights_are_read_from_parquet_as_the_config_says() {
    let project = Project::new();
    project.write("wine.toml", "name = \"wine\"\n[stage.flights]\nuse = \"dataset.wine\"\n");
    project.run(&["run", "wine.toml"]).ok();
    project.run(&["export", "flights", "-o", "flights.parquet"]).ok();
    let config = root().join("configs/flights.toml");
    let text = fs::read_to_string(&config).unwrap();
    let documented = documented(&text);
    let [settings] = documented.as_slice() else { panic!("{documented:?}") };
    // Whatever rows the file has: the stage that reads it is the one that is told to.
    let config = config.display().to_string();
    let only = ["run", &config, "--only", "flights", "--format", "json"];
    let ended = project.run(&[&only[..], settings].concat()).ok();
    assert_eq!(ended.outcomes()["flights"], "done");
    let rows = project.run(&["export", "flights"]).ok().stdout;
    assert_eq!(rows, project.run(&["export", "wine-1/flights"]).ok().stdout);
    assert_eq!(rows.lines().count(), 1 + 178);
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
