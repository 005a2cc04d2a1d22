//! Names of members, compared as one number.
//!
//! Where the fields of a record come in any order, a processor cannot guess which is next, and every
//! wrong guess costs as much as reading a field. So a name is not asked whether it is this one or that
//! one: all the names that matter are shorter than sixteen bytes, and are compared as numbers, whose
//! results are added.

use super::json::Span;
use super::reject::Field;

/// Bytes of a name that are compared.
const WIDTH: usize = 16;

/// A name: its first bytes, and zeros after its end. A name with zeros of its own, which only escapes
/// can stand for, is none that matters, and has a number that none of these has.
pub(super) struct Name(u128);

impl Name {
    /// A name by itself.
    pub(super) fn of(name: &[u8]) -> Self {
        let mut bytes = [0; WIDTH];
        match bytes.get_mut(..name.len()) {
            // One with a zero is none that matters.
            Some(start) if !name.contains(&0) => start.copy_from_slice(name),
            _ => bytes.fill(u8::MAX),
        }
        Self(u128::from_le_bytes(bytes))
    }

    /// A name without escapes that is a part of a text.
    #[inline]
    pub(super) fn within(text: &[u8], name: Span) -> Self {
        let range = name.range();
        let Some(bytes) = text.get(range.start..).and_then(<[u8]>::first_chunk::<WIDTH>) else {
            return Self::of(name.of(text));
        };
        let excess = 8 * WIDTH.saturating_sub(range.len()) as u32;
        Self(u128::from_le_bytes(*bytes) & u128::MAX.unbounded_shr(excess))
    }

    /// The index of the field in [`Field::ALL`], or the one after the last for another name.
    #[inline]
    pub(super) fn place(&self) -> usize {
        const NAMES: [u128; 4] = [
            number(Field::ALL[0].name()),
            number(Field::ALL[1].name()),
            number(Field::ALL[2].name()),
            number(Field::ALL[3].name()),
        ];
        let mut place = NAMES.len();
        for (index, name) in NAMES.into_iter().enumerate() {
            place -= usize::from(self.0 == name) * (NAMES.len() - index);
        }
        place
    }

    /// Whether an enriched record has a field of this name that is not the record's.
    #[inline]
    pub(super) fn is_reserved(&self) -> bool {
        const NAMES: [u128; 3] =
            [number("processing_time"), number("event_date"), number("page_category")];
        NAMES.into_iter().fold(false, |is_reserved, name| is_reserved | (self.0 == name))
    }
}

const fn number(name: &str) -> u128 {
    let name = name.as_bytes();
    assert!(name.len() < WIDTH, "the last byte must be a zero");
    let (mut number, mut at) = (0, name.len());
    while at > 0 {
        at -= 1;
        number = number << 8 | name[at] as u128;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_is_wherever_it_stands() {
        let names = [
            "user_id",
            "event_type",
            "page_url",
            "event_time",
            "processing_time",
            "event_date",
            "page_category",
        ];
        let others = ["", "u", "user_i", "user_id ", "user_id\0", "user_id\0\0\0", "event_tim"];
        let long = ["processing_time_", "processing_time_of_ours", "page_category\0\0\0\0"];
        for name in names.into_iter().chain(others).chain(long) {
            let field = Field::ALL.iter().position(|field| field.name() == name);
            let is_reserved = names[4..].contains(&name);
            let alone = Name::of(name.as_bytes());
            assert_eq!((alone.place(), alone.is_reserved()), (field.unwrap_or(4), is_reserved));
            // A text has no zeros.
            let name = name.replace('\0', "0");
            let field = Field::ALL.iter().position(|field| field.name() == name);
            for before in ["", "\"", "{\"x\":1,\""] {
                for after in ["", "\"", "_", "\":1}", "\":\"a value of some length\"}"] {
                    let text = format!("{before}{name}{after}");
                    let span = Span::new(before.len(), before.len() + name.len());
                    let within = Name::within(text.as_bytes(), span);
                    let expected = (field.unwrap_or(4), is_reserved);
                    assert_eq!((within.place(), within.is_reserved()), expected, "{text}");
                }
            }
        }
    }
}
