//! What a fitted model can do.

use crate::Result;
use crate::data::{Frame, Model};
use arrow::datatypes::SchemaRef;

/// A model, loaded: rows in, rows out. Serving, evaluation and `ropeway infer` go through it.
pub trait Apply: Send + Sync {
    /// The columns that it reads, with their types; a frame may have more.
    fn input(&self) -> SchemaRef;

    /// The columns that it gives for a frame with its input columns.
    fn output(&self) -> SchemaRef;

    /// The column that it was fitted to predict, if any.
    fn target(&self) -> Option<&str> {
        None
    }

    /// Applies it to every row; the result has one row a row.
    ///
    /// # Errors
    /// A column is missing or of a type that can't be read.
    fn apply(&self, rows: &Frame) -> Result<Frame>;

    /// As [`Apply::apply`], on so many threads if that is of use. The result is the same.
    ///
    /// # Errors
    /// As [`Apply::apply`].
    fn apply_on(&self, rows: &Frame, _threads: usize) -> Result<Frame> {
        self.apply(rows)
    }
}

/// Loads models of one kind.
pub type LoadModel = fn(&Model) -> Result<Box<dyn Apply>>;
