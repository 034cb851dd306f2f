//! Stores that fail while runs use them: the run says so or recovers, and nothing that was committed is lost.

use crate::support::{Ended, Project, Running, all_digits, digits, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system with little room, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said in a line, where this process may mount none.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            skip("mount", "nothing can be mounted here");
            return None;
        }
        Some(Self(at))
    }

    fn resize(&self, size: &str) {
        self.remount(&format!("size={size}"));
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// How runs are told to compute: in their own process, or in workers.
const WAYS: [&[&str]; 2] = [&[], &["--workers", "2"]];

#[test]
fn a_full_disk_stops_the_run_and_room_lets_it_go_on() {
    let reference = Project::new().run(&digits(&[])).ok().digests();
    for way in WAYS {
        let project = Project::new();
        let Some(disk) = SmallDisk::mount(project.path().join("disk"), "400k") else { return };
        let mut arguments = digits(way);
        arguments.extend(["--store", "disk/store"]);
        let full = project.run(&arguments);
        assert_eq!(full.code, Some(3), "{full:#?}");
        assert!(full.stdout.contains("is full") && full.stdout.contains("make room"), "{}", full.stdout);
        disk.resize("64m");
        assert_eq!(project.run(&arguments).ok().digests(), reference, "{way:?}");
        // A worker that had to be told twice to go leaves its folder to the next start.
        project.run(&[&digits(&[])[..], &["--store", "disk/store"]].concat()).ok();
        let left = fs::read_dir(project.path().join("disk/store/staging")).unwrap().count();
        assert_eq!(left, 0, "half-written files");
    }
}

#[test]
fn a_store_that_is_read_only_is_read_and_told() {
    let reference = Project::new().run(&digits(&[])).ok().digests();
    for way in WAYS {
        let project = Project::new();
        let Some(disk) = SmallDisk::mount(project.path().join("disk"), "64m") else { return };
        let with_store = |arguments: &[&'static str]| [arguments, &["--store", "disk/store"]].concat();
        project.run(&with_store(&digits(&["--only", "split"]))).ok();
        disk.remount("ro");
        let denied = project.run(&with_store(&digits(way)));
        assert_eq!(denied.code, Some(3), "{way:?}: {denied:#?}");
        let said: Vec<&str> = denied.stderr.lines().collect();
        let [message, help] = said[..] else { panic!("{way:?}: {denied:#?}") };
        let forbids = "error: the store disk/store does not let us write runs/digits-2/00000001.jsonl: ";
        let why = message.strip_prefix(forbids).unwrap_or_else(|| panic!("{way:?}: {message}"));
        assert!(why.starts_with("Read-only file system (os error 30)"), "{way:?}: {message}");
        assert_eq!(help, "help: check the permissions, or choose another store with --store");
        // A store that nobody has written to yet can't be begun there.
        let fresh = project.run(&[&digits(way)[..], &["--store", "disk/fresh"]].concat());
        assert_eq!(fresh.code, Some(3), "{way:?}: {fresh:#?}");
        let forbids = "error: the store disk/fresh does not let us write runs/digits-1/00000001.jsonl: ";
        assert!(fresh.stderr.starts_with(forbids), "{way:?}: {fresh:#?}");
        // What is there can be read.
        let shown = project.run(&with_store(&["show", "split"])).ok();
        assert!(shown.stdout.contains("label"), "{shown:?}");
        assert!(project.run(&with_store(&["show"])).ok().stdout.contains("digits-1"));
        disk.remount("rw");
        let again = project.run(&with_store(&digits(way))).ok();
        assert_eq!(again.outcomes()["split"], "cached");
        assert_eq!(again.digests(), reference, "{way:?}");
    }
}

/// Does something to the store in the middle of a run.
fn disturb(way: &[&str], disturb: impl Fn(&Path)) -> (Project, Ended) {
    let project = Project::new();
    let mut running = Running::start(&project, &all_digits(way));
    running.until(|said| said["event"] == "task_finished");
    disturb(&project.path().join(".ropeway"));
    let ended = running.end();
    (project, ended)
}

/// Everything that was said.
fn said(ended: &Ended) -> String {
    format!("{}{}", ended.stdout, ended.stderr)
}

#[test]
fn a_store_that_is_removed_is_made_anew_or_missed_in_words() {
    let reference = Project::new().run(&all_digits(&[])).ok().digests();
    for way in WAYS {
        let (project, ended) = disturb(way, |store| {
            // Files come while it is removed.
            while fs::remove_dir_all(store).is_err() {}
        });
        match ended.code {
            Some(0) => assert_eq!(ended.digests(), reference, "{way:?}"),
            Some(3) => assert!(said(&ended).contains("not in the store"), "{way:?}: {ended:#?}"),
            _ => panic!("{way:?}: {ended:#?}"),
        }
        assert_eq!(project.run(&all_digits(way)).ok().digests(), reference, "{way:?}");
        let all = project.run(&all_digits(way)).ok().outcomes();
        assert!(all.values().all(|outcome| outcome == "cached"), "{all:?}");
    }
}

#[test]
fn a_store_that_cannot_be_written_any_more_ends_the_run_in_words() {
    let reference = Project::new().run(&all_digits(&[])).ok().digests();
    for way in WAYS {
        let gone = |store: &Path| store.with_file_name("gone");
        let (project, ended) = disturb(way, |store| {
            fs::rename(store, gone(store)).unwrap();
            // What was a folder is a file: nothing can be made there again, unless the run was quicker.
            while fs::write(store, "").is_err() {
                let _ = fs::remove_dir_all(store);
            }
        });
        assert_eq!(ended.code, Some(3), "{way:?}: {ended:#?}");
        assert!(said(&ended).contains("in the store file://.ropeway"), "{way:?}: {ended:#?}");
        let store = project.path().join(".ropeway");
        fs::remove_file(&store).unwrap();
        fs::rename(gone(&store), &store).unwrap();
        assert_eq!(project.run(&all_digits(way)).ok().digests(), reference, "{way:?}");
    }
}
