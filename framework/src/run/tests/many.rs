//! Many runs of one coordinator.

use super::*;
use crate::Fault;
use crate::worker::Token;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, mpsc};
use std::thread::{JoinHandle, spawn};

const PATIENCE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_millis(20);

/// Tasks that wait to be let go, by name, and all that ever began.
#[derive(Default)]
struct Gate {
    state: Mutex<(Vec<String>, BTreeSet<String>)>,
    /// Whether one that waits is to fail.
    spoiled: AtomicBool,
    changed: Condvar,
}

impl Gate {
    /// A task begins and waits, unless it is told to stop.
    fn pass(&self, name: &str, cancel: &Cancel) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.0.push(name.to_owned());
        self.changed.notify_all();
        while !state.1.contains(name) {
            cancel.check()?;
            state = self.changed.wait_timeout(state, Duration::from_millis(5)).unwrap().0;
            if self.spoiled.swap(false, Ordering::Relaxed) {
                return Err(Error::new("it is spoiled"));
            }
        }
        Ok(())
    }

    fn let_go(&self, name: &str) {
        self.state.lock().unwrap().1.insert(name.to_owned());
        self.changed.notify_all();
    }

    /// Waits until so many have begun; gives their names.
    fn begun(&self, count: usize) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let (state, late) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.0.len() < count).unwrap();
        assert!(!late.timed_out(), "{count} should have begun, and there are {:?}", state.0);
        state.0.clone()
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Named {
    name: String,
    #[serde(default)]
    tasks: usize,
}

/// The stages of the other tests, and some that wait at a gate.
fn gated(gate: &Arc<Gate>) -> Arc<Registry> {
    let waits = {
        let gate = gate.clone();
        move |Params(p): Params<Named>, cancel: Cancel| -> Result<Metrics> {
            gate.pass(&p.name, &cancel)?;
            // Long enough not to be put in lanes, behind others and out of turn.
            std::thread::sleep(LONG);
            Ok(Metrics::new().with("length", p.name.len() as f64))
        }
    };
    let crowd = |Params(p): Params<Named>, tasks: Tasks| -> Result<Metrics> {
        let task = |at: usize| TaskRequest {
            label: at.to_string(),
            stage: "waits".into(),
            params: json!({ "name": format!("{}-{at}", p.name) }),
            inputs: BTreeMap::new(),
            seed: 0,
            needs: Default::default(),
        };
        let pending: Vec<_> = (0..p.tasks).map(|at| tasks.submit(task(at))).collect();
        let all = pending.into_iter().map(|pending| pending.wait()).collect::<Result<Vec<_>>>()?;
        Ok(Metrics::new().with("tasks", all.len() as f64))
    };
    Arc::new(
        Registry::new()
            .stage("noise", stage(noise).version(1))
            .stage("add", stage(add).version(1))
            .stage("round", stage(round).version(1))
            .stage("total", stage(total).version(1))
            .stage("fail", stage(fail).version(1))
            .stage("sweep", stage(sweep).inputs(["trial"]).version(1))
            .stage("waits", stage(waits).version(1))
            .stage("crowd", stage(crowd).version(1)),
    )
}

/// A coordinator of many runs, in this process.
struct Many {
    address: String,
    token: Token,
    store: Store,
    cancel: Cancel,
    metrics: crate::run::Metrics,
    events: mpsc::Receiver<Event>,
    ends: JoinHandle<Result<()>>,
}

/// Somebody who asked for a run, and listens.
struct Asked {
    cancel: Cancel,
    lines: mpsc::Receiver<Line>,
    ends: JoinHandle<Result<(Report, Option<String>)>>,
}

/// Others may join and ask who have the token.
fn open_to(token: &Token) -> Elsewhere {
    let (listen, token) = ("127.0.0.1:0".into(), token.clone());
    Elsewhere { listen, open: true, token, pools: Vec::new(), memory: 64 << 20, cache: None }
}

