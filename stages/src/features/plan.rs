//! Which step takes which column: decided from names and kinds alone, so that mistakes are found before any number is
//! computed, and all at once.

use super::column::Kind;
use super::date::Part;
use super::params::{Constant, Date, ImputeMethod, Step};
use ropeway_framework::{Error, Result, nearest};
use std::collections::BTreeSet;

/// The way of one column through the steps.
#[derive(Debug)]
pub(super) struct Track {
    /// The column.
    pub(super) name: String,
    /// The positions of the steps that take it and leave it one column.
    pub(super) steps: Vec<usize>,
    /// How it becomes features.
    pub(super) end: End,
}

/// How a column becomes features.
#[derive(Debug)]
pub(super) enum End {
    /// It is a number.
    Number,
    /// It is a vector.
    Vector,
    /// This step (`onehot`, `hash` or `text`) makes features of it.
    Encoded(usize),
    /// Each part of a date goes its own way; one on a circle is finished.
    Parts(Vec<(Part, Option<Track>)>),
}

/// The ways of columns through steps. `passive` are names in the table of which no feature is made.
///
/// # Errors
/// A step that names a column that is not there or that it can't take; a column that no step makes a feature of.
pub(super) fn plan(columns: &[(String, Kind)], steps: &[Step], passive: &[&str]) -> Result<Vec<Track>> {
    let mut planner = Planner { steps, live: vec![BTreeSet::new(); steps.len()], errors: Vec::new() };
    let tracks: Vec<Track> = columns.iter().filter_map(|(name, kind)| planner.track(name.clone(), *kind, 0)).collect();
    let mut errors = planner.misnamed(columns, passive);
    errors.append(&mut planner.errors);
    match together(errors) {
        Some(error) => Err(error),
        None => Ok(tracks),
    }
}

/// Several mistakes as one error, with the advice of the first.
pub(super) fn together(mut errors: Vec<Error>) -> Option<Error> {
    const SHOWN: usize = 8;
    if errors.len() < 2 {
        return errors.pop();
    }
    let mut lines: Vec<String> = errors.iter().take(SHOWN).map(Error::to_string).collect();
    if errors.len() > SHOWN {
        lines.push(format!("and {} more", errors.len() - SHOWN));
    }
    let error = Error::new(lines.join("; "));
    Some(match errors.first().and_then(Error::advice) {
        Some(advice) => error.help(advice),
        None => error,
    })
}

struct Planner<'a> {
    steps: &'a [Step],
    /// The columns that are still under way at each step.
    live: Vec<BTreeSet<String>>,
    errors: Vec<Error>,
}

impl Planner<'_> {
    fn track(&mut self, name: String, mut kind: Kind, from: usize) -> Option<Track> {
        let mut taken = Vec::new();
        for index in from..self.steps.len() {
            self.live[index].insert(name.clone());
            let step = &self.steps[index];
            let named = step.columns().map(|columns| columns.contains(&name));
            if named == Some(false) {
                continue;
            }
            if !takes(step, kind, named.is_some()) {
                if named.is_some() {
                    self.errors.push(refused(index, step, &name, kind));
                }
                continue;
            }
            match step {
                Step::Onehot(_) | Step::Hash(_) | Step::Text(_) => {
                    return Some(Track { name, steps: taken, end: End::Encoded(index) });
                }
                Step::Date(date) => {
                    let parts = self.parts(&name, kind, date, index);
                    return Some(Track { name, steps: taken, end: End::Parts(parts) });
                }
                Step::Ordinal(_) => kind = Kind::Numbers,
                _ => {}
            }
            taken.push(index);
        }
        let end = match kind {
            Kind::Numbers => End::Number,
            Kind::Vectors => End::Vector,
            Kind::Text | Kind::Times { .. } => {
                self.errors.push(unfinished(&name, kind));
                return None;
            }
        };
        Some(Track { name, steps: taken, end })
    }

    fn parts(&mut self, name: &str, kind: Kind, date: &Date, index: usize) -> Vec<(Part, Option<Track>)> {
        let clock = kind == Kind::Times { clock: true };
        let mut parts = Vec::new();
        for part in date.parts.as_deref().unwrap_or(Part::usual(clock)) {
            if part.needs_clock() && !clock {
                let error =
                    Error::new(format!("column {name:?} has dates without a time of day, so no {}", part.name()));
                self.errors.push(error.help("take it out of `parts`"));
            } else if date.cyclic && part.cycle().is_some() {
                parts.push((*part, None));
            } else if let Some(track) = self.track(format!("{name}.{}", part.name()), Kind::Numbers, index + 1) {
                parts.push((*part, Some(track)));
            }
        }
        parts
    }

    /// The columns that steps name but that are not there.
    fn misnamed(&self, columns: &[(String, Kind)], passive: &[&str]) -> Vec<Error> {
        let mut errors = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            for name in step.columns().unwrap_or_default().iter().filter(|name| !self.live[index].contains(*name)) {
                let place = place(index, step);
                errors.push(if passive.contains(&name.as_str()) {
                    Error::new(format!("{place} names the column {name:?}, of which no feature is made"))
                        .help("the target, columns in `drop` and those not in `keep` go through no step")
                } else if columns.iter().any(|(column, _)| column == name) {
                    Error::new(format!("{place} names the column {name:?}, which an earlier step has finished"))
                        .help("put this step before the one that finishes the column, or leave the column out of it")
                } else {
                    let error = Error::new(format!("{place} names the column {name:?}, which is not there"));
                    match nearest(name, self.live[index].iter().map(String::as_str)) {
                        Some(near) => error.help(format!("did you mean {near:?}?")),
                        None => {
                            let names: Vec<&str> = self.live[index].iter().map(String::as_str).collect();
                            error.help(format!("the columns at this step are {}", names.join(", ")))
                        }
                    }
                });
            }
        }
        errors
    }
}

