//! Records that cannot be used, one for every way in which a record can be wrong.

use std::ops::Range;

use super::pages::Pages;
use super::record::{Event, Extra};
use super::time_text::{TimeForm, TimeWriter};

/// A year of 365 days, in milliseconds.
const YEAR_MS: i64 = 365 * 86_400_000;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// No bytes at all.
    NoBytes,
    /// White space only.
    Blank,
    /// A byte that is not UTF-8, in the page.
    InvalidUtf8,
    /// The second half is missing.
    Truncated,
    /// Something follows the object.
    TrailingText,
    /// `NaN` for a number.
    NotANumber,
    /// Half of a surrogate pair, escaped.
    LoneSurrogate,
    /// Arrays in arrays, 200 deep.
    TooDeep,
    /// The object stands in an array.
    InArray,
    /// A string.
    OnlyText,
    /// `user_id` twice.
    TwoUsers,
    /// `event_time` twice, once with an escape in its name.
    TwoTimes,
    /// No `user_id`.
    NoUser,
    /// No `event_type`.
    NoType,
    /// No `event_time`.
    NoTime,
    /// `user_id` is a number with a fraction.
    UserFraction,
    /// `user_id` is `null`.
    UserNull,
    /// `event_type` is a number.
    TypeNumber,
    /// `page_url` is an array.
    PageArray,
    /// `event_time` is `true`.
    TimeBoolean,
    /// `user_id` is empty.
    EmptyUser,
    /// `event_type` is empty.
    EmptyType,
    /// `page_url` of a page view is empty.
    EmptyPage,
    /// U+0000 in `user_id`.
    NulInUser,
    /// U+0000 in `page_url`.
    NulInPage,
    /// `event_type` has 130 bytes.
    LongType,
    /// `event_time` is a word.
    TimeWord,
    /// `event_time` is a day that does not exist.
    NoSuchDay,
    /// `event_time` has 60 seconds.
    NoSuchSecond,
    /// `event_time` is in 1999.
    LastCentury,
    /// `event_time` is a day ahead of the arrival.
    Future,
}

impl Flaw {
    /// All of them. One is drawn from these for a malformed record, each with the same chance.
    pub const ALL: [Self; 31] = [
        Self::NoBytes,
        Self::Blank,
        Self::InvalidUtf8,
        Self::Truncated,
        Self::TrailingText,
        Self::NotANumber,
        Self::LoneSurrogate,
        Self::TooDeep,
        Self::InArray,
        Self::OnlyText,
        Self::TwoUsers,
        Self::TwoTimes,
        Self::NoUser,
        Self::NoType,
        Self::NoTime,
        Self::UserFraction,
        Self::UserNull,
        Self::TypeNumber,
        Self::PageArray,
        Self::TimeBoolean,
        Self::EmptyUser,
        Self::EmptyType,
        Self::EmptyPage,
        Self::NulInUser,
        Self::NulInPage,
        Self::LongType,
        Self::TimeWord,
        Self::NoSuchDay,
        Self::NoSuchSecond,
        Self::LastCentury,
        Self::Future,
    ];

    /// The reason with which the record becomes a dead letter.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoBytes | Self::Blank => "empty",
            Self::InvalidUtf8 => "bad_utf8",
            Self::Truncated
            | Self::TrailingText
            | Self::NotANumber
            | Self::LoneSurrogate
            | Self::TooDeep => "bad_json",
            Self::InArray | Self::OnlyText => "not_an_object",
            Self::TwoUsers | Self::TwoTimes => "duplicate_field",
            Self::NoUser | Self::NoType | Self::NoTime => "missing_field",
            Self::UserFraction
            | Self::UserNull
            | Self::TypeNumber
            | Self::PageArray
            | Self::TimeBoolean => "wrong_type",
            Self::EmptyUser | Self::EmptyType | Self::EmptyPage => "empty_field",
            Self::NulInUser | Self::NulInPage => "nul_character",
            Self::LongType => "too_long",
            Self::TimeWord | Self::NoSuchDay | Self::NoSuchSecond | Self::LastCentury => {
                "bad_event_time"
            }
            Self::Future => "future_event_time",
        }
    }
}

