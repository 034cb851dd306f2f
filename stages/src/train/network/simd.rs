//! The widest registers that the machine has, for plain loops.

/// Runs a loop compiled for the widest vector instructions of this machine.
///
/// Only the width differs: no operation is fused or reordered, so the bits are those of the plain loop. What it
/// calls must be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
