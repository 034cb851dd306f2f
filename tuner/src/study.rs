//! Ask and tell, in logical order.
//!
//! A study is a sequence of decisions. Each begins a trial or lets one go on to a larger budget; either is a [`Job`].
//! What decision `j` may see is fixed by its number: the results of jobs up to `j - lag`, in that order. Results that
//! arrive early wait until their turn. So the same seed and the same results give the same jobs, whoever finished
//! first and however many ran at once, and up to `lag` jobs can be under way.
//!
//! Where a decision finds nothing to begin (all trials have begun, and none of those known deserves to go on), it
//! sees one more result, in order, and is taken again; that too depends on numbers alone.

use crate::pruners::{Never, Pruner, Standing};
use crate::samplers::{Sampler, View};
use crate::{Direction, Space, State, Trial, Values};
use ropeway_framework::stage::Seed;
use ropeway_framework::{Error, Result};
use std::fmt::Display;

/// A search: what was tried, how it went, and what to do next.
pub struct Study {
    space: Space,
    direction: Direction,
    sampler: Box<dyn Sampler>,
    pruner: Box<dyn Pruner>,
    whole: u64,
    seed: Seed,
    lag: usize,
    limit: Option<u64>,
    trials: Vec<Trial>,
    /// The trial of each job so far, and its result once told.
    jobs: Vec<(usize, Option<Outcome>)>,
    /// How many results the decisions have seen.
    seen: usize,
}

/// A number, or why there is none.
type Outcome = Result<f64, String>;

/// A piece of work: train a trial up to a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its number in the study.
    pub id: u64,
    /// The trial's number.
    pub trial: u64,
    /// The trial's parameters.
    pub values: Values,
    /// Which rung it climbs to; 0 is the first.
    pub rung: usize,
    /// The budget of that rung, from the beginning of the training on.
    pub budget: u64,
    /// Whether that is a whole training.
    pub last: bool,
}

impl Study {
    /// A study without pruning, without an end, whose jobs are done one after the other, with seed 0.
    pub fn new(space: Space, sampler: impl Sampler + 'static, direction: Direction) -> Self {
        Self {
            space,
            direction,
            sampler: Box::new(sampler),
            pruner: Box::new(Never::default()),
            whole: 1,
            seed: Seed::new(0, "study"),
            lag: 1,
            limit: None,
            trials: Vec::new(),
            jobs: Vec::new(),
            seen: 0,
        }
    }

    /// Ends after this many trials, or earlier if the sampler has no more.
    pub fn trials(mut self, count: u64) -> Self {
        self.limit = Some(count);
        self
    }

    /// Stops bad trials early; `whole` is the budget of a whole training.
    pub fn pruner(mut self, pruner: impl Pruner + 'static, whole: u64) -> Self {
        (self.pruner, self.whole) = (Box::new(pruner), whole);
        self
    }

    /// Lets up to `lag` jobs be under way at once (at least one). The trials depend on it.
    pub fn lag(mut self, lag: usize) -> Self {
        self.lag = lag.max(1);
        self
    }

    /// The source of all chance.
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    /// The next job. `None` if the result of one that is under way is needed first; if none is under way, the study
    /// has ended.
    pub fn ask(&mut self) -> Option<Job> {
        loop {
            let under_way = self.jobs.len() - self.seen;
            if under_way < self.lag
                && let Some(trial) = self.decide(under_way == 0)
            {
                return self.begin(trial);
            }
            if !self.see() {
                return None;
            }
        }
    }

    /// Tells the result of a job. One that is not finite counts as a failure.
    ///
    /// # Errors
    /// A job that this study did not give, or whose result it knows.
    pub fn tell(&mut self, job: &Job, value: f64) -> Result<()> {
        let outcome = if value.is_finite() { Ok(value) } else { Err(format!("the result is {value}")) };
        self.settle(job, outcome)
    }

    /// Tells that a job failed, and why. The study goes on without its trial.
    ///
    /// # Errors
    /// As for [`Study::tell`].
    pub fn fail(&mut self, job: &Job, why: impl Display) -> Result<()> {
        self.settle(job, Err(why.to_string()))
    }

    /// The trials so far, with the results that the last decision saw; at the end, with all.
    pub fn history(&self) -> &[Trial] {
        &self.trials
    }

    /// The trials so far, as a value of their own.
    pub fn into_trials(self) -> Vec<Trial> {
        self.trials
    }

    /// The best trial that was trained to the end; the earlier of equals.
    pub fn best(&self) -> Option<&Trial> {
        let complete = self.trials.iter().filter(|trial| trial.state == State::Complete);
        let cost = |trial: &Trial| trial.value().map_or(f64::INFINITY, |value| self.direction.cost(value));
        // Not `total_cmp`: -0.0 and 0.0 are equals.
        complete.reduce(|best, trial| if cost(trial) < cost(best) { trial } else { best })
    }

    /// The trial that the next job is for: one to go on with, or a new one.
    fn decide(&mut self, idle: bool) -> Option<usize> {
        let limit = [self.limit, self.sampler.limit(&self.space)].into_iter().flatten().min();
        let index = self.trials.len() as u64;
        let full = limit.is_some_and(|limit| index >= limit);
        let standing = Standing { direction: self.direction, trials: &self.trials, last: full && idle };
        if let Some(promoted) = self.pruner.promote(standing) {
            let place = usize::try_from(promoted).ok()?;
            return self.trials.get(place).is_some_and(|trial| trial.state == State::Pruned).then_some(place);
        }
        if full {
            return None;
        }
        let (space, direction, seed) = (&self.space, self.direction, &self.seed);
        let values = self.sampler.sample(View { space, direction, seed, index, trials: &self.trials });
        let rungs = self.pruner.rungs(index, self.whole);
        self.trials.push(Trial { index, values, rungs, results: Vec::new(), state: State::Running });
        Some(self.trials.len() - 1)
    }

