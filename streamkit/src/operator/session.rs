//! Sessions (rule T7): an operator of its own, not a window that merges. A start event in the middle
//! splits a run of events, and an earlier first event moves the cut of the maximum length, so what
//! is decided must wait for the watermark.
//!
//! Each key has at most one *open* session, of events before the watermark, and *unsettled* events
//! at or after it, or not long before. What the watermark has passed is applied in the order (time,
//! start < other < end): when the next event of the key comes, or its timer. The timer tells when
//! something may fire at the earliest; it is only ever early, and then set again.
//!
//! ```text
//! keys     slot → open session, first unsettled event     one entry a key, no allocation
//! events   lists through one vector                       as long as the delay lasts, few a key
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, STEP_ROWS};
use super::pending::{NONE, Pending};
use super::results::{Acks, Results, restore_entries};
use crate::data::{Data, Key};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{
    AHEAD, BitSet, KeyTable, Since, StateReader, StateWriter, Timers, decode, prefetch,
};
use crate::time::Timestamp;
use crate::window::{Aggregator, Session, SessionResult};

/// Finished sessions of each key.
pub(crate) struct Sessions<K: Key + ?Sized, T, A: Aggregator<T>> {
    rule: Session<T>,
    aggregator: Arc<A>,
    keys: Vec<KeyState<A::Accumulator>>,
    pending: Pending<Event<A::Accumulator>>,
    timers: Timers,
    /// Slots with state, and slots changed since the last checkpoint.
    live: BitSet,
    dirty: BitSet,
    results: Results<(Timestamp, Timestamp, A::Accumulator)>,
    open: u64,
    /// All timers up to here have come, in this process: what was restored may be behind what its
    /// neighbours have fired.
    passed: Timestamp,
    next: Box<dyn Link<SessionResult<K::Owned, A::Output>>>,
}

/// What a key has.
#[derive(Debug, Clone)]
struct KeyState<S> {
    open: Option<Open<S>>,
    /// The list of its unsettled events.
    unsettled: u32,
}

/// The same as a checkpoint holds it.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    open: Option<Open<S>>,
    unsettled: Vec<Event<S>>,
}

/// A session whose events so far are settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Open<S> {
    start: Timestamp,
    last: Timestamp,
    accumulator: S,
}

/// An event that the watermark has not passed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Event<S> {
    time: Timestamp,
    role: Role,
    accumulator: S,
}

/// The order in which events of one instant are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Role {
    Start,
    Other,
    End,
}

const KEY: u8 = b'K';

impl<S> Default for KeyState<S> {
    fn default() -> Self {
        Self { open: None, unsettled: NONE }
    }
}

impl<S> KeyState<S> {
    fn is_empty(&self) -> bool {
        self.open.is_none() && self.unsettled == NONE
    }
}

impl<K: Key + ?Sized, T: Data, A: Aggregator<T>> Sessions<K, T, A> {
    pub(crate) fn new(
        rule: Session<T>,
        aggregator: Arc<A>,
        acks: Acks,
        next: Box<dyn Link<SessionResult<K::Owned, A::Output>>>,
    ) -> Self {
        Self {
            rule,
            aggregator,
            keys: vec![],
            pending: Pending::default(),
            timers: Timers::default(),
            live: BitSet::default(),
            dirty: BitSet::default(),
            results: Results::new(acks),
            open: 0,
            passed: Timestamp::MIN,
            next,
        }
    }

    fn role(&self, record: &T) -> Role {
        if self.rule.starts.as_ref().is_some_and(|starts| starts(record)) {
            Role::Start
        } else if self.rule.ends.as_ref().is_some_and(|ends| ends(record)) {
            Role::End
        } else {
            Role::Other
        }
    }

    /// The earliest time at which an event alone can make something fire.
    fn earliest(&self, time: Timestamp, role: Role) -> Timestamp {
        match role {
            Role::Start | Role::End => time.next(),
            Role::Other => time.saturating_add(self.rule.gap.min(self.rule.max)),
        }
    }

    fn close_time(&self, open: &Open<A::Accumulator>) -> Timestamp {
        open.last.saturating_add(self.rule.gap).min(open.start.saturating_add(self.rule.max))
    }

