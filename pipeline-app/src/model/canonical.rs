//! A short cut for records as most producers write them: the four fields and no other, in the
//! usual order, all of them strings without escapes.
//!
//! ```text
//! {"event_time":"…","user_id":"…","page_url":"…","event_type":"…"}
//! {"event_time": "…", "user_id": "…", "page_url": "…", "event_type": "…"}
//! ```
//!
//! What stands between the values is compared as a whole, and a value is as good as read when its
//! end is found. That takes a fraction of the time of [`scan`](super::json::scan). What does not
//! fit, or has a fault, is left to that.

use super::activity::{EventKind, Fields};
use super::decode::limit;
use super::event_time::{Timestamp, parse_text};
use super::find::find_special_or_not_ascii;
use super::json::{MAX_LENGTH, Span};
use super::reject::Field;

/// Reads a record that is written in one of these ways, has no fault, and is ASCII.
#[inline]
pub(super) fn read(record: &[u8]) -> Option<(Fields, Timestamp)> {
    if record.len() > MAX_LENGTH {
        return None;
    }
    let values = if record.get(14) == Some(&b' ') { spaced(record)? } else { compact(record)? };
    let kind = EventKind::of(values.event_type.of(record));
    let least_url = usize::from(kind == EventKind::PageView);
    let is_valid = is_within(values.user_id, 1, Field::UserId)
        && is_within(values.event_type, 1, Field::EventType)
        && is_within(values.page_url, least_url, Field::PageUrl);
    if !is_valid {
        return None;
    }
    let event_time = parse_text(values.event_time.of(record)).ok()?;
    let fields = Fields {
        user_id: values.user_id,
        page_url: Some(values.page_url),
        event_type: values.event_type,
        kind,
        has_reserved: false,
    };
    Some((fields, event_time))
}

/// The contents of the four strings.
struct Values {
    event_time: Span,
    user_id: Span,
    page_url: Span,
    event_type: Span,
}

#[inline(always)]
fn compact(record: &[u8]) -> Option<Values> {
    let mut at = 0;
    let event_time = string_after(record, &mut at, br#"{"event_time":""#)?;
    let user_id = string_after(record, &mut at, br#"","user_id":""#)?;
    let page_url = string_after(record, &mut at, br#"","page_url":""#)?;
    let event_type = string_after(record, &mut at, br#"","event_type":""#)?;
    (record.get(at..)? == b"\"}").then_some(Values { event_time, user_id, page_url, event_type })
}

fn spaced(record: &[u8]) -> Option<Values> {
    let mut at = 0;
    let event_time = string_after(record, &mut at, br#"{"event_time": ""#)?;
    let user_id = string_after(record, &mut at, br#"", "user_id": ""#)?;
    let page_url = string_after(record, &mut at, br#"", "page_url": ""#)?;
    let event_type = string_after(record, &mut at, br#"", "event_type": ""#)?;
    (record.get(at..)? == b"\"}").then_some(Values { event_time, user_id, page_url, event_type })
}

/// What follows `before`, which must stand at `at`, up to what ends it: a quote, or something that
/// is not plain. The difference shows when the next part, which starts with a quote, is compared.
#[inline(always)]
fn string_after<const N: usize>(record: &[u8], at: &mut usize, before: &[u8; N]) -> Option<Span> {
    if record.get(*at..)?.first_chunk::<N>()? != before {
        return None;
    }
    let start = *at + N;
    *at = find_special_or_not_ascii(record, start);
    Some(Span::new(start, *at))
}

#[inline]
fn is_within(value: Span, least: usize, field: Field) -> bool {
    (least..=limit(field)).contains(&value.range().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(record: &str) -> Option<[&str; 4]> {
        let Values { event_time, user_id, page_url, event_type } =
            compact(record.as_bytes()).or_else(|| spaced(record.as_bytes()))?;
        Some([event_time, user_id, page_url, event_type].map(|span| &record[span.range()]))
    }

    #[test]
    fn records_of_the_usual_form_are_recognised() {
        let usual = r#"{"event_time":"T","user_id":"u","page_url":"","event_type":"click"}"#;
        let spaced = usual.replace(':', ": ").replace(',', ", ");
        for record in [usual, &spaced] {
            assert_eq!(values(record), Some(["T", "u", "", "click"]));
            // Nothing else is: cut short, or with anything in it or after it.
            for at in (0..record.len()).filter(|&at| record.is_char_boundary(at)) {
                assert_eq!(values(&record[..at]), None);
                for special in ["\"", "\\", "\n", "é"] {
                    let (before, after) = record.split_at(at);
                    assert_eq!(values(&format!("{before}{special}{after}")), None);
                }
            }
            assert_eq!(values(&format!("{record} ")), None);
        }
    }

    #[test]
    fn only_what_has_no_fault_is_read() {
        let is_read = |time: &str, user: &str, page: &str, kind: &str| {
            let usual = format!(
                r#"{{"event_time":"{time}","user_id":"{user}","page_url":"{page}","event_type":"{kind}"}}"#
            );
            let spaced = usual.replace("\":", "\": ").replace("\",", "\", ");
            let is_read = read(usual.as_bytes()).is_some();
            assert_eq!(read(spaced.as_bytes()).is_some(), is_read, "{spaced}");
            is_read
        };
        let time = "2026-01-01T00:00:00Z";
        assert!(is_read(time, "u", "/", "page_view"));
        assert!(is_read("1767225600", "u", "", "click"));
        assert!(is_read(time, &"u".repeat(512), &"/".repeat(2048), &"c".repeat(128)));
        assert!(!is_read("now", "u", "/", "page_view"));
        assert!(!is_read(time, "", "/", "page_view"));
        assert!(!is_read(time, "u", "", "page_view"));
        assert!(!is_read(time, "u", "/", ""));
        assert!(!is_read(time, "ü", "/", "page_view"));
        assert!(!is_read(time, &"u".repeat(513), "/", "click"));
        assert!(!is_read(time, "u", &"/".repeat(2049), "click"));
        assert!(!is_read(time, "u", "/", &"c".repeat(129)));
    }

    #[test]
    fn all_that_is_not_plain_is_found_at_every_position() {
        for length in 0..30 {
            let plain = [&"~ #!][^\u{7f}"; 4].map(|text| text.repeat(4)).concat();
            let [user, page] = [&plain[..length], &plain[..30 - length]];
            let record = format!(
                r#"{{"event_time":"{page}","user_id":"{user}","page_url":"{page}","event_type":"{user}"}}"#
            );
            assert_eq!(values(&record), Some([page, user, page, user]));
            for at in 0..record.len() {
                for other in ["\\", "\n", "\0", "\u{1f}", "\u{a2}", "é", "\u{702}", "€", "😀"]
                {
                    let mut record = record.clone();
                    record.replace_range(at..=at, other);
                    assert_eq!(values(&record), None, "{record}");
                }
            }
        }
    }
}
