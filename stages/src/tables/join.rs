//! Two tables as one, on equal keys.

use super::pick::take_rows;
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, concat, is_null, kernels::zip::zip, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use ropeway_framework::data::Frame;
use ropeway_framework::stage::Params;
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What the `join` stage is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    /// The columns that must be equal: a name, a list of names, or `{ left = "right" }` where the names differ.
    on: On,
    /// Which rows are kept.
    #[serde(default)]
    how: How,
    /// What follows the name of a column of the right table that the left table has too.
    #[serde(default = "suffix")]
    suffix: String,
}

fn suffix() -> String {
    "_right".to_owned()
}

/// Which rows a join keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum How {
    /// Pairs of rows with equal keys.
    #[default]
    Inner,
    /// And the left rows that have no pair.
    Left,
    /// And the right rows that have no pair.
    Right,
    /// And the rows of both that have no pair.
    Full,
    /// Left rows that have a pair, once each, without the right table's columns.
    Semi,
    /// Left rows that have no pair, without the right table's columns.
    Anti,
}

/// Pairs of key columns: left name to right name.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
struct On(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = BTreeMap<String, String>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a column name, a list of column names, or a table `{ left = \"right\" }`")
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(BTreeMap::from([(name.to_owned(), name.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some(name) = names.next_element::<String>()? {
                    pairs.insert(name.clone(), name);
                }
                Ok(pairs)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((left, right)) = names.next_entry::<String, String>()? {
                    pairs.insert(left, right);
                }
                Ok(pairs)
            }
        }

        let pairs = deserializer.deserialize_any(Names)?;
        match pairs.is_empty() {
            true => Err(D::Error::custom("`on` names no column")),
            false => Ok(Self(pairs)),
        }
    }
}

impl JsonSchema for On {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "On".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                { "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1 },
            ]
        })
    }
}

/// The stage.
///
/// Rows come in the order of the left table, the pairs of one left row in the order of the right table, and right rows
/// without a pair last. A key column appears once, under its left name, filled from the side that has the row. Null is
/// equal to nothing, as in SQL.
pub(super) fn join(left: Frame, right: Frame, Params(params): Params<Join>) -> Result<Frame> {
    let keys = Keys::of(&left, &right, &params.on)?;
    if matches!(params.how, How::Semi | How::Anti) {
        let kept = keys.matched_left(params.how == How::Semi);
        return take_rows(&left, &kept);
    }
    let pairs = keys.pairs(params.how)?;
    let columns = merge(&left, &right, &params, &pairs)?;
    Frame::from_columns(columns)
}

/// The key of every row of both tables as comparable bytes; `None` where a part of it is null.
struct Keys {
    left: Side,
    right: Side,
}

struct Side {
    rows: Rows,
    null: Vec<bool>,
}

impl Side {
    fn key(&self, row: usize) -> Option<&[u8]> {
        (!self.null[row]).then(|| self.rows.row(row).data())
    }
}

/// Rows to be put side by side; null where a side has none.
struct Pairs {
    left: UInt32Array,
    right: UInt32Array,
}

