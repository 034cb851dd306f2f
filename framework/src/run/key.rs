//! A task's identity, and its key.

use crate::Result;
use crate::data::{Digest, Ref, canonical_json};
use crate::stage::{Stage, Template};
use crate::store::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Raised when the meaning of a key or the layout of what it names changes.
const FORMAT: u32 = 1;

/// What a task is, apart from its name: two tasks of one identity have one result.
pub(super) struct Identity<'a> {
    pub(super) uses: &'a str,
    pub(super) stage: &'a dyn Stage,
    pub(super) params: &'a Value,
    pub(super) seed: u64,
    pub(super) inputs: &'a BTreeMap<String, Vec<Ref>>,
    pub(super) templates: &'a BTreeMap<String, Template>,
}

impl Identity<'_> {
    /// The task's key: BLAKE3 of everything that its result depends on. It may read files that the parameters name.
    pub(super) fn key(&self) -> Result<Key> {
        Ok(Key(Digest::of(canonical_json(&self.describe()?).as_bytes())))
    }

    fn describe(&self) -> Result<Value> {
        let signature = self.stage.signature();
        let version = match signature.version {
            // An unpinned stage is whatever this executable holds.
            0 => Value::String(executable()?.to_string()),
            pinned => Value::from(pinned),
        };
        let mut templates = BTreeMap::new();
        for (port, template) in self.templates {
            let task = &template.task;
            let inner = Identity {
                uses: &task.stage,
                stage: &*template.stage.0,
                params: &task.params,
                seed: task.seed,
                inputs: &task.inputs,
                templates: &BTreeMap::new(),
            };
            templates.insert(port, inner.describe()?);
        }
        Ok(json!({
            "format": FORMAT,
            "stage": self.uses,
            "version": version,
            "params": self.params,
            "seed": signature.seeded.then_some(self.seed),
            "fingerprint": self.stage.fingerprint(self.params)?,
            "inputs": self.inputs,
            "templates": templates,
        }))
    }
}

/// The digest of this executable.
fn executable() -> Result<Digest> {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    if let Some(digest) = DIGEST.get() {
        return Ok(*digest);
    }
    let digest = Digest::of_reader(std::fs::File::open(std::env::current_exe()?)?)?;
    Ok(*DIGEST.get_or_init(|| digest))
}

/// The program and the instruction-set level that compute, for the record: the promise of equal bytes is made for one
/// build and one level.
pub(super) fn build() -> String {
    #[cfg(target_arch = "x86_64")]
    let level = match () {
        () if is_x86_feature_detected!("avx512f") => "x86-64-v4",
        () if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => "x86-64-v3",
        () => "x86-64",
    };
    #[cfg(not(target_arch = "x86_64"))]
    let level = std::env::consts::ARCH;
    format!("ropeway {} {level}", env!("CARGO_PKG_VERSION"))
}
