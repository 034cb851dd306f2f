//! The way to a coordinator of many runs, for whoever asks it for one.

use super::client::{endpoint, unreachable};
use super::orders::refused;
use super::wire::coordinator_client::CoordinatorClient;
use super::wire::{self, RunWord, run_word};
use super::{Token, current_folder, program};
use crate::schedule::Standing;
use crate::store::kernel;
use crate::{Error, Result};
use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

/// A coordinator that can be asked.
pub(crate) struct Asking {
    client: CoordinatorClient<Channel>,
    join: String,
    order: wire::Order,
}

/// What is told of a run.
pub(crate) enum Told {
    /// It begins; its results go to this store.
    Accepted(String),
    /// An event, as JSON.
    Event(Bytes),
    /// There is no such run, or it was ended, and to ask again would not help.
    Refused(Error),
}

/// A run that was asked for, as long as somebody listens.
pub(crate) struct Listening {
    words: Streaming<RunWord>,
    join: String,
}

impl Asking {
    /// The coordinator at an address. Call it on the runtime that is to hold the connection.
    ///
    /// # Errors
    /// It is no address.
    pub(crate) fn at(join: &str, token: &Token) -> Result<Self> {
        let client = CoordinatorClient::new(endpoint(join, token)?.connect_lazy());
        let (build, machine) = (program::identity()?, kernel().to_owned());
        let order = wire::Order { build, machine, folder: current_folder(), ..wire::Order::default() };
        Ok(Self { client: client.max_decoding_message_size(usize::MAX), join: join.to_owned(), order })
    }

    /// For a pipeline file of a name and text, with overrides, of which only some stages are wanted.
    pub(crate) fn pipeline(mut self, (name, text): (&str, &str), overrides: &[String], only: &[String]) -> Self {
        (self.order.name, self.order.text) = (name.to_owned(), text.to_owned());
        (self.order.overrides, self.order.only) = (overrides.to_vec(), only.to_vec());
        self
    }

    /// As a run that is due this.
    pub(crate) fn standing(mut self, Standing { priority, weight }: Standing) -> Self {
        (self.order.priority, self.order.weight) = (priority, weight);
        self
    }

    /// Asks for the run.
    ///
    /// # Errors
    /// The coordinator can't be reached.
    pub(crate) async fn ask(&mut self) -> Result<Listening> {
        let words = self.client.run(self.order.clone()).await;
        let words = words.map_err(|status| unreachable(&self.join, &status))?.into_inner();
        Ok(Listening { words, join: self.join.clone() })
    }
}

impl Listening {
    /// What is told next.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub(crate) async fn next(&mut self) -> Result<Told> {
        let word = match self.words.message().await {
            Ok(Some(RunWord { word })) => word,
            Ok(None) => return Err(Error::unavailable(format!("the coordinator at {} has ended", self.join))),
            // What the other side decided, and no accident of the network.
            Err(status) if status.code() == Code::ResourceExhausted => {
                return Ok(Told::Refused(Error::new(format!("the coordinator ended the run: {}", status.message()))));
            }
            Err(status) => return Err(unreachable(&self.join, &status)),
        };
        match word {
            Some(run_word::Word::Accepted(accepted)) => Ok(Told::Accepted(accepted.store)),
            Some(run_word::Word::Event(event)) => Ok(Told::Event(event)),
            Some(run_word::Word::Refusal(refusal)) => Ok(Told::Refused(refused(refusal))),
            None => Err(Error::unavailable("whoever answers there is no coordinator")),
        }
    }
}
