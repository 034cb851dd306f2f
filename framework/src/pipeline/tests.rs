//! What users see: messages for every mistake, and pipelines that are right.

use super::*;
use crate::data::{Artifact, Frame, Kind, List, Metrics, Model};
use crate::stage::{
    Call, Device, Gang, Input, Inputs, OneOrMany, Outputs, ParamSchema, Params, Registry, Seed, Signature, Template,
    stage,
};
use crate::{Error, Result};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, try_from = "SplitAsWritten")]
struct Split {
    train: f64,
    stratify: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SplitAsWritten {
    /// The share of the rows to train on.
    #[schemars(range(min = 0.0, max = 1.0))]
    train: f64,
    stratify: Option<String>,
}

impl Default for SplitAsWritten {
    fn default() -> Self {
        Self { train: 0.7, stratify: None }
    }
}

impl Default for Split {
    fn default() -> Self {
        Self { train: 0.7, stratify: None }
    }
}

impl TryFrom<SplitAsWritten> for Split {
    type Error = String;
    fn try_from(raw: SplitAsWritten) -> Result<Self, String> {
        if raw.stratify.as_deref() == Some("") {
            return Err("`stratify` must name a column".into());
        }
        Ok(Self { train: raw.train, stratify: raw.stratify })
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Train {
    model: ModelKind,
    /// Passes over the data.
    #[schemars(range(min = 1))]
    #[serde(default = "ten")]
    epochs: u32,
    #[serde(default)]
    optimizer: Optimizer,
    #[serde(default)]
    schedule: Schedule,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    column: Column,
}

fn ten() -> u32 {
    10
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum ModelKind {
    Linear,
    Mlp(Mlp),
    Cnn { filters: Vec<u8> },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mlp {
    hidden: Vec<u32>,
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    dropout: f64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Optimizer {
    /// Plain.
    Sgd {
        rate: f64,
    },
    Adam {
        rate: f64,
    },
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adam { rate: 1e-3 }
    }
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Schedule {
    #[default]
    Constant,
    Cosine {
        warmup: u32,
    },
    Steps(Decay),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Decay {
    every: u32,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Weights {
    Mode(WeightMode),
    Each(BTreeMap<String, f64>),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WeightMode {
    Balanced,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    scale: Scale,
    columns: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scale {
    Standard,
    /// Between the least and the most.
    Range,
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(untagged)]
enum Column {
    #[default]
    None,
    One(String),
    Many((String, String)),
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Forgetful {
    #[serde(default)]
    low: f64,
}

fn frame() -> Frame {
    Frame::from_columns(std::iter::empty::<(&str, arrow::array::ArrayRef)>()).unwrap()
}

fn model() -> Model {
    Model::new("test", &(), Default::default()).unwrap()
}

/// A stage by hand: its parameters name its outputs.
struct Parts(Signature);

impl Stage for Parts {
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn outputs(&self, params: &Value) -> Vec<Output> {
        let names = params["names"].as_array().cloned().unwrap_or_default();
        names.iter().filter_map(Value::as_str).map(|name| Output::new(name, Kind::Frame)).collect()
    }
    fn run(&self, _: Call) -> Result<Outputs> {
        Err(Error::new("not run here"))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PartNames {
    names: Vec<String>,
}

fn registry() -> Registry {
    let parts = Parts(Signature {
        inputs: vec![Input { name: "rows".into(), kind: Some(Kind::Frame), ..Input::default() }],
        params: Some(ParamSchema::of::<PartNames>()),
        outputs: vec![Output::new("first", Kind::Frame)],
        ..Signature::default()
    });
    fn train(_: Frame, _: Option<Frame>, _: Option<Model>, _: Params<Train>, _: Seed, _: Gang) -> (Model, Frame) {
        (model(), frame())
    }
    Registry::new()
        .stage("dataset.digits", frame)
        .stage("split", stage(|rows: Frame, _: Params<Split>, _: Seed| (rows.clone(), rows)).outputs(["train", "test"]))
        .stage("parts", parts)
        .stage("features.fit", |_: Frame| model())
        .stage("train", stage(train).inputs(["train", "valid", "features"]).outputs(["model", "curve"]))
        .stage("tune", stage(|_: Template| (model(), frame())).inputs(["trial"]).outputs(["model", "trials"]))
        .stage("evaluate", stage(|_: Model, _: Frame| Metrics::default()).inputs(["model", "rows"]))
        .stage("compare", stage(|_: OneOrMany<Metrics>| Metrics::default()).inputs(["all"]))
        .stage("files", List::default)
        .stage("learn", |_: crate::stage::Parts<Frame>| model())
        .stage("sql", |_: Inputs| frame())
        .stage("query", stage(|_: Option<Frame>, _: Inputs| frame()).inputs(["rows"]))
        .stage("forgetful", |_: Params<Forgetful>| frame())
        .stage("any", |_: Params<Value>, input: Option<Artifact>| input.unwrap_or(Artifact::Frame(frame())))
}

const DIGITS: &str = r#"
name  = "digits"
seed  = 7
store = "file://.ropeway"

[stage.score]
use  = "evaluate"
from = { model = "best", rows = "split.test" }

[stage.rows]
use  = "dataset.digits"

[stage.split]
use  = "split"
from = "rows"
with = { train = 0.7, stratify = "label" }

[stage.features]
use  = "features.fit"
from = "split.train"

[stage.fit]
use   = "train"
from  = { train = "split.train", features = "features" }
with  = { model = { mlp = { hidden = [64, 32] } }, epochs = 20, optimizer = { adam = { rate = 1e-3 } } }
needs = { workers = 2, device = "cpu" }

[stage.best]
use  = "tune"
from = { trial = "fit" }

[serve.digits]
apply    = ["features", "best"]
batch    = { rows = 32, wait = "2ms" }
replicas = { min = 0, max = 4, idle = "60s" }
"#;

fn read_with(text: &str, overrides: &[&str]) -> (Option<Pipeline>, Vec<Diagnostic>) {
    let overrides: Vec<Override> = overrides.iter().map(|text| Override::parse(text).unwrap()).collect();
    resolve(&SourceFile::new("p.toml", text), &registry(), &overrides)
}

/// Every mistake as `code place message | label | help | notes`, with the marked text for the place.
fn shown(diagnostics: &[Diagnostic]) -> Vec<String> {
    let one = |diagnostic: &Diagnostic| {
        let marked = diagnostic.span.clone().map_or("", |span| diagnostic.file.text.get(span).expect("a good span"));
        let mut line = format!("{} <{marked}> {diagnostic} | {}", diagnostic.code, diagnostic.label);
        if let Some(help) = &diagnostic.help {
            line += &format!(" | {help}");
        }
        for note in &diagnostic.notes {
            line += &format!(" | {note}");
        }
        line
    };
    diagnostics.iter().map(one).collect()
}

#[track_caller]
fn expect(text: &str, expected: &[&str]) {
    expect_with(text, &[], expected);
}

#[track_caller]
fn expect_with(text: &str, overrides: &[&str], expected: &[&str]) {
    let (pipeline, diagnostics) = read_with(text, overrides);
    assert_eq!(shown(&diagnostics), expected);
    assert!(pipeline.is_none());
}

/// A training stage with parameters.
fn training(with: &str) -> String {
    format!("[stage.rows]\nuse = \"dataset.digits\"\n[stage.fit]\nuse = \"train\"\nfrom = \"rows\"\nwith = {with}\n")
}

#[track_caller]
fn good(text: &str, overrides: &[&str]) -> Pipeline {
    let (pipeline, diagnostics) = read_with(text, overrides);
    assert_eq!(shown(&diagnostics), [""; 0]);
    pipeline.expect("a pipeline")
}

#[test]
fn a_right_pipeline_is_wired() {
    let pipeline = good(DIGITS, &[]);
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("digits", 7));
    assert_eq!(pipeline.store.as_deref(), Some("file://.ropeway"));
    let names: Vec<&str> = pipeline.stages.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["rows", "split", "features", "fit", "best", "score"]);
    let fit = pipeline.stage("fit").unwrap();
    assert_eq!(fit.inputs["train"], Source::Outputs(vec![(1, "train".into())]));
    assert_eq!(fit.inputs["features"], Source::Outputs(vec![(2, "output".into())]));
    assert_eq!(fit.params["schedule"], json!({"kind": "constant"}));
    assert_eq!((fit.needs.workers, fit.needs.device), (2, Device::Cpu));
    assert!(fit.template_only);
    assert_eq!(pipeline.stage("best").unwrap().inputs["trial"], Source::Template(3));
    let serve = &pipeline.serve["digits"];
    assert_eq!(serve.apply, [(2, "output".to_owned()), (4, "model".to_owned())]);
    assert_eq!(serve.batch, Batch { rows: 32, wait: std::time::Duration::from_millis(2) });
    assert_eq!(pipeline.to_run(), [0, 1, 2, 4, 5].into());
    assert_eq!(pipeline.needed_for(&["best"]).unwrap(), [0, 1, 2, 4].into());
    assert_eq!(pipeline.needed_for(&["fit"]).unwrap(), [0, 1, 2, 3].into());
    assert_eq!(pipeline.downstream(2), [3, 4, 5].into());
    assert_eq!(pipeline.needed_for(&["bst"]).unwrap_err().advice(), Some("did you mean `best`?"));
}

#[test]
fn needs_and_pools_are_read() {
    let text = format!(
        "{}\n[pool.big]\nmax = 8\nidle = \"2m\"\ncpus = 16\nmemory = \"64GiB\"\ngpus = 1\ngpu_memory = 80_000_000_000\nprice = 2.5\nstart = \"90s\"\n[pool.alone]\n",
        DIGITS.replace(
            "{ workers = 2, device = \"cpu\" }",
            "{ cpus = 2.5, memory = \"4GiB\", gpus = 0.5, gpu_memory = \"512MB\", deadline = \"5m\", retries = 2, isolate = true, priority = 3 }"
        )
    );
    let pipeline = good(&text, &["pool.alone.min=1"]);
    let needs = &pipeline.stage("fit").unwrap().needs;
    assert_eq!((needs.cpus, needs.memory, needs.gpus, needs.gpu_memory), (2.5, 4 << 30, 0.5, 512_000_000));
    assert_eq!((needs.device, needs.deadline), (Device::Cuda, Some(std::time::Duration::from_secs(300))));
    assert_eq!((needs.retries, needs.isolate, needs.priority), (2, true, 3));
    let [big, alone] = pipeline.pools.as_slice() else { panic!("{:?}", pipeline.pools) };
    assert_eq!((big.name.as_str(), big.min, big.max, big.cpus), ("big", 0, 8, 16.0));
    assert_eq!((big.memory, big.gpus, big.gpu_memory, big.price), (64 << 30, 1, 80_000_000_000, 2.5));
    assert_eq!(big.start, Some(std::time::Duration::from_secs(90)));
    assert_eq!(alone, &Pool { name: "alone".into(), min: 1, ..Pool::default() });
    // A builder's pool is the file's.
    let built = Pipeline::build("x").stage("a", "dataset.digits").pool("big", big).resolve(&registry()).unwrap();
    assert_eq!(&built.pools[0], big);
}

#[test]
fn needs_that_contradict_each_other_are_told_at_their_place() {
    let with_needs = |needs: &str| format!("[stage.a]\nuse = \"dataset.digits\"\nneeds = {needs}\n");
    let cases = [
        "{ gpus = 1, device = \"cpu\" }",
        "{ gpus = 1.5 }",
        "{ gpu_memory = \"1GiB\" }",
        "{ device = \"cuda\", gpus = 0 }",
        "{ device = \"gpu\" }",
        "{ workers = 0, cpus = -1, memory = -5 }",
        "{ memory = \"4 gigs\" }",
        "{ memory = 1.5 }",
        "{ deadline = \"soon\" }",
        "{ deadline = 10, isolate = 1 }",
        "{ deadline = \"0s\" }",
        "{ gpu = 1 }",
    ];
    let found: Vec<String> = cases.iter().flat_map(|needs| shown(&read_with(&with_needs(needs), &[]).1)).collect();
    assert_eq!(
        found,
        [
            "wrong-value <1> p.toml:3:18: `gpus` of `needs`: `device = \"cpu\"` takes no CUDA device | `device = \"cpu\"` takes no CUDA device",
            "wrong-value <1.5> p.toml:3:18: `gpus` of `needs`: 1.5 is neither a part of one CUDA device nor a whole number of them | 1.5 is neither a part of one CUDA device nor a whole number of them",
            "wrong-value <\"1GiB\"> p.toml:3:24: `gpu_memory` of `needs`: it says how much of a CUDA device's memory is taken, but `gpus` takes none | it says how much of a CUDA device's memory is taken, but `gpus` takes none",
            "wrong-value <0> p.toml:3:35: `gpus` of `needs`: `device = \"cuda\"` takes at least a part of a CUDA device | `device = \"cuda\"` takes at least a part of a CUDA device",
            "unknown-choice <\"gpu\"> p.toml:3:20: `device` of `needs`: expected `auto`, `cpu` or `cuda`, found \"gpu\" | expected `auto`, `cpu` or `cuda` | did you mean `cpu`?",
            "out-of-range <0> p.toml:3:21: `workers` of `needs`: expected a whole number of at least 1, found 0 | expected a whole number of at least 1",
            "out-of-range <-1> p.toml:3:31: `cpus` of `needs`: expected a number of at least 0, found -1 | expected a number of at least 0",
            "out-of-range <-5> p.toml:3:44: `memory` of `needs`: expected a whole number of at least 0, found -5 | expected a whole number of at least 0",
            "wrong-value <\"4 gigs\"> p.toml:3:20: `memory` of `needs`: \"4 gigs\" is no size; write \"4GiB\" or \"512MB\" | \"4 gigs\" is no size; write \"4GiB\" or \"512MB\"",
            "wrong-type <1.5> p.toml:3:20: `memory` of `needs`: expected a whole number of at least 0 or a string, found 1.5 | expected a whole number of at least 0 or a string",
            "wrong-value <\"soon\"> p.toml:3:22: `deadline` of `needs`: \"soon\" is no length of time; write \"1ms\" or \"60s\" | \"soon\" is no length of time; write \"1ms\" or \"60s\"",
            "wrong-type <10> p.toml:3:22: `deadline` of `needs`: expected a string, found 10 | expected a string",
            "wrong-type <1> p.toml:3:36: `isolate` of `needs`: expected true or false, found 1 | expected true or false",
            "wrong-value <\"0s\"> p.toml:3:22: `deadline` of `needs`: a result takes more than no time | a result takes more than no time",
            "unknown-key <gpu> p.toml:3:11: unknown key `gpu` of `needs` | not a key | did you mean `gpus`?",
        ]
    );
}

#[test]
fn wrong_pools_are_told_at_their_place() {
    expect(
        "[stage.a]\nuse = \"dataset.digits\"\n[pool.big]\nmx = 3\nmin = 0\n[pool.far]\nfleet = \"kubernetes\"\n[pool.few]\nmin = 4\nmax = 2\n[pool.none]\nmax = 0\ncpus = 0\nprice = -1\n[pool.odd]\ngpu_memory = \"1GiB\"\n[pool.Bad]\n[pools.x]\n",
        &[
            "unknown-key <mx> p.toml:4:1: unknown key `mx` of pool `big` | not a key | did you mean `max`?",
            "wrong-value <\"kubernetes\"> p.toml:7:9: `fleet` of pool `far`: this build has no fleet \"kubernetes\", only \"local\" | this build has no fleet \"kubernetes\", only \"local\"",
            "wrong-value <4> p.toml:9:7: `min` of pool `few`: 4 is more than `max`, 2 | 4 is more than `max`, 2",
            "out-of-range <0> p.toml:12:7: `max` of pool `none`: expected a whole number of at least 1, found 0 | expected a whole number of at least 1",
            "out-of-range <0> p.toml:13:8: `cpus` of pool `none`: expected a number above 0, found 0 | expected a number above 0",
            "out-of-range <-1> p.toml:14:9: `price` of pool `none`: expected a number of at least 0, found -1 | expected a number of at least 0",
            "wrong-value <\"1GiB\"> p.toml:16:14: `gpu_memory` of pool `odd`: its workers have no CUDA device: `gpus` is 0 | its workers have no CUDA device: `gpus` is 0",
            "bad-name <Bad> p.toml:17:7: \"Bad\" can't be a name | not a name | names begin with a letter from a to z; letters from a to z, digits, `-` and `_` may follow",
            "unknown-key <pools> p.toml:18:2: unknown key `pools` | not a key of a pipeline | did you mean `pool`?",
        ],
    );
}

#[test]
fn one_stage_may_be_both_template_and_stage() {
    let text = DIGITS.replace("model = \"best\"", "model = \"fit\"");
    assert!(!good(&text, &[]).stage("fit").unwrap().template_only);
}

#[test]
fn unknown_stages_are_named() {
    expect(
        "[stage.a]\nuse = \"dataset.digit\"\n[stage.b]\nuse = \"features.fit\"\nfrom = \"aa\"\n[stage.c]\nuse = \"qqqqq\"",
        &[
            "unknown-stage <\"dataset.digit\"> p.toml:2:7: there is no kind of stage called `dataset.digit` | not known | did you mean `dataset.digits`?",
            "unknown-stage <aa> p.toml:5:9: there is no stage `aa` | not a stage of this pipeline | did you mean `a`?",
            "unknown-stage <\"qqqqq\"> p.toml:7:7: there is no kind of stage called `qqqqq` | not known | `ropeway stages` lists what there is",
        ],
    );
}

#[test]
fn unknown_outputs_and_ports_are_named() {
    expect(
        r#"
[stage.rows]
use = "dataset.digits"
[stage.split]
use = "split"
from = "rows"
[stage.fit]
use = "train"
from = { trian = "split.tran", features = "train" }
with = { model = "linear" }
[stage.again]
use = "split"
from = { input = "split.test.x" }
[stage.more]
use = "dataset.digits"
from = "rows"
"#,
        &[
            "unknown-port <trian> p.toml:9:10: `train` has no input `trian` | not an input | did you mean `train`?",
            "unknown-stage <train> p.toml:9:44: there is no stage `train` | not a stage of this pipeline | did you mean `split.train`?",
            "unknown-output <test.x> p.toml:13:25: stage `split` has no output `test.x` | not an output | did you mean `test`?",
            "unknown-port <\"rows\"> p.toml:16:8: `dataset.digits` takes no inputs | not taken | leave it out",
        ],
    );
}

#[test]
fn unknown_keys_are_named() {
    expect(
        "nam = \"x\"\n[stage.a]\nuse = \"dataset.digits\"\nwiht = {}\n[stage.b]\nuse = \"forgetful\"\nlow = 1\n[stages.c]\nuse = \"x\"\n[serve.s]\naply = []\nbatch = { row = 1 }\n[stage.d]\nuse = \"dataset.digits\"\nneeds = { worker = 2 }",
        &[
            "unknown-key <nam> p.toml:1:1: unknown key `nam` | not a key of a pipeline | did you mean `name`?",
            "unknown-key <wiht> p.toml:4:1: unknown key `wiht` of stage `a` | not a key | did you mean `with`?",
            "unknown-key <low> p.toml:7:1: unknown key `low` of stage `b` | not a key | parameters go into `with`: with = { low = ... }",
            "unknown-key <stages> p.toml:8:2: unknown key `stages` | not a key of a pipeline | did you mean `stage`?",
            "missing-key <s> p.toml:10:8: serve `s` applies nothing | `apply` is missing | write `apply = [\"...\"]`: the stages whose models a request passes through",
            "unknown-key <aply> p.toml:11:1: unknown key `aply` of serve `s` | not a key | did you mean `apply`?",
            "unknown-key <row> p.toml:12:11: unknown key `row` of `batch` | not a key | did you mean `rows`?",
            "unknown-key <worker> p.toml:15:11: unknown key `worker` of `needs` | not a key | did you mean `workers`?",
        ],
    );
}

#[test]
fn all_wrong_parameters_are_named_at_once() {
    expect(
        &training(
            "{ epoch = 3, model = { mlp = { hiden = [1], hidden = [1, \"x\", -2], dropout = 1.0 } }, epochs = 0, optimizer = { adam = { rate = \"x\" } } }",
        ),
        &[
            "unknown-parameter <epoch> p.toml:6:10: unknown parameter `epoch` of `train` | not a parameter | did you mean `epochs`?",
            "unknown-parameter <hiden> p.toml:6:39: unknown parameter `model.mlp.hiden` of `train` | not a parameter | did you mean `hidden`?",
            "wrong-type <\"x\"> p.toml:6:65: `model.mlp.hidden.1` of `train`: expected a whole number of at least 0, found \"x\" | expected a whole number of at least 0",
            "out-of-range <-2> p.toml:6:70: `model.mlp.hidden.2` of `train`: expected a whole number of at least 0, found -2 | expected a whole number of at least 0",
            "out-of-range <1.0> p.toml:6:85: `model.mlp.dropout` of `train`: expected a number of at least 0 and below 1, found 1.0 | expected a number of at least 0 and below 1",
            "out-of-range <0> p.toml:6:103: `epochs` of `train`: expected a whole number of at least 1, found 0 | expected a whole number of at least 1",
            "wrong-type <\"x\"> p.toml:6:136: `optimizer.adam.rate` of `train`: expected a number, found \"x\" | expected a number",
        ],
    );
}

#[test]
fn wrong_types_and_ranges_say_what_was_expected() {
    expect(
        "[stage.a]\nuse = \"dataset.digits\"\n[stage.b]\nuse = \"split\"\nfrom = \"a\"\nwith = { train = 1.5, stratify = 3 }\n[stage.c]\nuse = \"split\"\nfrom = \"a\"\nwith = { train = \"x\" }\n[stage.d]\nuse = \"split\"\nfrom = \"a\"\nwith = 4",
        &[
            "out-of-range <1.5> p.toml:6:18: `train` of `split`: expected a number between 0 and 1, found 1.5 | expected a number between 0 and 1",
            "wrong-type <3> p.toml:6:34: `stratify` of `split`: expected a string, found 3 | expected a string",
            "wrong-type <\"x\"> p.toml:10:18: `train` of `split`: expected a number between 0 and 1, found \"x\" | expected a number between 0 and 1",
            "wrong-type <4> p.toml:14:8: `split`: expected a table, found 4 | expected a table",
        ],
    );
    expect(
        "name = 3\nseed = -1\nstore = \"\"\n[stage]\na = 1",
        &[
            "wrong-type <3> p.toml:1:8: `name`: expected a string, found 3 | expected a string",
            "out-of-range <-1> p.toml:2:8: `seed` of the pipeline: expected a whole number of at least 0, found -1 | expected a whole number of at least 0",
            "wrong-type <\"\"> p.toml:3:9: `store`: expected a string, found \"\" | expected a string",
            "wrong-type <1> p.toml:5:5: `stage.a`: expected a table, found 1 | expected a table | begin it with [stage.a]",
        ],
    );
    expect(
        "seed = \"x\"\n[stage.a]\nuse = 4\nfrom = 3\n[stage.b]\nuse = \"sql\"\nfrom = 3\n[stage.c]",
        &[
            "wrong-type <\"x\"> p.toml:1:8: `seed` of the pipeline: expected a whole number of at least 0, found \"x\" | expected a whole number of at least 0",
            "wrong-type <4> p.toml:3:7: `use`: expected the name of a stage, found 4 | expected a string",
            "wrong-type <3> p.toml:4:8: expected the name of a stage, found 3 | expected a string",
            "wrong-type <3> p.toml:7:8: `from`: expected a stage, a list or a table of stages, found 3 | expected a stage",
            "missing-key <c> p.toml:8:8: stage `c` does not say what it uses | `use` is missing | write `use = \"...\"`; `ropeway stages` lists what there is",
        ],
    );
}

#[test]
fn choices_are_understood() {
    let cases = [
        "{ model = \"linaer\" }",
        "{ model = \"mlp\" }",
        "{ model = { linear = {} } }",
        "{ model = { mpl = { hidden = [] } } }",
        "{ model = { mlp = { hidden = [] }, cnn = { filters = [] } } }",
        "{ model = { mlp = { hidden = [] }, dropout = 0.1 } }",
        "{ model = 3 }",
        "{ model = { cnn = { filters = [3, 256] } } }",
        "{}",
        "{ model = \"linear\", schedule = { kind = \"cosin\" } }",
        "{ model = \"linear\", schedule = { kind = \"cosine\", warmpu = 3 } }",
        "{ model = \"linear\", schedule = { kind = \"steps\", every = \"x\" } }",
        "{ model = \"linear\", schedule = { warmup = 3 } }",
        "{ model = \"linear\", weights = \"balancd\" }",
        "{ model = \"linear\", weights = { a = 1, b = \"x\" } }",
        "{ model = \"linear\", steps = [{ scale = \"standrad\" }] }",
        "{ model = \"linear\", column = [\"a\"] }",
    ];
    let found: Vec<String> = cases.iter().flat_map(|with| shown(&read_with(&training(with), &[]).1)).collect();
    assert_eq!(
        found,
        [
            "unknown-choice <\"linaer\"> p.toml:6:18: `model` of `train`: expected `linear`, `mlp` or `cnn`, found \"linaer\" | expected `linear`, `mlp` or `cnn` | did you mean `linear`?",
            "unknown-choice <\"mlp\"> p.toml:6:18: `model` of `train`: `mlp` needs settings | its settings are missing | write { mlp = { ... } }",
            "unknown-choice <linear> p.toml:6:20: `model` of `train`: `linear` takes no settings | here | write \"linear\"",
            "unknown-choice <mpl> p.toml:6:20: `model` of `train`: expected `linear`, `mlp` or `cnn`, found `mpl` | here | did you mean `mlp`?",
            "unknown-choice <cnn> p.toml:6:43: `model` of `train`: only one of `mlp` and `cnn` can be given | here | leave one out",
            "unknown-choice <dropout> p.toml:6:43: `model` of `train`: `dropout` can't stand beside `mlp` | here | does it belong into `mlp`?",
            "wrong-type <3> p.toml:6:18: `model` of `train`: expected `linear`, { mlp = ... } or { cnn = ... }, found 3 | expected `linear`, { mlp = ... } or { cnn = ... }",
            "out-of-range <256> p.toml:6:42: `model.cnn.filters.1` of `train`: expected a whole number between 0 and 255, found 256 | expected a whole number between 0 and 255",
            "missing-parameter <{}> p.toml:6:8: parameter `model` of `train` is missing | `model` is missing",
            "unknown-choice <\"cosin\"> p.toml:6:48: `schedule` of `train`: expected `constant`, `cosine` or `steps`, found \"cosin\" | expected `constant`, `cosine` or `steps` | did you mean `cosine`?",
            "unknown-parameter <warmpu> p.toml:6:58: unknown parameter `schedule.warmpu` of `train` | not a parameter | did you mean `warmup`?",
            "wrong-type <\"x\"> p.toml:6:65: `schedule.every` of `train`: expected a whole number of at least 0, found \"x\" | expected a whole number of at least 0",
            "missing-parameter <{ warmup = 3 }> p.toml:6:39: `schedule` of `train`: `kind` is missing | expected `kind` to say which | `kind` is `constant`, `cosine` or `steps`",
            "wrong-type <\"balancd\"> p.toml:6:38: `weights` of `train`: expected `balanced` or a table, found \"balancd\" | expected `balanced` or a table | did you mean `balanced`?",
            "wrong-type <\"x\"> p.toml:6:51: `weights.b` of `train`: expected a number, found \"x\" | expected a number",
            "unknown-choice <\"standrad\"> p.toml:6:47: `steps.0.scale` of `train`: expected `standard` or `range`, found \"standrad\" | expected `standard` or `range` | did you mean `standard`?",
            "out-of-range <[\"a\"]> p.toml:6:37: `column` of `train`: expected 2 elements, found 1 | expected 2 elements"
        ]
    );
    good(
        &training(
            "{ model = \"linear\", weights = { a = 1 }, column = [\"a\", \"b\"], schedule = { kind = \"steps\", every = 2 } }",
        ),
        &[],
    );
}

#[test]
fn what_the_schema_cannot_say_is_placed_too() {
    expect(
        "[stage.a]\nuse = \"dataset.digits\"\n[stage.b]\nuse = \"split\"\nfrom = \"a\"\nwith = { stratify = \"\" }\n[serve.s]\napply = \"c\"\nreplicas = { min = 2 }\nbatch = { wait = \"soon\" }\n[stage.c]\nuse = \"features.fit\"\nfrom = \"a\"",
        &[
            "wrong-value <{ stratify = \"\" }> p.toml:6:8: `split`: `stratify` must name a column | `stratify` must name a column",
            "wrong-value <{ min = 2 }> p.toml:9:12: `replicas`: `min` is 2, which is more than `max`, 1 | `min` is 2, which is more than `max`, 1",
            "wrong-value <\"soon\"> p.toml:10:18: `wait` of `batch`: \"soon\" is no length of time; write \"1ms\" or \"60s\" | \"soon\" is no length of time; write \"1ms\" or \"60s\"",
        ],
    );
}

#[test]
fn typos_are_found_where_serde_passes_over_them() {
    expect(
        "[stage.a]\nuse = \"forgetful\"\nwith = { lwo = 1 }\n[stage.b]\nuse = \"dataset.digits\"\nwith = { x = 1 }\n[stage.c]\nuse = \"any\"\nwith = { x = inf, y = 99999999999999999999, z = [nan] }",
        &[
            "unknown-parameter <lwo> p.toml:3:10: unknown parameter `lwo` of `forgetful` | not a parameter | did you mean `low`?",
            "unknown-parameter <x> p.toml:6:10: `dataset.digits` takes no parameters | not taken",
            "number <inf> p.toml:9:14: `stage.c.with.x`: inf is not finite | not finite",
            "number <99999999999999999999> p.toml:9:23: `stage.c.with.y`: 99999999999999999999 is too large | too large",
            "number <nan> p.toml:9:50: `stage.c.with.z`: nan is not finite | not finite",
        ],
    );
}

#[test]
fn cycles_are_shown() {
    expect(
        "[stage.a]\nuse = \"any\"\nfrom = \"b\"\n[stage.b]\nuse = \"any\"\nfrom = \"c\"\n[stage.c]\nuse = \"any\"\nfrom = { input = \"a\" }\n[stage.d]\nuse = \"tune\"\nfrom = \"d\"\n[stage.e]\nuse = \"any\"\nfrom = \"d\"",
        &[
            "cycle <\"b\"> p.toml:3:8: `a`, `b` and `c` depend on each other in a circle: a -> b -> c -> a | takes from `b` | `b` takes from `c` in line 6 | `c` takes from `a` in line 9",
            "cycle <\"d\"> p.toml:12:8: stage `d` depends on itself: d -> d | takes from itself",
        ],
    );
}

#[test]
fn missing_inputs_are_named() {
    expect(
        "[stage.a]\nuse = \"evaluate\"\n[stage.b]\nuse = \"train\"\nfrom = { valid = \"c\" }\nwith = { model = \"linear\" }\n[stage.c]\nuse = \"split\"\n[stage.d]\nuse = \"compare\"\nfrom = []\n[stage.e]\nuse = \"compare\"",
        &[
            "missing-input <a> p.toml:1:8: stage `a` lacks its inputs `model` and `rows` | `model` and `rows` missing | say where from: from = { model = \"...\", rows = \"...\" }",
            "missing-input <{ valid = \"c\" }> p.toml:5:8: stage `b` lacks its input `train` | `train` missing | say where from: from = { train = \"...\" }",
            "missing-input <c> p.toml:7:8: stage `c` lacks its input `input` | `input` missing | say where from: from = { input = \"...\" }",
            "missing-input <[]> p.toml:11:8: input `all` is given an empty list | names no stage",
            "missing-input <e> p.toml:12:8: stage `e` lacks its input `all` | `all` missing | say where from: from = { all = \"...\" }",
        ],
    );
}

#[test]
fn kinds_must_fit() {
    expect(
        "[stage.rows]\nuse = \"dataset.digits\"\n[stage.fit]\nuse = \"train\"\nfrom = { train = \"rows\", features = \"rows\" }\nwith = { model = \"linear\" }\n[stage.score]\nuse = \"evaluate\"\nfrom = { model = [\"fit\"], rows = \"fit\" }\n[stage.best]\nuse = \"tune\"\nfrom = { trial = \"fit.model\" }\n[serve.s]\napply = [\"fit\", \"rows\"]",
        &[
            "wrong-kind <\"rows\"> p.toml:5:37: input `features` of `train` takes a model, but `rows` is a frame | a frame",
            "wrong-type <[\"fit\"]> p.toml:9:18: input `model`: expected one stage, found a list | expected a stage | `evaluate` takes one artifact at `model`",
            "wrong-kind <\"fit\"> p.toml:9:34: input `rows` of `evaluate` takes a frame, but `fit` is a model | a model | did you mean `fit.curve`?",
            "wrong-kind <\"fit.model\"> p.toml:12:18: `fit.model` is an output; a stage itself is meant | expected a stage | write \"fit\": it is run again and again",
            "wrong-kind <\"rows\"> p.toml:14:17: `apply` takes a model, but `rows` is a frame | a frame",
        ],
    );
}

#[test]
fn what_may_come_in_parts_takes_lists_too() {
    expect(
        "[stage.rows]\nuse = \"dataset.digits\"\n[stage.files]\nuse = \"files\"\n[stage.a]\nuse = \"learn\"\nfrom = \"rows\"\n[stage.b]\nuse = \"learn\"\nfrom = \"files\"\n[stage.c]\nuse = \"evaluate\"\nfrom = { model = \"a\", rows = \"files\" }\n[stage.d]\nuse = \"learn\"\nfrom = \"b\"",
        &[
            "wrong-kind <\"files\"> p.toml:13:30: input `rows` of `evaluate` takes a frame, but `files` is a list | a list",
            "wrong-kind <\"b\"> p.toml:16:8: input `input` of `learn` takes a frame, whole or as a list of parts, but `b` is a model | a model",
        ],
    );
}

#[test]
fn collisions_are_found() {
    expect(
        "[stage.rows]\nuse = \"dataset.digits\"\n[stage.a]\nuse = \"parts\"\nfrom = \"rows\"\nwith = { names = [\"x\", \"y\", \"x\"] }\n[stage.b]\nuse = \"sql\"\nfrom = [\"rows\", \"a.y\", \"rows\"]",
        &[
            "output-collision <{ names = [\"x\", \"y\", \"x\"] }> p.toml:6:8: stage `a` has two outputs called `x` | gives `x` twice | give one of them another name",
            "input-collision <\"rows\"> p.toml:9:24: two inputs of stage `b` are called `rows` | again here | name them: from = { rows = \"...\", other = \"...\" }",
        ],
    );
}

#[test]
fn open_stages_name_their_inputs_after_what_they_are_given() {
    let text = "[stage.a]\nuse = \"dataset.digits\"\n[stage.b]\nuse = \"split\"\nfrom = \"a\"\n[stage.c]\nuse = \"sql\"\nfrom = [\"a\", \"b.test\"]\n[stage.d]\nuse = \"sql\"\nfrom = \"c\"\n[stage.e]\nuse = \"sql\"\nfrom = { t = \"d\" }";
    let pipeline = good(text, &[]);
    let ports = |name: &str| pipeline.stage(name).unwrap().inputs.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (ports("c"), ports("d"), ports("e")),
        (vec!["a".into(), "test".into()], vec!["c".into()], vec!["t".into()])
    );
    assert_eq!(pipeline.name, "p");
    let text = "[stage.a]\nuse = \"dataset.digits\"\n[stage.b]\nuse = \"query\"\nfrom = \"a\"\n[stage.c]\nuse = \"query\"\nfrom = [\"a\", \"b\"]\n[stage.d]\nuse = \"query\"";
    let pipeline = good(text, &[]);
    let ports = |name: &str| pipeline.stage(name).unwrap().inputs.keys().cloned().collect::<Vec<_>>();
    assert_eq!((ports("b"), ports("c"), ports("d")), (vec!["rows".into()], vec!["a".into(), "b".into()], vec![]));
}

#[test]
fn duplicates_are_found() {
    expect(
        "seed = 1\n[stage.a]\nuse = \"dataset.digits\"\n[stage.b]\nuse = \"any\"\nwith = { x = 1, x = 2 }\nuse = \"any\"\n\n[stage.a]\nuse = \"dataset.digits\"\n[stage.c]\nuse = \"nothing\"\n",
        &[
            "duplicate <x> p.toml:6:17: `x` is given twice | again here | it is first given in line 6",
            "duplicate <use> p.toml:7:1: `use` is given twice | again here | it is first given in line 5",
            "duplicate <a> p.toml:9:8: stage `a` is defined twice | again here | it is first given in line 2",
            "unknown-stage <\"nothing\"> p.toml:12:7: there is no kind of stage called `nothing` | not known | `ropeway stages` lists what there is",
        ],
    );
}

#[test]
fn syntax_errors_have_a_place() {
    expect(
        "name = \"x\n[stage.a\nuse = y\nb = [1,\n",
        &[
            "syntax <> p.toml:1:10: this is not TOML: invalid basic string, expected `\"` | invalid basic string, expected `\"`",
            "syntax <> p.toml:2:9: this is not TOML: unclosed table, expected `]` | unclosed table, expected `]`",
            "syntax <> p.toml:4:8: this is not TOML: unclosed array, expected `]` | unclosed array, expected `]`",
        ],
    );
    expect(
        "",
        &["no-stages <> p.toml: the pipeline has no stages |  | a stage is written [stage.NAME] with `use = \"...\"`"],
    );
}

#[test]
fn bad_names_are_refused() {
    expect(
        "[stage.\"a.b\"]\nuse = \"dataset.digits\"\n[stage.A]\nuse = \"dataset.digits\"\n[serve.\"x/y\"]\napply = \"A\"",
        &[
            "bad-name <\"a.b\"> p.toml:1:8: \"a.b\" can't be a name | not a name | names begin with a letter from a to z; letters from a to z, digits, `-` and `_` may follow",
            "bad-name <A> p.toml:3:8: \"A\" can't be a name | not a name | names begin with a letter from a to z; letters from a to z, digits, `-` and `_` may follow",
            "bad-name <\"x/y\"> p.toml:5:8: \"x/y\" can't be a name | not a name | names begin with a letter from a to z; letters from a to z, digits, `-` and `_` may follow",
            "wrong-kind <\"A\"> p.toml:6:9: `apply` takes a model, but `A` is a frame | a frame",
        ],
    );
}

#[test]
fn overrides_reach_everything() {
    let pipeline = good(
        DIGITS,
        &[
            "seed=3",
            "store=memory://",
            "fit.epochs=3",
            "fit.with.optimizer = {sgd = {rate = 1e-2}}",
            "stage.fit.with.model.mlp.hidden=[8]",
            "best.needs.retries=4",
            "fit.from.valid=split.test",
            "fit.model.mlp.hidden.0=9",
            "split.stratify=label",
            "serve.digits.batch.wait=5ms",
            "split.stratify=2024-01-01",
            "fit.weights.\"a.b\"=1",
        ],
    );
    let fit = pipeline.stage("fit").unwrap();
    assert_eq!((pipeline.seed, pipeline.store.as_deref()), (3, Some("memory://")));
    assert_eq!(fit.params["epochs"], json!(3));
    assert_eq!(fit.params["optimizer"], json!({"sgd": {"rate": 0.01}}));
    assert_eq!(fit.params["model"], json!({"mlp": {"hidden": [9], "dropout": 0.0}}));
    assert_eq!(fit.params["weights"], json!({"a.b": 1.0}));
    assert_eq!(fit.inputs["valid"], Source::Outputs(vec![(1, "test".into())]));
    assert_eq!(pipeline.stage("best").unwrap().needs.retries, 4);
    assert_eq!(pipeline.stage("split").unwrap().params["stratify"], json!("2024-01-01"));
    assert_eq!(pipeline.serve["digits"].batch.wait.as_millis(), 5);
}

#[test]
fn overrides_point_at_themselves() {
    expect_with(
        DIGITS,
        &[
            "fit.epochs=x",
            "fit.epoch=3",
            "fitt.epochs=3",
            "sede=3",
            "fit=3",
            "stage.ft.use=x",
            "fit.needs.workers=0",
            "split.from.input.x=3",
            "seed=-1",
            "fit.steps.0.scale=3",
            "fit.model.mlp={hidden = [1, \"x\"]}",
            "fit.optimizer.adam.rate=inf",
        ],
        &[
            "wrong-type <x> --set fit.epochs=x: `epochs` of `train`: expected a whole number of at least 1, found \"x\" | expected a whole number of at least 1",
            "unknown-parameter <epoch> --set fit.epoch=3: unknown parameter `epoch` of `train` | not a parameter | did you mean `epochs`?",
            "unknown-stage <fitt> --set fitt.epochs=3: there is no stage `fitt` | not a stage of this pipeline | did you mean `fit`?",
            "unknown-stage <sede> --set sede=3: there is no stage `sede` | not a stage of this pipeline | did you mean `seed`?",
            "incomplete <fit> --set fit=3: what of stage `fit` is to be set? |  | name a parameter: `fit.PARAMETER=VALUE`",
            "unknown-stage <ft> --set stage.ft.use=x: there is no stage `ft` | not a stage of this pipeline | did you mean `fit`?",
            "out-of-range <0> --set fit.needs.workers=0: `workers` of `needs`: expected a whole number of at least 1, found 0 | expected a whole number of at least 1",
            "wrong-type <input> --set split.from.input.x=3: `stage.split.from` is \"rows\", not a table | nothing can be set in it | set the whole: `stage.split.from={ input = ... }`",
            "out-of-range <-1> --set seed=-1: `seed` of the pipeline: expected a whole number of at least 0, found -1 | expected a whole number of at least 0",
            "wrong-type <steps> --set fit.steps.0.scale=3: `steps` of `train`: expected a list, found a table | expected a list",
            "wrong-type <\"x\"> --set fit.model.mlp={hidden = [1, \"x\"]}: `model.mlp.hidden.1` of `train`: expected a whole number of at least 0, found \"x\" | expected a whole number of at least 0",
            "number <inf> --set fit.optimizer.adam.rate=inf: inf is not finite | not finite",
        ],
    );
}

#[test]
fn overrides_must_be_settings() {
    for wrong in ["", "x", "=3", "a..b=1", "a=", "a=[1", "a={", "a=\"x", "a b=1", "a\n=1", "[a]=1", "a.b"] {
        let error = Override::parse(wrong).unwrap_err();
        assert_eq!(error.whose(), crate::Fault::Usage, "{wrong:?}");
        assert!(error.advice().is_some());
    }
    for right in ["a=1", "a.b = x y", "a.\"b=c\"=1", "a=b=c", "a=s3://x/y", "a=.5", "a='x'", "a=\u{1F600}"] {
        Override::parse(right).unwrap();
    }
}

#[test]
fn builders_go_through_the_same_checks() {
    let pipeline = Pipeline::build("digits")
        .seed(7)
        .store("file://.ropeway")
        .stage("score", "evaluate")
        .from([("model", "best"), ("rows", "split.test")])
        .stage("rows", "dataset.digits")
        .stage("split", "split")
        .from("rows")
        .with(json!({"train": 0.7, "stratify": "label"}))
        .stage("features", "features.fit")
        .from("split.train")
        .stage("fit", "train")
        .input("train", "split.train")
        .input("features", "features")
        .with(json!({"model": {"mlp": {"hidden": [64, 32]}}, "epochs": 20, "optimizer": {"adam": {"rate": 1e-3}}, "weights": null}))
        .needs(json!({"workers": 2, "device": "cpu"}))
        .stage("best", "tune")
        .from([("trial", "fit")])
        .serve("digits", ["features", "best"])
        .batch(Batch { rows: 32, wait: std::time::Duration::from_millis(2) })
        .replicas(Replicas { min: 0, max: 4, idle: std::time::Duration::from_secs(60) })
        .resolve(&registry())
        .unwrap();
    assert_eq!(format!("{pipeline:?}"), format!("{:?}", good(DIGITS, &[])));
}

#[test]
fn builders_say_what_is_wrong() {
    let (pipeline, diagnostics) = Pipeline::build("x")
        .from("y")
        .stage("a", "dataset.digits")
        .stage("a", "dataset.digits")
        .stage("b", "split")
        .from("aa")
        .from("a")
        .with(json!({"train": f64::NAN}))
        .batch(Batch::default())
        .diagnose(&registry());
    assert!(pipeline.is_none());
    assert_eq!(
        shown(&diagnostics),
        [
            "builder <> pipeline \"x\": `from` must come after a `stage` | ",
            "builder <> pipeline \"x\": `batch` must come after a `serve` | ",
            "duplicate <> pipeline \"x\", stage.a: stage `a` is defined twice | ",
            "duplicate <> pipeline \"x\", stage.b.from: `from` is given twice | ",
            "wrong-type <> pipeline \"x\", stage.b.with.train: `train` of `split`: expected a number between 0 and 1, found null | expected a number between 0 and 1 | JSON has null for numbers that are not finite",
            "unknown-stage <> pipeline \"x\", stage.b.from: there is no stage `aa` | not a stage of this pipeline | did you mean `a`?"
        ]
    );
    let error = Pipeline::build("x").stage("a", "dataset.digit").resolve(&registry()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline \"x\", stage.a.use: there is no kind of stage called `dataset.digit` (did you mean `dataset.digits`?)"
    );
}

#[test]
fn the_schema_covers_the_file() {
    let schema = schema(&registry());
    let mut references = Vec::new();
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    collect(&schema, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let text = schema.to_string();
    assert!(text.contains("Passes over the data."));
    assert!(schema["$defs"]["needs"]["properties"]["gpu_memory"].is_object());
    assert!(schema["$defs"]["pool"]["properties"]["price"].is_object());
    assert!(schema["properties"]["pool"].is_object());
    assert!(schema["$defs"]["stage"]["properties"]["use"]["enum"].as_array().unwrap().contains(&json!("train")));
}

#[test]
fn checking_is_quick() {
    let registry = registry();
    let mut text = DIGITS.to_owned();
    for index in 0..100 {
        text += &format!(
            "[stage.more{index}]\nuse = \"train\"\nfrom = \"split.train\"\nwith = {{ model = \"linear\", steps = [{{ scale = \"range\" }}] }}\n"
        );
    }
    let file = SourceFile::new("p.toml", &text);
    // Other programs run too: one of many times they let it be.
    let is_quick = || {
        let start = std::time::Instant::now();
        assert!(resolve(&file, &registry, &[]).0.is_some());
        start.elapsed().as_millis() < 20
    };
    assert!((0..100).any(|_| is_quick()));
}

#[track_caller]
fn survives(text: &str, overrides: &[&str]) -> std::result::Result<(), TestCaseError> {
    let overrides: Vec<Override> = overrides.iter().filter_map(|text| Override::parse(text).ok()).collect();
    let (pipeline, diagnostics) = resolve(&SourceFile::new("p.toml", text), &registry(), &overrides);
    prop_assert_eq!(pipeline.is_none(), diagnostics.iter().any(Diagnostic::is_error));
    for diagnostic in &diagnostics {
        prop_assert!(!diagnostic.to_string().is_empty());
        if let Some(span) = diagnostic.span.clone() {
            prop_assert!(diagnostic.file.text.get(span).is_some());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        survives(&text, &[])?;
    }

    #[test]
    fn no_toml_like_text_makes_it_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "]]", "stage", ".", "a", "b", "=", "\"", "'", "\n", "use", "from", "with", "needs", "{", "}", ",",
            "1", "1e999", "inf", "true", "\"any\"", "\"train\"", "\"\"\"", "serve", "apply", "#", " ", "2024-01-01", "seed", "é",
        ]), 0..60),
        set in "[a-z.=\\[\\]{}\"0-9]{0,20}",
    ) {
        survives(&parts.concat(), &[&set, "a.x=1"])?;
    }

    #[test]
    fn no_changed_file_makes_it_panic(
        cuts in prop::collection::vec((0..DIGITS.len(), 0..12usize, prop::sample::select(vec![
            "", "\"", "[", "]", "{", "}", "=", ".", "\n", "x", "1", "-", "\n[stage.fit]\n", "use = \"tune\"\n", "fit", "\"rows\"",
        ])), 1..5),
        set in prop::sample::select(vec!["fit.epochs=3", "fit.model.x=1", "fit.from=rows", "fit.from.x=fit", "best.with=3", "fit.with.optimizer=x", "stage.fit=3"]),
    ) {
        let mut text = DIGITS.to_owned();
        for (at, length, new) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, new);
        }
        survives(&text, &[set])?;
    }
}
