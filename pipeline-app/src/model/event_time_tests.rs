//! Tests of `event_time`, against chrono and against arithmetic on wide integers.

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat};
use proptest::prelude::*;

use super::*;

fn check(text: &str, expected: &str) {
    let expected = DateTime::parse_from_rfc3339(expected).unwrap().timestamp_micros();
    assert_eq!(parse_text(text.as_bytes()), Ok(expected), "{text}");
}

fn check_refused(text: &str, expected: TimeError) {
    assert_eq!(parse_text(text.as_bytes()), Err(expected), "{text}");
}

#[test]
fn every_form_of_text_is_read() {
    for (text, expected) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01t00:00:00z", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00UTC", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00 UTC", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00.5 UTC", "2026-01-01T00:00:00.5Z"),
        ("2026-01-01T00:00:00+00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T05:30:00+0530", "2026-01-01T00:00:00Z"),
        ("2026-01-01T05:30:00+05:30", "2026-01-01T00:00:00Z"),
        ("2025-12-31T16:00:00-08", "2026-01-01T00:00:00Z"),
        ("2025-12-31T23:59:00-00:01", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T23:59:00+23:59", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.1Z"),
        ("2026-01-01T00:00:00.123+01", "2025-12-31T23:00:00.123Z"),
        ("2026-01-01T00:00:00.123456", "2026-01-01T00:00:00.123456Z"),
        ("2026-01-01T00:00:00.123456999Z", "2026-01-01T00:00:00.123456Z"),
        ("2026-01-01T23:59:59.999999999Z", "2026-01-01T23:59:59.999999Z"),
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        ("2000-02-29T12:00:00Z", "2000-02-29T12:00:00Z"),
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"),
        ("1999-12-31T23:30:00-00:30", "2000-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        check(text, expected);
    }
}

#[test]
fn every_size_of_number_is_read() {
    for (text, expected) in [
        ("1767225600", "2026-01-01T00:00:00Z"),
        ("1767225600.25", "2026-01-01T00:00:00.25Z"),
        ("1767225600.1234569", "2026-01-01T00:00:00.123456Z"),
        ("1767225600.0000009999999999999999999", "2026-01-01T00:00:00Z"),
        ("1767225600123", "2026-01-01T00:00:00.123Z"),
        ("1767225600123.4567", "2026-01-01T00:00:00.123456Z"),
        ("1767225600123456", "2026-01-01T00:00:00.123456Z"),
        ("1767225600123456.9", "2026-01-01T00:00:00.123456Z"),
        ("1767225600123456789", "2026-01-01T00:00:00.123456Z"),
        ("1767225600123456789.9", "2026-01-01T00:00:00.123456Z"),
        ("000001767225600", "2026-01-01T00:00:00Z"),
        // The value decides on the unit, not what its fraction would round to.
        ("99999999999.999999999", "5138-11-16T09:46:39.999999Z"),
        ("946684800000", "2000-01-01T00:00:00Z"),
        ("99999999999999.9999", "5138-11-16T09:46:39.999999Z"),
        ("946684800000000", "2000-01-01T00:00:00Z"),
        ("99999999999999999.9", "5138-11-16T09:46:39.999999Z"),
        ("946684800000000000", "2000-01-01T00:00:00Z"),
        ("253402300799999999999", "9999-12-31T23:59:59.999999Z"),
    ] {
        check(text, expected);
    }
}

#[test]
fn what_is_not_a_time_is_refused() {
    use TimeError::*;
    for (text, expected) in [
        ("", Form),
        ("yesterday", Form),
        ("2026-01-01", Form),
        ("2026-01-01T00:00", Form),
        ("2026-01-01  00:00:00", Form),
        ("2026-01-01_00:00:00", Form),
        ("2026/01/01T00:00:00", Form),
        ("2026-1-1T00:00:00.000", Form),
        (" 2026-01-01T00:00:00", Form),
        ("+2026-01-01T00:00:00", Form),
        ("٢٠٢٦-01-01T00:00:00", Form),
        ("2026-01-01T00:00:00.", Fraction),
        ("2026-01-01T00:00:00.Z", Fraction),
        ("2026-01-01T00:00:00.1234567890Z", Fraction),
        ("2026-01-01T00:00:00,5Z", Zone),
        ("2026-01-01T00:00:00 Z", Zone),
        ("2026-01-01T00:00:00 ", Zone),
        ("2026-01-01T00:00:00Z ", Zone),
        ("2026-01-01T00:00:00  UTC", Zone),
        ("2026-01-01T00:00:00utc", Zone),
        ("2026-01-01T00:00:00GMT", Zone),
        ("2026-01-01T00:00:00 +00:00", Zone),
        ("2026-01-01T00:00:00+0", Zone),
        ("2026-01-01T00:00:00+000", Zone),
        ("2026-01-01T00:00:00+00:0", Zone),
        ("2026-01-01T00:00:00+00:00:00", Zone),
        ("2026-01-01T00:00:00+24:00", Zone),
        ("2026-01-01T00:00:00+00:60", Zone),
        ("2026-01-01T00:00:00-24:00", Zone),
        ("2026-01-01T00:00:00-00:60", Zone),
        ("2026-01-01T00:00:00*00:00", Zone),
        ("2026-01-01T00:00:00+:0:00", Zone),
        ("2026-01-01T00:00:00\u{2212}01:00", Zone),
        ("2026-00-01T00:00:00Z", NoSuchTime),
        ("2026-13-01T00:00:00Z", NoSuchTime),
        ("2026-01-00T00:00:00Z", NoSuchTime),
        ("2026-04-31T00:00:00Z", NoSuchTime),
        ("2026-02-29T00:00:00Z", NoSuchTime),
        ("2100-02-29T00:00:00Z", NoSuchTime),
        ("2026-01-01T24:00:00Z", NoSuchTime),
        ("2026-01-01T00:60:00Z", NoSuchTime),
        ("2026-01-01T23:59:60Z", NoSuchTime),
        ("1999-12-31T23:59:59.999999999Z", TooEarly),
        ("2000-01-01T00:00:00+00:01", TooEarly),
        ("0000-01-01T00:00:00Z", TooEarly),
        ("9999-12-31T23:59:59-00:01", TooLate),
        ("0", TooEarly),
        ("946684799.999999999", TooEarly),
        ("100000000000", TooEarly), // 1e11 is milliseconds
        ("100000000000000", TooEarly),
        ("100000000000000000", TooEarly),
        ("253402300800000000000", TooLate),
        ("9999999999999999999999999999999999", TooLate),
        ("-1767225600", Form),
        ("+1767225600", Form),
        ("1.7672256e9", Form),
        ("1767225600.", Form),
        (".5", Form),
        ("1767225600.5.5", Form),
        (" 1767225600", Form),
        ("1767225600\n", Form),
        ("0x6955b900", Form),
        ("1_767_225_600", Form),
        ("NaN", Form),
    ] {
        check_refused(text, expected);
    }
}

