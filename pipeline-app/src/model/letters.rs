//! Dead letters and late records: what a topic's headers, or a file's lines, say about them.
//!
//! In a topic such a record keeps its key and value, and headers say the rest as text:
//!
//! ```text
//! dlq.reason  dlq.field  dlq.error  dlq.operator  dlq.topic  dlq.partition  dlq.offset  dlq.timestamp
//! dlq.app
//! late.aggregate  late.event_time  late.watermark  late.topic  late.partition  late.offset
//! ```
//!
//! In a file it is a line, a JSON object with the same names less their prefix, then `key` and
//! `value`. `partition` and `offset` are numbers there. A key or value that is not UTF-8 is in
//! `key_base64` or `value_base64` instead (RFC 4648, with padding); one that the record does not
//! have is `null`.
//!
//! `operator` is the step that has given the record up, if all others have counted it.
//!
//! Times are UTC with six digits. What does not apply, the field of a reason that concerns the
//! whole record or the timestamp of a record without one, has no header, and is `null` in a line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::activity::{Activity, Origin};
use super::event_time::{Timestamp, format_micros};
use super::json_text::write_string;
use super::reject::Reject;

/// Headers of a record: names and values.
pub type Headers = Vec<(&'static str, Vec<u8>)>;

/// An unusable record.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Why it is unusable.
    pub reject: &'a Reject,
    /// The only step that lacks it, if the others have had it.
    pub operator: Option<&'a str>,
    /// The topic, or the file, that it was read from.
    pub topic: &'a str,
    /// Where in the topic it was.
    pub origin: &'a Origin,
    /// What it says.
    pub value: Option<&'a [u8]>,
    /// The name of the job that could not use it.
    pub app: &'a str,
}

impl DeadLetter<'_> {
    /// The headers in a topic.
    pub fn headers(&self) -> Headers {
        headers(self.entries())
    }

    /// Appends the line in a file, without the line break.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        write_line(self.entries(), self.origin, self.value, out);
    }

    fn entries(&self) -> [Entry; 9] {
        [
            ("dlq.reason", Item::text(self.reject.reason.as_str())),
            ("dlq.field", self.reject.field.map_or(Item::Nothing, Item::text)),
            ("dlq.error", Item::text(&self.reject.error)),
            ("dlq.operator", self.operator.map_or(Item::Nothing, Item::text)),
            ("dlq.topic", Item::text(self.topic)),
            ("dlq.partition", Item::Number(self.origin.partition.into())),
            ("dlq.offset", Item::Number(self.origin.offset)),
            ("dlq.timestamp", self.origin.timestamp_micros.map_or(Item::Nothing, Item::time)),
            ("dlq.app", Item::text(self.app)),
        ]
    }
}

/// An event that came too late for an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct LateRecord<'a> {
    /// The table of the aggregate.
    pub aggregate: &'a str,
    /// The mark: how far its split had got when the event was read.
    pub watermark: Timestamp,
    /// The topic, or the file, that it was read from.
    pub topic: &'a str,
    /// The event.
    pub activity: &'a Activity,
}

impl LateRecord<'_> {
    /// The headers in a topic.
    pub fn headers(&self) -> Headers {
        headers(self.entries())
    }

    /// Appends the line in a file, without the line break.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        write_line(self.entries(), self.activity.origin(), Some(self.activity.body()), out);
    }

    fn entries(&self) -> [Entry; 6] {
        [
            ("late.aggregate", Item::text(self.aggregate)),
            ("late.event_time", Item::time(self.activity.event_time())),
            ("late.watermark", Item::time(self.watermark)),
            ("late.topic", Item::text(self.topic)),
            ("late.partition", Item::Number(self.activity.partition().into())),
            ("late.offset", Item::Number(self.activity.offset())),
        ]
    }
}

