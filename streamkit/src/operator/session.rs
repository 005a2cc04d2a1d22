//! Sessions (rule T7): an operator of its own, not a window that merges. A start event in the middle
//! splits a run of events, and an earlier first event moves the cut of the maximum length, so what
//! is decided must wait for the watermark.
//!
//! Each key has at most one *open* session, of events before the watermark. Events at or after it
//! are *unsettled*, those of all keys together: as the watermark passes, they are applied in the
//! order (time, start < other < end). A timer per open session tells when it may close at the
//! earliest; it is only ever early, and then set again.

use std::sync::Arc;

use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, STEP_ROWS};
use super::results::{Acks, Results, restore_entries};
use super::session_state::{Found, Open, Stored};
use super::unsettled::{Event, Role, Unsettled};
use crate::data::{Data, Key};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{AHEAD, BitSet, KeyTable, Since, StateReader, StateWriter, Timers, prefetch};
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
    /// Every event before this has been applied.
    settled: Timestamp,
    timers: Timers,
    /// Slots with an open session, and those whose session has changed since the last checkpoint.
    live: BitSet,
    dirty: BitSet,
    stored: Stored,
    results: Results<(Timestamp, Timestamp, A::Accumulator)>,
    open: u64,
    next: Box<dyn Link<SessionResult<K::Owned, A::Output>>>,
}

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
            settled: Timestamp::MIN,
            timers: Timers::default(),
            live: BitSet::default(),
            dirty: BitSet::default(),
            stored: Stored::default(),
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
    /// close, or until enough results wait; of one instant all or none. Returns the time of the last one.
    fn settle(&mut self, mut until: Timestamp, keys: &KeyTable) -> Option<Timestamp> {
        let mut reached = None;
        while let Some(event) = self.unsettled.pop(until) {
            let time = event.time;
            reached = Some(time);
            if let Some(timer) = self.apply(event, keys) {
                until = until.min(timer);
            }
            if self.results.waiting() >= STEP_ROWS {
                until = until.min(time.next());
            }
        }
        self.settled = self.settled.max(reached.map_or(Timestamp::MIN, Timestamp::next));
        reached
    }

    /// Applies an event, and all that are equal to it. Returns the timer of the session that it opens.
    #[inline]
    fn apply(&mut self, event: Event<A::Accumulator>, keys: &KeyTable) -> Option<Timestamp> {
        let order = event.order();
        let Event { time, slot, role, mut accumulator, .. } = event;
        // Several starts or ends of one instant count as one event.
        while let Some(next) = self.unsettled.pop_equal(order) {
            self.aggregator.merge(&mut accumulator, &next.accumulator);
        }
        if let Some(ahead) = self.unsettled.ahead(AHEAD) {
            prefetch(&self.keys, ahead.slot as usize);
        }
        self.touch(slot, keys);
        let rule = (self.gap, self.max);
        if let Some(open) = &mut self.keys[slot as usize]
            && time < open.close_time(rule)
            && (role == Role::Other || (role == Role::Start && open.start() == time))
        {
            open.last = time;
            self.aggregator.merge(&mut open.accumulator, &accumulator);
            return None;
        }
        let mut state = self.keys[slot as usize].take();
        if let Some(open) = &mut state {
            let close = open.close_time(rule);
            let splits = role == Role::Start && open.start() < time;
            if time < close && !splits {
                open.last = time;
                self.aggregator.merge(&mut open.accumulator, &accumulator);
            } else {
                self.close(slot, &mut state, close.min(time.next()));
            }
        }
        let mut timer = None;
        if state.is_none() {
            let open = Open::new(time, time, accumulator);
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

    /// To be called before the session of a key changes.
    #[inline]
    fn touch(&mut self, slot: u32, keys: &KeyTable) {
        if self.stored.is_open() {
            self.stored.write_session(slot, &self.keys, keys);
        }
        self.dirty.insert(slot);
    }

    /// The timer of a key: its session closes, or has got longer since it was set.
    fn expire(&mut self, slot: u32, now: Timestamp, keys: &KeyTable) {
        let Some(open) = &self.keys[slot as usize] else { return };
        match open.close_time((self.gap, self.max)) {
            close if close <= now => {
                self.touch(slot, keys);
                let mut state = self.keys[slot as usize].take();
                self.close(slot, &mut state, close);
            }
            close => self.timers.at_latest(slot, close),
        }
    }

    fn close(&mut self, slot: u32, open: &mut Option<Open<A::Accumulator>>, fire_time: Timestamp) {
        if let Some(open) = open.take() {
            self.open -= 1;
            self.live.remove(slot);
            self.results.push(fire_time, slot, (open.start(), open.last, open.accumulator));
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
                self.unsettled.add(Event::new(time, slot, role, accumulator));
            }
        });
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        self.results.prune();
        self.stored.write_before(watermark, &mut self.unsettled, keys);
        let mut more = None;
        loop {
            // Events before a timer come before it: they may move it.
            let timer = self.timers.next().filter(|time| *time <= watermark);
            let reached = if let Some(time) = self.settle(timer.unwrap_or(watermark), keys) {
                time
            } else if let Some(timer) = timer {
                // `None`: it was moved.
                let Some((now, slot)) = self.timers.pop(timer) else { continue };
                self.expire(slot, now, keys);
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
                self.settled = self.settled.max(watermark);
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

    fn freeze(&mut self, since: Since, keys: &KeyTable, mut out: StateWriter) {
        self.results.freeze(since, keys, &mut out);
        if since == Since::Beginning {
            self.dirty.clone_from(&self.live);
        }
        let what = (&mut self.dirty, &mut self.unsettled);
        self.stored.freeze(since, what, self.settled, keys, out);
    }

    fn write(&mut self, bytes: usize, keys: &KeyTable) -> Option<StateWriter> {
        self.stored.write(bytes, (&self.keys, &mut self.unsettled), keys)
    }

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()> {
        let mut found = Found::default();
        restore_entries(&mut self.results, from, keys, |group, key, value, keys| {
            found.entry(group, key, value, keys)
        })?;
        let open;
        (open, self.stored, self.settled) = found.finish(&mut self.unsettled, keys);
        self.keys.resize_with(keys.slots(), || None);
        for (slot, open) in open {
            self.open += 1;
            self.live.insert(slot);
            self.timers.at_latest(slot, open.close_time((self.gap, self.max)));
            self.keys[slot as usize] = Some(open);
        }
        if self.stored.has_old_keys() {
            self.dirty.clone_from(&self.live);
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
