//! What the scheduler does in small cases.

use super::*;
use std::collections::{BTreeMap, VecDeque};

const CORE: Needs = Needs { millicores: 1000, memory: 0, gpus: 0, gpu_memory: 0, files: false, peers: false };

/// A scheduler, and the time.
struct Case {
    scheduler: Scheduler,
    now: Time,
}

fn cores(cores: u64) -> Capacity {
    Capacity { millicores: cores * 1000, memory: 8 << 30, ..Capacity::default() }
}

fn task(id: u64) -> Task {
    Task::new(TaskId(id), CORE)
}

fn start(task: u64, attempt: u32, worker: u64, threads: usize) -> Action {
    let (task, worker) = (TaskId(task), WorkerId(worker));
    Action::Start { task, attempt, worker, threads, devices: Vec::new(), queued: false }
}

impl Case {
    /// Workers 0, 1, …
    fn new(workers: &[Capacity]) -> Self {
        let mut case = Self { scheduler: Scheduler::new(), now: Time::ZERO };
        for (worker, has) in workers.iter().enumerate() {
            assert!(case.send(Event::Joined { worker: WorkerId(worker as u64), has: has.clone() }).is_empty());
        }
        case
    }

    fn send(&mut self, event: Event) -> Vec<Action> {
        let actions = self.scheduler.step(self.now, event);
        self.scheduler.check();
        actions
    }

    fn submit(&mut self, task: Task) -> Vec<Action> {
        self.send(Event::Submitted(task))
    }

    fn end_after(&mut self, worker: u64, task: u64, attempt: u32, end: End, seconds: f64) -> Vec<Action> {
        let (worker, task) = (WorkerId(worker), TaskId(task));
        self.send(Event::Ended { worker, task, attempt, end, seconds, made: Vec::new() })
    }

    fn end(&mut self, worker: u64, task: u64, attempt: u32, end: End) -> Vec<Action> {
        self.end_after(worker, task, attempt, end, 1.0)
    }

    fn tick(&mut self, after: Time) -> Vec<Action> {
        self.now += after;
        self.send(Event::Tick)
    }

    /// Teaches it how long tasks of stage 0 take.
    fn teach(mut self, took: Time) -> Self {
        let mut costs = Costs::default();
        (0..10).for_each(|_| costs.learn(StageId(0), Device::Cpu, 0, took));
        self.scheduler = self.scheduler.with_costs(costs);
        self
    }
}

