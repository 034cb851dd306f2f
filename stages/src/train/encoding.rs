//! Columns that are no numbers, as numbers: categories for embeddings, bytes for sequences.

use super::columns::{Column, column, columns, no_nulls};
use super::models::{Embed, ModelSpec, Transformer};
use super::network::{Field, Table};
use super::target::{Classes, text};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Error, Result};

/// The longest vector of a category, unless the pipeline says otherwise.
const WIDEST: usize = 50;

/// What a text has after its last byte.
const END: f32 = -1.0;

/// The columns of the training part but the target, as a model reads them.
///
/// # Errors
/// Columns that the model can't read, named.
pub(super) fn model_columns(model: &ModelSpec, frame: &Frame, target: &str) -> Result<Vec<Column>> {
    match model {
        ModelSpec::Mlp(mlp) if mlp.embed.is_some() => {
            mlp.embed.iter().try_for_each(|embed| check(embed, frame, target))?;
            let fields = frame.schema().fields().iter().filter(|field| field.name() != target);
            fields
                .map(|field| match &mlp.embed {
                    Some(embed) if embed.columns.contains(field.name()) => categories(embed, frame, field.name()),
                    _ => column(field),
                })
                .collect()
        }
        ModelSpec::Transformer(transformer) => Ok(vec![sequence(transformer, frame, target)?]),
        _ => columns(frame, target),
    }
}

fn check(embed: &Embed, frame: &Frame, target: &str) -> Result<()> {
    if embed.columns.iter().any(|name| name == target) {
        return Err(Error::usage(format!("`model.mlp.embed` names {target:?}, which is the target")));
    }
    embed.columns.iter().try_for_each(|name| frame.column(name).map(drop)).context("`model.mlp.embed`")
}

fn categories(embed: &Embed, frame: &Frame, name: &str) -> Result<Column> {
    let values = frame.column(name)?;
    let kind = values.data_type();
    let Some(all) = Classes::distinct(&values)? else {
        return Err(Error::usage(format!(
            "`model.mlp.embed` names {name:?}, which is of type {kind}; categories are text, integers or booleans"
        )));
    };
    let mut rows = vec![0; all.len()];
    all.places(&values)?.into_iter().flatten().for_each(|place| rows[place] += 1);
    let categories = all.keep(|place| rows[place] >= embed.rare.get());
    let kind = if text(kind) { &DataType::Utf8 } else { kind };
    Ok(Column { categories: Some(categories), ..Column::new(name.to_owned(), kind, None) })
}

fn sequence(spec: &Transformer, frame: &Frame, target: &str) -> Result<Column> {
    let mut fields = frame.schema().fields().iter().filter(|field| field.name() != target);
    let (Some(field), None) = (fields.next(), fields.next()) else {
        let names: Vec<&str> = frame.schema().fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Error::usage(format!(
            "a transformer reads one column besides the target {target:?}, but there are {}",
            names.join(", ")
        ))
        .help("choose one with `sql`"));
    };
    let name = field.name();
    if text(field.data_type()) {
        if spec.vocabulary.get() < 256 {
            return Err(Error::usage(format!(
                "`model.transformer.vocabulary` is {}, but {name:?} is text, whose bytes need 256",
                spec.vocabulary
            )));
        }
        return Ok(Column { bytes: Some(spec.length.get()), ..Column::new(name.clone(), &DataType::Utf8, None) });
    }
    match column(field) {
        Ok(column) if column.is_integers() => Ok(Column { vocabulary: Some(spec.vocabulary.get()), ..column }),
        _ => Err(Error::new(format!(
            "column {name:?} is of type {}; a transformer reads text or lists of integers",
            field.data_type()
        ))),
    }
}

/// The fields of a row of these columns, as a network sees them.
pub(super) fn fields(model: &ModelSpec, columns: &[Column]) -> Vec<Field> {
    let embed = match model {
        ModelSpec::Mlp(mlp) => mlp.embed.as_ref(),
        _ => None,
    };
    let table = |column: &Column| {
        let categories = column.categories.as_ref()?.len();
        let width = embed.and_then(|embed| embed.width).map_or((categories / 2 + 1).min(WIDEST), usize::from);
        Some(Table { name: column.name.clone(), slots: categories + 1, width })
    };
    let numbers = |column: &Column| Field::numbers(column.width());
    columns.iter().map(|column| Field { table: table(column), ..numbers(column) }).collect()
}

/// Writes a batch's categories or bytes into rows of `stride` values, from `offset` on.
pub(super) fn encode(
    array: &ArrayRef,
    column: &Column,
    first: usize,
    out: &mut [f32],
    (offset, stride): (usize, usize),
) -> Result<()> {
    let rows = out.chunks_exact_mut(stride);
    let misfit =
        |wanted: &str| Error::usage(format!("column {:?} is of type {}, not {wanted}", column.name, array.data_type()));
    if let Some(categories) = &column.categories {
        if !categories.fits(array.data_type()) {
            return Err(misfit(&categories.data_type().to_string()));
        }
        for (row, place) in rows.zip(categories.places(array)?) {
            row[offset] = place.map_or(0.0, |place| place as f32 + 1.0);
        }
        return Ok(());
    }
    if !text(array.data_type()) {
        return Err(misfit("text"));
    }
    no_nulls(array, &column.name, first, 1)?;
    let texts = cast(array, &DataType::Utf8)?;
    for (row, text) in rows.zip(texts.as_string::<i32>().iter().flatten()) {
        let row = &mut row[offset..offset + column.width()];
        row.fill(END);
        row.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = f32::from(byte));
    }
    Ok(())
}
