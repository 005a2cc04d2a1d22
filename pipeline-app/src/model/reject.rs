//! Why a record is unusable: a reason from a fixed list, the field, and a sentence.

use super::event_time::{Timestamp, format_micros};

/// A reason for which a record becomes a dead letter. Of several, the first in the order of
/// [`Reason::ALL`] counts; those from [`Reason::MissingField`] to [`Reason::FutureEventTime`] are
/// looked for field by field, in the order of [`Field::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No value, a value of no bytes, or one of nothing but the white space of JSON.
    Empty,
    /// The value is not UTF-8.
    BadUtf8,
    /// The value is not one JSON text.
    BadJson,
    /// The value is JSON, but no object.
    NotAnObject,
    /// One of the four fields is given twice.
    DuplicateField,
    /// A field is absent.
    MissingField,
    /// A field is of another type than it should be.
    WrongType,
    /// A field is an empty string.
    EmptyField,
    /// A field contains U+0000.
    NulCharacter,
    /// A field is longer than its limit.
    TooLong,
    /// `event_time` is not a time, or not one in range.
    BadEventTime,
    /// `event_time` is further in the future than allowed.
    FutureEventTime,
    /// User code panicked on the record, or a retry budget is spent.
    ProcessingError,
}

impl Reason {
    /// All reasons, in the order in which they are looked for.
    pub const ALL: [Self; 13] = [
        Self::Empty,
        Self::BadUtf8,
        Self::BadJson,
        Self::NotAnObject,
        Self::DuplicateField,
        Self::MissingField,
        Self::WrongType,
        Self::EmptyField,
        Self::NulCharacter,
        Self::TooLong,
        Self::BadEventTime,
        Self::FutureEventTime,
        Self::ProcessingError,
    ];

    /// The name by which outputs call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::BadUtf8 => "bad_utf8",
            Self::BadJson => "bad_json",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateField => "duplicate_field",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::EmptyField => "empty_field",
            Self::NulCharacter => "nul_character",
            Self::TooLong => "too_long",
            Self::BadEventTime => "bad_event_time",
            Self::FutureEventTime => "future_event_time",
            Self::ProcessingError => "processing_error",
        }
    }
}

/// One of the four fields that a record is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `user_id`
    UserId,
    /// `event_type`
    EventType,
    /// `page_url`
    PageUrl,
    /// `event_time`
    EventTime,
}

impl Field {
    /// All fields, in the order in which they are checked.
    pub const ALL: [Self; 4] = [Self::UserId, Self::EventType, Self::PageUrl, Self::EventTime];

    /// Its name in a record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::EventType => "event_type",
            Self::PageUrl => "page_url",
            Self::EventTime => "event_time",
        }
    }
}

/// Why a record is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The reason.
    pub reason: Reason,
    /// The field that is at fault, if it is one.
    pub field: Option<&'static str>,
    /// A sentence for a person: what is wrong, with a short excerpt of the value.
    pub error: String,
}

impl Reject {
    /// The record as a whole is at fault.
    #[cold]
    pub fn record(reason: Reason, error: impl Into<String>) -> Self {
        Self { reason, field: None, error: error.into() }
    }

    /// A field is at fault. The sentence is the name of the field and `predicate`.
    #[cold]
    pub fn field(reason: Reason, field: Field, predicate: impl AsRef<str>) -> Self {
        let error = format!("{} {}", field.name(), predicate.as_ref());
        Self { reason, field: Some(field.name()), error }
    }

    /// The time of the event is in the future: see [`is_future`].
    #[cold]
    pub fn future(event_time: Timestamp, base: Timestamp) -> Self {
        let (event_time, base) = (format_micros(event_time), format_micros(base));
        let predicate = format!("{event_time} is too far in the future: the record is of {base}");
        Self::field(Reason::FutureEventTime, Field::EventTime, predicate)
    }

    /// The record could not be processed.
    #[cold]
    pub fn processing_error(error: impl Into<String>) -> Self {
        Self::record(Reason::ProcessingError, error)
    }
}

/// Whether an event is further in the future than `max_future` microseconds past `base`, the
/// record's own timestamp or what stands in for it. Exactly at the limit it is not.
///
/// This is the last check of a record, apart from the others because `base` is a matter of where a
/// record comes from, not of what it says.
pub const fn is_future(event_time: Timestamp, base: Timestamp, max_future: i64) -> bool {
    event_time > base.saturating_add(max_future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_outputs_in_order() {
        let names = Reason::ALL.map(Reason::as_str).join(" ");
        assert_eq!(
            names,
            "empty bad_utf8 bad_json not_an_object duplicate_field missing_field wrong_type \
             empty_field nul_character too_long bad_event_time future_event_time processing_error"
        );
        assert!(Reason::ALL.is_sorted());
        let fields = Field::ALL.map(Field::name).join(" ");
        assert_eq!(fields, "user_id event_type page_url event_time");
        assert_eq!(Field::ALL.map(|field| field as usize), [0, 1, 2, 3]);
    }

    #[test]
    fn the_future_starts_after_the_limit() {
        assert!(!is_future(3_600, 0, 3_600));
        assert!(is_future(3_601, 0, 3_600));
        assert!(!is_future(-5, 0, 3_600));
        assert!(!is_future(i64::MAX, i64::MAX - 1, i64::MAX));
        let reject = Reject::future(1_767_225_600_000_000, 1_767_222_000_000_000);
        assert_eq!((reject.reason, reject.field), (Reason::FutureEventTime, Some("event_time")));
        assert_eq!(
            reject.error,
            "event_time 2026-01-01T00:00:00.000000Z is too far in the future: \
             the record is of 2025-12-31T23:00:00.000000Z"
        );
    }
}
