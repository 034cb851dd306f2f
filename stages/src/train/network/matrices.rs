//! Gradients of weight matrices, computed piece by piece after the backward pass.

use super::matrix::{Matrix, adds_whole, multiply};
use super::{Network, Workspace};
use std::ops::Range;

/// Products take so many rows together: a piece has a multiple of it, if it has more.
const TOGETHER: usize = 12;

/// Rows of the shortest piece. A single row would have other bits, and one that is begun in the middle needs another.
const LEAST: usize = 3;

/// A matrix of a network's weights whose gradient is the transposed input of its layer times the gradient of its sums.
pub(in crate::train) struct WeightMatrix {
    layer: usize,
    /// Where it lies in the flat slice, row by row.
    pub(in crate::train) place: Range<usize>,
    inputs: usize,
    outputs: usize,
}

impl Network {
    /// The matrices whose gradients can be computed in pieces of up to `room` values, in the order of the flat slice.
    pub(in crate::train) fn matrices(&self, room: usize) -> Vec<WeightMatrix> {
        let mut matrices = Vec::new();
        for (index, (layer, place)) in self.layers.iter().enumerate() {
            let (inputs, outputs) = (layer.inputs(), layer.outputs());
            if layer.is_product() && LEAST * outputs <= room {
                let place = place.start..place.start + inputs * outputs;
                matrices.push(WeightMatrix { layer: index, place, inputs, outputs });
            }
        }
        matrices
    }
}

impl WeightMatrix {
    /// How far the piece goes that begins at `start`, `end` at most: as many rows as there is `room` for.
    pub(in crate::train) fn piece(&self, start: usize, end: usize, room: usize) -> usize {
        let fit = room / self.outputs;
        let rows = if fit > TOGETHER { fit - fit % TOGETHER } else { fit };
        let first = (start - self.place.start) / self.outputs;
        end.min(self.place.end).min(self.place.start + (first + rows) * self.outputs)
    }

    /// The rows that hold a piece, two at least, and the piece's place among their values.
    pub(in crate::train) fn rows(&self, piece: &Range<usize>) -> (Range<usize>, Range<usize>) {
        let (start, end) = (piece.start - self.place.start, piece.end - self.place.start);
        let (mut first, mut last) = (start / self.outputs, end.div_ceil(self.outputs));
        if last - first < 2 {
            (first, last) = if last < self.inputs { (first, last + 1) } else { (last - 2, last) };
        }
        (first..last, start - first * self.outputs..end - first * self.outputs)
    }

    /// How many values some rows have.
    pub(in crate::train) fn values(&self, rows: &Range<usize>) -> usize {
        rows.len() * self.outputs
    }

    /// The gradient of some rows, two at least, from what a pass has left in the workspace; or adds it to what is there.
    pub(in crate::train) fn gradient(&self, workspace: &Workspace, rows: &Range<usize>, adding: bool, out: &mut [f32]) {
        let (input, sums) = (&workspace.values[self.layer], &workspace.kept[self.layer].sums);
        let depth = self.depth(workspace);
        let input = Matrix::new(input, depth, self.inputs).transposed();
        multiply(input.part(rows.start, rows.len()), Matrix::new(sums, depth, self.outputs), adding, out);
    }

    /// Whether [`WeightMatrix::gradient`] has the same bits when it adds as when it is added later.
    pub(in crate::train) fn adds_whole(&self, workspace: &Workspace, rows: &Range<usize>) -> bool {
        adds_whole((rows.len(), self.depth(workspace), self.outputs))
    }

    fn depth(&self, workspace: &Workspace) -> usize {
        workspace.kept[self.layer].sums.len() / self.outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_their_room_and_hold_everything_once() {
        for (inputs, outputs, start, part) in [(784, 256, 0, 16384), (7, 10, 3, 16), (2, 5, 1, 64), (300, 37, 11, 1000)]
        {
            let place = start..start + inputs * outputs;
            let matrix = WeightMatrix { layer: 0, place: place.clone(), inputs, outputs };
            for room in [LEAST * outputs, 6144.max(LEAST * outputs)] {
                let mut at = place.start;
                while at < place.end {
                    let end = matrix.piece(at, (at / part + 1) * part, room);
                    let (rows, within) = matrix.rows(&(at..end));
                    assert!(at < end && rows.len() >= 2 && rows.end <= inputs && rows.len() * outputs <= room);
                    assert_eq!(place.start + rows.start * outputs + within.start, at);
                    assert_eq!(within.len(), end - at);
                    assert!(within.end <= rows.len() * outputs);
                    at = end;
                }
                assert_eq!(at, place.end);
            }
        }
    }
}
