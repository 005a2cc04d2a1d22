//! From a record to an [`Activity`], or to the reason why there is none.
//!
//! The checks are made in the order of [`Reason::ALL`]; those of fields field by field, in the
//! order of [`Field::ALL`]. Where the rules leave room:
//! - white space is that of JSON: space, tab, line feed, carriage return;
//! - of two fields given twice, the one whose repetition comes first is named;
//! - the rules for all fields hold for `event_time` too: an empty string is [`Reason::EmptyField`],
//!   one with U+0000 [`Reason::NulCharacter`]; it has no limit of length;
//! - for a page view, `page_url` must be there: absent or `null` it is [`Reason::MissingField`],
//!   empty [`Reason::EmptyField`].

use bytes::Bytes;

use super::activity::{Activity, EventKind, Fields, Origin, text_at};
use super::canonical;
use super::event_time::{self, Timestamp};
use super::json::{self, Kind, Member, Span};
use super::json_text::{excerpt, unescape};
use super::name::Name;
use super::reject::{Field, Reason, Reject};

/// How many bytes of UTF-8 a field may have.
pub(super) const fn limit(field: Field) -> usize {
    match field {
        Field::UserId => 512,
        Field::EventType => 128,
        Field::PageUrl => 2048,
        Field::EventTime => usize::MAX,
    }
}

/// Reads one record. `value` is what it says, `origin` where it comes from.
pub fn decode(value: Option<&Bytes>, origin: Origin) -> Result<Activity, Reject> {
    // Cloned first, so that the processor can do that while it reads.
    let body = value.ok_or_else(empty)?.clone();
    match canonical::read(&body) {
        Some((fields, event_time)) => {
            Ok(Activity::new(body, Vec::new(), origin, event_time, fields))
        }
        None => decode_any(body, origin),
    }
}

/// Reads a record of any form.
#[inline(never)]
fn decode_any(body: Bytes, origin: Origin) -> Result<Activity, Reject> {
    if body.iter().copied().all(json::is_white_space) {
        return Err(empty());
    }
    let mut record =
        Record { body: &body, values: [None; 5], has_reserved: false, unescaped: Vec::new() };
    record.read()?;

    let user_id = record.user_id()?;
    let (event_type, kind) = record.event_type()?;
    let page_url = record.page_url(kind)?;
    let event_time = record.event_time()?;

    let Record { has_reserved, unescaped, .. } = record;
    let fields = Fields { user_id, page_url, event_type, kind, has_reserved };
    Ok(Activity::new(body, unescaped, origin, event_time, fields))
}

/// A value as written.
#[derive(Clone, Copy)]
struct Value {
    span: Span,
    kind: Kind,
}

/// The members of a record that matter, not yet checked.
struct Record<'a> {
    body: &'a [u8],
    /// In the order of [`Field::ALL`], and any other value.
    values: [Option<Value>; 5],
    has_reserved: bool,
    unescaped: Vec<u8>,
}

impl<'a> Record<'a> {
    /// Finds the values, and checks all that concerns the record as a whole.
    fn read(&mut self) -> Result<(), Reject> {
        let Self { body, values, has_reserved, .. } = self;
        let body: &[u8] = body;
        let mut duplicate = None;
        let visit = |Member { key, key_is_escaped, value, kind }: Member| {
            let name = if key_is_escaped {
                Name::of(&unescape(key.inner().of(body)))
            } else {
                Name::within(body, key.inner())
            };
            *has_reserved |= name.is_reserved();
            let place = name.place();
            let before = values[place].replace(Value { span: value, kind });
            if before.is_some() && duplicate.is_none() {
                duplicate = Field::ALL.get(place);
            }
        };
        let scanned = json::scan_bytes(body, visit);
        // Bytes that are no text come first, whatever else is wrong with them.
        if !matches!(scanned, Ok((_, true))) && std::str::from_utf8(body).is_err() {
            return Err(bad_utf8(body));
        }
        let (kind, _) = scanned.map_err(|error| bad_json(body, error))?;
        if kind != Kind::Object {
            return Err(not_an_object(body));
        }
        if let Some(field) = duplicate {
            return Err(Reject::field(Reason::DuplicateField, *field, "is given more than once"));
        }
        Ok(())
    }

    fn user_id(&mut self) -> Result<Span, Reject> {
        let value = self.required(Field::UserId)?;
        match value.kind {
            Kind::PlainString | Kind::EscapedString => self.string(Field::UserId, value, 1),
            Kind::Number if is_integer(value.span.of(self.body)) => {
                check_length(Field::UserId, value.span.of(self.body))?;
                Ok(value.span)
            }
            _ => Err(self.wrong_type(Field::UserId, value, "a string or an integer")),
        }
    }

    fn event_type(&mut self) -> Result<(Span, EventKind), Reject> {
        let value = self.required(Field::EventType)?;
        if !value.kind.is_string() {
            return Err(self.wrong_type(Field::EventType, value, "a string"));
        }
        let event_type = self.string(Field::EventType, value, 1)?;
        Ok((event_type, EventKind::of(self.text(event_type))))
    }

