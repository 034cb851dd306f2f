//! "Did you mean": the nearest of the names that exist.

/// The candidate that `name` was probably meant to be, or nothing when none is near.
///
/// ```
/// use ropeway_framework::nearest;
/// assert_eq!(nearest("epoch", ["epochs", "batch"]), Some("epochs"));
/// assert_eq!(nearest("zebra", ["epochs", "batch"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit || (candidate.starts_with(name) && name.len() > 2))
        .min()
        .map(|(_, candidate)| candidate)
}