    /// Applies what is before `until`.
    fn settle(&mut self, slot: u32, state: &mut KeyState<A::Accumulator>, until: Timestamp) {
        while let Some(event) = self.pending.pop_if(&mut state.unsettled, |e| e.time < until) {
            let Event { time, role, accumulator } = event;
            if let Some(open) = &mut state.open {
                let close = self.close_time(open);
                let splits = role == Role::Start && open.start < time;
                if time < close && !splits {
                    open.last = time;
                    self.aggregator.merge(&mut open.accumulator, &accumulator);
                    if role == Role::End {
                        self.close(slot, &mut state.open, time.next());
                    }
                    continue;
                }
                self.close(slot, &mut state.open, close.min(time.next()));
            }
            state.open = Some(Open { start: time, last: time, accumulator });
            self.open += 1;
            if role == Role::End {
                self.close(slot, &mut state.open, time.next());
            }
        }
    }

    /// Applies what is before `until` and fires what ends by then; sets the timer again.
    fn advance(&mut self, slot: u32, until: Timestamp) {
        let mut state = std::mem::take(&mut self.keys[slot as usize]);
        self.settle(slot, &mut state, until);
        if let Some(open) = &state.open {
            let close = self.close_time(open);
            let next = self.pending.first(state.unsettled);
            if close <= until && next.is_none_or(|event| event.time >= close) {
                self.close(slot, &mut state.open, close);
            }
        }
        self.dirty.insert(slot);
        if state.is_empty() {
            self.live.remove(slot);
        } else {
            let mut due = Timestamp::MAX;
            if let Some(open) = &state.open {
                due = self.close_time(open);
            }
            for event in self.pending.iter(state.unsettled) {
                due = due.min(self.earliest(event.time, event.role));
            }
            // Strictly later than this visit, or the same visit would come again.
            self.timers.at_latest(slot, due.max(until.next()));
        }
        self.keys[slot as usize] = state;
    }

    /// An event that the watermark has not passed.
    #[inline]
    fn add(&mut self, slot: u32, time: Timestamp, role: Role, record: &T) {
        let passed = self.passed;
        let unsettled = self.keys[slot as usize].unsettled;
        if self.pending.first(unsettled).is_some_and(|event| event.time < passed) {
            // Only these: whatever they end has fired, for a timer was set for it.
            let mut state = std::mem::take(&mut self.keys[slot as usize]);
            self.settle(slot, &mut state, passed);
            self.keys[slot as usize] = state;
        }
        let state = &mut self.keys[slot as usize];
        // Several starts or ends of one instant count as one event.
        let same = |e: &Event<_>| (e.time, e.role) == (time, role);
        let less = |e: &Event<_>| (e.time, e.role) < (time, role);
        let found = self.pending.find(state.unsettled, less, same);
        match found {
            Ok(event) => self.aggregator.add(&mut event.accumulator, record),
            Err(place) => {
                let mut accumulator = self.aggregator.create();
                self.aggregator.add(&mut accumulator, record);
                // A timer for an earlier event, or for the open session, is early enough.
                let timed = state.open.is_some() || !place.is_first();
                self.pending.insert(&mut state.unsettled, place, Event { time, role, accumulator });
                if !timed || role != Role::Other {
                    let due = self.earliest(time, role);
                    self.timers.at_latest(slot, due);
                }
            }
        }
    }

    fn close(&mut self, slot: u32, open: &mut Option<Open<A::Accumulator>>, fire_time: Timestamp) {
        if let Some(Open { start, last, accumulator }) = open.take() {
            self.open -= 1;
            self.results.push(fire_time, slot, (start, last, accumulator));
        }
    }
}

