//! Times of events: reading them in the forms that producers send, and writing them.
//!
//! A time is text, `2026-01-01T00:00:00.123Z` and its relatives, or a number of seconds,
//! milliseconds, microseconds or nanoseconds since 1970, told apart by size:
//!
//! ```text
//! YYYY-MM-DD (T | t | one space) HH:MM:SS [. 1 to 9 digits] [Z | z | UTC | " UTC" | ±HH | ±HHMM | ±HH:MM]
//! digits [. digits]      s below 1e11, ms below 1e14, µs below 1e17, ns from there on
//! ```
//!
//! Without a suffix a time is UTC. The arithmetic is exact, and what is finer than a microsecond is
//! rounded down. Hours end at 23, minutes and seconds at 59, also in an offset (so an offset is
//! less than a day). Only the instant counts for the limits, not the digits that spell it: a time
//! is refused before 2000-01-01T00:00:00Z, and after the year 9999, which four digits cannot write.

use thiserror::Error;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Timestamp = i64;

/// The earliest time that is accepted: 2000-01-01T00:00:00Z.
pub const EARLIEST: Timestamp = 946_684_800_000_000;
/// The latest time that is accepted: 9999-12-31T23:59:59.999999Z.
pub const LATEST: Timestamp = 253_402_300_799_999_999;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 86_400 * SECOND;

/// Why something is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TimeError {
    /// Neither a date with a time of day nor a plain decimal number.
    #[error("it is neither of the form YYYY-MM-DDTHH:MM:SS nor a plain number")]
    Form,
    /// The fraction is empty or longer than nine digits.
    #[error("a fraction of a second has one to nine digits")]
    Fraction,
    /// What follows the time of day is not a time zone that we know.
    #[error("only Z, UTC or an offset such as +05:30 may follow the time of day")]
    Zone,
    /// No such day in the calendar, or no such time of day.
    #[error("there is no such day or time of day")]
    NoSuchTime,
    /// An instant before [`EARLIEST`].
    #[error("it is before the year 2000")]
    TooEarly,
    /// An instant after [`LATEST`].
    #[error("it is after the year 9999")]
    TooLate,
}

/// Reads the content of a string: a date with a time of day, or a number.
#[inline]
pub fn parse_text(text: &[u8]) -> Result<Timestamp, TimeError> {
    match text.split_first_chunk::<19>() {
        Some((head, rest)) if head[4] == b'-' => parse_date_time(head, rest),
        _ => parse_number(text),
    }
}

/// Reads a number, whose unit follows from its size. In a string it may have leading zeros; in
/// JSON the grammar of numbers has already refused them. A sign or an exponent is an error.
pub fn parse_number(text: &[u8]) -> Result<Timestamp, TimeError> {
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b"0"[..]),
    };
    let is_decimal = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if !is_decimal(whole) || !is_decimal(fraction) {
        return Err(TimeError::Form);
    }
    let zeros = whole.iter().take_while(|&&byte| byte == b'0').count();
    let whole = &whole[zeros..];
    // The thresholds are powers of ten, so the number of digits decides, whatever the fraction.
    let micros = match whole.len() {
        0..=11 => scaled(whole, fraction, 6),
        12..=14 => scaled(whole, fraction, 3),
        15..=17 => scaled(whole, fraction, 0),
        digits @ 18..=21 => decimal(&whole[..digits - 3]),
        _ => return Err(TimeError::TooLate),
    };
    in_range(micros)
}

