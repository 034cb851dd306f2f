//! Where a training stands: all that it needs to go on, as tensors.

use super::bounds::FIRST_STEPS;
use super::loss::Sums;
use arrow::array::{ArrayRef, Float64Array, Int64Array};
use ropeway_framework::data::{Frame, Metrics, Tensor, Tensors};
use ropeway_framework::{Context, Error, Result};
use serde_json::Value;
use std::sync::Arc;

/// The learning curve's columns.
pub(super) const CURVE: [&str; 8] =
    ["epoch", "step", "rate", "gradient.norm", "train.loss", "train.accuracy", "valid.loss", "valid.accuracy"];

/// Where a training stands after a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    /// What the training is; a state of another one is refused.
    pub(super) identity: Value,
    /// Where all chance of this training comes from.
    pub(super) chance: u64,
    pub(super) epoch: u64,
    pub(super) step: u64,
    /// Steps of the epoch that is under way: where in its order of rows it stands.
    pub(super) position: u64,
    /// The losses of the epoch that is under way.
    pub(super) epoch_sums: Sums,
    /// The losses since the last point of the curve.
    pub(super) recent_sums: Sums,
    /// The losses of the first steps of all.
    pub(super) first_sums: Sums,
    /// The norm of the last step's gradient.
    pub(super) norm: f64,
    pub(super) weights: Vec<f32>,
    pub(super) moments: Vec<Vec<f32>>,
    /// The epoch with the lowest validation loss so far, and its weights, if the training looks for it.
    pub(super) best: Option<Best>,
    pub(super) stopped: bool,
    /// A row an epoch; NaN where there is nothing to say.
    pub(super) curve: Vec<[f64; CURVE.len()]>,
    /// Rows between them, if the training is asked for some.
    pub(super) points: Vec<[f64; CURVE.len()]>,
}

/// The best epoch so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Best {
    pub(super) epoch: u64,
    pub(super) loss: f64,
    pub(super) weights: Vec<f32>,
}

fn means(sums: &Sums, row: &mut [f64; CURVE.len()], classifies: bool) {
    row[4] = sums.mean();
    if classifies {
        row[5] = sums.accuracy();
    }
}

fn one<T: ropeway_framework::data::Element>(tensors: &Tensors, name: &str) -> Result<T> {
    tensors.get(name)?.values::<T>()?.first().copied().context(format!("the tensor {name:?} is empty"))
}

fn floats(tensors: &Tensors, name: &str, count: usize) -> Result<Vec<f32>> {
    let values = tensors.get(name)?.values::<f32>()?;
    if values.len() != count {
        return Err(Error::new(format!("{name:?} has {} values, the model {count} weights", values.len())));
    }
    Ok(values.to_vec())
}

impl State {
    /// Adds the losses of a step.
    pub(super) fn add(&mut self, sums: Sums) {
        self.position += 1;
        self.epoch_sums.add(sums);
        self.recent_sums.add(sums);
        if self.step <= FIRST_STEPS {
            self.first_sums.add(sums);
        }
    }

    /// A point of the curve within an epoch, if one is due: the means are those since the row before.
    pub(super) fn note(&mut self, every: Option<u64>, mut row: [f64; CURVE.len()], classifies: bool) {
        if every.is_some_and(|every| self.step.is_multiple_of(every)) {
            means(&std::mem::take(&mut self.recent_sums), &mut row, classifies);
            self.points.push(row);
        }
    }

    /// Ends an epoch; gives its row of the curve, whose means are those of the epoch.
    pub(super) fn end_epoch(&mut self, mut row: [f64; CURVE.len()], classifies: bool) -> [f64; CURVE.len()] {
        means(&std::mem::take(&mut self.epoch_sums), &mut row, classifies);
        self.recent_sums = Sums::default();
        (self.epoch, self.position) = (self.epoch + 1, 0);
        row
    }

    /// The state as tensors.
    pub(super) fn tensors(&self) -> Result<Tensors> {
        let flat = |values: &[f32]| Tensor::from_vec(vec![values.len()], values.to_vec());
        let identity = self.identity.to_string().into_bytes();
        let counts = vec![self.chance, self.epoch, self.step, u64::from(self.stopped), self.position];
        let sums = [self.epoch_sums.packed(), self.recent_sums.packed(), self.first_sums.packed()].concat();
        let table = |rows: &[[f64; CURVE.len()]]| Tensor::from_vec(vec![rows.len(), CURVE.len()], rows.concat());
        let mut tensors = Tensors::new()
            .with("identity", Tensor::from_vec(vec![identity.len()], identity)?)
            .with("counts", Tensor::from_vec(vec![counts.len()], counts)?)
            .with("sums", Tensor::from_vec(vec![3, 4], sums)?)
            .with("norm", Tensor::from_vec(vec![1], vec![self.norm])?)
            .with("curve", table(&self.curve)?)
            .with("points", table(&self.points)?)
            .with("weights", flat(&self.weights)?);
        for (index, moment) in self.moments.iter().enumerate() {
            tensors.insert(format!("moment{}", index + 1), flat(moment)?);
        }
        if let Some(best) = &self.best {
            tensors.insert("best.weights", flat(&best.weights)?);
            tensors.insert("best.epoch", Tensor::from_vec(vec![1], vec![best.epoch])?);
            tensors.insert("best.loss", Tensor::from_vec(vec![1], vec![best.loss])?);
        }
        Ok(tensors)
    }

