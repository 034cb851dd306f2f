//! A candle module's weights: begun from the seed, and as one flat slice.

use super::fused::{Places, collect, look};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::RngExt;
use ropeway_framework::Result;
use ropeway_framework::data::{self, Tensors};
use ropeway_framework::stage::Seed;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Vars = BTreeMap<String, Var>;

/// The weights of a module, by name. Each begins from the seed and its own name.
#[derive(Clone)]
pub(super) struct Variables {
    seed: Seed,
    vars: Arc<Mutex<Vars>>,
}

impl Variables {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, vars: Arc::default() }
    }

    /// What a module is built from.
    pub(super) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    fn vars<R>(&self, look: impl FnOnce(&mut Vars) -> R) -> R {
        look(&mut self.vars.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The shapes by name.
    pub(super) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.vars(|vars| vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect())
    }

    /// All weights, in the order of their names.
    pub(super) fn flat(&self) -> Result<Vec<f32>> {
        self.vars(|vars| {
            let mut flat = Vec::new();
            for var in vars.values() {
                flat.extend(var.as_tensor().flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(flat)
        })
    }

    /// Sets all weights.
    pub(super) fn set(&self, mut flat: &[f32]) -> Result<()> {
        self.vars(|vars| {
            for var in vars.values() {
                let (own, rest) = flat.split_at(var.elem_count());
                var.inplace_op1(&Fill(own))?;
                flat = rest;
            }
            Ok(())
        })
    }

    /// Adds the gradients of all weights to `flat`, which may be taken and given back meanwhile.
    pub(super) fn backward(&self, loss: &Tensor, flat: &mut Vec<f32>) -> Result<()> {
        let gradients = collect(&self.places(), flat, || loss.backward())?;
        self.vars(|vars| {
            let mut flat = &mut flat[..];
            for var in vars.values() {
                let (own, rest) = flat.split_at_mut(var.elem_count());
                if let Some(gradient) = gradients.get(var.as_tensor()) {
                    look(gradient, |gradient| own.iter_mut().zip(gradient).for_each(|(own, more)| *own += more))?;
                }
                flat = rest;
            }
            Ok(())
        })
    }

    /// Where each weight lies in the flat slice.
    fn places(&self) -> Arc<Places> {
        self.vars(|vars| {
            let mut start = 0;
            let places = vars.values().map(|var| {
                let place = start..start + var.elem_count();
                start = place.end;
                (var.as_tensor().id(), place)
            });
            Arc::new(places.collect())
        })
    }

    /// Flat weights as named tensors.
    pub(super) fn tensors(&self, mut flat: &[f32]) -> Result<Tensors> {
        let shapes = self.shapes();
        let tensors = shapes.into_iter().map(|(name, shape)| {
            let (own, rest) = flat.split_at(shape.iter().product());
            flat = rest;
            Ok((name, data::Tensor::from_vec(shape, own.to_vec())?))
        });
        tensors.collect()
    }

    fn start(&self, shape: Shape, name: &str, init: Init) -> candle_core::Result<Var> {
        let mut rng = self.seed.rng(&format!("init/{name}"));
        let count = shape.elem_count();
        let mut unit = || rng.random::<f64>();
        let mut uniform = |low: f64, high: f64| (0..count).map(|_| (low + (high - low) * unit()) as f32).collect();
        let values: Vec<f32> = match init {
            Init::Const(value) => vec![value as f32; count],
            Init::Uniform { lo, up } => uniform(lo, up),
            Init::Randn { mean, stdev } => (0..count).map(|_| normal(&mut unit, mean, stdev)).collect(),
            Init::Kaiming { dist, fan, non_linearity } => {
                let spread = non_linearity.gain() / (fan.for_shape(&shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Uniform => uniform(-(3f64.sqrt()) * spread, 3f64.sqrt() * spread),
                    NormalOrUniform::Normal => (0..count).map(|_| normal(&mut unit, 0.0, spread)).collect(),
                }
            }
        };
        Var::from_vec(values, shape, &Device::Cpu)
    }
}

/// Writes a weight's values where they are.
struct Fill<'a>(&'a [f32]);

impl InplaceOp1 for Fill<'_> {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            return Err(candle_core::Error::Msg("weights are contiguous and f32".to_owned()));
        };
        values[start..end].copy_from_slice(self.0);
        Ok(())
    }
}

/// A normal number from two even ones (Box and Muller, 1958).
fn normal(unit: &mut impl FnMut() -> f64, mean: f64, spread: f64) -> f32 {
    let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
    (mean + spread * radius * (std::f64::consts::TAU * unit()).cos()) as f32
}

impl SimpleBackend for Variables {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        if dtype != DType::F32 {
            return Err(candle_core::Error::Msg(format!("{name}: weights are trained as f32, not {dtype:?}")));
        }
        self.vars(|vars| {
            if let Some(var) = vars.get(name) {
                if var.shape() != &shape {
                    let found = var.shape();
                    return Err(candle_core::Error::Msg(format!("{name} is asked for as {shape:?} and {found:?}")));
                }
                return Ok(var.as_tensor().clone());
            }
            let var = self.start(shape, name, init)?;
            let tensor = var.as_tensor().clone();
            vars.insert(name.to_owned(), var);
            Ok(tensor)
        })
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.vars(|vars| vars.get(name).map(|var| var.as_tensor().clone())) {
            Some(tensor) => Ok(tensor),
            None => Err(candle_core::Error::Msg(format!("{name} must be asked for with its shape"))),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.vars(|vars| vars.contains_key(name))
    }
}

/// A tensor as candle's.
pub(super) fn tensor(tensor: &data::Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(tensor.values::<f32>()?, tensor.shape(), &Device::Cpu)?)
}
