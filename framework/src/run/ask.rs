//! A run that a coordinator of many is asked for.

use super::{Event, Line, Outcome, Report, Sink, StageReport, Standing};
use crate::stage::Cancel;
use crate::worker::{Asking, FIRST_PAUSE, LAST_PAUSE, Token, Told};
use crate::{Context, Fault, Result, links};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often whoever waits looks whether it is interrupted.
const PULSE: Duration = Duration::from_millis(50);
/// How often the coordinator may be gone without that a stage ended meanwhile.
const MOST_BREAKS: u32 = 10;

/// A run to ask a coordinator for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The coordinator's address: `https://host:port`, or `host:port`.
    pub join: String,
    /// Its secret.
    pub token: Token,
    /// What the pipeline file is called.
    pub name: String,
    /// What it says.
    pub text: String,
    /// What is different about it this time, each `KEY=VALUE`.
    pub overrides: Vec<String>,
    /// Only these stages, and what they need; all if empty.
    pub only: Vec<String>,
    /// What the run is due beside others.
    pub standing: Standing,
    /// How long to look for a coordinator that can't be reached.
    pub patience: Duration,
    /// Cancel it to interrupt the run.
    pub cancel: Cancel,
}

/// Has a coordinator ([`coordinate`](super::coordinate)) see a run through, on its workers and beside other runs, and
/// listens to what happens. Gives how it ended, and the store that has its results, if it had begun.
///
/// If the coordinator is killed and started again, it is asked again, and the run goes on.
///
/// # Errors
/// The coordinator refuses the run, or can't be reached for as long as the patience lasts.
pub fn ask(ask: &Ask, sink: &mut dyn Sink) -> Result<(Report, Option<String>)> {
    let links = links()?;
    let _entered = links.enter();
    let asking = Asking::at(&ask.join, &ask.token)?;
    let mut asking = asking.pipeline((&ask.name, &ask.text), &ask.overrides, &ask.only).standing(ask.standing);
    let mut heard =
        Heard { sink, store: None, at: 0.0, run: String::new(), stages: Vec::new(), breaks: 0, missing: None };
    let ended = links.block_on(async {
        tokio::select! {
            biased;
            () = interrupted(&ask.cancel) => Ok(heard.interrupted()),
            ended = heard.follow(ask, &mut asking) => ended,
        }
    });
    ended.map(|report| (report, heard.store))
}

async fn interrupted(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        sleep(PULSE).await;
    }
}

/// What was heard of the run.
struct Heard<'a> {
    sink: &'a mut dyn Sink,
    store: Option<String>,
    /// Of the last event.
    at: f64,
    run: String,
    stages: Vec<StageReport>,
    /// How often the coordinator was gone since a stage ended last.
    breaks: u32,
    /// Since when there is no coordinator.
    missing: Option<Instant>,
}

impl Heard<'_> {
    /// Listens to the end of the run, over as many connections as it takes.
    async fn follow(&mut self, ask: &Ask, asking: &mut Asking) -> Result<Report> {
        let mut pause = FIRST_PAUSE;
        loop {
            let was_missing = self.missing.is_some();
            let broke = match self.listen(asking).await {
                Err(error) if error.whose() == Fault::Unavailable => error,
                Err(error) => return Err(error),
                Ok(Ok(report)) => return Ok(report),
                Ok(Err(refused)) => return Err(refused),
            };
            if !was_missing || self.missing.is_none() {
                pause = FIRST_PAUSE;
            }
            let waited = ask.patience.as_secs_f64();
            let missing = *self.missing.get_or_insert_with(|| {
                // Said once for each time that it is gone.
                let (name, message) =
                    ("coordinator".to_owned(), format!("{broke}; it is asked again, for {waited:.0} s"));
                self.sink.event(&Line { event: Event::Warning { name, message }, at: self.at });
                self.breaks += u32::from(!self.run.is_empty());
                Instant::now()
            });
            if self.breaks > MOST_BREAKS {
                let message = format!("the coordinator ended {} times, and no stage did meanwhile", self.breaks);
                return Err(broke.context(message).help("the run may be what ends it: do its workers run its stages?"));
            }
            if missing.elapsed() > ask.patience {
                return Err(broke
                    .context(format!("no coordinator at {} for {waited:.0} s", ask.join))
                    .help("is it running, and are these the address and the token that it printed?"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Listens as long as the connection lasts: to the end of the run, or that there will be none.
    async fn listen(&mut self, asking: &mut Asking) -> Result<Result<Report>> {
        let mut listening = asking.ask().await?;
        loop {
            let told = listening.next().await?;
            self.missing = None;
            let line: Line = match told {
                Told::Accepted(store) => {
                    self.store = Some(store);
                    continue;
                }
                Told::Refused(error) => return Ok(Err(error)),
                Told::Event(event) => {
                    serde_json::from_slice(&event).context("the coordinator tells something that is no event")?
                }
            };
            self.at = line.at;
            self.sink.event(&line);
            match line.event {
                Event::Started { run, .. } => (self.run, self.stages) = (run, Vec::new()),
                Event::StageFinished(stage) => {
                    // What was done before is cached the next time, and no progress.
                    if stage.outcome == Outcome::Done {
                        self.breaks = 0;
                    }
                    self.stages.push(stage);
                }
                Event::Finished(report) => return Ok(Ok(report)),
                _ => {}
            }
        }
    }

    /// How far it was, for somebody who listens no more.
    fn interrupted(&mut self) -> Report {
        let (run, stages) = (std::mem::take(&mut self.run), std::mem::take(&mut self.stages));
        let report = Report { run, seconds: self.at, stages, interrupted: true };
        self.sink.event(&Line { event: Event::Finished(report.clone()), at: self.at });
        report
    }
}
