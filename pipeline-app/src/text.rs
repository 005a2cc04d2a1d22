//! Texts for people: numbers, times and columns.

use streamkit::time::Timestamp;

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes to the standard output. A reader that has seen enough, such as `head`, is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

/// The text, with blanks up to a width in characters.
pub(crate) fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

/// Whether a character would do something else to a terminal than show itself: move the cursor, change
/// the direction of what follows, or hide.
pub(crate) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text as a terminal may show it: what would move the cursor, as an escape.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// At most so many characters of a text, on one line; what is cut off is marked by an ellipsis.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let clean: String = text.chars().map(|c| if is_active(c) { ' ' } else { c }).collect();
    if clean.chars().count() <= width {
        return clean;
    }
    let mut short: String = clean.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The time of day in UTC, to the second.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    match chrono::DateTime::from_timestamp_micros(time.as_micros()) {
        Some(time) => time.format("%H:%M:%S").to_string(),
        None => "-".to_owned(),
    }
}

/// Hour and minute in UTC.
pub(crate) fn hour_and_minute(time: Timestamp) -> String {
    let text = time_of_day(time);
    text.get(..5).unwrap_or(&text).to_owned()
}

/// A duration in the one or two largest units that matter: `850 ms`, `1.8 s`, `3 m 20 s`, `2 h 5 m`.
pub(crate) fn about(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Bytes: `850 B`, `12.3 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1_000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1_000.0 {
            break;
        }
        value /= 1_000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn texts() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(shorten("abc\ndef", 7), "abc def");
        assert_eq!(shorten("äöüäöü", 4), "äöü…");
        assert_eq!(shorten("a\u{1b}[2J\u{202e}b", 9), "a [2J b", "F24");
        let time = Timestamp::from_micros(1_767_265_629_000_000);
        assert_eq!((time_of_day(time), hour_and_minute(time)), ("11:07:09".into(), "11:07".into()));
        assert_eq!(time_of_day(Timestamp::MIN), "-");
        for (millis, text) in
            [(850, "850 ms"), (1_840, "1.8 s"), (59_000, "59 s"), (200_000, "3 m 20 s")]
        {
            assert_eq!(about(Duration::from_millis(millis)), text);
        }
        assert_eq!([7, 12_300_000].map(bytes), ["7 B", "12.3 MB"]);
    }
}
