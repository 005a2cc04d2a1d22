//! A strict scanner of JSON texts: it checks all of RFC 8259 in one pass, and hands out the members
//! of the outermost object as spans of the text. Nothing is copied, converted or allocated.
//!
//! ```text
//!   {"user_id": 42, "tags":["a",{"b":null}]}
//!     ^key      ^value       ^value, checked down to the innermost, handed out as one span
//! ```
//!
//! Stricter than the RFC, and than most parsers, in two points:
//! - an escape that names half of a surrogate pair is an error in every string, keys and nested
//!   strings included;
//! - arrays and objects nest at most [`MAX_DEPTH`] deep, the outermost counting as 1. The scanner
//!   keeps one bit for each level instead of recursing, so no text can exhaust the stack.
//!
//! Only space, tab, line feed and carriage return are white space; a byte order mark is none.
//! Numbers may be of any size. Names may repeat: what a repetition means is the caller's business.

use std::ops::Range;

use thiserror::Error;

use super::find::Specials;

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: u32 = 127;
/// How long a text may be. Kafka's records cannot be longer.
pub const MAX_LENGTH: usize = i32::MAX as usize;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string without escapes: what is between its quotes is its content.
    PlainString,
    /// A string with at least one escape.
    EscapedString,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Kind {
    /// Whether it is a string.
    #[inline]
    pub const fn is_string(self) -> bool {
        matches!(self, Self::PlainString | Self::EscapedString)
    }
}

/// A part of a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub start: u32,
    /// Where it ends: the position after its last byte.
    pub end: u32,
}

impl Span {
    /// The span as a range of indices.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The part of `text` that this is; empty if `text` is not the one that it was found in.
    #[inline]
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }

    /// Without the first and the last byte: of a string, what is between the quotes.
    #[inline]
    #[must_use]
    pub fn inner(self) -> Self {
        Self { start: self.start + 1, end: self.end - 1 }
    }

    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Self {
        // Lossless: longer texts are refused.
        Self { start: start as u32, end: end as u32 }
    }
}

/// A member of the outermost object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name as written, with the quotes.
    pub key: Span,
    /// Whether the name has escapes.
    pub key_is_escaped: bool,
    /// Its value as written.
    pub value: Span,
    /// What its value is.
    pub kind: Kind,
}

/// Why a text is not JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{problem} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub problem: &'static str,
    /// The position in the text.
    pub at: usize,
}

/// Whether a byte is white space to JSON.
pub const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Checks that `text` is one JSON value, and shows `visit` the members in their order if that value
/// is an object. Returns what it is. A member is shown before what follows it has been checked.
///
/// That the text is UTF-8 is for the caller to check: to the scanner, bytes of 0x80 and more are
/// letters, which may stand in strings and nowhere else.
#[inline]
pub fn scan(text: &[u8], visit: impl FnMut(Member)) -> Result<Kind, JsonError> {
    scan_bytes(text, visit).map(|(kind, _)| kind)
}

/// As [`scan`], and says whether the text is ASCII.
#[inline]
pub(super) fn scan_bytes(
    text: &[u8],
    visit: impl FnMut(Member),
) -> Result<(Kind, bool), JsonError> {
    if text.len() > MAX_LENGTH {
        return Err(JsonError { problem: "a text of more than 2 GiB", at: 0 });
    }
    let mut scanner = Scanner { text, at: 0, specials: Specials::of(text) };
    scanner.white_space();
    let kind = if scanner.peek() == b'{' {
        scanner.members(visit)?;
        Kind::Object
    } else {
        scanner.value(0)?
    };
    scanner.white_space();
    if scanner.at != text.len() {
        return scanner.fail("something after the value");
    }
    // All strings have been looked at, and nothing else in a good text can be other than ASCII.
    Ok((kind, scanner.specials.were_ascii()))
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    specials: Specials<'a>,
}

