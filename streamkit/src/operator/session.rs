//! Sessions (rule T7): an operator of its own, not a window that merges. A start event in the middle
//! splits a run of events, and an earlier first event moves the cut of the maximum length, so what
//! is decided must wait for the watermark.
//!
//! Each key has at most one *open* session, of events before the watermark. Events at or after it
//! are *unsettled*, those of all keys together: as the watermark passes, they are applied in the
//! order (time, start < other < end). A timer per open session tells when it may close at the
//! earliest; it is only ever early, and then set again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, STEP_ROWS};
use super::results::{Acks, Results, restore_entries};
use super::unsettled::{Event, Role, Unsettled};
use crate::data::{Data, Key};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{
    AHEAD, BitSet, KeyTable, Since, StateReader, StateWriter, Timers, decode, prefetch,
};
use crate::time::{Timestamp, to_micros};
use crate::window::{Aggregator, Session, SessionResult};

/// Finished sessions of each key.
pub(crate) struct Sessions<K: Key + ?Sized, T, A: Aggregator<T>> {
    rule: Session<T>,
    /// The rule's gap and maximum length, in microseconds.
    gap: i64,
    max: i64,
    aggregator: Arc<A>,
    /// By slot: the open session.
    keys: Vec<Option<Open<A::Accumulator>>>,
    unsettled: Unsettled<A::Accumulator>,
    timers: Timers,
    /// Slots with an open session, and slots changed since the last checkpoint.
    live: BitSet,
    dirty: BitSet,
    results: Results<(Timestamp, Timestamp, A::Accumulator)>,
    open: u64,
    next: Box<dyn Link<SessionResult<K::Owned, A::Output>>>,
}

/// What a checkpoint holds of a key.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    open: Option<Open<S>>,
    unsettled: Vec<StoredEvent<S>>,
}

#[derive(Serialize, Deserialize)]
struct StoredEvent<S> {
    time: Timestamp,
    role: Role,
    accumulator: S,
}

/// A session whose events so far are settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Open<S> {
    start: Timestamp,
    last: Timestamp,
    accumulator: S,
}

impl<S> Open<S> {
    /// When the session closes if no event follows, under a rule of (gap, maximum length).
    #[inline]
    fn close_time(&self, (gap, max): (i64, i64)) -> Timestamp {
        let (start, last) = (self.start.as_micros(), self.last.as_micros());
        Timestamp::from_micros(last.saturating_add(gap).min(start.saturating_add(max)))
    }
}

impl<S: Clone> StoredEvent<S> {
    fn of(event: &Event<S>) -> Self {
        let Event { time, role, accumulator, .. } = event;
        Self { time: *time, role: *role, accumulator: accumulator.clone() }
    }
}

const KEY: u8 = b'K';

