//! Trained models, applied.

use super::columns::{Column, Features, schema};
use super::encoding::fields;
use super::engine::predict;
use super::loss::{Objective, best, softmax};
use super::models::ModelSpec;
use super::network::{Network, sigmoid};
use super::pool::Pool;
use super::target::Classes;
use super::trees::Forest;
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ropeway_framework::data::{Frame, Model, Tensors};
use ropeway_framework::stage::Apply;
use ropeway_framework::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// The kind of the models that are networks.
pub const KIND: &str = "network";

/// Rows from which on prediction uses more than one thread.
const MANY: usize = 2048;

/// What a trained model is, besides its weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) model: ModelSpec,
    pub(super) objective: Objective,
    pub(super) target: String,
    pub(super) classes: Option<Classes>,
    pub(super) columns: Vec<Column>,
}

struct Fitted {
    description: Description,
    core: Core,
    input: SchemaRef,
    output: SchemaRef,
}

/// What gives a row its outputs.
enum Core {
    Network(Network, Vec<f32>),
    Trees(Forest),
}

impl Core {
    fn read(description: &Description, tensors: &Tensors) -> Result<Self> {
        if let ModelSpec::Trees(_) = description.model {
            let width = description.columns.iter().map(Column::width).sum();
            return Ok(Core::Trees(Forest::read(tensors, width, description.outputs())?));
        }
        let network = description.network()?;
        let weights = network.weights(tensors).context("the model can't be read")?;
        Ok(Core::Network(network, weights))
    }

    fn outputs(&self, features: &Features, pool: &Pool) -> Vec<f32> {
        match self {
            Core::Network(network, weights) => predict(network, weights, features, pool),
            Core::Trees(forest) => forest.predict(features, pool),
        }
    }
}

impl Description {
    /// The values a row that the model gives.
    pub(super) fn outputs(&self) -> usize {
        self.objective.outputs(self.classes.as_ref().map_or(0, Classes::len))
    }

    /// The network, for rows of its columns.
    pub(super) fn network(&self) -> Result<Network> {
        Network::new(&self.model, &fields(&self.model, &self.columns), self.outputs())
    }

    /// The model with these weights.
    pub(super) fn model(&self, network: &Network, weights: &[f32]) -> Result<Model> {
        Model::new(KIND, self, network.tensors(weights)?)
    }
}

/// The columns that a model with these classes gives, or one that predicts numbers. The field of the probabilities says
/// in its metadata, under `classes`, whose they are: a JSON list of names.
pub(super) fn output(classes: Option<&Classes>) -> Result<SchemaRef> {
    let Some(classes) = classes else {
        return Ok(Arc::new(Schema::new(vec![Field::new("prediction", DataType::Float64, false)])));
    };
    let list = DataType::FixedSizeList(Arc::new(item()), i32::try_from(classes.len())?);
    let names = serde_json::to_string(&classes.names())?;
    let probability = Field::new("probability", list, false);
    Ok(Arc::new(Schema::new(vec![
        Field::new("prediction", classes.data_type(), false),
        probability.with_metadata(HashMap::from([("classes".to_owned(), names)])),
    ])))
}

fn item() -> Field {
    Field::new_list_field(DataType::Float32, false)
}

/// Loads a model that `train` gave.
///
/// # Errors
/// A description or weights that this version can't read.
pub fn load(model: &Model) -> Result<Box<dyn Apply>> {
    let description: Description = model.parse()?;
    let core = Core::read(&description, model.tensors())?;
    let (input, output) = (schema(&description.columns)?, output(description.classes.as_ref())?);
    Ok(Box::new(Fitted { description, core, input, output }))
}

impl Apply for Fitted {
    fn input(&self) -> SchemaRef {
        self.input.clone()
    }

    fn output(&self) -> SchemaRef {
        self.output.clone()
    }

    fn target(&self) -> Option<&str> {
        Some(&self.description.target)
    }

    fn apply(&self, rows: &Frame) -> Result<Frame> {
        let threads = match rows.rows() >= MANY {
            true => std::thread::available_parallelism().map_or(1, usize::from),
            false => 1,
        };
        let features = Features::read(rows, &self.description.columns, threads)?;
        let outputs = self.core.outputs(&features, &Pool::new(threads)?);
        let columns = match &self.description.classes {
            None => vec![Arc::new(outputs.iter().map(|y| Some(f64::from(*y))).collect::<Float64Array>()) as ArrayRef],
            Some(classes) => classify(outputs, classes, self.description.objective)?,
        };
        Frame::new(self.output.clone(), vec![RecordBatch::try_new(self.output.clone(), columns)?])
    }
}

fn classify(mut outputs: Vec<f32>, classes: &Classes, objective: Objective) -> Result<Vec<ArrayRef>> {
    if objective == Objective::BinaryCrossEntropy {
        outputs = outputs.iter().flat_map(|x| [sigmoid(-x), sigmoid(*x)]).collect();
    } else {
        outputs.chunks_exact_mut(classes.len()).for_each(softmax);
    }
    let prediction = classes.decode(outputs.chunks_exact(classes.len()).map(best));
    let length = i32::try_from(classes.len())?;
    let values = Arc::new(Float32Array::from(outputs));
    Ok(vec![prediction, Arc::new(FixedSizeListArray::try_new(Arc::new(item()), length, values, None)?)])
}
