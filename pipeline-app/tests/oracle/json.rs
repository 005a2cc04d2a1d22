//! A strict JSON reader (RFC 8259), written out by hand.
//!
//! A general library merges repeated members, rounds numbers and differs in what it lets through,
//! and the application under test uses one. So this one keeps every member in order, every number as
//! written, and refuses exactly what the mission refuses: lone surrogates in any string, nesting
//! deeper than 127, other white space than JSON's.

/// Deepest nesting that is allowed; the outermost object or array is level 1.
pub const MAX_NESTING: usize = 127;

/// Any JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string, unescaped.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: its members in order, repeated ones too.
    Object(Vec<Member>),
}

/// One member of an object.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name, unescaped.
    pub name: String,
    /// Its value.
    pub value: Json,
    /// Where the value's text begins.
    pub start: usize,
    /// Where the value's text ends.
    pub end: usize,
}

/// Members are equal if name and value are; where they were written does not matter.
impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl Eq for Member {}

/// JSON's white space, and no other.
pub fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The one value that `text` is, or a sentence saying why it is none.
pub fn parse(text: &str) -> Result<Json, String> {
    let mut reader = Reader { text, at: 0 };
    reader.skip_white_space();
    let value = reader.value(0)?;
    reader.skip_white_space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => reader.error("something follows the value"),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("{what} at byte {}", self.at))
    }

    fn skip_white_space(&mut self) {
        while self.peek().is_some_and(is_white_space) {
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// A value that stands inside of `outside` objects and arrays.
    fn value(&mut self, outside: usize) -> Result<Json, String> {
        match self.peek() {
            Some(b'{' | b'[') if outside == MAX_NESTING => self.error("nested too deeply"),
            Some(b'{') => self.object(outside + 1),
            Some(b'[') => self.array(outside + 1),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word("null", Json::Null),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            _ => self.error("a value is missing"),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, String> {
        if !self.text[self.at..].starts_with(word) {
            return self.error("an unknown word");
        }
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self, level: usize) -> Result<Json, String> {
        let mut members = Vec::new();
        self.at += 1;
        self.skip_white_space();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_white_space();
            if self.peek() != Some(b'"') {
                return self.error("a member's name is missing");
            }
            let name = self.string()?;
            self.skip_white_space();
            if !self.take(b':') {
                return self.error("a colon is missing");
            }
            self.skip_white_space();
            let start = self.at;
            let value = self.value(level)?;
            members.push(Member { name, value, start, end: self.at });
            self.skip_white_space();
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.take(b',') {
                return self.error("a comma or closing brace is missing");
            }
        }
    }

    fn array(&mut self, level: usize) -> Result<Json, String> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_white_space();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            self.skip_white_space();
            items.push(self.value(level)?);
            self.skip_white_space();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return self.error("a comma or closing bracket is missing");
            }
        }
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(Json::Number(self.text[start..self.at].to_owned()))
    }

    fn digits(&mut self) -> Result<(), String> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.error("a digit is missing") } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, String> {
        let mut out = String::new();
        self.at += 1;
        loop {
            let Some(next) = self.text[self.at..].chars().next() else {
                return self.error("a string does not end");
            };
            match next {
                '\0'..='\u{1f}' => return self.error("a control character in a string"),
                '"' => {
                    self.at += 1;
                    return Ok(out);
                }
                '\\' => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                other => {
                    self.at += other.len_utf8();
                    out.push(other);
                }
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, String> {
        let Some(letter) = self.peek() else { return self.error("a string does not end") };
        let plain = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return self.error("an unknown escape"),
        };
        self.at += 1;
        Ok(plain)
    }

    /// `uXXXX`, or the two escapes of a surrogate pair; the first backslash is already taken.
    fn unicode_escape(&mut self) -> Result<char, String> {
        let first = self.four_hex_digits()?;
        if (0xdc00..0xe000).contains(&first) {
            return self.error("a lone low surrogate");
        }
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| "not a character".to_owned());
        }
        if !self.take(b'\\') || self.peek() != Some(b'u') {
            return self.error("a lone high surrogate");
        }
        let second = self.four_hex_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return self.error("a lone high surrogate");
        }
        let code = 0x10000 + (first - 0xd800) * 0x400 + (second - 0xdc00);
        char::from_u32(code).ok_or_else(|| "not a character".to_owned())
    }

    /// `u` and four hexadecimal digits.
    fn four_hex_digits(&mut self) -> Result<u32, String> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else { return self.error("a hexadecimal digit is missing") };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}