/// Where tasks were started: task, worker, and whether they wait there.
fn started(actions: &[Action]) -> Vec<(u64, u64, bool)> {
    let start = |action: &Action| match action {
        Action::Start { task, worker, queued, .. } => Some((task.0, worker.0, *queued)),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

fn reason(actions: &[Action]) -> &str {
    match actions {
        [Action::Refused { reason, .. } | Action::Expired { reason, .. }, ..] => reason,
        _ => panic!("{actions:?}"),
    }
}

#[test]
fn a_lone_task_gets_all_threads_and_later_ones_their_share() {
    let mut case = Case::new(&[cores(4)]);
    assert_eq!(case.submit(task(1)), [start(1, 1, 0, 4)]);
    assert_eq!(case.submit(task(2)), [start(2, 1, 0, 2)]);
}

#[test]
fn the_emptiest_worker_is_chosen_and_one_without_devices_for_who_needs_none() {
    let with_gpu = Capacity { devices: vec![16 << 30], ..cores(8) };
    let mut case = Case::new(&[with_gpu, cores(2), cores(3)]);
    let workers: Vec<u64> = (0..6).map(|id| started(&case.submit(task(id)))[0].1).collect();
    assert_eq!(workers, [2, 1, 2, 1, 2, 0]);
}

#[test]
fn what_can_never_be_placed_is_refused_at_once_with_the_reason() {
    let gpu = Capacity { devices: vec![16 << 30], ..cores(2) };
    let mut case = Case::new(&[gpu.clone(), cores(4)]);
    let mut refused = |needs: Needs, members: u32| {
        let actions = case.submit(Task { members, ..Task::new(TaskId(1), needs) });
        assert_eq!(actions.len(), 1);
        reason(&actions).to_owned()
    };
    assert_eq!(refused(Needs { gpus: 4000, ..CORE }, 1), "it needs 4 GPUs; the largest worker has 1");
    assert_eq!(refused(Needs { millicores: 5000, ..CORE }, 1), "it needs 5 cores; the largest worker has 4 cores");
    assert_eq!(refused(Needs { gpus: 1500, ..CORE }, 1), "it needs 1.5 GPUs; more than one must be a whole number");
    let needs = Needs { gpus: 500, gpu_memory: 17 << 30, ..CORE };
    assert_eq!(refused(needs, 1), "it needs 0.5 of a GPU with 17 GiB each; the largest worker has 1 GPU with 16 GiB");
    let needs = Needs { memory: 9 << 30, ..CORE };
    assert_eq!(refused(needs, 1), "it needs 9 GiB of memory; the largest worker has 8 GiB of memory");
    let all = "it needs 3 cores, 1 GPU; no worker has all of that at once";
    assert_eq!(refused(Needs { millicores: 3000, gpus: 1000, ..CORE }, 1), all);
    let gang = "its 7 members need 1 core each, at the same time; all workers and pools together hold 6";
    assert_eq!(refused(CORE, 7), gang);
}

#[test]
fn a_pool_that_can_start_a_larger_worker_is_reason_to_wait() {
    let pool = Capacity { devices: vec![16 << 30; 2], ..cores(2) };
    let mut case = Case::new(&[]);
    case.scheduler = Scheduler::new().with_pool(PoolId(0), pool.clone(), 3);
    case.send(Event::Joined { worker: WorkerId(0), has: cores(1) });
    assert_eq!(case.submit(Task::new(TaskId(1), Needs { gpus: 2000, ..CORE })), []);
    let actions = case.submit(Task::new(TaskId(2), Needs { gpus: 4000, ..CORE }));
    let more = "it needs 4 GPUs; the largest worker has 2 and no pool can start one with more";
    assert_eq!(reason(&actions), more);
    let actions = case.send(Event::Joined { worker: WorkerId(1), has: pool });
    assert_eq!(started(&actions), [(1, 1, false)]);
}

#[test]
fn workers_of_a_pool_that_are_here_are_not_counted_twice() {
    let mut case = Case::new(&[]);
    case.scheduler = Scheduler::new().with_pool(PoolId(0), cores(2), 2);
    let has = Capacity { pool: Some(PoolId(0)), ..cores(2) };
    (0..2).for_each(|worker| drop(case.send(Event::Joined { worker: WorkerId(worker), has: has.clone() })));
    let gang = |members| Task { members, ..task(u64::from(members)) };
    let actions = case.submit(gang(5));
    let hold = "its 5 members need 1 core each, at the same time; all workers and pools together hold 4";
    assert_eq!(reason(&actions), hold);
    // For one that goes another may come.
    case.send(Event::Draining(WorkerId(1)));
    assert_eq!(case.submit(gang(4)), []);
    assert!(matches!(&case.submit(gang(6))[..], [Action::Refused { .. }]));
}

#[test]
fn who_can_run_nowhere_any_more_waits_a_while_for_a_worker() {
    let gpu = Capacity { devices: vec![16 << 30], ..cores(2) };
    let mut case = Case::new(&[gpu.clone(), cores(4)]);
    case.submit(Task::new(TaskId(1), Needs { gpus: 1000, ..CORE }));
    assert_eq!(case.send(Event::Lost(WorkerId(0))), [Action::Wake(Time::from_secs(60))]);
    assert_eq!(case.tick(Time::from_secs(59)), []);
    let actions = case.tick(Time::from_secs(1));
    assert_eq!(reason(&actions), "it needs 1 GPU; the largest worker has none");
    assert_eq!(case.scheduler.open(), 0);
}

#[test]
fn a_worker_that_was_just_lost_may_come_back() {
    let gpu = Capacity { devices: vec![16 << 30], ..cores(2) };
    let mut case = Case::new(&[gpu.clone(), cores(4)]);
    case.send(Event::Lost(WorkerId(0)));
    let wake = Action::Wake(Time::from_secs(60));
    assert_eq!(case.submit(Task::new(TaskId(1), Needs { gpus: 1000, ..CORE })), [wake]);
    assert_eq!(started(&case.send(Event::Joined { worker: WorkerId(2), has: gpu })), [(1, 2, false)]);
}

#[test]
fn a_transient_failure_is_tried_again_later_and_only_so_often() {
    let mut case = Case::new(&[cores(1)]);
    case.submit(Task { retries: 2, ..task(1) });
    let wait = Time::from_millis(100);
    assert_eq!(case.end(0, 1, 1, End::Transient), [Action::Wake(wait)]);
    assert_eq!(case.tick(wait), [start(1, 2, 0, 1)]);
    assert_eq!(case.end(0, 1, 2, End::Transient), [Action::Wake(3 * wait)]);
    assert_eq!(case.tick(2 * wait), [start(1, 3, 0, 1)]);
    assert_eq!(case.end(0, 1, 3, End::Transient), [Action::Failed(TaskId(1))]);
}

#[test]
fn a_zombies_word_changes_nothing() {
    let mut case = Case::new(&[cores(1)]);
    case.submit(task(1));
    case.send(Event::Lost(WorkerId(0)));
    let actions = case.send(Event::Joined { worker: WorkerId(1), has: cores(1) });
    assert_eq!(actions, [start(1, 2, 1, 1)]);
    assert_eq!(case.end(0, 1, 1, End::Failed), []);
    assert_eq!(case.end(1, 1, 1, End::Failed), [], "not its attempt");
    assert_eq!(case.end(0, 1, 2, End::Failed), [], "not its worker");
    assert_eq!(case.end(1, 1, 2, End::Done), [Action::Done(TaskId(1))]);
    assert_eq!(case.end(1, 1, 2, End::Done), [], "it came twice");
}

#[test]
fn higher_priority_goes_first() {
    let mut case = Case::new(&[cores(1)]);
    case.submit(task(1));
    case.submit(task(2));
    case.submit(Task { priority: 1, ..task(3) });
    assert_eq!(started(&case.end(0, 1, 1, End::Done)), [(3, 0, false)]);
}

#[test]
fn what_a_worker_lacks_is_tried_on_another_and_does_not_count_as_a_failure() {
    let mut case = Case::new(&[cores(1), cores(1)]);
    let [well, ill] = [1, 2].map(|id| started(&case.submit(task(id)))[0].1);
    case.submit(task(3));
    // The one that fails at once would get everything.
    assert_eq!(started(&case.end(ill, 2, 1, End::Unavailable)), [(3, ill, false)]);
    assert_eq!(started(&case.end(ill, 3, 1, End::Done)), []);
    assert_eq!(started(&case.tick(Time::from_millis(100))), [], "it waits for the other one");
    assert_eq!(started(&case.submit(task(4))), [(4, ill, false)], "others do not");
    assert_eq!(started(&case.end(well, 1, 1, End::Done)), [(2, well, false)]);
    // The last that there is gets it again.
    case.end(well, 2, 2, End::Unavailable);
    assert_eq!(started(&case.send(Event::Lost(WorkerId(ill)))), [(4, well, false)]);
    assert_eq!(started(&case.tick(Time::from_millis(200))), []);
    assert_eq!(started(&case.end(well, 4, 2, End::Done)), [(2, well, false)]);
    assert_eq!(case.end(well, 2, 3, End::Unavailable), [Action::Failed(TaskId(2))], "there is nobody else");
}

#[test]
fn a_task_does_not_wait_for_another_worker_for_ever() {
    let mut case = Case::new(&[cores(1), cores(1), cores(0)]);
    let [busy, ill] = [1, 2].map(|id| started(&case.submit(task(id)))[0].1);
    case.end(ill, 2, 1, End::Unavailable);
    assert_eq!(started(&case.tick(Time::from_secs(5))), [], "the other one is busy");
    assert_eq!(started(&case.tick(Time::from_millis(100))), [(2, ill, false)]);
    // What has an effect is not repeated, whatever it lacked; and a worker without cores is nowhere to go.
    case.submit(Task { once: true, ..task(3) });
    case.end(ill, 2, 2, End::Done);
    assert_eq!(case.end(ill, 3, 1, End::Unavailable), [Action::Failed(TaskId(3))]);
    case.submit(task(4));
    case.send(Event::Lost(WorkerId(busy)));
    let here = case.end(ill, 4, 1, End::Unavailable);
    assert!(here.contains(&Action::Failed(TaskId(4))), "{here:?}");
}

/// What each of some runs has at a time, in the long run, on so many cores that all of them want.
fn shared_out(standings: &[Standing], cores: u64) -> Vec<u64> {
    let mut case = Case::new(&[self::cores(cores)]);
    let mut running = VecDeque::new();
    for (run, standing) in (0..).map(RunId).zip(standings) {
        case.send(Event::Admitted { run, standing: *standing });
        // Of several stages each, which have nothing to say in it, as little as what is urgent within a run.
        for id in u64::from(run.0) * 1000..u64::from(run.0) * 1000 + 500 {
            let (group, priority) = (GroupId(id as u32 % (run.0 + 1)), run.0 as i32);
            let actions = case.submit(Task { run, group, priority, ..task(id) });
            running.extend(started(&actions).into_iter().map(|(id, ..)| id));
        }
    }
    for _ in 0..100 {
        let ends = running.pop_front().unwrap();
        running.extend(started(&case.end(0, ends, 1, End::Done)).into_iter().map(|(id, ..)| id));
    }
    let of = |run: usize| running.iter().filter(|id| **id / 1000 == run as u64).count() as u64;
    (0..standings.len()).map(of).collect()
}

#[test]
fn runs_share_the_workers_as_is_their_due() {
    let weight = |weight| Standing { weight, ..Standing::default() };
    assert_eq!(shared_out(&[weight(1), weight(1)], 8), [4, 4]);
    assert_eq!(shared_out(&[weight(1), weight(3)], 8), [2, 6]);
    assert_eq!(shared_out(&[weight(2), weight(1), weight(1)], 8), [4, 2, 2]);
    let first = Standing { priority: 1, weight: 1 };
    assert_eq!(shared_out(&[weight(9), first], 8), [0, 8], "priority comes before weight");
    assert_eq!(shared_out(&[Standing { weight: 0, ..first }, first], 4), [2, 2], "there is no division by nothing");
}

#[test]
fn who_is_due_nothing_more_leaves_what_others_do_not_want() {
    let mut case = Case::new(&[cores(4)]);
    case.send(Event::Admitted { run: RunId(1), standing: Standing { weight: 100, ..Standing::default() } });
    let (one, other) = (|id| Task { run: RunId(0), ..task(id) }, |id| Task { run: RunId(1), ..task(id) });
    (0..8).for_each(|id| drop(case.submit(one(id))));
    case.submit(other(8));
    let next: Vec<u64> = (0..4).map(|id| started(&case.end(0, id, 1, End::Done))[0].0).collect();
    assert_eq!(next, [8, 4, 5, 6]);
}

#[test]
fn what_is_kept_for_a_run_gives_way_to_a_run_that_comes_first_and_not_to_what_is_urgent_in_another() {
    let gang = |id| Task { members: 2, ..task(id) };
    let urgent = |case: &mut Case, run| case.submit(Task { run: RunId(run), priority: 5, ..task(9) });
    // A worker is kept for the gang, and the other one is busy.
    let kept = || {
        let mut case = Case::new(&[cores(1), cores(1)]);
        case.send(Event::Admitted { run: RunId(2), standing: Standing { priority: 1, weight: 1 } });
        case.submit(task(1));
        assert_eq!(started(&case.submit(gang(2))), []);
        case
    };
    assert_eq!(started(&urgent(&mut kept(), 1)), [], "it is urgent to its own run only");
    assert_eq!(started(&urgent(&mut kept(), 0)).len(), 1);
    assert_eq!(started(&urgent(&mut kept(), 2)).len(), 1);
}

#[test]
fn gangs_of_one_run_leave_others_what_is_their_due() {
    let mut case = Case::new(&[cores(1), cores(1)]);
    // One run has many gangs, each of which takes everything, and another one small tasks.
    (0..20).for_each(|id| drop(case.submit(Task { members: 2, ..task(id) })));
    (100..120).for_each(|id| drop(case.submit(Task { run: RunId(1), ..task(id) })));
    let mut running: VecDeque<(u64, u64, u32)> = [(0, 0, 1), (1, 0, 2)].into();
    let mut next = BTreeMap::new();
    for _ in 0..24 {
        let (worker, ends, attempt) = running.pop_front().unwrap();
        for action in case.end(worker, ends, attempt, End::Done) {
            match action {
                Action::Start { task, attempt, worker, .. } => {
                    running.push_back((worker.0, task.0, attempt));
                    *next.entry(task.0 / 100).or_insert(0) += 1;
                }
                Action::Stop { task, attempt, worker } => {
                    running.retain(|live| *live != (worker.0, task.0, attempt));
                    case.end(worker.0, task.0, attempt, End::Stopped).into_iter().for_each(|action| {
                        if let Action::Start { task, attempt, worker, .. } = action {
                            running.push_back((worker.0, task.0, attempt));
                            *next.entry(task.0 / 100).or_insert(0) += 1;
                        }
                    });
                }
                _ => {}
            }
        }
    }
    assert!(next[&0] >= 6 && next[&1] >= 6, "{next:?}");
}

#[test]
fn a_gang_that_fits_now_does_not_wait_for_others_who_do_not() {
    let device = Capacity { devices: vec![8 << 30], ..cores(3) };
    let mut case = Case::new(&[device]);
    let on_device = |id| Task { run: RunId(1), ..Task::new(TaskId(id), Needs { gpus: WHOLE, ..CORE }) };
    case.submit(on_device(1));
    case.send(Event::Passed { task: TaskId(1), to: RunId(2) });
    assert_eq!(started(&case.submit(on_device(2))), [], "there is one device");
    // Its run has nothing, and waits for the worker on which the gang fits.
    case.submit(task(3));
    case.end(0, 3, 1, End::Done);
    assert_eq!(started(&case.submit(Task { members: 2, ..task(4) })).len(), 2);
}

#[test]
fn what_becomes_another_runs_waits_and_counts_as_that_ones() {
    let mut case = Case::new(&[cores(2)]);
    case.send(Event::Admitted { run: RunId(1), standing: Standing { priority: 1, weight: 1 } });
    let of = |run, id| Task { run: RunId(run), ..task(id) };
    // Two run and five wait; then one that runs and one that waits become the other run's.
    (1..=6).for_each(|id| drop(case.submit(of(0, id))));
    case.submit(of(2, 7));
    case.send(Event::Passed { task: TaskId(5), to: RunId(1) });
    case.send(Event::Passed { task: TaskId(2), to: RunId(2) });
    assert_eq!(started(&case.end(0, 1, 1, End::Done))[0].0, 5, "its run comes first");
    // Run 2 uses as much as run 0 would: whoever came first is served.
    assert_eq!(started(&case.end(0, 5, 1, End::Done))[0].0, 3);
    assert_eq!(started(&case.end(0, 2, 1, End::Done))[0].0, 7);
    // A gang that waits, and one of which a member is lost.
    let mut case = Case::new(&[cores(1), cores(1)]);
    let gang = |id| Task { members: 2, ..of(0, id) };
    assert_eq!(started(&case.submit(gang(1))).len(), 2);
    case.submit(gang(2));
    case.send(Event::Lost(WorkerId(1)));
    (1..=2).for_each(|id| drop(case.send(Event::Passed { task: TaskId(id), to: RunId(1) })));
    let back = case.send(Event::Joined { worker: WorkerId(7), has: cores(1) });
    assert_eq!(started(&back), [(1, 7, false)]);
    case.end(0, 1, 1, End::Done);
    assert_eq!(started(&case.end(7, 1, 3, End::Stopped)).len(), 2);
}

#[test]
fn stages_share_fairly_what_their_run_gets() {
    let mut case = Case::new(&[cores(4)]);
    (0..20).for_each(|id| drop(case.submit(Task { group: GroupId(1), ..task(id) })));
    (20..24).for_each(|id| drop(case.submit(Task { group: GroupId(2), ..task(id) })));
    let next: Vec<u64> = (0..4).map(|id| started(&case.end(0, id, 1, End::Done))[0].0).collect();
    assert_eq!(next, [20, 21, 4, 5], "two of each, as soon as places are free");
}

#[test]
fn a_cancelled_task_keeps_its_room_until_it_has_stopped() {
    let mut case = Case::new(&[cores(1)]);
    case.submit(task(1));
    case.submit(task(2));
    let stop = Action::Stop { task: TaskId(1), attempt: 1, worker: WorkerId(0) };
    assert_eq!(case.send(Event::Cancelled(TaskId(1))), [stop]);
    assert_eq!(case.end(0, 1, 1, End::Stopped), [start(2, 1, 0, 1)]);
    assert_eq!(case.scheduler.open(), 1);
}

#[test]
fn short_tasks_wait_in_the_lane_and_long_or_unknown_ones_do_not() {
    let submit = |case: &mut Case| -> usize {
        let actions: Vec<Action> = (0..3000).flat_map(|id| case.submit(task(id))).collect();
        started(&actions).iter().filter(|(.., queued)| *queued).count()
    };
    assert_eq!(submit(&mut Case::new(&[cores(1)])), 0);
    assert_eq!(submit(&mut Case::new(&[cores(1)]).teach(Time::from_secs(1))), 0);
    let millisecond = submit(&mut Case::new(&[cores(1)]).teach(Time::from_millis(1)));
    assert!((4..=5).contains(&millisecond), "{millisecond}");
    assert_eq!(submit(&mut Case::new(&[cores(1)]).teach(Time::from_micros(1))), 1024);
    let both = submit(&mut Case::new(&[cores(1), cores(1)]).teach(Time::from_micros(1)));
    assert_eq!(both, 2048);
}

#[test]
fn an_idle_worker_gets_what_waits_in_anothers_lane() {
    let mut case = Case::new(&[cores(1)]).teach(Time::from_millis(1));
    (0..4).for_each(|id| drop(case.submit(task(id))));
    let actions = case.send(Event::Joined { worker: WorkerId(1), has: cores(1) });
    let stop = |task| Action::Stop { task: TaskId(task), attempt: 1, worker: WorkerId(0) };
    assert_eq!(actions, [stop(3), stop(2)]);
    assert_eq!(started(&case.end(0, 3, 1, End::Stopped)), [(3, 1, false)]);
    // The other one has ended before it heard that it should not.
    assert_eq!(case.end_after(0, 2, 1, End::Done, 0.001), [Action::Done(TaskId(2))]);
}

#[test]
fn a_draining_worker_ends_what_it_runs_and_gives_back_what_waits() {
    let mut case = Case::new(&[cores(1)]).teach(Time::from_millis(1));
    (0..2).for_each(|id| drop(case.submit(task(id))));
    let actions = case.send(Event::Draining(WorkerId(0)));
    assert_eq!(actions, [Action::Stop { task: TaskId(1), attempt: 1, worker: WorkerId(0) }]);
    assert_eq!(case.end(0, 1, 1, End::Stopped), []);
    assert_eq!(case.end(0, 0, 1, End::Done), [Action::Done(TaskId(0))]);
    assert_eq!(started(&case.send(Event::Joined { worker: WorkerId(1), has: cores(1) })), [(1, 1, false)]);
}

#[test]
fn a_straggler_is_doubled_when_nothing_else_waits_and_the_first_wins() {
    let mut case = Case::new(&[cores(1), cores(1)]).teach(Time::from_secs(1));
    assert_eq!(case.submit(task(1)), [start(1, 1, 0, 1), Action::Wake(case_late())]);
    assert_eq!(started(&case.tick(Time::from_secs(2))), []);
    assert_eq!(started(&case.tick(Time::from_secs(2))), [(1, 1, false)]);
    let actions = case.end(1, 1, 2, End::Done);
    let stop = Action::Stop { task: TaskId(1), attempt: 1, worker: WorkerId(0) };
    assert_eq!(actions, [Action::Done(TaskId(1)), stop]);
    assert_eq!(case.end(0, 1, 1, End::Done), [], "the loser's result is for nobody");
}

#[test]
fn who_began_before_anybody_knew_what_it_takes_is_doubled_too_whatever_waits_for_others() {
    let mut case = Case::new(&[cores(1), cores(1), cores(1), cores(1)]);
    let gpu = Capacity { devices: vec![16 << 30], ..cores(1) };
    case.scheduler = std::mem::take(&mut case.scheduler).with_pool(PoolId(0), gpu, 1);
    assert_eq!(case.submit(Task::new(TaskId(9), Needs { gpus: 1000, ..CORE })), []);
    let places: Vec<u64> = (1..=4).map(|id| started(&case.submit(task(id)))[0].1).collect();
    case.now = Time::from_secs(2);
    for id in 1..=3 {
        case.end_after(places[id - 1], id as u64, 1, End::Done, 2.0);
    }
    assert_eq!(started(&case.tick(Time::from_secs(3))), []);
    let doubled = started(&case.tick(Time::from_secs(2)));
    assert!(matches!(doubled[..], [(4, worker, false)] if worker != places[3]), "{doubled:?}");
}

#[test]
fn what_has_effects_is_never_doubled() {
    let mut case = Case::new(&[cores(1), cores(1)]).teach(Time::from_secs(1));
    assert_eq!(case.submit(Task { once: true, ..task(1) }), [start(1, 1, 0, 1)]);
    assert_eq!(case.tick(Time::from_secs(1000)), []);
}

/// Three times the median, as the histogram has it.
fn case_late() -> Time {
    let mut costs = Costs::default();
    costs.learn(StageId(0), Device::Cpu, 0, Time::from_secs(1));
    3 * costs.expect(StageId(0), Device::Cpu, 0).unwrap().median
}

#[test]
fn one_of_two_attempts_may_fail() {
    let mut case = Case::new(&[cores(1), cores(1)]).teach(Time::from_secs(1));
    case.submit(task(1));
    case.tick(Time::from_secs(4));
    assert_eq!(started(&case.end(0, 1, 1, End::Transient)), []);
    assert_eq!(case.end(1, 1, 2, End::Done), [Action::Done(TaskId(1))]);
}

#[test]
fn a_task_past_its_deadline_fails_and_says_what_it_waited_for() {
    let mut case = Case::new(&[cores(1)]);
    let deadline = Some(Time::from_secs(5));
    case.submit(Task { deadline, ..task(1) });
    assert_eq!(case.submit(Task { deadline, ..task(2) }), []);
    let actions = case.tick(Time::from_secs(5));
    let expired = |task, reason: &str| Action::Expired { task: TaskId(task), reason: reason.to_owned() };
    assert_eq!(
        actions,
        [
            expired(1, "its deadline passed: attempt 1 was running"),
            Action::Stop { task: TaskId(1), attempt: 1, worker: WorkerId(0) },
            expired(2, "its deadline passed: it was still waiting for a worker with room"),
        ]
    );
    assert_eq!(case.scheduler.open(), 0);
}

#[test]
fn tasks_go_to_their_bytes() {
    let mut case = Case::new(&[cores(8), cores(4), cores(4)]);
    let (large, small) = (Blob(1), Blob(2));
    case.send(Event::Holds { worker: WorkerId(1), blob: small });
    case.send(Event::Holds { worker: WorkerId(2), blob: large });
    let inputs = vec![(small, 10), (large, 1 << 30)];
    let needs = Needs { millicores: 3000, ..CORE };
    let task = |id| Task { inputs: inputs.clone(), ..Task::new(TaskId(id), needs) };
    assert_eq!(started(&case.submit(task(1))), [(1, 2, false)]);
    assert_eq!(started(&case.submit(task(2))), [(2, 1, false)]);
    assert_eq!(started(&case.submit(task(3))), [(3, 0, false)]);
}

#[test]
fn a_free_worker_prefers_a_waiting_task_whose_input_it_made() {
    let mut case = Case::new(&[cores(1)]);
    let blob = Blob(7);
    (1..4).for_each(|id| drop(case.submit(task(id))));
    case.submit(Task { inputs: vec![(blob, 100)], ..task(4) });
    let made = vec![(blob, 100)];
    let (worker, task) = (WorkerId(0), TaskId(1));
    let ended = Event::Ended { worker, task, attempt: 1, end: End::Done, seconds: 1.0, made };
    assert_eq!(started(&case.send(ended)), [(4, 0, false)]);
}

#[test]
fn parts_of_devices_are_given_and_come_back() {
    let gpu = Capacity { devices: vec![16 << 30, 16 << 30], ..cores(8) };
    let mut case = Case::new(&[gpu]);
    let shares = |actions: &[Action]| -> Vec<(u32, u32)> {
        let [Action::Start { devices, .. }, ..] = actions else { return Vec::new() };
        devices.iter().map(|share| (share.device, share.share)).collect()
    };
    let part = |id, gpus| Task::new(TaskId(id), Needs { gpus, ..CORE });
    assert_eq!(shares(&case.submit(part(1, 600))), [(0, 600)]);
    assert_eq!(shares(&case.submit(part(2, 600))), [(1, 600)]);
    assert_eq!(case.submit(part(3, 600)), [], "0.4 and 0.4 are not 0.8");
    assert_eq!(shares(&case.submit(part(4, 400))), [(0, 400)]);
    case.end(0, 1, 1, End::Done);
    case.end(0, 2, 1, End::Done);
    case.end(0, 4, 1, End::Done);
    assert_eq!(shares(&case.submit(part(5, 1000))), [(1, 1000)]);
}

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    let mut case = Case::new(&[cores(2), cores(2)]);
    case.submit(task(1));
    assert_eq!(case.submit(Task { members: 4, ..task(2) }), []);
    let actions = case.end(0, 1, 1, End::Done);
    // Each worker gets a member before any gets a second.
    assert_eq!(started(&actions), [(2, 0, false), (2, 1, false), (2, 0, false), (2, 1, false)]);
    // The first result is the gang's.
    let ends = case.end(1, 2, 4, End::Done);
    assert_eq!(ends[0], Action::Done(TaskId(2)));
    assert_eq!(ends.len(), 4, "the others are stopped: {ends:?}");
}

#[test]
fn a_gang_goes_on_without_a_lost_member_until_there_is_another() {
    let mut case = Case::new(&[cores(1), cores(1), cores(1)]);
    assert_eq!(case.submit(Task { members: 3, ..task(1) }).len(), 3);
    case.submit(Task { priority: -1, ..task(2) });
    assert_eq!(case.send(Event::Lost(WorkerId(1))), [], "nobody is stopped");
    assert_eq!(case.send(Event::Lost(WorkerId(2))), []);
    assert!(case.is_live(1, 1));
    let joined = case.send(Event::Joined { worker: WorkerId(3), has: cores(1) });
    assert_eq!(started(&joined), [(1, 3, false)], "what was there first goes first");
    let joined = case.send(Event::Joined { worker: WorkerId(4), has: cores(2) });
    assert_eq!(started(&joined), [(1, 4, false), (2, 4, false)], "then there is room for others");
    // Without any member left, all begin again.
    for worker in [0, 3] {
        assert_eq!(case.send(Event::Lost(WorkerId(worker))), []);
    }
    assert_eq!(started(&case.send(Event::Lost(WorkerId(4)))), []);
    assert_eq!(started(&case.send(Event::Joined { worker: WorkerId(5), has: cores(2) })), [(2, 5, false)]);
    let joined = case.send(Event::Joined { worker: WorkerId(6), has: cores(2) });
    assert_eq!(started(&joined).len(), 3, "{joined:?}");
}

impl Case {
    fn is_live(&self, task: u64, attempt: u32) -> bool {
        self.scheduler.tasks[&TaskId(task)].live.iter().any(|live| live.attempt == attempt)
    }
}
