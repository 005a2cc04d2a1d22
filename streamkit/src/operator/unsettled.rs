//! Events that the watermark has not passed, of all keys, given out in the order of their times.
//!
//! ```text
//! passing   [e e e]            sorted: the stretch that the watermark is in
//! added     heap               what has come for that stretch since: little
//! later     [e..] [e..] [e..]  a stretch each, as they came
//! ```
//!
//! Adding an event is an append. A stretch is sorted once, when the watermark gets to it; until then a
//! checkpoint needs only its tail, what has come since the one before.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pane_list::PaneList;
use crate::state::Since;
use crate::time::Timestamp;
use crate::window::pane_start;

/// The order in which events of one instant are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Role {
    Start,
    Other,
    End,
}

/// An event of some key.
#[derive(Debug, Clone)]
pub(crate) struct Event<S> {
    pub(crate) time: Timestamp,
    pub(crate) slot: u32,
    pub(crate) role: Role,
    /// Whether a checkpoint has it: of an event that is in the list of a later stretch, the list says
    /// so.
    stored: bool,
    pub(crate) accumulator: S,
}

impl<S> Event<S> {
    #[inline]
    pub(crate) fn new(time: Timestamp, slot: u32, role: Role, accumulator: S) -> Self {
        Self { time, slot, role, stored: false, accumulator }
    }

    /// Events are applied in this order of (time, role, slot), and those that are equal in it count as
    /// one. It is a single number, since that is compared faster.
    #[inline]
    pub(crate) fn order(&self) -> u128 {
        let time = self.time.as_micros() as u64 ^ (1 << 63);
        u128::from(time) << 64 | (self.role as u128) << 32 | u128::from(self.slot)
    }
}

/// The events of all keys.
#[derive(Debug)]
pub(crate) struct Unsettled<S> {
    width: i64,
    passing: std::vec::IntoIter<Event<S>>,
    /// Where the stretch ends that is passing.
    passing_end: i64,
    added: BinaryHeap<Added<S>>,
    later: PaneList<Stretch<S>>,
    /// How many have ever been added: those of one instant keep their order.
    count: u64,
}

/// Events of a stretch that the watermark has not got to, as they came.
#[derive(Debug)]
struct Stretch<S> {
    events: Vec<Event<S>>,
    /// How many of them a checkpoint has, and which of these are yet to be written.
    stored: usize,
    frozen: Range<usize>,
}

impl<S> Default for Stretch<S> {
    fn default() -> Self {
        Self { events: vec![], stored: 0, frozen: 0..0 }
    }
}

/// The first in order is the greatest.
#[derive(Debug)]
struct Added<S>(Event<S>, u64);

impl<S> Added<S> {
    fn order(&self) -> (u128, u64) {
        (self.0.order(), self.1)
    }
}

impl<S> PartialEq for Added<S> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<S> Eq for Added<S> {}

impl<S> PartialOrd for Added<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> Ord for Added<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

impl<S> Unsettled<S> {
    /// For events of sessions with this gap: a stretch is a small part of it.
    pub(crate) fn new(gap: Duration) -> Self {
        Self {
            width: i64::try_from(gap.as_micros() / 1_024).unwrap_or(i64::MAX).max(1_000),
            passing: vec![].into_iter(),
            passing_end: i64::MIN,
            added: BinaryHeap::new(),
            later: PaneList::default(),
            count: 0,
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, event: Event<S>) {
        let time = event.time.as_micros();
        if time < self.passing_end {
            self.count += 1;
            self.added.push(Added(event, self.count));
        } else {
            self.later.around(time, self.width).1.events.push(event);
        }
    }

    /// Takes the next event if its time is before `until`.
    #[inline]
    pub(crate) fn pop(&mut self, until: Timestamp) -> Option<Event<S>> {
        loop {
            let next = self.passing.as_slice().first();
            if let Some(added) = self.added.peek()
                && next.is_none_or(|next| added.0.order() < next.order())
            {
                return if added.0.time < until { self.added.pop().map(|a| a.0) } else { None };
            }
            if let Some(next) = next {
                return if next.time < until { self.passing.next() } else { None };
            }
            let (start, _) = self.later.first().filter(|(at, _)| *at < until.as_micros())?;
            let Stretch { mut events, stored, frozen } = self.later.pop_first().unwrap_or_default();
            debug_assert!(frozen.is_empty(), "events are written before they are taken");
            events[..stored].iter_mut().for_each(|event| event.stored = true);
            events.sort_by_key(Event::order);
            self.passing = events.into_iter();
            self.passing_end = start.saturating_add(self.width);
        }
    }

    /// Takes the next event if it is equal to one that was taken just before.
    #[inline]
    pub(crate) fn pop_equal(&mut self, order: u128) -> Option<Event<S>> {
        if self.passing.as_slice().first().is_some_and(|next| next.order() == order) {
            return self.passing.next();
        }
        let added = self.added.peek().is_some_and(|added| added.0.order() == order);
        if added { self.added.pop().map(|added| added.0) } else { None }
    }

    /// The event that comes `n` after the next one, roughly.
    #[inline]
    pub(crate) fn ahead(&self, n: usize) -> Option<&Event<S>> {
        self.passing.as_slice().get(n)
    }

    /// The time behind a stretch, by its start.
    pub(crate) fn end_of(&self, stretch: i64) -> Timestamp {
        Timestamp::from_micros(stretch.saturating_add(self.width))
    }

    /// Notes what a checkpoint is to hold: everything, or what none has. `now` gets what cannot wait,
    /// which is a part of one stretch, with the start of that; the rest is for
    /// [`write_frozen`](Self::write_frozen).
    pub(crate) fn freeze(&mut self, since: Since, mut now: impl FnMut(i64, &Event<S>)) {
        let all = since == Since::Beginning;
        let mut added = std::mem::take(&mut self.added).into_vec();
        let passing = self.passing.as_mut_slice().iter_mut();
        for event in passing.chain(added.iter_mut().map(|added| &mut added.0)) {
            if all || !event.stored {
                now(pane_start(event.time.as_micros(), self.width), event);
            }
            event.stored = true;
        }
        self.added = added.into();
        for (_, later) in self.later.iter_mut() {
            later.frozen = if all { 0 } else { later.stored }..later.events.len();
            later.stored = later.events.len();
        }
    }

    /// Hands over what is frozen of the stretches that start before `before`, until `write` says that
    /// it is enough for now. True if that is all.
    pub(crate) fn write_frozen(
        &mut self,
        before: i64,
        mut write: impl FnMut(i64, &Event<S>) -> bool,
    ) -> bool {
        let due = self.later.iter_mut().take_while(|(start, _)| *start < before);
        for (start, stretch) in due {
            for at in stretch.frozen.by_ref() {
                if !write(start, &stretch.events[at]) {
                    return false;
                }
            }
        }
        true
    }

    /// The starts of all stretches that have events.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = i64> {
        let passing = self.passing.as_slice().iter().chain(self.added.iter().map(|a| &a.0));
        let passing = passing.map(|event| pane_start(event.time.as_micros(), self.width));
        passing.chain(self.later.iter().map(|(start, _)| start))
    }

