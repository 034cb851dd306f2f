//! Matrix products with fixed bits.

use super::simd::vectorized;
#[cfg(target_arch = "x86_64")]
use super::wide::{self, Place};
use gemm::{Parallelism, gemm};

/// How far one product sums at once. Within it the sum of an element is one chain of fused multiply-adds, whatever
/// the sizes of the machine's caches; longer sums are cut here, not where the library would.
const DEPTH: usize = 512;

/// Sums of fewer products are no chains in the library.
const LEAST: usize = 3;

/// Lanes of a dot product: fixed, so that wider registers do not change the order of the sum.
const LANES: usize = 16;

/// A matrix of `f32`, row-major or the transpose of a row-major one.
#[derive(Clone, Copy)]
pub(in crate::train) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub(in crate::train) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        debug_assert_eq!(values.len(), rows * columns);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Its transpose, without moving a value.
    pub(in crate::train) fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    pub(in crate::train) fn columns(self) -> usize {
        self.columns
    }

    /// Some of its rows, without moving a value.
    pub(in crate::train) fn part(self, start: usize, rows: usize) -> Self {
        debug_assert!(start + rows <= self.rows);
        Self { values: &self.values[start * self.row_stride..], rows, ..self }
    }

    /// Whether all its elements lie in its values.
    fn holds(self) -> bool {
        let last = self.rows.saturating_sub(1) * self.row_stride + self.columns.saturating_sub(1) * self.column_stride;
        self.rows == 0 || self.columns == 0 || last < self.values.len()
    }
}

/// Whether a product of these sides, rows by depth by columns, has the same bits when [`multiply`] adds it to what is
/// there and when that is done later: each of its sums is one chain, which begins with nothing.
pub(in crate::train) fn adds_whole((rows, depth, columns): (usize, usize, usize)) -> bool {
    rows > 1 && columns > 1 && (LEAST..=DEPTH).contains(&depth)
}

/// `out = a · b`, or `out += a · b`; `out` is row-major.
///
/// An element's bits depend on its row of `a`, its column of `b` and nothing else once `a` has two rows or more:
/// not on the number of rows, the position in the batch, threads, or caches.
pub(in crate::train) fn multiply(a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, out: &mut [f32]) {
    assert!(a.columns == b.rows && out.len() == a.rows * b.columns, "matrices that do not fit");
    assert!(a.holds() && b.holds(), "a matrix of another size");
    if a.columns == 0 && !accumulate {
        out.fill(0.0);
    }
    // A vector, unless it is a column of something wider.
    if b.columns == 1 && b.row_stride == 1 {
        return vectorized(
            #[inline(always)]
            || multiply_vector(a, b.values, accumulate, out),
        );
    }
    let blocks = a.columns.div_ceil(DEPTH).max(1);
    let depth = a.columns.div_ceil(blocks).max(1);
    for start in (0..a.columns).step_by(depth) {
        let count = depth.min(a.columns - start);
        let a = Matrix { values: &a.values[start * a.column_stride..], columns: count, ..a };
        product(a, b.part(start, count), accumulate || start > 0, out);
    }
}

/// One product that is summed at once, the fastest way that there is; all of them have the same bits.
fn product(a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, out: &mut [f32]) {
    // A single row, and shorter sums, go another way in the library, with other bits.
    #[cfg(target_arch = "x86_64")]
    if a.rows > 1 && a.columns >= LEAST && b.column_stride == 1 && wide::available() {
        let (from, with) = (Place::of(a), Place::of(b));
        let to = Place { start: out.as_mut_ptr(), down: b.columns, right: 1 };
        // SAFETY: the machine has what it needs; for the rest see `library`.
        return unsafe { wide::multiply((a.rows, a.columns, b.columns), from, with, accumulate, to) };
    }
    library(a, b, accumulate, out);
}

