//! The one place that knows how far every split has got, and so the job's watermark (rules T8, T9).
//!
//! A worker reports a split's own watermark after the batch that moved it has left, and sends the
//! job's watermark, read here, down its streams. A receiver takes the minimum over the workers. That
//! minimum is never ahead of a split that is active: a split that comes back from idleness gets a
//! floor, under this lock, that is not below any watermark read before.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::flow::Signal;
use crate::record::SplitId;
use crate::time::Timestamp;

/// What a split is to the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitState {
    /// It holds the job's watermark.
    Active,
    /// Somebody is about to make it idle: it still holds the watermark, and its reader waits.
    Idling,
    /// It does not hold the watermark.
    Idle,
    /// There was a record after idleness; the reader waits for a floor.
    Waking,
    /// It has been read to its end. Whether it still holds the watermark is the run's choice.
    Ended,
}

/// One split, as the tracker sees it.
#[derive(Debug, Clone)]
pub(crate) struct Tracked {
    pub(crate) id: SplitId,
    pub(crate) state: SplitState,
    pub(crate) own: Timestamp,
    /// The first watermark that it had in this run.
    pub(crate) first_own: Option<Timestamp>,
    pub(crate) floor: Option<Timestamp>,
    /// Since when the split has been known to be read to its end, without a record.
    pub(crate) caught_up_since: Option<Duration>,
    pub(crate) next: u64,
    pub(crate) lag: Option<u64>,
    /// It was idle here before the restart, and is again once it has been read to here.
    pub(crate) idle_at: Option<u64>,
    /// How long its source may be silent.
    pub(crate) idle_after: Option<Duration>,
    /// Whether a sink lacks records that have been read (rule D5).
    pub(crate) behind: bool,
}

/// All splits of a job.
#[derive(Debug)]
pub(crate) struct Tracker {
    splits: Mutex<Vec<Tracked>>,
    watermark: AtomicI64,
    /// Whether a split that has ended still holds the watermark (`--keep-open`).
    ended_splits_hold: bool,
    /// How far one split may be ahead of the slowest one that has unread records.
    drift: Duration,
    workers: Vec<Arc<Signal>>,
    coordinator: Arc<Signal>,
}

