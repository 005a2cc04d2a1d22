//! What time means for a source: the event time of a record, and how far a split has got.

use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;

/// Appends the event times of records. Of many at a time, so that the user's closure is called where
/// it can be compiled into the loop.
pub(crate) type EventTimes<T> = Arc<dyn Fn(&[T], &mut Vec<Timestamp>) + Send + Sync>;

/// How event times are read from records, and how a split's watermark follows from them.
///
/// Each split (a Kafka partition, a file) has its own watermark: the highest event time accepted
/// from it so far, less the bound on disorder. The job's watermark is the minimum over the splits
/// that are not idle. A source cannot be had without a strategy (as in Flink's
/// `WatermarkStrategy`, whose words these are).
pub struct WatermarkStrategy<T> {
    pub(crate) event_times: EventTimes<T>,
    pub(crate) out_of_orderness: Duration,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) max_future: Option<Duration>,
}

impl<T> Clone for WatermarkStrategy<T> {
    fn clone(&self) -> Self {
        Self { event_times: Arc::clone(&self.event_times), ..*self }
    }
}

impl<T> std::fmt::Debug for WatermarkStrategy<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatermarkStrategy")
            .field("out_of_orderness", &self.out_of_orderness)
            .field("idle_after", &self.idle_after)
            .field("max_future", &self.max_future)
            .finish_non_exhaustive()
    }
}

impl<T> WatermarkStrategy<T> {
    /// Records may come up to `bound` of event time after a later one of the same split.
    ///
    /// A record that is `bound` behind exactly is still on time: the watermark says that no record
    /// *before* it will come.
    #[must_use]
    pub fn bounded_out_of_orderness(
        bound: Duration,
        event_time: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            event_times: Arc::new(move |records, times| {
                records.iter().for_each(|record| times.push(event_time(record)));
            }),
            out_of_orderness: bound,
            idle_after: None,
            max_future: None,
        }
    }

    /// Event times never go backwards within a split.
    #[must_use]
    pub fn monotonous(event_time: impl Fn(&T) -> Timestamp + Send + Sync + 'static) -> Self {
        Self::bounded_out_of_orderness(Duration::ZERO, event_time)
    }

    /// A split that has been read to its end, and then brought no record for `timeout`, no longer
    /// holds the job's watermark back. Never: the default. Not used in bounded runs.
    #[must_use]
    pub fn idle_after(mut self, timeout: Duration) -> Self {
        self.idle_after = Some(timeout);
        self
    }

    /// A record whose event time is further than `limit` after the record's own timestamp is a dead
    /// letter (`future_event_time`) and does not move the watermark. No limit: the default.
    #[must_use]
    pub fn max_future(mut self, limit: Duration) -> Self {
        self.max_future = Some(limit);
        self
    }
}

/// One split's sense of time: what decides the mark of a record (rule T2) and the split's share in
/// the job's watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SplitTime {
    high: Option<Timestamp>,
    floor: Option<Timestamp>,
    delay: Duration,
    own: Timestamp,
}

impl SplitTime {
    pub(crate) fn new(high: Option<Timestamp>, floor: Option<Timestamp>, delay: Duration) -> Self {
        let mut new = Self { high, floor, delay, own: Timestamp::MIN };
        new.settle();
        new
    }

    /// The split's own watermark: the larger of (highest accepted event time − delay) and the floor.
    pub(crate) fn own(&self) -> Timestamp {
        self.own
    }

    fn settle(&mut self) {
        let from_data = self.high.map_or(Timestamp::MIN, |high| high.saturating_sub(self.delay));
        self.own = from_data.max(self.floor.unwrap_or(Timestamp::MIN));
    }

    /// Accepts a record at `time`; returns its mark if it is behind the split's watermark.
    #[inline]
    pub(crate) fn accept(&mut self, time: Timestamp) -> Option<Timestamp> {
        let own = self.own;
        if self.high.is_none_or(|high| time > high) {
            self.high = Some(time);
            self.settle();
        }
        (time < own).then_some(own)
    }

    pub(crate) fn high(&self) -> Option<Timestamp> {
        self.high
    }

    pub(crate) fn floor(&self) -> Option<Timestamp> {
        self.floor
    }

    pub(crate) fn set_floor(&mut self, floor: Timestamp) {
        self.floor = Some(self.floor.map_or(floor, |old| old.max(floor)));
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_micros(s * 1_000_000)
    }

    #[test]
    fn t2_the_mark_is_the_watermark_before_the_record() {
        let mut split = SplitTime::new(None, None, seconds(120));
        assert_eq!(split.accept(at(1_000)), None);
        assert_eq!(split.own(), at(880));
        assert_eq!(split.accept(at(880)), None, "exactly at the watermark is on time");
        assert_eq!(split.accept(at(879)), Some(at(880)));
        assert_eq!(split.accept(at(2_000)), None);
        assert_eq!(split.accept(at(1_000)), Some(at(1_880)));
    }

    #[test]
    fn t9_a_floor_holds_until_the_data_pass_it() {
        let mut split = SplitTime::new(Some(at(1_000)), None, seconds(120));
        split.set_floor(at(1_500));
        assert_eq!(split.accept(at(1_499)), Some(at(1_500)));
        assert_eq!(split.accept(at(1_700)), None);
        assert_eq!(split.own(), at(1_580));
        split.set_floor(at(1_400));
        assert_eq!(split.floor(), Some(at(1_500)), "a floor never sinks");
    }
}
