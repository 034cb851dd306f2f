//! The `tune` stage: a study whose trials are tasks.

mod params;
mod table;
#[cfg(test)]
mod tests;
mod trainer;

pub use params::Tune;

use crate::{Job, State, Study};
use bytes::Bytes;
use ropeway_framework::data::{Artifact, Frame, Metrics};
use ropeway_framework::stage::{Cancel, Params, Pending, Progress, Seed, Stored, Tasks, Template, canonical_json};
use ropeway_framework::{Error, Fault, Result, nearest};
use std::collections::{BTreeMap, VecDeque};
use trainer::Trainer;

/// The outputs of a task, by port.
type Stock = BTreeMap<String, Stored>;

/// Runs the trial stage again and again, and gives the best model, its parameters, a summary and the table of trials.
///
/// Trials are ordinary tasks: remembered, committed and resumed like any other. They are handed in up to `lag` at a
/// time and awaited in logical order ([`study`](mod@crate::study)), so nothing here depends on which ends first. All
/// trials have the template's own seed (common random numbers), so that their parameters are what differs.
///
/// # Errors
/// The trial stage does not take a parameter of the space, or gives no such metric; every trial failed; the run ends.
pub fn tune(
    trial: Template,
    Params(params): Params<Tune>,
    seed: Seed,
    tasks: Tasks,
    progress: Progress,
    cancel: Cancel,
) -> Result<(Artifact, Bytes, Metrics, Frame)> {
    let trainer = Trainer::new(trial, &params)?;
    let study = Study::new(params.space.clone(), params.sampler.clone(), params.direction).seed(seed);
    let study = study.trials(params.trials.into()).lag(params.lag.get() as usize);
    let study = study.pruner(params.pruner.clone(), trainer.whole().unwrap_or(1));
    let mut search =
        Search { params: &params, trainer, study, latest: BTreeMap::new(), begun: 0, best: None, progress };
    search.run(&tasks, &cancel)?;
    search.results()
}

struct Search<'a> {
    params: &'a Tune,
    trainer: Trainer,
    study: Study,
    /// The newest outputs of each trial.
    latest: BTreeMap<u64, Stock>,
    /// How many trials have a result or failed, for the progress alone.
    begun: u64,
    /// The best result of a whole training so far, for the progress alone.
    best: Option<f64>,
    progress: Progress,
}

impl Search<'_> {
    fn run(&mut self, tasks: &Tasks, cancel: &Cancel) -> Result<()> {
        let mut under_way: VecDeque<(Job, Pending)> = VecDeque::new();
        self.report();
        loop {
            cancel.check()?;
            if let Some(job) = self.study.ask() {
                // A combination of values that the stage refuses is a failed trial, like one that fails later.
                match self.trainer.task(&job, self.latest.get(&job.trial)) {
                    Ok(task) => under_way.push_back((job, tasks.submit(task))),
                    Err(error) => self.settle(&job, Err(error))?,
                }
            } else if let Some((job, pending)) = under_way.pop_front() {
                let outcome = pending.wait();
                self.settle(&job, outcome)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Tells the study how a job went.
    ///
    /// # Errors
    /// Something that is not the trial's fault.
    fn settle(&mut self, job: &Job, outcome: Result<Stock>) -> Result<()> {
        match outcome {
            Ok(stock) => {
                let value = self.objective(&stock)?;
                self.study.tell(job, value)?;
                self.latest.insert(job.trial, stock);
                let better = self.best.is_none_or(|best| self.params.direction.better(value, best));
                if job.last && value.is_finite() && better {
                    self.best = Some(value);
                }
            }
            // A lost store or an interrupted run says nothing about the trial.
            Err(error) if !matches!(error.whose(), Fault::Stage | Fault::Usage) => return Err(error),
            Err(error) => {
                self.progress.log(format!("trial {} failed: {error}", job.trial));
                self.study.fail(job, error)?;
            }
        }
        self.begun += u64::from(job.rung == 0);
        self.report();
        Ok(())
    }

    fn objective(&self, stock: &Stock) -> Result<f64> {
        let (name, trial) = (&self.params.metric, self.trainer.name());
        let metrics: Metrics = self.trainer.output(stock, "metrics")?.load_as()?;
        metrics.get(name).ok_or_else(|| {
            let error = Error::usage(format!("stage {trial:?} gives no metric {name:?}"));
            match nearest(name, metrics.iter().map(|(name, _)| name)) {
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None => {
                    let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
                    error.help(format!("its metrics are {}", names.join(", ")))
                }
            }
        })
    }

    fn report(&self) {
        let best = self.best.map(|best| ("best", best));
        self.progress.step(self.begun, Some(self.params.trials.into()), "trial", best.as_slice());
    }

    fn results(self) -> Result<(Artifact, Bytes, Metrics, Frame)> {
        let trials = self.study.history();
        let Some(best) = self.study.best() else {
            let first = trials.iter().find_map(|trial| match &trial.state {
                State::Failed(why) => Some(why.as_str()),
                _ => None,
            });
            return Err(Error::new(format!(
                "all {} trials failed, the first with: {}",
                trials.len(),
                first.unwrap_or("no result")
            )));
        };
        let count = |name: &str| trials.iter().filter(|trial| trial.state.name() == name).count() as f64;
        let metrics = Metrics::new()
            .with("best", best.value().unwrap_or(f64::NAN))
            .with("trial", best.index as f64)
            .with("complete", count("complete"))
            .with("pruned", count("pruned"))
            .with("failed", count("failed"));
        let stock = self.latest.get(&best.index).ok_or_else(|| Error::new("the best trial left no outputs"))?;
        let model = self.trainer.output(stock, self.trainer.model())?.load()?;
        let params = canonical_json(&serde_json::to_value(&best.values)?);
        let budgets = self.trainer.whole().is_some() && self.params.space.get(&self.params.budget).is_none();
        let table = table::table(&self.params.space, trials, budgets)?;
        Ok((model, Bytes::from(params), metrics, table))
    }
}
