//! Embeddings: vectors that are looked up, for categories and for tokens.

use super::layer::{Kept, Layer, Parameter, Pass, Start};
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// How a vector of an embedding begins.
const BOUND: f32 = 0.05;

/// A part of an input row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Values that it has in the row.
    pub(crate) width: usize,
    /// What its one value is looked up in, if it is a category.
    pub(crate) table: Option<Table>,
}

/// The vectors of a column's categories. Slot 0 is that of categories that were not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The column's name.
    pub(crate) name: String,
    /// How many vectors.
    pub(crate) slots: usize,
    /// Their length.
    pub(crate) width: usize,
}

impl Field {
    /// Plain numbers.
    pub(crate) fn numbers(width: usize) -> Self {
        Self { width, table: None }
    }

    /// Values that come of it.
    pub(in crate::train) fn outputs(&self) -> usize {
        self.table.as_ref().map_or(self.width, |table| table.width)
    }
}

/// Replaces every category of a row by its vector; numbers stay. It is always the first layer.
pub(super) struct Embedding {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
}

/// Where the next vector of a table is in a slice of weights; an index that is none is the unseen slot.
fn slot(table: &Table, value: f32) -> std::ops::Range<usize> {
    let slot = if value >= 0.0 && value < table.slots as f32 { value as usize } else { 0 };
    slot * table.width..(slot + 1) * table.width
}

impl Embedding {
    /// Calls `visit` with every field of a row: its place in the input and in the output, and its table with its place
    /// among the weights.
    fn fields(&self, mut visit: impl FnMut(usize, usize, &Field, usize)) {
        let (mut from, mut to, mut start) = (0, 0, 0);
        for field in &self.fields {
            visit(from, to, field, start);
            (from, to) = (from + field.width, to + field.outputs());
            start += field.table.as_ref().map_or(0, |table| table.slots * table.width);
        }
    }
}

impl Layer for Embedding {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.fields.iter().map(|field| field.width).sum()
    }

    fn outputs(&self) -> usize {
        self.fields.iter().map(Field::outputs).sum()
    }

    fn parameters(&self) -> Vec<Parameter> {
        let tables = self.fields.iter().filter_map(|field| field.table.as_ref());
        tables
            .map(|table| Parameter {
                name: table.name.clone().into(),
                shape: vec![table.slots, table.width],
                // What was never seen adds nothing.
                start: Start::UniformAfter { zeros: table.width, bound: BOUND },
            })
            .collect()
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::Embedding(self.fields.clone())))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], _: &mut Kept, _: Option<&mut dyn Rng>) {
        let rows = input.chunks_exact(self.inputs()).zip(output.chunks_exact_mut(self.outputs()));
        for (input, output) in rows {
            self.fields(|from, to, field, start| match &field.table {
                None => output[to..to + field.width].copy_from_slice(&input[from..from + field.width]),
                Some(table) => {
                    output[to..to + table.width].copy_from_slice(&weights[start..][slot(table, input[from])])
                }
            });
        }
    }

    fn backward(&self, _: &[f32], pass: Pass<'_>, gradient: &mut [f32], _: &mut Kept) {
        gradient.fill(0.0);
        let rows = pass.input.chunks_exact(self.inputs()).zip(pass.output_gradient.chunks_exact(self.outputs()));
        for (input, outer) in rows {
            self.fields(|from, to, field, start| {
                let Some(table) = &field.table else { return };
                let vector = &mut gradient[start..][slot(table, input[from])];
                vector.iter_mut().zip(&outer[to..]).for_each(|(sum, outer)| *sum += outer);
            });
        }
    }
}

/// The vectors of a sequence's tokens, each with that of its position added. A row is as many token numbers as a
/// sequence may be long; what is negative is no token, and only the end has such.
pub(super) struct Tokens {
    pub(super) name: String,
    pub(super) vocabulary: usize,
    pub(super) length: usize,
    pub(super) width: usize,
}

impl Tokens {
    /// Calls `visit` with every token: its place in the output, and the places of its vectors among the weights.
    fn tokens(&self, input: &[f32], mut visit: impl FnMut(usize, usize, usize)) {
        for (place, token) in input.iter().enumerate().filter(|(_, token)| **token >= 0.0) {
            let token = (*token as usize).min(self.vocabulary - 1);
            let position = self.vocabulary + place % self.length;
            visit(place * self.width, token * self.width, position * self.width);
        }
    }
}

impl Layer for Tokens {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.length
    }

    fn outputs(&self) -> usize {
        self.length * self.width
    }

    fn parameters(&self) -> Vec<Parameter> {
        let start = Start::Uniform(BOUND);
        vec![
            Parameter { name: "token".into(), shape: vec![self.vocabulary, self.width], start },
            Parameter { name: "position".into(), shape: vec![self.length, self.width], start },
        ]
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::Tokens { vocabulary: self.vocabulary, length: self.length, width: self.width }))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, _: Option<&mut dyn Rng>) {
        kept.lengths.clear();
        let lengths = input.chunks_exact(self.length).map(|row| row.iter().take_while(|token| **token >= 0.0).count());
        kept.lengths.extend(lengths.map(|length| length as u32));
        output.fill(0.0);
        self.tokens(input, |to, token, position| {
            let vectors = weights[token..].iter().zip(&weights[position..]);
            let output = output[to..to + self.width].iter_mut();
            output.zip(vectors).for_each(|(output, (token, position))| *output = token + position);
        });
    }

    fn backward(&self, _: &[f32], pass: Pass<'_>, gradient: &mut [f32], _: &mut Kept) {
        gradient.fill(0.0);
        self.tokens(pass.input, |from, token, position| {
            let outer = &pass.output_gradient[from..from + self.width];
            for start in [token, position] {
                gradient[start..].iter_mut().zip(outer).for_each(|(sum, outer)| *sum += outer);
            }
        });
    }
}

/// The mean of a sequence's vectors; zeros for an empty one.
pub(super) struct Mean {
    pub(super) name: String,
    pub(super) length: usize,
    pub(super) width: usize,
}

impl Layer for Mean {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.length * self.width
    }

    fn outputs(&self) -> usize {
        self.width
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::Mean { length: self.length, width: self.width }))
    }

    fn forward(&self, _: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, _: Option<&mut dyn Rng>) {
        output.fill(0.0);
        let rows = input.chunks_exact(self.inputs()).zip(output.chunks_exact_mut(self.width));
        for ((input, output), length) in rows.zip(&kept.lengths) {
            let share = 1.0 / *length as f32;
            for vector in input.chunks_exact(self.width).take(*length as usize) {
                output.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value * share);
            }
        }
    }

    fn backward(&self, _: &[f32], pass: Pass<'_>, _: &mut [f32], kept: &mut Kept) {
        let Some(input_gradient) = pass.input_gradient else { return };
        input_gradient.fill(0.0);
        let rows = input_gradient.chunks_exact_mut(self.inputs()).zip(pass.output_gradient.chunks_exact(self.width));
        for ((inner, outer), length) in rows.zip(&kept.lengths) {
            let share = 1.0 / *length as f32;
            for vector in inner.chunks_exact_mut(self.width).take(*length as usize) {
                vector.iter_mut().zip(outer).for_each(|(inner, outer)| *inner = outer * share);
            }
        }
    }
}
