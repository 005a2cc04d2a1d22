//! Tumbling and sliding windows over any aggregate: shared panes, merged when a window fires.
//!
//! ```text
//! pane 10:00   index: slot → place    [2, 0, -, 1]      one 4-byte probe per record
//!              accumulators           [a1, a3, a0]      dense, in the order of first touch
//! ```
//!
//! A record that is late for some of its windows must not enter a pane that those windows still
//! read: another split may be behind, so that they are open. It goes to the pane's *exceptions*
//! with the first window end that may read it (rule T4).

use std::ops::Range;
use std::sync::Arc;

use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, STEP_ROWS, Stretch};
use super::pane_list::PaneList;
use super::results::{Acks, Results, restore_entries};
use crate::data::{Data, Key, State};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{BitSet, KeyTable, Since, StateReader, StateWriter, decode};
use crate::time::Timestamp;
use crate::window::{Aggregator, Panes, Windowed};

/// The aggregate of each key and window.
pub(crate) struct WindowAggregate<K: Key + ?Sized, T, A: Aggregator<T>> {
    panes: Panes,
    aggregator: Arc<A>,
    state: PaneList<Pane<A::Accumulator>>,
    results: Results<(i64, A::Accumulator)>,
    /// Panes dropped since the last checkpoint.
    dropped: Vec<i64>,
    /// The checkpoint that is being written.
    frozen: Option<StateWriter>,
    merge: Merge,
    next: Box<dyn Link<Windowed<K::Owned, A::Output>>>,
}

/// The accumulators of one pane.
#[derive(Debug)]
struct Pane<S> {
    /// Slot → place in `accumulators` + 1; 0 = none.
    index: Vec<u32>,
    slots: Vec<u32>,
    accumulators: Vec<S>,
    /// By place: whether it has changed since the last checkpoint, and since the last tick; and whether
    /// it is yet to be written for the one that is being made.
    changed: Vec<u8>,
    /// The places among which there are any to be written.
    frozen: Range<usize>,
    exceptions: Vec<Exception<S>>,
    exceptions_dirty: bool,
}

#[derive(Debug)]
struct Exception<S> {
    slot: u32,
    first_end: i64,
    accumulator: S,
}

impl<S> Default for Pane<S> {
    fn default() -> Self {
        Self {
            index: vec![],
            slots: vec![],
            accumulators: vec![],
            changed: vec![],
            frozen: 0..0,
            exceptions: vec![],
            exceptions_dirty: false,
        }
    }
}

impl<S> Pane<S> {
    /// The accumulator of a slot, made by `create` if it is new.
    #[inline]
    fn at(&mut self, slot: u32, slots: usize, create: impl FnOnce() -> S) -> &mut S {
        let place = match self.index.get(slot as usize) {
            Some(&place) if place > 0 => place as usize - 1,
            _ => self.add(slot, slots, create()),
        };
        self.changed[place] = CHANGED;
        &mut self.accumulators[place]
    }

    /// Puts an accumulator in for a slot that has none; returns its place.
    fn add(&mut self, slot: u32, slots: usize, accumulator: S) -> usize {
        let (i, place) = (slot as usize, self.slots.len());
        if i >= self.index.len() {
            self.index.resize(slots.max(i + 1), 0);
        }
        self.slots.push(slot);
        self.accumulators.push(accumulator);
        self.changed.push(0);
        self.index[i] = u32::try_from(place + 1).unwrap_or(u32::MAX);
        place
    }

    /// Forgets that places have changed, since a checkpoint or since a tick.
    fn forget(&mut self, since: u8) {
        self.changed.iter_mut().for_each(|changed| *changed &= !since);
    }

    /// What has changed, or everything, is to be written as it is now.
    fn freeze(&mut self, since: Since) {
        let all = if since == Since::Beginning { SINCE_CHECKPOINT } else { 0 };
        for changed in &mut self.changed {
            let frozen = if (*changed | all) & SINCE_CHECKPOINT != 0 { FROZEN } else { 0 };
            *changed = (*changed & !SINCE_CHECKPOINT) | frozen;
        }
        self.frozen = 0..self.slots.len();
    }
}

impl<S: State> Pane<S> {
    /// Writes what is frozen, until so many bytes have been written. True if that is all.
    fn write(&mut self, start: i64, until: usize, keys: &KeyTable, out: &mut StateWriter) -> bool {
        while out.written() < until
            && let Some(place) = self.frozen.next()
        {
            self.write_place(place, start, keys, out);
        }
        self.frozen.is_empty()
    }

