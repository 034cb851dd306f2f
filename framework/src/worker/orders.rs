//! Runs that a coordinator of many is asked for, and what is told to whoever asked.

use super::current_folder;
use super::hub::Terms;
use super::wire::{self, RunWord, run_word};
use crate::schedule::Standing;
use crate::stage::Cancel;
use crate::store::kernel;
use crate::{Error, Fault};
use futures::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tonic::Status;

/// Words on the way to one client, at most: whoever does not listen at all is given up.
const MOST_WORDS: usize = 16 << 10;
/// The largest weight of a run: with more, what it uses would count as nothing.
const MOST_WEIGHT: u32 = 1000;
/// The longest pipeline file.
const MOST_TEXT: usize = 1 << 20;

/// What somebody asks for.
pub(crate) struct Order {
    /// The pipeline file: what it is called, and what it says.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
    /// What is different about it this time, each `KEY=VALUE`.
    pub(crate) overrides: Vec<String>,
    /// Only these stages, and what they need; all if empty.
    pub(crate) only: Vec<String>,
    /// What the run is due beside others.
    pub(crate) standing: Standing,
    /// Whether paths of files mean the same to the client as to this process.
    pub(crate) near: bool,
    /// Whoever asks.
    pub(crate) client: Client,
}

/// Whoever asked for a run, and listens to what it tells.
#[derive(Clone)]
pub(crate) struct Client {
    words: Sender<Result<RunWord, Status>>,
    gone: Cancel,
}

/// What a client hears. When it stops listening, its run is interrupted.
pub(crate) struct Words {
    words: Receiver<Result<RunWord, Status>>,
    gone: Cancel,
    /// Whether it was told that it heard too little.
    told: bool,
}

impl Client {
    pub(super) fn new() -> (Self, Words) {
        let (sender, words) = channel(MOST_WORDS);
        let gone = Cancel::default();
        (Self { words: sender, gone: gone.clone() }, Words { words, gone, told: false })
    }

    /// Cancelled when the client listens no more.
    pub(crate) fn gone(&self) -> Cancel {
        self.gone.clone()
    }

    /// The run begins; its results go to a store.
    pub(crate) fn accept(&self, store: &str) {
        self.say(run_word::Word::Accepted(wire::Accepted { store: store.to_owned() }));
    }

    /// There is no such run.
    pub(crate) fn refuse(&self, error: &Error) {
        self.say(run_word::Word::Refusal(wire::refusal(error)));
    }

    /// Something happened in the run. Some of it may be left out for a client that is slow to listen.
    pub(crate) fn tell(&self, event: Vec<u8>, may_be_left_out: bool) {
        if !may_be_left_out || self.words.capacity() > MOST_WORDS / 2 {
            self.say(run_word::Word::Event(event.into()));
        }
    }

    fn say(&self, word: run_word::Word) {
        if self.words.try_send(Ok(RunWord { word: Some(word) })).is_err() {
            self.gone.cancel();
        }
    }
}

impl Stream for Words {
    type Item = Result<RunWord, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let word = self.words.poll_recv(context);
        if matches!(word, Poll::Ready(None)) && self.gone.is_cancelled() && !std::mem::replace(&mut self.told, true) {
            let said = format!("it did not listen: {MOST_WORDS} events wait for it, and its run was stopped");
            return Poll::Ready(Some(Err(Status::resource_exhausted(said))));
        }
        word
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl Terms {
    /// Reads what somebody asks for.
    ///
    /// # Errors
    /// It is nothing for this coordinator.
    pub(super) fn order(&self, order: wire::Order, client: Client) -> Result<Order, Error> {
        if order.build != self.build {
            let what = format!("the pipeline is one of {}, but this coordinator runs {}", order.build, self.build);
            return Err(Error::usage(what).help(
                "equal bytes are promised for one build on one instruction-set level: ask with the executable that \
                 the coordinator was started from",
            ));
        }
        if order.text.len() > MOST_TEXT {
            let what = format!("the pipeline file has {} bytes, and {MOST_TEXT} are the most", order.text.len());
            return Err(Error::usage(what).help("run it without --join"));
        }
        if let Some(run) = &self.run {
            let what = format!("whoever listens there coordinates run {run} alone, and takes no other");
            return Err(
                Error::usage(what).help("start a coordinator of many runs: ropeway coordinator --listen ADDRESS")
            );
        }
        let standing = Standing { priority: order.priority, weight: order.weight.clamp(1, MOST_WEIGHT) };
        let near = order.machine == kernel() && order.folder == current_folder();
        let wire::Order { name, text, overrides, only, .. } = order;
        Ok(Order { name, text, overrides, only, standing, near, client })
    }
}

/// What a client hears that is refused.
pub(super) fn refused(refusal: wire::Refusal) -> Error {
    let fault = wire::FAULTS.get(refusal.fault as usize).copied().unwrap_or(Fault::Usage);
    let error = Error::new(refusal.message).fault(fault);
    if refusal.help.is_empty() { error } else { error.help(refusal.help) }
}