/// Whether a step takes a column: numbers are categories only where the step names them.
fn takes(step: &Step, kind: Kind, named: bool) -> bool {
    match step {
        Step::Impute(step) => match (kind, step.method, &step.value) {
            (Kind::Numbers, ImputeMethod::Constant, Some(Constant::Number(_))) => true,
            (Kind::Numbers, method, _) => method != ImputeMethod::Constant,
            (Kind::Text, ImputeMethod::Constant, Some(Constant::Text(_))) => true,
            (Kind::Text, method, _) => method == ImputeMethod::Mode,
            _ => false,
        },
        Step::Scale(_) | Step::Bucket(_) | Step::Clip(_) | Step::Log1p(_) => kind == Kind::Numbers,
        Step::Onehot(_) | Step::Ordinal(_) | Step::Hash(_) => kind == Kind::Text || (named && kind == Kind::Numbers),
        Step::Date(_) => matches!(kind, Kind::Times { .. }),
        Step::Text(_) => kind == Kind::Text,
    }
}

fn place(index: usize, step: &Step) -> String {
    format!("step {} ({})", index + 1, step.name())
}

fn refused(index: usize, step: &Step, name: &str, kind: Kind) -> Error {
    let error = Error::new(format!("{} can't take the column {name:?}, which is {}", place(index, step), kind.name()));
    match step {
        Step::Impute(_) if kind == Kind::Text => {
            error.help("text is filled in by `method = \"mode\"`, or by `method = \"constant\"` and a text as `value`")
        }
        Step::Impute(_) if kind == Kind::Numbers => error.help("numbers are filled in by a number as `value`"),
        Step::Date(_) => error.help("read the column as a time, or make it one with `sql`: CAST(column AS TIMESTAMP)"),
        Step::Scale(_) | Step::Bucket(_) | Step::Clip(_) | Step::Log1p(_) => error.help("it takes numbers"),
        _ => error.help("leave the column out of this step"),
    }
}

fn unfinished(name: &str, kind: Kind) -> Error {
    let error = Error::new(format!("column {name:?} is {}, and no step makes numbers of it", kind.name()));
    match kind {
        Kind::Text => error.help(format!(
            "add `{{ onehot = [{name:?}] }}` (or `ordinal`, `hash`, `text`), or leave the column out: `drop = [{name:?}]`"
        )),
        _ => error.help(format!("add `{{ date = [{name:?}] }}`, or leave the column out: `drop = [{name:?}]`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fails(steps: Value) -> String {
        let steps: Vec<Step> = serde_json::from_value(steps).unwrap();
        let columns = [
            ("age".to_owned(), Kind::Numbers),
            ("city".to_owned(), Kind::Text),
            ("day".to_owned(), Kind::Times { clock: false }),
        ];
        format!("{:?}", plan(&columns, &steps, &["label"]).unwrap_err())
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let error = fails(json!([{"scale": {"columns": ["agee"]}}]));
        for words in
            ["step 1 (scale) names the column \"agee\"", "did you mean \"age\"", "\"city\" is text", "\"day\" is dates"]
        {
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn columns_that_are_not_for_a_step_are_refused() {
        for (steps, words) in [
            (json!([{"scale": {"columns": ["city"]}}]), "can't take the column \"city\", which is text"),
            (json!([{"date": ["city"]}]), "CAST(column AS TIMESTAMP)"),
            (json!([{"onehot": ["city"]}, {"scale": {"columns": ["city"]}}]), "an earlier step has finished"),
            (json!([{"scale": {"columns": ["label"]}}]), "of which no feature is made"),
            (json!([{"date": {"parts": ["hour"]}}]), "dates without a time of day"),
            (json!([{"impute": {"method": "mean", "columns": ["city"]}}]), "which is text"),
        ] {
            let error = fails(steps.clone());
            assert!(error.contains(words), "{steps}: {error}");
        }
    }

    #[test]
    fn parts_of_a_date_go_through_the_steps_behind_it() {
        let steps: Vec<Step> = serde_json::from_value(
            json!([{"date": {"parts": ["year", "month"]}}, {"scale": {"columns": ["day.year"]}}]),
        )
        .unwrap();
        let tracks = plan(&[("day".to_owned(), Kind::Times { clock: false })], &steps, &[]).unwrap();
        let End::Parts(parts) = &tracks[0].end else { panic!("{tracks:?}") };
        let taken: Vec<_> = parts.iter().map(|(_, track)| track.as_ref().unwrap().steps.clone()).collect();
        assert_eq!(taken, [vec![1], vec![]]);
    }
}
