//! What a study knows of each of its trials.

use crate::Values;

/// One set of parameters, and how far its training came.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number: 0, 1, 2, … in the order in which the study began them.
    pub index: u64,
    /// Its parameters.
    pub values: Values,
    /// The budgets at which it is looked at, ascending; the last is a whole training.
    pub rungs: Vec<u64>,
    /// Its result at each rung that it has reached, in order: `results[k]` is the result after `rungs[k]`.
    pub results: Vec<f64>,
    /// What is with it.
    pub state: State,
}

/// What is with a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Under way: its next result is not known yet.
    Running,
    /// Stopped short of a whole training; a pruner may still let it go on.
    Pruned,
    /// Trained to the end.
    Complete,
    /// Failed, and why.
    Failed(String),
}

/// Whether less or more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Less is better: a loss.
    Minimize,
    /// More is better: an accuracy.
    Maximize,
}

impl Trial {
    /// Its last result.
    pub fn value(&self) -> Option<f64> {
        self.results.last().copied()
    }

    /// The budget that its last result took.
    pub fn budget(&self) -> Option<u64> {
        self.rungs.get(self.results.len().checked_sub(1)?).copied()
    }
}

impl State {
    /// Its name in tables: `running`, `pruned`, `complete` or `failed`.
    pub fn name(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Pruned => "pruned",
            State::Complete => "complete",
            State::Failed(_) => "failed",
        }
    }
}

impl Direction {
    /// Whether `a` is better than `b`; equal values are not.
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Direction::Minimize => a < b,
            Direction::Maximize => a > b,
        }
    }

    /// A value for which less is better, whatever the direction.
    pub fn cost(self, value: f64) -> f64 {
        match self {
            Direction::Minimize => value,
            Direction::Maximize => -value,
        }
    }
}
