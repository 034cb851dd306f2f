//! What the user asks of `features.fit`.

use super::date::Part;
use super::short::{self, Forms, Short};
use ropeway_framework::{Error, Result as Outcome};
use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};

/// What the `features.fit` stage is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Fields")]
pub(super) struct Fit(pub(super) Fields);

/// The parameters, not checked against each other yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fields {
    /// The column to predict: no feature is made of it, and it passes through unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    /// Columns that no feature is made of.
    pub(super) drop: Vec<String>,
    /// The only columns that features are made of; without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keep: Option<Vec<String>>,
    /// What is done to the columns, in order.
    pub(super) steps: Vec<Step>,
}

impl TryFrom<Fields> for Fit {
    type Error = Error;

    fn try_from(fields: Fields) -> Outcome<Self> {
        match (&fields.keep, fields.drop.is_empty()) {
            (Some(_), false) => Err(Error::usage("`keep` and `drop` can't be combined: `keep` drops all others")),
            _ => Ok(Self(fields)),
        }
    }
}

/// The columns that a step is for; all to which it can be applied if it names none.
pub(super) type Columns = Option<Vec<String>>;

/// One step: `{ scale = "standard" }`, or `{ scale = { method = "standard", columns = ["a", "b"] } }`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// Fills in missing values of numbers, or of text by `mode` or a constant.
    Impute(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Impute>")]
        Impute,
    ),
    /// Brings numbers to one scale. A constant column becomes 0.
    Scale(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Scale>")]
        Scale,
    ),
    /// One column of 0 and 1 for each category of a text (or of numbers, when named). A missing value is a category.
    Onehot(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<OneHot>")]
        OneHot,
    ),
    /// The number of a category in sorted order, from 0.
    Ordinal(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Ordinal>")]
        Ordinal,
    ),
    /// One of a fixed number of columns of 0 and 1, chosen by a hash of the text: for many or open categories.
    Hash(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Hash>")]
        Hash,
    ),
    /// The number of the interval in which a number lies, from 0.
    Bucket(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Bucket>")]
        Bucket,
    ),
    /// Parts of dates and times (of UTC where a time zone is known) as numbers, or as sine and cosine.
    Date(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Date>")]
        Date,
    ),
    /// Words of a text, counted in a fixed number of places by a hash: one vector of length 1.
    Text(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Words>")]
        Words,
    ),
    /// Brings numbers below `low` or above `high` to these bounds.
    Clip(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Clip>")]
        Clip,
    ),
    /// The natural logarithm of 1 + x.
    Log1p(
        #[serde(deserialize_with = "short::read")]
        #[schemars(with = "Forms<Log1p>")]
        Log1p,
    ),
}

impl Step {
    /// The columns that it names.
    pub(super) fn columns(&self) -> Option<&[String]> {
        let columns = match self {
            Step::Impute(step) => &step.columns,
            Step::Scale(step) => &step.columns,
            Step::Onehot(step) => &step.columns,
            Step::Ordinal(step) => &step.columns,
            Step::Hash(step) => &step.columns,
            Step::Bucket(step) => &step.columns,
            Step::Date(step) => &step.columns,
            Step::Text(step) => &step.columns,
            Step::Clip(step) => &step.columns,
            Step::Log1p(step) => &step.columns,
        };
        columns.as_deref()
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Step::Impute(_) => "impute",
            Step::Scale(_) => "scale",
            Step::Onehot(_) => "onehot",
            Step::Ordinal(_) => "ordinal",
            Step::Hash(_) => "hash",
            Step::Bucket(_) => "bucket",
            Step::Date(_) => "date",
            Step::Text(_) => "text",
            Step::Clip(_) => "clip",
            Step::Log1p(_) => "log1p",
        }
    }
}

/// Fills in missing values.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Impute {
    /// By what.
    pub(super) method: ImputeMethod,
    /// The constant, a number or a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Constant>,
    /// Which columns; without it, all of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

/// What replaces a missing value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ImputeMethod {
    /// The mean of the training rows.
    Mean,
    /// Their median.
    #[default]
    Median,
    /// Their most frequent value; of several the least.
    Mode,
    /// `value`.
    Constant,
}