    /// Writes what is frozen of these slots, which are about to change.
    fn write_slots(&mut self, slots: &[u32], start: i64, keys: &KeyTable, out: &mut StateWriter) {
        for slot in slots {
            if let Some(place @ 1..) = self.index.get(*slot as usize) {
                self.write_place(*place as usize - 1, start, keys, out);
            }
        }
    }

    fn write_place(&mut self, place: usize, start: i64, keys: &KeyTable, out: &mut StateWriter) {
        if self.changed[place] & FROZEN != 0 {
            self.changed[place] &= !FROZEN;
            let slot = self.slots[place];
            let key = [&[PANE][..], &ordered(start), keys.key(slot)];
            out.put(keys.group(slot), &key, &self.accumulators[place]);
        }
    }
}

/// Scratch space for merging panes: slot → place in the merged list.
#[derive(Debug, Default)]
struct Merge {
    index: Vec<u32>,
}

/// What a change is noted for.
const SINCE_CHECKPOINT: u8 = 1;
const SINCE_TICK: u8 = 2;
const CHANGED: u8 = SINCE_CHECKPOINT | SINCE_TICK;
const FROZEN: u8 = 4;

const PANE: u8 = b'P';
const EXCEPTION: u8 = b'E';

impl<K: Key + ?Sized, T: Data, A: Aggregator<T>> WindowAggregate<K, T, A> {
    pub(crate) fn new(
        panes: Panes,
        aggregator: Arc<A>,
        acks: Acks,
        next: Box<dyn Link<Windowed<K::Owned, A::Output>>>,
    ) -> Self {
        Self {
            panes,
            aggregator,
            state: PaneList::default(),
            results: Results::new(acks),
            dropped: vec![],
            frozen: None,
            merge: Merge::default(),
            next,
        }
    }

    /// The first window end whose window has something in it and which has not fired.
    fn next_end(&self) -> Option<i64> {
        let (pane, _) = self.state.first()?;
        Some(self.panes.first_end(pane.max(self.fired_end())))
    }

    /// Windows that end here or before have fired.
    fn fired_end(&self) -> i64 {
        self.results.fired().as_micros().saturating_sub(
            self.panes.fire_time(0).as_micros(), // the allowed lateness
        )
    }

    /// The merged accumulators of the window that ends at `end`, in the order of first touch.
    fn merged(&mut self, end: i64, changed_only: bool) -> Vec<(u32, A::Accumulator)> {
        let start = self.panes.window(end).start.as_micros();
        let aggregator = &self.aggregator;
        let mut out: Vec<(u32, A::Accumulator)> = vec![];
        let index = &mut self.merge.index;
        let mut add = |out: &mut Vec<(u32, A::Accumulator)>, slot: u32, from: &A::Accumulator| {
            let i = slot as usize;
            if i >= index.len() {
                index.resize((i + 1).max(index.len() * 2), 0);
            }
            match index[i] {
                0 => {
                    out.push((slot, from.clone()));
                    index[i] = u32::try_from(out.len()).unwrap_or(u32::MAX);
                }
                place => aggregator.merge(&mut out[place as usize - 1].1, from),
            }
        };
        for pane in self.state.range(start, end).map(|(_, pane)| pane) {
            for (slot, accumulator) in pane.slots.iter().zip(&pane.accumulators) {
                add(&mut out, *slot, accumulator);
            }
            for exception in pane.exceptions.iter().filter(|e| e.first_end <= end) {
                add(&mut out, exception.slot, &exception.accumulator);
            }
        }
        for (slot, _) in &out {
            index[*slot as usize] = 0;
        }
        if changed_only {
            let changed: Vec<_> = self.state.range(start, end).map(|(_, pane)| pane).collect();
            out.retain(|(slot, _)| {
                changed.iter().any(|pane| {
                    let place = pane.index.get(*slot as usize).copied().unwrap_or(0);
                    (place > 0 && pane.changed[place as usize - 1] & SINCE_TICK != 0)
                        || pane.exceptions.iter().any(|e| e.slot == *slot)
                })
            });
        }
        out
    }

