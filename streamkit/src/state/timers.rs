//! Event-time timers: for each slot the next time at which something may be due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Timestamp;

/// At most one timer per slot: the earliest that was asked for.
///
/// A timer that was moved forwards leaves a stale entry in the heap, which is recognised when it
/// comes up: it is no longer the slot's due time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, u32)>>,
    due: Vec<Timestamp>,
}

impl Timers {
    /// Makes the slot's timer due at `time` or earlier.
    #[inline]
    pub(crate) fn at_latest(&mut self, slot: u32, time: Timestamp) {
        let i = slot as usize;
        if i >= self.due.len() {
            self.due.resize((i + 1).max(self.due.len() * 2), Timestamp::MAX);
        }
        if time < self.due[i] {
            self.due[i] = time;
            self.heap.push(Reverse((time, slot)));
        }
    }

    /// The earliest timer that is due at `until` or before; it is removed.
    pub(crate) fn pop(&mut self, until: Timestamp) -> Option<(Timestamp, u32)> {
        while let Some(&Reverse((time, slot))) = self.heap.peek() {
            if time > until {
                return None;
            }
            self.heap.pop();
            if self.due[slot as usize] == time {
                self.due[slot as usize] = Timestamp::MAX;
                return Some((time, slot));
            }
        }
        None
    }

    /// The time of the earliest timer; it may be a stale one, so nothing is due before it.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }
}

#[cfg(test)]
mod tests {
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
}
