//! The content of JSON strings: reading it, writing it, and showing a little of it in a message.

use std::borrow::Cow;

use super::find::find_special;

/// The content of a string that [`scan`](super::json::scan) has accepted, given what is between its
/// quotes. (What no accepted string has, becomes U+FFFD.)
pub fn unescape(written: &[u8]) -> Cow<'_, [u8]> {
    if !written.contains(&b'\\') {
        return Cow::Borrowed(written);
    }
    let mut content = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (before, escape) = (&rest[..at], &rest[at + 1..]);
        content.extend_from_slice(before);
        let (character, length) = read_escape(escape);
        content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = escape.get(length..).unwrap_or_default();
    }
    content.extend_from_slice(rest);
    Cow::Owned(content)
}

/// The character of an escape without its backslash, and how long the escape is.
fn read_escape(escape: &[u8]) -> (char, usize) {
    let character = match escape.first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&same @ (b'"' | b'\\' | b'/')) => char::from(same),
        Some(b'u') => return read_code_units(escape),
        _ => char::REPLACEMENT_CHARACTER,
    };
    (character, 1)
}

fn read_code_units(escape: &[u8]) -> (char, usize) {
    let unit_at = |at: usize| {
        let digits = std::str::from_utf8(escape.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (code_point, length) = match (unit_at(1), unit_at(7)) {
        (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
            (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 11)
        }
        (Some(unit), _) => (unit, 5),
        (None, _) => (0xfffd, 5),
    };
    (char::from_u32(code_point).unwrap_or(char::REPLACEMENT_CHARACTER), length)
}

/// Appends `content`, text in UTF-8, as a JSON string with its quotes. Escaped is only what has to
/// be.
pub fn write_string(content: impl AsRef<[u8]>, out: &mut Vec<u8>) {
    out.push(b'"');
    let content = content.as_ref();
    let mut start = 0;
    loop {
        let at = find_special(content, start);
        out.extend_from_slice(&content[start..at]);
        match content.get(at) {
            Some(&byte) => write_escape(byte, out),
            None => break,
        }
        start = at + 1;
    }
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        b'"' | b'\\' => byte,
        _ => {
            let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// How many characters of a value a message shows.
const EXCERPT: usize = 40;

/// The start of `text` as a message may show it: on one line, without control characters, and with
/// `...` where it has been cut.
pub fn excerpt(text: &[u8]) -> String {
    let mut shown = String::new();
    // A character has at most four bytes, so this much is enough, and the end has to be shown only
    // if it is the text's own.
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * EXCERPT + 4)]);
    for (count, character) in text.chars().enumerate() {
        if count == EXCERPT {
            shown.push_str("...");
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_escape_is_read() {
        for (written, expected) in [
            ("", ""),
            ("plain", "plain"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"a\u0041b\u00e9c\u20AC", "aAbéc€"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\u0000", "\0"),
            (r"\ud7ff\ue000", "\u{d7ff}\u{e000}"),
            (r"\\u0041", r"\u0041"),
            (r"é\u00e9", "éé"),
            // No accepted string has these.
            (r"\ud800x", "\u{fffd}x"),
            (r"\u12", "\u{fffd}"),
            (r"\", "\u{fffd}"),
        ] {
            assert_eq!(*unescape(written.as_bytes()), *expected.as_bytes(), "{written}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        assert_eq!(excerpt("a\nb\u{7f}\u{85}é\"\\".as_bytes()), "a\\nb\\u{7f}\\u{85}é\"\\");
        assert_eq!(excerpt("é".repeat(40).as_bytes()), "é".repeat(40));
        assert_eq!(excerpt("😀".repeat(50).as_bytes()), "😀".repeat(40) + "...");
        assert_eq!(excerpt("é".repeat(41).as_bytes()), "é".repeat(40) + "...");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(content in any::<String>()) {
            let mut out = Vec::new();
            write_string(&content, &mut out);
            let written = String::from_utf8(out).unwrap();
            prop_assert_eq!(&serde_json::from_str::<String>(&written).unwrap(), &content);
            prop_assert_eq!(&*unescape(&written.as_bytes()[1..written.len() - 1]), content.as_bytes());
        }

        #[test]
        fn nothing_panics(written in r#"(\\|u|[0-9a-f]{4}|ud83d|é|n){0,8}"#) {
            let _ = unescape(written.as_bytes());
        }
    }
}