impl Scanner<'_> {
    /// The next byte, or 0 at the end: no rule of JSON accepts a zero byte anywhere.
    #[inline]
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn white_space(&mut self) {
        // Some producers write one space, others none, and a processor cannot guess which: so it is
        // added, and not asked for. More of it is rare.
        self.at += usize::from(self.peek() == b' ');
        while is_white_space(self.peek()) {
            self.at += 1;
        }
    }

    /// Takes `byte`, and white space around it; before it there is hardly ever any.
    #[inline]
    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), JsonError> {
        if self.peek() != byte {
            self.white_space();
            if self.peek() != byte {
                return self.fail(problem);
            }
        }
        self.at += 1;
        self.white_space();
        Ok(())
    }

    #[cold]
    fn fail<T>(&self, problem: &'static str) -> Result<T, JsonError> {
        let problem = if self.at < self.text.len() { problem } else { "an unexpected end" };
        Err(JsonError { problem, at: self.at })
    }

    /// The outermost object, from its opening brace.
    #[inline]
    fn members(&mut self, mut visit: impl FnMut(Member)) -> Result<(), JsonError> {
        self.at += 1;
        self.white_space();
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key_start = self.at;
            let key_is_escaped = self.key()?;
            let key = Span::new(key_start, self.at);
            self.expect(b':', "a colon is missing")?;
            let value_start = self.at;
            let kind = self.value(1)?;
            let value = Span::new(value_start, self.at);
            visit(Member { key, key_is_escaped, value, kind });
            if self.peek() != b',' {
                self.white_space();
            }
            match self.peek() {
                b',' => self.at += 1,
                b'}' => break,
                _ => return self.fail("neither a comma nor the end of an object"),
            }
            self.white_space();
        }
        self.at += 1;
        Ok(())
    }

    /// A name, with its quotes. Returns whether it has escapes.
    #[inline]
    fn key(&mut self) -> Result<bool, JsonError> {
        if self.peek() != b'"' {
            return self.fail("a name in double quotes is missing");
        }
        self.string()
    }

    /// A value inside `depth` arrays and objects.
    #[inline]
    fn value(&mut self, depth: u32) -> Result<Kind, JsonError> {
        match self.peek() {
            // Most are strings.
            b'"' if self.string()? => Ok(Kind::EscapedString),
            b'"' => Ok(Kind::PlainString),
            _ => self.other_value(depth),
        }
    }

    #[inline(never)]
    fn other_value(&mut self, depth: u32) -> Result<Kind, JsonError> {
        match self.peek() {
            b'{' => self.nested(depth).map(|()| Kind::Object),
            b'[' => self.nested(depth).map(|()| Kind::Array),
            _ => self.scalar(),
        }
    }

    #[inline]
    fn scalar(&mut self) -> Result<Kind, JsonError> {
        match self.peek() {
            b'"' if self.string()? => Ok(Kind::EscapedString),
            b'"' => Ok(Kind::PlainString),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true", Kind::Boolean),
            b'f' => self.literal(b"false", Kind::Boolean),
            b'n' => self.literal(b"null", Kind::Null),
            _ => self.fail("not a value"),
        }
    }

    /// An array or object, from its opening bracket to its end, inside `outer` others.
    fn nested(&mut self, outer: u32) -> Result<(), JsonError> {
        let mut depth = outer;
        // Bit n: whether level n is an object.
        let mut objects = 0_u128;
        loop {
            // At the start of a value.
            let opening = self.peek();
            if matches!(opening, b'{' | b'[') {
                if depth == MAX_DEPTH {
                    return self.fail("more than 127 levels of nesting");
                }
                depth += 1;
                let level = 1_u128 << depth;
                objects = if opening == b'{' { objects | level } else { objects & !level };
                self.at += 1;
                self.white_space();
                // '}' and ']' are two after their partners.
                if self.peek() != opening + 2 {
                    self.start_item(opening == b'{')?;
                    continue;
                }
                self.at += 1;
                depth -= 1;
            } else {
                self.scalar()?;
            }
            // After a value: close what ends here, up to the next comma.
            loop {
                if depth == outer {
                    return Ok(());
                }
                let in_object = objects >> depth & 1 == 1;
                self.white_space();
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        self.white_space();
                        self.start_item(in_object)?;
                        break;
                    }
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ if in_object => {
                        return self.fail("neither a comma nor the end of an object");
                    }
                    _ => return self.fail("neither a comma nor the end of an array"),
                }
                self.at += 1;
                depth -= 1;
            }
        }
    }

    /// What stands before a value inside an array (nothing) or an object (a name and a colon).
    fn start_item(&mut self, in_object: bool) -> Result<(), JsonError> {
        if !in_object {
            return Ok(());
        }
        self.key()?;
        self.expect(b':', "a colon is missing")
    }

    /// A string, from its opening quote to after its closing one. Returns whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, JsonError> {
        self.at = self.specials.next(self.at + 1);
        if self.peek() == b'"' {
            self.at += 1;
            return Ok(false);
        }
        self.rest_of_string()
    }

    /// A string, from its first byte that is not plain.
    #[inline(never)]
    fn rest_of_string(&mut self) -> Result<bool, JsonError> {
        let mut escaped = false;
        loop {
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    self.escape()?;
                    escaped = true;
                }
                _ => return self.fail("a control character in a string"),
            }
            self.at = self.specials.next(self.at);
        }
    }

    #[cold]
    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => {
                let start = self.at - 1;
                let half = |at| JsonError { problem: "half of a surrogate pair", at };
                match self.code_unit()? {
                    0xd800..=0xdbff => {
                        if !self.text[self.at..].starts_with(b"\\u") {
                            return Err(half(start));
                        }
                        self.at += 1;
                        match self.code_unit()? {
                            0xdc00..=0xdfff => Ok(()),
                            _ => Err(half(start)),
                        }
                    }
                    0xdc00..=0xdfff => Err(half(start)),
                    _ => Ok(()),
                }
            }
            _ => self.fail("an unknown escape"),
        }
    }

    /// `u` and four hexadecimal digits.
    fn code_unit(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.peek()).to_digit(16) else {
                return self.fail("an escape without four hexadecimal digits");
            };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Kind, JsonError> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_ascii_digit() {
            return self.fail("a digit is missing");
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Result<Kind, JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("not a value");
        }
        self.at += word.len();
        Ok(kind)
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
