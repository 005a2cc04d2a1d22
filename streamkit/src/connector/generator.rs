//! Synthetic records: item n of a split is a pure function of (split, n).
//!
//! So it can be read from any position, again and again, with the same result: what every source
//! must be able to do. Pace never changes content.

use std::sync::Arc;
use std::time::Duration;

use super::{ReadBatch, ReadStatus, Source, SplitReader, Wake};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::record::{Split, SplitId};
use crate::time::{Clock, SystemClock};

type Make<T> = Arc<dyn Fn(u32, u64) -> T + Send + Sync>;

/// A source of made-up items. The position is the item's number.
pub struct Generator<T> {
    splits: u32,
    count: Option<u64>,
    per_second: Option<u64>,
    clock: Arc<dyn Clock>,
    make: Make<T>,
}

impl<T> std::fmt::Debug for Generator<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator")
            .field("splits", &self.splits)
            .field("count", &self.count)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

impl<T> Generator<T> {
    /// Endless items, as fast as they are taken: `make(split, n)` is item `n` of a split.
    pub fn new(splits: u32, make: impl Fn(u32, u64) -> T + Send + Sync + 'static) -> Self {
        Self {
            splits,
            count: None,
            per_second: None,
            clock: Arc::new(SystemClock::new()),
            make: Arc::new(make),
        }
    }

    /// Ends each split after `count` items.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// At most this many items a second in each split, counted from when the split is opened.
    #[must_use]
    pub fn per_second(mut self, items: u64) -> Self {
        self.per_second = Some(items);
        self
    }

    /// The clock of the pace, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl<T: Data> Source for Generator<T> {
    type Item = T;

    fn describe(&self) -> String {
        format!("generator, {} splits", self.splits)
    }

    fn splits(&self, _known: &[Split]) -> Result<Vec<Split>> {
        let split = |i: u32| Split {
            id: SplitId::new(format!("generator/{i}")),
            topic: "generator".into(),
            partition: i32::try_from(i).unwrap_or(i32::MAX),
            memo: String::new(),
        };
        Ok((0..self.splits).map(split).collect())
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(0)
    }

    fn end(&self, split: &Split) -> Result<u64> {
        self.count.ok_or_else(|| {
            Error::user(format!(
                "{} is endless, so a run that ends with its input needs Generator::count",
                split.id
            ))
        })
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        _wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = T>>> {
        Ok(Box::new(Reader {
            split: u32::try_from(split.partition).unwrap_or(0),
            next: position,
            first: position,
            opened: self.clock.elapsed(),
            end: self.count.unwrap_or(u64::MAX),
            per_second: self.per_second,
            clock: Arc::clone(&self.clock),
            make: Arc::clone(&self.make),
        }))
    }
}

struct Reader<T> {
    split: u32,
    next: u64,
    first: u64,
    opened: Duration,
    end: u64,
    per_second: Option<u64>,
    clock: Arc<dyn Clock>,
    make: Make<T>,
}

impl<T> SplitReader for Reader<T> {
    type Item = T;

    fn read(&mut self, batch: &mut ReadBatch<T>, max: usize) -> Result<ReadStatus> {
        let mut until = self.end.min(self.next.saturating_add(max as u64));
        if let Some(rate) = self.per_second {
            let open = self.clock.elapsed().saturating_sub(self.opened);
            let due = open.as_micros().saturating_mul(u128::from(rate)) / 1_000_000;
            until = until.min(self.first.saturating_add(u64::try_from(due).unwrap_or(u64::MAX)));
        }
        while self.next < until {
            batch.push(self.next, (self.make)(self.split, self.next));
            self.next += 1;
        }
        Ok(match (self.next >= self.end, batch.is_empty()) {
            (true, _) => ReadStatus::Ended,
            // Ahead of its pace. The worker looks again by itself after some milliseconds.
            (false, true) => ReadStatus::CaughtUp,
            (false, false) => ReadStatus::More,
        })
    }

    fn lag(&self) -> Option<u64> {
        (self.end != u64::MAX).then(|| self.end - self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ManualClock, Timestamp, seconds};

    #[test]
    fn an_item_is_the_same_from_every_position_and_comes_at_its_pace() {
        let clock = ManualClock::at(Timestamp::from_micros(0));
        let source =
            Generator::new(2, |split, n| (split, n)).count(10).per_second(3).clock(clock.clone());
        let splits = source.splits(&[]).unwrap();
        let mut reader = source.open(&splits[1], 4, Wake::new(|| {})).unwrap();
        let mut batch = ReadBatch::default();
        assert_eq!(reader.read(&mut batch, 100).unwrap(), ReadStatus::CaughtUp);
        clock.advance(seconds(1));
        assert_eq!(reader.read(&mut batch, 100).unwrap(), ReadStatus::More);
        let items: Vec<_> = batch.iter().map(|(at, item)| (at, *item)).collect();
        assert_eq!(items, [(4, (1, 4)), (5, (1, 5)), (6, (1, 6))]);
        clock.advance(seconds(100));
        assert_eq!(reader.read(&mut batch, 100).unwrap(), ReadStatus::Ended);
        assert_eq!(batch.next(), 10);
    }
}