    fn page_url(&mut self, kind: EventKind) -> Result<Option<Span>, Reject> {
        let field = Field::PageUrl;
        let is_needed = kind == EventKind::PageView;
        let value = match self.values[field as usize] {
            Some(value) if value.kind != Kind::Null => value,
            _ if is_needed => {
                let predicate = "is missing, and a page_view must have one";
                return Err(Reject::field(Reason::MissingField, field, predicate));
            }
            _ => return Ok(None),
        };
        if !value.kind.is_string() {
            return Err(self.wrong_type(field, value, "a string or null"));
        }
        self.string(field, value, usize::from(is_needed)).map(Some)
    }

    fn event_time(&mut self) -> Result<Timestamp, Reject> {
        let field = Field::EventTime;
        let value = self.required(field)?;
        let parsed = match value.kind {
            Kind::PlainString | Kind::EscapedString => {
                let text = self.string(field, value, 1)?;
                event_time::parse_text(self.text(text))
            }
            Kind::Number => event_time::parse_number(value.span.of(self.body)),
            _ => return Err(self.wrong_type(field, value, "a string or a number")),
        };
        parsed.map_err(|error| {
            let predicate = format!("is {}, which is no valid time: {error}", self.shown(value));
            Reject::field(Reason::BadEventTime, field, predicate)
        })
    }

    #[inline]
    fn required(&self, field: Field) -> Result<Value, Reject> {
        self.values[field as usize]
            .ok_or_else(|| Reject::field(Reason::MissingField, field, "is missing"))
    }

    /// Where the content of a string is, which has `least` bytes, no U+0000, and keeps its limit.
    #[inline]
    fn string(&mut self, field: Field, value: Value, least: usize) -> Result<Span, Reject> {
        let content = value.span.inner();
        let is_good = (least..=limit(field)).contains(&content.range().len());
        if value.kind == Kind::PlainString && is_good {
            return Ok(content);
        }
        self.unusual_string(field, value, least)
    }

    /// A string with escapes, or with a fault.
    #[inline(never)]
    fn unusual_string(&mut self, field: Field, value: Value, least: usize) -> Result<Span, Reject> {
        let span = self.content(value);
        let text = self.text(span);
        if text.len() < least {
            return Err(Reject::field(Reason::EmptyField, field, "is an empty string"));
        }
        // Only an escape can stand for it.
        if value.kind == Kind::EscapedString && text.contains(&0) {
            let predicate = format!("contains the character U+0000: {}", self.shown(value));
            return Err(Reject::field(Reason::NulCharacter, field, predicate));
        }
        check_length(field, text)?;
        Ok(span)
    }

    /// Where the content of a string is. Without escapes it is in the record as it is, and else it
    /// is added to the unescaped texts, whose positions follow those of the record.
    #[inline]
    fn content(&mut self, value: Value) -> Span {
        let written = value.span.inner();
        if value.kind == Kind::PlainString {
            return written;
        }
        let start = self.body.len() + self.unescaped.len();
        let content = unescape(written.of(self.body));
        self.unescaped.extend_from_slice(&content);
        Span::new(start, start + content.len())
    }

    #[inline]
    fn text(&self, span: Span) -> &[u8] {
        text_at(span, self.body, &self.unescaped)
    }

    #[cold]
    fn wrong_type(&self, field: Field, value: Value, expected: &str) -> Reject {
        let predicate = format!("must be {expected}, and is {}", self.shown(value));
        Reject::field(Reason::WrongType, field, predicate)
    }

    fn shown(&self, value: Value) -> String {
        excerpt(value.span.of(self.body))
    }
}

/// Whether a JSON number is written without a fraction and an exponent.
fn is_integer(number: &[u8]) -> bool {
    !number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

#[inline]
fn check_length(field: Field, text: &[u8]) -> Result<(), Reject> {
    if text.len() > limit(field) { Err(too_long(field, text)) } else { Ok(()) }
}

#[cold]
fn too_long(field: Field, text: &[u8]) -> Reject {
    let (length, limit, start) = (text.len(), limit(field), excerpt(text));
    let predicate = format!("has {length} bytes, more than the {limit} allowed: {start}");
    Reject::field(Reason::TooLong, field, predicate)
}

#[cold]
fn empty() -> Reject {
    Reject::record(Reason::Empty, "the record has no value")
}

#[cold]
fn bad_utf8(value: &[u8]) -> Reject {
    let at = value.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
    let near = value[at..].iter().take(4).fold(String::new(), |near, byte| {
        format!("{near}{}{byte:02x}", if near.is_empty() { "" } else { " " })
    });
    let error = format!("the value is not UTF-8: byte {at} and those after it are {near}");
    Reject::record(Reason::BadUtf8, error)
}

#[cold]
fn bad_json(body: &[u8], error: json::JsonError) -> Reject {
    let near = excerpt(body.get(error.at..).unwrap_or_default());
    let near = if near.is_empty() { near } else { format!(": {near}") };
    Reject::record(Reason::BadJson, format!("the value is not JSON, {error}{near}"))
}

#[cold]
fn not_an_object(body: &[u8]) -> Reject {
    let shown = excerpt(body.trim_ascii());
    Reject::record(Reason::NotAnObject, format!("the value is no JSON object: {shown}"))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
