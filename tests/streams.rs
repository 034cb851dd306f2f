//! Training on more data than there is memory for: what it takes, and that neither kills nor workers change a byte.

use crate::kills::{children, kill};
use crate::support::{Ended, Project, Running, root};
use std::fs;

const PARTS: usize = 64;
/// Images of 16 x 16 a part: 8 MiB.
const ROWS: usize = 32 << 10;
const PIXELS: usize = 16 * 16;

/// What all parts take, in bytes.
const ALL: u64 = (PARTS * ROWS * PIXELS) as u64;
/// What a process may take at most: the program itself, the cap on artifacts, and what the training needs for itself.
const PEAK: u64 = ALL / 2;

/// A number that depends on its place in a way that nobody sees through.
fn noise(place: usize) -> u8 {
    let mixed = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

/// Files in the format of MNIST: a class is a bright line.
fn data(project: &Project) {
    let head = |code: &[u8], sizes: &[usize]| {
        let mut bytes = code.to_vec();
        sizes.iter().for_each(|size| bytes.extend_from_slice(&(*size as u32).to_be_bytes()));
        bytes
    };
    for part in 0..PARTS {
        let mut images = head(&[0, 0, 8, 3], &[ROWS, 16, 16]);
        let mut labels = head(&[0, 0, 8, 1], &[ROWS]);
        for row in part * ROWS..(part + 1) * ROWS {
            let class = usize::from(noise(row)) % 4;
            labels.push(class as u8);
            let start = row * PIXELS;
            images.extend(
                (start..start + PIXELS).map(|place| noise(place) / 2 + if place / 16 % 4 == class { 60 } else { 0 }),
            );
        }
        project.write(&format!("data/images-{part:02}"), images);
        project.write(&format!("data/labels-{part:02}"), labels);
    }
}

fn pipeline(workers: usize) -> String {
    let files = |name: &str| (0..PARTS).map(|part| format!("\"data/{name}-{part:02}\"")).collect::<Vec<_>>().join(", ");
    format!(
        r#"
        name = "large"
        seed = 11
        [stage.file]
        use = "read.idx"
        with = {{ images = "data/images-00", labels = "data/labels-00" }}
        [stage.parts]
        use = "map"
        from = {{ each = "file" }}
        [stage.parts.with.values]
        images = [{}]
        labels = [{}]
        [stage.fit]
        use = "train"
        from = {{ train = "parts" }}
        needs = {{ workers = {workers} }}
        [stage.fit.with]
        model = {{ softmax = {{}} }}
        epochs = 1
        batch = 512
        shards = 4
        shuffle = {{ buffer = 30_000 }}
        checkpoint = {{ steps = 50 }}
        "#,
        files("images"),
        files("labels"),
    )
}

/// The most memory that a process has had so far; nothing if it has ended.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}

/// Runs to the end, or until its training has taken some steps, and is killed then with all its workers. Gives the end,
/// if it came to it, and the largest peak of its processes.
fn run(project: &Project, store: &str, workers: usize, to_the_end: bool) -> (Option<Ended>, u64) {
    project.write("p.toml", pipeline(workers));
    let number = workers.to_string();
    let mut arguments =
        vec!["run", "p.toml", "--format", "json", "--memory", "24MiB", "--cores", "2", "--store", store];
    if workers > 1 {
        arguments.extend(["--workers", &number]);
    }
    let mut running = Running::start(project, &arguments);
    let process = running.process.id();
    let mut most = 0;
    while let Some(said) = running.next() {
        let workers = children(process);
        most = most.max(peak(process)).max(workers.iter().map(|worker| peak(*worker)).max().unwrap_or(0));
        let training = said["event"] == "progress" && said["name"] == "fit" && said["unit"] == "step";
        // There is a checkpoint by then.
        if training && !to_the_end && said["done"].as_u64().is_some_and(|steps| steps >= 200) {
            workers.into_iter().filter(|worker| kill(*worker)).for_each(drop);
            running.process.kill();
            return (None, most);
        }
    }
    (Some(running.end().ok()), most)
}

#[test]
fn more_than_fits_into_memory_is_trained_on_killed_and_gone_on_with() {
    let project = Project::new();
    data(&project);
    let (whole, peak) = run(&project, "file://.whole", 1, true);
    let (whole, mut peaks) = (whole.unwrap(), vec![peak]);
    for workers in [1, 3] {
        let store = format!("file://.killed-{workers}");
        let (ended, peak) = run(&project, &store, workers, false);
        assert!(ended.is_none(), "it ended before it was killed");
        peaks.push(peak);
        let (ended, peak) = run(&project, &store, workers, true);
        let ended = ended.unwrap();
        assert_eq!(ended.digests(), whole.digests(), "at {workers} workers");
        assert!(ended.stdout.contains("from a checkpoint"), "{}", ended.stdout);
        peaks.push(peak);
        fs::remove_dir_all(project.path().join(store.trim_start_matches("file://"))).unwrap();
    }
    let peaks: Vec<u64> = peaks.iter().map(|peak| peak >> 20).collect();
    println!("{} MiB of rows took {peaks:?} MiB", ALL >> 20);
    assert!(peaks.iter().all(|peak| *peak <= PEAK >> 20), "{peaks:?} MiB");
}

#[test]
fn digits_in_parts_are_read_with_few_mistakes() {
    let project = Project::new();
    let config = root().join("configs/digits-parts.toml").display().to_string();
    let ended = project.run(&["run", &config, "--format", "json"]).ok();
    let stages = ended.stages();
    let score = stages.iter().find(|stage| stage["name"] == "score").unwrap();
    let accuracy = score["metrics"]["accuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.96, "test accuracy {accuracy}");
    // With a buffer for all rows the parts do not matter.
    let all = ["run", &config, "--format", "json", "--set", "fit.shuffle.buffer=2000"];
    let model = |ended: &Ended| ended.digests()["fit"]["model"].clone();
    let first = model(&project.run(&all).ok());
    let other = [&all[..], &["--set", "parts.rows=700", "--set", "valid.rows=33"]].concat();
    assert_eq!(model(&project.run(&other).ok()), first);
    assert_ne!(model(&ended), first);
}
