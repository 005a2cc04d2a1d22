//! `process`: the general keyed operator, with state and timers in the user's hands.
//!
//! Records of a key are handed over in the order of their event times, as the watermark passes
//! them; records of one instant in the order of their encoded bytes. So what a process does is a
//! function of the data like every other result, and its output can leave at once. (Handing them
//! over as they arrive would make the output depend on the arrival, and it would have to wait for a
//! checkpoint.) The price is that a record waits until the watermark passes it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, STEP_ROWS};
use super::results::{Acks, Results, restore_entries};
use crate::data::{Key, State};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{BitSet, KeyTable, Since, StateReader, StateWriter, Timers, decode, encode};
use crate::time::Timestamp;

/// A keyed operator with state and event-time timers.
///
/// One value of it serves all keys; everything it remembers is in [`State`](Self::State), which it
/// gets per key. Records come in event-time order; see [`ProcessContext`].
pub trait Process<T>: Send + Sync + 'static {
    /// What is remembered for each key.
    type State: State;
    /// What comes out. It is stored with a checkpoint until every sink has it.
    type Out: State + Clone;

    /// Takes one record. The watermark has passed it: nothing earlier will come for this key.
    fn on_record(&self, record: &T, cx: &mut ProcessContext<'_, Self::State, Self::Out>);

    /// A timer that was set has come. Called before records of the same instant.
    ///
    /// A timer that is set here does not keep a job from ending whose input has ended: otherwise
    /// one that sets itself again and again would do so for ever.
    fn on_timer(&self, cx: &mut ProcessContext<'_, Self::State, Self::Out>) {
        let _ = cx;
    }
}

/// What a [`Process`] may do for one key at one instant.
#[derive(Debug)]
pub struct ProcessContext<'a, S, O> {
    /// What is remembered for the key; set it to `None` to forget the key.
    pub state: &'a mut Option<S>,
    time: Timestamp,
    key: &'a [u8],
    out: &'a mut Vec<O>,
    timer: &'a mut Option<Timestamp>,
}

impl<S, O> ProcessContext<'_, S, O> {
    /// The event time of the record, or the time of the timer.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The key, as the type that the stream is keyed by.
    pub fn key<K: Key + ?Sized>(&self) -> K::Owned {
        K::from_bytes(self.key)
    }

    /// Emits a result, with the event time of this call.
    pub fn emit(&mut self, result: O) {
        self.out.push(result);
    }

    /// Sets the key's timer, in place of the one that was set before. A time that is not after
    /// [`time`](Self::time) becomes the microsecond after it.
    pub fn set_timer(&mut self, time: Timestamp) {
        *self.timer = Some(time.max(self.time.next()));
    }

    /// Takes the key's timer back.
    pub fn clear_timer(&mut self) {
        *self.timer = None;
    }

    /// The key's timer.
    pub fn timer(&self) -> Option<Timestamp> {
        *self.timer
    }
}

/// A result of a [`Process`], with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessResult<K, O> {
    /// The key.
    pub key: K,
    /// The event time of the record or timer that it was emitted for.
    pub time: Timestamp,
    /// What was emitted.
    pub value: O,
}

