//! The values that one parameter may take.

use ropeway_framework::{Error, Result};
use serde_json::Value;

/// The values that one parameter may take. Bounds are part of it.
///
/// A domain maps from the unit interval ([`Domain::at`]), so that any source of numbers in it (pseudo-random,
/// quasi-random, a model) becomes a sampler.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// Real numbers.
    Float {
        /// The least.
        low: f64,
        /// The greatest.
        high: f64,
        /// Only `low`, `low + step`, `low + 2 step`, … if given; not with `log`.
        step: Option<f64>,
        /// Whether ratios count, not differences; `low` is above zero then.
        log: bool,
    },
    /// Whole numbers.
    Int {
        /// The least.
        low: i64,
        /// The greatest.
        high: i64,
        /// Only `low`, `low + step`, `low + 2 step`, …; 1 with `log`.
        step: i64,
        /// Whether ratios count, not differences; `low` is at least one then.
        log: bool,
    },
    /// One of these, whatever they are.
    Choice(Vec<Value>),
}

/// Whether two values are the same; numbers are compared as numbers, so that 1 is 1.0.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

impl Domain {
    /// Real numbers, evenly.
    pub fn float(low: f64, high: f64) -> Self {
        Domain::Float { low, high, step: None, log: false }
    }

    /// Positive real numbers, evenly in their logarithm.
    pub fn log(low: f64, high: f64) -> Self {
        Domain::Float { low, high, step: None, log: true }
    }

    /// Whole numbers, evenly.
    pub fn int(low: i64, high: i64) -> Self {
        Domain::Int { low, high, step: 1, log: false }
    }

    /// One of these values.
    pub fn choice<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Self {
        Domain::Choice(values.into_iter().map(Into::into).collect())
    }

    /// Whether the domain makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        match self {
            Domain::Float { low, high, step, log } => check_float(*low, *high, *step, *log),
            Domain::Int { low, high, step, log } => check_int(*low, *high, *step, *log),
            Domain::Choice(values) => check_choice(values),
        }
    }

    /// How many values there are; `None` for real numbers without a step.
    pub fn size(&self) -> Option<u64> {
        match self {
            Domain::Float { step: None, .. } => None,
            Domain::Float { low, high, step: Some(step), .. } => Some(steps(*low, *high, *step) + 1),
            Domain::Int { low, high, step, .. } => Some((high - low).unsigned_abs() / step.unsigned_abs().max(1) + 1),
            Domain::Choice(values) => Some(values.len() as u64),
        }
    }

    /// The value at a place in the unit interval: evenly spread places give evenly (or log-evenly) spread values.
    pub fn at(&self, unit: f64) -> Value {
        let unit = unit.clamp(0.0, 1.0);
        match self {
            Domain::Float { low, high, step: None, log: false } => {
                Value::from((low + unit * (high - low)).clamp(*low, *high))
            }
            Domain::Float { low, high, step: None, log: true } => {
                Value::from((low.ln() + unit * (high.ln() - low.ln())).exp().clamp(*low, *high))
            }
            Domain::Int { low, high, log: true, .. } => {
                // Each number owns the half on either side of it, so that the ends are not rarer than they should be.
                let (from, to) = ((*low as f64 - 0.5).ln(), (*high as f64 + 0.5).ln());
                Value::from(((from + unit * (to - from)).exp().round() as i64).clamp(*low, *high))
            }
            _ => {
                let size = self.size().unwrap_or(1).max(1);
                self.nth(((unit * size as f64) as u64).min(size - 1))
            }
        }
    }

    /// The value of a number below [`Domain::size`]; the least value of a domain without a size.
    pub fn nth(&self, index: u64) -> Value {
        match self {
            Domain::Float { low, high, step, .. } => {
                let step = step.unwrap_or(0.0);
                Value::from(tidy(low + index as f64 * step, step).clamp(*low, *high))
            }
            Domain::Int { low, step, .. } => Value::from(low.wrapping_add_unsigned(index.wrapping_mul(*step as u64))),
            Domain::Choice(values) => values.get(index as usize).cloned().unwrap_or(Value::Null),
        }
    }

    /// The number of a value, as [`Domain::nth`] counts; `None` if it has none.
    pub fn position(&self, value: &Value) -> Option<u64> {
        match self {
            Domain::Float { step: None, .. } => None,
            Domain::Float { low, step: Some(step), .. } => {
                let nearest = ((value.as_f64()? - low) / step).round();
                let inside = nearest >= 0.0 && nearest < self.size()? as f64;
                (inside && (value.as_f64()? - low - nearest * step).abs() <= step * 1e-6).then_some(nearest as u64)
            }
            Domain::Int { low, high, step, .. } => {
                let value = whole(value).filter(|value| (low..=high).contains(&value))?;
                let offset = value.abs_diff(*low);
                offset.is_multiple_of(step.unsigned_abs()).then(|| offset / step.unsigned_abs())
            }
            Domain::Choice(values) => values.iter().position(|one| same(one, value)).map(|index| index as u64),
        }
    }

    /// Whether a value is one of the domain's.
    pub fn contains(&self, value: &Value) -> bool {
        match self {
            Domain::Float { low, high, step: None, .. } => {
                value.as_f64().is_some_and(|value| (*low..=*high).contains(&value))
            }
            _ => self.position(value).is_some(),
        }
    }

    /// The values that show whether a stage takes the whole domain: both ends, or every choice.
    pub fn corners(&self) -> Vec<Value> {
        match self {
            Domain::Float { low, high, step: None, .. } => vec![Value::from(*low), Value::from(*high)],
            Domain::Choice(values) => values.clone(),
            _ => [0, self.size().unwrap_or(1).saturating_sub(1)].map(|index| self.nth(index)).into(),
        }
    }
}

