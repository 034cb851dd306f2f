//! What must be known of all parts before the first step, and what is wrong with them.

use super::source::{CHUNK, Given};
use super::tally::Tally;
use crate::train::columns::{Column, Features};
use crate::train::encoding::model_columns;
use crate::train::fit::Surroundings;
use crate::train::fitted::Description;
use crate::train::labels::Labels;
use crate::train::loss::Objective;
use crate::train::models::ModelSpec;
use crate::train::pool::Pool;
use crate::train::spec::TrainSpec;
use crate::train::stage::{check_classes, examples, objective};
use crate::train::target::{Classes, numbers, too_few};
use arrow::datatypes::DataType;
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Error, Result};

/// What a look at all parts told.
pub(in crate::train) struct Survey {
    pub(in crate::train) description: Description,
    /// Rows by part.
    pub(in crate::train) sizes: Vec<usize>,
    /// Rows by class; none if the target is a number.
    pub(in crate::train) counts: Vec<usize>,
    /// The class of every row, if it was asked for.
    pub(in crate::train) labels: Option<Labels>,
}

/// What all parts have in common, as the first rows show it.
struct Pattern {
    fields: Vec<(String, DataType)>,
    target: String,
    objective: Objective,
    columns: Vec<Column>,
    /// Those that are numbers.
    numbers: Vec<Column>,
}

/// What was seen in some rows.
struct Seen {
    /// The classes there, and each row's.
    target: Option<(Classes, Vec<u32>)>,
    /// The categories of each column that has some, and how often each occurs.
    categories: Vec<(Classes, Vec<usize>)>,
}

/// Looks at all parts of the training data; they must fit together, and a model must be able to read every value.
///
/// # Errors
/// As [`check`], and what a training part must have: rows, a target, classes.
pub(in crate::train) fn survey(
    given: &Given,
    spec: &TrainSpec,
    with_labels: bool,
    around: &Surroundings,
) -> Result<Survey> {
    let pattern = first_rows(given).and_then(|rows| Pattern::new(&rows, spec))?;
    let (mut target, mut labels) = (None::<Tally>, Labels::default());
    let mut categories: Vec<Option<Tally>> = Vec::new();
    let take = |seen: Seen| {
        if let Some((classes, rows)) = seen.target {
            let numbers = count(target.get_or_insert_with(|| Tally::like(&classes)), &classes, &rows)?;
            if with_labels {
                rows.iter().for_each(|row| labels.push(numbers[*row as usize]));
            }
        }
        categories.resize_with(seen.categories.len(), || None);
        for (tally, (classes, rows)) in categories.iter_mut().zip(seen.categories) {
            tally.get_or_insert_with(|| Tally::like(&classes)).add(&classes, &rows)?;
        }
        Ok(())
    };
    let sizes = each(given, around, |rows| pattern.look(rows), take)?;
    let rows = sizes.iter().sum();
    let mut survey = Survey {
        description: Description {
            model: spec.model.clone(),
            objective: pattern.objective,
            target: spec.target.clone(),
            classes: None,
            columns: pattern.columns,
        },
        sizes,
        counts: Vec::new(),
        labels: None,
    };
    if let Some(target) = target.map(Tally::done) {
        if target.rows.iter().filter(|rows| **rows > 0).count() < 2 {
            return Err(too_few(&spec.target).context(format!("input {:?}", given.input)));
        }
        check_classes(&target.classes, spec, pattern.objective, rows)?;
        survey.labels = with_labels.then(|| labels.renamed(&target.places));
        (survey.description.classes, survey.counts) = (Some(target.classes), target.rows);
    }
    let rare = match &spec.model {
        ModelSpec::Mlp(mlp) => mlp.embed.as_ref().map_or(1, |embed| embed.rare.get()),
        _ => 1,
    };
    let embedded = survey.description.columns.iter_mut().filter(|column| column.categories.is_some());
    for (column, tally) in embedded.zip(categories.into_iter().flatten()) {
        let found = tally.done();
        column.categories = Some(found.classes.keep(|place| found.rows[place] >= rare));
    }
    Ok(survey)
}

