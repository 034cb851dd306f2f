//! The machine that this process runs on, or what of it the process was given.

use std::fs;
use std::path::{Path, PathBuf};

/// Its name.
pub(crate) fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "this machine".to_owned() } else { name.to_owned() }
}

/// Bytes of memory that this process and those beside it may have: the machine's, or as much of it as the control groups
/// leave them in which a container or a service runs. `None` where the system does not tell.
pub(crate) fn memory() -> Option<u64> {
    let told = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = told.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"))?;
    let whole = kib.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    Some(limit(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default()).min(whole))
}

/// The least of the limits of the control groups that a process is in, as `/proc/self/cgroup` lists them
/// (cgroups(7)).
fn limit(root: &Path, groups: &str) -> u64 {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        match controllers {
            "" => upwards(root, group, "memory.max"),
            one if one.split(',').any(|name| name == "memory") => {
                upwards(&root.join("memory"), group, "memory.limit_in_bytes")
            }
            _ => Vec::new(),
        }
    });
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    limits.filter_map(read).min().unwrap_or(u64::MAX)
}

/// The files of a group and of those around it: the limit of each counts. In a container, the path may be that outside.
fn upwards(root: &Path, group: &str, file: &str) -> Vec<PathBuf> {
    Path::new(group.trim_start_matches('/')).ancestors().map(|folder| root.join(folder).join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts_in_either_version() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(limit(root.path(), "0::/a/b\n"), u64::MAX);
        write("a/memory.max", "5000\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(limit(root.path(), "0::/a/b\n"), 5000);
        write("memory.max", "3000\n");
        assert_eq!(limit(root.path(), "0::/a/b\n"), 3000);
        assert_eq!(limit(root.path(), "0::/another\n"), 3000, "a container sees its own group as the root");
        write("memory/x/memory.limit_in_bytes", "700\n");
        assert_eq!(limit(root.path(), "3:cpu,memory:/x\n2:pids:/x\n"), 700);
        assert_eq!(limit(root.path(), "nonsense\n::\n"), 3000);
    }

    #[test]
    fn a_machine_has_a_name_and_memory() {
        assert!(!name().is_empty());
        assert!(memory().is_some_and(|bytes| bytes > 64 << 20));
    }
}
