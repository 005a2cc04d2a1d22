//! Takes apart an event as the generator of the comparison writes it: these fields in this order,
//! no escapes. Anything else is refused.

pub struct Event<'a> {
    /// Milliseconds since 1970.
    pub time: i64,
    pub user: &'a str,
    pub page: &'a str,
    pub kind: &'a str,
}

pub fn parse(bytes: &[u8]) -> Option<Event<'_>> {
    let rest = std::str::from_utf8(bytes).ok()?.strip_prefix("{\"event_time\":\"")?;
    let (time, rest) = rest.split_at_checked(24)?;
    let (user, rest) = text(rest.strip_prefix("\",\"user_id\":\"")?)?;
    let (page, rest) = text(rest.strip_prefix(",\"page_url\":\"")?)?;
    let (kind, rest) = text(rest.strip_prefix(",\"event_type\":\"")?)?;
    (rest == "}").then_some(Event {
        time: milliseconds(time.as_bytes().try_into().ok()?)?,
        user,
        page,
        kind,
    })
}

fn text(rest: &str) -> Option<(&str, &str)> {
    let end = rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
    (rest.as_bytes()[end] == b'"').then(|| (&rest[..end], &rest[end + 1..]))
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`
fn milliseconds(b: &[u8; 24]) -> Option<i64> {
    let digit = |at: usize| i64::from(b[at].wrapping_sub(b'0'));
    let two = |at: usize| digit(at) * 10 + digit(at + 1);
    let digits = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 22];
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    if digits.iter().any(|&at| digit(at) > 9) || marks.iter().any(|&(at, mark)| b[at] != mark) {
        return None;
    }
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    // Days since 1970, in a calendar whose years begin with March.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    Some(
        ((days * 24 + two(11)) * 60 + two(14)) * 60_000
            + two(17) * 1000
            + digit(20) * 100
            + two(21),
    )
}