#[inline]
fn parse_date_time(head: &[u8; 19], rest: &[u8]) -> Result<Timestamp, TimeError> {
    let [.., d1, d2, separator, _, _, _, _, _, _, _, _] = *head;
    let (Some(year_month), Some(clock)) = (head.first_chunk(), head.last_chunk()) else {
        return Err(TimeError::Form);
    };
    let (Some(year_month), Some(clock)) =
        (Digits::read(*year_month, *b"0000-00-"), Digits::read(*clock, *b"00:00:00"))
    else {
        return Err(TimeError::Form);
    };
    if !matches!(separator, b'T' | b't' | b' ') || !d1.is_ascii_digit() || !d2.is_ascii_digit() {
        return Err(TimeError::Form);
    }
    let (year, month) = (year_month.pair(0) * 100 + year_month.pair(2), year_month.pair(5));
    let (hour, minute, second) = (clock.pair(0), clock.pair(3), clock.pair(6));
    let day = two(d1, d2);
    let has_day = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    if !has_day || hour > 23 || minute > 59 || second > 59 {
        return Err(TimeError::NoSuchTime);
    }
    let (fraction, offset) = match *rest {
        // What is most usual, read at once.
        [b'Z'] => (0, 0),
        [b'.', a, b, c, b'Z'] if [a, b, c].iter().all(u8::is_ascii_digit) => {
            ((two(a, b) * 10 + i64::from(c - b'0')) * 1000, 0)
        }
        _ => {
            let (fraction, zone) = parse_fraction(rest)?;
            (fraction, parse_zone(zone)?)
        }
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    in_range(seconds * SECOND + fraction - offset * MINUTE)
}

/// Eight characters, of which some are digits, handled as one number: the value of each digit is in
/// the byte where the digit was.
struct Digits(u64);

impl Digits {
    /// Accepts digits where `shape` has a zero, and elsewhere what `shape` has.
    #[inline]
    fn read(text: [u8; 8], shape: [u8; 8]) -> Option<Self> {
        const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
        // What is right is 0 to 9 for a digit and 0 for the others; adding this to more than that
        // sets the byte's high bit. (Only a byte that has it anyway can carry into the next.)
        let room = shape.map(|byte| if byte == b'0' { 0x7f - 9 } else { 0x7f });
        let values = u64::from_le_bytes(text) ^ u64::from_le_bytes(shape);
        let excess = values.wrapping_add(u64::from_le_bytes(room)) | values;
        (excess & HIGH == 0).then_some(Self(values))
    }

    /// The value of the two digits from `at` on.
    #[inline]
    fn pair(&self, at: u32) -> i64 {
        let pairs = self.0 * 10 + (self.0 >> 8);
        (pairs >> (8 * at) & 0xff) as i64
    }
}

/// Microseconds of an optional fraction, and what follows it.
fn parse_fraction(rest: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    const SCALES: [i64; 7] = [SECOND, 100_000, 10_000, 1000, 100, 10, 1];
    let Some(digits) = rest.strip_prefix(b".") else {
        return Ok((0, rest));
    };
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return Err(TimeError::Fraction);
    }
    let (fraction, zone) = digits.split_at(length);
    let fraction = &fraction[..length.min(6)];
    Ok((decimal(fraction) * SCALES[fraction.len()], zone))
}

/// Minutes east of UTC.
fn parse_zone(zone: &[u8]) -> Result<i64, TimeError> {
    let (sign, h1, h2, m1, m2) = match *zone {
        [] | [b'Z' | b'z'] | [b'U', b'T', b'C'] | [b' ', b'U', b'T', b'C'] => return Ok(0),
        [sign, h1, h2] => (sign, h1, h2, b'0', b'0'),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, h1, h2, m1, m2),
        _ => return Err(TimeError::Zone),
    };
    let (hours, minutes) = (two(h1, h2), two(m1, m2));
    let well_formed = [h1, h2, m1, m2].iter().all(u8::is_ascii_digit);
    match sign {
        b'+' if well_formed && hours <= 23 && minutes <= 59 => Ok(hours * 60 + minutes),
        b'-' if well_formed && hours <= 23 && minutes <= 59 => Ok(-(hours * 60 + minutes)),
        _ => Err(TimeError::Zone),
    }
}

fn in_range(micros: i64) -> Result<Timestamp, TimeError> {
    match micros {
        ..EARLIEST => Err(TimeError::TooEarly),
        EARLIEST..=LATEST => Ok(micros),
        _ => Err(TimeError::TooLate),
    }
}

