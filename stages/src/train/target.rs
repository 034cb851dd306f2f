//! What is predicted: classes or numbers.

use super::columns::bad_value;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use ropeway_framework::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The classes of a label column, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Classes {
    /// Of any integer type.
    Integers(Vec<i64>),
    /// Text.
    Texts(Vec<String>),
    /// `false` and `true`.
    Booleans,
}

/// Whether a column of this type holds classes: integers, text and booleans do; it may have other uses.
pub(crate) fn classifies(kind: &DataType) -> bool {
    kind.is_integer() || matches!(kind, DataType::Boolean) || text(kind)
}

pub(crate) fn text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => text(values),
        _ => false,
    }
}

fn no_nulls(labels: &ArrayRef, name: &str) -> Result<()> {
    match (0..labels.len()).find(|row| labels.is_null(*row)) {
        Some(row) if labels.null_count() > 0 => Err(bad_value(name, row, "null")),
        _ => Ok(()),
    }
}

/// All rows are of one class.
pub(crate) fn too_few(name: &str) -> Error {
    Error::new(format!("column {name:?} has fewer than two classes: there is nothing to learn"))
}

impl Classes {
    /// The classes that occur in a label column, and each row's.
    ///
    /// # Errors
    /// A null, a column of numbers with a point, or fewer than two classes.
    pub(crate) fn find(labels: &ArrayRef, name: &str) -> Result<(Self, Vec<u32>)> {
        let (classes, indices) = Self::occurring(labels, name)?;
        let seen = indices.first().is_some_and(|first| indices.iter().any(|index| index != first));
        if seen { Ok((classes, indices)) } else { Err(too_few(name)) }
    }

    /// The same for a part of the rows, which may have any number of classes.
    pub(crate) fn occurring(labels: &ArrayRef, name: &str) -> Result<(Self, Vec<u32>)> {
        no_nulls(labels, name)?;
        let kind = labels.data_type();
        let Some(classes) = Self::distinct(labels)? else {
            return Err(Error::new(format!(
                "column {name:?} is of type {kind}; classes are integers, text or booleans"
            ))
            .help("cast it with `sql`, or train on numbers: loss = \"mse\""));
        };
        let indices = classes.encode(labels, name)?;
        Ok((classes, indices))
    }

    /// The different values of a column but null, sorted; `None` for a column that has no classes.
    pub(crate) fn distinct(values: &ArrayRef) -> Result<Option<Self>> {
        let kind = values.data_type();
        Ok(Some(if kind.is_integer() {
            let values = cast(values, &DataType::Int64)?;
            let mut values: Vec<i64> = values.as_primitive::<Int64Type>().iter().flatten().collect();
            values.sort_unstable();
            values.dedup();
            Classes::Integers(values)
        } else if text(kind) {
            let values = cast(values, &DataType::Utf8)?;
            let mut values: Vec<&str> = values.as_string::<i32>().iter().flatten().collect();
            values.sort_unstable();
            values.dedup();
            Classes::Texts(values.into_iter().map(str::to_owned).collect())
        } else if *kind == DataType::Boolean {
            Classes::Booleans
        } else {
            return Ok(None);
        }))
    }

    /// Whether a column of this type may hold these classes.
    pub(crate) fn fits(&self, kind: &DataType) -> bool {
        match self {
            Classes::Integers(_) => kind.is_integer(),
            Classes::Texts(_) => text(kind),
            Classes::Booleans => *kind == DataType::Boolean,
        }
    }

    /// Each value's place among the classes; `None` for a null and for what is none of them.
    pub(crate) fn places(&self, values: &ArrayRef) -> Result<Vec<Option<usize>>> {
        let values = cast(values, &self.data_type())?;
        Ok(match self {
            Classes::Integers(classes) => {
                (values.as_primitive::<Int64Type>().iter()).map(|value| classes.binary_search(&value?).ok()).collect()
            }
            Classes::Texts(classes) => (values.as_string::<i32>().iter())
                .map(|value| value.and_then(|value| classes.binary_search_by(|class| class.as_str().cmp(value)).ok()))
                .collect(),
            Classes::Booleans => values.as_boolean().iter().map(|value| Some(usize::from(value?))).collect(),
        })
    }

