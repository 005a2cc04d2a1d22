//! Comparisons that fail with a readable difference.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use super::time;

/// How many rows of each kind of difference are shown.
pub const SHOWN: usize = 8;

/// Panics with the first few missing, unexpected and different rows unless both tables are equal.
#[track_caller]
pub fn assert_same_table<K, V>(name: &str, expected: &BTreeMap<K, V>, actual: &BTreeMap<K, V>)
where
    K: Ord + Debug,
    V: PartialEq + Debug,
{
    if let Some(difference) = table_difference(expected, actual) {
        panic!("{name} is not as expected: {difference}");
    }
}

/// What differs between two tables; `None` if nothing does.
pub fn table_difference<K, V>(expected: &BTreeMap<K, V>, actual: &BTreeMap<K, V>) -> Option<String>
where
    K: Ord + Debug,
    V: PartialEq + Debug,
{
    let mut missing = Vec::new();
    let mut different = Vec::new();
    for (key, value) in expected {
        match actual.get(key) {
            None => missing.push(format!("{key:?}: {value:?}")),
            Some(other) if other != value => {
                different.push(format!("{key:?}: expected {value:?}, got {other:?}"));
            }
            Some(_) => {}
        }
    }
    let unexpected = actual
        .iter()
        .filter(|(key, _)| !expected.contains_key(key))
        .map(|(key, value)| format!("{key:?}: {value:?}"))
        .collect();
    let counts = (expected.len(), actual.len());
    describe(
        counts,
        &[("missing", missing), ("not expected", unexpected), ("different", different)],
    )
}

/// Panics with the first few missing and surplus rows unless both hold the same rows equally often.
/// The order does not matter.
#[track_caller]
pub fn assert_same_rows<T: Ord + Debug>(
    name: &str,
    expected: impl IntoIterator<Item = T>,
    actual: impl IntoIterator<Item = T>,
) {
    if let Some(difference) = rows_difference(expected, actual) {
        panic!("{name} is not as expected: {difference}");
    }
}

/// What differs between two lists of rows whose order does not matter; `None` if nothing does.
pub fn rows_difference<T: Ord + Debug>(
    expected: impl IntoIterator<Item = T>,
    actual: impl IntoIterator<Item = T>,
) -> Option<String> {
    // Row -> how often it is expected, how often it is there.
    let mut counts: BTreeMap<T, (usize, usize)> = BTreeMap::new();
    for row in expected {
        counts.entry(row).or_default().0 += 1;
    }
    for row in actual {
        counts.entry(row).or_default().1 += 1;
    }
    let mut missing = Vec::new();
    let mut surplus = Vec::new();
    let mut totals = (0, 0);
    for (row, (expected, actual)) in counts {
        totals = (totals.0 + expected, totals.1 + actual);
        let line = format!("{row:?} (expected {expected} times, there {actual} times)");
        if actual < expected {
            missing.push(line);
        } else if actual > expected {
            surplus.push(line);
        }
    }
    describe(totals, &[("missing", missing), ("too many", surplus)])
}

fn describe(counts: (usize, usize), kinds: &[(&str, Vec<String>)]) -> Option<String> {
    if kinds.iter().all(|(_, rows)| rows.is_empty()) {
        return None;
    }
    let mut text = format!("{} rows expected, {} there", counts.0, counts.1);
    for (kind, rows) in kinds {
        if rows.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{} {kind}:", rows.len());
        for row in rows.iter().take(SHOWN) {
            let _ = write!(text, "\n  {}", with_times(row));
        }
        if rows.len() > SHOWN {
            text.push_str("\n  ...");
        }
    }
    Some(text)
}

/// Puts the time in UTC behind every number that can be one in microseconds.
fn with_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(from) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let (before, after) = rest.split_at(from + digits);
        out.push_str(before);
        match before[from..].parse() {
            Ok(micros) if (time::EARLIEST..=time::LAST).contains(&micros) => {
                let _ = write!(out, " [{}]", time::show(micros));
            }
            _ => {}
        }
        rest = after;
    }
    out + rest
}
