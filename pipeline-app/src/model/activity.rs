//! One event of a user: the record that it came in, and where in it its fields are.

use bytes::Bytes;

use super::event_time::Timestamp;
use super::json::Span;

/// Where a record comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The record's key.
    pub key: Option<Bytes>,
    /// The number of the split that it was read from.
    pub partition: i32,
    /// Its position in that split.
    pub offset: i64,
    /// The record's own timestamp, in microseconds since 1970.
    pub timestamp_micros: Option<i64>,
}

/// A valid event.
///
/// It keeps the record's bytes and finds its fields in them; a clone shares them. Only fields that
/// were written with escapes have a text of their own.
///
/// Each text can be had as `&str` or as bytes. Those as bytes are for hashing, comparing and
/// copying in hot paths: as `&str` a text is checked to be UTF-8 once more each time, which costs
/// some nanoseconds, for without unsafe code that knowledge cannot be kept.
#[derive(Clone, Debug)]
pub struct Activity {
    body: Bytes,
    /// The contents of the fields that had escapes, one after the other.
    unescaped: Option<Bytes>,
    origin: Origin,
    event_time: Timestamp,
    fields: Fields,
}

/// Where the fields of an event are: in the body, or, counted on from its end, among the unescaped
/// texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) user_id: Span,
    pub(super) page_url: Option<Span>,
    pub(super) event_type: Span,
    pub(super) kind: EventKind,
    pub(super) has_reserved: bool,
}

/// The types of events that the job treats in their own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    PageView,
    SessionStart,
    SessionEnd,
    Other,
}

impl EventKind {
    #[inline]
    pub(super) fn of(event_type: &[u8]) -> Self {
        // Not a match: comparisons with constants as a whole are much faster.
        if event_type == b"page_view" {
            Self::PageView
        } else if event_type == b"session_start" {
            Self::SessionStart
        } else if event_type == b"session_end" {
            Self::SessionEnd
        } else {
            Self::Other
        }
    }
}

impl Activity {
    #[inline(always)]
    pub(super) fn new(
        body: Bytes,
        unescaped: Vec<u8>,
        origin: Origin,
        event_time: Timestamp,
        fields: Fields,
    ) -> Self {
        let unescaped = if unescaped.is_empty() { None } else { Some(Bytes::from(unescaped)) };
        Self { body, unescaped, origin, event_time, fields }
    }

    /// When it happened.
    pub fn event_time(&self) -> Timestamp {
        self.event_time
    }

    /// Who did it; never empty.
    pub fn user_id(&self) -> &str {
        text(self.user_id_bytes())
    }

    /// [`Activity::user_id`] as UTF-8.
    #[inline]
    pub fn user_id_bytes(&self) -> &[u8] {
        self.bytes(self.fields.user_id)
    }

    /// The page that it is about: `None` if the record has none or `null`. It may be empty, except
    /// in a page view.
    pub fn page_url(&self) -> Option<&str> {
        self.page_url_bytes().map(text)
    }

    /// [`Activity::page_url`] as UTF-8.
    #[inline]
    pub fn page_url_bytes(&self) -> Option<&[u8]> {
        self.fields.page_url.map(|place| self.bytes(place))
    }

    /// What was done, as the record says it; never empty.
    pub fn event_type(&self) -> &str {
        text(self.event_type_bytes())
    }

    /// [`Activity::event_type`] as UTF-8.
    #[inline]
    pub fn event_type_bytes(&self) -> &[u8] {
        self.bytes(self.fields.event_type)
    }

    /// Whether a page was viewed; then there is a page.
    pub fn is_page_view(&self) -> bool {
        self.fields.kind == EventKind::PageView
    }

    /// Whether it says that a session starts.
    pub fn is_session_start(&self) -> bool {
        self.fields.kind == EventKind::SessionStart
    }

    /// Whether it says that a session ends.
    pub fn is_session_end(&self) -> bool {
        self.fields.kind == EventKind::SessionEnd
    }

