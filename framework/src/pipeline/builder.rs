//! Pipelines made in Rust, without a file. They go through the same checks.

use super::diagnostic::{Diagnostic, Report, SourceFile};
use super::resolve::resolve_tree;
use super::tree::{Content, Entry, Item};
use super::{Batch, Pipeline, Replicas};
use crate::stage::Registry;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;

/// A pipeline in the making; begun by [`Pipeline::build`].
///
/// [`stage`](Self::stage) begins a stage, and what follows is about it until the next one begins; the same holds for
/// [`serve`](Self::serve).
///
/// ```
/// use ropeway_framework::data::Metrics;
/// use ropeway_framework::pipeline::Pipeline;
/// use ropeway_framework::stage::{OneOrMany, Registry};
///
/// let registry = Registry::new()
///     .stage("one", || Metrics::default())
///     .stage("all", |many: OneOrMany<Metrics>| many.0.into_iter().next().unwrap_or_default());
/// let pipeline = Pipeline::build("sum")
///     .seed(7)
///     .stage("a", "one")
///     .stage("b", "one")
///     .stage("c", "all")
///     .from(["a", "b"])
///     .resolve(&registry)?;
/// assert_eq!(pipeline.stages.len(), 3);
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    top: Vec<Entry>,
    stages: Vec<Entry>,
    serve: Vec<Entry>,
    pools: Vec<Entry>,
    current: Current,
    misuse: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Current {
    Nothing,
    Stage,
    Serve,
}

/// What a stage takes: another stage, several, or stages by port. Made from texts, arrays and arrays of pairs.
#[derive(Clone, Debug)]
pub struct Wiring(Item);

impl Builder {
    pub(super) fn new(name: String) -> Self {
        let top = vec![entry("name", text(&name))];
        Self {
            name,
            top,
            stages: Vec::new(),
            serve: Vec::new(),
            pools: Vec::new(),
            current: Current::Nothing,
            misuse: Vec::new(),
        }
    }

