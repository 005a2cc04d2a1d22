//! Records that must become dead letters, one per reason and nasty variant, and nasty ones that
//! must not.

use super::generate::Random;
use super::{HOUR, InputRecord, malformed_times, time};

/// Size of the big values; a record with one stays below Kafka's default limits of one megabyte.
pub const BIG: usize = 990_000;

/// A record and what must become of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The record.
    pub record: InputRecord,
    /// Reason and field of the dead letter; `None` if the record is valid.
    pub dead: Option<(&'static str, Option<&'static str>)>,
}

/// All records that must become dead letters, once each, in random order. They may be mixed into
/// any input without changing a row of its tables: a dead letter moves no watermark. Two of them
/// are dead only because of their own timestamps, which therefore must be kept.
pub fn malformed_lines(seed: u64) -> Vec<InputRecord> {
    let mut records: Vec<_> = dead_cases().into_iter().map(|case| case.record).collect();
    Random::new(seed).shuffle(&mut records);
    records
}

/// A good event with one member's value replaced; `None` leaves the member out.
pub fn event_with(field: &str, value: Option<&str>) -> String {
    let members = [
        ("event_time", r#""2024-01-15T12:00:00Z""#),
        ("user_id", r#""u1""#),
        ("page_url", r#""/p""#),
        ("event_type", r#""page_view""#),
    ];
    let mut text = String::new();
    for (name, good) in members {
        match if name == field { value } else { Some(good) } {
            None => {}
            Some(value) => text.push_str(&format!("\"{name}\":{value},")),
        }
    }
    format!("{{{}}}", text.trim_end_matches(','))
}

/// A good event with text added as its last member.
pub fn event_and(member: &str) -> String {
    event_with("", None).replace('}', &format!(",{member}}}"))
}

/// Nested arrays, `levels` deep.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// Adds cases to a list.
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: &str,
        value: impl Into<Vec<u8>>,
        dead: Option<(&'static str, Option<&'static str>)>,
    ) {
        let record = InputRecord { value: Some(value.into()), ..InputRecord::default() };
        self.0.push(Case { name: name.to_owned(), record, dead });
    }

    fn dead(&mut self, reason: &'static str, values: &[&str]) {
        for value in values {
            self.add(value, *value, Some((reason, None)));
        }
    }

    /// A good event with other values in one field.
    fn field(&mut self, reason: &'static str, field: &'static str, values: &[&str]) {
        for value in values {
            let name = format!("{field} is {:.60}", value);
            self.add(&name, event_with(field, Some(value)), Some((reason, Some(field))));
        }
    }

    fn valid(&mut self, field: &'static str, values: &[&str]) {
        for value in values {
            self.add(&format!("{field} is {value:.60}"), event_with(field, Some(value)), None);
        }
    }
}

/// Every case that must become a dead letter.
pub fn dead_cases() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    cases.add("null payload", "", Some(("empty", None)));
    cases.0[0].record.value = None;
    cases.dead("empty", &["", " ", "\n", "\r\n\t "]);
    for (name, bytes) in [
        ("a lone byte", &b"\xff"[..]),
        ("overlong", b"{\"a\":\"\xc0\xaf\"}"),
        ("surrogate as UTF-8", b"{\"a\":\"\xed\xa0\x80\"}"),
        ("cut character", b"{\"a\":\"\xe2\x82"),
        ("Latin-1, and no JSON either", b"{caf\xe9"),
    ] {
        cases.add(name, bytes, Some(("bad_utf8", None)));
    }
    bad_json(&mut cases);
    cases.dead("not_an_object", &["null", "true", "7", "1e999", "\"{}\"", "[]", " [{}] "]);
    cases.add("array 127 levels deep", nested(127), Some(("not_an_object", None)));
    duplicates(&mut cases);
    wrong_fields(&mut cases);
    bad_times(&mut cases);
    cases.0
}

fn bad_json(cases: &mut Cases) {
    cases.dead(
        "bad_json",
        &[
            "{",
            "}",
            "{}{}",
            "{} x",
            "{,}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{'a':1}",
            "{a:1}",
            "nul",
            "NaN",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":\"\t\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\u12g4\"}",
            "[1,]",
            "\"",
            "\u{feff}{}",
            "\u{a0}{}",
            "\u{b}",
            "\u{c}{}",
            "\0",
            "{}\0",
            "/**/{}",
        ],
    );
    // Lone surrogates, wherever a string can be.
    for surrogate in
        ["\\ud800", "\\udc00", "\\uDBFFx", "\\ud800\\ud800", "\\ud800\\n", "\\udc00\\ud800"]
    {
        for member in [
            format!("\"x\":\"{surrogate}\""),
            format!("\"{surrogate}\":1"),
            format!("\"x\":[{{\"y\":\"{surrogate}\"}}]"),
            format!("\"x\":{{\"{surrogate}\":1}}"),
        ] {
            let name = format!("lone surrogate {member}");
            cases.add(&name, event_and(&member), Some(("bad_json", None)));
        }
    }
    cases.field("bad_json", "user_id", &["\"\\ud800\"", "01", "+1", "\"a\nb\"", "-"]);
    for case in &mut cases.0 {
        if case.dead.is_some_and(|(reason, _)| reason == "bad_json") {
            case.dead = Some(("bad_json", None));
        }
    }
    let deep = event_and(&format!("\"x\":{}", nested(127)));
    cases.add("nested 128 levels deep", deep, Some(("bad_json", None)));
    cases.add("array 128 levels deep", nested(128), Some(("bad_json", None)));
    cases.add("endless nesting", "[".repeat(BIG), Some(("bad_json", None)));
    cases.add("endless objects", "{\"a\":".repeat(BIG / 5), Some(("bad_json", None)));
    cases.add("a big word", "x".repeat(BIG), Some(("bad_json", None)));
    let cut = event_and(&format!("\"x\":\"{}", "y".repeat(BIG)));
    cases.add("cut in a big string", cut.trim_end_matches('}'), Some(("bad_json", None)));
}

fn duplicates(cases: &mut Cases) {
    for (field, member) in [
        ("user_id", "\"user_id\":\"u1\""),
        ("user_id", "\"user\\u005fid\":\"u1\""),
        ("user_id", "\"\\u0075ser_id\":null"),
        ("event_type", "\"event_type\":\"click\""),
        ("page_url", "\"page_url\":null"),
        ("event_time", "\"event_time\":0"),
        ("event_time", "\"x\":1,\"event_time\":{},\"x\":1"),
    ] {
        let name = format!("twice: {member}");
        cases.add(&name, event_and(member), Some(("duplicate_field", Some(field))));
    }
    let both_escaped = "{\"user\\u005fid\":1,\"user_i\\u0064\":1}";
    cases.add("twice and nothing else", both_escaped, Some(("duplicate_field", Some("user_id"))));
}

fn wrong_fields(cases: &mut Cases) {
    for field in ["user_id", "event_type", "page_url", "event_time"] {
        let name = format!("no {field}");
        cases.add(&name, event_with(field, None), Some(("missing_field", Some(field))));
    }
    cases.field("missing_field", "page_url", &["null"]);
    cases.add("{}", "{}", Some(("missing_field", Some("user_id"))));
    let other_case = "{\"User_id\":1,\"user_id \":1,\"userId\":1}";
    cases.add("names much the same", other_case, Some(("missing_field", Some("user_id"))));
    let inside = "{\"x\":{\"user_id\":1}}";
    cases.add("user_id inside of another", inside, Some(("missing_field", Some("user_id"))));

    let users = ["null", "true", "[]", "{}", "1.0", "1e3", "1E3", "-0.0", "0e0"];
    cases.field("wrong_type", "user_id", &users);
    cases.field("wrong_type", "event_type", &["null", "false", "[\"click\"]", "{}", "1", "1.5"]);
    cases.field("wrong_type", "page_url", &["true", "[]", "{}", "0", "1e999"]);
    cases.field("wrong_type", "event_time", &["null", "true", "[]", "{\"t\":1}"]);
    for field in ["user_id", "event_type", "page_url", "event_time"] {
        cases.field("empty_field", field, &["\"\""]);
    }
    for field in ["user_id", "event_type", "page_url", "event_time"] {
        cases.field("nul_character", field, &["\"\\u0000\"", "\"a\\u0000b\""]);
    }
    for (field, max) in [("user_id", 512), ("event_type", 128), ("page_url", 2048)] {
        let ascii = format!("\"{}\"", "x".repeat(max + 1));
        let two_bytes = format!("\"{}x\"", "ü".repeat(max / 2));
        let escaped = format!("\"{}x\"", "\\u00fc".repeat(max / 2));
        let big = format!("\"{}\"", "x".repeat(BIG));
        let nul_and_long = format!("\"\\u0000{}\"", "x".repeat(max));
        cases.field("too_long", field, &[&ascii, &two_bytes, &escaped, &big]);
        cases.field("nul_character", field, &[&nul_and_long]);
    }
    let digits = format!("1{}", "0".repeat(512));
    cases.field("too_long", "user_id", &[&digits]);

    // The first reason counts, in the order of the fields, whatever their order in the object.
    for (value, dead) in [
        (
            "{\"event_time\":0,\"page_url\":0,\"event_type\":0,\"user_id\":0.5}",
            ("wrong_type", "user_id"),
        ),
        (
            "{\"event_time\":0,\"page_url\":0,\"event_type\":\"\",\"user_id\":0}",
            ("empty_field", "event_type"),
        ),
        (
            "{\"event_time\":0,\"page_url\":0,\"event_type\":\"x\",\"user_id\":0}",
            ("wrong_type", "page_url"),
        ),
        ("{\"event_time\":0,\"event_type\":\"x\",\"user_id\":0}", ("bad_event_time", "event_time")),
    ] {
        cases.add(value, value, Some((dead.0, Some(dead.1))));
    }
}

fn bad_times(cases: &mut Cases) {
    for text in malformed_times::BAD_TEXTS {
        let value = format!("\"{text}\"");
        cases.field("bad_event_time", "event_time", &[&value]);
    }
    cases.field("bad_event_time", "event_time", malformed_times::BAD_NUMBERS);
    let big = "9".repeat(BIG);
    cases.field("bad_event_time", "event_time", &[&big, &format!("\"{big}\"")]);

    // Further ahead of the record's own timestamp than the default limit of one hour.
    let at = time::parse_text("2024-01-15T12:00:00Z");
    let hour = HOUR / 1_000_000;
    for (value, stamped) in [
        (format!("{}.000001", 1_705_320_000 + hour), at),
        ("\"9999-12-31T23:59:59.999999Z\"".to_owned(), at),
    ] {
        cases.field("future_event_time", "event_time", &[&value]);
        if let Some(case) = cases.0.last_mut() {
            case.record.timestamp_micros = stamped;
        }
    }
}

/// Nasty records that are valid, all at 2024-01-15T12:00:00Z or in the hour after.
pub fn valid_cases() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    cases.add("plain", event_with("", None), None);
    let spaced = format!(" \t\r\n{} \t\r\n", event_with("", None));
    cases.add("white space around", spaced, None);
    cases.add("escaped name", event_with("", None).replace("user_id", "user\\u005fid"), None);
    for member in [
        "\"x\":1,\"x\":2,\"\\u0078\":3",
        "\"n\":1e999,\"m\":-123456789012345678901234567890.10,\"z\":0.1000,\"e\":1E+05,\"o\":-0",
        "\"x\":\"\\ud83d\\ude00 \\u0000 \\/\"",
        "\"\\ud83d\\ude00\":{\"\":[]}",
        "\"processing_time\":1,\"event_date\":\"x\",\"page_category\":[],\"event\\u005fdate\":2",
        "\"x\":{\"user_id\":1,\"user_id\":2}",
    ] {
        cases.add(member, event_and(member), None);
    }
    cases.add("127 levels deep", event_and(&format!("\"x\":{}", nested(126))), None);
    cases.add("big string", event_and(&format!("\"x\":\"{}\"", "y".repeat(BIG))), None);
    cases.add("big number", event_and(&format!("\"x\":{}", "9".repeat(BIG))), None);

    cases
        .valid("user_id", &["0", "-0", "-7", "123456789012345678901234567890", "\" \"", "\"1e3\""]);
    cases.valid(
        "event_type",
        &["\"PAGE_VIEW\"", "\"page_view \"", "\" \"", "\"session\\u005fend\""],
    );
    for (field, max) in [("user_id", 512), ("event_type", 128), ("page_url", 2048)] {
        let longest =
            [format!("\"{}\"", "x".repeat(max)), format!("\"{}\"", "\\u00fc".repeat(max / 2))];
        cases.valid(field, &[&longest[0], &longest[1]]);
    }
    for page in ["", "\"page_url\":null,", "\"page_url\":\"\","] {
        let event =
            format!("{{{page}\"event_type\":\"click\",\"user_id\":1,\"event_time\":1705320000}}");
        cases.add(&format!("click with {page}"), event, None);
    }
    for text in malformed_times::GOOD_TEXTS {
        cases.valid("event_time", &[&format!("\"{text}\"")]);
    }
    cases.valid("event_time", malformed_times::GOOD_NUMBERS);
    // One hour ahead of its timestamp, to the microsecond.
    cases.valid("event_time", &["\"2024-01-15T13:00:00Z\""]);
    for case in &mut cases.0 {
        case.record.timestamp_micros = time::parse_text("2024-01-15T12:00:00Z");
    }
    cases.0
}