#[test]
fn times_of_all_sizes_are_written() {
    assert_eq!(format_micros(0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(format_micros(-1), "1969-12-31T23:59:59.999999Z");
    assert_eq!(format_millis(1_767_225_600_123_999), "2026-01-01T00:00:00.123Z");
    assert_eq!(format_date(LATEST), "9999-12-31");
    assert_eq!(format_micros(i64::MAX), "+294247-01-10T04:00:54.775807Z");
    assert_eq!(format_micros(i64::MIN), "-290308-12-21T19:59:05.224192Z");
    assert_eq!(format_date(-62_198_755_200_000_000), "-0001-01-01");
}

#[test]
fn every_day_is_converted_as_chrono_does() {
    let mut day = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
    while day.year() <= 9999 {
        let days = day.signed_duration_since(epoch).num_days();
        let civil = (day.year().into(), day.month(), day.day());
        assert_eq!(civil_from_days(days), civil);
        let (year, month, day_of_month) = civil;
        assert_eq!(days_from_civil(year, month.into(), day_of_month.into()), days, "{day}");
        let is_last = day.succ_opt().unwrap().month() != month;
        let length = days_in_month(year, month.into());
        assert_eq!(length == i64::from(day_of_month), is_last, "{day}");
        day = day.succ_opt().unwrap();
    }
}

/// What a number means, by arithmetic that cannot overflow.
fn reference_number(whole: &str, fraction: &str) -> Option<i64> {
    let whole: u128 = whole.parse().ok()?;
    let nanos: u128 = format!("{fraction:0<12}")[..12].parse().unwrap();
    // Picoseconds, ... : `fraction` holds 12 places of the unit.
    let unit = 10_u128.pow(12);
    let value = whole * unit + nanos;
    let micros = match whole {
        _ if value < 10_u128.pow(11) * unit => value / 10_u128.pow(6),
        _ if value < 10_u128.pow(14) * unit => value / 10_u128.pow(9),
        _ if value < 10_u128.pow(17) * unit => value / unit,
        _ => value / (unit * 1000),
    };
    i64::try_from(micros).ok().filter(|micros| (EARLIEST..=LATEST).contains(micros))
}

proptest! {
    #[test]
    fn numbers_agree_with_wide_arithmetic(whole in "[0-9]{1,23}", fraction in "([0-9]{0,11}[1-9])?") {
        let text = if fraction.is_empty() { whole.clone() } else { format!("{whole}.{fraction}") };
        prop_assert_eq!(parse_text(text.as_bytes()).ok(), reference_number(&whole, &fraction));
    }

    #[test]
    fn what_is_written_is_read_back(time in EARLIEST..=LATEST, offset in -1439_i64..=1439) {
        let text = format_micros(time);
        prop_assert_eq!(parse_text(text.as_bytes()), Ok(time));
        let chrono = DateTime::from_timestamp_micros(time).unwrap();
        prop_assert_eq!(&text, &chrono.to_rfc3339_opts(SecondsFormat::Micros, true));
        prop_assert_eq!(format_millis(time), chrono.to_rfc3339_opts(SecondsFormat::Millis, true));
        // The same instant as a clock with this offset shows it.
        let local = time + offset * MINUTE;
        prop_assume!((EARLIEST..=LATEST).contains(&local));
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        let text = format_micros(local).replace('Z', &format!("{sign}{hours:02}:{minutes:02}"));
        prop_assert_eq!(parse_text(text.as_bytes()), Ok(time), "{}", text);
    }

    #[test]
    fn all_times_are_written_as_chrono_does(time in any::<i64>()) {
        if let Some(chrono) = DateTime::from_timestamp_micros(time) {
            prop_assert_eq!(format_micros(time), chrono.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
    }

    #[test]
    fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse_text(&text);
        let _ = parse_number(&text);
    }
}
