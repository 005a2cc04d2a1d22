//! From a record's bytes to a valid event or the first dead-letter reason that applies.

use super::json::{self, Json, Member};
use super::time;

/// The four fields, in the order in which they are checked.
pub const FIELDS: [&str; 4] = ["user_id", "event_type", "page_url", "event_time"];

/// Longest `user_id` in bytes.
pub const MAX_USER_ID: usize = 512;
/// Longest `event_type` in bytes.
pub const MAX_EVENT_TYPE: usize = 128;
/// Longest `page_url` in bytes.
pub const MAX_PAGE_URL: usize = 2048;

/// A valid event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Event time.
    pub event_time: i64,
    /// User; an integer as written.
    pub user_id: String,
    /// Type of the event.
    pub event_type: String,
    /// Page; `None` if null or absent.
    pub page_url: Option<String>,
    /// All members of the object in order: unescaped name, value as written.
    pub members: Vec<(String, String)>,
}

/// What a record turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A valid event.
    Valid(Event),
    /// A dead letter.
    Dead {
        /// The first reason that applies.
        reason: &'static str,
        /// The field it is about. For `duplicate_field` the one whose repetition comes first.
        field: Option<&'static str>,
    },
}

/// A reason, and the field if there is one.
type Reason = (&'static str, Option<&'static str>);

/// Decodes one payload. `latest` is the highest event time that is not too far in the future.
pub fn decode(value: Option<&[u8]>, latest: Option<i64>) -> Decoded {
    match valid_event(value, latest) {
        Ok(event) => Decoded::Valid(event),
        Err((reason, field)) => Decoded::Dead { reason, field },
    }
}

fn valid_event(value: Option<&[u8]>, latest: Option<i64>) -> Result<Event, Reason> {
    let bytes = value.unwrap_or_default();
    if bytes.iter().all(|&byte| json::is_white_space(byte)) {
        return Err(("empty", None));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(("bad_utf8", None)) };
    let Ok(value) = json::parse(text) else { return Err(("bad_json", None)) };
    let Json::Object(members) = value else { return Err(("not_an_object", None)) };
    for (i, member) in members.iter().enumerate() {
        let known = FIELDS.into_iter().find(|field| member.name == *field);
        if known.is_some() && members[..i].iter().any(|before| before.name == member.name) {
            return Err(("duplicate_field", known));
        }
    }

    let user_id = user_id(find(&members, "user_id"))?;
    let event_type = event_type(find(&members, "event_type"))?;
    let page_url = page_url(find(&members, "page_url"), &event_type)?;
    let event_time = event_time(find(&members, "event_time"), latest)?;
    let members = members
        .into_iter()
        .map(|member| (member.name, text[member.start..member.end].to_owned()))
        .collect();
    Ok(Event { event_time, user_id, event_type, page_url, members })
}

fn find<'a>(members: &'a [Member], name: &str) -> Option<&'a Json> {
    members.iter().find(|member| member.name == name).map(|member| &member.value)
}

/// A non-empty string, or an integer `-?(0|[1-9][0-9]*)` taken as written.
fn user_id(value: Option<&Json>) -> Result<String, Reason> {
    let field = Some("user_id");
    match value {
        None => Err(("missing_field", field)),
        Some(Json::Text(text)) => non_empty(text, MAX_USER_ID, field),
        // JSON has no other integers than those: no plus sign, no leading zeros.
        Some(Json::Number(number)) if !number.contains(['.', 'e', 'E']) => {
            non_empty(number, MAX_USER_ID, field)
        }
        Some(_) => Err(("wrong_type", field)),
    }
}

/// A non-empty string.
fn event_type(value: Option<&Json>) -> Result<String, Reason> {
    let field = Some("event_type");
    match value {
        None => Err(("missing_field", field)),
        Some(Json::Text(text)) => non_empty(text, MAX_EVENT_TYPE, field),
        Some(_) => Err(("wrong_type", field)),
    }
}

/// A string, empty, null or absent; for `page_view` it must be non-empty.
fn page_url(value: Option<&Json>, event_type: &str) -> Result<Option<String>, Reason> {
    let field = Some("page_url");
    let is_view = event_type == "page_view";
    match value {
        None | Some(Json::Null) if is_view => Err(("missing_field", field)),
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(text)) if text.is_empty() && !is_view => Ok(Some(String::new())),
        Some(Json::Text(text)) => non_empty(text, MAX_PAGE_URL, field).map(Some),
        Some(_) => Err(("wrong_type", field)),
    }
}

/// A date and time, or a number, or a string that is one; not too far in the future.
fn event_time(value: Option<&Json>, latest: Option<i64>) -> Result<i64, Reason> {
    let field = Some("event_time");
    let time = match value {
        None => return Err(("missing_field", field)),
        Some(Json::Text(text)) if text.is_empty() => return Err(("empty_field", field)),
        Some(Json::Text(text)) if text.contains('\0') => return Err(("nul_character", field)),
        Some(Json::Text(text)) => time::parse_text(text).or_else(|| time::parse_number(text)),
        Some(Json::Number(number)) => time::parse_number(number),
        Some(_) => return Err(("wrong_type", field)),
    };
    let Some(time) = time else { return Err(("bad_event_time", field)) };
    match latest {
        Some(latest) if time > latest => Err(("future_event_time", field)),
        _ => Ok(time),
    }
}

fn non_empty(text: &str, max: usize, field: Option<&'static str>) -> Result<String, Reason> {
    if text.is_empty() {
        Err(("empty_field", field))
    } else if text.contains('\0') {
        Err(("nul_character", field))
    } else if text.len() > max {
        Err(("too_long", field))
    } else {
        Ok(text.to_owned())
    }
}
