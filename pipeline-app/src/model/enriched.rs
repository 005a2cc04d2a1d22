//! The enriched record: what came in, and three fields of ours.

use super::activity::Activity;
use super::category::page_category_bytes;
use super::event_time::{Timestamp, write_date, write_millis};
use super::json::{self, Member, is_white_space};
use super::json_text::{unescape, write_string};
use super::name::Name;

/// Appends the enriched record of `activity` to `out`: one JSON object without white space around.
///
/// The members of the record come first, in their order, with names and values written as they
/// were, unknown and repeated ones included. Members with the name of a field of ours are left out.
/// Then follow `processing_time` (UTC, milliseconds), `event_date` (the day of the event in UTC)
/// and `page_category` ([`page_category`](super::page_category)).
///
/// White space inside is kept, apart from that between members if one was left out; so a record
/// that was written on several lines stays so: see [`join_lines`].
pub fn render(activity: &Activity, processing_time: Timestamp, out: &mut Vec<u8>) {
    let body = activity.body();
    out.reserve(body.len() + 160);
    if activity.has_reserved() {
        write_members(body, out);
    } else {
        // The record has members, so a comma follows.
        let object = trim(body);
        let members = object.strip_suffix(b"}").unwrap_or(object);
        out.extend_from_slice(trim(members));
        out.push(b',');
    }
    out.extend_from_slice(br#""processing_time":""#);
    write_millis(processing_time, out);
    out.extend_from_slice(br#"","event_date":""#);
    write_date(activity.event_time(), out);
    out.extend_from_slice(br#"","page_category":"#);
    match page_category_bytes(activity.page_url_bytes()) {
        Some(category) => write_string(category, out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// Replaces line breaks by spaces, so that a JSON text is on one line, as files of lines need it.
/// In an accepted text line breaks are white space: strings cannot contain them.
pub fn join_lines(text: &mut [u8]) {
    for byte in text {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// The opening brace and the members that are not ours, each with a comma after it.
fn write_members(body: &[u8], out: &mut Vec<u8>) {
    out.push(b'{');
    let visit = |Member { key, value, .. }: Member| {
        if !Name::of(&unescape(key.inner().of(body))).is_reserved() {
            out.extend_from_slice(key.of(body));
            out.push(b':');
            out.extend_from_slice(value.of(body));
            out.push(b',');
        }
    };
    // It was scanned when it was decoded, so it has no errors.
    let _ = json::scan(body, visit);
}

/// Without the white space around it.
fn trim(text: &[u8]) -> &[u8] {
    let is_inner = |&byte: &u8| !is_white_space(byte);
    let start = text.iter().position(is_inner).unwrap_or(text.len());
    let end = text.iter().rposition(is_inner).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Origin, decode};

    /// 2026-01-01T00:00:00.123999Z
    const NOW: Timestamp = 1_767_225_600_123_999;

    fn render_new(body: &str) -> String {
        let activity = decode(Some(&Bytes::from(body.to_owned())), Origin::default()).unwrap();
        let mut out = Vec::new();
        render(&activity, NOW, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(body: &str, expected: &str) {
        let rendered = render_new(body);
        assert_eq!(rendered, expected);
        serde_json::from_str::<serde::de::IgnoredAny>(&rendered).unwrap();
    }

    #[test]
    fn our_fields_follow_those_of_the_record() {
        check(
            r#"{"event_time":"2026-01-01T01:30:00+02:00","user_id":"u","page_url":"https://a.example/b/c","event_type":"page_view"}"#,
            r#"{"event_time":"2026-01-01T01:30:00+02:00","user_id":"u","page_url":"https://a.example/b/c","event_type":"page_view","processing_time":"2026-01-01T00:00:00.123Z","event_date":"2025-12-31","page_category":"b"}"#,
        );
    }

    #[test]
    fn values_stay_as_they_came() {
        check(
            " {\"a\" : 1e400 ,\"user_id\":-0,\"event_type\":\"\\u0063lick\",\t\"a\":[ {} , 1.10 ],\"event_time\": 1767225600.50 , \"e\u{301}\":\"\\/\" }\r\n",
            "{\"a\" : 1e400 ,\"user_id\":-0,\"event_type\":\"\\u0063lick\",\t\"a\":[ {} , 1.10 ],\"event_time\": 1767225600.50 , \"e\u{301}\":\"\\/\",\"processing_time\":\"2026-01-01T00:00:00.123Z\",\"event_date\":\"2026-01-01\",\"page_category\":null}",
        );
    }

    #[test]
    fn fields_with_our_names_are_replaced() {
        check(
            r#"{"processing_time": {"x":"}"}, "user_id":"u", "event_date":1, "event_type":"click","event_date":2,"Event_date":3, "event_time":1767225600 , "page\u005fcategory":"x", "z":{"event_date":4} }"#,
            r#"{"user_id":"u","event_type":"click","Event_date":3,"event_time":1767225600,"z":{"event_date":4},"processing_time":"2026-01-01T00:00:00.123Z","event_date":"2026-01-01","page_category":null}"#,
        );
    }

    #[test]
    fn a_category_is_escaped() {
        let rendered = render_new(
            r#"{"user_id":"u","event_type":"click","page_url":"/a\"\\\u000a\ud83d\ude00/b","event_time":1767225600}"#,
        );
        assert!(rendered.ends_with(r#","page_category":"a\"\\\n😀"}"#), "{rendered}");
    }

    #[test]
    fn a_nested_object_may_end_the_record() {
        let rendered = render_new(
            r#"{"user_id":"u","event_type":"click","event_time":1767225600,"z":{"y":{}}}"#,
        );
        assert!(rendered.contains(r#""z":{"y":{}},"processing_time""#), "{rendered}");
        serde_json::from_str::<serde::de::IgnoredAny>(&rendered).unwrap();
    }

    #[test]
    fn lines_are_joined() {
        let mut text = b"{\r\n\"a\": \"\\n\"\n}".to_vec();
        join_lines(&mut text);
        assert_eq!(text, br#"{  "a": "\n" }"#);
    }
}
