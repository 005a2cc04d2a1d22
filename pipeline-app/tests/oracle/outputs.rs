//! The enriched record: its page category, and whether one that was written is right.

use super::AcceptedRow;
use super::json::{self, Json};
use super::time;

/// The three fields the job adds; they replace all of the same name.
pub const ADDED_FIELDS: [&str; 3] = ["processing_time", "event_date", "page_category"];

/// `page_category`: null if the page is null, absent or empty; else without a leading
/// `scheme://authority`, cut at the first `?` or `#`, without leading slashes, up to the next slash;
/// if that is empty, `home`.
pub fn page_category(page_url: Option<&str>) -> Option<String> {
    let page = page_url.filter(|page| !page.is_empty())?;
    let page = without_scheme_and_authority(page);
    let page = page.split(['?', '#']).next().unwrap_or_default();
    let page = page.trim_start_matches('/');
    let category = page.split('/').next().unwrap_or_default();
    Some(if category.is_empty() { "home" } else { category }.to_owned())
}

/// A scheme is a letter, then letters, digits, `+`, `-`, `.`; an authority ends before the next
/// `/`, `?` or `#` (RFC 3986).
fn without_scheme_and_authority(page: &str) -> &str {
    let Some((scheme, rest)) = page.split_once("://") else { return page };
    let letter_first = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if !letter_first || !scheme.chars().all(in_scheme) {
        return page;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    &rest[end..]
}

/// What is wrong with an enriched record that was written for `row`; `None` if nothing is.
///
/// Values are compared as JSON, numbers as written. The order of the original members counts, white
/// space, the way of escaping and the place of the added fields do not.
pub fn enriched_difference(row: &AcceptedRow, written: &str) -> Option<String> {
    let members = match json::parse(written) {
        Ok(Json::Object(members)) => members,
        Ok(_) => return Some("it is not an object".to_owned()),
        Err(error) => return Some(format!("it is not JSON: {error}")),
    };
    let (added, kept): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| ADDED_FIELDS.contains(&member.name.as_str()));

    let mut original = row.members.clone();
    original.retain(|(name, _)| !ADDED_FIELDS.contains(&name.as_str()));
    if kept.len() != original.len() {
        return Some(format!("it has {} original members, not {}", kept.len(), original.len()));
    }
    for (member, (name, text)) in kept.iter().zip(&original) {
        if &member.name != name || Ok(&member.value) != json::parse(text).as_ref() {
            let start = member.start;
            let value = &written[start..member.end];
            return Some(format!("{name}: {text} has become {}: {value}", member.name));
        }
    }

    for field in ADDED_FIELDS {
        let values: Vec<_> = added.iter().filter(|member| member.name == field).collect();
        let [member] = values[..] else {
            return Some(format!("it has {} fields {field}, not 1", values.len()));
        };
        let right = match field {
            "event_date" => member.value == Json::Text(row.event_date.clone()),
            "page_category" => match &row.page_category {
                None => member.value == Json::Null,
                Some(category) => member.value == Json::Text(category.clone()),
            },
            _ => matches!(&member.value, Json::Text(text) if is_processing_time(text)),
        };
        if !right {
            return Some(format!("{field} is {:?}", member.value));
        }
    }
    None
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`
fn is_processing_time(text: &str) -> bool {
    text.len() == 24
        && text.as_bytes()[10] == b'T'
        && text.ends_with('Z')
        && time::parse_text(text).is_some()
}