/// Asks a coordinator for a run.
fn for_run(address: &str, token: &Token, text: &str) -> Ask {
    Ask {
        join: address.into(),
        token: token.clone(),
        name: "test.toml".into(),
        text: text.into(),
        overrides: Vec::new(),
        only: Vec::new(),
        standing: Standing::default(),
        patience: PATIENCE,
        cancel: Cancel::default(),
    }
}

impl Many {
    fn new(registry: &Arc<Registry>, cores: usize) -> Self {
        let (token, store, cancel) = (Token::generate().unwrap(), Store::memory(), Cancel::default());
        let (elsewhere, cancelled) = (Some(open_to(&token)), cancel.clone());
        let (said, events) = mpsc::channel();
        let metrics = crate::run::Metrics::of(&store);
        let counted = metrics.clone();
        let ends = spawn({
            let (registry, store) = (registry.clone(), store.clone());
            move || {
                let metrics = Some(counted);
                let options = Options { cores, elsewhere, metrics, cancel: cancelled, ..Options::default() };
                coordinate(&registry, &store, &options, &mut |event| drop(said.send(event.clone())))
            }
        });
        let Event::Listening { address } = events.recv_timeout(PATIENCE).unwrap() else { panic!("it listens first") };
        Self { address, token, store, cancel, metrics, events, ends }
    }

    fn ask(&self, text: &str, standing: Standing) -> Asked {
        let cancel = Cancel::default();
        let asked = Ask { standing, cancel: cancel.clone(), ..for_run(&self.address, &self.token, text) };
        let (said, lines) = mpsc::channel();
        let ends = spawn(move || ask(&asked, &mut |line: &Line| drop(said.send(line.clone()))));
        Asked { cancel, lines, ends }
    }

    fn usual(&self, text: &str) -> Asked {
        self.ask(text, Standing::default())
    }

    /// Waits for something that the coordinator tells whoever watches it.
    fn hears(&self, what: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.events.recv_timeout(PATIENCE).unwrap();
            if what(&event) {
                return event;
            }
        }
    }

    /// Waits until so many tasks wait for a place.
    fn has_waiting(&self, tasks: usize) {
        let expected = format!("\nropeway_tasks_waiting {tasks}\n");
        let since = Instant::now();
        while !self.metrics.text().unwrap().contains(&expected) {
            assert!(since.elapsed() < PATIENCE, "{}", self.metrics.text().unwrap());
            std::thread::yield_now();
        }
    }

    fn end(self) {
        self.cancel.cancel();
        self.ends.join().unwrap().unwrap();
    }
}

impl Asked {
    /// Waits for something that its run tells.
    fn hears(&self, what: impl Fn(&Event) -> bool) -> Event {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap();
            if what(&line.event) {
                return line.event;
            }
        }
    }

    /// Waits until its run waits for what another one computes.
    fn waits_for(&self, run: &str) {
        let said = format!("run {run} computes it already: this one waits for that");
        self.hears(|event| matches!(event, Event::Log { line, .. } if *line == said));
    }

    fn report(self) -> Report {
        self.ends.join().unwrap().unwrap().0
    }
}

fn digests(report: &Report) -> Vec<(String, BTreeMap<String, Digest>)> {
    let stage = |stage: &StageReport| (stage.name.clone(), stage.outputs.clone().into_iter().collect());
    report.stages.iter().map(stage).collect()
}

fn waiting(name: &str) -> String {
    format!("name = {name:?}\n[stage.wait]\nuse = \"waits\"\nwith = {{ name = \"it\" }}\n")
}

fn crowd(name: &str, tasks: usize) -> String {
    format!("name = {name:?}\n[stage.all]\nuse = \"crowd\"\nwith = {{ name = {name:?}, tasks = {tasks} }}\n")
}

