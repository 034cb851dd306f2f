//! The table of trials.

use crate::{Domain, Space, State, Trial};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use ropeway_framework::Result;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::canonical_json;
use serde_json::Value;
use std::sync::Arc;

/// One row a trial: `trial`, `state`, `rung` and `budget` of its last result, its `value` there, the `error` of a
/// failed one, and one column a parameter. A parameter that did not matter is null, and so is every budget unless
/// `budgets` says that they are known.
pub(super) fn table(space: &Space, trials: &[Trial], budgets: bool) -> Result<Frame> {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let indices: Int64Array = trials.iter().map(|trial| Some(whole(trial.index))).collect();
    let states: StringArray = trials.iter().map(|trial| Some(trial.state.name())).collect();
    let rungs: Int64Array =
        trials.iter().map(|trial| trial.results.len().checked_sub(1).map(|rung| rung as i64)).collect();
    let budgets: Int64Array = trials.iter().map(|trial| trial.budget().filter(|_| budgets).map(whole)).collect();
    let values: Float64Array = trials.iter().map(Trial::value).collect();
    let errors: StringArray = trials
        .iter()
        .map(|trial| match &trial.state {
            State::Failed(why) => Some(why.as_str()),
            _ => None,
        })
        .collect();
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("trial".into(), Arc::new(indices)),
        ("state".into(), Arc::new(states)),
        ("rung".into(), Arc::new(rungs)),
        ("budget".into(), Arc::new(budgets)),
        ("value".into(), Arc::new(values)),
        ("error".into(), Arc::new(errors)),
    ];
    for (path, parameter) in space.iter() {
        let taken = |name: &str| columns.iter().any(|(other, _)| other == name);
        let mut name = path.to_owned();
        while taken(&name) {
            name = format!("param.{name}");
        }
        let cells: Vec<Option<&Value>> = trials.iter().map(|trial| trial.values.get(path)).collect();
        columns.push((name, column(&parameter.domain, &cells)));
    }
    Frame::from_columns(columns)
}

/// A column of the plainest type that holds every value of the domain; JSON text if none does.
fn column(domain: &Domain, cells: &[Option<&Value>]) -> ArrayRef {
    let all = |test: fn(&Value) -> bool| match domain {
        Domain::Choice(values) => values.iter().all(test),
        Domain::Float { .. } => test(&Value::from(0.5)),
        Domain::Int { .. } => test(&Value::from(1)),
    };
    if all(|value| value.as_i64().is_some()) {
        Arc::new(cells.iter().map(|cell| cell.and_then(Value::as_i64)).collect::<Int64Array>())
    } else if all(Value::is_number) {
        Arc::new(cells.iter().map(|cell| cell.and_then(Value::as_f64)).collect::<Float64Array>())
    } else if all(Value::is_boolean) {
        Arc::new(cells.iter().map(|cell| cell.and_then(Value::as_bool)).collect::<BooleanArray>())
    } else if all(Value::is_string) {
        Arc::new(cells.iter().map(|cell| cell.and_then(Value::as_str)).collect::<StringArray>())
    } else {
        Arc::new(cells.iter().map(|cell| cell.map(canonical_json)).collect::<StringArray>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Values;
    use arrow::datatypes::DataType;
    use serde_json::json;

    #[test]
    fn columns_have_the_plainest_type_and_unique_names() {
        let space: Space = serde_json::from_value(json!({
            "a": {"choice": [[1], "x"]}, "b": {"choice": [1, 2.5]}, "c": {"choice": [true, false]},
            "d": {"choice": ["x"]}, "value": {"int": [1, 2]}, "z": {"float": [0, 1], "when": {"c": true}},
        }))
        .unwrap();
        let values: Values = serde_json::from_value(json!({
            "a": [1], "b": 1, "c": false, "d": "x", "value": 2
        }))
        .unwrap();
        let trial =
            |index, state| Trial { index, values: values.clone(), rungs: vec![1, 3], results: vec![0.5], state };
        let frame = table(&space, &[trial(0, State::Pruned), trial(1, State::Failed("why".into()))], true).unwrap();
        let types = |name: &str| frame.column(name).unwrap().data_type().clone();
        assert_eq!(types("a"), DataType::Utf8);
        assert_eq!(types("b"), DataType::Float64);
        assert_eq!(types("c"), DataType::Boolean);
        assert_eq!(types("d"), DataType::Utf8);
        assert_eq!(types("param.value"), DataType::Int64);
        assert_eq!(frame.column("z").unwrap().null_count(), 2);
        assert_eq!(frame.column("error").unwrap().null_count(), 1);
        assert_eq!((frame.rows(), frame.columns()), (2, 12));
    }
}
