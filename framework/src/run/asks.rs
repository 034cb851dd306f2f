//! The runs that a coordinator of many is asked for.

use super::coordinator::Coordinator;
use super::course::{Course, Opening};
use super::event::{Event, Sink};
use super::voice::Message;
use super::{Line, wanted};
use crate::pipeline::{Override, Pipeline, SourceFile, resolve};
use crate::schedule;
use crate::stage::Registry;
use crate::store::Store;
use crate::worker::{Client, Order};
use crate::{Error, Fault, Result, runtime};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs that one coordinator sees through at the same time.
const MOST_RUNS: usize = 1000;
/// Those that are read at the same time: it takes threads that the store needs too.
const MOST_READ: usize = 4;

/// The runs that are asked for and have not begun.
#[derive(Default)]
pub(super) struct Asks {
    waiting: VecDeque<Order>,
    reading: usize,
}

/// A run that somebody asked for, as far as it is understood.
pub(super) struct Resolved {
    order: Order,
    begun: Result<(Pipeline, Vec<usize>, Opening)>,
}

impl Coordinator<'_> {
    /// Somebody asks for a run: what it is is found out beside the other work.
    pub(super) fn asked(&mut self, order: Order) -> Result<()> {
        if self.courses.len() + self.asks.waiting.len() + self.asks.reading >= MOST_RUNS {
            let error = Error::unavailable(format!("the coordinator sees {MOST_RUNS} runs through, and takes no more"));
            self.refuse(&order, &error.help("ask again when some of them have ended"));
            return Ok(());
        }
        self.asks.waiting.push_back(order);
        self.read_asks()
    }

    fn refuse(&mut self, order: &Order, error: &Error) {
        order.client.refuse(error);
        self.notice(&Event::Warning { name: order.name.clone(), message: format!("refused: {error}") });
    }

    fn read_asks(&mut self) -> Result<()> {
        while self.asks.reading < MOST_READ
            && let Some(order) = self.asks.waiting.pop_front()
        {
            if order.client.gone().is_cancelled() {
                continue;
            }
            self.asks.reading += 1;
            let (registry, store, outbox) = (self.registry.clone(), self.store.clone(), self.outbox.clone());
            let (began, build) = (self.options.clock.unix_millis(), self.build.clone());
            runtime()?.spawn_blocking(move || {
                let begin = || begin(&order, &registry, &store, began, &build);
                // What nobody thought of must not take the other runs with it.
                let begun = catch_unwind(AssertUnwindSafe(begin)).unwrap_or_else(|_| {
                    Err(Error::new("the coordinator panicked when it read the pipeline").fault(Fault::Bug))
                });
                // The coordinator may have ended.
                let _ = outbox.send(Message::Resolved(Box::new(Resolved { order, begun })));
            });
        }
        Ok(())
    }

    /// A run that somebody asked for begins, if it can.
    pub(super) fn resolved(&mut self, Resolved { order, begun }: Resolved) -> Result<()> {
        self.asks.reading -= 1;
        self.read_asks()?;
        let (pipeline, wanted, opening) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.refuse(&order, &error);
                return Ok(());
            }
        };
        let store = absolute(self.store.url());
        order.client.accept(&store);
        let client = order.client.clone();
        let sink: Box<dyn Sink> = Box::new(move |line: &Line| tell(&client, line));
        let pools = !pipeline.pools.is_empty();
        let elsewhere = pipeline.store.as_deref().map(absolute).filter(|other| *other != store);
        self.notice(opening.event());
        // Nobody waits any more for the run of a client that is gone.
        let mut course = Course::new((Cow::Owned(pipeline), wanted), opening, sink, order.client.gone())?;
        (course.began, course.standing, course.near) = (self.options.clock.elapsed(), order.standing, order.near);
        course.client = Some(order.client);
        let run = self.admit(course)?;
        self.introduce(run)?;
        let mut warn = |name: &str, message: String| self.tell(run, Event::Warning { name: name.to_owned(), message });
        if pools {
            warn("pools", "the coordinator has its own workers: the pipeline's pools are not used".to_owned())?;
        }
        if let Some(other) = elsewhere {
            warn("store", format!("results are kept in the coordinator's store, {store}, and not in {other}"))?;
        }
        self.advance(run)
    }
}

/// The address of a store, for somebody in another folder.
fn absolute(url: &str) -> String {
    let path = if url.contains("://") { url.strip_prefix("file://") } else { Some(url) };
    let folder = path.and_then(|path| std::path::absolute(path).ok());
    folder.map_or_else(|| url.to_owned(), |folder| format!("file://{}", folder.display()))
}

/// Tells a client what happens in its run.
fn tell(client: &Client, line: &Line) {
    let may_be_left_out = matches!(line.event, Event::Progress { .. } | Event::Log { .. });
    // What an event holds is always JSON.
    if let Ok(event) = serde_json::to_vec(line) {
        client.tell(event, may_be_left_out);
    }
}

/// Reads what somebody asks for, and opens the run's log.
fn begin(
    order: &Order,
    registry: &Registry,
    store: &Store,
    unix_millis: u64,
    build: &str,
) -> Result<(Pipeline, Vec<usize>, Opening)> {
    let overrides = order.overrides.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>>>()?;
    let source = SourceFile::new(order.name.clone(), order.text.clone());
    let (pipeline, found) = resolve(&source, registry, &overrides);
    let pipeline = pipeline.ok_or_else(|| {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Error::usage(format!("{} can't be run: {}", order.name, found.join("; ")))
    })?;
    let wanted = wanted(&pipeline, &order.only)?;
    let opening = Opening::of(&pipeline, &wanted, store, (unix_millis, schedule::Time::ZERO), build)?;
    Ok((pipeline, wanted, opening))
}
