//! The stage that learns features.

use super::KIND;
use super::apply::{Source, Spec};
use super::chain::Chain;
use super::column::{Column, Kind, plain_type};
use super::params::{Fields, Fit};
use super::plan::{plan, together};
use crate::parallel::in_order;
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use ropeway_framework::data::{Frame, Model, Tensors};
use ropeway_framework::stage::{Cancel, Params, Threads};
use ropeway_framework::{Error, Fault, Result};

/// The stage. Every column is learnt on one thread, so the model does not depend on how many there are.
pub(super) fn fit(rows: Frame, Params(Fit(params)): Params<Fit>, threads: Threads, cancel: Cancel) -> Result<Model> {
    if rows.rows() == 0 {
        return Err(Error::new("there are no rows to learn features from"));
    }
    check_target(&rows, &params)?;
    let columns = chosen(&rows, &params)?;
    let kinds = kinds(&columns)?;
    let passive: Vec<&str> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .filter(|name| columns.iter().all(|(column, _)| column != name))
        .collect();
    let tracks = plan(&kinds, &params.steps, &passive)?;

    let learnt = in_order(threads.0, tracks.len(), |index| {
        cancel.check()?;
        let (name, data_type) = &columns[index];
        let column = Column::read(&pieces(&rows, name)?, data_type)
            .map_err(|error| error.context(format!("column {name:?}")))?;
        Chain::learn(&tracks[index], column, &params.steps)
    });
    let mut sources = Vec::with_capacity(learnt.len());
    let mut errors = Vec::new();
    for ((_, data_type), chain) in columns.iter().zip(learnt) {
        match chain {
            Ok(chain) => sources.push(Source { data_type: data_type.to_string(), chain }),
            Err(error) if error.whose() == Fault::Interrupted => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    if let Some(error) = together(errors) {
        return Err(error);
    }
    let spec = Spec { target: params.target, columns: sources };
    spec.check_names()?;
    Model::new(KIND, &spec, Tensors::new())
}

fn pieces(rows: &Frame, name: &str) -> Result<Vec<ArrayRef>> {
    let position = rows.position(name)?;
    Ok(rows.batches().iter().map(|batch| batch.column(position).clone()).collect())
}

fn check_target(rows: &Frame, params: &Fields) -> Result<()> {
    let Some(target) = &params.target else { return Ok(()) };
    let column = rows.column(target).map_err(|error| error.context("the target"))?;
    match column.logical_null_count() {
        0 => Ok(()),
        nulls => {
            Err(Error::new(format!("the target {target:?} has {nulls} null{}", if nulls == 1 { "" } else { "s" }))
                .help(format!(
                    "nothing can be learnt from such rows: drop them with `sql`, WHERE {target} IS NOT NULL"
                )))
        }
    }
}

/// The columns that features are made of, with their types.
fn chosen(rows: &Frame, params: &Fields) -> Result<Vec<(String, DataType)>> {
    for (list, names) in [("drop", params.drop.as_slice()), ("keep", params.keep.as_deref().unwrap_or_default())] {
        for name in names {
            rows.position(name).map_err(|error| error.context(format!("`{list}`")))?;
        }
    }
    let wanted = |name: &String| {
        params.target.as_ref() != Some(name)
            && !params.drop.contains(name)
            && params.keep.as_ref().is_none_or(|keep| keep.contains(name))
    };
    let fields = rows.schema().fields().iter().filter(|field| wanted(field.name()));
    let columns: Vec<_> = fields.map(|field| (field.name().clone(), plain_type(field.data_type()))).collect();
    match columns.is_empty() {
        true => Err(Error::new("no column is left to make features of").help("look at `target`, `drop` and `keep`")),
        false => Ok(columns),
    }
}

fn kinds(columns: &[(String, DataType)]) -> Result<Vec<(String, Kind)>> {
    let mut errors = Vec::new();
    let mut kinds = Vec::with_capacity(columns.len());
    for (name, data_type) in columns {
        match Kind::of(data_type) {
            Some(kind) => kinds.push((name.clone(), kind)),
            None => errors.push(
                Error::new(format!("column {name:?} is of type {data_type}, of which no feature can be made"))
                    .help(format!("convert it with `sql`, or leave it out: `drop = [{name:?}]`")),
            ),
        }
    }
    together(errors).map_or(Ok(kinds), Err)
}