/// Looks at all parts of an input that a model is to read; gives their sizes.
///
/// # Errors
/// Parts with other columns or types, and values that no model can read, with the part and the row; no rows at all.
pub(in crate::train) fn check(given: &Given, description: &Description, around: &Surroundings) -> Result<Vec<usize>> {
    let sizes = each(given, around, |rows| examples(rows, description, 1).map(drop), |()| Ok(()))?;
    match sizes.iter().any(|rows| *rows > 0) {
        true => Ok(sizes),
        false => Err(no_rows(given)),
    }
}

fn no_rows(given: &Given) -> Error {
    match given.parts.is_empty() {
        true => Error::new(format!("input {:?} is a list without parts", given.input)),
        false => Error::new(format!("input {:?} has no rows in any of its {} parts", given.input, given.parts.len())),
    }
}

/// The first rows that there are, as the features give them.
fn first_rows(given: &Given) -> Result<Frame> {
    for part in 0..given.parts.len() {
        let rows = given.part(part)?;
        if rows.rows() > 0 {
            return given.transformed(rows.slice(0, CHUNK), 1).context(given.name(part));
        }
    }
    Err(no_rows(given))
}

/// How often each of some classes occurs, told to a tally; their numbers there.
fn count(tally: &mut Tally, classes: &Classes, rows: &[u32]) -> Result<Vec<u32>> {
    let mut counts = vec![0; classes.len()];
    rows.iter().for_each(|class| counts[*class as usize] += 1);
    tally.add(classes, &counts)
}

/// Looks at the rows of all parts, on all threads, and takes what was seen in their order. Gives the sizes of the parts.
fn each<T: Send>(
    given: &Given,
    around: &Surroundings,
    look: impl Fn(&Frame) -> Result<T> + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<Vec<usize>> {
    let pool = Pool::new(around.threads.0)?;
    let mut sizes = Vec::with_capacity(given.parts.len());
    for index in 0..given.parts.len() {
        around.cancel.check()?;
        let part = given.part(index)?;
        let rows =
            |start: usize, count: usize| given.transformed(part.slice(start, count), 1).and_then(|rows| look(&rows));
        let chunk = |chunk: usize| {
            let start = chunk * CHUNK;
            // An error names the row of what it was given: of the whole part, then.
            rows(start, CHUNK).map_err(|error| rows(0, start + CHUNK).err().unwrap_or(error))
        };
        for seen in pool.map(part.rows().div_ceil(CHUNK), || (), |(), index| chunk(index)) {
            seen.and_then(&mut take).context(given.name(index))?;
        }
        sizes.push(part.rows());
        around.progress.step(index as u64 + 1, Some(given.parts.len() as u64), "part", &[]);
    }
    Ok(sizes)
}

impl Pattern {
    fn new(rows: &Frame, spec: &TrainSpec) -> Result<Self> {
        let target = rows.column(&spec.target).context("`target`")?;
        let columns = model_columns(&spec.model, rows, &spec.target).context("input \"train\"")?;
        Ok(Self {
            fields: fields(rows),
            target: spec.target.clone(),
            objective: objective(spec, target.data_type())?,
            numbers: columns.iter().filter(|column| column.categories.is_none()).cloned().collect(),
            columns,
        })
    }

    fn look(&self, rows: &Frame) -> Result<Seen> {
        let found = fields(rows);
        if found != self.fields {
            let list = |fields: &[(String, DataType)]| {
                fields.iter().map(|(name, kind)| format!("{name:?} {kind}")).collect::<Vec<_>>().join(", ")
            };
            let (found, others) = (list(&found), list(&self.fields));
            return Err(Error::new(format!("its columns are {found}, but those of the parts before {others}")));
        }
        let target = rows.column(&self.target)?;
        let target = match self.objective.classifies() {
            true => Some(Classes::occurring(&target, &self.target)?),
            false => {
                numbers(&target, &self.target)?;
                None
            }
        };
        if !self.numbers.is_empty() {
            Features::read(rows, &self.numbers, 1)?;
        }
        let embedded = self.columns.iter().filter(|column| column.categories.is_some());
        let categories = embedded.map(|column| {
            let values = rows.column(&column.name)?;
            let all = Classes::distinct(&values)?.context(format!("column {:?} has no categories", column.name))?;
            let mut counts = vec![0; all.len()];
            all.places(&values)?.into_iter().flatten().for_each(|place| counts[place] += 1);
            Ok((all, counts))
        });
        Ok(Seen { target, categories: categories.collect::<Result<_>>()? })
    }
}

fn fields(rows: &Frame) -> Vec<(String, DataType)> {
    rows.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}