    /// Moves the window that ends at `end` into the results, and drops panes that no window needs.
    fn fire_window(&mut self, end: i64, keys: &KeyTable) {
        let fire_time = self.panes.fire_time(end);
        let is_tumbling = self.panes.is_tumbling();
        if !is_tumbling {
            for (slot, accumulator) in self.merged(end, false) {
                self.results.push(fire_time, slot, (end, accumulator));
            }
        }
        self.results.set_fired(fire_time);
        while let Some((start, _)) = self.state.first()
            && self.panes.last_end(start) <= end
            && let Some(mut pane) = self.state.pop_first()
        {
            if let Some(out) = &mut self.frozen {
                pane.write(start, usize::MAX, keys, out);
            }
            self.dropped.push(start);
            // A tumbling window is this pane, which nobody else needs, and none of its records is late
            // for some of its windows only.
            if is_tumbling && self.panes.last_end(start) == end {
                let accumulators = pane.slots.into_iter().zip(pane.accumulators);
                accumulators.for_each(|(slot, a)| self.results.push(fire_time, slot, (end, a)));
            }
        }
    }

    /// One batch with the values of all open windows that have changed since the last tick.
    fn running_values(&mut self, keys: &KeyTable) -> BatchBuilder<Windowed<K::Owned, A::Output>> {
        let mut batch = BatchBuilder::with_capacity(0);
        for end in self.open_ends() {
            let window = self.panes.window(end);
            let time = self.panes.fire_time(end).previous();
            for (slot, accumulator) in self.merged(end, true) {
                let key = K::from_bytes(keys.key(slot));
                let value = self.aggregator.finish(&accumulator);
                batch.push(Windowed { window, key, value }, time, None);
            }
        }
        batch
    }

    /// The ends of all windows that are open and have something in them.
    fn open_ends(&self) -> Vec<i64> {
        let fired = self.fired_end();
        let mut ends: Vec<i64> =
            self.state.iter().flat_map(|(pane, _)| self.panes.ends(pane)).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|end| *end > fired);
        ends
    }
}

impl<K: Key + ?Sized, T: Data, A: Aggregator<T>> KeyedOperator<T> for WindowAggregate<K, T, A> {
    fn on_batch(&mut self, rows: &KeyedRows<'_, T>, keys: &KeyTable, _: &mut Cx) -> Result<()> {
        let Self { panes, aggregator, state, results, frozen, .. } = self;
        let slots = keys.slots();
        rows.stretches(|stretch| match stretch {
            Stretch::OnTime(mut stretch) => {
                results.count(&rows.hashes[stretch.clone()]);
                while !stretch.is_empty() {
                    let (start, pane) = state.around(rows.time(stretch.start), panes.pane());
                    let run = rows.run(&stretch, start, panes.pane());
                    stretch.start = run.end;
                    if let Some(out) = frozen {
                        pane.write_slots(&rows.slots[run.clone()], start, keys, out);
                    }
                    for (row, slot) in rows.rows[run.clone()].iter().zip(&rows.slots[run]) {
                        let accumulator = pane.at(*slot, slots, || aggregator.create());
                        aggregator.add(accumulator, rows.batch.value(*row));
                    }
                }
            }
            Stretch::From(at, end) => {
                results.count(&rows.hashes[at..=at]);
                let (_, pane) = state.around(rows.time(at), panes.pane());
                let (slot, record) = (rows.slots[at], rows.batch.value(rows.rows[at]));
                add_exception(pane, slot, end.as_micros(), aggregator.as_ref(), record);
            }
        });
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        self.results.prune();
        while self.results.waiting() < STEP_ROWS {
            match self.next_end() {
                Some(end) if self.panes.fire_time(end) <= watermark => self.fire_window(end, keys),
                _ => break,
            }
        }
        let mut batch = BatchBuilder::with_capacity(self.results.waiting().min(STEP_ROWS));
        let (panes, aggregator) = (&self.panes, &self.aggregator);
        let replayed = self.results.emit(STEP_ROWS, |waiting| {
            let (end, accumulator) = &waiting.result;
            let key = K::from_bytes(keys.key(waiting.slot));
            let value = aggregator.finish(accumulator);
            let windowed = Windowed { window: panes.window(*end), key, value };
            batch.push(windowed, waiting.fire_time.previous(), None);
        });
        if !batch.is_empty() {
            self.next.batch(batch.finish(None, Kind::Final).with_replayed(replayed), cx)?;
        }
        if let Some(next) = self.results.next_fire_time() {
            return Ok(Fired::More(next.previous()));
        }
        if let Some(end) = self.next_end() {
            let next = self.panes.fire_time(end);
            if next <= watermark {
                return Ok(Fired::More(next.previous()));
            }
        }
        self.results.set_fired(watermark);
        Ok(Fired::Done)
    }

    fn tick(&mut self, keys: &KeyTable, cx: &mut Cx) -> Result<()> {
        let batch = self.running_values(keys);
        self.state.iter_mut().for_each(|(_, pane)| pane.forget(SINCE_TICK));
        if batch.is_empty() {
            return Ok(());
        }
        self.next.batch(batch.finish(None, Kind::Running), cx)
    }

