//! Columns as tensors and back.

use crate::convert::convert;
use crate::{Datatype, TensorMetadata};
use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};
use ropeway_framework::{Context, Error, Result};
use std::sync::Arc;

/// The number of elements of a shape, unless it is absurd.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side))
}

/// Where element `index` of a tensor stands: `[3, 0]`, counted from zero.
pub(crate) fn place(mut index: usize, shape: &[usize]) -> String {
    let mut place = vec![0; shape.len().max(1)];
    for (at, side) in shape.iter().enumerate().skip(1).rev() {
        place[at] = index % (*side).max(1);
        index /= (*side).max(1);
    }
    place[0] = index;
    format!("{place:?}")
}

/// A tensor on its way: elements without nulls, of the datatype's Arrow type, in row-major order.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: ArrayRef,
}

impl Tensor {
    /// The same values in another datatype.
    pub(crate) fn convert(self, to: Datatype) -> Result<Self> {
        let values = convert(&self.values, self.datatype, to, &self.shape)?;
        Ok(Self { datatype: to, values, ..self })
    }

    /// Whether its elements are text.
    pub(crate) fn is_text(&self) -> bool {
        self.datatype == Datatype::Bytes && StringArray::try_from_binary(self.values.as_binary::<i32>().clone()).is_ok()
    }

    /// Its most natural column: nested fixed-size lists for the sides behind the rows.
    pub(crate) fn field(&self, name: &str, text: bool) -> Field {
        let values = if text { DataType::Utf8 } else { self.datatype.arrow() };
        let nested = self.shape.iter().skip(1).rev().fold(values, |inner, side| {
            DataType::FixedSizeList(
                Arc::new(Field::new("item", inner, false)),
                i32::try_from(*side).unwrap_or(i32::MAX),
            )
        });
        Field::new(name, nested, false)
    }
}

/// A column of an endpoint as the tensor that it is to the outside.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) field: FieldRef,
    pub(crate) datatype: Datatype,
    /// The sides behind the rows; none for a column of plain values.
    pub(crate) sides: Vec<usize>,
}

impl Column {
    /// The tensor that a column is.
    ///
    /// # Errors
    /// A type that the protocol lacks.
    pub(crate) fn of(field: &FieldRef) -> Result<Self> {
        let mut sides = Vec::new();
        let mut values = field.data_type();
        while let DataType::FixedSizeList(item, side) = values {
            sides.push(usize::try_from(*side).ok().filter(|side| *side > 0).with_name(field, "empty lists")?);
            values = item.data_type();
        }
        let datatype = Datatype::of(values).with_name(field, &format!("the type {values}"))?;
        Ok(Self { field: field.clone(), datatype, sides })
    }

    pub(crate) fn name(&self) -> &str {
        self.field.name()
    }

    /// The elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.sides.iter().product()
    }

    pub(crate) fn metadata(&self) -> TensorMetadata {
        let sides = self.sides.iter().map(|side| i64::try_from(*side).unwrap_or(i64::MAX));
        let shape = std::iter::once(-1).chain(sides).collect();
        TensorMetadata { name: self.name().to_owned(), datatype: self.datatype, shape }
    }

    /// The column that a tensor holds, with one value a row.
    ///
    /// # Errors
    /// Another number of elements a row, another datatype, or text that can't be read as the column's type.
    pub(crate) fn read(&self, tensor: Tensor) -> Result<ArrayRef> {
        let fits = match tensor.shape.split_first() {
            Some((_, sides)) => elements(sides) == Some(self.width()),
            None => false,
        };
        if !fits {
            let expected = self.metadata().shape;
            return Err(Error::usage(format!("expected the shape {expected:?}, found {:?}", tensor.shape)));
        }
        let tensor = tensor.convert(self.datatype)?;
        nest(self.field.data_type(), &tensor)
    }

    /// The tensor that a column is.
    ///
    /// # Errors
    /// A null, or a column of another type than said.
    pub(crate) fn write(&self, column: &ArrayRef) -> Result<Tensor> {
        if !column.data_type().equals_datatype(self.field.data_type()) {
            let (expected, found) = (self.field.data_type(), column.data_type());
            return Err(Error::new(format!("expected the type {expected}, found {found}")));
        }
        let mut shape = vec![column.len()];
        shape.extend(&self.sides);
        let mut values = column.clone();
        let mut outer = 1;
        while let Some(list) = values.as_fixed_size_list_opt() {
            no_nulls(list, &shape[..outer])?;
            let items = list.values().clone();
            values = items;
            outer += 1;
        }
        let values = wire(&values, self.datatype)?;
        no_nulls(&values, &shape)?;
        Ok(Tensor { datatype: self.datatype, shape, values })
    }
}