    /// A checkpoint has all events that are there.
    pub(crate) fn all_are_stored(&mut self) {
        self.later.iter_mut().for_each(|(_, stretch)| stretch.stored = stretch.events.len());
    }

    /// All events, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event<S>> {
        let later = self.later.iter().flat_map(|(_, stretch)| &stretch.events);
        self.passing.as_slice().iter().chain(self.added.iter().map(|a| &a.0)).chain(later)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::seconds;

    proptest! {
        #[test]
        fn events_come_out_sorted_however_they_came_in(
            steps in prop::collection::vec((0i64..9_000, 0u32..3, 0u8..4), 0..200),
        ) {
            let mut unsettled = Unsettled::new(seconds(1));
            let mut expected: Vec<(Timestamp, Role, u32, usize)> = vec![];
            let mut until = Timestamp::MIN;
            for (n, (time, slot, what)) in steps.into_iter().enumerate() {
                let time = Timestamp::from_micros(time);
                if what == 3 {
                    until = until.max(time);
                    let due = expected.partition_point(|(at, ..)| *at < until);
                    for (at, role, slot, n) in expected.drain(..due) {
                        let event = unsettled.pop(until).unwrap();
                        prop_assert_eq!((event.time, event.role, event.slot), (at, role, slot));
                        prop_assert_eq!(event.accumulator, n, "in the order of arrival");
                    }
                    prop_assert!(unsettled.pop(until).is_none());
                } else {
                    let time = time.max(until);
                    let role = [Role::Start, Role::Other, Role::End][usize::from(what)];
                    unsettled.add(Event::new(time, slot, role, n));
                    expected.push((time, role, slot, n));
                    expected.sort_unstable();
                }
                prop_assert_eq!(unsettled.iter().count(), expected.len());
            }
        }

        /// Whatever is added and taken while a checkpoint is written, it holds each event that was there
        /// when it began, and none that an earlier one holds.
        #[test]
        fn an_event_is_written_once(
            steps in prop::collection::vec((0i64..9_000, 0u8..6), 0..200),
        ) {
            let mut unsettled = Unsettled::new(seconds(1));
            let (mut until, mut waiting, mut stored, mut due) = (0, vec![], vec![], vec![]);
            for (n, (time, what)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        until = until.max(time);
                        unsettled.write_frozen(until, |_, event: &Event<usize>| {
                            stored.push(event.accumulator);
                            true
                        });
                        while let Some(event) = unsettled.pop(Timestamp::from_micros(until)) {
                            waiting.retain(|n| *n != event.accumulator);
                        }
                    }
                    1 if due.is_empty() => {
                        due = waiting.clone();
                        unsettled.freeze(Since::Last, |_, event| stored.push(event.accumulator));
                    }
                    2 | 3 => {
                        let all = unsettled.write_frozen(i64::MAX, |_, event| {
                            stored.push(event.accumulator);
                            false
                        });
                        if all {
                            prop_assert!(due.drain(..).all(|n| stored.contains(&n)));
                        }
                    }
                    _ => {
                        let time = Timestamp::from_micros(time.max(until));
                        unsettled.add(Event::new(time, 0, Role::Other, n));
                        waiting.push(n);
                    }
                }
                let mut once = stored.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), stored.len());
            }
        }
    }
}
