//! What the text of one value says.

/// A whole number of 64 bits.
pub(super) fn int(text: &str) -> Option<i64> {
    let bytes = text.trim_ascii().as_bytes();
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    if digits.is_empty() || digits.len() - zeros > 19 {
        return None;
    }
    let mut value: u64 = 0;
    // Nineteen digits fit 64 unsigned bits.
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    match negative {
        false => i64::try_from(value).ok(),
        true => 0_i64.checked_sub_unsigned(value),
    }
}

/// The whole number of one to eight digits that stands from `start` to `end`; nothing for any other text.
///
/// The eight bytes up to `end` are worked on together, those before `start` taken for zeros; neighbours are then joined
/// three times (Lemire, "Quickly parsing eight digits", 2018).
pub(super) fn digits(text: &[u8], start: usize, end: usize) -> Option<i64> {
    const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0xf0; 8]);
    const SIXES: u64 = u64::from_ne_bytes([6; 8]);
    let length = end.checked_sub(start).filter(|length| (1..=8).contains(length))?;
    let bytes = text.get(end.checked_sub(8)?..end)?.first_chunk::<8>()?;
    let own = u64::MAX << (64 - 8 * length);
    let word = (u64::from_le_bytes(*bytes) & own) | (ZEROS & !own);
    if word & HIGH != ZEROS || word.wrapping_add(SIXES) & HIGH != ZEROS {
        return None;
    }
    let ones = word - ZEROS;
    let tens = ones * 10 + (ones >> 8);
    let low = (tens & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((tens >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some((low.wrapping_add(high) >> 32) as i64)
}

/// A floating-point number, rounded correctly.
pub(super) fn float(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    simple(text.as_bytes()).or_else(|| text.parse().ok())
}

/// A number of at most 15 digits, with at most 15 of them after the point: both the digits as a whole number and the
/// power of ten are exact, so one division rounds correctly (Clinger, "How to read floating point numbers
/// accurately", 1990). Everything else takes the long way.
fn simple(bytes: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 16 {
        return None;
    }
    let (mut value, mut count, mut point) = (0_u64, 0_usize, None);
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + u64::from(byte - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(count),
            _ => return None,
        }
    }
    if count == 0 || count > 15 {
        return None;
    }
    let value = value as f64 / POWERS.get(count - point.unwrap_or(count))?;
    Some(if negative { -value } else { value })
}

/// `true` or `false`, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let text = text.trim_ascii();
    match text.eq_ignore_ascii_case("true") {
        true => Some(true),
        false => text.eq_ignore_ascii_case("false").then_some(false),
    }
}

/// Days since 1970: `2013-01-31`.
pub(super) fn date(text: &str) -> Option<i32> {
    match text.trim_ascii().as_bytes() {
        bytes if bytes.len() == 10 => i32::try_from(days(bytes)?).ok(),
        _ => None,
    }
}

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970; in UTC if the text has a zone.
    pub(super) seconds: i64,
    /// And nanoseconds.
    pub(super) nanos: u32,
    /// Digits of the fraction.
    pub(super) digits: usize,
    /// Whether the text has a zone.
    pub(super) zoned: bool,
}

impl Moment {
    /// In microseconds since 1970; digits after the sixth are cut off.
    pub(super) fn micros(self) -> Option<i64> {
        self.seconds.checked_mul(1_000_000)?.checked_add(i64::from(self.nanos / 1000))
    }

    /// In nanoseconds since 1970.
    pub(super) fn nanoseconds(self) -> Option<i64> {
        i64::try_from(i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)).ok()
    }
}

/// A moment as ISO 8601 writes it: `2013-01-31T23:59:59.5Z`, `2013-01-31 23:59`, `2013-01-31 23:59:59+01:00`; a day
/// alone is its midnight.
pub(super) fn moment(text: &str) -> Option<Moment> {
    let bytes = text.trim_ascii().as_bytes();
    let (day, rest) = bytes.split_at_checked(10)?;
    let mut moment = Moment { seconds: days(day)? * 86_400, nanos: 0, digits: 0, zoned: false };
    let mut rest = match rest {
        [] => return Some(moment),
        [b'T' | b't' | b' ', rest @ ..] => rest,
        _ => return None,
    };
    let (hour, minute);
    (hour, minute, rest) = match rest {
        [a, b, b':', c, d, rest @ ..] => (pair(*a, *b, 23)?, pair(*c, *d, 59)?, rest),
        _ => return None,
    };
    moment.seconds += hour * 3600 + minute * 60;
    if let [b':', a, b, after @ ..] = rest {
        moment.seconds += pair(*a, *b, 59)?;
        rest = after;
        if let [b'.', after @ ..] = rest {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, after) = after.split_at_checked(digits)?;
            if !(1..=9).contains(&digits) {
                return None;
            }
            moment.nanos = (0..9)
                .fold(0, |nanos, place| nanos * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0')));
            moment.digits = digits;
            rest = after;
        }
    }
    let offset = match rest {
        [] => return Some(moment),
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), a, b, rest @ ..] => {
            let minutes = match rest {
                [] => 0,
                [b':', c, d] | [c, d] => pair(*c, *d, 59)?,
                _ => return None,
            };
            let offset = pair(*a, *b, 23)? * 3600 + minutes * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    Some(Moment { seconds: moment.seconds - offset, zoned: true, ..moment })
}