    /// Where all chance comes from; 0 if not set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.top.push(entry("seed", Item::from_json(&Value::from(seed))));
        self
    }

    /// The URL of the store.
    pub fn store(mut self, url: &str) -> Self {
        self.top.push(entry("store", text(url)));
        self
    }

    /// Begins a stage: its name here, and what it uses.
    pub fn stage(mut self, name: &str, uses: &str) -> Self {
        self.current = Current::Stage;
        self.stages.push(entry(name, Item::new(None, Content::Table(vec![entry("use", text(uses))]))));
        self
    }

    /// What the stage takes: `"rows"`, `["a", "b"]` or `[("train", "split.train"), ("valid", "split.valid")]`.
    pub fn from(self, wiring: impl Into<Wiring>) -> Self {
        let item = wiring.into().0;
        self.put("from", Current::Stage, item)
    }

    /// What the stage takes at one port; may be called once a port.
    pub fn input(mut self, port: &str, wiring: impl Into<Wiring>) -> Self {
        let item = wiring.into().0;
        let last = self.stages.last_mut().filter(|_| self.current == Current::Stage);
        if let Some(Entry { item: Item { content: Content::Table(entries), .. }, .. }) = last
            && let Some(Entry { item: Item { content: Content::Table(ports), .. }, .. }) =
                entries.iter_mut().find(|entry| entry.key == "from")
        {
            ports.push(entry(port, item));
            return self;
        }
        self.put("from", Current::Stage, Item::new(None, Content::Table(vec![entry(port, item)])))
    }

    /// The stage's parameters: a `json!` value or anything that serialises like one.
    pub fn with(mut self, params: impl Serialize) -> Self {
        let item = self.serialised("with", params);
        self.put("with", Current::Stage, item)
    }

    /// What the stage needs: [`Needs`](crate::stage::Needs), or a `json!` value with some of its fields.
    pub fn needs(mut self, needs: impl Serialize) -> Self {
        let item = self.serialised("needs", needs);
        self.put("needs", Current::Stage, item)
    }

    /// Begins something to be served: the stages whose models a request passes through, in order.
    pub fn serve<const N: usize>(mut self, name: &str, apply: [&str; N]) -> Self {
        self.current = Current::Serve;
        let apply = Content::Array(apply.into_iter().map(text).collect());
        let table = Content::Table(vec![entry("apply", Item::new(None, apply))]);
        self.serve.push(entry(name, Item::new(None, table)));
        self
    }

    /// How requests are put together.
    pub fn batch(mut self, batch: Batch) -> Self {
        let item = self.serialised("batch", batch);
        self.put("batch", Current::Serve, item)
    }

    /// How many servers there are.
    pub fn replicas(mut self, replicas: Replicas) -> Self {
        let item = self.serialised("replicas", replicas);
        self.put("replicas", Current::Serve, item)
    }

    /// Adds workers: a [`Pool`](super::Pool), or a `json!` value with some of its fields.
    pub fn pool(mut self, name: &str, pool: impl Serialize) -> Self {
        let item = self.serialised("pool", pool);
        self.pools.push(entry(name, item));
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// All mistakes, one a line.
    pub fn resolve(self, registry: &Registry) -> Result<Pipeline> {
        let name = self.name.clone();
        let (pipeline, diagnostics) = self.diagnose(registry);
        pipeline.ok_or_else(|| {
            let mut lines = Vec::new();
            for diagnostic in &diagnostics {
                let help = diagnostic.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
                lines.push(format!("{diagnostic}{help}"));
            }
            match lines.len() {
                0 => Error::usage(format!("pipeline {name:?} can't be resolved")),
                _ => Error::usage(lines.join("\n")),
            }
        })
    }

    /// Checks everything, and gives back every mistake by itself.
    pub fn diagnose(self, registry: &Registry) -> (Option<Pipeline>, Vec<Diagnostic>) {
        let mut report = Report::new(SourceFile::code(&self.name));
        for misuse in &self.misuse {
            report.error("builder", None, "", misuse);
        }
        let mut top = self.top;
        for (key, entries) in [("stage", self.stages), ("serve", self.serve), ("pool", self.pools)] {
            if !entries.is_empty() {
                top.push(entry(key, Item::new(None, Content::Table(entries))));
            }
        }
        let pipeline = resolve_tree(&Item::new(None, Content::Table(top)), registry, &mut report);
        (pipeline, report.finish())
    }

    fn serialised(&mut self, what: &str, value: impl Serialize) -> Item {
        match serde_json::to_value(value) {
            Ok(value) => Item::from_json(&value),
            Err(error) => {
                self.misuse.push(format!("`{what}` can't be written as data: {error}"));
                Item::new(None, Content::Wrong)
            }
        }
    }

    fn put(mut self, key: &str, place: Current, item: Item) -> Self {
        let last = match (self.current == place, place) {
            (true, Current::Stage) => self.stages.last_mut(),
            (true, Current::Serve) => self.serve.last_mut(),
            _ => None,
        };
        match last {
            Some(Entry { item: Item { content: Content::Table(entries), .. }, .. }) => entries.push(entry(key, item)),
            _ => {
                let what = if place == Current::Serve { "serve" } else { "stage" };
                self.misuse.push(format!("`{key}` must come after a `{what}`"));
            }
        }
        self
    }
}

fn entry(key: &str, item: Item) -> Entry {
    Entry { key: key.to_owned(), place: None, item }
}

fn text(text: &str) -> Item {
    Item::new(None, Content::String(text.to_owned()))
}

impl From<&str> for Wiring {
    fn from(stage: &str) -> Self {
        Self(text(stage))
    }
}

impl From<String> for Wiring {
    fn from(stage: String) -> Self {
        Self(text(&stage))
    }
}

impl<const N: usize> From<[&str; N]> for Wiring {
    fn from(stages: [&str; N]) -> Self {
        Self(Item::new(None, Content::Array(stages.into_iter().map(text).collect())))
    }
}

impl From<Vec<String>> for Wiring {
    fn from(stages: Vec<String>) -> Self {
        Self(Item::new(None, Content::Array(stages.iter().map(|stage| text(stage)).collect())))
    }
}

impl<const N: usize, W: Into<Wiring>> From<[(&str, W); N]> for Wiring {
    fn from(ports: [(&str, W); N]) -> Self {
        let entries = ports.into_iter().map(|(port, wiring)| entry(port, wiring.into().0)).collect();
        Self(Item::new(None, Content::Table(entries)))
    }
}
