//! A story, and what is read from it.

use super::*;
use crate::damage::damaged;
use crate::run::{AttemptEnd, AttemptStart, Ended, Event, Line, Outcome, Report, StageReport, WorkerInfo};
use indexmap::IndexMap;

pub(super) fn line(at: f64, event: Event) -> Line {
    Line { event, at }
}

pub(super) fn joined(at: f64, worker: &str, cores: f64, price: Option<f64>) -> Line {
    let info = WorkerInfo {
        worker: worker.into(),
        machine: "here".into(),
        cores,
        memory: None,
        devices: Vec::new(),
        pool: None,
        price,
    };
    line(at, Event::WorkerJoined(info))
}

pub(super) fn started(at: f64, task: u64, name: &str, worker: &str, cores: f64, waited: f64) -> Line {
    let start = AttemptStart {
        name: name.into(),
        task,
        attempt: 1,
        worker: worker.into(),
        device: "cpu".into(),
        threads: 1,
        cores,
        gpus: 0.0,
        waited,
    };
    line(at, Event::AttemptStarted(start))
}

pub(super) fn ended(at: f64, task: u64, name: &str, worker: &str, seconds: f64) -> Line {
    let end = AttemptEnd {
        name: name.into(),
        task,
        attempt: 1,
        worker: worker.into(),
        end: Ended::Done,
        seconds,
        cores: 1.0,
        gpus: 0.0,
        read: 100,
        written: 10,
        moved: 1,
    };
    line(at, Event::AttemptEnded(end))
}

pub(super) fn stage_started(at: f64, name: &str, takes: &[&str]) -> Line {
    let takes = takes.iter().map(|name| (*name).to_owned()).collect();
    line(at, Event::StageStarted { name: name.into(), takes })
}

pub(super) fn stage_finished(at: f64, name: &str) -> Line {
    let report = StageReport {
        name: name.into(),
        outcome: Outcome::Done,
        seconds: 1.0,
        device: "cpu".into(),
        key: None,
        outputs: IndexMap::new(),
        metrics: Default::default(),
        error: None,
        help: None,
        fault: None,
    };
    line(at, Event::StageFinished(report))
}

/// Two workers of two cores; `rows` runs for 1 s, then `best` waits for its two tasks, one on each worker.
pub(super) fn story() -> Vec<Line> {
    let begun = Event::Started {
        run: "digits-1".into(),
        pipeline: "digits".into(),
        seed: 7,
        stages: vec!["rows".into(), "best".into()],
        unix_millis: 0,
        build: "a build".into(),
    };
    let report = Report { run: "digits-1".into(), seconds: 4.0, stages: Vec::new(), interrupted: false };
    vec![
        line(0.0, begun),
        joined(0.0, "a", 2.0, Some(3600.0)),
        stage_started(0.0, "rows", &[]),
        started(0.0, 1, "rows", "a", 2.0, 0.0),
        joined(0.5, "b", 2.0, None),
        ended(1.0, 1, "rows", "a", 1.0),
        stage_finished(1.0, "rows"),
        stage_started(1.0, "best", &["rows"]),
        started(1.0, 2, "best", "a", 0.0, 0.0),
        started(1.0, 3, "best/trial-0", "a", 1.0, 0.0),
        started(1.5, 4, "best/trial-1", "b", 2.0, 0.5),
        ended(3.0, 3, "best/trial-0", "a", 2.0),
        ended(3.5, 4, "best/trial-1", "b", 1.0),
        ended(4.0, 2, "best", "a", 3.0),
        stage_finished(4.0, "best"),
        line(4.0, Event::WorkerLeft { worker: "b".into(), lost: None }),
        line(4.0, Event::Finished(report)),
    ]
}

#[test]
fn a_story_says_who_ran_what_when() {
    let told = Timeline::of(&story());
    assert_eq!((told.run.as_str(), told.seconds, told.ended), ("digits-1", 4.0, true));
    let spans: Vec<_> = told.spans.iter().map(|span| (span.name.as_str(), span.from, span.to)).collect();
    assert_eq!(spans, [("rows", 0.0, 1.0), ("best/trial-0", 1.0, 3.0), ("best/trial-1", 2.5, 3.5), ("best", 1.0, 4.0)]);
    // Half a second for its place, one more in the worker's own queue.
    assert_eq!((told.spans[2].waited, told.spans[2].core_seconds), (1.5, 2.0));
    assert!(!told.spans[3].works() && told.spans[2].stage() == "best");
    let stages: Vec<_> = told.stages.iter().map(|stage| (stage.name.as_str(), stage.from, stage.to)).collect();
    assert_eq!(stages, [("rows", Some(0.0), Some(1.0)), ("best", Some(1.0), Some(4.0))]);
    assert_eq!(told.workers.iter().map(|worker| worker.to).collect::<Vec<_>>(), [None, Some(4.0)]);
}

#[test]
fn a_story_may_break_off_anywhere() {
    let lines = story();
    for length in 0..lines.len() {
        let told = Timeline::of(&lines[..length]);
        assert!(!told.ended);
        assert!(told.spans.iter().all(|span| span.from <= span.to && span.to <= told.seconds), "{told:?}");
    }
    // At the end of this one, two attempts are under way.
    let told = Timeline::of(&lines[..11]);
    assert_eq!(told.spans.iter().filter(|span| span.end.is_none()).count(), 3);
}

#[test]
fn what_ran_on_a_lost_worker_ended_with_it() {
    let mut lines = story()[..11].to_vec();
    lines.push(line(2.0, Event::WorkerLeft { worker: "b".into(), lost: Some("no heartbeat".into()) }));
    lines.push(line(3.0, Event::Log { name: "best".into(), line: "goes on".into() }));
    let told = Timeline::of(&lines);
    let span = told.spans.iter().find(|span| span.worker == "b").unwrap();
    assert_eq!((span.from, span.to), (1.5, 2.0));
    assert_eq!(told.workers[1].lost.as_deref(), Some("no heartbeat"));
}

#[test]
fn a_damaged_story_is_told_or_refused() {
    let lines: Vec<Vec<u8>> = story().iter().map(|line| serde_json::to_vec(line).unwrap()).collect();
    let whole: Vec<u8> = lines.join(&b'\n');
    damaged(1, 4_000, &lines, |line| {
        // What is believed of one line must not be more than the others bear.
        if let Ok(line) = serde_json::from_slice::<Line>(line) {
            for at in [0, 5, 11, 17] {
                let mut story = story();
                story.insert(at, line.clone());
                tell(&story);
            }
        }
    });
    damaged(2, 2_000, &[whole], |text| {
        let lines = text.split(|byte| *byte == b'\n').map(serde_json::from_slice::<Line>);
        tell(&lines.filter_map(Result::ok).collect::<Vec<_>>());
    });
}

fn tell(story: &[Line]) {
    let told = Timeline::of(story);
    let bill = Bill::of(&told);
    serde_json::to_vec(&bill).unwrap();
    chrome_trace(&told, &mut Vec::new()).unwrap();
}
