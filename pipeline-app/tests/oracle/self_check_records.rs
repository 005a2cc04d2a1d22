//! The oracle's own tests of everything about a single record: JSON, fields, times, categories.

use std::collections::BTreeMap;

use super::oracle::generate::{self, Random};
use super::oracle::*;
use super::self_check::{NOON, event, expect_one_split};

#[test]
fn every_case_is_decoded_as_written_down() {
    let mut reasons = BTreeMap::new();
    for case in malformed::dead_cases().into_iter().chain(malformed::valid_cases()) {
        let latest = case.record.timestamp_micros.map(|at| at + HOUR);
        let got = match decode::decode(case.record.value.as_deref(), latest) {
            decode::Decoded::Dead { reason, field } => Some((reason, field)),
            decode::Decoded::Valid(event) => {
                assert!((NOON..=NOON + HOUR).contains(&event.event_time), "{}", case.name);
                None
            }
        };
        assert_eq!(got, case.dead, "{}", case.name);
        *reasons.entry(got.map_or("valid", |(reason, _)| reason)).or_insert(0) += 1;
    }
    assert_eq!(reasons.len(), 13, "{reasons:?}"); // twelve reasons and the valid ones
}

#[test]
fn json_agrees_with_a_general_library() {
    let seeds = [
        r#"{"a":[1,-2.50,3e+7,{"b":null,"":[]}],"\u00e9\ud83d\ude00":"x\n\\\/\"","c":[true,false]}"#,
        &event("1.5".parse().unwrap_or(0.0), "ü", "/a", "click"),
    ];
    let alphabet: Vec<char> = "{}[]\":,\\u0dD8cC19eE+-.tfn \t\r\n\u{a0}é\u{1}/".chars().collect();
    let mut random = Random::new(2);
    let mut good = 0;
    for round in 0..200_000 {
        let mut text: Vec<char> = seeds[round % 2].chars().collect();
        for _ in 0..random.below(4) {
            let at = random.below(text.len() as i64) as usize;
            match random.below(3) {
                0 => drop(text.remove(at)),
                1 => text[at] = random.pick(&alphabet),
                _ => text.insert(at, random.pick(&alphabet)),
            }
        }
        let text: String = text.into_iter().collect();
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        if theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range")) {
            continue; // too big for its numbers, but valid
        }
        let ours = json::parse(&text);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} {theirs:?}");
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            assert_eq!(general(&ours), theirs, "{text}");
            good += 1;
        }
    }
    assert!(good > 50_000);
}

/// The other library's value: of repeated members it keeps the last.
fn general(value: &json::Json) -> serde_json::Value {
    match value {
        json::Json::Null => serde_json::Value::Null,
        json::Json::Bool(value) => (*value).into(),
        json::Json::Number(text) => serde_json::from_str(text).unwrap_or_default(),
        json::Json::Text(text) => text.as_str().into(),
        json::Json::Array(items) => items.iter().map(general).collect(),
        json::Json::Object(members) => {
            let pairs = members.iter().map(|m| (m.name.clone(), general(&m.value)));
            serde_json::Value::Object(pairs.collect())
        }
    }
}

#[test]
fn times() {
    let tests = [
        ("2024-01-15T12:00:00.1234569Z", NOON + 123_456),
        ("2024-01-15T12:00:00.5", NOON + 500_000),
        ("2000-01-01T00:00:00Z", time::EARLIEST),
        ("9999-12-31T23:59:59.999999999Z", time::LAST),
        ("2024-02-29T00:00:00-12:30", NOON + 45 * 24 * HOUR + 30 * MINUTE),
        ("1705320000.1234569", NOON + 123_456),
        ("99999999999.5", 99_999_999_999_500_000),
        ("100000000000000", 100_000_000_000_000),
        ("99999999999999.0019", 99_999_999_999_999_001),
        ("1705320000123.4567", NOON + 123_456),
        ("1705320000123456.99", NOON + 123_456),
        ("1705320000123456999.9", NOON + 123_456),
        ("946684800", time::EARLIEST),
        ("253402300799999999999", time::LAST),
        ("99999999999999999.9", 99_999_999_999_999_999),
        ("946684800000", time::EARLIEST),
        ("946684800000000", time::EARLIEST),
        ("946684800000000000", time::EARLIEST),
        ("0000000000000000000000000000000000946684800", time::EARLIEST),
    ];
    for (text, micros) in tests {
        let got = time::parse_text(text).or_else(|| time::parse_number(text));
        assert_eq!(got, (micros >= time::EARLIEST).then_some(micros), "{text}");
    }
    let mut random = Random::new(3);
    for _ in 0..100_000 {
        let micros = time::EARLIEST + random.below(time::LAST - time::EARLIEST);
        assert_eq!(time::parse_text(&time::show(micros)), Some(micros));
        let offset = random.below(2 * 1440 - 1) - 1439;
        let local = time::show(micros + offset * MINUTE).replace('Z', "");
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        for zone in
            [format!("{sign}{hours:02}:{minutes:02}"), format!("{sign}{hours:02}{minutes:02}")]
        {
            if !local.starts_with("1999") && local.len() == 26 {
                assert_eq!(time::parse_text(&(local.clone() + &zone)), Some(micros));
            }
        }
    }
}

