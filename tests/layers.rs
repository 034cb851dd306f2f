//! The house stands as ARCHITECTURE.md says: imports go one way.

use crate::support::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which folders of `framework/src` a folder may import.
const FOLDERS: [(&str, &[&str]); 9] = [
    ("data", &[]),
    ("stage", &["data"]),
    ("pipeline", &["data", "stage"]),
    ("store", &["data"]),
    ("schedule", &["data"]),
    ("worker", &["data", "stage", "store", "schedule", "pipeline"]),
    ("fleet", &["worker"]),
    ("run", &["data", "stage", "pipeline", "store", "schedule", "worker", "fleet"]),
    ("observe", &["data", "run"]),
];

/// Which crates of ours a crate may import.
const CRATES: [(&str, &[&str]); 5] = [
    ("framework", &[]),
    ("stages", &["framework"]),
    ("tuner", &["framework"]),
    ("serving", &["framework"]),
    ("datasets", &["framework"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Files that only tests compile; they may look from outside, and print.
fn only_for_tests(file: &Path) -> bool {
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let folder = file.parent().and_then(Path::file_name);
    ["tests", "simulation", "conformance", "faulty", "killed", "enemies", "capped"].contains(&name)
        || folder.is_some_and(|name| name == "tests" || name == "simulation")
}

/// The code of a file: without tests (which may look from outside), comments and documentation.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The folders that a piece of code names as `crate::folder`, alone or in a group.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (position, _) in code.match_indices("crate::") {
        let rest = &code[position + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(name);
        }
    }
    found
}

#[test]
fn folders_of_the_framework_import_one_way() {
    let source = root().join("framework/src");
    let known: Vec<&str> = FOLDERS.iter().map(|(folder, _)| *folder).collect();
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(path.is_file() || known.contains(&name.as_str()), "folder {name} has no place in the layers");
    }
    for (folder, allowed) in FOLDERS {
        for file in sources(&source.join(folder)).iter().filter(|file| !only_for_tests(file)) {
            for import in imports(&code(file)) {
                let layer = known.contains(&import.as_str());
                let fine = !layer || import == folder || allowed.contains(&import.as_str());
                assert!(fine, "{} imports {import}, but {folder} may import only {allowed:?}", file.display());
            }
        }
    }
}

#[test]
fn crates_import_only_the_framework() {
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for (other, _) in CRATES {
            let imported = manifest.lines().any(|line| line.starts_with(&format!("ropeway-{other}")));
            assert!(!imported || allowed.contains(&other), "{name} may not import {other}");
        }
    }
}

#[test]
fn only_the_program_prints_and_exits() {
    for (name, _) in CRATES {
        for file in sources(&root().join(name).join("src")).iter().filter(|file| !only_for_tests(file)) {
            let code = code(file);
            for word in ["println!", "eprintln!", "process::exit"] {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

/// Whoever sets the clock of a machine must not end a wait too soon or prolong it: what waits reads a clock that never
/// goes back. Only the time for people and the ages of files are the calendar's.
#[test]
fn nothing_waits_by_the_calendar() {
    for (name, _) in CRATES {
        for file in sources(&root().join(name).join("src")).iter().filter(|file| !only_for_tests(file)) {
            let path = file.strip_prefix(root()).unwrap().to_str().unwrap();
            let allowed = path == "framework/src/run/clock.rs" || path.starts_with("framework/src/store/");
            assert!(allowed || !code(file).contains("SystemTime::now"), "{path} reads the calendar");
        }
    }
}

#[test]
fn folders_are_at_most_two_levels_deep() {
    for (name, _) in CRATES {
        for file in sources(&root().join(name).join("src")) {
            let depth = file.strip_prefix(root().join(name).join("src")).unwrap().components().count();
            assert!(depth <= 3, "{} is too deep", file.display());
        }
    }
}
