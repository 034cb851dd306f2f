//! The `train` stage for trees.

use super::boost::{Task, boost};
use crate::train::engine::Examples;
use crate::train::fit::Surroundings;
use crate::train::fitted::Description;
use crate::train::models::Trees;
use crate::train::pool::Pool;
use crate::train::spec::TrainSpec;
use ropeway_framework::data::{Frame, Metrics, Model, Tensors};
use ropeway_framework::{Error, Result};

/// The kind of the models that are trees.
pub(in crate::train) const KIND: &str = "trees";

/// Boosts trees: `(model, metrics, curve, state)`.
///
/// # Errors
/// Parameters that trees do not have, or an interruption.
pub(in crate::train) fn train(
    (spec, trees): (&TrainSpec, &Trees),
    description: &Description,
    (train, valid): (&Examples, Option<&Examples>),
    weights: &[f32],
    around: &Surroundings,
) -> Result<(Model, Metrics, Frame, Tensors)> {
    let strange = [
        ("augment", spec.augment.is_some()),
        ("find_rate", spec.find_rate.is_some()),
        ("balance", spec.balance.is_some()),
        ("clip", spec.clip.is_some()),
        ("curve", spec.curve.is_some()),
    ];
    if let Some((name, _)) = strange.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!("`{name}` is for networks; the model `trees` does not know it")));
    }
    let task = Task { train, valid, objective: description.objective, weights, early_stop: spec.early_stop.as_ref() };
    let pool = Pool::new(around.threads.0)?;
    let (forest, state) = boost(trees, &task, description.outputs(), &pool, around)?;
    let model = Model::new(KIND, description, forest.tensors()?)?;
    let metrics = state.metrics().with("parameters", forest.nodes() as f64);
    Ok((model, metrics, state.curve()?, state.tensors()?))
}