/// Says which column can't be a tensor, and why.
trait WithName<T> {
    fn with_name(self, field: &FieldRef, what: &str) -> Result<T>;
}

impl<T> WithName<T> for Option<T> {
    fn with_name(self, field: &FieldRef, what: &str) -> Result<T> {
        self.ok_or_else(|| {
            Error::usage(format!("column {:?} can't be served: the protocol has no tensors of {what}", field.name()))
        })
    }
}

fn no_nulls(values: &dyn Array, shape: &[usize]) -> Result<()> {
    match values.nulls().and_then(|nulls| nulls.iter().position(|valid| !valid)) {
        Some(index) => Err(Error::new(format!("at {}: null, and the protocol has no nulls", place(index, shape)))),
        None => Ok(()),
    }
}

/// A column's values in the Arrow type of their datatype.
fn wire(values: &ArrayRef, datatype: Datatype) -> Result<ArrayRef> {
    if values.data_type() == &datatype.arrow() {
        return Ok(values.clone());
    }
    if let DataType::Dictionary(_, of) = values.data_type() {
        return wire(&strict_cast(values, of)?, datatype);
    }
    match datatype {
        Datatype::Bytes if !values.data_type().is_binary() => {
            strict_cast(&strict_cast(values, &DataType::Utf8)?, &DataType::Binary)
        }
        _ => strict_cast(values, &datatype.arrow()),
    }
}

/// A cast that fails rather than to make nulls.
fn strict_cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The column of a type that holds a tensor; the type must have the tensor's datatype.
///
/// # Errors
/// Text that can't be read as the type.
pub(crate) fn nest(to: &DataType, tensor: &Tensor) -> Result<ArrayRef> {
    match to {
        DataType::FixedSizeList(item, side) => {
            let items = nest(item.data_type(), tensor)?;
            Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), *side, items, None)?))
        }
        _ => values(to, tensor),
    }
}

fn values(to: &DataType, tensor: &Tensor) -> Result<ArrayRef> {
    let values = &tensor.values;
    match to {
        same if same == values.data_type() => Ok(values.clone()),
        DataType::Dictionary(_, of) => strict_cast(&self::values(of, tensor)?, to),
        binary if binary.is_binary() => strict_cast(values, to),
        text => {
            let strings: ArrayRef = Arc::new(strings(tensor)?);
            let read = cast_with_options(&strings, text, &CastOptions { safe: true, ..CastOptions::default() })?;
            let Some(index) = read.nulls().and_then(|nulls| nulls.iter().position(|valid| !valid)) else {
                return Ok(read);
            };
            let found = strings.as_string::<i32>().value(index);
            let place = place(index, &tensor.shape);
            let error = Error::usage(format!("at {place}: {found:?} can't be read as the column's type, {text}"));
            Err(error.help("dates and times are ISO 8601 text, such as \"2013-01-31\" or \"2013-01-31T06:30:00\""))
        }
    }
}

fn strings(tensor: &Tensor) -> Result<StringArray> {
    let binary = tensor.values.as_binary::<i32>();
    StringArray::try_from_binary(binary.clone()).or_else(|_| {
        let wrong = (0..binary.len()).find(|index| std::str::from_utf8(binary.value(*index)).is_err());
        let index = wrong.context("the text is no UTF-8")?;
        Err(Error::usage(format!("at {}: the bytes are no UTF-8 text", place(index, &tensor.shape))))
    })
}
