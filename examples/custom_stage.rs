//! A stage of one's own: a plain function whose arguments say what it needs.
//!
//! The program has every command of the `ropeway` binary: `run`, `check`, `serve`, …

use ropeway::prelude::*;
use std::process::ExitCode;

/// The parameters of `clip`: what stands under `with` in the pipeline.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Clip {
    /// The columns to clip; they become `f64`.
    columns: Vec<String>,
    /// What is lower becomes this.
    low: f64,
    /// What is higher becomes this.
    high: f64,
}

/// Clips columns into `low..=high`.
fn clip(rows: Frame, Params(p): Params<Clip>) -> Result<Frame> {
    if p.low > p.high {
        return Err(Error::usage(format!("low ({}) is above high ({})", p.low, p.high)));
    }
    let clipped = rows.select(&p.columns)?.map_numeric(|value| value.clamp(p.low, p.high))?;
    p.columns.iter().try_fold(rows, |rows, name| rows.with_column(name, clipped.column(name)?))
}

fn main() -> ExitCode {
    ropeway::main(ropeway::standard().stage("clip", stage(clip).about("Clips columns into a range.")))
}
