//! Tests of `decode`: a table for every sentence of the contract.

use super::*;

/// A record of the four fields, given as JSON, in another order than that of the checks.
fn record(event_time: &str, page_url: &str, event_type: &str, user_id: &str) -> String {
    format!(
        r#"{{"event_time":{event_time},"page_url":{page_url},"event_type":{event_type},"user_id":{user_id}}}"#
    )
}

const TIME: &str = "1767225600";

fn decode_text(value: impl AsRef<[u8]>) -> Result<Activity, Reject> {
    decode(Some(&Bytes::copy_from_slice(value.as_ref())), Origin::default())
}

fn check(value: impl AsRef<[u8]>, user: &str, kind: &str, url: Option<&str>, time: Timestamp) {
    let shown = String::from_utf8_lossy(value.as_ref()).into_owned();
    let activity = decode_text(value).unwrap_or_else(|reject| panic!("{shown}: {reject:?}"));
    let fields = (activity.user_id(), activity.event_type(), activity.page_url());
    assert_eq!((fields, activity.event_time()), ((user, kind, url), time), "{shown}");
}

fn check_rejected(value: impl AsRef<[u8]>, reason: Reason, field: Option<&str>) {
    let shown = String::from_utf8_lossy(value.as_ref()).into_owned();
    let reject = decode_text(value).map(|activity| activity.body().clone()).unwrap_err();
    assert_eq!((reject.reason, reject.field), (reason, field), "{shown}: {}", reject.error);
    assert!(reject.error.len() < 300 && !reject.error.contains('\n'), "{}", reject.error);
}

#[test]
fn a_record_of_no_value_is_empty() {
    assert_eq!(decode(None, Origin::default()).unwrap_err().reason, Reason::Empty);
    for value in ["", " ", "\t\r\n "] {
        check_rejected(value, Reason::Empty, None);
    }
    // White space of others.
    for value in ["\u{c}", "\u{a0}", "\u{feff}", "\0"] {
        check_rejected(value, Reason::BadJson, None);
    }
}