#[test]
fn page_categories() {
    for (page, category) in [
        ("", None),
        ("/", Some("home")),
        ("///", Some("home")),
        ("/a", Some("a")),
        ("a/b", Some("a")),
        ("//a//b", Some("a")),
        ("/a?b/c", Some("a")),
        ("?a", Some("home")),
        ("/#/a", Some("home")),
        ("http://h", Some("home")),
        ("http://h/a/b", Some("a")),
        ("HTTPS://u@h:1/%41/", Some("%41")),
        ("http://h?x/y", Some("home")),
        ("http://h#/a", Some("home")),
        ("http://h?/a", Some("home")),
        ("file:///a/b", Some("a")),
        ("/go?to=http://h/a", Some("go")),
        ("go/http://h/a", Some("go")),
        ("://h/a", Some(":")),
        ("1x://h/a", Some("1x:")),
        ("a b", Some("a b")),
        ("git+ssh.x-y://h/ü", Some("ü")),
        ("mailto:a/b", Some("mailto:a")),
        (" /a", Some(" ")),
    ] {
        assert_eq!(outputs::page_category(Some(page)).as_deref(), category, "{page}");
    }
    assert_eq!(outputs::page_category(None), None);
}

#[test]
fn enriched_records_are_compared() {
    let lines = [malformed::event_and("\"x\":1e999,\"x\":[1, 2],\"event_date\":7")];
    let row = &expect_one_split(&lines).accepted_rows[0];
    let good = "{\"page_category\":\"p\",\"event_time\":\"2024-01-15T12:00:00Z\",\"user_id\":\"\\u00751\",\
        \"page_url\":\"/p\",\"event_type\":\"page_view\",\"x\":1e999,\"x\":[1,2],\
        \"event_date\":\"2024-01-15\",\"processing_time\":\"2024-01-15T12:00:00.123Z\"}";
    assert_eq!(outputs::enriched_difference(row, good), None);
    let bad = [
        ("1e999", "1e0"),
        ("\"x\":[1,2],", ""),
        ("-15\",", "-16\","),
        (".123Z", "Z"),
        ("\"p\"", "null"),
    ];
    for (from, to) in bad {
        assert!(outputs::enriched_difference(row, &good.replace(from, to)).is_some(), "{from}");
    }
}

#[test]
fn files_have_lines() {
    let split = generate::file_split("f", 3, b"a\r\n\nb\r\r\nc\rd\n\r", Some(1));
    let values: Vec<_> =
        split.records.iter().map(|r| r.value.clone().unwrap_or_default()).collect();
    assert_eq!(values, [&b"a"[..], b"", b"b\r", b"c\rd", b"\r"]);
    assert_eq!(split.records[4].offset, 4);
    assert_eq!(generate::file_split("f", 0, b"", None).records, []);
}

#[test]
fn comparisons_find_every_difference() {
    let expected = BTreeMap::from([(1, NOON), (2, 2), (3, 3)]);
    compare::assert_same_table("t", &expected, &expected.clone());
    let actual = BTreeMap::from([(2, 2), (3, 4), (5, 5)]);
    let text = compare::table_difference(&expected, &actual).unwrap_or_default();
    assert_eq!(
        text,
        "3 rows expected, 3 there\n\
         1 missing:\n  1: 1705320000000000 [2024-01-15T12:00:00.000000Z]\n\
         1 not expected:\n  5: 5\n\
         1 different:\n  3: expected 3, got 4"
    );
    assert_eq!(compare::rows_difference([1, 2, 2], [2, 1, 2]), None);
    let text = compare::rows_difference([1, 2, 2], [2, 3]).unwrap_or_default();
    assert_eq!(
        text,
        "3 rows expected, 2 there\n\
         2 missing:\n  1 (expected 1 times, there 0 times)\n  2 (expected 2 times, there 1 times)\n\
         1 too many:\n  3 (expected 0 times, there 1 times)"
    );
}
