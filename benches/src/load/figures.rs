//! Percentiles, and Markdown tables.

use std::fmt::Display;
use std::time::Duration;

/// Measured times, sorted.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<u32>);

impl Times {
    /// Of these microseconds.
    #[must_use]
    pub fn new(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        Self(micros)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that this share of them, from 0 to 1, does not exceed, as milliseconds; a dash if
    /// there are none.
    #[must_use]
    pub fn at(&self, share: f64) -> String {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        match self.0.get(rank.max(1) - 1) {
            Some(micros) => format!("{:.1}", f64::from(*micros) / 1e3),
            None => "-".to_owned(),
        }
    }
}

/// Microseconds; what is longer than an hour is an hour.
#[must_use]
pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX).min(3_600_000_000)
}

/// Prints a table.
pub fn print_table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    println!("\n{title}\n\n| {} |", head.join(" | "));
    println!("|{}", "---|".repeat(head.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}

/// A number with separators between thousands.
#[must_use]
pub fn number(n: impl Display) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_measured_time_that_so_many_do_not_exceed() {
        let times = Times::new((1..=1_000).rev().map(|ms| ms * 1_000).collect());
        assert_eq!(
            [0.0, 0.5, 0.99, 0.999, 1.0].map(|share| times.at(share)),
            ["1.0", "500.0", "990.0", "999.0", "1000.0"]
        );
        assert_eq!(Times::default().at(0.5), "-");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([7, 1_000, 12_345_678].map(number), ["7", "1,000", "12,345,678"]);
    }
}