fn check_float(low: f64, high: f64, step: Option<f64>, log: bool) -> Result<()> {
    if !(low < high && (high - low).is_finite()) {
        return Err(Error::usage(format!("the bounds must be finite and ascending, not [{low}, {high}]")));
    }
    if log && low <= 0.0 {
        return Err(Error::usage(format!("a logarithmic range must start above 0, not at {low}")));
    }
    match step {
        Some(_) if log => Err(Error::usage("a logarithmic range takes no `step`")),
        Some(step) if !(step > 0.0 && step <= high - low) => {
            Err(Error::usage(format!("`step` must be above 0 and at most {}, not {step}", high - low)))
        }
        Some(step) if (high - low) / step > 9e15 => {
            Err(Error::usage(format!("a `step` of {step} is too fine for [{low}, {high}]; leave it out")))
        }
        _ => Ok(()),
    }
}

fn check_int(low: i64, high: i64, step: i64, log: bool) -> Result<()> {
    let Some(width) = high.checked_sub(low).filter(|width| *width > 0) else {
        return Err(Error::usage(format!(
            "the bounds must be ascending and less than 2^63 apart, not [{low}, {high}]"
        )));
    };
    if log && low < 1 {
        return Err(Error::usage(format!("a logarithmic range must start above 0, not at {low}")));
    }
    if log && step != 1 {
        return Err(Error::usage("a logarithmic range takes no `step`"));
    }
    if step < 1 || step > width {
        return Err(Error::usage(format!("`step` must be at least 1 and at most {width}, not {step}")));
    }
    Ok(())
}

fn check_choice(values: &[Value]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::usage("there is nothing to choose from"));
    }
    let twice = values.iter().enumerate().find(|(index, value)| values[..*index].iter().any(|one| same(one, value)));
    match twice {
        Some((_, value)) => Err(Error::usage(format!("the choice {value} occurs twice"))),
        None => Ok(()),
    }
}

/// Whole steps between two bounds; a last step that rounding made a hair too long counts.
fn steps(low: f64, high: f64, step: f64) -> u64 {
    ((high - low) / step + 1e-9).floor() as u64
}