impl Tracker {
    pub(crate) fn new(
        watermark: Timestamp,
        ended_splits_hold: bool,
        drift: Duration,
        workers: Vec<Arc<Signal>>,
        coordinator: Arc<Signal>,
    ) -> Arc<Self> {
        Arc::new(Self {
            splits: Mutex::default(),
            watermark: AtomicI64::new(watermark.as_micros()),
            ended_splits_hold,
            drift,
            workers,
            coordinator,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tracked>> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a split; its index is the next one.
    pub(crate) fn add(&self, split: Tracked) -> u32 {
        let mut splits = self.lock();
        splits.push(split);
        u32::try_from(splits.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds a split that is new to a running job, with a floor that `durable` has made durable.
    /// Returns its index and the floor. `at_least` is the highest watermark of any sink.
    pub(crate) fn add_late<E>(
        &self,
        mut split: Tracked,
        at_least: Timestamp,
        durable: impl FnOnce(Timestamp) -> Result<(), E>,
    ) -> Result<(u32, Timestamp), E> {
        // Under the lock, so that the job's watermark cannot pass the floor before it is in force.
        let mut splits = self.lock();
        let floor = self.watermark().max(at_least);
        durable(floor)?;
        split.floor = Some(floor);
        split.own = floor;
        splits.push(split);
        Ok((u32::try_from(splits.len() - 1).unwrap_or(u32::MAX), floor))
    }

    /// The job's watermark.
    pub(crate) fn watermark(&self) -> Timestamp {
        Timestamp::from_micros(self.watermark.load(Ordering::Acquire))
    }

    /// The worker has sent everything of a split up to its own watermark.
    pub(crate) fn advance(&self, split: u32, own: Timestamp, next: u64, lag: Option<u64>) {
        let mut splits = self.lock();
        if let Some(tracked) = splits.get_mut(split as usize) {
            tracked.own = tracked.own.max(own);
            if tracked.own > Timestamp::MIN {
                tracked.first_own.get_or_insert(tracked.own);
            }
            tracked.next = next;
            tracked.lag = lag;
            tracked.caught_up_since = None;
            if tracked.state == SplitState::Active && tracked.idle_at.is_some_and(|at| next >= at) {
                tracked.state = SplitState::Idle;
                tracked.idle_at = None;
            }
        }
        self.settle(&splits);
    }

    /// A read found nothing; `caught_up` tells whether that is certain to be the end.
    pub(crate) fn nothing(&self, split: u32, caught_up: bool, now: Duration) {
        if let Some(tracked) = self.lock().get_mut(split as usize) {
            match caught_up {
                true => {
                    tracked.caught_up_since.get_or_insert(now);
                    tracked.lag = Some(0);
                }
                false => tracked.caught_up_since = None,
            }
        }
    }

    /// The split was not read, so there is no evidence that it is still at its end (rule T8).
    pub(crate) fn paused(&self, split: u32) {
        if let Some(tracked) = self.lock().get_mut(split as usize) {
            tracked.caught_up_since = None;
        }
    }

    pub(crate) fn end(&self, split: u32) {
        let mut splits = self.lock();
        if let Some(tracked) = splits.get_mut(split as usize) {
            tracked.state = SplitState::Ended;
            tracked.lag = Some(0);
        }
        self.settle(&splits);
        drop(splits);
        self.call();
    }

    /// Whether a reader may stamp records of the split, and the floor to stamp them with.
    ///
    /// A split that is idle asks to be woken by this; one that is about to become idle waits.
    pub(crate) fn may_stamp(&self, split: u32) -> Option<Option<Timestamp>> {
        let mut splits = self.lock();
        let tracked = splits.get_mut(split as usize)?;
        match tracked.state {
            SplitState::Active | SplitState::Ended => Some(tracked.floor),
            SplitState::Idle => {
                tracked.state = SplitState::Waking;
                self.call();
                None
            }
            SplitState::Idling | SplitState::Waking => None,
        }
    }

    /// Splits that could become idle now: read to the end for their source's time-out. If all that are active
    /// qualify, the one that is furthest stays active, so that the watermark stands where the data
    /// brought it. They are held until [`set_idle`](Self::set_idle).
    pub(crate) fn begin_idle(&self, now: Duration) -> Vec<u32> {
        let mut splits = self.lock();
        let holds = |t: &Tracked| matches!(t.state, SplitState::Active | SplitState::Idling);
        let active = splits.iter().filter(|t| holds(t)).count();
        let mut quiet: Vec<u32> = splits
            .iter()
            .enumerate()
            .filter(|(_, t)| {
                let quiet = t.caught_up_since.map(|since| now.saturating_sub(since));
                t.state == SplitState::Active
                    && quiet.zip(t.idle_after).is_some_and(|(quiet, after)| quiet >= after)
            })
            .filter_map(|(i, _)| u32::try_from(i).ok())
            .collect();
        if quiet.len() == active {
            let furthest = quiet.iter().copied().max_by_key(|&i| splits[i as usize].own);
            quiet.retain(|i| Some(*i) != furthest);
        }
        for &i in &quiet {
            splits[i as usize].state = SplitState::Idling;
        }
        quiet
    }

    /// The name of a split, and its next record.
    pub(crate) fn position(&self, split: u32) -> Option<(SplitId, u64)> {
        self.lock().get(split as usize).map(|t| (t.id.clone(), t.next))
    }

    /// The fact is durable: the split no longer holds the watermark.
    pub(crate) fn set_idle(&self, split: u32) {
        let mut splits = self.lock();
        if let Some(tracked) = splits.get_mut(split as usize) {
            tracked.state = SplitState::Idle;
        }
        self.settle(&splits);
    }

    /// Splits that wait for a floor, and the position that it will hold from.
    pub(crate) fn waking(&self) -> Vec<(u32, SplitId, u64)> {
        let splits = self.lock();
        let waking = splits.iter().enumerate().filter(|(_, t)| t.state == SplitState::Waking);
        waking.filter_map(|(i, t)| Some((u32::try_from(i).ok()?, t.id.clone(), t.next))).collect()
    }

    /// Makes a split active with a floor that `durable` has made durable. `at_least` is the highest
    /// watermark of any sink.
    pub(crate) fn wake<E>(
        &self,
        split: u32,
        at_least: Timestamp,
        durable: impl FnOnce(Timestamp) -> Result<(), E>,
    ) -> Result<(), E> {
        // Under the lock, so that the job's watermark cannot pass the floor before it is in force.
        let mut splits = self.lock();
        let floor = self.watermark().max(at_least);
        durable(floor)?;
        if let Some(tracked) = splits.get_mut(split as usize) {
            tracked.state = SplitState::Active;
            tracked.floor = Some(tracked.floor.map_or(floor, |old| old.max(floor)));
            tracked.own = tracked.own.max(floor);
            tracked.caught_up_since = None;
        }
        drop(splits);
        self.ring();
        Ok(())
    }

    /// Whether a split must wait for slower ones, so that state stays bounded.
    pub(crate) fn too_far_ahead(&self, split: u32) -> bool {
        let splits = self.lock();
        let Some(this) = splits.get(split as usize) else { return false };
        if this.own == Timestamp::MIN {
            return false;
        }
        let slowest = splits
            .iter()
            .filter(|t| t.state == SplitState::Active && t.caught_up_since.is_none())
            .map(|t| t.own)
            .min();
        // Of a split without a record nothing is known; others may go on by as much as if it began
        // where they did.
        let begin = this.first_own.unwrap_or(this.own);
        let base = slowest.map(|slowest| if slowest == Timestamp::MIN { begin } else { slowest });
        base.is_some_and(|base| this.own > base.saturating_add(self.drift))
    }

    /// Some sink lacks records of the split, or none does any more.
    pub(crate) fn set_behind(&self, split: u32, behind: bool) {
        if let Some(tracked) = self.lock().get_mut(split as usize) {
            tracked.behind = behind;
        }
        self.call();
    }

    /// Whether every split has ended, and every sink has been sent all of it.
    pub(crate) fn all_ended(&self) -> bool {
        self.lock().iter().all(|t| t.state == SplitState::Ended && !t.behind)
    }

    /// Sets the watermark by decree: at the end of a bounded input.
    pub(crate) fn close(&self, watermark: Timestamp) {
        self.watermark.fetch_max(watermark.as_micros(), Ordering::AcqRel);
        self.ring();
    }

    pub(crate) fn snapshot(&self) -> Vec<Tracked> {
        self.lock().clone()
    }

    fn settle(&self, splits: &[Tracked]) {
        let holds = |t: &&Tracked| match t.state {
            SplitState::Active | SplitState::Idling => true,
            SplitState::Ended => self.ended_splits_hold,
            SplitState::Idle | SplitState::Waking => false,
        };
        if let Some(low) = splits.iter().filter(holds).map(|t| t.own).min() {
            let before = self.watermark.fetch_max(low.as_micros(), Ordering::AcqRel);
            if low.as_micros() > before {
                self.ring();
            }
        }
    }

    pub(crate) fn ring(&self) {
        self.workers.iter().for_each(|worker| worker.ring());
    }

    /// There is something for the coordinator to decide.
    pub(crate) fn call(&self) {
        self.coordinator.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_micros(s * 1_000_000)
    }

    fn tracker(owns: &[i64]) -> Arc<Tracker> {
        let tracker = Tracker::new(Timestamp::MIN, false, seconds(100), vec![], Signal::new());
        for (i, _) in owns.iter().enumerate() {
            tracker.add(Tracked {
                id: SplitId::new(format!("s/{i}")),
                state: SplitState::Active,
                own: Timestamp::MIN,
                first_own: None,
                floor: None,
                caught_up_since: None,
                next: 0,
                lag: None,
                idle_at: None,
                idle_after: Some(seconds(30)),
                behind: false,
            });
        }
        for (i, own) in owns.iter().enumerate() {
            tracker.advance(i as u32, at(*own), 1, None);
        }
        tracker
    }

    #[test]
    fn the_watermark_is_the_minimum_and_never_sinks() {
        let tracker = tracker(&[10, 20]);
        assert_eq!(tracker.watermark(), at(10));
        tracker.advance(0, at(30), 2, None);
        assert_eq!(tracker.watermark(), at(20));
        tracker.advance(1, at(5), 2, None);
        assert_eq!(tracker.watermark(), at(20));
    }

    #[test]
    fn t8_the_furthest_split_stays_active_if_all_are_quiet() {
        let tracker = tracker(&[10, 20, 15]);
        (0..3).for_each(|i| tracker.nothing(i, true, seconds(1)));
        assert!(tracker.begin_idle(seconds(30)).is_empty());
        assert_eq!(tracker.begin_idle(seconds(31)), [0, 2]);
        assert_eq!(tracker.watermark(), at(10), "nothing moves before the fact is durable");
        tracker.set_idle(0);
        tracker.set_idle(2);
        assert_eq!(tracker.watermark(), at(20));
    }

    #[test]
    fn t8_a_split_without_evidence_of_its_end_never_becomes_idle() {
        let tracker = tracker(&[10, 20]);
        tracker.nothing(0, true, seconds(1));
        tracker.nothing(0, false, seconds(2));
        assert!(tracker.begin_idle(seconds(100)).is_empty());
    }

    #[test]
    fn t9_a_split_back_from_idleness_gets_the_watermark_as_its_floor() {
        let tracker = tracker(&[10, 20]);
        tracker.nothing(0, true, seconds(1));
        tracker.begin_idle(seconds(31));
        assert_eq!(tracker.may_stamp(0), None, "the reader waits while the decision is made");
        tracker.set_idle(0);
        assert_eq!(tracker.may_stamp(0), None);
        assert_eq!(tracker.waking().len(), 1);
        tracker
            .wake(0, at(25), |floor| {
                assert_eq!(floor, at(25), "a sink may be ahead of the watermark");
                Ok::<_, ()>(())
            })
            .unwrap();
        assert_eq!(tracker.may_stamp(0), Some(Some(at(25))));
        tracker.advance(1, at(500), 2, None);
        assert_eq!(tracker.watermark(), at(25));
        assert!(tracker.too_far_ahead(1) && !tracker.too_far_ahead(0));
    }

    #[test]
    fn a_split_without_a_record_does_not_stop_the_others_at_once() {
        let tracker = tracker(&[10]);
        tracker.add(Tracked {
            own: Timestamp::MIN,
            first_own: None,
            ..tracker.snapshot().remove(0)
        });
        tracker.advance(0, at(110), 2, None);
        assert!(!tracker.too_far_ahead(0));
        tracker.advance(0, at(111), 3, None);
        assert!(tracker.too_far_ahead(0));
    }

    #[test]
    fn d10_ended_splits_release_the_watermark_unless_the_run_is_kept_open() {
        let tracker = tracker(&[10, 20]);
        tracker.end(0);
        assert_eq!(tracker.watermark(), at(20));
        assert!(!tracker.all_ended());
        tracker.end(1);
        assert!(tracker.all_ended());
    }

    #[test]
    fn d5_the_end_is_not_reached_while_a_sink_lacks_something() {
        let tracker = tracker(&[10]);
        tracker.set_behind(0, true);
        tracker.end(0);
        assert!(!tracker.all_ended());
        tracker.set_behind(0, false);
        assert!(tracker.all_ended());
    }
}
