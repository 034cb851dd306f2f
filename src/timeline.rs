//! A run's timeline and cost, drawn as text.

use crate::observe::{Bill, Span, Timeline, WorkerLife};
use crate::table::{Table, bytes, number, seconds};

/// Columns that a bar has at least, however narrow the terminal.
const NARROWEST: usize = 10;
/// Columns after a bar: two of space, and `100% of 128 cores`.
const NOTE: usize = 19;
/// The longest name of a row that is not cut.
const LONGEST_NAME: usize = 28;
/// How much of a worker is in use, in eighths.
const LEVELS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What a stage does at some moment. Where several things fall into one column, the greatest is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Nothing,
    Waiting,
    Asking,
    Running,
}

impl Doing {
    fn mark(self) -> char {
        match self {
            Doing::Nothing => ' ',
            Doing::Waiting => '░',
            Doing::Asking => '─',
            Doing::Running => '█',
        }
    }
}

/// Who ran what when: a bar for each stage that ran something, and one for each worker, as wide as `width` allows.
pub(crate) fn draw(timeline: &Timeline, width: usize) -> String {
    let stages: Vec<(&str, Vec<&Span>)> = timeline
        .stages
        .iter()
        .map(|stage| (stage.name.as_str(), spans(timeline, |span| span.stage() == stage.name)))
        .filter(|(_, spans)| !spans.is_empty())
        .collect();
    let names = stages.iter().map(|(name, _)| *name).chain(timeline.workers.iter().map(|w| w.info.worker.as_str()));
    let margin = names.map(|name| name.chars().count()).max().unwrap_or(0).min(LONGEST_NAME);
    let axis = Axis {
        columns: width.saturating_sub(margin + 2 + NOTE).max(NARROWEST),
        seconds: timeline.seconds.max(f64::MIN_POSITIVE),
    };
    let row = |name: &str, bar: &str, note: &str| {
        let name: String = name.chars().take(margin).collect();
        format!("{name:<margin$}  {bar:<columns$}  {note}", columns = axis.columns).trim_end().to_owned()
    };
    let end = seconds(timeline.seconds);
    let scale = format!("0{end:>rest$}", rest = axis.columns - 1);
    let mut rows = vec![row("", &scale, if timeline.ended { "" } else { "under way?" })];
    rows.extend(stages.iter().map(|(name, spans)| {
        let busy: f64 = spans.iter().filter(|span| span.works()).map(|span| span.seconds).sum();
        row(name, &axis.stage(spans), &seconds(busy))
    }));
    // The coordinator's own process need not be a worker.
    rows.extend(timeline.workers.iter().filter(|worker| worker.info.cores > 0.0).map(|worker| {
        let (bar, use_) = axis.worker(worker, &spans(timeline, |span| span.worker == worker.info.worker), timeline);
        row(&worker.info.worker, &bar, &format!("{:.0}% of {}", use_ * 100.0, cores(worker.info.cores)))
    }));
    rows.push(LEGEND.to_owned());
    rows.join("\n")
}

fn spans(timeline: &Timeline, wanted: impl Fn(&Span) -> bool) -> Vec<&Span> {
    timeline.spans.iter().filter(|span| wanted(span)).collect()
}

fn cores(cores: f64) -> String {
    if cores == 1.0 { "1 core".to_owned() } else { format!("{} cores", number(cores)) }
}

/// What the signs mean. The time beside a stage is what its tasks took in sum: it may be more than the stage's own.
const LEGEND: &str = "\
█ runs  ─ waits for its tasks  ░ waits for a place;  a worker: ▁▂▃▄▅▆▇█ in use, · idle
beside a stage: how long its tasks ran in sum;  beside a worker: how much of it was in use";

/// From seconds to columns.
struct Axis {
    columns: usize,
    seconds: f64,
}

impl Axis {
    /// The columns that a time covers; at least one.
    fn columns(&self, from: f64, to: f64) -> std::ops::Range<usize> {
        let at = |seconds: f64| (seconds / self.seconds * self.columns as f64).clamp(0.0, self.columns as f64);
        let first = (at(from).floor() as usize).min(self.columns - 1);
        first..(at(to).ceil() as usize).max(first + 1)
    }

    fn stage(&self, spans: &[&Span]) -> String {
        let mut doing = vec![Doing::Nothing; self.columns];
        let mut mark = |from: f64, to: f64, what: Doing| {
            doing[self.columns(from, to)].iter_mut().for_each(|column| *column = what.max(*column));
        };
        for span in spans {
            if span.attempts == 1 && span.waited > 0.0 {
                mark(span.from - span.waited, span.from, Doing::Waiting);
            }
            mark(span.from, span.to, if span.works() { Doing::Running } else { Doing::Asking });
        }
        doing.into_iter().map(Doing::mark).collect()
    }