#[test]
fn runs_side_by_side_give_what_they_give_alone() {
    let many = Many::new(&registry(), 2);
    let texts = [CHAIN, SWEEP, CHAIN, SWEEP, CHAIN];
    let asked: Vec<Asked> = texts.iter().map(|text| many.usual(text)).collect();
    let mut names = BTreeSet::new();
    for (text, asked) in texts.iter().zip(asked) {
        let (report, store) = asked.ends.join().unwrap().unwrap();
        let (alone, _) = go(text, &Store::memory(), 1);
        assert_eq!((digests(&report), store), (digests(&alone), Some(many.store.url().to_owned())));
        assert!(report.fault().is_none() && !report.interrupted);
        // Each has a name and a log of its own, which tells the same as whoever asked has heard.
        assert!(names.insert(report.run.clone()));
        let told = read_events(&many.store, &report.run).unwrap();
        assert_eq!(told.last().map(|line| &line.event), Some(&Event::Finished(report.clone())));
        let heard: Vec<Line> = asked.lines.try_iter().filter(|line| !is_progress(line)).collect();
        assert_eq!(heard, told.into_iter().filter(|line| !is_progress(line)).collect::<Vec<_>>());
    }
    many.end();
}

fn is_progress(line: &Line) -> bool {
    matches!(line.event, Event::Progress { .. })
}

#[test]
fn one_run_that_fails_or_is_refused_is_none_of_the_others_business() {
    let many = Many::new(&registry(), 1);
    let fails = many.usual(&CHAIN.replace("\"round\"", "\"fail\""));
    let works = many.usual(CHAIN);
    let refused = |text: &str| many.usual(text).ends.join().unwrap().unwrap_err();
    let unknown = refused(&CHAIN.replace("\"round\"", "\"rounds\""));
    assert_eq!(unknown.whose(), Fault::Usage);
    assert!(unknown.to_string().contains("test.toml:") && unknown.to_string().contains("rounds"), "{unknown}");
    assert_eq!(refused("no = ").whose(), Fault::Usage);
    assert_eq!(refused(&"[".repeat(1 << 20)).whose(), Fault::Usage);
    let report = fails.report();
    assert_eq!(outcomes(&report)[2..], [("whole", Outcome::Failed), ("sum", Outcome::Skipped)]);
    assert!(works.report().stages.iter().all(|stage| stage.error.is_none()));
    many.end();
}

#[test]
fn what_several_runs_ask_for_is_computed_once_and_outlives_whoever_asked_first() {
    let gate = Arc::new(Gate::default());
    let many = Many::new(&gated(&gate), 2);
    let first = many.usual(&waiting("first"));
    gate.begun(1);
    let second = many.usual(&waiting("second"));
    second.waits_for("first-1");
    first.cancel.cancel();
    assert!(first.report().interrupted);
    many.hears(|event| matches!(event, Event::Finished(report) if report.run == "first-1" && report.interrupted));
    second.hears(|event| matches!(event, Event::AttemptStarted(_)));
    gate.let_go("it");
    let report = second.report();
    assert_eq!(outcomes(&report), [("wait", Outcome::Cached)]);
    assert_eq!(gate.begun(1).len(), 1, "it was not begun again");
    many.end();
}

#[test]
fn who_waits_for_another_runs_task_keeps_its_own_terms() {
    let gate = Arc::new(Gate::default());
    let many = Many::new(&gated(&gate), 2);
    let with = |name: &str, needs: &str| waiting(name) + &format!("needs = {{ {needs} }}\n");
    // Nobody will ever have so many cores; whoever needs fewer does not wait for that.
    let never = many.usual(&with("never", "cpus = 1000"));
    never.hears(|event| matches!(event, Event::StageStarted { .. }));
    let hasty = many.usual(&with("hasty", "retries = 0"));
    gate.begun(1);
    let patient = many.usual(&with("patient", "cpus = 2"));
    patient.waits_for("hasty-1");
    gate.spoiled.store(true, Ordering::Relaxed);
    assert_eq!(outcomes(&hasty.report()), [("wait", Outcome::Failed)]);
    // With other needs the other one begins anew.
    assert_eq!(gate.begun(2).len(), 2);
    gate.let_go("it");
    assert_eq!(outcomes(&patient.report()), [("wait", Outcome::Done)]);
    never.cancel.cancel();
    assert!(never.report().interrupted);
    many.end();
}

