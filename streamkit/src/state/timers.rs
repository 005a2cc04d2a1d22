//! Event-time timers: for each slot the next time at which something may be due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::time::Timestamp;

/// At most one timer per slot: the earliest that was asked for.
///
/// A timer that was moved forwards leaves a stale entry, which is recognised when it comes up: it is
/// no longer the slot's due time.
///
/// Most timers are set for the same span after a time that goes on, so each is due after all others:
/// those are a queue. Only what is set for earlier needs a heap.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Ascending by time and slot: two columns, which take less than pairs would.
    times: VecDeque<Timestamp>,
    slots: VecDeque<u32>,
    heap: BinaryHeap<Reverse<(Timestamp, u32)>>,
    due: Vec<Timestamp>,
}

impl Timers {
    /// Makes the slot's timer due at `time` or earlier.
    #[inline]
    pub(crate) fn at_latest(&mut self, slot: u32, time: Timestamp) {
        let i = slot as usize;
        if i >= self.due.len() {
            self.due.resize(i + 1, Timestamp::MAX);
        }
        if time < self.due[i] {
            self.due[i] = time;
            let last = self.times.back().copied().zip(self.slots.back().copied());
            if last.is_some_and(|last| (time, slot) < last) {
                self.heap.push(Reverse((time, slot)));
            } else {
                self.times.push_back(time);
                self.slots.push_back(slot);
            }
        }
    }

    /// The earliest timer that is due at `until` or before; it is removed.
    pub(crate) fn pop(&mut self, until: Timestamp) -> Option<(Timestamp, u32)> {
        while let Some((time, slot)) = self.first() {
            if time > until {
                return None;
            }
            if self.queued() == Some((time, slot)) {
                self.times.pop_front();
                self.slots.pop_front();
            } else {
                self.heap.pop();
            }
            if self.due[slot as usize] == time {
                self.due[slot as usize] = Timestamp::MAX;
                return Some((time, slot));
            }
        }
        None
    }

    /// The time of the earliest timer; it may be a stale one, so nothing is due before it.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.first().map(|(time, _)| time)
    }

    fn first(&self) -> Option<(Timestamp, u32)> {
        match (self.queued(), self.heap.peek().map(|Reverse(timer)| *timer)) {
            (Some(queued), Some(heaped)) => Some(queued.min(heaped)),
            (one, other) => one.or(other),
        }
    }

    fn queued(&self) -> Option<(Timestamp, u32)> {
        self.times.front().copied().zip(self.slots.front().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_earliest_timer_of_a_slot_fires() {
        let at = Timestamp::from_micros;
        let mut timers = Timers::default();
        timers.at_latest(7, at(50));
        timers.at_latest(7, at(20));
        timers.at_latest(7, at(30));
        timers.at_latest(1, at(25));
        assert_eq!(timers.pop(at(10)), None);
        assert_eq!(timers.pop(at(100)), Some((at(20), 7)));
        assert_eq!(timers.pop(at(100)), Some((at(25), 1)));
        assert_eq!(timers.pop(at(100)), None, "the one at 50 is stale");
        timers.at_latest(7, at(50));
        assert_eq!(timers.pop(at(100)), Some((at(50), 7)));
    }

    proptest! {
        #[test]
        fn timers_come_in_order_whatever_order_they_were_set_in(
            set in prop::collection::vec((0u32..8, 0i64..100), 0..60),
        ) {
            let mut timers = Timers::default();
            let mut expected = std::collections::BTreeMap::new();
            for (slot, time) in set {
                timers.at_latest(slot, Timestamp::from_micros(time));
                let due = expected.entry(slot).or_insert(time);
                *due = time.min(*due);
            }
            let mut expected: Vec<_> = expected.into_iter().map(|(slot, due)| (due, slot)).collect();
            expected.sort_unstable();
            let all = std::iter::from_fn(|| timers.pop(Timestamp::MAX));
            let all: Vec<_> = all.map(|(time, slot)| (time.as_micros(), slot)).collect();
            prop_assert_eq!(all, expected);
        }
    }
}