/// Appends `event` with a flaw. Gives the place of the user's identifier in `out`; an empty range
/// if the flaw leaves none.
#[cold]
pub(super) fn write(
    flaw: Flaw,
    event: &Event,
    arrival: i64,
    (pages, times): (&Pages, &mut TimeWriter),
    out: &mut Vec<u8>,
) -> Range<u32> {
    let begin = out.len();
    let none = begin as u32..begin as u32;
    // The four values as they should be.
    // A thousand years: later than the limit of a file, too, which is counted from the day on which
    // the file was written.
    let time = if flaw == Flaw::Future { arrival / 1_000 + 1_000 * YEAR_MS } else { event.time };
    let event = Event { time, form: TimeForm::Usual, extra: Extra::NONE, ..*event };
    let (mut time, mut user) = (Vec::new(), Vec::new());
    times.write(event.time, event.form, &mut time);
    event.write_user(&mut user);
    let page = [b"\"", pages.address(event.page.unwrap_or_default()), b"\""].concat();
    let kind = format!("\"{}\"", event.event_type.name());
    let long = format!("\"{}\"", "click_".repeat(22));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));

    let (time, user, page, kind) = (&time[..], &user[..], &page[..], kind.as_bytes());
    let object = |time: &[u8], user: &[u8], page: &[u8], kind: &[u8], out: &mut Vec<u8>| {
        let mut before = b'{';
        let fields = [("event_time", time), ("user_id", user), ("page_url", page)];
        let mut key = none.clone();
        for (name, value) in fields.into_iter().chain([("event_type", kind)]) {
            if !value.is_empty() {
                out.push(before);
                out.extend_from_slice(format!("\"{name}\":").as_bytes());
                if name == "user_id" {
                    let quote = u32::from(value.starts_with(b"\""));
                    let begin = out.len() as u32;
                    key = begin + quote..begin + value.len() as u32 - quote;
                }
                out.extend_from_slice(value);
                before = b',';
            }
        }
        out.push(b'}');
        key
    };
    match flaw {
        Flaw::NoBytes => none,
        Flaw::Blank => {
            out.extend_from_slice(b" \t\r\n");
            none
        }
        Flaw::OnlyText => {
            out.extend_from_slice(page);
            none
        }
        Flaw::InvalidUtf8 => object(time, user, b"\"/products/\xff\"", kind, out),
        Flaw::LoneSurrogate => object(time, user, br#""/search?q=\ud83d""#, kind, out),
        Flaw::PageArray => object(time, user, b"[\"/products\"]", kind, out),
        Flaw::EmptyPage => object(time, user, b"\"\"", b"\"page_view\"", out),
        Flaw::NulInPage => object(time, user, br#""/products/\u0000""#, kind, out),
        Flaw::NoUser => object(time, b"", page, kind, out),
        Flaw::NoType => object(time, user, page, b"", out),
        Flaw::NoTime => object(b"", user, page, kind, out),
        Flaw::TypeNumber => object(time, user, page, b"4", out),
        Flaw::EmptyType => object(time, user, page, b"\"\"", out),
        Flaw::LongType => object(time, user, page, long.as_bytes(), out),
        Flaw::TimeBoolean => object(b"true", user, page, kind, out),
        Flaw::TimeWord => object(b"\"yesterday\"", user, page, kind, out),
        Flaw::NoSuchDay => object(b"\"2026-02-30T12:00:00Z\"", user, page, kind, out),
        Flaw::NoSuchSecond => object(b"\"2026-01-01T12:00:60Z\"", user, page, kind, out),
        Flaw::LastCentury => object(b"\"1999-12-31T23:59:59Z\"", user, page, kind, out),
        Flaw::Future => object(time, user, page, kind, out),
        Flaw::UserFraction | Flaw::UserNull | Flaw::EmptyUser | Flaw::NulInUser => {
            let user: &[u8] = match flaw {
                Flaw::UserFraction => b"17.0",
                Flaw::UserNull => b"null",
                Flaw::EmptyUser => b"\"\"",
                _ => br#""user-\u0000""#,
            };
            object(time, user, page, kind, out);
            none
        }
        Flaw::Truncated => {
            object(time, user, page, kind, out);
            // Amid the time, wherever the rest would end.
            out.truncate(begin + 30);
            none
        }
        Flaw::InArray => {
            out.push(b'[');
            let key = object(time, user, page, kind, out);
            out.push(b']');
            key
        }
        Flaw::TrailingText | Flaw::NotANumber | Flaw::TooDeep | Flaw::TwoUsers | Flaw::TwoTimes => {
            let key = object(time, user, page, kind, out);
            let more: [&[u8]; 2] = match flaw {
                Flaw::TrailingText => [b"} {", b""],
                Flaw::NotANumber => [b",\"value\":", b"NaN"],
                Flaw::TooDeep => [b",\"value\":", deep.as_bytes()],
                Flaw::TwoUsers => [b",\"user_id\":", user],
                _ => [br#","event\u005ftime":"#, time],
            };
            out.pop();
            out.extend_from_slice(&more.concat());
            out.push(b'}');
            key
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
    use serde_json::Value;

    use super::super::visits::EventType;
    use super::*;

    const ARRIVAL: i64 = 1_767_225_600_000_000;

    /// The fields of an object in order, doubles included.
    struct Fields(Vec<(String, Value)>);

    impl<'de> Deserialize<'de> for Fields {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Pairs;
            impl<'de> Visitor<'de> for Pairs {
                type Value = Fields;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Fields(pairs))
                }
            }
            from.deserialize_map(Pairs)
        }
    }

    /// Why the format refuses a record: written down once more, from its description.
    fn refused(bytes: &[u8]) -> Option<&'static str> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Some("empty");
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return Some("bad_utf8") };
        let Ok(value) = serde_json::from_str::<Value>(text) else { return Some("bad_json") };
        if !value.is_object() {
            return Some("not_an_object");
        }
        let Fields(fields) = serde_json::from_str(text).expect("an object");
        let names = ["user_id", "event_type", "page_url", "event_time"];
        let count = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
        if names.into_iter().any(|name| count(name) > 1) {
            return Some("duplicate_field");
        }
        names.into_iter().find_map(|name| match (name, &value[name]) {
            (_, Value::Null) if count(name) == 0 => Some("missing_field"),
            ("page_url", Value::Null) => None,
            ("event_time", Value::String(text)) => refused_time(text),
            ("event_time" | "user_id", Value::Number(number)) => {
                (!number.is_u64()).then_some("wrong_type")
            }
            ("page_url", Value::String(text)) if text.is_empty() => {
                (value["event_type"] == "page_view").then_some("empty_field")
            }
            (_, Value::String(text)) if text.is_empty() => Some("empty_field"),
            (_, Value::String(text)) if text.contains('\0') => Some("nul_character"),
            (_, Value::String(text)) if text.len() > 128 => Some("too_long"),
            (_, Value::String(_)) => None,
            _ => Some("wrong_type"),
        })
    }

    /// For times in the usual form only, around the time of arrival.
    fn refused_time(text: &str) -> Option<&'static str> {
        let good = text.len() == 24 && &text[10..11] == "T" && &text[17..19] < "60";
        match (good, text.get(..10).unwrap_or_default()) {
            (true, "2025-12-31" | "2026-01-01") => None,
            (true, "3025-05-04") => Some("future_event_time"),
            _ => Some("bad_event_time"),
        }
    }

    #[test]
    fn every_flaw_has_the_reason_it_says_whatever_the_event() {
        let pages = Pages::new(20);
        for event_type in [EventType::PageView, EventType::SessionEnd] {
            for (user, bare, page) in [(7, false, Some(8)), (4, true, Some(3)), (4, false, None)] {
                let event = Event {
                    time: ARRIVAL / 1_000 - 40,
                    form: TimeForm::Space,
                    user,
                    bare,
                    page,
                    event_type,
                    extra: Extra::draw(2),
                };
                for flaw in Flaw::ALL {
                    let mut out = b"before".to_vec();
                    let tools = (&pages, &mut TimeWriter::new());
                    let key = write(flaw, &event, ARRIVAL, tools, &mut out);
                    let value = &out[6..];
                    let shown = String::from_utf8_lossy(value);
                    assert_eq!(refused(value), Some(flaw.reason()), "{flaw:?}: {shown}");
                    let key = &out[key.start as usize..key.end as usize];
                    let expected: &[u8] = if user == 4 { b"4" } else { b"user-7" };
                    assert!(key.is_empty() || key == expected, "{flaw:?}: {shown}");
                    let quoted = [b"\"user_id\":", expected].concat();
                    let bare = shown.replace("\"user_id\":\"", "\"user_id\":");
                    let names_user = bare.as_bytes().windows(quoted.len()).any(|w| w == quoted);
                    assert_eq!(!key.is_empty(), names_user, "{flaw:?}: {shown}");
                }
            }
        }
    }

    #[test]
    fn all_reasons_but_a_processing_error_occur() {
        let mut reasons: Vec<&str> = Flaw::ALL.into_iter().map(Flaw::reason).collect();
        reasons.dedup();
        assert_eq!(reasons.len(), 12);
    }
}
