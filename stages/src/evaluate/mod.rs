//! Evaluation: how good a model is on rows that it has not seen, and its predictions for rows.
//!
//! The stages know no kind of model: any that the program can load will do, if it gives a column `prediction`, and,
//! for probabilities, a list column `probability` whose field names the classes in its metadata (`classes`, a JSON
//! list).

mod classification;
mod predict;
mod ranking;
mod regression;
mod score;
mod stage;
#[cfg(test)]
mod tests;

pub use predict::PredictSpec;
pub use stage::{Average, EvaluateSpec, Task};

use ropeway_framework::stage::{Registry, stage};

/// The stages `evaluate` and `predict`.
pub fn registry() -> Registry {
    let evaluate = stage(stage::evaluate)
        .inputs(["model", "features", "rows"])
        .outputs(["metrics", "confusion"])
        .version(1)
        .about(
            "Scores a model on rows with known answers. Classes: accuracy, log_loss, auc, f1, precision, recall and a \
             confusion matrix; numbers: rmse, mae, r2. `features` is a fitted transform that the rows go through.",
        );
    let predict = stage(predict::predict)
        .inputs(["model", "features", "rows"])
        .outputs(["rows"])
        .version(1)
        .about("Adds a model's predictions to rows, as further columns.");
    Registry::new().stage("evaluate", evaluate).stage("predict", predict)
}
