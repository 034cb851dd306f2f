//! The loop on a model that is no network, so that it can be stopped at any step.

use super::fit::{Engine, Plan, fit};
use super::loss::Sums;
use super::pool::Pool;
use super::state::State;
use super::*;
use std::ops::Range;

/// Draws its weights towards the rows' numbers, and fails after so many steps.
struct Magnet {
    left: usize,
    gradient: Vec<Vec<f32>>,
}

impl Engine for Magnet {
    fn classifies(&self) -> bool {
        true
    }

    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed, _: Range<usize>) -> Result<Vec<Sums>> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::new("the plug was pulled"))?;
        let noise = chance.rng("noise").random::<f32>();
        let pulls = |weight: f32| rows.iter().map(move |row| weight - *row as f32 * noise).sum::<f32>();
        self.gradient = vec![weights.iter().map(|weight| pulls(*weight)).collect()];
        let loss = f64::from(self.gradient[0][0].abs());
        Ok(vec![Sums { loss, weight: 3.0, correct: u64::from(rows[0]), rows: rows.len() as u64 }])
    }

    fn shards(&self) -> usize {
        self.gradient.len()
    }

    fn computed(&self) -> &[Vec<f32>] {
        &self.gradient
    }

    fn blocks(&self) -> usize {
        1
    }

    fn evaluate(&mut self, weights: &[f32], _: Range<usize>) -> Result<Vec<Sums>> {
        Ok(vec![Sums { loss: f64::from(weights[0]), weight: 1.0, correct: 1, rows: 2 }])
    }
}

fn plan(spec: Value) -> Plan {
    let mut whole = json!({"model": {"linear": {}}, "early_stop": {"patience": 9}, "optimizer": {"adam": {}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    stage::plan(&serde_json::from_value(whole).unwrap(), &[23], false).unwrap()
}

fn train(plan: &Plan, steps: usize, around: &Surroundings) -> Result<State> {
    let fresh = State { chance: 3, weights: vec![1.0; 2], moments: vec![vec![0.0; 2]; 2], ..State::default() };
    let mut engine = Magnet { left: steps, gradient: vec![Vec::new()] };
    fit(plan, &mut engine, (fresh, None), &Pool::new(1)?, around)
}

#[test]
fn a_training_goes_on_from_any_step() {
    for cadence in [json!(1), json!({"steps": 1}), json!({"steps": 2}), json!({"every": "1h"})] {
        let plan = plan(json!({"epochs": 3, "batch": 5, "checkpoint": cadence, "curve": {"steps": 2}}));
        let whole = train(&plan, 15, &Surroundings::default()).unwrap();
        let curve = whole.curve().unwrap();
        let steps = curve.column("step").unwrap();
        assert_eq!(steps.as_primitive::<Int64Type>().values()[..], [2, 4, 5, 6, 8, 10, 12, 14, 15]);
        for stop in 0..15 {
            let kept = Arc::new(Plug { stop: AtomicUsize::new(usize::MAX), ..Plug::default() });
            let around = Surroundings { checkpoint: Checkpoint::new(kept.clone()), ..around(1) };
            assert!(train(&plan, stop, &around).unwrap_err().to_string().contains("plug"));
            let newest = kept.newest(&mut |_| ()).unwrap();
            let step = newest.map_or(0, |state| state.get("counts").unwrap().values::<u64>().unwrap()[2]);
            let expected = match plan.checkpoint {
                Cadence::Epochs(_) => stop / 5 * 5,
                Cadence::Steps(every) => stop / every.steps * every.steps.get(),
                Cadence::Time(_) => 0,
            };
            assert_eq!(step, expected as u64, "what was due last is written before the error is heard of");
            let rest = train(&plan, 15 - expected, &around).unwrap();
            assert!(bytes(&rest.tensors().unwrap()) == bytes(&whole.tensors().unwrap()), "{stop}");
        }
    }
}
