//! Parts of dates and times.
//!
//! A time with a zone is taken in UTC, one without as it is written.

use super::column::NO_TIME;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

const DAY: i64 = 86_400;

/// A part of a date or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// The year.
    Year,
    /// The month, from 1.
    Month,
    /// The day of the month, from 1.
    Day,
    /// The day of the week: Monday is 0.
    Weekday,
    /// The day of the year, from 1.
    DayOfYear,
    /// The hour, from 0.
    Hour,
    /// The minute, from 0.
    Minute,
}

impl Part {
    /// The parts that are taken when none is named.
    pub(super) fn usual(clock: bool) -> &'static [Part] {
        const ALL: [Part; 5] = [Part::Year, Part::Month, Part::Day, Part::Weekday, Part::Hour];
        if clock { &ALL } else { &ALL[..4] }
    }

    /// What it is called in parameters and column names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Year => "year",
            Part::Month => "month",
            Part::Day => "day",
            Part::Weekday => "weekday",
            Part::DayOfYear => "dayofyear",
            Part::Hour => "hour",
            Part::Minute => "minute",
        }
    }

    /// Whether it is of the time of day.
    pub(super) fn needs_clock(self) -> bool {
        matches!(self, Part::Hour | Part::Minute)
    }

    /// After how many steps it comes again, and its first value; nothing for the year.
    pub(super) fn cycle(self) -> Option<(i64, i64)> {
        match self {
            Part::Year => None,
            Part::Month => Some((12, 1)),
            Part::Day => Some((31, 1)),
            Part::Weekday => Some((7, 0)),
            Part::DayOfYear => Some((366, 1)),
            Part::Hour => Some((24, 0)),
            Part::Minute => Some((60, 0)),
        }
    }

    /// This part of a time in seconds since 1970.
    fn of(self, seconds: i64) -> i64 {
        let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        match self {
            Part::Year => civil(days).0,
            Part::Month => civil(days).1,
            Part::Day => civil(days).2,
            // The first of January 1970 was a Thursday.
            Part::Weekday => (days + 3).rem_euclid(7),
            Part::DayOfYear => days - days_before(civil(days).0) + 1,
            Part::Hour => time / 3600,
            Part::Minute => time / 60 % 60,
        }
    }

    /// This part of every time; NaN where it is missing.
    pub(super) fn numbers(self, seconds: &[i64]) -> Vec<f64> {
        let number = |time: &i64| if *time == NO_TIME { f64::NAN } else { self.of(*time) as f64 };
        seconds.iter().map(number).collect()
    }

    /// Sine and cosine of this part of every time, on a circle of its cycle; NaN where it is missing.
    pub(super) fn circle(self, seconds: &[i64]) -> (Vec<f64>, Vec<f64>) {
        let (period, first) = self.cycle().unwrap_or((1, 0));
        let at = |step: i64| (TAU * step as f64 / period as f64).sin_cos();
        // Most rows share few angles.
        let table: Vec<(f64, f64)> =
            if seconds.len() as i64 > period { (0..period).map(at).collect() } else { Vec::new() };
        let point = |time: &i64| {
            if *time == NO_TIME {
                return (f64::NAN, f64::NAN);
            }
            let step = self.of(*time) - first;
            table.get(step as usize).copied().unwrap_or_else(|| at(step))
        };
        seconds.iter().map(point).unzip()
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms", 2013: `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days from 1970 to the first of January of a year.
fn days_before(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let (mut year, mut month, mut day, mut of_year) = (1600, 1, 1, 1);
        let start = days_before(1600);
        for days in start..start + 500 * 366 {
            assert_eq!(civil(days), (year, month, day));
            assert_eq!(Part::DayOfYear.of(days * DAY + 5), of_year);
            let length = match month {
                2 => 28 + i64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (day, of_year) = (day + 1, of_year + 1);
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year, of_year) = (1, year + 1, 1);
            }
        }
    }

    #[test]
    fn parts_of_a_known_time() {
        // 2013-06-30 23:59:00 UTC, a Sunday.
        let time = 1_372_636_740;
        let all = [Part::Year, Part::Month, Part::Day, Part::Weekday, Part::DayOfYear, Part::Hour, Part::Minute];
        assert_eq!(all.map(|part| part.of(time)), [2013, 6, 30, 6, 181, 23, 59]);
        assert_eq!(Part::Hour.of(-1), 23);
        assert!(Part::Hour.numbers(&[NO_TIME])[0].is_nan());
    }

    #[test]
    fn a_circle_closes_and_the_table_gives_the_same_bits() {
        let hours: Vec<i64> = (0..48).map(|hour| hour * 3600).collect();
        let (sin, cos) = Part::Hour.circle(&hours);
        assert!((sin[6] - 1.0).abs() < 1e-15 && cos[6].abs() < 1e-15 && sin[0] == 0.0 && cos[0] == 1.0);
        for (index, hour) in hours.iter().enumerate() {
            let (one_sin, one_cos) = Part::Hour.circle(&[*hour]);
            assert_eq!((one_sin[0].to_bits(), one_cos[0].to_bits()), (sin[index].to_bits(), cos[index].to_bits()));
        }
    }
}
