//! Which record is due when, which of them closes which window, and what must come out.
//!
//! Records are those of pipeline-app's generator, all valid. Event time is faster than the clock, so
//! that many windows end within a short run: a record whose simulated arrival is s seconds after the
//! first is due s / speed seconds after it. A record's timestamp in Kafka is its simulated arrival, and
//! the enriched record keeps it; so it tells which record that was, and when it was due.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bytes::Bytes;
use pipeline_app::generate::{Generator, GeneratorOptions, SplitGenerator};
use pipeline_app::model::{Origin, decode};
use streamkit::time::{Clock as _, SystemClock};

/// Partitions of the topic.
pub const SPLITS: u32 = 4;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// The job's default.
const WATERMARK_DELAY: i64 = 2 * MINUTE;
/// So many users for one event per second are in no hurry.
const USERS_PER_RATE: u64 = 40;
const PAGES: u32 = 200;
/// Records of a split that are made at a time.
const CHUNK: usize = 64;

/// The records of a run.
#[derive(Debug)]
pub struct Schedule {
    generator: Generator,
    start: i64,
    /// Records per second of event time.
    event_rate: u64,
    /// Records per second of the clock.
    rate: u64,
    /// How many.
    pub count: u64,
}

/// What must come out.
#[derive(Debug, Default)]
pub struct Expected {
    /// The end of each window that becomes final, in microseconds since 1970, and the number of the
    /// record that makes it so. Ends ascend.
    pub closing: Vec<(i64, u64)>,
    /// Page views of each window, by its start, late ones left out.
    pub views: BTreeMap<i64, i64>,
}

impl Schedule {
    /// `rate` records per second for so many seconds, with event time about `speed` times as fast as
    /// the clock; it ends now.
    ///
    /// # Errors
    /// If records would be so close in event time that their timestamps do not tell them apart.
    pub fn new(rate: u64, seconds: u64, speed: u64) -> Result<Self> {
        let event_rate = (rate / speed.max(1)).max(1);
        ensure!(
            event_rate <= 1_000,
            "--speed {speed} is too slow for {rate} events per second: with {} or more, events are \
             a millisecond apart",
            rate.div_ceil(1_000)
        );
        let count = rate * seconds;
        let now = SystemClock::new().now().as_micros();
        let span = i64::try_from(count / event_rate)? + 1;
        let start = (now / SECOND - span) * SECOND;
        let options = GeneratorOptions {
            splits: SPLITS,
            users: u32::try_from((event_rate * USERS_PER_RATE).max(400))?,
            pages: PAGES,
            events_per_second: event_rate,
            malformed: 0.0,
            start_time_micros: start,
            ..GeneratorOptions::default()
        };
        Ok(Self { generator: Generator::new(&options)?, start, event_rate, rate, count })
    }

    /// How many times as fast as the clock event time is.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.rate as f64 / self.event_rate as f64
    }

    /// When record `number` is due, in microseconds after the first.
    #[must_use]
    pub fn due(&self, number: u64) -> u64 {
        number * SECOND as u64 / self.rate
    }

    /// The record that has this timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn with_timestamp(&self, millis: i64) -> Option<u64> {
        let since = millis.checked_mul(1_000)?.checked_sub(self.start)?;
        let since = u64::try_from(since).ok()?;
        // The first one that arrives in this millisecond or later; no two arrive in one.
        let number = since.checked_mul(self.event_rate)?.div_ceil(SECOND as u64);
        (number < self.count).then_some(number)
    }

    /// Gives all records to `each`, in the order in which they are due: the number, the partition, the
    /// timestamp in milliseconds, key and value. It stops at an error.
    ///
    /// # Errors
    /// That of `each`.
    pub fn each(
        &self,
        mut each: impl FnMut(u64, u32, i64, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut splits: Vec<(SplitGenerator, Vec<u8>, Vec<_>)> =
            (0..SPLITS).map(|s| (self.generator.reader(s, 0), vec![], vec![])).collect();
        for number in 0..self.count {
            let split = (number % u64::from(SPLITS)) as usize;
            let place = (number / u64::from(SPLITS)) as usize % CHUNK;
            let (generator, arena, spans) = &mut splits[split];
            if place == 0 {
                arena.clear();
                spans.clear();
                generator.fill(arena, spans, CHUNK);
            }
            let span = &spans[place];
            let bytes =
                |range: &std::ops::Range<u32>| &arena[range.start as usize..range.end as usize];
            let millis = span.timestamp.div_euclid(1_000);
            each(number, split as u32, millis, bytes(&span.key), bytes(&span.value))?;
        }
        Ok(())
    }

    /// Works out what must come out, by the rules of the job: a split's watermark is two minutes behind
    /// its highest event time, the job's is the lowest of them, and a window is final when that has
    /// reached its end.
    ///
    /// # Errors
    /// If a record is not valid.
    pub fn expected(&self) -> Result<Expected> {
        let mut expected = Expected::default();
        let mut high = [i64::MIN; SPLITS as usize];
        let mut end = self.start + MINUTE - self.start.rem_euclid(MINUTE);
        self.each(|number, split, _, _, value| {
            let value = Bytes::copy_from_slice(value);
            let activity = decode(Some(&value), Origin::default())
                .map_err(|reject| anyhow::anyhow!("record {number}: {}", reject.error))?;
            let time = activity.event_time();
            let high_of_split = &mut high[split as usize];
            let window = time - time.rem_euclid(MINUTE);
            let late = window + MINUTE <= high_of_split.saturating_sub(WATERMARK_DELAY);
            if activity.is_page_view() && !late {
                *expected.views.entry(window).or_default() += 1;
            }
            *high_of_split = time.max(*high_of_split);
            let watermark =
                high.iter().min().map_or(i64::MIN, |low| low.saturating_sub(WATERMARK_DELAY));
            while watermark >= end {
                expected.closing.push((end, number));
                end += MINUTE;
            }
            Ok(())
        })?;
        Ok(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_tells_which_record_it_is() {
        for (rate, speed) in [(10_000, 720), (100_000, 720), (1_000, 1), (700, 1_000)] {
            let schedule = Schedule::new(rate, 2, speed).unwrap();
            let mut seen = 0;
            schedule
                .each(|number, _, millis, key, _| {
                    assert_eq!(schedule.with_timestamp(millis), Some(number));
                    assert!(!key.is_empty());
                    seen += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, schedule.count);
            assert_eq!(schedule.with_timestamp(i64::MAX / 2_000), None);
        }
        assert!(Schedule::new(100_000, 1, 1).is_err());
    }

    #[test]
    fn windows_close_one_after_the_other_and_two_minutes_late() {
        let schedule = Schedule::new(1_000, 10, 100).unwrap();
        let expected = schedule.expected().unwrap();
        // 1000 s of event time, of which the first 2 to 3 minutes close nothing.
        assert!((12..=15).contains(&expected.closing.len()), "{}", expected.closing.len());
        for pair in expected.closing.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, MINUTE);
            // Records of a minute: 10 per second.
            assert!((400..=800).contains(&(pair[1].1 - pair[0].1)), "{pair:?}");
        }
        let views: i64 = expected.views.values().sum();
        assert!((3_000..10_000).contains(&views), "{views}");
    }
}
