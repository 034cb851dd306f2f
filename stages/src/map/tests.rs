//! Whole runs with `map`.

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use ropeway_framework::data::{Artifact, Digest, Frame, List, Metrics};
use ropeway_framework::pipeline::{Pipeline, SourceFile, resolve};
use ropeway_framework::run::{Event, Line, Options, Outcome, Report, StageReport, run};
use ropeway_framework::stage::{Inputs, Params, Registry, stage};
use ropeway_framework::store::Store;
use ropeway_framework::{Error, Result, runtime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    count: usize,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct By {
    by: f64,
    fails: Option<f64>,
}

fn column(values: impl IntoIterator<Item = f64>) -> Frame {
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values(values));
    Frame::from_columns([("x", values)]).unwrap()
}

fn values(frame: &Frame) -> Vec<f64> {
    frame.column("x").unwrap().as_primitive::<Float64Type>().values().to_vec()
}

/// Frames of one row: 0, 1, 2, …
fn parts(Params(p): Params<Count>) -> List {
    (0..p.count).map(|x| column([x as f64])).collect()
}

fn rows(Params(p): Params<Count>) -> Frame {
    column((0..p.count).map(|x| x as f64))
}

/// Adds to every value; refuses rows whose first value, rounded down to tens, is `fails`.
fn add(rows: Frame, Params(p): Params<By>) -> Result<Frame> {
    let first = values(&rows).first().copied();
    if p.fails.is_some_and(|fails| first.is_some_and(|first| first % 10.0 == fails)) {
        return Err(Error::new(format!("{} is not for me", first.unwrap_or_default())).help("ask somebody else"));
    }
    rows.map_numeric(|x| x + p.by)
}

fn number(Params(p): Params<By>) -> Metrics {
    Metrics::new().with("by", p.by)
}

fn two(left: Frame, _: Artifact) -> (Frame, Metrics) {
    (left, Metrics::new())
}

fn registry() -> Arc<Registry> {
    Arc::new(
        Registry::new()
            .merge(super::registry())
            .merge(crate::sources::registry())
            .stage("parts", stage(parts).version(1))
            .stage("rows", stage(rows).version(1))
            .stage("add", stage(add).inputs(["rows"]).version(1))
            .stage("number", stage(number).version(1))
            .stage("two", stage(two).inputs(["left", "right"]).outputs(["rows", "metrics"]).version(1))
            .stage("any", stage(|_: Inputs| Metrics::new()).version(1)),
    )
}

fn pipeline(text: &str) -> Pipeline {
    let (pipeline, found) = resolve(&SourceFile::new("p.toml", text), &registry(), &[]);
    pipeline.unwrap_or_else(|| panic!("{found:?}"))
}

/// The mistakes in a pipeline, without their places' names.
fn mistakes(text: &str) -> Vec<String> {
    let (_, found) = resolve(&SourceFile::new("p.toml", text), &registry(), &[]);
    found.iter().map(|mistake| mistake.to_string()).collect()
}

fn go(text: &str, store: &Store, cores: usize) -> (Report, Vec<Line>) {
    let mut lines = Vec::new();
    let options = Options { cores, ..Options::default() };
    let mut sink = |line: &Line| lines.push(line.clone());
    let report = run(&pipeline(text), &registry(), store, &options, &mut sink).unwrap();
    (report, lines)
}

fn of<'a>(report: &'a Report, name: &str) -> &'a StageReport {
    report.stages.iter().find(|stage| stage.name == name).unwrap()
}

fn output(report: &Report, store: &Store, name: &str) -> Artifact {
    let memo = runtime().unwrap().block_on(store.memo(of(report, name).key.unwrap())).unwrap().unwrap();
    runtime().unwrap().block_on(store.get(*memo.outputs.values().next().unwrap())).unwrap()
}

/// How the tasks of a run ended: label and outcome, in the order of the labels.
fn tasks(lines: &[Line]) -> Vec<(String, Outcome)> {
    let task = |line: &Line| match &line.event {
        Event::TaskFinished { name, outcome, .. } => Some((name.clone(), *outcome)),
        _ => None,
    };
    let mut tasks: Vec<_> = lines.iter().filter_map(task).collect();
    tasks.sort_by_key(|(name, _)| (name.len(), name.clone()));
    tasks
}

fn count(lines: &[Line], wanted: Outcome) -> usize {
    tasks(lines).iter().filter(|(_, outcome)| *outcome == wanted).count()
}

