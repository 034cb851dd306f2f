//! Numbers of one datatype as another, where no value changes.

use crate::Datatype;
use crate::tensor::place;
use arrow::array::{ArrayRef, AsArray};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Float32Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ropeway_framework::{Error, Result};

/// The values of a tensor of datatype `from` as those of `to`.
///
/// # Errors
/// Other types than numbers, or a value that `to` can't represent exactly.
pub(crate) fn convert(values: &ArrayRef, from: Datatype, to: Datatype, shape: &[usize]) -> Result<ArrayRef> {
    if from == to {
        return Ok(values.clone());
    }
    if !from.is_number() || !to.is_number() {
        return Err(Error::usage(format!("expected {to}, found {from}")));
    }
    // What does not fit becomes null, and what was rounded comes back as something else.
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let there = cast_with_options(values, &to.arrow(), &options)?;
    let back = cast_with_options(&there, &from.arrow(), &options)?;
    let same = not_distinct(values, &back)?;
    let mut changed = same.values().iter().position(|same| !same);
    if to == Datatype::Bf16 && changed.is_none() {
        let values = there.as_primitive::<Float32Type>().values();
        changed = values.iter().position(|value| value.to_bits() & 0xffff != 0);
    }
    let Some(index) = changed else { return Ok(there) };
    let value = ArrayFormatter::try_new(values, &FormatOptions::new())?.value(index).to_string();
    let message = format!("at {}: expected {to}, found {from}, and {value} is not exactly {to}", place(index, shape));
    Err(Error::usage(message).help(format!("send the tensor as {to}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, Float32Array, Float64Array, Int64Array, UInt8Array};
    use std::sync::Arc;

    const NUMBERS: [Datatype; 12] = [
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Bf16,
    ];

    #[test]
    fn small_numbers_go_everywhere() {
        let small: ArrayRef = Arc::new(UInt8Array::from(vec![0, 1, 100]));
        for from in NUMBERS {
            let values = convert(&small, Datatype::Uint8, from, &[3]).unwrap();
            for to in NUMBERS {
                let values = convert(&values, from, to, &[3]).unwrap();
                assert_eq!(values.data_type(), &to.arrow());
                assert_eq!(&convert(&values, to, Datatype::Uint8, &[3]).unwrap(), &small, "{from} to {to}");
            }
        }
    }

    #[test]
    fn what_changes_is_refused() {
        let refused = |values: ArrayRef, to| {
            let from = Datatype::of(values.data_type()).unwrap();
            convert(&values, from, to, &[values.len()]).unwrap_err().to_string()
        };
        let message = refused(Arc::new(Float64Array::from(vec![0.5, 0.1])), Datatype::Fp32);
        assert_eq!(message, "at [1]: expected FP32, found FP64, and 0.1 is not exactly FP32");
        refused(Arc::new(Int64Array::from(vec![(1 << 53) + 1])), Datatype::Fp64);
        refused(Arc::new(Int64Array::from(vec![i64::MAX])), Datatype::Fp64);
        refused(Arc::new(Int64Array::from(vec![300])), Datatype::Uint8);
        refused(Arc::new(Int64Array::from(vec![-1])), Datatype::Uint64);
        refused(Arc::new(Float64Array::from(vec![f64::NAN])), Datatype::Int32);
        refused(Arc::new(Float64Array::from(vec![1.5])), Datatype::Int32);
        refused(Arc::new(Float32Array::from(vec![1.001])), Datatype::Bf16);
        refused(Arc::new(Int64Array::from(vec![100_000])), Datatype::Fp16);
        assert_eq!(refused(Arc::new(Int64Array::from(vec![1])), Datatype::Bool), "expected BOOL, found INT64");
    }

    #[test]
    fn what_is_not_finite_survives_between_floats() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, -0.0]));
        let narrow = convert(&values, Datatype::Fp64, Datatype::Fp32, &[3]).unwrap();
        let narrow = narrow.as_primitive::<Float32Type>();
        assert!(narrow.value(0).is_nan() && narrow.value(1) == f32::INFINITY && narrow.value(2).is_sign_negative());
    }
}
