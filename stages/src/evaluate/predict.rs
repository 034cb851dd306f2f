//! The `predict` stage.

use super::stage::apply;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use ropeway_framework::data::{Frame, Model};
use ropeway_framework::stage::{Models, Params};
use ropeway_framework::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// The `with` table of `predict`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PredictSpec {
    /// What the names of the new columns begin with: `model.` gives `model.prediction`.
    pub prefix: String,
}

/// Adds a model's answers to rows.
pub(super) fn predict(
    model: Model,
    features: Option<Model>,
    rows: Frame,
    Params(spec): Params<PredictSpec>,
    models: Models,
) -> Result<Frame> {
    let model = models.load(&model).context("input \"model\"")?;
    let answers = apply(&*model, features.as_ref(), &rows, &models)?.to_batch()?;
    let given = rows.to_batch()?;
    let mut fields: Vec<Field> = rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns: Vec<ArrayRef> = given.columns().to_vec();
    for (field, column) in answers.schema().fields().iter().zip(answers.columns()) {
        let name = format!("{}{}", spec.prefix, field.name());
        if fields.iter().any(|other| *other.name() == name) {
            return Err(Error::usage(format!("the rows have a column {name:?} already"))
                .help("give the predictions other names: prefix = \"model.\""));
        }
        fields.push(field.as_ref().clone().with_name(name).with_metadata(HashMap::new()));
        columns.push(column.clone());
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    Frame::new(schema, vec![batch])
}