/// Without the noise in the last digits that adding steps brings: 0.3, not 0.30000000000000004.
fn tidy(value: f64, step: f64) -> f64 {
    let rounded = format!("{value:.14e}").parse().unwrap_or(value);
    if (rounded - value).abs() <= step * 1e-9 { rounded } else { value }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn domains() -> impl Strategy<Value = Domain> {
        prop_oneof![
            (-1e6..1e6, 1e-3..1e6).prop_map(|(low, width): (f64, f64)| Domain::float(low, low + width)),
            (1e-9..1e3, 1.001..1e6).prop_map(|(low, ratio): (f64, f64)| Domain::log(low, low * ratio)),
            (-1e3..1e3, 1e-2..10.0, 1u32..500).prop_map(|(low, step, count): (f64, f64, u32)| Domain::Float {
                low,
                high: low + step * f64::from(count),
                step: Some(step),
                log: false
            }),
            (-1000i64..1000, 1i64..50, 1i64..50).prop_map(|(low, step, more)| Domain::Int {
                low,
                high: low + step + more,
                step,
                log: false
            }),
            (1i64..50, 1i64..100_000).prop_map(|(low, width)| Domain::Int {
                low,
                high: low + width,
                step: 1,
                log: true
            }),
            (1usize..9).prop_map(|count| Domain::choice((0..count).map(|index| json!([index])))),
        ]
    }

    proptest! {
        #[test]
        fn every_place_gives_a_value_inside(domain in domains(), unit in 0.0..=1.0f64) {
            prop_assert!(domain.check().is_ok());
            prop_assert!(domain.contains(&domain.at(unit)), "{domain:?} {unit} {}", domain.at(unit));
            for corner in domain.corners() {
                prop_assert!(domain.contains(&corner), "{domain:?} {corner}");
            }
        }

        #[test]
        fn numbering_goes_both_ways(domain in domains(), part in 0.0..1.0f64) {
            if let Some(size) = domain.size() {
                let index = (part * size as f64) as u64;
                prop_assert_eq!(domain.position(&domain.nth(index)), Some(index));
            }
        }

        #[test]
        fn places_in_order_give_values_in_order(domain in domains(), a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            let (a, b) = (domain.at(a.min(b)), domain.at(a.max(b)));
            if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) {
                prop_assert!(a <= b);
            }
        }
    }

    #[test]
    fn logarithmic_ranges_spread_ratios_evenly() {
        let count = |domain: &Domain, low: f64, high: f64| {
            let values = (0..3000).map(|index| domain.at((f64::from(index) + 0.5) / 3000.0).as_f64().unwrap());
            values.filter(|value| (low..high).contains(value)).count()
        };
        let rate = Domain::log(1e-4, 1e-1);
        for decade in [1e-4, 1e-3, 1e-2] {
            assert!(count(&rate, decade, decade * 10.0).abs_diff(1000) <= 1);
        }
        let width = Domain::Int { low: 1, high: 1000, step: 1, log: true };
        let (few, many) = (count(&width, 1.0, 10.0), count(&width, 100.0, 1000.0));
        assert!(few > 1000 && many > 850 && many < 1000, "{few} {many}");
    }

    #[test]
    fn steps_are_round_numbers() {
        let domain = Domain::Float { low: 0.0, high: 1.0, step: Some(0.1), log: false };
        let values: Vec<Value> = (0..11).map(|index| domain.nth(index)).collect();
        assert_eq!(domain.size(), Some(11));
        assert_eq!(json!(values), json!([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]));
        let uneven = Domain::Int { low: 1, high: 10, step: 4, log: false };
        assert_eq!(uneven.corners(), [json!(1), json!(9)]);
        assert!(!uneven.contains(&json!(10)) && uneven.contains(&json!(5.0)));
    }

    #[test]
    fn senseless_domains_are_refused() {
        let refused = [
            (Domain::float(1.0, 1.0), "ascending"),
            (Domain::float(f64::NAN, 1.0), "finite"),
            (Domain::float(-f64::MAX, f64::MAX), "finite"),
            (Domain::log(0.0, 1.0), "start above 0, not at 0"),
            (Domain::Float { low: 0.0, high: 1.0, step: Some(2.0), log: false }, "at most 1, not 2"),
            (Domain::Float { low: 1.0, high: 2.0, step: Some(0.5), log: true }, "takes no `step`"),
            (Domain::int(3, 2), "ascending"),
            (Domain::int(i64::MIN, i64::MAX), "less than 2^63 apart"),
            (Domain::Int { low: 0, high: 5, step: 1, log: true }, "start above 0"),
            (Domain::Int { low: 0, high: 5, step: 0, log: false }, "at least 1"),
            (Domain::choice(Vec::<Value>::new()), "nothing to choose"),
            (Domain::choice([json!(1), json!(1.0)]), "occurs twice"),
        ];
        for (domain, why) in refused {
            let message = domain.check().unwrap_err().to_string();
            assert!(message.contains(why), "{domain:?}: {message}");
        }
    }
}
