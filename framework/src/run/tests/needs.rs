//! What `needs` says beside room: when a stage is tried again, what goes first, and until when.

use super::*;
use crate::run::metrics::Metrics as Numbers;

/// What was begun, in order.
fn begun(lines: &[Line]) -> Vec<&str> {
    fn name(line: &Line) -> Option<&str> {
        match &line.event {
            Event::AttemptStarted(start) => Some(&start.name),
            _ => None,
        }
    }
    lines.iter().filter_map(name).collect()
}

#[test]
fn the_higher_priority_goes_first() {
    let store = Store::memory();
    let metrics = Numbers::of(&store);
    // It keeps the only core until all that can be placed after it waits for that.
    let hold = {
        let metrics = metrics.clone();
        move || {
            while !metrics.text().unwrap().contains("ropeway_tasks_waiting 3\n") {
                std::thread::yield_now();
            }
            Metrics::new()
        }
    };
    let registry = Arc::new((*registry()).clone().stage("hold", stage(hold).version(1)));
    let text = r#"
        name = "order"
        [stage.hold]
        use = "hold"
        needs = { priority = 9 }
        [stage.plain]
        use = "noise"
        with = { rows = 1 }
        [stage.last]
        use = "noise"
        with = { rows = 2 }
        needs = { priority = -1 }
        [stage.first]
        use = "noise"
        with = { rows = 3 }
        needs = { priority = 2 }
    "#;
    let options = Options { cores: 1, metrics: Some(metrics), ..Options::default() };
    let (_, lines) = heard(text, &registry, &store, &options);
    assert_eq!(begun(&lines), ["hold", "first", "plain", "last"]);
}

#[test]
fn past_its_deadline_a_stage_is_stopped_and_what_needs_it_is_skipped() {
    let endless = |cancel: Cancel| -> Result<Frame> {
        loop {
            cancel.check()?;
            std::thread::yield_now();
        }
    };
    let registry = Arc::new((*registry()).clone().stage("endless", stage(endless).version(1)));
    let text = r#"
        name = "late"
        [stage.rows]
        use = "endless"
        needs = { deadline = "2s" }
        [stage.total]
        use = "total"
        from = "rows"
        [stage.other]
        use = "noise"
        with = { rows = 1 }
    "#;
    let options = Options { cores: 2, ..Options::default() };
    let (report, lines) = heard(text, &registry, &Store::memory(), &options);
    assert_eq!(outcomes(&report), [("rows", Outcome::Failed), ("total", Outcome::Skipped), ("other", Outcome::Done)]);
    let error = report.stages[0].error.as_ref().unwrap();
    assert!(error.contains("its deadline passed: attempt 1 was running"), "{error}");
    let end = lines.iter().find(|line| matches!(&line.event, Event::StageFinished(stage) if stage.name == "rows"));
    assert!(end.unwrap().at >= 2.0, "{end:?}");
}

#[test]
fn a_stage_that_runs_others_rests_before_it_is_tried_again() {
    let tried = Arc::new(AtomicUsize::new(0));
    let flaky = {
        let tried = tried.clone();
        move |_: Template, _: Tasks| match tried.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(Error::new("not yet")),
            _ => Ok(Metrics::new()),
        }
    };
    let registry = Arc::new((*registry()).clone().stage("flaky", stage(flaky).version(1)));
    let text =
        SWEEP.replace("use = \"sweep\"", "use = \"flaky\"\nneeds = { retries = 2 }").replace("trial = ", "input = ");
    let (report, lines) = heard(&text, &registry, &Store::memory(), &Options::default());
    assert_eq!((report.stages[1].outcome, tried.load(Ordering::Relaxed)), (Outcome::Done, 3), "{report:?}");
    let starts: Vec<f64> = lines
        .iter()
        .filter(|line| matches!(&line.event, Event::AttemptStarted(start) if start.name == report.stages[1].name))
        .map(|line| line.at)
        .collect();
    let rests: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(rests.len() == 2 && rests[0] >= 0.1 && rests[1] >= 0.2, "{rests:?}");
}