/// `whole.fraction` times 10 to the `places`, rounded down.
fn scaled(whole: &[u8], fraction: &[u8], places: usize) -> i64 {
    let digit = |place| fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'));
    (0..places).fold(decimal(whole), |value, place| value * 10 + digit(place))
}

/// The value of at most 18 digits.
#[inline]
fn decimal(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
}

#[inline]
fn two(tens: u8, ones: u8) -> i64 {
    i64::from(tens.wrapping_sub(b'0')) * 10 + i64::from(ones.wrapping_sub(b'0'))
}

#[inline]
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a day of the Gregorian calendar, in a year from 0 on. Years are counted
/// from March, so that the leap day is a year's last day and a month's start a linear function.
#[inline]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Four hundred years, an era, are 146,097 days. One is added so that all is positive.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let year = (year + 400) as u32;
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * month as u32 + 2) / 5 + day as u32 - 1;
    i64::from(year * 365 + leap_days + day_of_year) - 719_468 - 146_097
}

/// Year, month and day of a number of days since 1970-01-01: the inverse of [`days_from_civil`].
#[inline]
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097) as u32);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + i64::from(year_of_era) + i64::from(month <= 2);
    (year, month, day)
}

/// Appends `YYYY-MM-DD`, the day in UTC. A year that four digits cannot write has a sign.
#[inline]
pub fn write_date(time: Timestamp, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(time.div_euclid(DAY));
    let ([m1, m2], [d1, d2]) = (pair(month), pair(day));
    if (0..=9999).contains(&year) {
        let year = year as u32;
        let ([y1, y2], [y3, y4]) = (pair(year / 100), pair(year % 100));
        out.extend_from_slice(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2]);
    } else {
        let sign = if year < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("{sign}{:04}", year.abs()).as_bytes());
        out.extend_from_slice(&[b'-', m1, m2, b'-', d1, d2]);
    }
}

/// Appends `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
pub fn write_micros(time: Timestamp, out: &mut Vec<u8>) {
    write_seconds(time, out);
    let micros = time.rem_euclid(SECOND) as u32;
    let ([a, b], [c, d], [e, f]) =
        (pair(micros / 10_000), pair(micros / 100 % 100), pair(micros % 100));
    out.extend_from_slice(&[b'.', a, b, c, d, e, f, b'Z']);
}

/// Appends `YYYY-MM-DDTHH:MM:SS.fffZ`; what is finer than a millisecond is rounded down.
pub fn write_millis(time: Timestamp, out: &mut Vec<u8>) {
    write_seconds(time, out);
    let millis = time.rem_euclid(SECOND) as u32 / 1000;
    let ([_, a], [b, c]) = (pair(millis / 100), pair(millis % 100));
    out.extend_from_slice(&[b'.', a, b, c, b'Z']);
}

/// [`write_micros`] into a new string.
pub fn format_micros(time: Timestamp) -> String {
    formatted(time, write_micros)
}

/// [`write_millis`] into a new string.
pub fn format_millis(time: Timestamp) -> String {
    formatted(time, write_millis)
}

/// [`write_date`] into a new string.
pub fn format_date(time: Timestamp) -> String {
    formatted(time, write_date)
}

fn formatted(time: Timestamp, write: fn(Timestamp, &mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(32);
    write(time, &mut out);
    out.into_iter().map(char::from).collect()
}

#[inline]
fn write_seconds(time: Timestamp, out: &mut Vec<u8>) {
    write_date(time, out);
    let second = (time.rem_euclid(DAY) / SECOND) as u32;
    let ([h1, h2], [m1, m2], [s1, s2]) =
        (pair(second / 3600), pair(second / 60 % 60), pair(second % 60));
    out.extend_from_slice(&[b'T', h1, h2, b':', m1, m2, b':', s1, s2]);
}

/// The two digits of a number below 100.
#[inline]
fn pair(value: u32) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

#[cfg(test)]
#[path = "event_time_tests.rs"]
mod tests;
