//! Where a training computes.

use crate::train::models::ModelSpec;
use crate::train::spec::{Precision, TrainSpec};
use candle_core::{DType, Device};
use ropeway_framework::stage::{DeviceShare, Devices, Progress};
use ropeway_framework::{Error, Result};

/// A device that a training computes on instead of the processor.
#[derive(Clone, Debug)]
pub(in crate::train) struct Place {
    pub(in crate::train) device: Device,
    /// What passes compute in; weights and sums are f32.
    pub(in crate::train) dtype: DType,
    /// Bytes of its memory that the training may take; `None` if nobody counts them.
    pub(in crate::train) memory: Option<u64>,
}

/// The devices for a training, or none for the processor; why a device that is there is not used goes to the log.
///
/// # Errors
/// A device was demanded that the training can't use, or it can't be opened.
pub(in crate::train) fn places(spec: &TrainSpec, devices: &Devices, progress: &Progress) -> Result<Vec<Place>> {
    let reason = match (devices.shares(), &spec.model) {
        ([], _) => {
            if spec.precision != Precision::F32 {
                progress.log("`precision` is for CUDA devices: the processor computes in f32");
            }
            return Ok(Vec::new());
        }
        (_, ModelSpec::Trees(_)) => "`model.trees` is computed on the processor only",
        (shares, _) => {
            let places = shares.iter().map(|share| open(share, spec.precision)).collect::<Result<_>>()?;
            devices.mark_used();
            return Ok(places);
        }
    };
    match devices.is_demanded() {
        true => Err(Error::usage(format!("{reason}, but its `needs` demand CUDA"))
            .help("say device = \"cpu\" or \"auto\" under `needs`, and no `gpus`")),
        false => {
            progress.log(format!("{reason}: no CUDA device is used"));
            Ok(Vec::new())
        }
    }
}

fn open(share: &DeviceShare, precision: Precision) -> Result<Place> {
    let device = Device::new_cuda(share.ordinal as usize).map_err(|error| {
        Error::unavailable(format!("the CUDA device {} can't be opened: {error}", share.ordinal))
            .help("see what `nvidia-smi` says; say device = \"cpu\" under `needs` to do without")
    })?;
    Ok(Place { device, dtype: precision.dtype(), memory: Some(share.memory) })
}

impl Precision {
    pub(in crate::train) fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }
}
