//! What runs use of the workers, and what the stages of each do: whoever uses least of what is its due comes first.

use super::{GroupId, RunId, Standing};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What somebody uses: thousandths of cores and of devices.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    millicores: u64,
    gpus: u64,
}

impl Usage {
    fn add(&mut self, (millicores, gpus): (u64, u64)) {
        self.millicores += millicores;
        self.gpus += gpus;
    }

    fn remove(&mut self, (millicores, gpus): (u64, u64)) {
        self.millicores -= millicores;
        self.gpus -= gpus;
    }

    fn is_nothing(self) -> bool {
        self.millicores == 0 && self.gpus == 0
    }

    /// The dominant share of all there is (Ghodsi et al.: Dominant Resource Fairness, 2011), in 2^-32.
    fn dominant(self, (millicores, gpus): (u64, u64)) -> u64 {
        let part = |used: u64, all: u64| ((u128::from(used) << 32) / u128::from(all.max(1))) as u64;
        part(self.millicores, millicores).max(part(self.gpus, gpus))
    }
}

/// Where a run stands among the runs, and one of its stages among its stages: the smaller comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// The run's priority; then what it uses, for each part that is its due.
    pub(super) run: (Reverse<i32>, u64),
    /// What the stage uses.
    pub(super) group: u64,
}

/// What all use.
#[derive(Debug, Default)]
pub(super) struct Shares {
    standings: BTreeMap<RunId, Standing>,
    runs: BTreeMap<RunId, Usage>,
    groups: BTreeMap<(RunId, GroupId), Usage>,
}

impl Shares {
    /// What a run is due from now on.
    pub(super) fn admit(&mut self, run: RunId, standing: Standing) {
        self.standings.insert(run, standing);
    }

    /// What a run is due.
    pub(super) fn standing(&self, run: RunId) -> Standing {
        self.standings.get(&run).copied().unwrap_or_default()
    }

    /// Notes that a stage of a run uses more.
    pub(super) fn use_more(&mut self, run: RunId, group: GroupId, used: (u64, u64)) {
        self.runs.entry(run).or_default().add(used);
        self.groups.entry((run, group)).or_default().add(used);
    }

    /// Notes that it uses less.
    pub(super) fn use_less(&mut self, run: RunId, group: GroupId, used: (u64, u64)) {
        if let Some(usage) = self.runs.get_mut(&run) {
            usage.remove(used);
            if usage.is_nothing() {
                self.runs.remove(&run);
            }
        }
        if let Some(usage) = self.groups.get_mut(&(run, group)) {
            usage.remove(used);
            if usage.is_nothing() {
                self.groups.remove(&(run, group));
            }
        }
    }

    /// Where a stage of a run stands, of so many thousandths of cores and devices.
    pub(super) fn of(&self, run: RunId, group: GroupId, total: (u64, u64)) -> Claim {
        let used = |usage: Option<&Usage>| usage.copied().unwrap_or_default().dominant(total);
        let Standing { priority, weight } = self.standing(run);
        let run_used = used(self.runs.get(&run)) / u64::from(weight.max(1));
        Claim { run: (Reverse(priority), run_used), group: used(self.groups.get(&(run, group))) }
    }
}
