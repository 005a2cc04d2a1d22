//! A record's text: one JSON object with the four fields in their usual order, and perhaps more.

use std::ops::Range;

use super::pages::Pages;
use super::rng;
use super::time_text::{TimeForm, TimeWriter, write_number};
use super::visits::EventType;

/// Whether a user has no name but a number for an identifier: one in sixteen, in all splits.
#[inline]
const fn is_numbered(user: u32) -> bool {
    user.wrapping_mul(0x9E37_79B9) >> 28 == 7
}

/// What a visit may say of the device, after the four fields; the last is nothing.
const DEVICES: [&str; 5] = [
    r#","device":"ios""#,
    r#","device":"android""#,
    r#","device":"web""#,
    r#","device":"tablet""#,
    "",
];
/// What a visit may say of where the user came from; the last is nothing.
const REFERRERS: [&str; 5] = [
    r#","referrer":"search""#,
    r#","referrer":"email""#,
    r#","referrer":"social""#,
    r#","referrer":"direct""#,
    "",
];

/// Which fields there are beyond the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extra {
    device: u8,
    referrer: u8,
}

impl Extra {
    pub(super) const NONE: Self = Self { device: 4, referrer: 4 };

    /// One field or both.
    pub(super) const fn draw(bits: u32) -> Self {
        let (device, referrer) = ((bits & 3) as u8, (bits >> 2 & 3) as u8);
        match rng::below(bits, 3) {
            0 => Self { device, referrer: 4 },
            1 => Self { device: 4, referrer },
            _ => Self { device, referrer },
        }
    }
}

/// An event, and how it is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Milliseconds since 1970.
    pub(super) time: i64,
    pub(super) form: TimeForm,
    pub(super) user: u32,
    /// Whether an identifier that is a number is written without quotes.
    pub(super) bare: bool,
    /// `null` if there is none.
    pub(super) page: Option<u32>,
    pub(super) event_type: EventType,
    pub(super) extra: Extra,
}

impl Event {
    /// Appends the record; gives the place of the user's identifier in `out`.
    #[inline]
    pub(super) fn write(
        &self,
        pages: &Pages,
        times: &mut TimeWriter,
        out: &mut Vec<u8>,
    ) -> Range<u32> {
        out.extend_from_slice(br#"{"event_time":"#);
        times.write(self.time, self.form, out);
        out.extend_from_slice(br#","user_id":"#);
        let key = self.write_user(out);
        match self.page {
            Some(page) => {
                out.extend_from_slice(br#","page_url":""#);
                out.extend_from_slice(pages.address(page));
                out.extend_from_slice(br#"","event_type":""#);
            }
            None => out.extend_from_slice(br#","page_url":null,"event_type":""#),
        }
        out.extend_from_slice(self.event_type.name().as_bytes());
        out.push(b'"');
        if self.extra != Extra::NONE {
            out.extend_from_slice(REFERRERS[usize::from(self.extra.referrer)].as_bytes());
            out.extend_from_slice(DEVICES[usize::from(self.extra.device)].as_bytes());
        }
        out.push(b'}');
        key
    }

    /// Appends the user's identifier as a JSON value; gives the place of the identifier itself.
    #[inline]
    pub(super) fn write_user(&self, out: &mut Vec<u8>) -> Range<u32> {
        let numbered = is_numbered(self.user);
        let quoted = !(numbered && self.bare);
        if quoted {
            out.push(b'"');
        }
        let begin = out.len() as u32;
        if !numbered {
            out.extend_from_slice(b"user-");
        }
        write_number(u64::from(self.user), out);
        let end = out.len() as u32;
        if quoted {
            out.push(b'"');
        }
        begin..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Event = Event {
        time: 1_767_225_600_000,
        form: TimeForm::Usual,
        user: 7,
        bare: false,
        page: Some(1),
        event_type: EventType::Click,
        extra: Extra::NONE,
    };

    /// The record and its key.
    fn written(event: Event) -> (String, String) {
        let mut out = b"before".to_vec();
        let key = event.write(&Pages::new(10), &mut TimeWriter::new(), &mut out);
        let key = out[key.start as usize..key.end as usize].to_vec();
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(out.split_off(6)), text(key))
    }

    #[test]
    fn a_record_has_the_four_fields_in_order() {
        assert_eq!(
            written(EVENT),
            (
                r#"{"event_time":"2026-01-01T00:00:00.000Z","user_id":"user-7","#.to_owned()
                    + r#""page_url":"/products","event_type":"click"}"#,
                "user-7".to_owned()
            )
        );
    }

    #[test]
    fn without_a_page_it_is_null() {
        let (text, _) = written(Event { page: None, ..EVENT });
        assert!(text.contains(r#","page_url":null,"event_type":"#), "{text}");
    }

    #[test]
    fn numbers_as_identifiers_come_with_and_without_quotes() {
        let (text, key) = written(Event { user: 4, ..EVENT });
        assert!(text.contains(r#""user_id":"4","#), "{text}");
        assert_eq!(key, "4");
        let (text, key) = written(Event { user: 4, bare: true, ..EVENT });
        assert!(text.contains(r#""user_id":4,"#), "{text}");
        assert_eq!(key, "4");
        // A name is never without quotes.
        assert_eq!(written(Event { bare: true, ..EVENT }), written(EVENT));
    }

    #[test]
    fn one_or_both_more_fields() {
        let mut shapes = [0; 3];
        for i in 0..1_000 {
            let extra = Extra::draw(rng::low(rng::at(1, i)));
            let (text, _) = written(Event { extra, ..EVENT });
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            match (value.get("referrer").is_some(), value.get("device").is_some()) {
                (true, false) => shapes[0] += 1,
                (false, true) => shapes[1] += 1,
                (true, true) => shapes[2] += 1,
                (false, false) => panic!("neither in {text}"),
            }
        }
        assert!(shapes.iter().all(|&count| count > 250), "{shapes:?}");
    }
}