/// Runs a [`Process`].
pub(crate) struct Processor<K: Key + ?Sized, T, P: Process<T>> {
    process: Arc<P>,
    keys: Vec<KeyState<T, P::State>>,
    timers: Timers,
    live: BitSet,
    dirty: BitSet,
    results: Results<P::Out>,
    frozen: Option<StateWriter>,
    scratch: Vec<u8>,
    next: Box<dyn Link<ProcessResult<K::Owned, P::Out>>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeyState<T, S> {
    state: Option<S>,
    timer: Option<Timestamp>,
    /// Whether the timer was set by a timer.
    again: bool,
    /// Records that the watermark has not passed, in order.
    waiting: Vec<Waiting<T>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Waiting<T> {
    time: Timestamp,
    order: Vec<u8>,
    record: T,
}

impl<T, S> Default for KeyState<T, S> {
    fn default() -> Self {
        Self { state: None, timer: None, again: false, waiting: vec![] }
    }
}

impl<T, S> KeyState<T, S> {
    fn is_empty(&self) -> bool {
        self.state.is_none() && self.timer.is_none() && self.waiting.is_empty()
    }

    /// When something fires for this key: the microsecond after the first record or the timer.
    fn due(&self) -> Option<Timestamp> {
        let first = self.waiting.first().map(|w| w.time);
        first.into_iter().chain(self.timer).min().map(Timestamp::next)
    }
}

const KEY: u8 = b'K';

impl<K: Key + ?Sized, T: State + Clone, P: Process<T>> Processor<K, T, P> {
    pub(crate) fn new(
        process: Arc<P>,
        acks: Acks,
        next: Box<dyn Link<ProcessResult<K::Owned, P::Out>>>,
    ) -> Self {
        Self {
            process,
            keys: vec![],
            timers: Timers::default(),
            live: BitSet::default(),
            dirty: BitSet::default(),
            results: Results::new(acks),
            frozen: None,
            scratch: vec![],
            next,
        }
    }

    /// Does everything of one key that is due at `until`.
    fn advance(&mut self, slot: u32, until: Timestamp, key: &[u8]) {
        let state = &mut self.keys[slot as usize];
        let mut out = vec![];
        while let Some(due) = state.due().filter(|due| *due <= until) {
            if let Some(time) = state.timer.take_if(|timer| timer.next() == due) {
                let cx = &mut ProcessContext {
                    state: &mut state.state,
                    time,
                    key,
                    out: &mut out,
                    timer: &mut state.timer,
                };
                self.process.on_timer(cx);
                state.again = state.timer.is_some();
            } else {
                let before = state.timer;
                let Waiting { time, record, .. } = state.waiting.remove(0);
                let cx = &mut ProcessContext {
                    state: &mut state.state,
                    time,
                    key,
                    out: &mut out,
                    timer: &mut state.timer,
                };
                self.process.on_record(&record, cx);
                state.again &= state.timer == before;
            }
            for result in out.drain(..) {
                self.results.push(due, slot, result);
            }
        }
        self.dirty.insert(slot);
        if state.is_empty() {
            self.live.remove(slot);
        } else if let Some(due) = state.due() {
            self.timers.at_latest(slot, due);
        }
    }
}

impl<K, T, P> KeyedOperator<T> for Processor<K, T, P>
where
    K: Key + ?Sized,
    T: State + Clone,
    P: Process<T>,
{
    fn on_batch(&mut self, rows: &KeyedRows<'_, T>, keys: &KeyTable, _: &mut Cx) -> Result<()> {
        if keys.slots() > self.keys.len() {
            self.keys.resize_with(keys.slots(), KeyState::default);
        }
        let mut failed = Ok(());
        rows.on_time(|some| {
            self.results.count(&rows.hashes[some.clone()]);
            for (&row, &slot) in rows.rows[some.clone()].iter().zip(&rows.slots[some]) {
                let (record, time) = (rows.batch.value(row), rows.batch.time(row));
                self.scratch.clear();
                if let Err(error) = encode(record, &mut self.scratch) {
                    failed = Err(error);
                    continue;
                }
                let waiting = &mut self.keys[slot as usize].waiting;
                let at = waiting
                    .partition_point(|w| (w.time, w.order.as_slice()) <= (time, &self.scratch[..]));
                let order = self.scratch.clone();
                waiting.insert(at, Waiting { time, order, record: record.clone() });
                self.timers.at_latest(slot, time.next());
                self.live.insert(slot);
                self.dirty.insert(slot);
            }
        });
        failed
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        self.results.prune();
        let mut more = None;
        while let Some((time, slot)) = self.timers.pop(watermark) {
            self.advance(slot, time, keys.key(slot));
            if self.results.waiting() >= STEP_ROWS {
                more = Some(time.previous());
                break;
            }
        }
        let mut batch = BatchBuilder::with_capacity(self.results.waiting());
        let replayed = self.results.emit(usize::MAX, |waiting| {
            let (key, time) = (K::from_bytes(keys.key(waiting.slot)), waiting.fire_time.previous());
            let result = ProcessResult { key, time, value: waiting.result.clone() };
            batch.push(result, time, None);
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
        let last = |state: &KeyState<T, P::State>| {
            let timer = state.timer.filter(|_| !state.again);
            state.waiting.last().map(|w| w.time).into_iter().chain(timer).max().map(Timestamp::next)
        };
        self.live.iter().filter_map(|slot| last(&self.keys[slot as usize])).max()
    }

    /// At once: any record may change any part of a state that only its user knows.
    fn freeze(&mut self, since: Since, keys: &KeyTable, mut out: StateWriter) {
        self.results.freeze(since, keys, &mut out);
        let slots = if since == Since::Beginning { &self.live } else { &self.dirty };
        for slot in slots.iter() {
            let (group, key) = (keys.group(slot), [&[KEY][..], keys.key(slot)]);
            match &self.keys[slot as usize] {
                state if state.is_empty() => out.delete(group, &key),
                state => out.put(group, &key, state),
            }
        }
        self.dirty.clear();
        self.frozen = Some(out);
    }

    fn write(&mut self, _: usize, _: &KeyTable) -> Option<StateWriter> {
        self.frozen.take()
    }

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()> {
        let mut states: Vec<(u32, KeyState<T, P::State>)> = vec![];
        restore_entries(&mut self.results, from, keys, |_, key, value, keys| {
            if let [KEY, key @ ..] = key {
                states.push((keys.restore(key), decode(value)?));
            }
            Ok(())
        })?;
        self.keys.resize_with(keys.slots(), KeyState::default);
        for (slot, state) in states {
            if let Some(due) = state.due() {
                self.timers.at_latest(slot, due);
            }
            self.live.insert(slot);
            self.keys[slot as usize] = state;
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
        OperatorStatus { open: self.live.iter().count() as u64, next_fire: self.timers.next() }
    }
}
