//! Fine-tuning: weights to begin with that another training made, and layers that keep theirs.

use super::network::Network;
use ropeway_framework::data::{Artifact, Tensors};
use ropeway_framework::stage::Progress;
use ropeway_framework::{Context, Error, Result, nearest};
use std::collections::BTreeSet;
use std::ops::Range;

/// Weights that a training does not change.
#[derive(Default)]
pub(super) struct Frozen(Vec<(Range<usize>, Vec<f32>)>);

impl Frozen {
    /// Whether all are trained.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their gradient is nothing, so that neither norms nor moments know of them.
    pub(super) fn still(&self, gradient: &mut [f32]) {
        self.0.iter().for_each(|(place, _)| gradient[place.clone()].fill(0.0));
    }

    /// Where they are.
    pub(super) fn places(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(|(place, _)| place.clone())
    }

    /// Undoes what a step did to them all the same: weight decay.
    pub(super) fn restore(&self, weights: &mut [f32]) {
        self.0.iter().for_each(|(place, kept)| weights[place.clone()].copy_from_slice(kept));
    }
}

/// The tensors of what lies at the input `init`.
///
/// # Errors
/// Neither a model nor tensors.
pub(super) fn tensors(init: &Artifact) -> Result<&Tensors> {
    match init {
        Artifact::Model(model) => Ok(model.tensors()),
        Artifact::Tensors(tensors) => Ok(tensors),
        other => Err(Error::usage(format!("input \"init\" is {}, not a model or tensors", other.kind()))),
    }
}

/// Takes over the tensors that have the name and the shape of the network's, and says which do not; gives the names of
/// those that were.
///
/// # Errors
/// None fits, or one that would is not of 32-bit floating point numbers.
pub(super) fn adopt(
    network: &Network,
    init: &Tensors,
    weights: &mut [f32],
    progress: &Progress,
) -> Result<BTreeSet<String>> {
    let (mut taken, mut all, mut other_shape, mut absent) = (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, shape, place) in network.places() {
        match init.contains(&name).then(|| init.get(&name)).transpose()? {
            None => absent.push(name.clone()),
            Some(tensor) if tensor.shape() != shape => {
                other_shape.push(format!("{name} ({:?}, here {shape:?})", tensor.shape()));
            }
            Some(tensor) => {
                let values = tensor.values::<f32>().context(format!("input \"init\": the tensor {name:?}"))?;
                if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
                    return Err(Error::new(format!("input \"init\": the tensor {name:?} has the value {bad}")));
                }
                weights[place].copy_from_slice(values);
                taken.insert(name.clone());
            }
        }
        all.push(name);
    }
    let unused: Vec<&str> =
        init.iter().map(|(name, _)| name).filter(|name| !all.iter().any(|own| own == name)).collect();
    let parts = [
        ("of another shape: ", other_shape.join(", ")),
        ("not there: ", absent.join(", ")),
        ("not used: ", unused.join(", ")),
    ];
    let said: String =
        parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("; {what}{names}")).collect();
    let line = format!("{} of {} weight tensors begin with those of \"init\"{said}", taken.len(), all.len());
    if taken.is_empty() {
        return Err(Error::new(format!("input \"init\": {line}"))
            .help("tensors are taken by name and shape; a dense layer's weight is [inputs, outputs]"));
    }
    progress.log(line);
    Ok(taken)
}

/// The weights of the layers (or single tensors) that are to keep theirs.
///
/// # Errors
/// A name that is no layer, a tensor that was not [taken over](adopt), or nothing left to train.
pub(super) fn freeze(network: &Network, names: &[String], weights: &[f32], taken: &BTreeSet<String>) -> Result<Frozen> {
    let places: Vec<(String, Range<usize>)> = network.places().map(|(name, _, place)| (name, place)).collect();
    let within = |tensor: &str, name: &str| {
        tensor.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if let Some(strange) = names.iter().find(|name| !places.iter().any(|(tensor, _)| within(tensor, name))) {
        let mut layers: Vec<&str> =
            places.iter().map(|(tensor, _)| tensor.split('.').next().unwrap_or(tensor)).collect();
        layers.dedup();
        let error = Error::usage(format!("`freeze` names {strange:?}, which is no layer of the model"));
        return Err(match nearest(strange, layers.iter().copied()) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error.help(format!("the layers are {}", layers.join(", "))),
        });
    }
    let is_named = |tensor: &String| names.iter().any(|name| within(tensor, name));
    let frozen = places.iter().filter(|(tensor, _)| is_named(tensor));
    let frozen: Vec<_> = frozen.map(|(_, place)| (place.clone(), weights[place.clone()].to_vec())).collect();
    if frozen.len() == places.len() {
        return Err(Error::usage("`freeze` names every layer: there is nothing left to train"));
    }
    if let Some((tensor, _)) = places.iter().find(|(tensor, _)| is_named(tensor) && !taken.contains(tensor)) {
        return Err(Error::usage(format!(
            "`freeze` keeps {tensor:?}, but input \"init\" has no such tensor of this shape: it would stay what chance made it"
        ))
        .help("freeze layers that \"init\" has, with the same sizes"));
    }
    Ok(Frozen(frozen))
}