    fn forward(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }

    fn highest_undelivered(&self) -> Option<Timestamp> {
        self.results.highest()
    }

    fn highest_pending(&self) -> Option<Timestamp> {
        self.open_ends().last().map(|&end| self.panes.fire_time(end))
    }

    fn freeze(&mut self, since: Since, keys: &KeyTable, mut out: StateWriter) {
        self.results.freeze(since, keys, &mut out);
        for pane in std::mem::take(&mut self.dropped) {
            out.delete_prefix(&[&[PANE][..], &ordered(pane)].concat());
            out.delete_prefix(&[&[EXCEPTION][..], &ordered(pane)].concat());
        }
        for (start, pane) in self.state.iter_mut() {
            pane.freeze(since);
            if pane.exceptions_dirty || since == Since::Beginning {
                pane.exceptions_dirty = false;
                for exception in &pane.exceptions {
                    let (group, end) = (keys.group(exception.slot), ordered(exception.first_end));
                    let key = [&[EXCEPTION][..], &ordered(start), &end, keys.key(exception.slot)];
                    out.put(group, &key, &exception.accumulator);
                }
            }
        }
        self.frozen = Some(out);
    }

    fn write(&mut self, bytes: usize, keys: &KeyTable) -> Option<StateWriter> {
        let out = self.frozen.as_mut()?;
        let until = out.written().saturating_add(bytes);
        let all = self.state.iter_mut().all(|(start, pane)| pane.write(start, until, keys, out));
        if all { self.frozen.take() } else { None }
    }

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()> {
        let (state, results) = (&mut self.state, &mut self.results);
        restore_entries(results, from, keys, |_, key, value, keys| {
            match key {
                [PANE, rest @ ..] if rest.len() >= 8 => {
                    let (start, key) = rest.split_at(8);
                    let slot = keys.restore(key);
                    let pane = state.at(unordered(start));
                    let accumulator = decode(value)?;
                    let slots = keys.slots();
                    *pane.at(slot, slots, || self.aggregator.create()) = accumulator;
                }
                [EXCEPTION, rest @ ..] if rest.len() >= 16 => {
                    let (slot, first_end) = (keys.restore(&rest[16..]), unordered(&rest[8..16]));
                    let pane = state.at(unordered(&rest[..8]));
                    let accumulator = decode(value)?;
                    pane.exceptions.push(Exception { slot, first_end, accumulator });
                }
                _ => {}
            }
            Ok(())
        })?;
        self.state.iter_mut().for_each(|(_, pane)| pane.forget(SINCE_CHECKPOINT));
        Ok(())
    }

    fn begin(&mut self, from: Timestamp) {
        self.results.set_fired(self.panes.fired_before(from));
    }

    fn alive(&self, slots: &mut BitSet) {
        for (_, pane) in self.state.iter() {
            pane.slots.iter().for_each(|&slot| {
                slots.insert(slot);
            });
            pane.exceptions.iter().for_each(|e| {
                slots.insert(e.slot);
            });
        }
        self.results.alive(slots);
    }

    fn counted(&self) -> u64 {
        self.results.counted()
    }

    fn status(&self) -> OperatorStatus {
        OperatorStatus {
            open: self.open_ends().len() as u64,
            next_fire: self.next_end().map(|end| self.panes.fire_time(end)),
        }
    }
}

fn add_exception<T, A: Aggregator<T>>(
    pane: &mut Pane<A::Accumulator>,
    slot: u32,
    first_end: i64,
    aggregator: &A,
    record: &T,
) {
    pane.exceptions_dirty = true;
    let found = pane.exceptions.iter_mut().find(|e| e.slot == slot && e.first_end == first_end);
    match found {
        Some(exception) => aggregator.add(&mut exception.accumulator, record),
        None => {
            let mut accumulator = aggregator.create();
            aggregator.add(&mut accumulator, record);
            pane.exceptions.push(Exception { slot, first_end, accumulator });
        }
    }
}

/// Bytes that sort as the numbers do.
pub(crate) fn ordered(n: i64) -> [u8; 8] {
    ((n as u64) ^ (1 << 63)).to_be_bytes()
}

/// The inverse of [`ordered`]; of the first eight bytes.
pub(crate) fn unordered(bytes: &[u8]) -> i64 {
    let mut buffer = [0; 8];
    let n = bytes.len().min(8);
    buffer[..n].copy_from_slice(&bytes[..n]);
    (u64::from_be_bytes(buffer) ^ (1 << 63)) as i64
}
