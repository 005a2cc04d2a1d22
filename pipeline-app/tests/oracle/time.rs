//! The grammar of `event_time`, and times as text.

use chrono::{DateTime, NaiveDate};

use super::{HOUR, MINUTE, SECOND};

/// 2000-01-01T00:00:00Z, the earliest event time.
pub const EARLIEST: i64 = 946_684_800 * SECOND;
/// 9999-12-31T23:59:59.999999Z, the last event time.
pub const LAST: i64 = 253_402_300_800 * SECOND - 1;

/// `YYYY-MM-DD`, then `T`, `t` or one space, `HH:MM:SS`, an optional fraction of 1 to 9 digits, then
/// nothing, `Z`, `z`, `UTC` with or without a space before, or `±HH`, `±HHMM`, `±HH:MM`.
pub fn parse_text(text: &str) -> Option<i64> {
    // Only ASCII occurs in the grammar; this also makes bytes and characters the same.
    if !text.is_ascii() || text.len() < 19 {
        return None;
    }
    let (date_and_time, rest) = text.split_at(19);
    if !matches_form(date_and_time, "0000-00-00T00:00:00") {
        return None;
    }
    let number = |from: usize, to: usize| date_and_time[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(year).ok()?,
        u32::try_from(month).ok()?,
        u32::try_from(day).ok()?,
    )?;
    let midnight = date.and_hms_opt(0, 0, 0)?.and_utc().timestamp() * SECOND;

    let (fraction, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 9 {
                return None;
            }
            let (fraction, zone) = rest.split_at(digits);
            (first_digits(fraction, 6)?, zone)
        }
    };
    let local = midnight + hour * HOUR + minute * MINUTE + second * SECOND + fraction;
    in_range(local - offset(zone)?)
}

/// How far a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if ["", "Z", "z", "UTC", " UTC"].contains(&zone) {
        return Some(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = &zone[1..];
    let (hours, minutes) = if matches_form(digits, "00") {
        (digits, "00")
    } else if matches_form(digits, "0000") {
        (&digits[0..2], &digits[2..4])
    } else if matches_form(digits, "00:00") {
        (&digits[0..2], &digits[3..5])
    } else {
        return None;
    };
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some(sign * (hours * HOUR + minutes * MINUTE))
}

/// Whether `text` has the form: `0` stands for any digit, `T` for what may be between date and time.
fn matches_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            other => byte == other,
        })
}

/// `digits` or `digits.digits`: seconds below 1e11, milliseconds below 1e14, microseconds below
/// 1e17, nanoseconds above.
pub fn parse_number(text: &str) -> Option<i64> {
    let (whole, fraction) = match text.split_once('.') {
        None => (text, "0"),
        Some(parts) => parts,
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > 30 {
        return None; // far beyond the year 9999, even as nanoseconds
    }
    let units: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let micros = if units < 100_000_000_000 {
        units * 1_000_000 + i128::from(first_digits(fraction, 6)?)
    } else if units < 100_000_000_000_000 {
        units * 1_000 + i128::from(first_digits(fraction, 3)?)
    } else if units < 100_000_000_000_000_000 {
        units
    } else {
        units / 1_000
    };
    in_range(i64::try_from(micros).ok()?)
}

/// The first `count` digits after the decimal point as a number; `"5"` with 3 is 500.
fn first_digits(digits: &str, count: usize) -> Option<i64> {
    let padded: String = digits.chars().chain("000000000".chars()).take(count).collect();
    padded.parse().ok()
}

fn in_range(micros: i64) -> Option<i64> {
    (EARLIEST..=LAST).contains(&micros).then_some(micros)
}

/// A time as the headers have it: UTC, six digits, `Z`.
pub fn show(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        None => format!("{micros} us"),
    }
}

/// The day of a time in UTC, `YYYY-MM-DD`.
pub fn date(micros: i64) -> String {
    show(micros)[..10].to_owned()
}
