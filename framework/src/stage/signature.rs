//! What a stage takes and gives.

use super::ParamSchema;
use crate::data::Kind;

/// What a stage takes and gives, as data: for checks before anything runs, for help and for keys.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    /// Part of the stage's identity; a new one makes old results unknown.
    pub version: u32,
    /// One or more sentences for `ropeway stages`.
    pub about: String,
    /// The named inputs, in argument order.
    pub inputs: Vec<Input>,
    /// Whether inputs of any other name are taken too, and of what kind.
    pub open: Option<Option<Kind>>,
    /// The outputs, the default one first.
    pub outputs: Vec<Output>,
    /// The parameters, if it takes any.
    pub params: Option<ParamSchema>,
    /// Whether its result depends on the seed.
    pub seeded: bool,
    /// Whether it runs other tasks and mostly waits for them; then it takes no core.
    pub submits: bool,
    /// Whether it has effects outside, each once: it is not started a second time beside a slow one.
    pub once: bool,
    /// Whether several of it can compute its result together.
    pub gang: bool,
    /// Whether it can compute on CUDA devices.
    pub devices: bool,
}

/// A named input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Its name: the key in `from`.
    pub name: String,
    /// What it must be; anything if `None`.
    pub kind: Option<Kind>,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether a stage itself is meant, to be run again and again, not its result.
    pub template: bool,
    /// Whether several artifacts may be given, in order (`from = { models = ["a", "b"] }`).
    pub many: bool,
    /// Whether it may also come in parts: as a list of such artifacts.
    pub parts: bool,
}

impl Input {
    /// Whether an artifact of a kind fits; of the items of a list nothing is known before they are there.
    pub fn takes(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind) || (self.parts && kind == Kind::List)
    }
}

/// A named output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name: `stage.name` elsewhere in the pipeline.
    pub name: String,
    /// What it is; unknown before it runs if `None`.
    pub kind: Option<Kind>,
}

impl Output {
    /// An output of a name and kind.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind: Some(kind) }
    }
}
