//! Self-attention.

use super::activation::Activation;
use super::layer::{Kept, Layer, Parameter, Pass, Start};
use super::matrix::{Matrix, multiply};
use crate::train::device;
use crate::train::loss::softmax;
use candle_core::Device;
use rand::Rng;

/// Multi-head self-attention (Vaswani et al., "Attention Is All You Need", 2017): every token of a sequence takes from
/// all of them, each by its share. What is beyond a sequence's end takes nothing and gives nothing.
///
/// Its weights: `qkv.weight` of shape `[width, 3 width]` (queries, keys and values side by side, each of them head by
/// head), `output.weight` of shape `[width, width]`, and their biases.
pub(super) struct Attention {
    pub(super) name: String,
    pub(super) length: usize,
    pub(super) width: usize,
    /// They divide the width.
    pub(super) heads: usize,
    pub(super) start: Start,
}

/// Which of the three parts of `qkv`.
const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;

/// The matrices of one head over one sequence: dense copies, so that the products are plain ones.
struct Head<'a> {
    query: &'a mut [f32],
    key: &'a mut [f32],
    value: &'a mut [f32],
}

impl Attention {
    /// The width of a head.
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    /// What multiplies the queries.
    fn scale(&self) -> f32 {
        1.0 / (self.depth() as f32).sqrt()
    }

    /// Values of `qkv` (or its gradient), of the shares, and of the heads' results, for so many tokens.
    fn sizes(&self, tokens: usize) -> [usize; 3] {
        [tokens * 3 * self.width, tokens * self.heads * self.length, tokens * self.width]
    }

    /// The places of a head's rows: calls `visit` with each token's place in a matrix of `stride` values a token.
    fn rows(
        &self,
        (row, head, part): (usize, usize, usize),
        length: usize,
        stride: usize,
    ) -> impl Iterator<Item = usize> {
        let (first, offset) = (row * self.length, part * self.width + head * self.depth());
        (first..first + length).map(move |token| token * stride + offset)
    }

    /// Copies a head's rows out of a matrix of all tokens.
    fn take(&self, from: &[f32], place: (usize, usize, usize), stride: usize, to: &mut [f32]) {
        let depth = self.depth();
        let rows = self.rows(place, to.len() / depth, stride);
        for (to, start) in to.chunks_exact_mut(depth).zip(rows) {
            to.copy_from_slice(&from[start..start + depth]);
        }
    }

    /// Copies a head's rows into a matrix of all tokens.
    fn put(&self, from: &[f32], place: (usize, usize, usize), stride: usize, to: &mut [f32]) {
        let depth = self.depth();
        let rows = self.rows(place, from.len() / depth, stride);
        for (from, start) in from.chunks_exact(depth).zip(rows) {
            to[start..start + depth].copy_from_slice(from);
        }
    }

    /// Takes a head's queries (scaled), keys and values.
    fn take_head<'a>(&self, qkv: &[f32], (row, head): (usize, usize), length: usize, to: &'a mut [f32]) -> Head<'a> {
        let count = length * self.depth();
        let (query, rest) = to.split_at_mut(count);
        let (key, rest) = rest.split_at_mut(count);
        let value = &mut rest[..count];
        for (part, to) in [(QUERY, &mut *query), (KEY, &mut *key), (VALUE, &mut *value)] {
            self.take(qkv, (row, head, part), 3 * self.width, to);
        }
        let scale = self.scale();
        query.iter_mut().for_each(|value| *value *= scale);
        Head { query, key, value }
    }

    /// Calls `visit` with every sequence and head: `(row, head)`, the length, and where its shares begin.
    fn heads(&self, lengths: &[u32], mut visit: impl FnMut((usize, usize), usize, usize)) {
        for (row, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            for head in 0..self.heads {
                visit((row, head), *length as usize, (row * self.heads + head) * self.length * self.length);
            }
        }
    }
}