/// The name of a header, and what it says.
type Entry = (&'static str, Item);

enum Item {
    Text(String),
    Number(i64),
    Nothing,
}

impl Item {
    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn time(time: Timestamp) -> Self {
        Self::Text(format_micros(time))
    }
}

fn headers<const N: usize>(entries: [Entry; N]) -> Headers {
    let header = |(name, item)| match item {
        Item::Text(text) => Some((name, text.into_bytes())),
        Item::Number(number) => Some((name, number.to_string().into_bytes())),
        Item::Nothing => None,
    };
    entries.into_iter().filter_map(header).collect()
}

fn write_line<const N: usize>(
    entries: [Entry; N],
    origin: &Origin,
    value: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (header, item) in entries {
        let name = header.split_once('.').map_or(header, |(_prefix, name)| name);
        write_name(name, out);
        match item {
            Item::Text(text) => write_string(text, out),
            Item::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Item::Nothing => out.extend_from_slice(b"null"),
        }
        out.push(b',');
    }
    write_bytes("key", "key_base64", origin.key.as_deref(), out);
    out.push(b',');
    write_bytes("value", "value_base64", value, out);
    out.push(b'}');
}

/// A member that is `null`, or text, or under its second name the base64 of what is not UTF-8.
fn write_bytes(text_name: &str, base64_name: &str, bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => {
            write_name(text_name, out);
            out.extend_from_slice(b"null");
        }
        Some((_, Ok(text))) => {
            write_name(text_name, out);
            write_string(text, out);
        }
        Some((bytes, Err(_))) => {
            write_name(base64_name, out);
            write_string(STANDARD.encode(bytes), out);
        }
    }
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    write_string(name, out);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Field, Reason, decode};

    fn origin(key: Option<&'static [u8]>, timestamp_micros: Option<i64>) -> Origin {
        Origin { key: key.map(Bytes::from_static), partition: 3, offset: 42, timestamp_micros }
    }

    fn line(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        let line = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
        line
    }

    fn text(headers: Headers) -> String {
        let text = |(name, value)| format!("{name}={}", String::from_utf8(value).unwrap());
        headers.into_iter().map(text).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_dead_letter_with_a_field() {
        let letter = DeadLetter {
            reject: &Reject::field(Reason::EmptyField, Field::UserId, "is an empty string"),
            operator: Some("active_users"),
            topic: "user_activity",
            origin: &origin(Some(b"k\"1"), Some(1_767_225_600_123_000)),
            value: Some(b"{\"user_id\":\"\"}\n"),
            app: "user-activity",
        };
        assert_eq!(
            text(letter.headers()),
            "dlq.reason=empty_field|dlq.field=user_id|dlq.error=user_id is an empty string|\
             dlq.operator=active_users|dlq.topic=user_activity|dlq.partition=3|dlq.offset=42|\
             dlq.timestamp=2026-01-01T00:00:00.123000Z|dlq.app=user-activity"
        );
        assert_eq!(
            line(|out| letter.write_line(out)),
            r#"{"reason":"empty_field","field":"user_id","error":"user_id is an empty string","operator":"active_users","topic":"user_activity","partition":3,"offset":42,"timestamp":"2026-01-01T00:00:00.123000Z","app":"user-activity","key":"k\"1","value":"{\"user_id\":\"\"}\n"}"#
        );
    }

    #[test]
    fn a_dead_letter_of_bytes() {
        let letter = DeadLetter {
            reject: &Reject::record(Reason::BadUtf8, "the value is not UTF-8"),
            operator: None,
            topic: "t",
            origin: &origin(Some(b"\xff"), None),
            value: Some(b"\xff\xfe{"),
            app: "a",
        };
        assert_eq!(
            text(letter.headers()),
            "dlq.reason=bad_utf8|dlq.error=the value is not UTF-8|dlq.topic=t|dlq.partition=3|\
             dlq.offset=42|dlq.app=a"
        );
        assert_eq!(
            line(|out| letter.write_line(out)),
            r#"{"reason":"bad_utf8","field":null,"error":"the value is not UTF-8","operator":null,"topic":"t","partition":3,"offset":42,"timestamp":null,"app":"a","key_base64":"/w==","value_base64":"//57"}"#
        );
    }

    #[test]
    fn a_dead_letter_of_nothing() {
        let reject = Reject::record(Reason::Empty, "the record has no value");
        let origin = origin(None, None);
        let letter = DeadLetter {
            reject: &reject,
            operator: None,
            topic: "t",
            origin: &origin,
            value: None,
            app: "a",
        };
        assert!(line(|out| letter.write_line(out)).ends_with(r#""key":null,"value":null}"#));
        let letter = DeadLetter { value: Some(b""), ..letter };
        assert!(line(|out| letter.write_line(out)).ends_with(r#""key":null,"value":""}"#));
    }

    #[test]
    fn a_late_record() {
        let body = r#"{"user_id":1,"event_type":"click","event_time":1767225600.5}"#;
        let origin = origin(None, Some(0));
        let activity = decode(Some(&Bytes::from(body)), origin).unwrap();
        let late = LateRecord {
            aggregate: "user_sessions",
            watermark: 1_767_225_700_000_001,
            topic: "user_activity",
            activity: &activity,
        };
        assert_eq!(
            text(late.headers()),
            "late.aggregate=user_sessions|late.event_time=2026-01-01T00:00:00.500000Z|\
             late.watermark=2026-01-01T00:01:40.000001Z|late.topic=user_activity|\
             late.partition=3|late.offset=42"
        );
        assert_eq!(
            line(|out| late.write_line(out)),
            r#"{"aggregate":"user_sessions","event_time":"2026-01-01T00:00:00.500000Z","watermark":"2026-01-01T00:01:40.000001Z","topic":"user_activity","partition":3,"offset":42,"key":null,"value":"{\"user_id\":1,\"event_type\":\"click\",\"event_time\":1767225600.5}"}"#
        );
    }
}
