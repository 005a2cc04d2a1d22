//! A dead letter as it is read back: from headers in a topic, from a line in a file.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::text::escape;

/// A dead letter, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Letter {
    /// The partition of the dead letters' topic; 0 in a file.
    pub(super) partition: i32,
    /// The offset there; the number of the line in a file, from 0.
    pub(super) offset: u64,
    pub(super) reason: String,
    /// Empty if it is about the whole record.
    pub(super) field: String,
    pub(super) error: String,
    /// The only step that lacks the record, if the others have had it; else empty.
    pub(super) operator: String,
    /// Where the record was read.
    pub(super) topic: String,
    pub(super) source_partition: i32,
    pub(super) source_offset: i64,
    /// The record's own timestamp as text; empty if it had none.
    pub(super) timestamp: String,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
}

impl Letter {
    /// Sorts the older before the newer.
    pub(super) fn age(&self) -> (String, i32, u64) {
        (self.timestamp.clone(), self.partition, self.offset)
    }

    /// Whether every step but one has had the record: if it came again, they would count it twice.
    pub(super) fn is_counted(&self) -> bool {
        !self.operator.is_empty()
    }

    /// Why such a record is not sent back.
    pub(super) fn refusal(&self) -> String {
        let Self { topic, source_partition, source_offset, operator, .. } = self;
        let text = format!(
            "{topic}/{source_partition}@{source_offset} is not sent: all steps but {operator} have counted it, and would count it twice"
        );
        escaped(text.as_bytes())
    }

    /// Milliseconds since 1970, if the record had a timestamp.
    pub(super) fn timestamp_millis(&self) -> Option<i64> {
        chrono::DateTime::parse_from_rfc3339(&self.timestamp).ok().map(|t| t.timestamp_millis())
    }

    /// Reads a line of a file.
    pub(super) fn from_line(line: &[u8], offset: u64) -> Result<Self> {
        #[derive(Deserialize)]
        struct Line {
            reason: String,
            field: Option<String>,
            error: String,
            operator: Option<String>,
            topic: String,
            partition: i32,
            #[serde(default)]
            offset: i64,
            timestamp: Option<String>,
            key: Option<String>,
            key_base64: Option<String>,
            value: Option<String>,
            value_base64: Option<String>,
        }
        let bytes = |text: Option<String>, base64: Option<String>| match base64 {
            Some(base64) => STANDARD.decode(base64).map(Some).context("base64"),
            None => Ok(text.map(String::into_bytes)),
        };
        let line: Line = serde_json::from_slice(line)
            .with_context(|| format!("line {} is no dead letter", offset + 1))?;
        Ok(Self {
            partition: 0,
            offset,
            reason: line.reason,
            field: line.field.unwrap_or_default(),
            error: line.error,
            operator: line.operator.unwrap_or_default(),
            topic: line.topic,
            source_partition: line.partition,
            source_offset: line.offset,
            timestamp: line.timestamp.unwrap_or_default(),
            key: bytes(line.key, line.key_base64)?,
            value: bytes(line.value, line.value_base64)?,
        })
    }
}

/// Bytes as a terminal may show them: what is no text, or would move the cursor, as an escape.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{self, Reason, Reject};
    use crate::text::is_active;

    #[test]
    fn a_letter_is_read_back_as_it_was_written() {
        for value in [Some(&b"{\"a\":\"\\u0000\"}\n"[..]), Some(b"\xff\xfe{"), Some(b""), None] {
            let origin = model::Origin {
                key: Some(bytes::Bytes::from_static(b"k\xff")),
                partition: 3,
                offset: 42,
                timestamp_micros: Some(1_767_225_600_123_000),
            };
            let reject = Reject::record(Reason::BadUtf8, "the value is not UTF-8");
            let mut line = vec![];
            let operator = Some("active_users");
            let (topic, app) = ("t", "a");
            model::DeadLetter { reject: &reject, operator, topic, origin: &origin, value, app }
                .write_line(&mut line);
            let read = Letter::from_line(&line, 7).unwrap();
            assert_eq!(read.key.as_deref(), Some(&b"k\xff"[..]));
            assert_eq!(read.value.as_deref(), value);
            assert_eq!((read.offset, read.source_partition, &*read.topic), (7, 3, "t"));
            assert_eq!((&*read.reason, &*read.field), ("bad_utf8", ""));
            assert_eq!((&*read.operator, read.source_offset), ("active_users", 42));
            assert_eq!(read.timestamp_millis(), Some(1_767_225_600_123));
        }
        let error = Letter::from_line(b"{\"a\":1}", 7).unwrap_err().to_string();
        assert!(error.contains("line 8 is no dead letter"), "{error}");
    }

    #[test]
    fn fuzz_dead_letter() {
        let corpus = [
            r#"{"reason":"bad_json","field":null,"error":"x","operator":"o","topic":"t","partition":3,"offset":4,"timestamp":"2026-01-01T00:00:00.000000Z","app":"a","key":"k","value":"{"}"#,
            r#"{"reason":"bad_utf8","field":"user_id","error":"\u001b","topic":"t","partition":-1,"timestamp":null,"key_base64":"/w==","value_base64":"//4="}"#,
        ];
        let corpus = corpus.map(|line| line.as_bytes().to_vec());
        streamkit::testing::fuzz("dead_letter", &corpus, |bytes| {
            let shown = escaped(bytes);
            assert!(!shown.chars().any(is_active), "{shown:?}");
            let Ok(letter) = Letter::from_line(bytes, 7) else { return };
            let Some(reason) = Reason::ALL.into_iter().find(|r| r.as_str() == letter.reason) else {
                return;
            };
            // Written again, it is read as it was.
            let origin = model::Origin {
                key: letter.key.clone().map(bytes::Bytes::from),
                partition: letter.source_partition,
                offset: letter.source_offset,
                timestamp_micros: letter.timestamp_millis().map(|t| t * 1_000),
            };
            let (value, topic) = (letter.value.as_deref(), &*letter.topic);
            let reject = Reject::record(reason, letter.error.clone());
            let operator = Some(&*letter.operator).filter(|operator| !operator.is_empty());
            let (mut line, app) = (vec![], "a");
            model::DeadLetter { reject: &reject, operator, topic, origin: &origin, value, app }
                .write_line(&mut line);
            let again = Letter::from_line(&line, 7).unwrap();
            assert_eq!(again.timestamp_millis(), letter.timestamp_millis());
            let (field, timestamp) = (letter.field.clone(), letter.timestamp.clone());
            assert_eq!(Letter { field, timestamp, ..again }, letter);
        });
    }

    #[test]
    fn f24_what_would_move_the_cursor_is_escaped() {
        let text = escaped("a\u{1b}[2J\u{202e}ä\n\0".as_bytes());
        assert_eq!(text, "a\\u{1b}[2J\\u{202e}ä\\n\\u{0}");
        assert_eq!(escaped(b"\xff{\xc3"), "\\xff{\\xc3");
    }
}