fn over_list(parts: usize, add: &str, map: &str) -> String {
    format!(
        "[stage.parts]\nuse = \"parts\"\nwith = {{ count = {parts} }}\n[stage.one]\nuse = \"add\"\nwith = {{ {add} }}\n\
         [stage.all]\nuse = \"map\"\nfrom = {{ each = \"one\", over = \"parts\" }}\nwith = {{ {map} }}\n"
    )
}

fn over_rows(rows: usize, map: &str) -> String {
    over_list(rows, "by = 0.5", map).replace("use = \"parts\"", "use = \"rows\"")
}

fn over_values(values: &str) -> String {
    format!(
        "[stage.one]\nuse = \"number\"\n[stage.all]\nuse = \"map\"\nfrom = \"one\"\nwith = {{ values = {values} }}\n"
    )
}

#[test]
fn results_have_the_order_of_the_items_on_any_number_of_cores() {
    let text = over_list(100, "by = 0.5", "");
    let mut seen = Vec::new();
    for cores in [1, 2, 4, 8] {
        let store = Store::memory();
        let (report, lines) = go(&text, &store, cores);
        assert!(report.succeeded(), "{report:?}");
        let Artifact::List(list) = output(&report, &store, "all") else { panic!("no list") };
        let found: Vec<f64> =
            list.items().iter().flat_map(|item| values(&Frame::try_from(item.clone()).unwrap())).collect();
        assert_eq!(found, (0..100).map(|x| f64::from(x) + 0.5).collect::<Vec<_>>());
        let names: Vec<String> = tasks(&lines).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, (0..100).map(|index| format!("all/{index}")).collect::<Vec<_>>());
        seen.push(of(&report, "all").outputs["items"]);
        // The template is no stage of its own.
        assert_eq!(report.stages.len(), 2);
    }
    assert!(seen.iter().all(|digest| *digest == seen[0]));
}

#[test]
fn an_empty_list_gives_an_empty_list_and_no_frame() {
    let store = Store::memory();
    let (report, _) = go(&over_list(0, "", ""), &store, 2);
    assert!(matches!(output(&report, &store, "all"), Artifact::List(list) if list.is_empty()));
    let (report, _) = go(&over_list(0, "", "gather = \"concat\""), &store, 2);
    assert_eq!(of(&report, "all").error.as_deref(), Some("there are no items, and so no columns for a frame"));
}

#[test]
fn the_first_failure_in_the_order_of_the_items_is_told_and_the_others_are_kept() {
    for cores in [1, 2, 8] {
        let store = Store::memory();
        let (report, _) = go(&over_list(40, "fails = 7.0", ""), &store, cores);
        let all = of(&report, "all");
        assert_eq!((all.outcome, all.error.as_deref()), (Outcome::Failed, Some("item 7: 7 is not for me")));
        assert_eq!(all.help.as_deref(), Some("ask somebody else"));
        // What was done is known to the next run.
        let (_, lines) = go(&over_list(40, "fails = 7.0", ""), &store, cores);
        assert!(count(&lines, Outcome::Cached) >= 7, "{lines:?}");
    }
}

#[test]
fn only_what_is_new_runs() {
    let store = Store::memory();
    go(&over_list(20, "", ""), &store, 2);
    let (report, lines) = go(&over_list(21, "", ""), &store, 2);
    assert!(report.succeeded());
    assert_eq!((count(&lines, Outcome::Done), count(&lines, Outcome::Cached)), (1, 20));
    let (report, lines) = go(&over_list(21, "", ""), &store, 2);
    assert_eq!((of(&report, "all").outcome, tasks(&lines).len()), (Outcome::Cached, 0));
    // Another template is another task for each.
    let (_, lines) = go(&over_list(21, "by = 1.0", ""), &store, 2);
    assert_eq!(count(&lines, Outcome::Done), 21);
}

#[test]
fn an_item_that_the_store_has_lost_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = || runtime().unwrap().block_on(Store::open(&folder.path().display().to_string())).unwrap();
    let (first, _) = go(&over_list(5, "", ""), &open(), 2);
    let store = open();
    let memo = runtime().unwrap().block_on(store.memo(of(&first, "parts").key.unwrap())).unwrap().unwrap();
    let items = runtime().unwrap().block_on(store.items(memo.outputs["output"])).unwrap();
    let digest = items[3].digest.to_string();
    std::fs::remove_file(folder.path().join("blobs").join(&digest[..2]).join(&digest)).unwrap();
    // The list itself is there, so that its stage counts as done, until a task misses the item.
    let (second, lines) = go(&over_list(5, "by = 0.5", ""), &open(), 2);
    assert!(second.succeeded(), "{second:?}");
    assert!(
        lines.iter().any(|line| matches!(&line.event, Event::Warning { name, .. } if name == "all/3")),
        "{lines:?}"
    );
    assert_eq!(of(&second, "parts").outputs, of(&first, "parts").outputs);
}

