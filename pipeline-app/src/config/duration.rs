//! Durations as people write them: `2m`, `90s`, `5 minutes`, `1h 30m`.

use std::time::Duration;

/// Reads a duration: numbers with units, blanks between them as one likes.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    // A number without a unit may be meant as seconds or as milliseconds: it is better to ask.
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("it has no unit: write {text}s for seconds, {text}m for minutes"));
    }
    humantime::parse_duration(text)
        .map_err(|_| "write a number and a unit, such as 90s, 5m, 5 min, 1h or 1h 30m".to_owned())
}

/// Reads a duration that may be `off`.
///
/// # Errors
/// As [`parse`].
pub fn parse_or_off(text: &str) -> Result<Option<Duration>, String> {
    if is_off(text) {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|problem| format!("{problem}; or off"))
}

/// Whether a value switches something off.
pub(super) fn is_off(text: &str) -> bool {
    ["off", "none", "never"].iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

/// A duration in the words of [`parse`].
pub fn written(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_all_the_ways_people_write_them() {
        for (text, seconds) in [
            ("2m", 120),
            (" 5 min ", 300),
            ("5 minutes", 300),
            ("300s", 300),
            ("300 sec", 300),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("24h", 86_400),
            ("1 day", 86_400),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(parse_or_off(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(parse("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_or_off(" Off "), Ok(None));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_an_example() {
        for text in ["", "-5m", "5 parsecs", "off", "m", "1.5.2s"] {
            assert!(parse(text).expect_err(text).contains("such as"), "{text}");
        }
        let problem = parse("30").expect_err("no unit");
        assert_eq!(problem, "it has no unit: write 30s for seconds, 30m for minutes");
        assert!(parse_or_off("x").expect_err("x").ends_with("; or off"));
    }

    #[test]
    fn fuzz_duration() {
        let corpus =
            ["2m", "1h 30m", "90s", "0", "30", "off", "5 minutes", "1500ms", "3 years 2 days"];
        let corpus = corpus.map(|text| text.as_bytes().to_vec());
        streamkit::testing::fuzz("duration", &corpus, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            match parse_or_off(text) {
                Ok(Some(time)) => assert_eq!(parse(&written(time)), Ok(time), "{text}"),
                Ok(None) => assert!(parse(text).is_err(), "{text}"),
                Err(problem) => assert!(!problem.is_empty()),
            }
        });
    }

    #[test]
    fn what_is_written_can_be_read() {
        for duration in [Duration::ZERO, Duration::from_secs(5_400), Duration::from_millis(200)] {
            assert_eq!(parse(&written(duration)), Ok(duration));
        }
    }
}