#[test]
fn utf8_comes_before_json_and_json_before_all_else() {
    check_rejected(b"\xff", Reason::BadUtf8, None);
    check_rejected(b"{\"a\":\"\xc3\"", Reason::BadUtf8, None);
    check_rejected(b"{\"a\":\"\xed\xa0\x80\"}", Reason::BadUtf8, None); // a surrogate
    check_rejected(b"{\"a\":\"\xc0\x80\"}", Reason::BadUtf8, None); // an overlong zero
    check_rejected(b"[] \x80", Reason::BadUtf8, None);
    check_rejected("x", Reason::BadJson, None);
    check_rejected("[", Reason::BadJson, None);
    check_rejected("[] []", Reason::BadJson, None);
    check_rejected(r#"{"user_id":1,"user_id":1"#, Reason::BadJson, None);
    check_rejected(r#"{"user_id":NaN}"#, Reason::BadJson, None);
    check_rejected(r#"["\ud800"]"#, Reason::BadJson, None);
    let valid = record(TIME, "null", "\"click\"", "\"u\"");
    check(format!(" {valid}\r\n"), "u", "click", None, 1_767_225_600_000_000);
    check_rejected(format!("{valid},"), Reason::BadJson, None);
    check_rejected(format!("\u{feff}{valid}"), Reason::BadJson, None);
    let with_unknown = |unknown: &str| valid.replacen('{', &format!("{{\"x\":{unknown},"), 1);
    check_rejected(with_unknown(r#"[{"\udc00":0}]"#), Reason::BadJson, None);
    check(with_unknown("-1e999999"), "u", "click", None, 1_767_225_600_000_000);
    let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    check(with_unknown(&arrays(126)), "u", "click", None, 1_767_225_600_000_000);
    check_rejected(with_unknown(&arrays(127)), Reason::BadJson, None);
    check_rejected(arrays(128), Reason::BadJson, None);
}

#[test]
fn json_of_another_kind_is_not_an_object() {
    for value in ["[]", "null", "1", "\"{}\"", " true ", "[{\"user_id\":1,\"user_id\":1}]"] {
        check_rejected(value, Reason::NotAnObject, None);
    }
}

#[test]
fn one_of_the_four_given_twice_is_a_duplicate() {
    check_rejected(r#"{"user_id":1,"user_id":1}"#, Reason::DuplicateField, Some("user_id"));
    check_rejected(
        r#"{"page_url":null,"page_url":null}"#,
        Reason::DuplicateField,
        Some("page_url"),
    );
    let value = r#"{"event_time":[],"\u0065vent_time":0}"#;
    check_rejected(value, Reason::DuplicateField, Some("event_time"));
    let value = r#"{"user_id":1,"event_type":1,"event_type":2,"user_id":2}"#;
    check_rejected(value, Reason::DuplicateField, Some("event_type"));
    // Unknown and nested ones may repeat.
    let value = r#"{"a":1,"a":2,"b":{"user_id":1,"user_id":1},"user_id":1,"User_id":1,"event_type":"c","event_time":1767225600,"\u0061":3}"#;
    check(value, "1", "c", None, 1_767_225_600_000_000);
}

#[test]
fn user_ids() {
    let with = |user_id: &str| record(TIME, "null", "\"click\"", user_id);
    for (user_id, expected) in [
        (r#""u""#, "u"),
        (r#"" ""#, " "),
        (r#""1.0""#, "1.0"),
        (r#""\u0075\/\ud83d\ude00""#, "u/😀"),
        ("0", "0"),
        ("-0", "-0"),
        ("42", "42"),
        ("-123456789012345678901234567890", "-123456789012345678901234567890"),
    ] {
        check(with(user_id), expected, "click", None, 1_767_225_600_000_000);
    }
    for user_id in ["null", "true", "1.0", "1e3", "1E3", "-1.5", "[]", "{}", "[\"u\"]"] {
        check_rejected(with(user_id), Reason::WrongType, Some("user_id"));
    }
    check_rejected(with("01"), Reason::BadJson, None);
    check_rejected(with("\"\""), Reason::EmptyField, Some("user_id"));
    check_rejected(with(r#""a\u0000""#), Reason::NulCharacter, Some("user_id"));
    check_rejected(r#"{"event_type":1}"#, Reason::MissingField, Some("user_id"));
}

#[test]
fn event_types() {
    let with = |event_type: &str| record(TIME, "\"/\"", event_type, "1");
    for event_type in ["page_view", "click", "session_start", "session_end", "x", " "] {
        let value = with(&format!("\"{event_type}\""));
        check(value, "1", event_type, Some("/"), 1_767_225_600_000_000);
    }
    for event_type in ["null", "1", "false", "[]", "{}"] {
        check_rejected(with(event_type), Reason::WrongType, Some("event_type"));
    }
    check_rejected(with("\"\""), Reason::EmptyField, Some("event_type"));
    check_rejected(with(r#""\u0000""#), Reason::NulCharacter, Some("event_type"));
    check_rejected(r#"{"user_id":1,"event_time":[]}"#, Reason::MissingField, Some("event_type"));
}

#[test]
fn page_urls() {
    let with = |page_url: &str, event_type: &str| record(TIME, page_url, event_type, "1");
    let view = "\"page_view\"";
    for (page_url, expected) in [("null", None), ("\"\"", Some("")), (r#""\/x""#, Some("/x"))] {
        check(with(page_url, "\"click\""), "1", "click", expected, 1_767_225_600_000_000);
    }
    check(with("\"/\"", view), "1", "page_view", Some("/"), 1_767_225_600_000_000);
    check_rejected(with("null", view), Reason::MissingField, Some("page_url"));
    check_rejected(with("\"\"", view), Reason::EmptyField, Some("page_url"));
    let absent = r#"{"user_id":1,"event_time":1767225600,"event_type":"page\u005fview"}"#;
    check_rejected(absent, Reason::MissingField, Some("page_url"));
    for event_type in [view, "\"click\""] {
        for page_url in ["1", "true", "[]", "{}"] {
            check_rejected(with(page_url, event_type), Reason::WrongType, Some("page_url"));
        }
        let value = with(r#""a\u0000""#, event_type);
        check_rejected(value, Reason::NulCharacter, Some("page_url"));
    }
}

#[test]
fn event_times() {
    let with = |event_time: &str| record(event_time, "null", "\"click\"", "1");
    for (event_time, expected) in [
        (r#""2026-01-01T00:00:00.5Z""#, 1_767_225_600_500_000),
        (r#""2026-01-01\u005400:00:00""#, 1_767_225_600_000_000),
        ("1767225600", 1_767_225_600_000_000),
        (r#""1767225600""#, 1_767_225_600_000_000),
        (r#""001767225600""#, 1_767_225_600_000_000),
        ("1767225600.0000019", 1_767_225_600_000_001),
        ("1767225600123456789", 1_767_225_600_123_456),
    ] {
        check(with(event_time), "1", "click", None, expected);
    }
    for event_time in ["null", "true", "[]", "{}"] {
        check_rejected(with(event_time), Reason::WrongType, Some("event_time"));
    }
    for event_time in [
        "-1767225600",
        "1.7672256e9",
        "1767225600e0",
        "0",
        "946684799",
        r#""-1""#,
        r#"" ""#,
        r#""2026-01-01""#,
        r#""2026-02-30T00:00:00Z""#,
        r#""1999-12-31T23:59:59Z""#,
        "99999999999999999999999999",
        r#""2026-01-01T00:00:00Z\n""#,
    ] {
        check_rejected(with(event_time), Reason::BadEventTime, Some("event_time"));
    }
    check_rejected(with("\"\""), Reason::EmptyField, Some("event_time"));
    check_rejected(with(r#""\u0000""#), Reason::NulCharacter, Some("event_time"));
    let long = format!("\"{}\"", "0".repeat(4000));
    check_rejected(with(&long), Reason::BadEventTime, Some("event_time"));
    let value = r#"{"user_id":1,"event_type":"c"}"#;
    check_rejected(value, Reason::MissingField, Some("event_time"));
}

#[test]
fn limits_count_bytes_after_unescaping() {
    let with = |user: &str, kind: &str, url: &str| {
        record(TIME, &format!("\"{url}\""), &format!("\"{kind}\""), user)
    };
    let quoted = |text: &str| format!("\"{text}\"");
    let longest =
        with(&quoted(&"é".repeat(256)), &r"\u00e9".repeat(64), &r"\ud83d\ude00".repeat(512));
    assert!(decode_text(longest).is_ok());
    for (value, field) in [
        (with(&quoted(&("é".repeat(256) + "x")), "c", ""), "user_id"),
        (with(&quoted(&(r"\u00e9".repeat(256) + "x")), "c", ""), "user_id"),
        (with(&"1".repeat(513), "c", ""), "user_id"),
        (with("1", &"x".repeat(129), ""), "event_type"),
        (with("1", "c", &(r"\n".repeat(2049))), "page_url"),
    ] {
        check_rejected(value, Reason::TooLong, Some(field));
    }
    assert!(decode_text(with(&"1".repeat(512), &"x".repeat(128), &r"\n".repeat(2048))).is_ok());
    // U+0000 is looked for first.
    let value = with(&quoted(&("x".repeat(600) + r"\u0000")), "c", "");
    check_rejected(value, Reason::NulCharacter, Some("user_id"));
}

#[test]
fn all_of_one_field_is_checked_before_the_next() {
    for (event_time, page_url, event_type, user_id, reason, field) in [
        ("[]", "[]", "[]", r#""\u0000""#, Reason::NulCharacter, "user_id"),
        ("[]", "[]", "\"\"", "1", Reason::EmptyField, "event_type"),
        ("[]", r#""\u0000""#, "\"c\"", "1", Reason::NulCharacter, "page_url"),
        ("[]", "null", "\"page_view\"", "1", Reason::MissingField, "page_url"),
        ("[]", "null", "\"c\"", "1", Reason::WrongType, "event_time"),
    ] {
        check_rejected(record(event_time, page_url, event_type, user_id), reason, Some(field));
    }
    check_rejected("{}", Reason::MissingField, Some("user_id"));
}

#[test]
fn a_sentence_says_what_is_wrong() {
    for (value, expected) in [
        ("", "the record has no value"),
        ("{\"a\":1,\n}", "the value is not JSON, a name in double quotes is missing at byte 8: }"),
        ("{", "the value is not JSON, an unexpected end at byte 1"),
        (" [1]", "the value is no JSON object: [1]"),
        ("{\"user_id\":1,\"user_id\":1}", "user_id is given more than once"),
        ("{}", "user_id is missing"),
        ("{\"user_id\":1.5}", "user_id must be a string or an integer, and is 1.5"),
        ("{\"user_id\":[\n\"a\"]}", "user_id must be a string or an integer, and is [\\n\"a\"]"),
        (
            "{\"user_id\":\"u\",\"event_type\":\"c\",\"event_time\":\"now\"}",
            "event_time is \"now\", which is no valid time: it is neither of the form \
             YYYY-MM-DDTHH:MM:SS nor a plain number",
        ),
    ] {
        assert_eq!(decode_text(value).unwrap_err().error, expected);
    }
    let reject = decode_text(b"{\"a\":\"\xff\xfe\"}").unwrap_err();
    assert_eq!(reject.error, "the value is not UTF-8: byte 6 and those after it are ff fe 22 7d");
    let reject = decode_text(format!("{{\"user_id\":{}}}", "1".repeat(600))).unwrap_err();
    let shown = "1".repeat(40);
    assert_eq!(
        reject.error,
        format!("user_id has 600 bytes, more than the 512 allowed: {shown}...")
    );
}