#[test]
fn slices_of_a_frame_put_together_are_what_the_whole_would_give() {
    let text = |rows: usize| {
        let whole = "[stage.whole]\nuse = \"add\"\nfrom = \"parts\"\nwith = { by = 0.5 }\n";
        over_rows(1000, &format!("rows = {rows}, gather = \"concat\"")) + whole
    };
    let store = Store::memory();
    for rows in [1, 7, 250, 1000, 5000] {
        let (report, lines) = go(&text(rows), &store, 2);
        assert!(report.succeeded(), "{report:?}");
        assert_eq!(tasks(&lines).len(), 1000usize.div_ceil(rows));
        assert_eq!(of(&report, "all").outputs["rows"], of(&report, "whole").outputs["output"], "{rows} rows");
    }
    // A table without rows keeps its columns.
    let (report, _) = go(&over_rows(0, "rows = 10, gather = \"concat\""), &store, 2);
    assert!(
        matches!(output(&report, &store, "all"), Artifact::Frame(frame) if frame.rows() == 0 && frame.columns() == 1)
    );
}

#[test]
fn a_task_for_each_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: &str| std::fs::write(folder.path().join(name), format!("x\n{rows}\n")).unwrap();
    let text = format!(
        "[stage.day]\nuse = \"read.csv\"\nwith = {{ path = \"{}/*.csv\", types = {{ x = \"float64\" }} }}\n\
         [stage.days]\nuse = \"map\"\nfrom = {{ each = \"day\" }}\nwith = {{ files = \"path\", gather = \"concat\" }}\n",
        folder.path().display()
    );
    write("b.csv", "3\n4");
    write("a.csv", "1\n2");
    let store = Store::memory();
    let (report, lines) = go(&text, &store, 2);
    let frame = |report: &Report| values(&Frame::try_from(output(report, &store, "days")).unwrap());
    assert_eq!((frame(&report), count(&lines, Outcome::Done)), (vec![1.0, 2.0, 3.0, 4.0], 2));
    // One more file is one more task; a changed one runs again.
    write("c.csv", "5");
    let (report, lines) = go(&text, &store, 2);
    assert_eq!((frame(&report), count(&lines, Outcome::Done)), (vec![1.0, 2.0, 3.0, 4.0, 5.0], 1));
    write("b.csv", "9");
    let (report, lines) = go(&text, &store, 2);
    assert_eq!((frame(&report), count(&lines, Outcome::Done)), (vec![1.0, 2.0, 9.0, 5.0], 1));
    // The item that fails is named with its file.
    write("b.csv", "nine");
    let (report, _) = go(&text, &store, 2);
    let error = of(&report, "days").error.clone().unwrap();
    assert!(error.starts_with("item 1 (") && error.contains("b.csv"), "{error}");
}

#[test]
fn a_task_for_each_value() {
    let store = Store::memory();
    let (report, _) = go(&over_values("{ by = [3.0, 1.0, 2.0] }"), &store, 2);
    let Artifact::List(list) = output(&report, &store, "all") else { panic!("no list") };
    let by = |item: &Artifact| Metrics::try_from(item.clone()).unwrap().get("by").unwrap();
    assert_eq!(list.items().iter().map(by).collect::<Vec<_>>(), [3.0, 1.0, 2.0]);
    let (report, lines) = go(&over_values("{ by = [3.0, 1.0, 2.5, 2.0] }"), &store, 2);
    assert!(report.succeeded());
    assert_eq!((count(&lines, Outcome::Done), count(&lines, Outcome::Cached)), (1, 3));
    let (report, _) = go(&over_values("{ by = [] }"), &store, 2);
    assert!(matches!(output(&report, &store, "all"), Artifact::List(list) if list.is_empty()));
}

#[test]
fn ten_thousand_items() {
    let numbers: Vec<String> = (0..10_000).map(|index| format!("{index}.0")).collect();
    let text = over_values(&format!("{{ by = [{}] }}", numbers.join(",")));
    let store = Store::memory();
    let (report, lines) = go(&text, &store, 2);
    assert!(report.succeeded(), "{:?}", of(&report, "all").error);
    let Artifact::List(list) = output(&report, &store, "all") else { panic!("no list") };
    let last = Metrics::try_from(list.items()[9_999].clone()).unwrap();
    assert_eq!((list.len(), last.get("by")), (10_000, Some(9_999.0)));
    let seen: std::collections::BTreeSet<Digest> = [of(&report, "all").outputs["items"]].into();
    assert_eq!(seen.len(), 1);
    // Few of them are worth showing.
    let steps = lines.iter().filter(|line| matches!(line.event, Event::Progress { .. })).count();
    assert!(steps <= 200, "{steps}");
}

