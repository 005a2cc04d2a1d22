//! Times as text, in all the forms the format accepts.

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// `"2026-01-01T00:00:00.000Z"`.
    Usual,
    /// `1767225600000`.
    Milliseconds,
    /// `1767225600.000`.
    Seconds,
    /// `"1767225600000"`.
    Quoted,
    /// `"2026-01-01T02:00:00.000+02:00"`.
    East,
    /// `"2025-12-31T18:30:00.000-0530"`.
    West,
    /// `"2026-01-01 00:00:00.000"`.
    Space,
    /// `"2026-01-01 00:00:00.000 UTC"`.
    Named,
}

impl TimeForm {
    /// All but the usual one.
    pub(super) const OTHERS: [Self; 7] = [
        Self::Milliseconds,
        Self::Seconds,
        Self::Quoted,
        Self::East,
        Self::West,
        Self::Space,
        Self::Named,
    ];
}

/// Writes times; keeps the text of the last day.
#[derive(Clone, Debug)]
pub(super) struct TimeWriter {
    day: i64,
    date: [u8; 10],
}

impl TimeWriter {
    pub(super) fn new() -> Self {
        Self { day: 0, date: *b"1970-01-01" }
    }

    /// Appends a time in milliseconds since 1970 as a JSON value.
    #[inline]
    pub(super) fn write(&mut self, millis: i64, form: TimeForm, out: &mut Vec<u8>) {
        if form == TimeForm::Usual {
            let mut text = *b"\"yyyy-mm-ddThh:mm:ss.mmmZ\"";
            self.fill(millis, &mut text);
            out.extend_from_slice(&text);
        } else {
            self.write_other(millis, form, out);
        }
    }

    #[cold]
    fn write_other(&mut self, millis: i64, form: TimeForm, out: &mut Vec<u8>) {
        let mut number = |value: i64| write_number(value.unsigned_abs(), out);
        let (offset, separator, zone) = match form {
            TimeForm::Milliseconds => return number(millis),
            TimeForm::Seconds => {
                number(millis.div_euclid(1_000));
                let rest = millis.rem_euclid(1_000);
                let digit = |unit| b'0' + (rest / unit % 10) as u8;
                return out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
            }
            TimeForm::Quoted => {
                out.push(b'"');
                write_number(millis.unsigned_abs(), out);
                return out.push(b'"');
            }
            TimeForm::East => (120, b'T', "+02:00"),
            TimeForm::West => (-330, b'T', "-0530"),
            TimeForm::Space => (0, b' ', ""),
            TimeForm::Named => (0, b' ', " UTC"),
            TimeForm::Usual => (0, b'T', "Z"),
        };
        let mut text = *b"\"yyyy-mm-ddThh:mm:ss.mmm";
        text[11] = separator;
        self.fill(millis + offset * 60_000, &mut text);
        out.extend_from_slice(&text);
        out.extend_from_slice(zone.as_bytes());
        out.push(b'"');
    }

    /// Puts date and time of day in their places after the opening quote.
    #[inline]
    fn fill<const N: usize>(&mut self, millis: i64, text: &mut [u8; N]) {
        const { assert!(N >= 24, "room for the date and the time of day") };
        let day = millis.div_euclid(DAY);
        if day != self.day {
            (self.day, self.date) = (day, date(day));
        }
        text[1..11].copy_from_slice(&self.date);
        let millis = millis.rem_euclid(DAY) as u32;
        let (seconds, millis) = (millis / 1_000, millis % 1_000);
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        text[12..14].copy_from_slice(&two_digits(minutes / 60));
        text[15..17].copy_from_slice(&two_digits(minutes % 60));
        text[18..20].copy_from_slice(&two_digits(seconds));
        text[21] = b'0' + (millis / 100) as u8;
        text[22..24].copy_from_slice(&two_digits(millis % 100));
    }
}

/// Two decimal digits of a number below 100.
#[inline]
fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

/// The date of a day since 1970 (the algorithm of Howard Hinnant's `civil_from_days`).
fn date(day: i64) -> [u8; 10] {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * from_march + 2) / 5 + 1) as u32;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 } as u32;
    // Beyond the year 9999 there are no dates in this form; the records are then without use.
    let year = (year_of_era + era * 400 + i64::from(month <= 2)).clamp(0, 9_999) as u32;
    let mut text = *b"yyyy-mm-dd";
    text[0..2].copy_from_slice(&two_digits(year / 100));
    text[2..4].copy_from_slice(&two_digits(year % 100));
    text[5..7].copy_from_slice(&two_digits(month));
    text[8..10].copy_from_slice(&two_digits(day));
    text
}

/// Appends a number in decimal digits.
#[inline]
pub(super) fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[begin..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(millis: i64, form: TimeForm) -> String {
        let mut out = Vec::new();
        TimeWriter::new().write(millis, form, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn every_form_is_as_documented() {
        let time = 1_767_225_600_007;
        for (form, expected) in [
            (TimeForm::Usual, r#""2026-01-01T00:00:00.007Z""#),
            (TimeForm::Milliseconds, "1767225600007"),
            (TimeForm::Seconds, "1767225600.007"),
            (TimeForm::Quoted, r#""1767225600007""#),
            (TimeForm::East, r#""2026-01-01T02:00:00.007+02:00""#),
            (TimeForm::West, r#""2025-12-31T18:30:00.007-0530""#),
            (TimeForm::Space, r#""2026-01-01 00:00:00.007""#),
            (TimeForm::Named, r#""2026-01-01 00:00:00.007 UTC""#),
        ] {
            assert_eq!(text(time, form), expected);
        }
    }

    #[test]
    fn dates_are_right_on_all_days_of_four_centuries() {
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 {
            let (year, month, number) = expected;
            let text = date(day);
            assert_eq!(text, *format!("{year:04}-{month:02}-{number:02}").as_bytes());
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 => 28 + i32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (number == days, month) {
                (false, _) => (year, month, number + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }

    #[test]
    fn the_last_day_is_not_taken_for_another() {
        let mut writer = TimeWriter::new();
        let mut out = Vec::new();
        for millis in [951_782_399_999, 951_782_400_000, 951_868_800_000, 951_782_399_999] {
            writer.write(millis, TimeForm::Usual, &mut out);
        }
        assert_eq!(
            String::from_utf8(out).expect("ASCII"),
            r#""2000-02-28T23:59:59.999Z""2000-02-29T00:00:00.000Z""#.to_owned()
                + r#""2000-03-01T00:00:00.000Z""2000-02-28T23:59:59.999Z""#
        );
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