/// A number for columns of numbers, or a text for columns of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Constant {
    /// For numbers.
    Number(f64),
    /// For text.
    Text(String),
}

impl Short for Impute {
    const FORMS: &'static str =
        "a method (\"mean\", \"median\", \"mode\"), a number to fill in, or a table `{ method, value, columns }`";

    fn word<E: serde::de::Error>(word: &str) -> Result<Self, E> {
        Ok(Self { method: ImputeMethod::deserialize(word.into_deserializer())?, ..Self::default() })
    }

    fn number<E: serde::de::Error>(number: f64) -> Result<Self, E> {
        Ok(Self { method: ImputeMethod::Constant, value: Some(Constant::Number(number)), columns: None })
    }

    fn check(&self) -> Result<(), String> {
        match (self.method, &self.value) {
            (ImputeMethod::Constant, None) => Err("method \"constant\" needs a `value`".into()),
            (ImputeMethod::Constant, Some(Constant::Number(number))) if !number.is_finite() => {
                Err(format!("`value` must be finite, but is {number}"))
            }
            (ImputeMethod::Constant, Some(_)) | (_, None) => Ok(()),
            _ => Err("`value` is for method \"constant\"".into()),
        }
    }
}

/// Brings numbers to one scale.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Scale {
    /// To which.
    pub(super) method: ScaleMethod,
    /// Which columns; without it, all numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

/// A scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ScaleMethod {
    /// Mean 0 and standard deviation 1.
    #[default]
    Standard,
    /// The training rows' least value is 0, their greatest 1.
    Minmax,
    /// Median 0 and distance between the quartiles 1.
    Robust,
    /// The greatest distance from 0 is 1.
    Maxabs,
}

impl Short for Scale {
    const FORMS: &'static str =
        "a method (\"standard\", \"minmax\", \"robust\", \"maxabs\") or a table `{ method, columns }`";

    fn word<E: serde::de::Error>(word: &str) -> Result<Self, E> {
        Ok(Self { method: ScaleMethod::deserialize(word.into_deserializer())?, columns: None })
    }
}

/// One column a category.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OneHot {
    /// Only the most frequent categories get a column, at most so many; the rest has 0 in all of them.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<usize>,
    /// Only categories with so many training rows get a column.
    #[schemars(range(min = 1))]
    pub(super) min_count: usize,
    /// What to do with a category that the training rows lack.
    pub(super) unknown: Unknown,
    /// Which columns; without it, all texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Default for OneHot {
    fn default() -> Self {
        Self { max: None, min_count: 1, unknown: Unknown::default(), columns: None }
    }
}

/// What to do with a category that the training rows lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unknown {
    /// It has 0 in every column.
    #[default]
    Ignore,
    /// It is an error.
    Error,
}

impl Short for OneHot {
    const FORMS: &'static str = "a list of columns or a table `{ max, min_count, unknown, columns }`";

    fn columns<E: serde::de::Error>(columns: Vec<String>) -> Result<Self, E> {
        Ok(Self { columns: Some(columns), ..Self::default() })
    }

    fn check(&self) -> Result<(), String> {
        at_least_one("max", self.max.unwrap_or(1))
    }
}

/// The number of a category.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ordinal {
    /// The number of a category that the training rows lack; without it, such a category is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unknown: Option<f64>,
    /// Which columns; without it, all texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Short for Ordinal {
    const FORMS: &'static str = "a list of columns or a table `{ unknown, columns }`";

    fn columns<E: serde::de::Error>(columns: Vec<String>) -> Result<Self, E> {
        Ok(Self { columns: Some(columns), unknown: None })
    }
}

/// A column chosen by hash.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Hash {
    /// How many columns.
    #[schemars(range(min = 1, max = 4096))]
    pub(super) buckets: usize,
    /// Which columns; without it, all texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Default for Hash {
    fn default() -> Self {
        Self { buckets: 32, columns: None }
    }
}

impl Short for Hash {
    const FORMS: &'static str = "a list of columns or a table `{ buckets, columns }`";

    fn columns<E: serde::de::Error>(columns: Vec<String>) -> Result<Self, E> {
        Ok(Self { columns: Some(columns), ..Self::default() })
    }