#[test]
fn what_does_not_fit_is_told_before_anything_runs() {
    let two = |map: &str| {
        "[stage.parts]\nuse = \"parts\"\nwith = { count = 3 }\n[stage.one]\nuse = \"two\"\n[stage.all]\nuse = \"map\"\n"
            .to_owned()
            + &format!("from = {{ each = \"one\", over = \"parts\" }}\nwith = {{ {map} }}\n")
    };
    let right = "\"two\"\nfrom = { right = \"parts\" }\n";
    let cases = [
        (two(""), "9:8: `map`: which input of stage `one` takes the items, `left` or `right`? say `into = \"...\"`"),
        (two("into = \"left\""), "4:8: stage `one` lacks its input `right`"),
        (two("into = \"lft\""), "9:17: `into` of `map`: stage `one` has no input `lft`; did you mean `left`?"),
        (
            two("into = \"left\", take = \"matrics\"").replace("\"two\"\n", right),
            "10:32: `take` of `map`: stage `one` has no output `matrics`; did you mean `metrics`?",
        ),
        (
            over_list(3, "", "values = { by = [1.0] }"),
            "10:19: `values` of `map`: the items come from `over`; leave one of the two out",
        ),
        (
            over_list(3, "", "").replace(", over = \"parts\"", ""),
            "10:8: `map`: there is nothing to run over: give `over`, `files` or `values`",
        ),
        (over_list(3, "", "").replace("over = \"parts\"", "over = \"pats\""), "9:32: there is no stage `pats`"),
        (
            over_values("{ bi = [1.0] }"),
            "6:27: `values.bi.0` of `map`: stage `one` does not take it: `bi`: unknown field",
        ),
        (over_values("{ by = [1.0, \"x\"] }"), "6:32: `values.by.1` of `map`: stage `one` does not take it: `by`: "),
        (
            over_values("{ by = [1.0], fails = [] }"),
            "`values.fails` of `map`: `by` and `fails` have different numbers of values",
        ),
        (over_values("{ \"by.deep\" = [1.0] }"), "of `map`: `by` is 0.0, which has no `deep`"),
        (
            over_values("{ by = [1.0] }, gather = \"concat\""),
            "`gather` of `map`: only frames can be put together, but `one.output` is metrics",
        ),
        (over_values("{ by = [1.0] }, into = \"rows\""), "`into` of `map`: only items of `over` go into an input"),
        (over_values("{}, files = \"path\""), "`files` of `map`: stage `one` has no parameter `path`"),
        // What is a stage of its own needs its inputs.
        (
            over_list(3, "", "") + "[stage.more]\nuse = \"add\"\nfrom = \"one\"\n",
            "4:8: stage `one` lacks its input `rows`",
        ),
    ];
    for (text, told) in cases {
        let found = mistakes(&text);
        assert!(found.len() == 1 && found[0].contains(told), "{text}\n{found:?}");
    }
}

#[test]
fn what_only_the_data_can_show_is_told_at_once() {
    let error = |text: &str| {
        let (report, lines) = go(text, &Store::memory(), 2);
        assert!(tasks(&lines).is_empty());
        of(&report, "all").error.clone().unwrap()
    };
    assert_eq!(error(&over_rows(3, "")), "`over` is a frame, and nothing says how to slice it");
    assert_eq!(error(&over_list(3, "", "rows = 2")), "`over` is a list, and `rows` slices frames");
    let models = over_values("{ by = [1.0] }")
        + "[stage.each]\nuse = \"add\"\n[stage.again]\nuse = \"map\"\n"
        + "from = { each = \"each\", over = \"all\" }\n";
    let (report, _) = go(&models, &Store::memory(), 2);
    let error = of(&report, "again").error.clone().unwrap();
    assert_eq!(error, "item 0 is metrics, but input \"rows\" of stage \"each\" takes frame");
}

#[test]
fn items_of_open_stages_need_a_name() {
    let text = over_list(2, "", "").replace("use = \"add\"\nwith = {  }", "use = \"any\"");
    assert_eq!(
        mistakes(&text),
        ["p.toml:9:8: `map`: which input of stage `one` takes the items? say `into = \"...\"`"]
    );
    let store = Store::memory();
    assert!(go(&text.replace("with = {  }", "with = { into = \"rows\" }"), &store, 2).0.succeeded());
}