    /// The state of tensors, to go on with the training that `fresh` begins.
    ///
    /// # Errors
    /// No state of a training, or one of another training: the first thing that differs is named.
    pub(super) fn read(tensors: &Tensors, fresh: &State) -> Result<Self> {
        let foreign = "the tensors are no state of a training";
        let identity: Value = serde_json::from_slice(tensors.get("identity").context(foreign)?.values::<u8>()?)?;
        if let (Value::Object(old), Value::Object(new)) = (&identity, &fresh.identity) {
            let other = old.keys().chain(new.keys()).find(|key| old.get(*key) != new.get(*key));
            if let Some(key) = other {
                let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
                return Err(Error::new(format!(
                    "the state is of a training with another `{key}`: {}, now {}",
                    text(old.get(key)),
                    text(new.get(key))
                ))
                .help("go on with the same data and parameters; only `epochs` and `checkpoint` may differ"));
            }
        }
        let counts = tensors.get("counts").context(foreign)?.values::<u64>()?;
        let [chance, epoch, step, stopped, position] = *counts else { return Err(Error::new(foreign)) };
        let [epoch_sums, recent_sums, first_sums] =
            *tensors.get("sums").context(foreign)?.values::<f64>()?.as_chunks().0
        else {
            return Err(Error::new(foreign));
        };
        let table = |name: &str| -> Result<Vec<[f64; CURVE.len()]>> {
            Ok(tensors.get(name).context(foreign)?.values::<f64>()?.as_chunks().0.to_vec())
        };
        let weights = fresh.weights.len();
        let best = match tensors.contains("best.weights") {
            false => None,
            true => Some(Best {
                epoch: one(tensors, "best.epoch")?,
                loss: one(tensors, "best.loss")?,
                weights: floats(tensors, "best.weights", weights)?,
            }),
        };
        let moments = (1..=fresh.moments.len()).map(|n| floats(tensors, &format!("moment{n}"), weights));
        Ok(Self {
            identity,
            chance,
            epoch,
            step,
            position,
            epoch_sums: Sums::unpacked(epoch_sums),
            recent_sums: Sums::unpacked(recent_sums),
            first_sums: Sums::unpacked(first_sums),
            norm: one(tensors, "norm")?,
            weights: floats(tensors, "weights", weights)?,
            moments: moments.collect::<Result<_>>()?,
            best,
            stopped: stopped != 0,
            curve: table("curve")?,
            points: table("points")?,
        })
    }

    /// The weights to keep: the best epoch's if the training looks for it, else the last one's.
    pub(super) fn chosen(&self) -> &[f32] {
        self.best.as_ref().map_or(&self.weights, |best| &best.weights)
    }

    /// The learning curve: a row an epoch, and those within epochs. Columns that say nothing are left out.
    pub(super) fn curve(&self) -> Result<Frame> {
        let mut rows: Vec<&[f64; CURVE.len()]> = self.curve.iter().chain(&self.points).collect();
        rows.sort_by(|a, b| a[1].total_cmp(&b[1]));
        let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
        for (index, name) in CURVE.into_iter().enumerate() {
            let values: Vec<f64> = rows.iter().map(|row| row[index]).collect();
            if index < 2 {
                columns.push((name, Arc::new(values.iter().map(|value| Some(*value as i64)).collect::<Int64Array>())));
            } else if values.is_empty() || values.iter().any(|value| !value.is_nan()) {
                columns.push((name, Arc::new(Float64Array::from(values))));
            }
        }
        Frame::from_columns(columns)
    }

    /// The numbers of the epoch whose weights are kept, and how far the training went.
    pub(super) fn metrics(&self) -> Metrics {
        let kept = self.best.as_ref().map_or(self.epoch, |best| best.epoch);
        let row = self.curve.iter().find(|row| row[0] == kept as f64);
        let values = row.into_iter().flat_map(|row| CURVE.into_iter().zip(*row).skip(4));
        values
            .filter(|(_, value)| !value.is_nan())
            .collect::<Metrics>()
            .with("epochs", self.epoch as f64)
            .with("best.epoch", kept as f64)
            .with("steps", self.step as f64)
            .with("parameters", self.weights.len() as f64)
    }
}
