//! What is seen of a training while it runs: steps a second, loss, rate, norm of the gradient, time by phase.

use super::fit::Surroundings;
use super::phases::Phases;
use super::state::{CURVE, State};
use std::time::{Duration, Instant};

/// Time from one report to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a training must take for its log to say where the time went.
const LONG: Duration = Duration::from_secs(10);

/// Watches a training. Its times go to the progress and the log of the run, never into a result.
pub(super) struct Watch<'a> {
    around: &'a Surroundings,
    epochs: u64,
    begun: Instant,
    /// When it last reported, and at which step.
    last: (Instant, u64),
    first: Option<u64>,
    pub(super) phases: Phases,
}

impl<'a> Watch<'a> {
    pub(super) fn new(around: &'a Surroundings, epochs: u64) -> Self {
        let now = Instant::now();
        Self { around, epochs, begun: now, last: (now, 0), first: None, phases: Phases::default() }
    }

    /// It goes on from a state, with others perhaps.
    pub(super) fn begin(&mut self, state: &State) {
        self.last = (Instant::now(), state.step);
        self.first.get_or_insert(state.step);
    }

    /// After a step: a report now and then.
    pub(super) fn step(&mut self, state: &State, steps_an_epoch: u64, rate: f64) {
        let (time, step) = self.last;
        let passed = time.elapsed();
        if passed < PAUSE {
            return;
        }
        self.last = (Instant::now(), state.step);
        let mut metrics = vec![
            ("epoch", state.epoch as f64 + 1.0),
            ("train.loss", state.epoch_sums.mean()),
            ("rate", rate),
            ("gradient.norm", state.norm),
            ("steps/s", (state.step - step) as f64 / passed.as_secs_f64()),
        ];
        metrics.extend(self.phases.shares());
        self.around.progress.step(state.step, Some(self.epochs * steps_an_epoch), "step", &metrics);
    }

    /// After an epoch: its row of the curve.
    pub(super) fn epoch(&mut self, state: &State, steps_an_epoch: u64) {
        let Some(row) = state.curve.last() else { return };
        let metrics = CURVE.into_iter().zip(*row).skip(2).filter(|(_, value)| !value.is_nan());
        let mut metrics: Vec<(&str, f64)> = std::iter::once(("epoch", row[0])).chain(metrics).collect();
        metrics.push(("steps/s", self.speed(state)));
        metrics.extend(self.phases.shares());
        self.around.progress.step(state.step, Some(self.epochs * steps_an_epoch), "step", &metrics);
        if state.stopped {
            let best = state.best.as_ref().map_or(state.epoch, |best| best.epoch);
            let line = format!("stopped after epoch {}: none was better than epoch {best}", state.epoch);
            self.around.progress.log(line);
        }
    }

    /// At the end of a long one: where the time went.
    pub(super) fn end(&self, state: &State) {
        let time = self.begun.elapsed();
        if time < LONG {
            return;
        }
        let shares = self.phases.shares();
        let shares: Vec<String> = shares
            .iter()
            .map(|(name, share)| format!("{} {:.0}%", name.trim_start_matches("time."), share * 100.0))
            .collect();
        let (steps, speed) = (state.step - self.first.unwrap_or(0), self.speed(state));
        let line = format!("{steps} steps in {:.0} s, {speed:.0} a second; {}", time.as_secs_f64(), shares.join(", "));
        self.around.progress.log(line);
    }

    fn speed(&self, state: &State) -> f64 {
        (state.step - self.first.unwrap_or(0)) as f64 / self.begun.elapsed().as_secs_f64().max(1e-9)
    }
}
