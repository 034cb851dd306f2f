//! The way of weights' gradients around candle's store, straight to their place in a trainer's flat gradient.
//!
//! Candle begins every gradient as zeros and adds to it in a new tensor; for weights that takes longer than their
//! product.

use candle_core::{Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where the gradients of weights lie in the flat one.
pub(in crate::train) type Places = HashMap<TensorId, Range<usize>>;

struct Sink {
    places: Arc<Places>,
    gradient: Vec<f32>,
}

thread_local! {
    /// That of the backward pass that runs on this thread: candle calls operations on the thread that asked for it.
    static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
}

/// Runs a backward pass, during which fused layers add the gradients of weights that have a place to `gradient`.
pub(in crate::train) fn collect<R>(places: &Arc<Places>, gradient: &mut Vec<f32>, backward: impl FnOnce() -> R) -> R {
    let sink = Sink { places: places.clone(), gradient: std::mem::take(gradient) };
    let outer = SINK.replace(Some(sink));
    let result = backward();
    if let Some(sink) = SINK.replace(outer) {
        *gradient = sink.gradient;
    }
    result
}

/// The gradient of a weight, which `add` adds to what it is given: to its place if it has one, else as a tensor.
pub(super) fn deliver(weight: &Tensor, add: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Option<Tensor>> {
    // Out of its cell while threads work on it: one that waits may begin another backward pass.
    let mut sink = SINK.take();
    let place = sink.as_mut().and_then(|sink| {
        let place = sink.places.get(&weight.id())?;
        sink.gradient.get_mut(place.clone())
    });
    let delivered = match place {
        Some(place) => add(place).map(|()| None),
        None => {
            let mut gradient = vec![0.0; weight.elem_count()];
            add(&mut gradient).and_then(|()| Tensor::from_vec(gradient, weight.shape(), weight.device()).map(Some))
        }
    };
    SINK.set(sink);
    delivered
}

/// Adds one slice to another.
pub(super) fn add(sum: &mut [f32], more: &[f32]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}
