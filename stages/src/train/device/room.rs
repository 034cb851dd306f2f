//! The memory of a device: what a training may take of it, and what it does when that is not enough.

use super::layer::Takes;
use super::place::Place;
use candle_core::{DType, DeviceLocation, Error, Result};
use ropeway_framework::{Error as Failure, Fault};
use std::cell::Cell;

/// What a pass asks before it begins: whether so many rows fit.
type Gate = Box<dyn Fn(usize) -> Result<()> + Send>;

/// How many rows a pass takes at once.
pub(in crate::train) struct Room {
    /// At most.
    rows: Cell<usize>,
    gate: Gate,
}

/// Bytes that a pass does not see, such as those of the libraries' own buffers: a part of what there is.
const MARGIN: u64 = 16;

impl Room {
    /// Room without end.
    pub(in crate::train) fn endless() -> Self {
        Self::with(|_| Ok(()))
    }

    /// Room that is asked for.
    pub(in crate::train) fn with(gate: impl Fn(usize) -> Result<()> + Send + 'static) -> Self {
        Self { rows: Cell::new(usize::MAX), gate: Box::new(gate) }
    }

    /// The room that is left of `share` bytes beside `fixed`, for rows that take `row` bytes each.
    pub(in crate::train) fn of(share: u64, fixed: u64, row: u64) -> Self {
        let left = (share - share / MARGIN).saturating_sub(fixed);
        Self::with(move |rows| match (rows as u64).saturating_mul(row) <= left {
            true => Ok(()),
            false => {
                Err(Error::Msg(format!("out of memory: {rows} rows take {row} bytes each beside {fixed}, of {share}")))
            }
        })
    }

    /// How many rows a pass takes at most.
    pub(super) fn rows(&self) -> usize {
        self.rows.get()
    }

    /// From now on a pass takes no more than so many.
    pub(super) fn shrink(&self, rows: usize) {
        self.rows.set(rows);
    }

    /// Whether so many rows fit.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn ask(&self, rows: usize) -> Result<()> {
        (self.gate)(rows)
    }
}

/// Bytes that a row takes in a pass.
pub(super) fn row_bytes(width: usize, takes: Takes, dtype: DType) -> u64 {
    // What is kept, what the largest layer needs meanwhile, and the losses in f32.
    ((width + takes.kept + takes.scratch) * dtype.size_in_bytes() + 8 * takes.output * 4) as u64
}

/// Bytes that a training takes beside its rows: weights, moments, and the gradients that a tree of shards holds at once.
pub(super) fn fixed_bytes(weights: usize, moments: usize, shards: usize, dtype: DType) -> u64 {
    // A step makes new weights and moments before the old ones go.
    let copies = 2 * (1 + moments) + 3 + shards.ilog2() as usize;
    (weights * (copies * 4 + dtype.size_in_bytes())) as u64
}

/// Whether a device said that its memory is at an end.
pub(in crate::train) fn is_out_of_memory(error: &impl std::fmt::Display) -> bool {
    let text = error.to_string().to_lowercase();
    ["out of memory", "out_of_memory", "alloc_failed"].iter().any(|sign| text.contains(sign))
}

/// What an error means to whoever trains on devices.
pub(super) fn explained<'a>(error: Failure, places: impl Iterator<Item = &'a Place>) -> Failure {
    if error.advice().is_some() {
        return error;
    }
    if is_out_of_memory(&error) {
        return error
            .context("the device's memory does not hold this training")
            .help("give it more with `gpu_memory` under `needs`, or make the model or the batch smaller");
    }
    let text = error.to_string();
    if !["CUDA_ERROR", "DriverError", "CublasError", "CUBLAS_STATUS"].iter().any(|sign| text.contains(sign)) {
        return error;
    }
    let name = |place: &Place| match place.device.location() {
        DeviceLocation::Cuda { gpu_id } => format!("CUDA device {gpu_id}"),
        _ => "a device".to_owned(),
    };
    let names: Vec<String> = places.map(name).collect();
    let failure = Failure::new(format!("{} failed: {text}", names.join(" or "))).fault(Fault::Device);
    failure.help(
        "see what `nvidia-smi` and the system's log say of it; run again to go on from the last checkpoint, there or, \
         with device = \"cpu\" under `needs`, on the processor",
    )
}
