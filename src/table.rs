//! Tables of text for people.

use crate::run::{Event, Outcome, Report, StageReport};
use std::fmt;

/// Rows of text whose columns line up. The last column is as long as it is.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    shown: [bool; N],
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned)], shown: [true; N] }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// The same table without the columns that have nothing under their header.
    pub(crate) fn without_empty_columns(mut self) -> Self {
        self.shown = std::array::from_fn(|column| self.rows.iter().skip(1).any(|row| !row[column].is_empty()));
        self
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let mut line = String::new();
            for ((width, cell), _) in widths.iter().zip(row).zip(self.shown).filter(|(_, shown)| *shown) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// What a run did, for people.
pub(crate) fn summary(report: &Report) -> String {
    let failed = report.stages.iter().filter(|stage| stage.outcome == Outcome::Failed);
    let mut text = format!("{}\n\n", stage_table(&report.stages));
    for stage in failed {
        text.push_str(&format!("{}: {}\n", stage.name, stage.error.as_deref().unwrap_or("failed")));
        if let Some(help) = &stage.help {
            text.push_str(&format!("  help: {help}\n"));
        }
    }
    let count = |outcome| report.stages.iter().filter(|stage| stage.outcome == outcome).count();
    let counts = [
        (Outcome::Done, "done"),
        (Outcome::Cached, "cached"),
        (Outcome::Failed, "failed"),
        (Outcome::Skipped, "skipped"),
    ];
    let counts = counts.iter().map(|(outcome, name)| (count(*outcome), name)).filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, name)| format!("{count} {name}")).collect();
    text.push_str(&format!("run {} took {}: {}", report.run, seconds(report.seconds), counts.join(", ")));
    text
}

/// Stages and how they ended.
pub(crate) fn stage_table(stages: &[StageReport]) -> String {
    let mut table = Table::new(["stage", "outcome", "time", "metrics"]);
    for stage in stages {
        let time = if stage.outcome == Outcome::Done { seconds(stage.seconds) } else { String::new() };
        table.row([stage.name.clone(), stage.outcome.name().to_owned(), time, metrics(stage)]);
    }
    table.to_string()
}

/// As many numbers as fit on a line; `show` has them all.
fn metrics(stage: &StageReport) -> String {
    const MOST: usize = 4;
    let mut shown: Vec<String> =
        stage.metrics.iter().take(MOST).map(|(name, value)| format!("{name} {}", number(value))).collect();
    if stage.metrics.len() > MOST {
        shown.push(format!("+{}", stage.metrics.len() - MOST));
    }
    shown.join("  ")
}

/// How far stages were when they said so last, how fast, and where their time went.
pub(crate) fn progress_table<'a>(progress: impl Iterator<Item = &'a Event>) -> String {
    let mut table = Table::new(["stage", "done", "speed", "time"]);
    for event in progress {
        let Event::Progress { name, done, unit, metrics, .. } = event else { continue };
        let speed = metrics.iter().filter(|(name, _)| name.ends_with("/s"));
        let speed: Vec<String> = speed.map(|(name, value)| format!("{} {name}", number(*value))).collect();
        let times = metrics.iter().filter_map(|(name, share)| Some((name.strip_prefix("time.")?, share)));
        let times: Vec<String> = times.map(|(phase, share)| format!("{phase} {:.0}%", share * 100.0)).collect();
        let plural = if *done == 1 { "" } else { "s" };
        table.row([name.clone(), format!("{done} {unit}{plural}"), speed.join("  "), times.join("  ")]);
    }
    table.to_string()
}

/// A number with four significant digits.
pub(crate) fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e9 {
        return format!("{value}");
    }
    match value.abs() {
        size if (1e-3..1e6).contains(&size) => {
            let digits = (3 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.3e}"),
    }
}

/// A time, for people.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}

/// A number of bytes, for people.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    format!("{:.1} {}", bytes as f64 / 1024f64.powi(power as i32), UNITS[power as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let shown: Vec<String> = [0.97, 0.123456, 12345.678, 3.0, 1e-7, f64::NAN].map(number).into();
        assert_eq!(shown, ["0.9700", "0.1235", "12346", "3", "1.000e-7", "NaN"]);
        assert_eq!([0.0004, 0.25, 4.04, 125.0].map(seconds), ["400 µs", "250 ms", "4.0 s", "2 min 05 s"]);
        assert_eq!([12, 2048, 3 << 30].map(bytes), ["12 B", "2.0 KiB", "3.0 GiB"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["stage", "time"]);
        table.row(["features".into(), "3 ms".into()]);
        assert_eq!(table.to_string(), "stage     time\nfeatures  3 ms");
        let mut table = Table::new(["stage", "device", "time"]);
        table.row(["features".into(), "".into(), "3 ms".into()]);
        assert_eq!(table.without_empty_columns().to_string(), "stage     time\nfeatures  3 ms");
    }
}