impl Layer for Attention {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.length * self.width
    }

    fn outputs(&self) -> usize {
        self.length * self.width
    }

    fn parameters(&self) -> Vec<Parameter> {
        let (width, start) = (self.width, self.start);
        vec![
            Parameter { name: "qkv.weight".into(), shape: vec![width, 3 * width], start },
            Parameter { name: "qkv.bias".into(), shape: vec![3 * width], start: Start::Zero },
            Parameter { name: "output.weight".into(), shape: vec![width, width], start },
            Parameter { name: "output.bias".into(), shape: vec![width], start: Start::Zero },
        ]
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::Attention { length: self.length, width: self.width, heads: self.heads }))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, _: Option<&mut dyn Rng>) {
        let (width, depth, tokens) = (self.width, self.depth(), input.len() / self.width);
        let [qkv_size, shares_size, mixed_size] = self.sizes(tokens);
        kept.columns.resize(qkv_size + shares_size + mixed_size, 0.0);
        let (qkv, rest) = kept.columns.split_at_mut(qkv_size);
        let (shares, mixed) = rest.split_at_mut(shares_size);
        let (qkv_weights, output_weights) = weights.split_at(3 * width * (width + 1));

        let (weight, bias) = qkv_weights.split_at(3 * width * width);
        multiply(Matrix::new(input, tokens, width), Matrix::new(weight, width, 3 * width), false, qkv);
        Activation::Identity.forward(bias, qkv);

        kept.column_gradients.resize(4 * self.length * depth, 0.0);
        let (copies, result) = kept.column_gradients.split_at_mut(3 * self.length * depth);
        mixed.fill(0.0);
        self.heads(&kept.lengths, |(row, index), length, start| {
            let head = self.take_head(qkv, (row, index), length, copies);
            let shares = &mut shares[start..start + length * length];
            let key = Matrix::new(head.key, length, depth);
            multiply(Matrix::new(head.query, length, depth), key.transposed(), false, shares);
            shares.chunks_exact_mut(length).for_each(softmax);
            let result = &mut result[..length * depth];
            let value = Matrix::new(head.value, length, depth);
            multiply(Matrix::new(shares, length, length), value, false, result);
            self.put(result, (row, index, 0), width, mixed);
        });

        let (weight, bias) = output_weights.split_at(width * width);
        multiply(Matrix::new(mixed, tokens, width), Matrix::new(weight, width, width), false, output);
        Activation::Identity.forward(bias, output);
    }

    fn backward(&self, weights: &[f32], pass: Pass<'_>, gradient: &mut [f32], kept: &mut Kept) {
        let (width, depth, tokens) = (self.width, self.depth(), pass.input.len() / self.width);
        let [qkv_size, shares_size, mixed_size] = self.sizes(tokens);
        let (qkv, rest) = kept.columns.split_at(qkv_size);
        let (shares, mixed) = rest.split_at(shares_size);
        let (qkv_weights, output_weights) = weights.split_at(3 * width * (width + 1));
        let (qkv_gradients, output_gradients) = gradient.split_at_mut(3 * width * (width + 1));

        let (part, square) = (self.length * depth, self.length * self.length);
        kept.column_gradients.resize(qkv_size + mixed_size + 7 * part + square, 0.0);
        let (qkv_gradient, rest) = kept.column_gradients.split_at_mut(qkv_size);
        let (mixed_gradient, rest) = rest.split_at_mut(mixed_size);
        let (copies, rest) = rest.split_at_mut(3 * part);
        let (results, rest) = rest.split_at_mut(3 * part);
        let (outer, share_gradients) = rest.split_at_mut(part);

        let (weight_gradient, bias_gradient) = output_gradients.split_at_mut(width * width);
        Activation::Identity.backward(pass.output, pass.output_gradient, bias_gradient);
        let sums = Matrix::new(pass.output_gradient, tokens, width);
        multiply(Matrix::new(mixed, tokens, width).transposed(), sums, false, weight_gradient);
        let weight = Matrix::new(&output_weights[..width * width], width, width);
        multiply(sums, weight.transposed(), false, mixed_gradient);

        qkv_gradient.fill(0.0);
        let scale = self.scale();
        self.heads(&kept.lengths, |(row, index), length, start| {
            let head = self.take_head(qkv, (row, index), length, copies);
            let (count, square) = (length * depth, length * length);
            let outer = &mut outer[..count];
            self.take(mixed_gradient, (row, index, 0), width, outer);
            let shares = &shares[start..start + square];
            let inner = &mut share_gradients[..square];
            let (query, rest) = results.split_at_mut(count);
            let (key, rest) = rest.split_at_mut(count);
            let value = &mut rest[..count];
            let matrix = |values| Matrix::new(values, length, depth);
            multiply(Matrix::new(shares, length, length).transposed(), matrix(outer), false, value);
            multiply(matrix(outer), matrix(head.value).transposed(), false, inner);
            // Through the softmax.
            for (inner, shares) in inner.chunks_exact_mut(length).zip(shares.chunks_exact(length)) {
                let mean: f32 = inner.iter().zip(shares).map(|(inner, share)| inner * share).sum();
                inner.iter_mut().zip(shares).for_each(|(inner, share)| *inner = share * (*inner - mean));
            }
            multiply(Matrix::new(inner, length, length), matrix(head.key), false, query);
            query.iter_mut().for_each(|value| *value *= scale);
            multiply(Matrix::new(inner, length, length).transposed(), matrix(head.query), false, key);
            for (part, from) in [(QUERY, &*query), (KEY, &*key), (VALUE, &*value)] {
                self.put(from, (row, index, part), 3 * width, qkv_gradient);
            }
        });

        let (weight_gradient, bias_gradient) = qkv_gradients.split_at_mut(3 * width * width);
        Activation::Identity.backward(qkv, qkv_gradient, bias_gradient);
        let sums = Matrix::new(qkv_gradient, tokens, 3 * width);
        multiply(Matrix::new(pass.input, tokens, width).transposed(), sums, false, weight_gradient);
        if let Some(input_gradient) = pass.input_gradient {
            let weight = Matrix::new(&qkv_weights[..3 * width * width], width, 3 * width);
            multiply(sums, weight.transposed(), false, input_gradient);
        }
    }
}
