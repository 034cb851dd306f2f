//! A task's identity, its key, and what is known of it.

use super::task::Request;
use crate::Result;
use crate::data::{Digest, canonical_json};
use crate::stage::{Stage, TaskRequest, Template};
use crate::store::{Entry, Key, Memo, Store, StoreError};
use crate::worker::program;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Raised when the meaning of a key or the layout of what it names changes.
const FORMAT: u32 = 1;

/// What a task is, apart from its name: two tasks of one identity have one result.
struct Identity<'a> {
    task: &'a TaskRequest,
    stage: &'a dyn Stage,
    templates: Option<&'a BTreeMap<String, Template>>,
}

impl<'a> Identity<'a> {
    fn of(request: &'a Request) -> Self {
        Self { task: &request.task, stage: &*request.stage, templates: Some(&request.templates) }
    }

    /// Everything that the task's result depends on; the key is the BLAKE3 of its canonical form.
    fn describe(&self) -> Result<Value> {
        let signature = self.stage.signature();
        let version = match signature.version {
            // An unpinned stage is whatever this executable holds.
            0 => Value::String(program::digest()?.to_string()),
            pinned => Value::from(pinned),
        };
        let mut templates = BTreeMap::new();
        for (port, template) in self.templates.into_iter().flatten() {
            let inner = Identity { task: &template.task, stage: &*template.stage.0, templates: None };
            templates.insert(port, inner.describe()?);
        }
        Ok(json!({
            "format": FORMAT,
            "stage": self.task.stage,
            "version": version,
            "params": self.task.params,
            "seed": signature.seeded.then_some(self.task.seed),
            "fingerprint": self.stage.fingerprint(&self.task.params)?,
            "inputs": self.task.inputs,
            "templates": templates,
        }))
    }
}

/// A task's key, and whether its parameters name files. It may read those, and block.
pub(super) fn key(request: &Request) -> Result<(Key, bool)> {
    let described = Identity::of(request).describe()?;
    let files = !described["fingerprint"].is_null();
    Ok((Key(Digest::of(canonical_json(&described).as_bytes())), files))
}

/// The memo of a key, if everything that it names is still there; what can't be read counts as unknown.
pub(super) async fn known(store: &Store, key: Key) -> Result<Option<Memo>> {
    let memo = match store.memo(key).await {
        Ok(Some(memo)) => memo,
        Ok(None) => return Ok(None),
        Err(error) if StoreError::of(&error).is_some_and(StoreError::is_lost) => {
            store.discard(Entry::Memo(key)).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    for reference in memo.outputs.values() {
        if !store.has(*reference).await? {
            return Ok(None);
        }
    }
    Ok(Some(memo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Metrics;
    use crate::stage::{Device, IntoStage, Needs};
    use std::time::Duration;

    #[test]
    fn the_key_does_not_depend_on_what_a_task_needs_or_is_called() {
        let request = |label: &str, needs: Needs| Request {
            task: TaskRequest {
                label: label.into(),
                stage: "empty".into(),
                params: Value::Null,
                inputs: BTreeMap::new(),
                seed: 7,
                needs,
            },
            stage: (|| Metrics::new()).into_stage(),
            templates: BTreeMap::new(),
            files: false,
        };
        let plain = key(&request("a", Needs::default())).unwrap();
        let large = Needs {
            cpus: 64.0,
            memory: 1 << 40,
            gpus: 8.0,
            gpu_memory: 1 << 36,
            device: Device::Cuda,
            workers: 8,
            deadline: Some(Duration::from_secs(1)),
            retries: 9,
            isolate: true,
            priority: 5,
        };
        assert_eq!(key(&request("b", large)).unwrap(), plain);
        assert_ne!(
            key(&Request {
                task: TaskRequest { stage: "other".into(), ..request("a", Needs::default()).task },
                ..request("a", Needs::default())
            })
            .unwrap(),
            plain
        );
    }
}