    fn check(&self) -> Result<(), String> {
        between("buckets", self.buckets, 1, 4096)
    }
}

/// The number of an interval.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Bucket {
    /// How many intervals with equally many training rows; this or `edges`.
    #[schemars(range(min = 2))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) buckets: Option<usize>,
    /// Where intervals begin, ascending; this or `buckets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edges: Option<Vec<f64>>,
    /// Which columns; without it, all numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Short for Bucket {
    const FORMS: &'static str = "a number of buckets or a table `{ buckets, edges, columns }`";

    fn number<E: serde::de::Error>(number: f64) -> Result<Self, E> {
        match number.fract() == 0.0 && (2.0..1e6).contains(&number) {
            true => Ok(Self { buckets: Some(number as usize), ..Self::default() }),
            false => Err(E::custom(format_args!("expected a whole number of at least 2 buckets, found {number}"))),
        }
    }

    fn check(&self) -> Result<(), String> {
        match (self.buckets, &self.edges) {
            (Some(buckets), None) => between("buckets", buckets, 2, 1_000_000),
            (None, Some(edges)) => {
                let ascending = edges.windows(2).all(|pair| pair[0] < pair[1]);
                match !edges.is_empty() && ascending && edges.iter().all(|edge| edge.is_finite()) {
                    true => Ok(()),
                    false => Err("`edges` must be finite numbers, each greater than the one before".into()),
                }
            }
            _ => Err("give one of `buckets` (a number) and `edges` (a list)".into()),
        }
    }
}

/// Parts of dates and times.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Date {
    /// Which parts; without it, year, month, day and weekday, and the hour where there is a time of day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<Vec<Part>>,
    /// Whether parts that come again (all but the year) become a sine and a cosine, so that 23 h is near 0 h.
    pub(super) cyclic: bool,
    /// Which columns; without it, all dates and times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Short for Date {
    const FORMS: &'static str = "a list of columns or a table `{ parts, cyclic, columns }`";

    fn columns<E: serde::de::Error>(columns: Vec<String>) -> Result<Self, E> {
        Ok(Self { columns: Some(columns), ..Self::default() })
    }

    fn check(&self) -> Result<(), String> {
        let parts = self.parts.as_deref().unwrap_or(&[Part::Year]);
        match parts.iter().enumerate().find(|(index, part)| parts[..*index].contains(part)) {
            Some((_, part)) => Err(format!("part {:?} is named twice", part.name())),
            None if parts.is_empty() => Err("`parts` names no part".into()),
            None => Ok(()),
        }
    }
}

/// Words, counted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Words {
    /// The length of the vector.
    #[schemars(range(min = 1, max = 65536))]
    pub(super) buckets: usize,
    /// The longest run of words that is counted as one.
    #[schemars(range(min = 1, max = 8))]
    pub(super) ngrams: usize,
    /// Which columns; without it, all texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Default for Words {
    fn default() -> Self {
        Self { buckets: 256, ngrams: 1, columns: None }
    }
}

impl Short for Words {
    const FORMS: &'static str = "a list of columns or a table `{ buckets, ngrams, columns }`";

    fn columns<E: serde::de::Error>(columns: Vec<String>) -> Result<Self, E> {
        Ok(Self { columns: Some(columns), ..Self::default() })
    }

    fn check(&self) -> Result<(), String> {
        between("buckets", self.buckets, 1, 65_536)?;
        between("ngrams", self.ngrams, 1, 8)
    }
}

/// Bounds for numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Clip {
    /// The least value that is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) low: Option<f64>,
    /// The greatest value that is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) high: Option<f64>,
    /// Which columns; without it, all numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Short for Clip {
    const FORMS: &'static str = "a table `{ low, high, columns }`";

    fn check(&self) -> Result<(), String> {
        match (self.low, self.high) {
            (None, None) => Err("give `low`, `high`, or both".into()),
            (Some(low), Some(high)) if low > high => Err(format!("`low` ({low}) is greater than `high` ({high})")),
            (low, high) if low.is_some_and(f64::is_nan) || high.is_some_and(f64::is_nan) => {
                Err("`low` and `high` must be numbers".into())
            }
            _ => Ok(()),
        }
    }
}

