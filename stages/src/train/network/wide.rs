//! Matrix products on registers of sixteen numbers (AVX-512), with the bits of the library's.
//!
//! The library that [`matrix`](super::matrix) calls uses registers of eight; where the machine has wider ones, the
//! products that training spends its time in are computed here. An element is one chain of fused multiply-adds in the
//! order of the sum, as there, so that the width of the registers changes no bit.

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps,
    _mm512_setzero_ps,
};

/// Numbers of a register.
const LANES: usize = 16;
/// Columns of a tile: two registers.
const WIDTH: usize = 2 * LANES;
/// Rows of a tile. With its sums, two registers of `b` and one of `a` it takes 27 of the 32 registers.
const HEIGHT: usize = 12;

/// A factor or a product: where its first element is, and how far the next of a column and of a row are.
#[derive(Clone, Copy)]
pub(super) struct Place<P> {
    pub(super) start: P,
    pub(super) down: usize,
    pub(super) right: usize,
}

/// Whether this machine has the registers.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// `out = a · b`, or `out += a · b`, for an `a` of `rows` by `depth` and a `b` of `depth` by `columns`, both `b` and
/// `out` with rows whose elements are neighbours.
///
/// # Safety
/// The machine has AVX-512 ([`available`]); all elements of `a` and `b` may be read and those of `out` written (and
/// read, if `accumulate`), and `out` overlaps neither.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(
    (rows, depth, columns): (usize, usize, usize),
    a: Place<*const f32>,
    b: Place<*const f32>,
    accumulate: bool,
    out: Place<*mut f32>,
) {
    for row in (0..rows).step_by(HEIGHT) {
        for column in (0..columns).step_by(WIDTH) {
            let masks = [columns - column, (columns - column).saturating_sub(LANES)].map(mask);
            // SAFETY: row and column are within, so the tile's first elements are; the tile has at most the rows that
            // are left, and its masks leave out the columns that are not there.
            unsafe {
                let a = Place { start: a.start.add(row * a.down), ..a };
                let b = Place { start: b.start.add(column), ..b };
                let out = Place { start: out.start.add(row * out.down + column), ..out };
                tiles(rows - row, depth, a, b, masks, accumulate, out);
            }
        }
    }
}

/// A mask of so many lanes, at most all of them.
fn mask(lanes: usize) -> __mmask16 {
    if lanes >= LANES { __mmask16::MAX } else { (1 << lanes) - 1 }
}

/// The tile of as many rows as there are, at most [`HEIGHT`].
///
/// # Safety
/// As [`tile`], for `rows` rows or `HEIGHT`.
#[target_feature(enable = "avx512f")]
unsafe fn tiles(
    rows: usize,
    depth: usize,
    a: Place<*const f32>,
    b: Place<*const f32>,
    masks: [__mmask16; 2],
    accumulate: bool,
    out: Place<*mut f32>,
) {
    // SAFETY: the caller's promise; each tile has no more than `rows` rows.
    unsafe {
        match rows {
            0 => {}
            1 => tile::<1>(depth, a, b, masks, accumulate, out),
            2 => tile::<2>(depth, a, b, masks, accumulate, out),
            3 => tile::<3>(depth, a, b, masks, accumulate, out),
            4 => tile::<4>(depth, a, b, masks, accumulate, out),
            5 => tile::<5>(depth, a, b, masks, accumulate, out),
            6 => tile::<6>(depth, a, b, masks, accumulate, out),
            7 => tile::<7>(depth, a, b, masks, accumulate, out),
            8 => tile::<8>(depth, a, b, masks, accumulate, out),
            9 => tile::<9>(depth, a, b, masks, accumulate, out),
            10 => tile::<10>(depth, a, b, masks, accumulate, out),
            11 => tile::<11>(depth, a, b, masks, accumulate, out),
            _ => tile::<HEIGHT>(depth, a, b, masks, accumulate, out),
        }
    }
}

/// A tile of `ROWS` rows and up to [`WIDTH`] columns, its sums in registers from first to last.
///
/// # Safety
/// As [`multiply`], for these rows, and for the columns that the masks have.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const ROWS: usize>(
    depth: usize,
    a: Place<*const f32>,
    b: Place<*const f32>,
    masks: [__mmask16; 2],
    accumulate: bool,
    out: Place<*mut f32>,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for step in 0..depth {
        // SAFETY: `step` is a row of `b` and a column of `a`; a masked load touches nothing that its mask leaves out.
        unsafe {
            let row = b.start.add(step * b.down);
            let right: [__m512; 2] =
                [_mm512_maskz_loadu_ps(masks[0], row), _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(LANES))];
            let column = a.start.add(step * a.right);
            for (index, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_ps(*column.add(index * a.down));
                sums[0] = _mm512_fmadd_ps(left, right[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(left, right[1], sums[1]);
            }
        }
    }
    for (index, sums) in sums.into_iter().enumerate() {
        for (half, (sum, mask)) in sums.into_iter().zip(masks).enumerate() {
            // SAFETY: the row is one of `out`; masked as the loads are.
            unsafe {
                let place = out.start.add(index * out.down).wrapping_add(half * LANES);
                let sum = if accumulate { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), sum) } else { sum };
                _mm512_mask_storeu_ps(place, mask, sum);
            }
        }
    }
}
