//! Fitted features, and the stage that applies them.

use super::KIND;
use super::chain::Chain;
use super::column::Column;
use crate::parallel::in_order;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ropeway_framework::data::{BATCH_ROWS, Frame, Model};
use ropeway_framework::stage::{Apply, Threads};
use ropeway_framework::{Context, Error, Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What `features.fit` learnt: the description of a model of kind `features`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The column to predict.
    pub(super) target: Option<String>,
    /// The columns that features are made of, in the order of the training rows.
    pub(super) columns: Vec<Source>,
}

/// One column and what becomes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Source {
    /// Its Arrow type, as Arrow writes it.
    #[serde(rename = "type")]
    pub(super) data_type: String,
    /// What was learnt.
    #[serde(flatten)]
    pub(super) chain: Chain,
}

impl Source {
    fn parsed_type(&self) -> Result<DataType> {
        self.data_type.parse().context(format!("the type of column {:?}", self.chain.name))
    }
}

impl Spec {
    fn fields(&self) -> Result<Vec<Field>> {
        let mut fields = Vec::new();
        for source in &self.columns {
            source.chain.fields(&source.parsed_type()?, &mut fields)?;
        }
        Ok(fields)
    }

    /// Checks that no two features share a name.
    ///
    /// # Errors
    /// The name that occurs twice.
    pub(super) fn check_names(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        let fields = self.fields()?;
        let names = fields.iter().map(Field::name).chain(&self.target);
        match names.into_iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(Error::new(format!("two features would be called {name:?}"))
                .help("rename one of the columns with `sql`: SELECT column AS name")),
            None => Ok(()),
        }
    }
}

/// Fitted features, ready to be applied.
#[derive(Debug)]
pub struct Features {
    spec: Spec,
    types: Vec<DataType>,
    input: SchemaRef,
    output: SchemaRef,
}

/// Loads a model of kind `features`.
///
/// # Errors
/// A model of another kind, or a description of another shape.
pub fn load(model: &Model) -> Result<Box<dyn Apply>> {
    Ok(Box::new(Features::new(model)?))
}

impl Features {
    /// The features of a model.
    ///
    /// # Errors
    /// A model of another kind, or a description of another shape.
    pub fn new(model: &Model) -> Result<Self> {
        if model.kind() != KIND {
            return Err(Error::usage(format!("expected features, found a model of kind {:?}", model.kind()))
                .help("give the output of a `features.fit` stage; `evaluate` applies other models"));
        }
        let spec: Spec = model.parse()?;
        let types = spec.columns.iter().map(Source::parsed_type).collect::<Result<Vec<_>>>()?;
        let input =
            spec.columns.iter().zip(&types).map(|(source, data_type)| {
                Field::new(&source.chain.name, data_type.clone(), source.chain.takes_missing())
            });
        let input = Arc::new(Schema::new(input.collect::<Vec<_>>()));
        let output = Arc::new(Schema::new(spec.fields()?));
        Ok(Self { spec, types, input, output })
    }

    fn column(&self, index: usize, piece: &ArrayRef, first: usize) -> Result<Vec<ArrayRef>> {
        let chain = &self.spec.columns[index].chain;
        let column = Column::read(std::slice::from_ref(piece), &self.types[index])
            .map_err(|error| error.context(format!("column {:?}", chain.name)))?;
        let mut features = Vec::new();
        chain.apply(column, first, &mut features)?;
        Ok(features)
    }

    fn positions(&self, rows: &Frame) -> Result<Vec<usize>> {
        let names = self.spec.columns.iter().map(|source| source.chain.name.as_str());
        let lacks = |error: Error| error.context("the features need more columns").fault(Fault::Usage);
        names.map(|name| rows.position(name).map_err(lacks)).collect()
    }
}

/// Pieces of at most [`BATCH_ROWS`] rows, with the number of their first row.
fn pieces(rows: &Frame) -> Vec<(usize, RecordBatch)> {
    let mut pieces = Vec::with_capacity(rows.batches().len());
    let mut first = 0;
    for batch in rows.batches() {
        for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
            let length = BATCH_ROWS.min(batch.num_rows() - start);
            pieces.push((first + start, batch.slice(start, length)));
        }
        first += batch.num_rows();
    }
    pieces
}

impl Apply for Features {
    fn input(&self) -> SchemaRef {
        self.input.clone()
    }

    fn output(&self) -> SchemaRef {
        self.output.clone()
    }

    fn target(&self) -> Option<&str> {
        self.spec.target.as_deref()
    }

    fn apply(&self, rows: &Frame) -> Result<Frame> {
        self.apply_on(rows, 1)
    }

    fn apply_on(&self, rows: &Frame, threads: usize) -> Result<Frame> {
        let positions = self.positions(rows)?;
        let target = self.spec.target.as_ref().and_then(|target| rows.schema().index_of(target).ok());
        let schema = match target {
            None => self.output.clone(),
            Some(position) => {
                let own = self.output.fields().iter().cloned();
                Arc::new(Schema::new(own.chain([rows.schema().fields()[position].clone()]).collect::<Vec<_>>()))
            }
        };
        let pieces = pieces(rows);
        let width = self.spec.columns.len();
        let jobs = pieces.len() * width;
        let enough = rows.rows().saturating_mul(self.output.fields().len()) > 65_536;
        let results = in_order(if enough { threads } else { 1 }, jobs, |job| {
            let (first, piece) = &pieces[job / width];
            self.column(job % width, piece.column(positions[job % width]), *first)
        });

        let mut results = results.into_iter();
        let mut batches = Vec::with_capacity(pieces.len());
        for (_, piece) in &pieces {
            let mut columns = Vec::with_capacity(schema.fields().len());
            for features in results.by_ref().take(width) {
                columns.extend(features?);
            }
            columns.extend(target.map(|position| piece.column(position).clone()));
            batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
        Frame::new(schema, batches)
    }
}

/// The stage.
pub(super) fn apply(rows: Frame, features: Model, threads: Threads) -> Result<Frame> {
    Features::new(&features)?.apply_on(&rows, threads.0)
}
