//! A run that a coordinator of many is asked for.

use super::{Event, Line, Report, Sink, StageReport, Standing};
use crate::stage::Cancel;
use crate::worker::{Asking, FIRST_PAUSE, LAST_PAUSE, Token, Told};
use crate::{Context, Fault, Result, links};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often whoever waits looks whether it is interrupted.
const PULSE: Duration = Duration::from_millis(50);

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
/// listens to what happens. Gives how it ended, and the store that has its results.
///
/// If the coordinator is killed and started again, it is asked again, and the run goes on.
///
/// # Errors
/// The coordinator refuses the run, or can't be reached for as long as the patience lasts.
pub fn ask(ask: &Ask, sink: &mut dyn Sink) -> Result<(Report, String)> {
    let links = links()?;
    let _entered = links.enter();
    let asking = Asking::at(&ask.join, &ask.token)?;
    let mut asking = asking.pipeline((&ask.name, &ask.text), &ask.overrides, &ask.only).standing(ask.standing);
    let mut heard = Heard { sink, store: String::new(), at: 0.0, run: String::new(), stages: Vec::new() };
    links.block_on(async {
        tokio::select! {
            biased;
            ended = heard.follow(ask, &mut asking) => ended.map(|report| (report, heard.store.clone())),
            () = interrupted(&ask.cancel) => Ok((heard.interrupted(), heard.store.clone())),
        }
    })
}

async fn interrupted(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        sleep(PULSE).await;
    }
}

/// What was heard of the run.
struct Heard<'a> {
    sink: &'a mut dyn Sink,
    store: String,
    /// Of the last event.
    at: f64,
    run: String,
    stages: Vec<StageReport>,
}

impl Heard<'_> {
    /// Listens to the end of the run, over as many connections as it takes.
    async fn follow(&mut self, ask: &Ask, asking: &mut Asking) -> Result<Report> {
        let (mut last, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let broke = match self.listen(asking, &mut last, &mut pause).await {
                Err(error) if error.whose() == Fault::Unavailable => error,
                ended => return ended,
            };
            if last.elapsed() > ask.patience {
                let waited = ask.patience.as_secs_f64();
                return Err(broke
                    .context(format!("no coordinator at {} for {waited:.0} s", ask.join))
                    .help("is it running, and are these the address and the token that it printed?"));
            }
            if !self.run.is_empty() {
                let (name, message) = ("coordinator".to_owned(), format!("{broke}; it is asked again"));
                self.sink.event(&Line { event: Event::Warning { name, message }, at: self.at });
                self.run.clear();
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn listen(&mut self, asking: &mut Asking, last: &mut Instant, pause: &mut Duration) -> Result<Report> {
        let mut listening = asking.ask().await?;
        loop {
            let told = listening.next().await?;
            (*last, *pause) = (Instant::now(), FIRST_PAUSE);
            let line: Line = match told {
                Told::Accepted(store) => {
                    self.store = store;
                    continue;
                }
                Told::Event(event) => {
                    serde_json::from_slice(&event).context("the coordinator tells something that is no event")?
                }
            };
            self.at = line.at;
            self.sink.event(&line);
            match line.event {
                Event::Started { run, .. } => (self.run, self.stages) = (run, Vec::new()),
                Event::StageFinished(stage) => self.stages.push(stage),
                Event::Finished(report) => return Ok(report),
                _ => {}
            }
        }
    }

    /// How far it was, for somebody who listens no more.
    fn interrupted(&mut self) -> Report {
        let (run, stages) = (std::mem::take(&mut self.run), std::mem::take(&mut self.stages));
        Report { run, seconds: self.at, stages, interrupted: true }
    }
}