    /// The value of the record as it came: a JSON object with white space around it, if any.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The key of the record.
    pub fn key(&self) -> Option<&Bytes> {
        self.origin.key.as_ref()
    }

    /// The number of the split that the record was read from.
    pub fn partition(&self) -> i32 {
        self.origin.partition
    }

    /// The position of the record in its split.
    pub fn offset(&self) -> i64 {
        self.origin.offset
    }

    /// The record's own timestamp, in microseconds since 1970.
    pub fn timestamp_micros(&self) -> Option<i64> {
        self.origin.timestamp_micros
    }

    /// Where the record comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether a member of the record has a name that an enriched record uses for a field of ours.
    pub(super) fn has_reserved(&self) -> bool {
        self.fields.has_reserved
    }

    #[inline]
    fn bytes(&self, place: Span) -> &[u8] {
        text_at(place, &self.body, self.unescaped.as_deref().unwrap_or_default())
    }
}

/// The text at a place as [`Fields`] has them.
#[inline]
pub(super) fn text_at<'a>(place: Span, body: &'a [u8], unescaped: &'a [u8]) -> &'a [u8] {
    let range = place.range();
    if range.end <= body.len() {
        return body.get(range).unwrap_or_default();
    }
    let in_unescaped = |at: usize| at.saturating_sub(body.len());
    unescaped.get(in_unescaped(range.start)..in_unescaped(range.end)).unwrap_or_default()
}

/// A text that has been checked before.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decode;

    fn decoded(value: &'static str) -> Activity {
        decode(Some(&Bytes::from_static(value.as_bytes())), Origin::default()).unwrap()
    }

    #[test]
    fn it_is_small_and_shares_the_record() {
        assert!(size_of::<Activity>() <= 200, "{}", size_of::<Activity>());
        let body = Bytes::from(
            r#"{"user_id":"u","event_type":"click","event_time":1767225600}"#.to_owned(),
        );
        let activity = decode(Some(&body), Origin::default()).unwrap().clone();
        assert_eq!(activity.body().as_ptr(), body.as_ptr());
        assert!(body.as_ptr_range().contains(&activity.user_id().as_ptr()));
    }

    #[test]
    fn only_a_page_view_is_one() {
        let with_type = |event_type: &str| {
            let value = format!(
                r#"{{"user_id":"u","event_type":"{event_type}","page_url":"/","event_time":1767225600}}"#
            );
            let activity = decode(Some(&Bytes::from(value)), Origin::default()).unwrap();
            (activity.is_page_view(), activity.is_session_start(), activity.is_session_end())
        };
        assert_eq!(with_type("page_view"), (true, false, false));
        assert_eq!(with_type(r"page\u005fview"), (true, false, false));
        assert_eq!(with_type("session_start"), (false, true, false));
        assert_eq!(with_type("session_end"), (false, false, true));
        assert_eq!(with_type("click"), (false, false, false));
        assert_eq!(with_type("Page_View"), (false, false, false));
        assert_eq!(with_type("page_view "), (false, false, false));
    }

    #[test]
    fn fields_with_and_without_escapes_are_found() {
        let activity = decoded(
            r#" {"event_type":"clic\u006b","user_id":"\ud83d\ude00é","x":0,"page_url":"/\\","event_time":1767225600} "#,
        );
        assert_eq!(activity.user_id(), "😀é");
        assert_eq!(activity.event_type(), "click");
        assert_eq!(activity.page_url(), Some(r"/\"));
        assert_eq!(activity.user_id_bytes(), "😀é".as_bytes());
        assert!(activity.body().starts_with(br#" {"event_type""#));
        let plain = decoded(r#"{"event_type":"é","user_id":-12,"event_time":1767225600}"#);
        assert_eq!((plain.user_id(), plain.event_type(), plain.page_url()), ("-12", "é", None));
    }
}