#[test]
fn what_a_run_of_higher_priority_asks_for_too_is_its_own_as_long_as_it_waits() {
    let gate = Arc::new(Gate::default());
    let many = Many::new(&gated(&gate), 1);
    let low = many.usual(&waiting("low"));
    gate.begun(1);
    let high = many.ask(&waiting("high"), Standing { priority: 1, weight: 1 });
    let starts = |event: &Event| matches!(event, Event::AttemptStarted(_));
    high.hears(starts);
    low.hears(starts);
    low.hears(|event| matches!(event, Event::AttemptEnded(end) if end.end == Ended::Stopped));
    high.cancel.cancel();
    assert!(high.report().interrupted);
    low.hears(starts);
    gate.let_go("it");
    assert_eq!(outcomes(&low.report()), [("wait", Outcome::Done)]);
    assert_eq!(gate.begun(1).len(), 1, "it ran all the time");
    many.end();
}

#[test]
fn who_listens_no_more_has_its_run_stopped_and_others_go_on() {
    let gate = Arc::new(Gate::default());
    let many = Many::new(&gated(&gate), 1);
    let leaves = many.usual(&crowd("leaves", 3));
    assert!(gate.begun(1)[0].starts_with("leaves-"));
    let stays = many.usual(&crowd("stays", 2));
    leaves.cancel.cancel();
    assert!(leaves.report().interrupted);
    // The place of what is stopped is free for the other.
    for at in 1..3 {
        let begun = gate.begun(at + 1);
        assert!(begun[at].starts_with("stays-"), "{begun:?}");
        gate.let_go(&begun[at]);
    }
    assert_eq!(outcomes(&stays.report()), [("all", Outcome::Done)]);
    many.end();
}

#[test]
fn runs_share_the_cores_as_is_their_due() {
    let gate = Arc::new(Gate::default());
    let many = Many::new(&gated(&gate), 4);
    let weight = |weight| Standing { weight, ..Standing::default() };
    let one = many.ask(&crowd("one", 12), weight(1));
    assert!(gate.begun(4).iter().all(|name| name.starts_with("one-")), "nobody else wants any");
    let three = many.ask(&crowd("three", 12), weight(3));
    let first = many.ask(&crowd("first", 2), Standing { priority: 1, weight: 1 });
    many.has_waiting(8 + 12 + 2);
    let next: Vec<String> = (0..8)
        .map(|at| {
            let begun = gate.begun(at + 4);
            gate.let_go(&begun[at]);
            gate.begun(at + 5)[at + 4].split('-').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(next, ["first", "first", "three", "one", "three", "three", "three", "one"]);
    assert_eq!(outcomes(&first.report()), [("all", Outcome::Done)]);
    // The worker is everybody's, and does not leave with one of them.
    assert!(many.metrics.text().unwrap().contains("\nropeway_workers 1\n"));
    for asked in [one, three] {
        asked.cancel.cancel();
        assert!(asked.report().interrupted);
    }
    many.end();
}

#[test]
fn a_coordinator_of_one_run_takes_no_other() {
    let gate = Arc::new(Gate::default());
    let registry = gated(&gate);
    let token = Token::generate().unwrap();
    let options = Options { cores: 1, elsewhere: Some(open_to(&token)), ..Options::default() };
    let (said, heard) = mpsc::channel();
    let runs = spawn(move || {
        let mut sink = |line: &Line| drop(said.send(line.event.clone()));
        run(&pipeline(&waiting("alone"), &registry), &registry, &Store::memory(), &options, &mut sink).unwrap()
    });
    let address = loop {
        if let Event::Listening { address } = heard.recv_timeout(PATIENCE).unwrap() {
            break address;
        }
    };
    let error = ask(&for_run(&address, &token, CHAIN), &mut |_: &Line| {}).unwrap_err();
    assert_eq!(error.to_string(), "whoever listens there coordinates run alone-1 alone, and takes no other");
    gate.let_go("it");
    assert!(!runs.join().unwrap().interrupted);
}