/// The logarithm of 1 + x.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log1p {
    /// Which columns; without it, all numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Columns,
}

impl Short for Log1p {
    const FORMS: &'static str = "a list of columns or a table `{ columns }`";

    fn columns<E: serde::de::Error>(columns: Vec<String>) -> Result<Self, E> {
        Ok(Self { columns: Some(columns) })
    }
}

fn at_least_one(name: &str, value: usize) -> Result<(), String> {
    between(name, value, 1, usize::MAX)
}

fn between(name: &str, value: usize, low: usize, high: usize) -> Result<(), String> {
    match value {
        _ if value < low => Err(format!("`{name}` must be at least {low}, but is {value}")),
        _ if value > high => Err(format!("`{name}` must be at most {high}, but is {value}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_framework::stage::ParamSchema;
    use serde_json::{Value, json};

    fn normal(steps: Value) -> Result<Value, (Vec<String>, String)> {
        let schema = ParamSchema::of::<Fit>();
        let params = schema.normalise(&json!({"steps": steps})).map_err(|error| (error.path, error.message))?;
        Ok(params["steps"].clone())
    }

    #[test]
    fn short_and_long_forms_mean_the_same() {
        let same =
            |short: Value, long: Value| assert_eq!(normal(json!([short])).unwrap(), normal(json!([long])).unwrap());
        same(json!({"scale": "standard"}), json!({"scale": {"method": "standard"}}));
        same(json!({"impute": 0}), json!({"impute": {"method": "constant", "value": 0.0}}));
        same(json!({"onehot": ["a"]}), json!({"onehot": {"columns": ["a"], "unknown": "ignore", "min_count": 1}}));
        same(json!({"bucket": 4}), json!({"bucket": {"buckets": 4}}));
        same(json!({"log1p": ["x"]}), json!({"log1p": {"columns": ["x"]}}));
        same(json!({"text": {}}), json!({"text": {"buckets": 256, "ngrams": 1}}));
        let written = normal(json!([{"date": ["t"]}, {"clip": {"low": 0}}])).unwrap();
        assert_eq!(normal(written.clone()).unwrap(), written);
    }

    #[test]
    fn mistakes_are_found_before_anything_runs() {
        for (step, words) in [
            (json!({"scale": "standart"}), "unknown variant `standart`"),
            (json!({"scael": "standard"}), "unknown variant `scael`"),
            (json!({"scale": {"method": "standard", "cols": []}}), "unknown field `cols`"),
            (json!({"scale": ["x"]}), "a method"),
            (json!({"impute": "constant"}), "needs a `value`"),
            (json!({"impute": {"method": "mean", "value": 1}}), "is for method"),
            (json!({"clip": {}}), "give `low`"),
            (json!({"clip": {"low": 2, "high": 1}}), "greater than"),
            (json!({"bucket": {"edges": [1, 1]}}), "greater than the one before"),
            (json!({"bucket": 1}), "at least 2"),
            (json!({"bucket": {}}), "give one of"),
            (json!({"hash": {"buckets": 0}}), "at least 1"),
            (json!({"date": {"parts": ["hour", "hour"]}}), "twice"),
            (json!({"date": {"parts": ["hours"]}}), "unknown variant `hours`"),
            (json!({"onehot": {"max": 0}}), "at least 1"),
        ] {
            let (_, message) = normal(json!([step.clone()])).unwrap_err();
            assert!(message.contains(words), "{step}: {message}");
        }
        let schema = ParamSchema::of::<Fit>();
        let both = schema.normalise(&json!({"keep": ["a"], "drop": ["b"]})).unwrap_err();
        assert!(both.message.contains("can't be combined"));
    }

    #[test]
    fn the_schema_knows_every_step() {
        let schema = ParamSchema::of::<Fit>().schema().to_string();
        for step in ["impute", "scale", "onehot", "ordinal", "hash", "bucket", "date", "text", "clip", "log1p"] {
            assert!(schema.contains(&format!("\"{step}\"")), "{step}");
        }
    }
}
