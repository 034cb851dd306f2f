//! A task's identity, its key, and what is known of it.

use super::task::Request;
use crate::Result;
use crate::data::json::{self, write_text};
use crate::data::{Digest, Ref};
use crate::stage::{Stage, TaskRequest, Template};
use crate::store::{Key, Memo, Store, StoreError};
use crate::worker::program;
use std::collections::BTreeMap;
use std::fmt::Write as _;

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

    /// Everything that the task's result depends on, as canonical JSON, whose BLAKE3 is the key; and whether it names
    /// files. This is done for every task: nothing is copied into a [`Value`] first.
    fn describe(&self) -> Result<(String, bool)> {
        let mut text = String::with_capacity(USUAL);
        let files = self.write(&mut text)?;
        Ok((text, files))
    }

    /// Adds it to a text; gives whether it, or one of its templates, names files.
    fn write(&self, text: &mut String) -> Result<bool> {
        let signature = self.stage.signature();
        let fingerprint = self.stage.fingerprint(&self.task.params)?;
        let mut files = fingerprint.is_some() && !self.stage.reads_anywhere(&self.task.params);
        text.push_str(r#"{"fingerprint":"#);
        match &fingerprint {
            Some(fingerprint) => write_text(fingerprint, text),
            None => text.push_str("null"),
        }
        write!(text, r#","format":{FORMAT},"inputs":"#)?;
        match self.task.inputs.is_empty() {
            true => text.push_str("{}"),
            false => json::write(&serde_json::to_value(&self.task.inputs)?, text),
        }
        text.push_str(r#","params":"#);
        json::write(&self.task.params, text);
        text.push_str(r#","seed":"#);
        match signature.seeded {
            true => write!(text, "{}", self.task.seed)?,
            false => text.push_str("null"),
        }
        text.push_str(r#","stage":"#);
        write_text(&self.task.stage, text);
        text.push_str(r#","templates":{"#);
        for (index, (port, template)) in self.templates.into_iter().flatten().enumerate() {
            if index > 0 {
                text.push(',');
            }
            write_text(port, text);
            text.push(':');
            files |= Identity { task: &template.task, stage: &*template.stage.0, templates: None }.write(text)?;
        }
        text.push_str(r#"},"version":"#);
        match signature.version {
            // An unpinned stage is whatever this executable holds.
            0 => write_text(&program::digest()?.to_string(), text),
            pinned => write!(text, "{pinned}")?,
        }
        text.push('}');
        Ok(files)
    }
}

/// Bytes of the identity of a small task.
const USUAL: usize = 256;

/// A task's key, and whether its parameters name files. It may read those, and block.
pub(super) fn key(request: &Request) -> Result<(Key, bool)> {
    let (described, files) = Identity::of(request).describe()?;
    Ok((Key(Digest::of(described.as_bytes())), files))
}

/// What is remembered of a key.
pub(super) enum Known {
    /// Its result, of which everything is still there.
    Whole(Memo),
    /// A result that is of no use any more, and what is wrong with it.
    Broken(String),
    /// Nothing.
    Nothing,
}

/// Looks up what is remembered of a key.
///
/// # Errors
/// The store can't be read.
pub(super) async fn known(store: &Store, key: Key) -> Result<Known> {
    let memo = match store.memo(key).await {
        Ok(Some(memo)) => memo,
        Ok(None) => return Ok(Known::Nothing),
        // Whoever commits it anew sets aside what is in the way.
        Err(error) if StoreError::of(&error).is_some_and(StoreError::is_lost) => {
            return Ok(Known::Broken(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    for (port, reference) in &memo.outputs {
        if !store.has(*reference).await? {
            let Ref { kind, digest, bytes } = reference;
            let name = digest.short();
            let reason = format!("output {port:?}, {kind} {name} of {bytes} bytes, is missing or cut off");
            return Ok(Known::Broken(reason));
        }
    }
    Ok(Known::Whole(memo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Kind, Metrics, Ref, canonical_json};
    use crate::stage::{Device, IntoStage, Needs, Params, Seed, StageRef, stage};
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::time::Duration;

    /// A key that changes makes every remembered result unknown.
    #[test]
    fn the_identity_is_canonical_json() {
        let made = |text: &[u8]| Ref { kind: Kind::Bytes, digest: Digest::of(text), bytes: 7 };
        let stage = |seeded| {
            let plain = stage(|Params(_): Params<Value>| Metrics::new()).version(3);
            if seeded { stage(|_: Seed| Metrics::new()).version(1) } else { plain }
        };
        let task = |stage: &str| TaskRequest {
            label: "label".into(),
            stage: stage.into(),
            params: json!({"z": [1.5, {"b": null, "a": "\u{1} \"quoted\""}], "a": -0.0}),
            inputs: [("two".to_owned(), vec![made(b"1"), made(b"2")]), ("none".to_owned(), Vec::new())].into(),
            seed: u64::MAX,
            needs: Needs::default(),
        };
        let template = Template {
            name: "each".into(),
            task: task("inner"),
            stage: StageRef(stage(true).into_stage()),
            outputs: Vec::new(),
            accepts: Vec::new(),
        };
        let templates: BTreeMap<String, Template> =
            [("each".to_owned(), template.clone()), ("more".to_owned(), template)].into();
        let request = Request::new(task("outer \\"), stage(false).into_stage(), templates);
        let plain = |name: &str, version: u32, seed: Option<u64>, templates: Value| {
            let TaskRequest { params, inputs, .. } = task(name);
            json!({
                "format": FORMAT, "stage": name, "version": version, "params": params, "seed": seed,
                "fingerprint": null, "inputs": inputs, "templates": templates,
            })
        };
        let inner = plain("inner", 1, Some(u64::MAX), json!({}));
        let expected = plain("outer \\", 3, None, json!({"each": inner, "more": inner}));
        assert_eq!(Identity::of(&request).describe().unwrap(), (canonical_json(&expected), false));
    }

    #[test]
    fn who_runs_a_stage_that_names_files_names_files_too() {
        let reads = stage(|Params(_): Params<Value>| Metrics::new())
            .fingerprint(|_: Value| Ok("content".into()))
            .reads_anywhere(|params: Value| params == json!({"path": "s3://far/away"}));
        let task = |stage: &str| TaskRequest {
            label: stage.into(),
            stage: stage.into(),
            params: Value::Null,
            inputs: BTreeMap::new(),
            seed: 0,
            needs: Needs::default(),
        };
        let (name, stage, outputs) = ("each".to_owned(), StageRef(reads.into_stage()), Vec::new());
        let template = Template { name, task: task("reads"), stage, outputs, accepts: Vec::new() };
        let plain = || (|| Metrics::new()).into_stage();
        let request = |templates| Request::new(task("map"), plain(), templates);
        assert!(!key(&request(BTreeMap::new())).unwrap().1);
        let mut remote = template.clone();
        remote.task.params = json!({"path": "s3://far/away"});
        assert!(key(&request([("each".to_owned(), template)].into())).unwrap().1);
        assert!(!key(&request([("each".to_owned(), remote)].into())).unwrap().1);
    }

    #[test]
    fn the_key_does_not_depend_on_what_a_task_needs_or_is_called() {
        let request = |label: &str, needs: Needs| Request {
            task: Arc::new(TaskRequest {
                label: label.into(),
                stage: "empty".into(),
                params: Value::Null,
                inputs: BTreeMap::new(),
                seed: 7,
                needs,
            }),
            stage: (|| Metrics::new()).into_stage(),
            templates: BTreeMap::new(),
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
                task: Arc::new(TaskRequest {
                    stage: "other".into(),
                    ..TaskRequest::clone(&request("a", Needs::default()).task)
                }),
                ..request("a", Needs::default())
            })
            .unwrap(),
            plain
        );
    }
}