fn pair(tens: u8, ones: u8, most: i64) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    let value = i64::from(tens) * 10 + i64::from(ones);
    (tens <= 9 && ones <= 9 && value <= most).then_some(value)
}

/// Days since 1970 of a Gregorian date `YYYY-MM-DD`. Years begin in March here, so that the leap day comes last; an
/// era has 400 of them (Hinnant, "chrono-compatible low-level date algorithms").
fn days(bytes: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = bytes else { return None };
    let year = pair(*y1, *y2, 99)? * 100 + pair(*y3, *y4, 99)?;
    let (month, day) = (pair(*m1, *m2, 12)?, pair(*d1, *d2, 31)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if month == 0 || day == 0 || day > longest {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
    use arrow::datatypes::Date32Type;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        assert_eq!(int(" -9223372036854775808 "), Some(i64::MIN));
        assert_eq!((int("9223372036854775807"), int("9223372036854775808")), (Some(i64::MAX), None));
        assert_eq!(
            (int(""), int("-"), int("1.0"), int("1e3"), int("0x1"), int("+7")),
            (None, None, None, None, None, Some(7))
        );
        assert_eq!(
            (float(".5"), float("5."), float("-1e3"), float("inf")),
            (Some(0.5), Some(5.0), Some(-1e3), Some(f64::INFINITY))
        );
        assert_eq!((float("."), float("-"), float(""), float("1,5"), float("1.2.3")), (None, None, None, None, None));
        assert!(float("-0").is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn moments() {
        let at = |text| moment(text).map(|moment| (moment.seconds, moment.nanos, moment.zoned));
        assert_eq!(at("1970-01-01"), Some((0, 0, false)));
        assert_eq!(at("2013-01-01T10:00:00Z"), Some((1_357_034_400, 0, true)));
        assert_eq!(at("2013-01-01 11:00+01:00"), Some((1_357_034_400, 0, true)));
        assert_eq!(at("2013-01-01 09:00:00.25-0100"), Some((1_357_034_400, 250_000_000, true)));
        assert_eq!(at("1969-12-31T23:59:59.999999999"), Some((-1, 999_999_999, false)));
        for bad in [
            "2013-02-29",
            "2013-1-1",
            "2013-01-01T",
            "2013-01-01T24:00",
            "2013-01-01 10:00:60",
            "2013-13-01",
            "2013-01-01X10:00",
            "2013-01-01 10:00:00.",
        ] {
            assert_eq!(at(bad), None, "{bad}");
        }
        assert_eq!(date("2012-02-29"), Some(15399));
        assert_eq!(date("2012-02-29 00:00"), None);
    }

    proptest! {
        #[test]
        fn floats_are_those_of_the_standard_library(value: f64, digits in 0_usize..18, text in "-?[0-9]{0,9}\\.?[0-9]{0,9}") {
            for text in [value.to_string(), format!("{value:e}"), format!("{:.digits$}", value % 1e6), text] {
                prop_assert_eq!(float(&text).map(f64::to_bits), text.parse::<f64>().ok().map(f64::to_bits), "{}", text);
            }
        }

        #[test]
        fn ints_are_those_of_the_standard_library(value: i64, text in "[-+]?[0-9]{0,21}") {
            prop_assert_eq!(int(&value.to_string()), Some(value));
            prop_assert_eq!(int(&text), text.parse().ok());
        }

        #[test]
        fn eight_digits_are_those_of_the_long_way(before in "[0-9a:/,]{0,9}", text in "[0-9]{0,9}|[-+0-9:/;é]{0,9}") {
            let whole = format!("{before}{text}");
            let found = digits(whole.as_bytes(), before.len(), whole.len());
            prop_assert!(found.is_none() || found == text.parse().ok(), "{}", text);
            let plain = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(found.is_some(), plain && whole.len() >= 8);
        }

        #[test]
        fn days_are_those_of_arrow(year in 0_u32..9999, month in 0_u32..14, day in 0_u32..33, second in 0_u32..86_400) {
            let text = format!("{year:04}-{month:02}-{day:02}");
            prop_assert_eq!(date(&text), Date32Type::parse(&text), "{}", text);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let text = format!("{text}T{hour:02}:{minute:02}:{second:02}.125");
            let wanted = string_to_datetime(&chrono_utc(), &text).ok().map(|at| at.timestamp_micros());
            prop_assert_eq!(moment(&text).and_then(Moment::micros), wanted, "{}", text);
        }

        #[test]
        fn any_text_is_survived(text in "[0-9T:.+Z é-]{0,30}") {
            let _ = (int(&text), float(&text), date(&text), moment(&text), boolean(&text));
        }
    }

    fn chrono_utc() -> arrow::array::timezone::Tz {
        "+00:00".parse().unwrap()
    }
}