    /// Only the classes whose place passes.
    pub(crate) fn keep(self, mut passes: impl FnMut(usize) -> bool) -> Self {
        fn kept<T>(values: Vec<T>, passes: &mut impl FnMut(usize) -> bool) -> Vec<T> {
            values.into_iter().enumerate().filter(|(place, _)| passes(*place)).map(|(_, value)| value).collect()
        }
        match self {
            Classes::Integers(values) => Classes::Integers(kept(values, &mut passes)),
            Classes::Texts(values) => Classes::Texts(kept(values, &mut passes)),
            Classes::Booleans => Classes::Booleans,
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        match self {
            Classes::Integers(values) => values.len(),
            Classes::Texts(values) => values.len(),
            Classes::Booleans => 2,
        }
    }

    /// Their names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Classes::Integers(values) => values.iter().map(i64::to_string).collect(),
            Classes::Texts(values) => values.clone(),
            Classes::Booleans => vec!["false".to_owned(), "true".to_owned()],
        }
    }

    /// The type of the column that [`Classes::decode`] gives.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Classes::Integers(_) => DataType::Int64,
            Classes::Texts(_) => DataType::Utf8,
            Classes::Booleans => DataType::Boolean,
        }
    }

    /// Each label's place among the classes.
    ///
    /// # Errors
    /// Labels of another type, or that are none of the classes: which, and how many rows.
    pub(crate) fn encode(&self, labels: &ArrayRef, name: &str) -> Result<Vec<u32>> {
        no_nulls(labels, name)?;
        if !self.fits(labels.data_type()) {
            let (found, wanted) = (labels.data_type(), self.data_type());
            return Err(Error::new(format!("column {name:?} is of type {found}, but the classes are {wanted}")));
        }
        let values = cast(labels, &self.data_type())?;
        if values.null_count() > 0 {
            return Err(Error::new(format!("column {name:?} has labels beyond what 64 bits with a sign hold")));
        }
        let places: Vec<Result<usize, String>> = match self {
            Classes::Integers(classes) => (values.as_primitive::<Int64Type>().values().iter())
                .map(|value| classes.binary_search(value).map_err(|_| value.to_string()))
                .collect(),
            Classes::Texts(classes) => (values.as_string::<i32>().iter().flatten())
                .map(|value| {
                    classes.binary_search_by(|class| class.as_str().cmp(value)).map_err(|_| format!("{value:?}"))
                })
                .collect(),
            Classes::Booleans => values.as_boolean().values().iter().map(|value| Ok(usize::from(value))).collect(),
        };
        let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
        let mut indices = Vec::with_capacity(places.len());
        for place in places {
            match place {
                Ok(place) => indices.push(u32::try_from(place)?),
                Err(label) => *unknown.entry(label).or_default() += 1,
            }
        }
        if unknown.is_empty() {
            return Ok(indices);
        }
        let shown: Vec<String> = unknown.iter().take(5).map(|(label, rows)| format!("{label} ({rows} rows)")).collect();
        let more = if unknown.len() > 5 { format!(" and {} more", unknown.len() - 5) } else { String::new() };
        Err(Error::new(format!(
            "column {name:?} has labels that the training part does not have: {}{more}",
            shown.join(", ")
        ))
        .help("split with `stratify`, so that every part has every label, or leave these rows out"))
    }

    /// The labels of places.
    pub(crate) fn decode(&self, indices: impl Iterator<Item = usize>) -> ArrayRef {
        match self {
            Classes::Integers(classes) => Arc::new(indices.map(|i| classes.get(i).copied()).collect::<Int64Array>()),
            Classes::Texts(classes) => {
                Arc::new(indices.map(|i| classes.get(i).map(String::as_str)).collect::<StringArray>())
            }
            Classes::Booleans => Arc::new(indices.map(|i| Some(i == 1)).collect::<BooleanArray>()),
        }
    }
}

/// The numbers of a target column.
///
/// # Errors
/// A column that is no number, or a value that is null, NaN or infinite.
pub(crate) fn numbers(values: &ArrayRef, name: &str) -> Result<Vec<f32>> {
    if !values.data_type().is_integer() && !values.data_type().is_floating() {
        let kind = values.data_type();
        return Err(Error::new(format!("column {name:?} is of type {kind}; a regression needs numbers")).help(
            "leave `loss` out, or set loss = \"cross_entropy\", to tell classes apart, or name another column with `target`",
        ));
    }
    no_nulls(values, name)?;
    let numbers = cast(values, &DataType::Float32)?;
    let numbers = numbers.as_primitive::<Float32Type>().values().to_vec();
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(row) => Err(bad_value(name, row, numbers[row])),
        None => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array};

    #[test]
    fn classes_are_found_sorted_and_come_back() {
        let labels: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "b", "c"]));
        let (classes, indices) = Classes::find(&labels, "label").unwrap();
        assert_eq!((classes.names(), &indices[..]), (vec!["a".into(), "b".into(), "c".into()], &[1, 0, 1, 2][..]));
        assert_eq!(&classes.decode(indices.iter().map(|i| *i as usize)), &labels);
        let labels: ArrayRef = Arc::new(Int32Array::from(vec![9, -3, 9]));
        let (classes, indices) = Classes::find(&labels, "label").unwrap();
        assert_eq!((classes, indices), (Classes::Integers(vec![-3, 9]), vec![1, 0, 1]));
    }

    #[test]
    fn strange_labels_are_counted() {
        let (classes, _) = Classes::find(&(Arc::new(Int64Array::from(vec![0, 1])) as ArrayRef), "label").unwrap();
        let others: ArrayRef = Arc::new(Int64Array::from(vec![0, 7, 7, 8]));
        let error = classes.encode(&others, "label").unwrap_err();
        assert!(error.to_string().ends_with("does not have: 7 (2 rows), 8 (1 rows)"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_target_is_named() {
        let one: ArrayRef = Arc::new(Int64Array::from(vec![4, 4]));
        assert!(Classes::find(&one, "y").unwrap_err().to_string().contains("fewer than two classes"));
        let null: ArrayRef = Arc::new(Int64Array::from(vec![Some(4), None]));
        assert!(Classes::find(&null, "y").unwrap_err().to_string().contains("null in row 1"));
        let float: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::INFINITY]));
        assert!(Classes::find(&float, "y").unwrap_err().to_string().contains("Float64"));
        assert!(numbers(&float, "y").unwrap_err().to_string().contains("inf in row 1"));
    }
}
