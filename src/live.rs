//! What is seen while a run is under way: bars on a terminal, plain lines elsewhere.

use crate::cli::complain;
use crate::run::{Event, Line, Outcome, Sink, StageReport};
use crate::table::{number, seconds};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

/// What the names of metrics begin with that are shares of a stage's time.
const TIME: &str = "time.";

/// Shows the events of a run on stderr.
pub(crate) struct Live {
    bars: MultiProgress,
    terminal: bool,
    running: BTreeMap<String, ProgressBar>,
    width: usize,
}

impl Live {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bars = MultiProgress::with_draw_target(match terminal {
            true => ProgressDrawTarget::stderr_with_hz(15),
            false => ProgressDrawTarget::hidden(),
        });
        Self { bars, terminal, running: BTreeMap::new(), width: 8 }
    }

    fn say(&self, line: &str) {
        let line = line.trim_end();
        match self.terminal {
            // There is nowhere to say that stderr is gone.
            true => drop(self.bars.println(line)),
            false => complain(line),
        }
    }

    fn progress(&self, name: &str, event: &Event) {
        let Event::Progress { done, total, unit, metrics, .. } = event else { return };
        // A trial's steps are too many to see; the search itself says how far it is.
        let Some(bar) = self.running.get(name) else { return };
        if let Some(total) = total
            && bar.length() != Some(*total)
        {
            bar.set_length(*total);
            let template = "{prefix} {bar:24.cyan/dim} {pos}/{len} {msg} {elapsed:.dim} {left:.dim}";
            bar.set_style(style(template).with_key("left", left));
        }
        bar.set_position(*done);
        // Shares of the time come last, as people read them: `forward 31%`.
        let share =
            |(name, value): (&String, &f64)| Some(format!("{} {:.0}%", name.strip_prefix(TIME)?, 100.0 * value));
        let plain = metrics.iter().filter(|(name, _)| !name.starts_with(TIME));
        let plain = plain.map(|(name, value)| format!("{name} {}", number(*value)));
        let shown: Vec<String> = plain.chain(metrics.iter().filter_map(share)).collect();
        bar.set_message(format!("{unit}s  {}", shown.join("  ")));
    }

    fn finished(&mut self, report: &StageReport) {
        if let Some(bar) = self.running.remove(&report.name) {
            bar.finish_and_clear();
        }
        let name = format!("{:<width$}", report.name, width = self.width);
        let metrics: Vec<String> =
            report.metrics.iter().take(4).map(|(name, value)| format!("{name} {}", number(value))).collect();
        match report.outcome {
            Outcome::Done => {
                self.say(&format!("{name} done     {:>8}  {}", seconds(report.seconds), metrics.join("  ")))
            }
            Outcome::Cached => self.say(&format!("{name} cached             {}", metrics.join("  "))),
            Outcome::Failed => self.say(&format!("{name} failed   {}", report.error.as_deref().unwrap_or(""))),
            Outcome::Skipped => self.say(&format!("{name} skipped")),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

/// How long it will still take, if that can be guessed: not before the first step, nor when all steps are done and the
/// stage goes on, as a search does that trains the best of its trials longer.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let left = state.eta();
    if !left.is_zero() {
        // A line on a terminal takes any text.
        let _ = write!(out, "{:#} left", HumanDuration(left));
    }
}

impl Sink for Live {
    fn event(&mut self, line: &Line) {
        match &line.event {
            Event::Started { run, stages, .. } => {
                self.width = stages.iter().map(|name| name.chars().count()).max().unwrap_or(8);
                self.say(&format!("run {run}"));
            }
            Event::StageStarted { name, .. } => {
                let bar = ProgressBar::no_length();
                bar.set_style(style("{prefix} {spinner:.cyan} {msg} {elapsed:.dim}"));
                bar.set_prefix(format!("{name:<width$}", width = self.width));
                let bar = self.bars.add(bar);
                bar.enable_steady_tick(Duration::from_millis(100));
                self.running.insert(name.clone(), bar);
            }
            event @ Event::Progress { name, .. } => self.progress(name, event),
            Event::Log { name, line } => self.say(&format!("{name}: {line}")),
            Event::Warning { name, message } => self.say(&format!("warning: {name}: {message}")),
            // Whoever asked for a task says what its failure means. `show` tells who ran what.
            Event::Listening { .. }
            | Event::TaskFinished { .. }
            | Event::TasksFolded { .. }
            | Event::AttemptStarted(_)
            | Event::AttemptEnded(_)
            | Event::AttemptsFolded(_)
            | Event::WorkerJoined(_)
            | Event::WorkerLeft { .. }
            | Event::Finished(_) => {}
            Event::StageFinished(report) => self.finished(report),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.running.values().for_each(ProgressBar::finish_and_clear);
    }
}