fn library(a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, out: &mut [f32]) {
    // SAFETY: `multiply` has asserted that the last elements of `a` and `b` lie in their values, and that `out` has one
    // for each element of the product, so all are in bounds; `out` is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(target_arch = "x86_64")]
impl Place<*const f32> {
    fn of(matrix: Matrix<'_>) -> Self {
        Self { start: matrix.values.as_ptr(), down: matrix.row_stride, right: matrix.column_stride }
    }
}

#[inline(always)]
fn multiply_vector(a: Matrix<'_>, vector: &[f32], accumulate: bool, out: &mut [f32]) {
    if !accumulate {
        out.fill(0.0);
    }
    if a.column_stride == 1 {
        for (row, sum) in a.values.chunks_exact(a.columns.max(1)).zip(out) {
            *sum += dot(row, vector);
        }
    } else {
        // The last of a part's columns may end with the values.
        for (column, &factor) in a.values.chunks(a.column_stride.max(1)).zip(vector) {
            for (sum, value) in out.iter_mut().zip(column) {
                *sum += value * factor;
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    a_rest.iter().zip(b_rest).fold(lanes[0], |sum, (a, b)| sum + a * b)
}

#[cfg(test)]
pub(in crate::train) mod tests {
    use super::*;
    use rand::RngExt;
    use ropeway_framework::stage::Seed;

    fn random(count: usize, purpose: &str) -> Vec<f32> {
        let mut rng = Seed::new(1, "matrix").rng(purpose);
        (0..count).map(|_| rng.random::<f32>() - 0.5).collect()
    }

    /// What the machine gives for the largest product of a step of the MLP that is measured: the figure to hold its
    /// samples a second against.
    pub(in crate::train) fn gigaflops() -> f64 {
        let (m, k, n, times) = (32, 784, 256, 4000);
        let (a, b, mut out) = (random(m * k, "a"), random(k * n, "b"), vec![0.0; m * n]);
        let start = std::time::Instant::now();
        for _ in 0..times {
            multiply(Matrix::new(&a, m, k), Matrix::new(&b, k, n), false, std::hint::black_box(&mut out));
        }
        (2 * m * k * n * times) as f64 / start.elapsed().as_secs_f64() / 1e9
    }

    fn naive(a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f32> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                out[i * n + j] = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum::<f64>() as f32;
            }
        }
        out
    }

    fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
    }

    #[test]
    fn products_are_right_in_every_layout() {
        for (m, k, n) in [(1, 1, 1), (2, 3, 1), (5, 1, 7), (33, 784, 10), (64, 9, 16), (7, 1300, 5), (1, 20, 4)] {
            let (a, b) = (random(m * k, "a"), random(k * n, "b"));
            let expected = naive(&a, &b, (m, k, n));
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            let left = [Matrix::new(&a, m, k), Matrix::new(&at, k, m).transposed()];
            let right = [Matrix::new(&b, k, n), Matrix::new(&bt, n, k).transposed()];
            for a in left {
                for b in right {
                    let mut out = vec![1.0; m * n];
                    multiply(a, b, false, &mut out);
                    let close = |out: &[f32], add: f32| {
                        out.iter().zip(&expected).all(|(x, y)| (x - y - add).abs() < 1e-4 * (1.0 + y.abs()))
                    };
                    assert!(close(&out, 0.0), "{m} {k} {n}");
                    out.fill(2.0);
                    multiply(a, b, true, &mut out);
                    assert!(close(&out, 2.0), "{m} {k} {n}");
                }
            }
        }
    }

    /// Whatever registers the machine has: the bits are those of the library.
    #[test]
    fn every_way_has_the_same_bits() {
        let sides = [2, 3, 10, 11, 12, 13, 16, 17, 24, 31, 32, 33, 48, 100];
        for (m, n) in sides.iter().flat_map(|m| sides.map(|n| (*m, n))) {
            for k in [1, 2, 3, 4, 5, 7, 8, 16, 27, 32, 100, 392, 512] {
                let (a, b) = (random(m * k, "a"), random(k * n, "b"));
                let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
                let left = [Matrix::new(&a, m, k), Matrix::new(&at, k, m).transposed()];
                let right = [Matrix::new(&b, k, n), Matrix::new(&bt, n, k).transposed()];
                for (way, (a, b)) in left.iter().flat_map(|a| right.map(|b| (*a, b))).enumerate() {
                    for accumulate in [false, true] {
                        let (mut one, mut other) = (random(m * n, "out"), random(m * n, "out"));
                        product(a, b, accumulate, &mut one);
                        library(a, b, accumulate, &mut other);
                        let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&one), bits(&other), "{m} {k} {n} {accumulate}, layout {way}");
                        if accumulate && adds_whole((m, k, n)) {
                            library(a, b, false, &mut other);
                            other.iter_mut().zip(random(m * n, "out")).for_each(|(sum, before)| *sum += before);
                            assert_eq!(bits(&one), bits(&other), "{m} {k} {n} added later, layout {way}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_wherever_it_stands() {
        for (rows, k, n) in [(97, 784, 10), (64, 30, 2), (130, 3, 5), (70, 1030, 33), (65, 17, 1), (9, 2, 3)] {
            let (a, b) = (random(rows * k, "a"), random(k * n, "b"));
            let mut whole = vec![0.0; rows * n];
            multiply(Matrix::new(&a, rows, k), Matrix::new(&b, k, n), false, &mut whole);
            for (start, count) in [(0, 2), (1, 2), (3, 5), (rows - 7, 7)] {
                let mut part = vec![0.0; count * n];
                let a = Matrix::new(&a[start * k..(start + count) * k], count, k);
                multiply(a, Matrix::new(&b, k, n), false, &mut part);
                assert_eq!(part, whole[start * n..(start + count) * n], "{rows} {k} {n} {start} {count}");
            }
        }
    }

    #[test]
    fn a_part_has_the_bits_of_its_rows_in_the_whole() {
        for (m, k, n) in [(33, 7, 5), (33, 40, 1), (64, 600, 20)] {
            let (a, b) = (random(m * k, "a"), random(k * n, "b"));
            let at = transpose(&a, m, k);
            for a in [Matrix::new(&a, m, k), Matrix::new(&at, k, m).transposed()] {
                let mut whole = vec![0.0; m * n];
                multiply(a, Matrix::new(&b, k, n), false, &mut whole);
                for (start, count) in [(0, 2), (16, 16), (m - 5, 5)] {
                    let mut part = vec![0.0; count * n];
                    multiply(a.part(start, count), Matrix::new(&b, k, n), false, &mut part);
                    assert_eq!(part, whole[start * n..(start + count) * n], "{m} {k} {n} {start}");
                }
            }
        }
    }

    /// What candle's own products rely on: the library's bits do not depend on its threads.
    #[test]
    fn the_library_gives_the_same_bits_at_any_number_of_threads() {
        for (m, k, n) in [(200usize, 784usize, 256usize), (512, 1500, 130), (33, 70_000, 20)] {
            let (a, b) = (random(m * k, "a"), random(k * n, "b"));
            let run = |parallelism| {
                let mut out = vec![0.0f32; m * n];
                // SAFETY: all three are dense row-major matrices of the sides given.
                unsafe {
                    let (out, a, b) = (out.as_mut_ptr(), a.as_ptr(), b.as_ptr());
                    let (k_, n_) = (k as isize, n as isize);
                    gemm(
                        m,
                        n,
                        k,
                        out,
                        1,
                        n_,
                        false,
                        a,
                        1,
                        k_,
                        b,
                        1,
                        n_,
                        0.0f32,
                        1.0f32,
                        false,
                        false,
                        false,
                        parallelism,
                    );
                }
                out
            };
            let one = run(Parallelism::None);
            for threads in [2, 3, 8] {
                assert_eq!(run(Parallelism::Rayon(threads)), one, "{m} {k} {n} {threads}");
            }
        }
    }
}
