//! Frames as candle tensors, and outputs as frames: what a user's own model needs around it.

use super::columns::{Column, Features, columns, schema};
use super::fitted::output;
use super::loss::{best, softmax};
use super::target::{Classes, classifies, numbers};
use super::trainer::Examples;
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use candle_core::{DType, Device, Tensor};
use ropeway_framework::data::Frame;
use ropeway_framework::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a model of one's own reads frames: which columns, what target, which classes. Part of the model's description.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reader {
    columns: Vec<Column>,
    target: String,
    classes: Option<Classes>,
}

impl Reader {
    /// Looks at the training part: every column but the target is a feature; a target of integers, text or booleans
    /// has classes, one of floating point numbers does not.
    ///
    /// # Errors
    /// Columns that are no numbers, no such target, or fewer than two classes.
    pub fn fit(rows: &Frame, target: &str) -> Result<Self> {
        let values = rows.column(target)?;
        let classes = classifies(values.data_type()).then(|| Classes::find(&values, target)).transpose()?;
        Ok(Self {
            columns: columns(rows, target)?,
            target: target.to_owned(),
            classes: classes.map(|(classes, _)| classes),
        })
    }

    /// Values of a row of features.
    pub fn width(&self) -> usize {
        self.columns.iter().map(Column::width).sum()
    }

    /// The target column.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The names of the classes; none for numbers.
    pub fn classes(&self) -> Vec<String> {
        self.classes.as_ref().map(Classes::names).unwrap_or_default()
    }

    /// The features of rows: `f32`, of shape `[rows, width]`. Pixels (lists of bytes) are divided by 255.
    ///
    /// # Errors
    /// Columns that are missing or of another type; null, NaN or infinite values.
    pub fn features(&self, rows: &Frame) -> Result<Tensor> {
        let features = Features::read(rows, &self.columns, 1)?;
        let mut values = vec![0.0; features.rows() * features.width()];
        features.gather(0..features.rows(), &mut values);
        Ok(Tensor::from_vec(values, (features.rows(), features.width()), &Device::Cpu)?)
    }

    /// The features and targets of rows; classes are `u32`, numbers `f32`.
    ///
    /// # Errors
    /// As [`Reader::features`], and labels that the training part does not have.
    pub fn examples(&self, rows: &Frame) -> Result<Examples> {
        let (features, target) = (self.features(rows)?, rows.column(&self.target)?);
        let target = match &self.classes {
            Some(classes) => Tensor::new(classes.encode(&target, &self.target)?, &Device::Cpu)?,
            None => Tensor::new(numbers(&target, &self.target)?, &Device::Cpu)?,
        };
        Ok(Examples { features, target })
    }

    /// The columns that it reads: [`Apply::input`](ropeway_framework::stage::Apply::input).
    ///
    /// # Errors
    /// A description of another version.
    pub fn input(&self) -> Result<SchemaRef> {
        schema(&self.columns)
    }

    /// The columns of [`Reader::predictions`].
    ///
    /// # Errors
    /// None in practice.
    pub fn output(&self) -> Result<SchemaRef> {
        output(self.classes.as_ref())
    }

    /// A module's outputs as `prediction` and, for classes, `probability`: logits of shape `[rows, classes]`, or
    /// numbers, one a row.
    ///
    /// # Errors
    /// Outputs of another shape.
    pub fn predictions(&self, outputs: &Tensor) -> Result<Frame> {
        let mut values = outputs.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let (width, schema) = (self.classes.as_ref().map_or(1, Classes::len), self.output()?);
        if outputs.dims().first().is_none_or(|rows| rows * width != values.len()) {
            return Err(Error::new(format!("a module gave {:?} values, not {width} a row", outputs.dims())));
        }
        let columns: Vec<ArrayRef> = match &self.classes {
            None => vec![Arc::new(values.iter().map(|value| Some(f64::from(*value))).collect::<Float64Array>())],
            Some(classes) => {
                values.chunks_exact_mut(width).for_each(softmax);
                let prediction = classes.decode(values.chunks_exact(width).map(best));
                let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
                    return Err(Error::new("probabilities are a list"));
                };
                let values = Arc::new(Float32Array::from(values));
                vec![prediction, Arc::new(FixedSizeListArray::try_new(item, length, values, None)?)]
            }
        };
        Frame::new(schema.clone(), vec![RecordBatch::try_new(schema, columns)?])
    }
}