impl<K: Key + ?Sized, T: Data, A: Aggregator<T>> Sessions<K, T, A> {
    pub(crate) fn new(
        rule: Session<T>,
        aggregator: Arc<A>,
        acks: Acks,
        next: Box<dyn Link<SessionResult<K::Owned, A::Output>>>,
    ) -> Self {
        Self {
            unsettled: Unsettled::new(rule.gap),
            gap: to_micros(rule.gap),
            max: to_micros(rule.max),
            rule,
            aggregator,
            keys: vec![],
            timers: Timers::default(),
            live: BitSet::default(),
            dirty: BitSet::default(),
            results: Results::new(acks),
            open: 0,
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

    /// Applies events before `until`, in order, up to where a session that one of them has opened may
    /// close, or until enough results wait. Returns the time of the last one.
    fn settle(&mut self, mut until: Timestamp) -> Option<Timestamp> {
        let mut reached = None;
        while let Some(event) = self.unsettled.pop(until) {
            reached = Some(event.time);
            if let Some(timer) = self.apply(event) {
                until = until.min(timer);
            }
            if self.results.waiting() >= STEP_ROWS {
                break;
            }
        }
        reached
    }

    /// Applies an event, and all that are equal to it. Returns the timer of the session that it opens.
    #[inline]
    fn apply(&mut self, event: Event<A::Accumulator>) -> Option<Timestamp> {
        let order = event.order();
        let Event { time, slot, role, mut accumulator } = event;
        // Several starts or ends of one instant count as one event.
        while let Some(next) = self.unsettled.pop_equal(order) {
            self.aggregator.merge(&mut accumulator, &next.accumulator);
        }
        if let Some(ahead) = self.unsettled.ahead(AHEAD) {
            prefetch(&self.keys, ahead.slot as usize);
        }
        self.dirty.insert(slot);
        let rule = (self.gap, self.max);
        if let Some(open) = &mut self.keys[slot as usize]
            && time < open.close_time(rule)
            && (role == Role::Other || (role == Role::Start && open.start == time))
        {
            open.last = time;
            self.aggregator.merge(&mut open.accumulator, &accumulator);
            return None;
        }
        let mut state = self.keys[slot as usize].take();
        if let Some(open) = &mut state {
            let close = open.close_time(rule);
            let splits = role == Role::Start && open.start < time;
            if time < close && !splits {
                open.last = time;
                self.aggregator.merge(&mut open.accumulator, &accumulator);
            } else {
                self.close(slot, &mut state, close.min(time.next()));
            }
        }
        let mut timer = None;
        if state.is_none() {
            let open = Open { start: time, last: time, accumulator };
            if role != Role::End {
                let close = open.close_time(rule);
                self.timers.at_latest(slot, close);
                self.live.insert(slot);
                timer = Some(close);
            }
            self.open += 1;
            state = Some(open);
        }
        if role == Role::End {
            self.close(slot, &mut state, time.next());
        }
        self.keys[slot as usize] = state;
        timer
    }

    /// The timer of a key: its session closes, or has got longer since it was set.
    fn expire(&mut self, slot: u32, now: Timestamp) {
        let mut state = self.keys[slot as usize].take();
        if let Some(open) = &state {
            match open.close_time((self.gap, self.max)) {
                close if close <= now => self.close(slot, &mut state, close),
                close => self.timers.at_latest(slot, close),
            }
        }
        self.keys[slot as usize] = state;
    }

    fn close(&mut self, slot: u32, open: &mut Option<Open<A::Accumulator>>, fire_time: Timestamp) {
        if let Some(Open { start, last, accumulator }) = open.take() {
            self.open -= 1;
            self.live.remove(slot);
            self.dirty.insert(slot);
            self.results.push(fire_time, slot, (start, last, accumulator));
        }
    }

    /// Adds the slots that have an open session or unsettled events.
    fn with_state(&self, slots: &mut BitSet) {
        let unsettled = self.unsettled.iter().map(|event| event.slot);
        self.live.iter().chain(unsettled).for_each(|slot| _ = slots.insert(slot));
    }

    /// When an event alone could make something fire at the latest.
    fn latest(&self, event: &Event<A::Accumulator>) -> Timestamp {
        match event.role {
            Role::End => event.time.next(),
            _ => event.time.saturating_add(self.rule.gap.min(self.rule.max)),
        }
    }
}

impl<K: Key + ?Sized, T: Data, A: Aggregator<T>> KeyedOperator<T> for Sessions<K, T, A> {
    fn on_batch(&mut self, rows: &KeyedRows<'_, T>, keys: &KeyTable, _: &mut Cx) -> Result<()> {
        if keys.slots() > self.keys.len() {
            self.keys.resize_with(keys.slots(), || None);
        }
        rows.on_time(|some| {
            self.results.count(&rows.hashes[some.clone()]);
            for (&row, &slot) in rows.rows[some.clone()].iter().zip(&rows.slots[some]) {
                let (record, time) = (rows.batch.value(row), rows.batch.time(row));
                let mut accumulator = self.aggregator.create();
                self.aggregator.add(&mut accumulator, record);
                let role = self.role(record);
                self.unsettled.add(Event { time, slot, role, accumulator });
                self.dirty.insert(slot);
            }
        });
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        self.results.prune();
        let mut more = None;
        loop {
            // Events before a timer come before it: they may move it.
            let timer = self.timers.next().filter(|time| *time <= watermark);
            let reached = if let Some(time) = self.settle(timer.unwrap_or(watermark)) {
                time
            } else if let Some(timer) = timer {
                // `None`: it was moved.
                let Some((now, slot)) = self.timers.pop(timer) else { continue };
                self.expire(slot, now);
                now.previous()
            } else {
                break;
            };
            if self.results.waiting() >= STEP_ROWS {
                more = Some(reached);
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
        let open = self.live.iter().filter_map(|slot| self.keys[slot as usize].as_ref());
        let events = self.unsettled.iter().map(|event| self.latest(event));
        open.map(|open| open.close_time((self.gap, self.max))).chain(events).max()
    }

    fn freeze(&mut self, since: Since, keys: &KeyTable, out: &mut StateWriter) -> Result<()> {
        self.results.freeze(since, keys, out)?;
        let mut slots = std::mem::take(&mut self.dirty);
        if since == Since::Beginning {
            self.with_state(&mut slots);
        }
        let mut events: Vec<&Event<_>> =
            self.unsettled.iter().filter(|event| slots.contains(event.slot)).collect();
        events.sort_by_key(|event| (event.slot, event.time, event.role));
        let mut events = events.into_iter().peekable();
        for slot in slots.iter() {
            let (group, key) = (keys.group(slot), [&[KEY][..], keys.key(slot)]);
            let of_slot = std::iter::from_fn(|| events.next_if(|event| event.slot == slot));
            let unsettled: Vec<_> = of_slot.map(StoredEvent::of).collect();
            match self.keys.get(slot as usize).cloned().flatten() {
                None if unsettled.is_empty() => out.delete(group, &key),
                open => out.put(group, &key, &Stored { open, unsettled })?,
            }
        }
        slots.clear();
        self.dirty = slots;
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
        self.keys.resize_with(keys.slots(), || None);
        for (slot, Stored { open, unsettled }) in states {
            if let Some(open) = &open {
                self.open += 1;
                self.live.insert(slot);
                self.timers.at_latest(slot, open.close_time((self.gap, self.max)));
            }
            for StoredEvent { time, role, accumulator } in unsettled {
                self.unsettled.add(Event { time, slot, role, accumulator });
            }
            self.keys[slot as usize] = open;
        }
        Ok(())
    }

    fn alive(&self, slots: &mut BitSet) {
        self.with_state(slots);
        self.dirty.iter().for_each(|slot| _ = slots.insert(slot));
        self.results.alive(slots);
    }

    fn counted(&self) -> u64 {
        self.results.counted()
    }

    fn status(&self) -> OperatorStatus {
        OperatorStatus { open: self.open, next_fire: self.timers.next() }
    }
}
