//! Tests of `json`, by tables and against serde_json.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::{scan as scan_bytes, *};

fn scan(text: &str, visit: impl FnMut(Member)) -> Result<Kind, JsonError> {
    scan_bytes(text.as_bytes(), visit)
}

fn check(text: &str) {
    assert!(scan(text, |_| ()).is_ok(), "{text}: {:?}", scan(text, |_| ()));
    // Cut anywhere, it is no longer JSON, except for numbers and white space.
    if text.ends_with(['}', ']', '"']) {
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            assert!(scan(&text[..end], |_| ()).is_err(), "{}", &text[..end]);
        }
    }
}

fn check_refused(text: &str, problem: &str, at: usize) {
    let error = scan(text, |_| ()).unwrap_err();
    assert_eq!((error.problem, error.at), (problem, at), "{text}");
}

/// The members as `key=value(kind)`.
fn members(text: &str) -> String {
    let mut shown = Vec::new();
    let kind = scan(text, |member| {
        let escaped = if member.key_is_escaped { "!" } else { "" };
        let of = |span: Span| &text[span.range()];
        let (key, value) = (of(member.key.inner()), of(member.value));
        shown.push(format!("{key}{escaped}={value}({:?})", member.kind));
    });
    assert_eq!(kind, Ok(Kind::Object));
    shown.join(" ")
}