    fn begin(&mut self, place: usize) -> Option<Job> {
        let trial = self.trials.get_mut(place)?;
        let rung = trial.results.len();
        let job = Job {
            id: self.jobs.len() as u64,
            trial: trial.index,
            values: trial.values.clone(),
            rung,
            budget: trial.rungs.get(rung).copied().unwrap_or(self.whole),
            last: rung + 1 >= trial.rungs.len(),
        };
        trial.state = State::Running;
        self.jobs.push((place, None));
        Some(job)
    }

    /// Shows the next result in order to the decisions, if it is there.
    fn see(&mut self) -> bool {
        let Some((place, Some(outcome))) = self.jobs.get(self.seen) else { return false };
        if let Some(trial) = self.trials.get_mut(*place) {
            match outcome {
                Ok(value) => {
                    trial.results.push(*value);
                    let ended = trial.results.len() >= trial.rungs.len();
                    trial.state = if ended { State::Complete } else { State::Pruned };
                }
                Err(why) => trial.state = State::Failed(why.clone()),
            }
        }
        self.seen += 1;
        true
    }

    fn settle(&mut self, job: &Job, outcome: Outcome) -> Result<()> {
        let known = usize::try_from(job.id).ok().and_then(|id| self.jobs.get_mut(id));
        match known {
            Some((place, told @ None)) if *place as u64 == job.trial => {
                *told = Some(outcome);
                Ok(())
            }
            Some((place, Some(_))) if *place as u64 == job.trial => {
                Err(Error::new(format!("the result of job {} was told before", job.id)))
            }
            _ => Err(Error::new(format!("job {} is not of this study", job.id))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Domain;
    use crate::pruners::Asha;
    use crate::samplers::{Grid, Random};

    fn space() -> Space {
        Space::new([("a", Domain::int(0, 9))]).unwrap()
    }

    fn a(job: &Job) -> f64 {
        job.values.get("a").and_then(|value| value.as_f64()).unwrap()
    }

    #[test]
    fn a_grid_finds_the_best_and_ends() {
        let mut study = Study::new(space(), Grid::default(), Direction::Maximize).trials(50);
        while let Some(job) = study.ask() {
            study.tell(&job, -(a(&job) - 7.0).abs()).unwrap();
        }
        assert_eq!(study.history().len(), 10);
        assert_eq!(study.best().unwrap().values.get("a"), Some(&7.into()));
    }

    #[test]
    fn no_more_than_lag_jobs_are_under_way() {
        let mut study = Study::new(space(), Random::default(), Direction::Minimize).trials(5).lag(3);
        let mut jobs: Vec<Job> = std::iter::from_fn(|| study.ask()).collect();
        assert_eq!(jobs.len(), 3);
        study.tell(&jobs[2], 1.0).unwrap();
        assert_eq!(study.ask(), None, "job 3 waits for the result of job 0, not for any");
        study.tell(&jobs[0], 1.0).unwrap();
        jobs.push(study.ask().unwrap());
        assert_eq!(study.ask(), None);
        study.tell(&jobs[1], 1.0).unwrap();
        assert_eq!(study.ask().unwrap().trial, 4);
        assert_eq!(study.ask(), None);
    }

    #[test]
    fn failures_and_numbers_that_are_none_do_not_win() {
        let mut study = Study::new(space(), Random::default(), Direction::Minimize).trials(4);
        for value in [f64::NAN, f64::NEG_INFINITY, 3.0, 3.0] {
            let job = study.ask().unwrap();
            study.tell(&job, value).unwrap();
            assert!(study.tell(&job, value).unwrap_err().to_string().contains("told before"));
        }
        assert_eq!(study.ask(), None);
        assert_eq!(study.best().unwrap().index, 2, "the earlier of equals");
        assert_eq!(study.history()[0].state, State::Failed("the result is NaN".into()));
        let mut other = Study::new(space(), Random::default(), Direction::Minimize);
        let job = other.ask().unwrap();
        let stranger = Job { id: 9, ..job };
        assert!(other.fail(&stranger, "no").unwrap_err().to_string().contains("not of this study"));
    }

    #[test]
    fn halving_spends_less_and_keeps_the_best() {
        let study = Study::new(space(), Grid::default(), Direction::Minimize).pruner(Asha::default(), 9);
        let (mut study, mut spent) = (study.lag(4), 0);
        let mut under_way = std::collections::VecDeque::new();
        loop {
            match study.ask() {
                Some(job) => under_way.push_back(job),
                None => {
                    let Some(job) = under_way.pop_front() else { break };
                    let before =
                        if job.rung == 0 { 0 } else { study.history()[job.trial as usize].rungs[job.rung - 1] };
                    spent += job.budget - before;
                    study.tell(&job, a(&job) + 1.0 / job.budget as f64).unwrap();
                }
            }
        }
        let best = study.best().unwrap();
        assert_eq!(best.values.get("a"), Some(&0.into()));
        assert_eq!(best.budget(), Some(9));
        assert!(spent < 10 * 9 / 2, "{spent}");
    }
}
