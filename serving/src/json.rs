//! A tensor's elements as JSON: an array, flat or nested like the shape, in row-major order.
//!
//! Numbers are read from their text straight into their type, so that no digit is lost on a way through `f64`.

use crate::Datatype;
use crate::tensor::{elements, place};
use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, PrimitiveArray};
use arrow::datatypes::*;
use half::f16;
use ropeway_framework::{Context, Error, Result};
use serde::ser::{Error as _, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

/// Arrays inside arrays inside arrays: more than any tensor has.
const MAX_DEPTH: usize = 64;

/// Reads the elements of a tensor of this datatype and shape. `text` must be well-formed JSON.
pub(crate) fn read(text: &str, datatype: Datatype, shape: &[usize]) -> Result<ArrayRef> {
    Ok(match datatype {
        Datatype::Bool => Arc::new(BooleanArray::from(collect(text, shape, boolean)?)),
        Datatype::Uint8 => integers::<UInt8Type>(text, shape, datatype)?,
        Datatype::Uint16 => integers::<UInt16Type>(text, shape, datatype)?,
        Datatype::Uint32 => integers::<UInt32Type>(text, shape, datatype)?,
        Datatype::Uint64 => integers::<UInt64Type>(text, shape, datatype)?,
        Datatype::Int8 => integers::<Int8Type>(text, shape, datatype)?,
        Datatype::Int16 => integers::<Int16Type>(text, shape, datatype)?,
        Datatype::Int32 => integers::<Int32Type>(text, shape, datatype)?,
        Datatype::Int64 => integers::<Int64Type>(text, shape, datatype)?,
        Datatype::Fp16 => floats::<Float16Type>(text, shape, |text| {
            let value = f16::from_f64(text.parse().ok()?);
            value.is_finite().then_some(value)
        })?,
        Datatype::Fp32 => {
            floats::<Float32Type>(text, shape, |text| text.parse().ok().filter(|value: &f32| value.is_finite()))?
        }
        Datatype::Fp64 => {
            floats::<Float64Type>(text, shape, |text| text.parse().ok().filter(|value: &f64| value.is_finite()))?
        }
        Datatype::Bf16 => {
            return Err(Error::usage("BF16 comes as binary data only").help("send it as FP32, or as binary data"));
        }
        Datatype::Bytes => {
            let mut values = BinaryBuilder::new();
            walk(text, shape, |leaf| {
                values.append_value(string(leaf)?.as_bytes());
                Ok(())
            })?;
            Arc::new(values.finish())
        }
    })
}

fn integers<T>(text: &str, shape: &[usize], datatype: Datatype) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: FromStr + TryFrom<i128>>,
{
    let values = collect(text, shape, |leaf| {
        if let Ok(value) = leaf.parse() {
            return Ok(value);
        }
        match whole(leaf).map(T::Native::try_from) {
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) => Err(format!("{leaf} is out of the range of {datatype}")),
            None => Err(mistyped(leaf, datatype)),
        }
    })?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter_values(values)))
}

/// The whole number that a JSON number is, also written `1.0` or `1e3`; nothing where a float is not exact.
fn whole(leaf: &str) -> Option<i128> {
    if let Ok(value) = leaf.parse() {
        return Some(value);
    }
    let value: f64 = leaf.parse().ok()?;
    (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i128)
}

fn floats<T>(text: &str, shape: &[usize], parse: impl Fn(&str) -> Option<T::Native>) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: From<f16>>,
{
    let name = Datatype::of(&T::DATA_TYPE).map_or("", Datatype::name);
    let values = collect(text, shape, |leaf| match leaf {
        r#""NaN""# => Ok(f16::NAN.into()),
        r#""Infinity""# => Ok(f16::INFINITY.into()),
        r#""-Infinity""# => Ok(f16::NEG_INFINITY.into()),
        number if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            parse(number).ok_or_else(|| format!("{number} is out of the range of {name}"))
        }
        other => Err(mistyped(other, name)),
    })?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter_values(values)))
}

fn boolean(leaf: &str) -> Result<bool, String> {
    leaf.parse().map_err(|_| mistyped(leaf, "BOOL (true or false)"))
}

fn string(leaf: &str) -> Result<Cow<'_, str>, String> {
    let Some(inner) = leaf.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Err(mistyped(leaf, "BYTES (a string)"));
    };
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(leaf).map(Cow::Owned).map_err(|error| format!("{} is no text: {error}", short(leaf)))
}

fn mistyped(leaf: &str, expected: impl Display) -> String {
    match leaf {
        "null" => "null, and the protocol has no nulls".to_owned(),
        _ => format!("{} is no {expected}", short(leaf)),
    }
}

fn short(leaf: &str) -> Cow<'_, str> {
    match leaf.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}…", &leaf[..end])),
        None => Cow::Borrowed(leaf),
    }
}

fn collect<'t, T>(text: &'t str, shape: &[usize], parse: impl Fn(&'t str) -> Result<T, String>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    walk(text, shape, |leaf| {
        values.push(parse(leaf)?);
        Ok(())
    })?;
    Ok(values)
}

