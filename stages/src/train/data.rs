//! What a training learns from, read: all of it, or, of what comes in parts, what must be known beforehand.

use super::engine::{Examples, Target};
use super::fit::Surroundings;
use super::fitted::Description;
use super::labels::Labels;
use super::spec::TrainSpec;
use super::stage;
use super::stream::{self, Given, Source};
use ropeway_framework::data::{Frame, Model};
use ropeway_framework::stage::{Apply, Parts};
use ropeway_framework::{Context, Error, Result};
use std::sync::Arc;

/// The training part, the validation part, and what the model will be.
pub(super) struct Data {
    pub(super) train: Input,
    pub(super) valid: Option<Input>,
    pub(super) description: Description,
    /// Rows of the training part, by part.
    pub(super) sizes: Vec<usize>,
    /// Its rows by class; none if the target is a number.
    pub(super) counts: Vec<usize>,
    /// The class of each of its rows, if that is needed: for a sampler, and for weights in parts.
    pub(super) labels: Option<Arc<Labels>>,
}

/// Rows of one input.
pub(super) enum Input {
    /// One frame: they are in memory.
    Whole(Examples),
    /// A list of frames: they are read when they are needed.
    InParts(Arc<Source>),
}

impl Data {
    /// Reads the inputs `train`, `valid` and `features`.
    ///
    /// # Errors
    /// What can't be learned from: no rows, no target, values that no model can read.
    pub(super) fn read(
        (train, valid): (Parts<Frame>, Option<Parts<Frame>>),
        features: Option<&Model>,
        spec: &TrainSpec,
        around: &Surroundings,
    ) -> Result<Self> {
        let features = features.map(|model| around.models.load(model)).transpose().context("input \"features\"")?;
        let features: Option<Arc<dyn Apply>> = features.map(Arc::from);
        let given = |input, parts| Given { input, parts, features: features.clone() };
        let mut data = Self::read_train(given("train", train), spec, around)?;
        if let Some(valid) = valid {
            data.valid = Some(Input::valid(given("valid", valid), &data.description, around)?);
        }
        Ok(data)
    }

    fn read_train(given: Given, spec: &TrainSpec, around: &Surroundings) -> Result<Self> {
        if given.parts.is_list() {
            let with_labels = spec.class_weights.is_some() || spec.balance.is_some();
            let found = stream::survey(&given, spec, with_labels, around)?;
            let (description, sizes, counts) = (found.description, found.sizes, found.counts);
            let train = Input::InParts(Arc::new(Source::new(given, description.clone(), &sizes)));
            return Ok(Self { train, valid: None, description, sizes, counts, labels: found.labels.map(Arc::new) });
        }
        let (examples, description) = stage::read(&whole(&given, around)?, spec, around.threads.0)?;
        let counts = match (&examples.target, &description.classes) {
            (Target::Classes(rows), Some(classes)) => {
                let mut counts = vec![0; classes.len()];
                rows.iter().for_each(|class| counts[*class as usize] += 1);
                counts
            }
            _ => Vec::new(),
        };
        let labels = match &examples.target {
            Target::Classes(rows) if spec.balance.is_some() => Some(Arc::new(rows.iter().copied().collect())),
            _ => None,
        };
        let sizes = vec![examples.features.rows()];
        Ok(Self { train: Input::Whole(examples), valid: None, description, sizes, counts, labels })
    }

    /// All rows, for a model that must see them together.
    ///
    /// # Errors
    /// They come in parts.
    pub(super) fn together(&self, model: &str) -> Result<(&Examples, Option<&Examples>)> {
        let train = self.train.together(model)?;
        Ok((train, self.valid.as_ref().map(|valid| valid.together(model)).transpose()?))
    }

    /// Whether the training part is a list.
    pub(super) fn in_parts(&self) -> bool {
        matches!(self.train, Input::InParts(_))
    }
}

impl Input {
    fn valid(given: Given, description: &Description, around: &Surroundings) -> Result<Self> {
        if given.parts.is_list() {
            let sizes = stream::check(&given, description, around)?;
            return Ok(Input::InParts(Arc::new(Source::new(given, description.clone(), &sizes))));
        }
        let rows = whole(&given, around)?;
        if rows.rows() == 0 {
            return Err(
                Error::new("input \"valid\" has no rows").help("leave the input out, or split off more rows for it")
            );
        }
        stage::examples(&rows, description, around.threads.0).map(Input::Whole).context("input \"valid\"")
    }

    fn together(&self, model: &str) -> Result<&Examples> {
        match self {
            Input::Whole(examples) => Ok(examples),
            Input::InParts(_) => {
                Err(Error::usage(format!("the model `{model}` looks at all rows together: it takes no list of parts"))
                    .help("join them first: `map` has gather = \"concat\""))
            }
        }
    }
}

/// The rows of an input that is one frame, as the features give them.
fn whole(given: &Given, around: &Surroundings) -> Result<Frame> {
    let context = format!("input {:?}", given.input);
    let rows = given.parts.get(0).context(&context)?;
    given.transformed(rows, around.threads.0).context(&context)
}
