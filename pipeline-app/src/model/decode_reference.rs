//! The contract of input records once more, slow and by other means: serde_json for the syntax,
//! chrono for the calendar, wide integers for the numbers. `decode` is compared with it.
//!
//! It shares no code with what it checks, and calls reasons and fields by their names.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a valid record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) user_id: String,
    pub(super) event_type: String,
    pub(super) page_url: Option<String>,
    pub(super) event_time: i64,
}

/// A reason and a field.
pub(super) type Fault = (&'static str, Option<&'static str>);

/// The members of an object in order, repeated ones included.
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

pub(super) fn reference(value: Option<&[u8]>) -> Result<Expected, Fault> {
    let value = value.unwrap_or_default();
    if value.iter().all(|byte| b" \t\r\n".contains(byte)) {
        return Err(("empty", None));
    }
    let text = String::from_utf8(value.to_vec()).map_err(|_| ("bad_utf8", None))?;
    // serde_json skips over a raw value without looking at surrogates and depth.
    let raw: &RawValue = serde_json::from_str(&text).map_err(|_| ("bad_json", None))?;
    if !is_strict(raw, 1) {
        return Err(("bad_json", None));
    }
    let Ok(Members(members)) = serde_json::from_str(&text) else {
        return Err(("not_an_object", None));
    };

    let mut seen = Vec::new();
    for (name, _) in &members {
        for known in ["user_id", "event_type", "page_url", "event_time"] {
            if name == known && seen.contains(&known) {
                return Err(("duplicate_field", Some(known)));
            } else if name == known {
                seen.push(known);
            }
        }
    }
    let find =
        |known: &str| members.iter().find(|(name, _)| name == known).map(|(_, raw)| raw.get());

    let name = Some("user_id");
    let raw = find("user_id").ok_or(("missing_field", name))?;
    let user_id = match content(raw) {
        Some(content) => content,
        None if is_integer(raw) => raw.to_owned(),
        None => return Err(("wrong_type", name)),
    };
    check_text(&user_id, 512, true, name)?;

    let name = Some("event_type");
    let raw = find("event_type").ok_or(("missing_field", name))?;
    let event_type = content(raw).ok_or(("wrong_type", name))?;
    check_text(&event_type, 128, true, name)?;

    let name = Some("page_url");
    let is_view = event_type == "page_view";
    let page_url = match find("page_url") {
        None | Some("null") if is_view => return Err(("missing_field", name)),
        None | Some("null") => None,
        Some(raw) => Some(content(raw).ok_or(("wrong_type", name))?),
    };
    if let Some(page_url) = &page_url {
        check_text(page_url, 2048, is_view, name)?;
    }

    let name = Some("event_time");
    let raw = find("event_time").ok_or(("missing_field", name))?;
    let time = match content(raw) {
        Some(content) => {
            check_text(&content, usize::MAX, true, name)?;
            number(&content).or_else(|| date_time(&content))
        }
        None if raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            number(raw)
        }
        None => return Err(("wrong_type", name)),
    };
    let event_time = time.ok_or(("bad_event_time", name))?;
    Ok(Expected { user_id, event_type, page_url, event_time })
}

/// Whether strings have whole characters only, and nesting ends at 127.
fn is_strict(raw: &RawValue, depth: usize) -> bool {
    let text = raw.get();
    match text.chars().next() {
        Some('"') => content(text).is_some(),
        Some('[') if depth <= 127 => serde_json::from_str::<Vec<&RawValue>>(text)
            .is_ok_and(|items| items.into_iter().all(|item| is_strict(item, depth + 1))),
        Some('{') if depth <= 127 => serde_json::from_str::<Members<'_>>(text)
            .is_ok_and(|Members(items)| items.iter().all(|(_, item)| is_strict(item, depth + 1))),
        Some('[' | '{') | None => false,
        _ => true,
    }
}

/// The content of a string, or nothing if this is none.
fn content(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits == "0" || (!digits.starts_with('0') && is_digits(digits))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_digit())
}

fn check_text(
    text: &str,
    limit: usize,
    needed: bool,
    name: Option<&'static str>,
) -> Result<(), Fault> {
    if needed && text.is_empty() {
        Err(("empty_field", name))
    } else if text.contains('\0') {
        Err(("nul_character", name))
    } else if text.len() > limit {
        Err(("too_long", name))
    } else {
        Ok(())
    }
}

fn number(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    // Six places of the unit are enough for all: what is left out is less than a microsecond.
    let places: u128 = format!("{fraction:0<6}")[..6].parse().ok()?;
    let millionths = whole.checked_mul(1_000_000)? + places;
    let micros = match whole {
        0..100_000_000_000 => millionths,
        100_000_000_000..100_000_000_000_000 => millionths / 1000,
        100_000_000_000_000..100_000_000_000_000_000 => millionths / 1_000_000,
        _ => millionths / 1_000_000_000,
    };
    in_range(DateTime::from_timestamp_micros(i64::try_from(micros).ok()?)?)
}

fn date_time(text: &str) -> Option<i64> {
    let head = text.get(..19)?;
    let fits = |(shape, actual): (char, char)| match shape {
        'd' => actual.is_ascii_digit(),
        'T' => ['T', 't', ' '].contains(&actual),
        _ => actual == shape,
    };
    if !"dddd-dd-ddTdd:dd:dd".chars().zip(head.chars()).all(fits) {
        return None;
    }
    let part = |from: usize, to: usize| head[from..to].parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(part(0, 4)? as i32, part(5, 7)?, part(8, 10)?)?;
    let time: NaiveDateTime = date.and_hms_opt(part(11, 13)?, part(14, 16)?, part(17, 19)?)?;

    // The zone is taken off the end, so that what is left is the fraction.
    let rest = &text[19..];
    let named = [" UTC", "UTC", "Z", "z"].iter().find_map(|zone| rest.strip_suffix(zone));
    let (fraction, minutes) = match (named, rest.find(['+', '-'])) {
        (Some(fraction), _) => (fraction, 0),
        (None, Some(sign)) => (&rest[..sign], offset_minutes(&rest[sign..])?),
        (None, None) => (rest, 0),
    };
    let nanos = match fraction.strip_prefix('.') {
        Some(digits) if is_digits(digits) && digits.len() <= 9 => {
            format!("{digits:0<9}").parse().ok()?
        }
        Some(_) => return None,
        None if fraction.is_empty() => 0,
        None => return None,
    };
    in_range((time + TimeDelta::nanoseconds(nanos) - TimeDelta::minutes(minutes)).and_utc())
}

fn offset_minutes(offset: &str) -> Option<i64> {
    let (sign, digits) = offset.split_at(1);
    let hours = digits.get(..2)?;
    let minutes = match digits.len() {
        2 => "00",
        4 => digits.get(2..)?,
        5 => digits.get(2..)?.strip_prefix(':')?,
        _ => return None,
    };
    if !is_digits(hours) || !is_digits(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (hours < 24 && minutes < 60).then_some(if sign == "-" { -total } else { total })
}

fn in_range(time: DateTime<Utc>) -> Option<i64> {
    (2000..=9999).contains(&time.year()).then(|| time.timestamp_micros())
}