impl<K: Key + ?Sized, T: Data, A: Aggregator<T>> KeyedOperator<T> for Sessions<K, T, A> {
    fn on_batch(&mut self, rows: &KeyedRows<'_, T>, keys: &KeyTable, _: &mut Cx) -> Result<()> {
        if keys.slots() > self.keys.len() {
            self.keys.resize_with(keys.slots(), KeyState::default);
        }
        rows.each(|i, _| {
            if let Some(ahead) = rows.slots.get(i + AHEAD) {
                prefetch(&self.keys, *ahead as usize);
            }
            if let Some(ahead) = rows.slots.get(i + AHEAD / 2) {
                self.pending.prefetch(self.keys[*ahead as usize].unsettled);
            }
            let (row, slot) = (rows.rows[i], rows.slots[i]);
            self.results.count(rows.hashes[i]);
            let (record, time) = (rows.batch.value(row), rows.batch.time(row));
            let role = self.role(record);
            self.add(slot, time, role, record);
            self.live.insert(slot);
            self.dirty.insert(slot);
        });
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        self.results.prune();
        let mut more = None;
        while let Some((time, slot)) = self.timers.pop(watermark) {
            self.advance(slot, time);
            if self.results.waiting() >= STEP_ROWS {
                more = Some(time.previous());
                break;
            }
        }
        let mut batch = BatchBuilder::with_capacity(self.results.waiting());
        let aggregator = &self.aggregator;
        let replayed = self.results.emit(usize::MAX, |waiting| {
            let (start, end, accumulator) = &waiting.result;
            let key = K::from_bytes(keys.key(waiting.slot));
            let value = aggregator.finish(accumulator);
            let session = SessionResult { key, start: *start, end: *end, value };
            batch.push(session, waiting.fire_time.previous(), None);
        });
        if !batch.is_empty() {
            self.next.batch(batch.finish(None, Kind::Final).with_replayed(replayed), cx)?;
        }
        match self.results.next_fire_time().map(Timestamp::previous).or(more) {
            Some(time) => Ok(Fired::More(time)),
            None => {
                self.results.set_fired(watermark);
                self.passed = watermark;
                Ok(Fired::Done)
            }
        }
    }

    /// Finished sessions only: an earlier event would move the start of an open one, which is part
    /// of its key (rule D3).
    fn tick(&mut self, _: &KeyTable, _: &mut Cx) -> Result<()> {
        Ok(())
    }

    fn forward(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }

    fn highest_undelivered(&self) -> Option<Timestamp> {
        self.results.highest()
    }

    fn highest_pending(&self) -> Option<Timestamp> {
        self.live
            .iter()
            .filter_map(|slot| {
                let state = &self.keys[slot as usize];
                let open = state.open.as_ref().map(|open| self.close_time(open));
                let events = self.pending.iter(state.unsettled).map(|event| match event.role {
                    Role::End => event.time.next(),
                    _ => event.time.saturating_add(self.rule.gap.min(self.rule.max)),
                });
                events.chain(open).max()
            })
            .max()
    }

    fn freeze(&mut self, since: Since, keys: &KeyTable, out: &mut StateWriter) -> Result<()> {
        self.results.freeze(since, keys, out)?;
        let slots = if since == Since::Beginning { &self.live } else { &self.dirty };
        for slot in slots.iter() {
            let (group, key) = (keys.group(slot), [&[KEY][..], keys.key(slot)]);
            match &self.keys[slot as usize] {
                state if state.is_empty() => out.delete(group, &key),
                state => {
                    let unsettled = self.pending.iter(state.unsettled).cloned().collect();
                    out.put(group, &key, &Stored { open: state.open.clone(), unsettled })?;
                }
            }
        }
        self.dirty.clear();
        Ok(())
    }

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()> {
        let mut states: Vec<(u32, Stored<A::Accumulator>)> = vec![];
        restore_entries(&mut self.results, from, keys, |key, value, keys| {
            if let [KEY, key @ ..] = key {
                states.push((keys.restore(key), decode(value)?));
            }
            Ok(())
        })?;
        self.keys.resize_with(keys.slots(), KeyState::default);
        for (slot, state) in states {
            self.open += u64::from(state.open.is_some());
            self.live.insert(slot);
            let open = state.open.as_ref().map(|open| self.close_time(open));
            let events = state.unsettled.iter().map(|e| self.earliest(e.time, e.role));
            if let Some(due) = events.chain(open).min() {
                self.timers.at_latest(slot, due);
            }
            let unsettled = self.pending.list(state.unsettled);
            self.keys[slot as usize] = KeyState { open: state.open, unsettled };
        }
        Ok(())
    }

    fn alive(&self, slots: &mut BitSet) {
        self.live.iter().chain(self.dirty.iter()).for_each(|slot| {
            slots.insert(slot);
        });
        self.results.alive(slots);
    }

    fn counted(&self) -> u64 {
        self.results.counted()
    }

    fn status(&self) -> OperatorStatus {
        OperatorStatus { open: self.open, next_fire: self.timers.next() }
    }
}