#[test]
fn members_are_shown_as_written() {
    assert_eq!(members("{}"), "");
    assert_eq!(members(" { \t\r\n } "), "");
    assert_eq!(
        members(r#"{"a":1,"b" : "x" , "c":"\n","\u0061":true,"a":null,"":[1,{"a":2}],"o":{} }"#),
        r#"a=1(Number) b="x"(PlainString) c="\n"(EscapedString) \u0061!=true(Boolean) a=null(Null) =[1,{"a":2}](Array) o={}(Object)"#
    );
}

#[test]
fn json_is_accepted() {
    for text in [
        "0",
        "-0",
        "-1.5e+10",
        "1E5",
        "1e-7",
        "0.0",
        "1e99999",
        "true",
        "false",
        "null",
        "\"\"",
        " [ ] ",
        "[[],{},\"\",0]",
        "[1 , 2]",
        "\n\t\r 1 ",
        r#"{"a":{"b":[{"c":{}}]}}"#,
        r#""\"\\\/\b\f\n\r\t\u0000\u00e9\uFFFF""#,
        r#""\ud83d\ude00\udbff\udfff""#,
        "\"\u{7f}\u{80}é😀\u{feff}\"",
        r#"{"a":1,"a":2}"#,
        r#"["]}"]"#,
        r#"[{"a":{}},[1,2],{"b":[]},[[],{}]]"#,
        "123456789012345678901234567890.123456789012345678901234567890",
    ] {
        check(text);
    }
}

#[test]
fn what_is_not_json_is_refused() {
    let end = "an unexpected end";
    let value = "not a value";
    let surrogate = "half of a surrogate pair";
    let unescaped = "a control character in a string";
    for (text, problem, at) in [
        ("", end, 0),
        (" ", end, 1),
        ("\u{feff}{}", value, 0),
        ("\u{a0}{}", value, 0),
        ("\u{c}{}", value, 0),
        ("{} x", "something after the value", 3),
        ("{}\0", "something after the value", 2),
        ("{}{}", "something after the value", 2),
        ("1 2", "something after the value", 2),
        ("01", "something after the value", 1),
        ("1.", end, 2),
        ("[1.]", "a digit is missing", 3),
        ("[.5]", value, 1),
        ("[+1]", value, 1),
        ("[-]", "a digit is missing", 2),
        ("[-x]", "a digit is missing", 2),
        ("[1e]", "a digit is missing", 3),
        ("[1e+]", "a digit is missing", 4),
        ("[0x1]", "neither a comma nor the end of an array", 2),
        ("[1 2]", "neither a comma nor the end of an array", 3),
        ("[1}", "neither a comma nor the end of an array", 2),
        (r#"{"a":1]"#, "neither a comma nor the end of an object", 6),
        (r#"[{"a":1]"#, "neither a comma nor the end of an object", 7),
        (r#"[{"a":1 "b":2}]"#, "neither a comma nor the end of an object", 8),
        ("[1,]", value, 3),
        ("[,1]", value, 1),
        ("[", end, 1),
        (r#"{"a":1,}"#, "a name in double quotes is missing", 7),
        (r#"[{"a":1,}]"#, "a name in double quotes is missing", 8),
        ("{a:1}", "a name in double quotes is missing", 1),
        ("{'a':1}", "a name in double quotes is missing", 1),
        ("[{1:1}]", "a name in double quotes is missing", 2),
        (r#"{"a"}"#, "a colon is missing", 4),
        (r#"{"a",1}"#, "a colon is missing", 4),
        (r#"{"a"::1}"#, value, 5),
        (r#"{"a":}"#, value, 5),
        (r#"{"a":1/**/}"#, "neither a comma nor the end of an object", 6),
        ("nul", value, 0),
        ("nulL", value, 0),
        ("True", value, 0),
        ("NaN", value, 0),
        ("Infinity", value, 0),
        ("[-Infinity]", "a digit is missing", 2),
        ("nullx", "something after the value", 4),
        ("\"abc", end, 4),
        ("\"abc\\", end, 5),
        ("\"a\nb\"", unescaped, 2),
        ("\"a\u{1f}b\"", unescaped, 2),
        ("{\"a\0\":1}", unescaped, 3),
        (r#""\x""#, "an unknown escape", 2),
        (r#""\U0041""#, "an unknown escape", 2),
        (r#""\u12g4""#, "an escape without four hexadecimal digits", 5),
        (r#""\u123""#, "an escape without four hexadecimal digits", 6),
        (r#""\u+123""#, "an escape without four hexadecimal digits", 3),
        (r#""\ud800""#, surrogate, 1),
        (r#""x\udfff""#, surrogate, 2),
        (r#""\ud800x""#, surrogate, 1),
        (r#""\ud800\n""#, surrogate, 1),
        (r#""\ud800\ud800\udc00""#, surrogate, 1),
        (r#""\udc00\ud800""#, surrogate, 1),
        (r#"{"\ud800":1}"#, surrogate, 2),
        (r#"{"a":[{"\udc00":1}]}"#, surrogate, 8),
    ] {
        check_refused(text, problem, at);
    }
}

#[test]
fn nesting_ends_at_127_levels() {
    let deep = "more than 127 levels of nesting";
    let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    check(&arrays(127));
    check_refused(&arrays(128), deep, 127);
    check_refused(&arrays(1_000_000), deep, 127);
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    check(&objects(127));
    check_refused(&objects(128), deep, 127 * 5);
    // The outermost object counts as one level; siblings do not add up.
    let member = |depth: usize| format!(r#"{{"a":[[],[]],"b":{}}}"#, arrays(depth));
    check(&member(126));
    check_refused(&member(127), deep, 17 + 127 - 1);
    let mixed = format!("{}{}", r#"[{"a":"#.repeat(63), "[]") + &"}]".repeat(63);
    check(&mixed);
    check_refused(&"[".repeat(200), deep, 127);
}

#[test]
fn long_values_are_scanned() {
    let long = "x".repeat(1 << 20);
    check_kinds(&format!(r#"{{"a":"{long}","b":1{}}}"#, "0".repeat(1 << 20)));
    fn check_kinds(text: &str) {
        let mut kinds = Vec::new();
        assert!(scan(text, |member| kinds.push(member.kind)).is_ok());
        assert_eq!(kinds, [Kind::PlainString, Kind::Number]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Texts made of JSON's own pieces, so that many are nearly or entirely correct. serde_json
    /// does not look at surrogates in what it skips, so they are left out here.
    #[test]
    fn serde_json_agrees(
        text in r#"([{}\[\],:]|"a"|"\\\\"|"\\u00e9"|"é| |\n|[-+.eE]|[01]|true|null|\{"a":|\[\]){0,12}"#
    ) {
        let expected = serde_json::from_str::<IgnoredAny>(&text);
        prop_assert_eq!(scan(&text, |_| ()).is_ok(), expected.is_ok(), "{:?}", expected);
    }

    #[test]
    fn serde_json_agrees_on_numbers(text in "-?[0-9.eE+-]{1,8}") {
        let expected = serde_json::from_str::<IgnoredAny>(&text);
        prop_assert_eq!(scan(&text, |_| ()).is_ok(), expected.is_ok(), "{:?}", expected);
    }

    #[test]
    fn serde_json_agrees_on_strings(inner in r#"(\\u[dD][89abcd][0-9a-f]{2}|\\u[0-9a-fA-F]{3,4}|\\.|[a-z"é\n]){0,6}"#) {
        let text = format!("\"{inner}\"");
        let expected = serde_json::from_str::<String>(&text);
        prop_assert_eq!(scan(&text, |_| ()).is_ok(), expected.is_ok(), "{:?}", expected);
    }
}