    /// A worker's bar, and how much of it was in use while it was there.
    fn worker(&self, worker: &WorkerLife, spans: &[&Span], timeline: &Timeline) -> (String, f64) {
        let column = self.seconds / self.columns as f64;
        let devices = worker.info.devices.len() as f64;
        let share = |used: f64, has: f64| if has > 0.0 { used / has } else { 0.0 };
        let mut used = vec![0.0_f64; self.columns];
        let mut sum = 0.0;
        for span in spans {
            let whole = share(span.core_seconds, worker.info.cores).max(share(span.gpu_seconds, devices));
            sum += whole;
            for index in self.columns(span.from, span.to) {
                let (begin, end) = (index as f64 * column, (index + 1) as f64 * column);
                let inside = (span.to.min(end) - span.from.max(begin)).max(0.0);
                let part = if span.to > span.from { inside / (span.to - span.from) } else { 1.0 };
                used[index] += whole * part;
            }
        }
        let life = worker.to.unwrap_or(timeline.seconds) - worker.from;
        let there = self.columns(worker.from, worker.from + life);
        let level = |index: usize, used: f64| match ((used / column * 8.0).round() as usize).min(8) {
            0 if used > 0.0 => LEVELS[1],
            0 if !there.contains(&index) => ' ',
            eighths => LEVELS[eighths],
        };
        let bar = used.iter().enumerate().map(|(index, used)| level(index, *used)).collect();
        (bar, share(sum, life).min(1.0))
    }
}

/// What each stage cost, for people.
pub(crate) fn cost_table(bill: &Bill) -> String {
    let mut table =
        Table::new(["stage", "attempts", "waited", "core-seconds", "GPU-seconds", "read", "written", "moved", "price"]);
    for cost in bill.stages.iter().chain((bill.stages.len() > 1).then_some(&bill.total)) {
        let some = |value: f64, shown: String| if value > 0.0 { shown } else { String::new() };
        let attempts = match cost.failed {
            0 => cost.attempts.to_string(),
            failed => format!("{} ({failed} in vain)", cost.attempts),
        };
        table.row([
            cost.name.clone(),
            attempts,
            seconds(cost.waited),
            number(cost.core_seconds),
            some(bill.total.gpu_seconds, number(cost.gpu_seconds)),
            bytes(cost.read),
            bytes(cost.written),
            some(bill.total.moved as f64, bytes(cost.moved)),
            cost.price.map(number).unwrap_or_default(),
        ]);
    }
    let paid = bill.workers.map(|paid| format!("\nworkers cost {} in all, idle time included", number(paid)));
    format!("{}{}", table.without_empty_columns(), paid.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::StageLife;
    use crate::run::WorkerInfo;

    fn span(name: &str, worker: &str, from: f64, to: f64, cores: f64, waited: f64) -> Span {
        Span {
            name: name.into(),
            worker: worker.into(),
            device: "cpu".into(),
            attempt: 1,
            attempts: 1,
            failed: 0,
            end: None,
            from,
            to,
            waited,
            seconds: to - from,
            core_seconds: (to - from) * cores,
            gpu_seconds: 0.0,
            read: 2048,
            written: 10,
            moved: 0,
        }
    }

    fn timeline() -> Timeline {
        let stage = |name: &str| StageLife {
            name: name.into(),
            takes: Vec::new(),
            from: None,
            to: None,
            outcome: None,
            cached: 0,
        };
        let worker = |name: &str, from| WorkerLife {
            info: WorkerInfo {
                worker: name.into(),
                machine: "here".into(),
                cores: 2.0,
                memory: None,
                devices: Vec::new(),
                pool: None,
                price: None,
            },
            from,
            to: None,
            lost: None,
        };
        Timeline {
            run: "r-1".into(),
            seconds: 10.0,
            ended: true,
            stages: vec![stage("rows"), stage("cached"), stage("best")],
            workers: vec![worker("a", 0.0), worker("b", 5.0)],
            spans: vec![
                span("rows", "a", 0.0, 3.0, 2.0, 0.0),
                span("best", "a", 3.0, 10.0, 0.0, 0.0),
                span("best/0", "a", 4.0, 7.0, 1.0, 0.0),
                span("best/1", "b", 6.0, 9.0, 2.0, 1.0),
            ],
        }
    }

    #[test]
    fn a_timeline_is_drawn_to_scale() {
        let drawn = draw(&timeline(), 20 + 4 + 2 + NOTE);
        let expected = [
            "      0             10.0 s",
            "rows  ██████                3.0 s",
            "best        ──██████████──  6.0 s",
            "a     ██████··▄▄▄▄▄▄······  45% of 2 cores",
            "b               ··██████··  60% of 2 cores",
            LEGEND,
        ]
        .join("\n");
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn waiting_is_seen_and_any_width_will_do() {
        let mut late = timeline();
        late.spans = vec![span("rows", "a", 5.0, 10.0, 1.0, 5.0)];
        assert_eq!(draw(&late, 0).lines().nth(1).unwrap(), "rows  ░░░░░█████  5.0 s");
        late.seconds = 0.0;
        draw(&late, 0);
        draw(&Timeline::default(), 80);
    }

    #[test]
    fn a_bill_shows_only_what_there_is() {
        let table = cost_table(&Bill::of(&timeline()));
        let expected = "\
stage  attempts  waited  core-seconds  read     written
rows   1         0 µs    6             2.0 KiB  10 B
best   3         1.0 s   9             6.0 KiB  30 B
total  4         1.0 s   15            8.0 KiB  40 B";
        assert_eq!(table, expected, "\n{table}");
    }
}