impl Keys {
    fn of(left: &Frame, right: &Frame, on: &On) -> Result<Self> {
        let (mut lefts, mut rights, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        for (left_name, right_name) in &on.0 {
            let one = left.column(left_name).map_err(|error| error.context("the left table"))?;
            let other = right.column(right_name).map_err(|error| error.context("the right table"))?;
            let shared = common(one.data_type(), other.data_type()).ok_or_else(|| {
                Error::new(format!(
                    "left {left_name:?} is {} and right {right_name:?} is {}: these are never equal",
                    one.data_type(),
                    other.data_type()
                ))
                .help("convert one of them with `sql`: CAST(column AS type)")
            })?;
            fields.push(SortField::new(shared.clone()));
            lefts.push(cast(&one, &shared)?);
            rights.push(cast(&other, &shared)?);
        }
        let converter = RowConverter::new(fields)?;
        let side = |columns: Vec<ArrayRef>, count: usize| -> Result<Side> {
            let null = (0..count).map(|row| columns.iter().any(|column| column.is_null(row))).collect();
            Ok(Side { rows: converter.convert_columns(&columns)?, null })
        };
        Ok(Self { left: side(lefts, left.rows())?, right: side(rights, right.rows())? })
    }

    /// The right rows of each key, in order.
    fn right_rows(&self) -> HashMap<&[u8], Vec<u32>> {
        let mut rows: HashMap<&[u8], Vec<u32>> = HashMap::with_capacity(self.right.null.len());
        for row in 0..self.right.null.len() {
            if let Some(key) = self.right.key(row) {
                rows.entry(key).or_default().push(row as u32);
            }
        }
        rows
    }

    fn matched_left(&self, matched: bool) -> Vec<usize> {
        let right = self.right_rows();
        let has_pair = |row: &usize| self.left.key(*row).is_some_and(|key| right.contains_key(key));
        (0..self.left.null.len()).filter(|row| has_pair(row) == matched).collect()
    }

    fn pairs(&self, how: How) -> Result<Pairs> {
        let lookup = self.right_rows();
        let mut used = vec![false; self.right.null.len()];
        let (mut left, mut right): (Vec<Option<u32>>, Vec<Option<u32>>) = (Vec::new(), Vec::new());
        for row in 0..self.left.null.len() {
            let others = self.left.key(row).and_then(|key| lookup.get(key)).map(Vec::as_slice).unwrap_or_default();
            for other in others {
                used[*other as usize] = true;
                left.push(Some(row as u32));
                right.push(Some(*other));
            }
            if others.is_empty() && matches!(how, How::Left | How::Full) {
                left.push(Some(row as u32));
                right.push(None);
            }
            if left.len() > u32::MAX as usize {
                return Err(Error::new("the join gives more than 4,294,967,295 rows")
                    .help("the key is the same in many rows of both tables: add a column to `on`"));
            }
        }
        if matches!(how, How::Right | How::Full) {
            for row in (0..used.len()).filter(|row| !used[*row]) {
                left.push(None);
                right.push(Some(row as u32));
            }
        }
        Ok(Pairs { left: left.into(), right: right.into() })
    }
}

/// The type in which two key columns are compared, if any value of one can equal one of the other.
fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Dictionary, Float64, Int64, LargeUtf8, UInt64, Utf8, Utf8View};
    let plain = |data_type: &DataType| match data_type {
        Dictionary(_, values) => (**values).clone(),
        other => other.clone(),
    };
    let (left, right) = (plain(left), plain(right));
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    match (&left, &right) {
        _ if left == right => Some(left),
        _ if text(&left) && text(&right) => Some(LargeUtf8),
        (UInt64, other) | (other, UInt64) if other.is_unsigned_integer() => Some(UInt64),
        (UInt64, other) | (other, UInt64) if other.is_integer() => Some(Decimal128(20, 0)),
        _ if left.is_integer() && right.is_integer() => Some(Int64),
        _ if left.is_numeric() && right.is_numeric() => Some(Float64),
        _ => None,
    }
}

fn merge(left: &Frame, right: &Frame, params: &Join, pairs: &Pairs) -> Result<Vec<(String, ArrayRef)>> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::with_capacity(left.columns() + right.columns());
    for field in left.schema().fields() {
        let name = field.name();
        let mut column = take(&whole(left, name)?, &pairs.left, None)?;
        if let Some(other) = params.on.0.get(name).filter(|_| pairs.left.null_count() > 0) {
            let theirs = take(&cast(&whole(right, other)?, column.data_type())?, &pairs.right, None)?;
            column = zip(&is_null(&pairs.left)?, &theirs, &column)?;
        }
        columns.push((name.clone(), column));
    }
    for field in right.schema().fields() {
        let name = field.name();
        if params.on.0.values().any(|key| key == name) {
            continue;
        }
        let taken = left.schema().index_of(name).is_ok();
        let given = if taken { format!("{name}{}", params.suffix) } else { name.clone() };
        if columns.iter().any(|(other, _)| *other == given) {
            return Err(Error::new(format!("the joined table would have two columns called {given:?}"))
                .help("choose another `suffix`, or leave one of them out with `sql`"));
        }
        columns.push((given, take(&whole(right, name)?, &pairs.right, None)?));
    }
    Ok(columns)
}