/// Hands every leaf of an array, flat or nested, to `leaf` in order, and holds the arrays against the shape.
fn walk<'t>(text: &'t str, shape: &[usize], mut leaf: impl FnMut(&'t str) -> Result<(), String>) -> Result<()> {
    let bytes = text.as_bytes();
    let mut open: Vec<usize> = Vec::new(); // members so far of each open array
    let mut sides: Vec<Option<usize>> = Vec::new(); // members of the closed arrays, by depth
    let mut leaves = 0;
    let mut depth_of_leaves = None;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => at += 1,
            b'[' => {
                if let Some(members) = open.last_mut() {
                    *members += 1;
                }
                open.push(0);
                if sides.len() < open.len() {
                    sides.push(None);
                }
                if open.len() > MAX_DEPTH || depth_of_leaves.is_some_and(|depth| open.len() > depth) {
                    return Err(ragged(leaves, shape, "an array stands where elements were expected"));
                }
                at += 1;
            }
            b']' => {
                let members = open.pop().context("the data is no JSON")?;
                match sides.get_mut(open.len()) {
                    Some(Some(side)) if *side != members => {
                        let message = format!("an array of {members} stands beside one of {side}");
                        return Err(ragged(leaves, shape, &message));
                    }
                    Some(side) => *side = Some(members),
                    None => {}
                }
                at += 1;
            }
            b'{' => return Err(Error::usage("the data holds an object").help("data is an array of elements")),
            _ => {
                let end = leaf_end(bytes, at);
                let Some(members) = open.last_mut() else {
                    return Err(Error::usage(format!("the data is {}, not an array", short(&text[at..end]))));
                };
                *members += 1;
                if *depth_of_leaves.get_or_insert(open.len()) != open.len() {
                    return Err(ragged(leaves, shape, "an element stands where an array was expected"));
                }
                leaf(&text[at..end])
                    .map_err(|problem| Error::usage(format!("at {}: {problem}", place(leaves, shape))))?;
                leaves += 1;
                at = end;
            }
        }
    }
    let sides: Vec<usize> = sides.into_iter().flatten().collect();
    let flat = sides.len() == 1 && Some(leaves) == elements(shape);
    // `[]` is every tensor without rows: its inner sides can't be written.
    let none = leaves == 0 && elements(shape) == Some(0);
    if flat || none || sides == shape {
        return Ok(());
    }
    Err(match sides.len() {
        0 | 1 => Error::usage(format!("{leaves} elements do not fill the shape {shape:?}")),
        _ => Error::usage(format!("the data is nested as {sides:?}, and the shape is {shape:?}")),
    })
}

fn ragged(leaf: usize, shape: &[usize], message: &str) -> Error {
    Error::usage(format!("near {}: {message}", place(leaf, shape)))
        .help("data is one flat array, or arrays nested exactly like the shape")
}

/// Where the leaf that starts at `at` ends. At least one byte is taken, and ends lie between characters.
fn leaf_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    if bytes.get(at) != Some(&b'"') {
        while bytes.get(end).is_some_and(|byte| !matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b'[')) {
            end += 1;
        }
        return end;
    }
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// Elements that are written as one flat JSON array.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    pub(crate) datatype: Datatype,
    /// Of the datatype's Arrow type, without nulls.
    pub(crate) values: &'a ArrayRef,
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.values;
        match self.datatype {
            Datatype::Bool => serializer.collect_seq(values.as_boolean().values().iter()),
            Datatype::Uint8 => serializer.collect_seq(values.as_primitive::<UInt8Type>().values()),
            Datatype::Uint16 => serializer.collect_seq(values.as_primitive::<UInt16Type>().values()),
            Datatype::Uint32 => serializer.collect_seq(values.as_primitive::<UInt32Type>().values()),
            Datatype::Uint64 => serializer.collect_seq(values.as_primitive::<UInt64Type>().values()),
            Datatype::Int8 => serializer.collect_seq(values.as_primitive::<Int8Type>().values()),
            Datatype::Int16 => serializer.collect_seq(values.as_primitive::<Int16Type>().values()),
            Datatype::Int32 => serializer.collect_seq(values.as_primitive::<Int32Type>().values()),
            Datatype::Int64 => serializer.collect_seq(values.as_primitive::<Int64Type>().values()),
            Datatype::Fp16 => {
                let values = values.as_primitive::<Float16Type>().values();
                serializer.collect_seq(values.iter().map(|value| Float32(value.to_f32())))
            }
            Datatype::Fp32 | Datatype::Bf16 => {
                let values = values.as_primitive::<Float32Type>().values();
                serializer.collect_seq(values.iter().map(|value| Float32(*value)))
            }
            Datatype::Fp64 => {
                let values = values.as_primitive::<Float64Type>().values();
                serializer.collect_seq(values.iter().map(|value| Float64(*value)))
            }
            Datatype::Bytes => {
                let values = values.as_binary::<i32>();
                serializer.collect_seq((0..values.len()).map(|index| Text(values.value(index))))
            }
        }
    }
}

struct Float32(f32);

impl Serialize for Float32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => serializer.serialize_f32(self.0),
            false => serializer.serialize_str(not_finite(self.0.into())),
        }
    }
}

struct Float64(f64);

impl Serialize for Float64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => serializer.serialize_f64(self.0),
            false => serializer.serialize_str(not_finite(self.0)),
        }
    }
}

fn not_finite(value: f64) -> &'static str {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (_, true) => "Infinity",
        (_, false) => "-Infinity",
    }
}

struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(self.0);
        serializer.serialize_str(text.map_err(|_| S::Error::custom("BYTES that are no UTF-8 can't be JSON"))?)
    }
}
