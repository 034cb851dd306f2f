//! Gradient-boosted decision trees (Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", 2001), with
//! the second-order gain of Chen and Guestrin ("XGBoost", 2016) over histograms (Ke et al., "LightGBM", 2017).
//!
//! No chance is taken: every split is the best one, the first of equals. Sums over rows go in the order of the rows, a
//! feature at a time, so threads change nothing.

mod bins;
mod boost;
mod forest;
mod grow;
mod stage;

pub(super) use forest::Forest;
pub(super) use stage::{KIND, train};