/// A column of a frame, of at least one row, so that there is something for a null index to point at.
fn whole(frame: &Frame, name: &str) -> Result<ArrayRef> {
    let column = frame.column(name)?;
    match column.len() {
        0 => Ok(concat(&[column.as_ref(), arrow::array::new_null_array(column.data_type(), 1).as_ref()])?),
        _ => Ok(column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn frame(keys: &[Option<i64>], name: &str, values: &[i64]) -> Frame {
        let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        Frame::from_columns([("key", keys), (name, values)]).unwrap()
    }

    fn run(left: &Frame, right: &Frame, params: Value) -> Result<Frame> {
        let params: Join = serde_json::from_value(params)?;
        join(left.clone(), right.clone(), Params(params))
    }

    fn column(frame: &Frame, name: &str) -> Vec<Option<i64>> {
        frame.column(name).unwrap().as_primitive::<Int64Type>().iter().collect()
    }

    fn left() -> Frame {
        frame(&[Some(2), Some(1), None, Some(3)], "a", &[10, 11, 12, 13])
    }

    fn right() -> Frame {
        frame(&[Some(1), Some(2), Some(2), None, Some(4)], "b", &[20, 21, 22, 23, 24])
    }

    #[test]
    fn each_way_keeps_its_rows_in_order() {
        let joined = |how: &str| {
            let got = run(&left(), &right(), json!({"on": "key", "how": how})).unwrap();
            (column(&got, "key"), column(&got, "a"), column(&got, "b"))
        };
        let (two, one) = (Some(2), Some(1));
        assert_eq!(
            joined("inner"),
            (vec![two, two, one], vec![Some(10), Some(10), Some(11)], vec![Some(21), Some(22), Some(20)])
        );
        let (keys, a, b) = joined("full");
        assert_eq!(keys, [two, two, one, None, Some(3), None, Some(4)]);
        assert_eq!(a, [Some(10), Some(10), Some(11), Some(12), Some(13), None, None]);
        assert_eq!(b, [Some(21), Some(22), Some(20), None, None, Some(23), Some(24)]);
        assert_eq!(joined("left").0, [two, two, one, None, Some(3)]);
        assert_eq!(joined("right").2, [Some(21), Some(22), Some(20), Some(23), Some(24)]);
        let only = |how: &str| column(&run(&left(), &right(), json!({"on": ["key"], "how": how})).unwrap(), "a");
        assert_eq!(only("semi"), [Some(10), Some(11)]);
        assert_eq!(only("anti"), [Some(12), Some(13)]);
    }

    #[test]
    fn names_that_collide_get_the_suffix() {
        let right = frame(&[Some(1)], "a", &[99]);
        let got = run(&left(), &right, json!({"on": "key"})).unwrap();
        assert_eq!(column(&got, "a_right"), [Some(99)]);
        let error = run(&left(), &right, json!({"on": "key", "suffix": ""})).unwrap_err();
        assert!(error.to_string().contains("two columns called \"a\""), "{error}");
    }

    #[test]
    fn keys_of_other_names_and_types_are_compared_by_value() {
        let code: ArrayRef = Arc::new(Int32Array::from(vec![1, 3]));
        let c: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        let right = Frame::from_columns([("code", code), ("c", c)]).unwrap();
        let got = run(&left(), &right, json!({"on": {"key": "code"}, "how": "left"})).unwrap();
        assert_eq!(column(&got, "c"), [None, Some(7), None, Some(8)]);
        assert!(got.position("code").is_err());
        let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
        let right = Frame::from_columns([("key", text)]).unwrap();
        let error = run(&left(), &right, json!({"on": "key"})).unwrap_err();
        assert!(error.to_string().contains("left \"key\" is Int64 and right \"key\" is Utf8"), "{error}");
    }

    #[test]
    fn empty_tables_join() {
        let none = frame(&[], "b", &[]);
        assert_eq!(run(&left(), &none, json!({"on": "key"})).unwrap().rows(), 0);
        assert_eq!(column(&run(&left(), &none, json!({"on": "key", "how": "left"})).unwrap(), "b"), [None; 4]);
        assert_eq!(run(&none, &right(), json!({"on": "key", "how": "full", "suffix": "2"})).unwrap().rows(), 5);
    }

    #[test]
    fn mistakes_are_named() {
        for (params, words) in [
            (json!({"on": []}), "names no column"),
            (json!({"on": "kee"}), "the left table: there is no column \"kee\""),
            (json!({"on": {"key": "kee"}}), "the right table: there is no column \"kee\""),
            (json!({"on": 3}), "a column name, a list"),
            (json!({"on": "key", "how": "outer"}), "unknown variant `outer`"),
            (json!({}), "missing field `on`"),
        ] {
            let error = run(&left(), &right(), params.clone()).unwrap_err().to_string();
            assert!(error.contains(words), "{params}: {error}");
        }
    }

    proptest! {
        #[test]
        fn an_inner_join_is_the_filtered_product(
            l in proptest::collection::vec(proptest::option::of(0i64..6), 0..20),
            r in proptest::collection::vec(proptest::option::of(0i64..6), 0..20),
        ) {
            let numbers = |count: usize| (0..count as i64).collect::<Vec<_>>();
            let (left, right) = (frame(&l, "a", &numbers(l.len())), frame(&r, "b", &numbers(r.len())));
            let got = run(&left, &right, json!({"on": "key"})).unwrap();
            let mut expected = Vec::new();
            for (i, a) in l.iter().enumerate() {
                for (j, b) in r.iter().enumerate() {
                    if a.is_some() && a == b {
                        expected.push((Some(i as i64), Some(j as i64)));
                    }
                }
            }
            let found: Vec<_> = column(&got, "a").into_iter().zip(column(&got, "b")).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
