//! Distinct keys of each window: one bit per key and pane, and a count per window.
//!
//! The first record of a key in a pane looks at the other panes of each window that the pane is in;
//! where none of them has the key, the window's count grows by one. All later records of that key
//! and pane are one bit test. Counts are exact, whatever the disorder, and firing costs nothing.
//!
//! Each worker counts its own keys; [`Combine`](super::Combine) adds the workers' counts.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::combine::Partial;
use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, Stretch};
use super::pane_list::PaneList;
use super::results::{Acks, Results, restore_entries};
use super::window::{ordered, unordered};
use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{BitSet, KeyTable, Since, StateReader, StateWriter};
use crate::time::Timestamp;
use crate::window::{Panes, pane_start};

/// The number of distinct keys of each window, of this worker's keys.
pub(crate) struct DistinctKeys {
    panes: Panes,
    worker: u32,
    state: PaneList<Pane>,
    /// Window end → keys.
    counts: BTreeMap<i64, u64>,
    /// Keys that are late for some windows of a pane: (pane, first window end), by slot (rule T4).
    exceptions: HashMap<u32, Vec<(i64, i64)>>,
    /// The slots that have some: of nearly all keys it is enough to know that they have none.
    excepted: BitSet,
    exceptions_new: Vec<(u32, i64, i64)>,
    /// Of a batch: for each pane, by its start, slots that it has not got yet.
    new: Vec<(i64, Vec<u32>)>,
    dropped: Vec<i64>,
    /// The checkpoint that is being written.
    frozen: Option<StateWriter>,
    results: Results<()>,
    next: Box<dyn Link<Partial>>,
}

#[derive(Debug, Default)]
struct Pane {
    present: BitSet,
    /// In the order of arrival, so that what is new since a checkpoint is a tail.
    slots: Vec<u32>,
    /// How many of them a checkpoint has, and which of these are yet to be written.
    stored: usize,
    frozen: Range<usize>,
}

impl Pane {
    /// Writes what is frozen, until so many bytes have been written. True if that is all.
    fn write(&mut self, start: i64, until: usize, keys: &KeyTable, out: &mut StateWriter) -> bool {
        let start = ordered(start);
        while out.written() < until
            && let Some(at) = self.frozen.next()
        {
            let slot = self.slots[at];
            out.put(keys.group(slot), &[&[PRESENT], &start, keys.key(slot)], &());
        }
        self.frozen.is_empty()
    }
}

const PRESENT: u8 = b'P';
const EXCEPTION: u8 = b'E';

impl DistinctKeys {
    pub(crate) fn new(panes: Panes, worker: usize, next: Box<dyn Link<Partial>>) -> Self {
        Self {
            panes,
            worker: u32::try_from(worker).unwrap_or(u32::MAX),
            state: PaneList::default(),
            counts: BTreeMap::new(),
            exceptions: HashMap::new(),
            excepted: BitSet::default(),
            new: vec![],
            exceptions_new: vec![],
            dropped: vec![],
            frozen: None,
            results: Results::new(Acks::default()),
            next,
        }
    }

    /// Whether the window that ends at `end` has the key by an exception.
    fn has_exception(&self, slot: u32, end: i64) -> bool {
        let start = self.panes.window(end).start.as_micros();
        self.exceptions.get(&slot).is_some_and(|list| {
            list.iter().any(|&(pane, first)| (start..end).contains(&pane) && first <= end)
        })
    }

    /// Whether the window has not fired, nor started before the operator began.
    fn is_open(&self, end: i64) -> bool {
        self.panes.fire_time(end) > self.results.fired()
    }

    /// The part of a pane's windows, as indices into `ends`, that have a key by none of the other
    /// panes. The nearest pane on either side that has it decides, since a window has all panes
    /// between two of its own.
    fn without(&self, ends: &[i64], start: i64) -> impl Fn(u32) -> Range<usize> {
        let (from, to) = self.panes.neighbours(start);
        let reach =
            |at: i64| ends.partition_point(|end| self.panes.window(*end).start.as_micros() <= at);
        let mut before: Vec<_> =
            self.state.range(from, start).map(|(at, pane)| (&pane.present, reach(at))).collect();
        before.reverse();
        let until = |at: i64| ends.partition_point(|end| *end <= at);
        let after = self.state.range(start.saturating_add(1), to);
        let after: Vec<_> = after.map(|(at, pane)| (&pane.present, until(at))).collect();
        let windows = ends.len();
        move |slot| {
            let nearest = |panes: &[(&BitSet, usize)]| {
                panes.iter().find(|(present, _)| present.contains(slot)).map(|(_, at)| *at)
            };
            let from = nearest(&before).unwrap_or(0);
            from..nearest(&after).unwrap_or(windows).max(from)
        }
    }

    /// A record of the key that is late for the windows that end before `first_end`.
    fn add_exception(&mut self, slot: u32, start: i64, first_end: i64) {
        let list = self.exceptions.get(&slot);
        if list.is_some_and(|list| list.contains(&(start, first_end))) {
            return;
        }
        if !self.state.at(start).present.contains(slot) {
            let ends: Vec<i64> = self.panes.ends(start).collect();
            let windows = self.without(&ends, start)(slot);
            let ends = ends[windows].iter().filter(|end| **end >= first_end);
            self.count(slot, ends.copied());
        }
        self.exceptions.entry(slot).or_default().push((start, first_end));
        self.excepted.insert(slot);
    }

    /// Counts a key in those of the windows that are open and have not got it by an exception.
    fn count(&mut self, slot: u32, ends: impl Iterator<Item = i64>) {
        let ends: Vec<i64> =
            ends.filter(|end| self.is_open(*end) && !self.has_exception(slot, *end)).collect();
        ends.into_iter().for_each(|end| *self.counts.entry(end).or_default() += 1);
    }

    /// Records of these keys in the pane that starts at `start`, late for none of its windows.
    fn present(&mut self, slots: &[u32], start: i64) {
        let pane = self.state.at(start);
        let known = pane.slots.len();
        for &slot in slots {
            if pane.present.insert(slot) {
                pane.slots.push(slot);
            }
        }
        let new = pane.slots[known..].to_vec();
        if new.is_empty() {
            return;
        }
        let ends: Vec<i64> = self.panes.ends(start).collect();
        // How many keys more, or fewer, a window gets than the one before it.
        let mut steps = vec![0i64; ends.len() + 1];
        let mut special = vec![];
        {
            let without = self.without(&ends, start);
            for slot in new {
                let windows = without(slot);
                if windows.is_empty() {
                    continue;
                }
                if self.excepted.contains(slot) {
                    special.push((slot, windows));
                    continue;
                }
                steps[windows.start] += 1;
                steps[windows.end] -= 1;
            }
        }
        let mut keys = 0;
        for (end, step) in ends.iter().zip(steps) {
            keys += step;
            if keys > 0 && self.is_open(*end) {
                *self.counts.entry(*end).or_default() += keys.unsigned_abs();
            }
        }
        special.into_iter().for_each(|(slot, at)| self.count(slot, ends[at].iter().copied()));
    }

    fn batch(
        &self,
        ends: impl Iterator<Item = (i64, u64)>,
        kind: Kind,
    ) -> crate::record::Batch<Partial> {
        let mut batch = BatchBuilder::with_capacity(8);
        for (end, count) in ends {
            let partial = Partial { window: self.panes.window(end), count, worker: self.worker };
            batch.push(partial, self.panes.fire_time(end).previous(), None);
        }
        batch.finish(None, kind)
    }
}

impl<T: Data> KeyedOperator<T> for DistinctKeys {
    fn on_batch(&mut self, rows: &KeyedRows<'_, T>, _: &KeyTable, _: &mut Cx) -> Result<()> {
        let length = self.panes.pane();
        rows.stretches(|stretch| match stretch {
            Stretch::OnTime(mut stretch) => {
                self.results.count(&rows.hashes[stretch.clone()]);
                while !stretch.is_empty() {
                    let (start, pane) = self.state.around(rows.time(stretch.start), length);
                    let run = rows.run(&stretch, start, length);
                    stretch.start = run.end;
                    let mut new = rows.slots[run].iter().filter(|s| !pane.present.contains(**s));
                    if let Some(first) = new.next() {
                        let of_pane = slots_of(&mut self.new, start);
                        of_pane.push(*first);
                        new.for_each(|slot| of_pane.push(*slot));
                    }
                }
            }
            Stretch::From(at, end) => {
                self.results.count(&rows.hashes[at..=at]);
                let (slot, end) = (rows.slots[at], end.as_micros());
                let start = pane_start(rows.time(at), length);
                self.exceptions_new.push((slot, start, end));
                self.add_exception(slot, start, end);
            }
        });
        let mut new = std::mem::take(&mut self.new);
        new.drain(..).for_each(|(start, slots)| self.present(&slots, start));
        self.new = new;
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        let mut due = vec![];
        while let Some((&end, &count)) = self.counts.first_key_value()
            && self.panes.fire_time(end) <= watermark
        {
            self.counts.remove(&end);
            due.push((end, count));
        }
        if !due.is_empty() {
            self.next.batch(self.batch(due.into_iter(), Kind::Final), cx)?;
        }
        let reached = watermark.as_micros().saturating_sub(self.panes.fire_time(0).as_micros());
        while let Some((pane, _)) = self.state.first()
            && self.panes.last_end(pane) <= reached
            && let Some(mut gone) = self.state.pop_first()
        {
            if let Some(out) = &mut self.frozen {
                gone.write(pane, usize::MAX, keys, out);
            }
            self.dropped.push(pane);
        }
        if !self.exceptions.is_empty() {
            let panes = self.panes;
            self.exceptions.retain(|_, list| {
                list.retain(|(pane, _)| panes.last_end(*pane) > reached);
                !list.is_empty()
            });
            self.excepted.clear();
            self.exceptions.keys().for_each(|slot| _ = self.excepted.insert(*slot));
        }
        self.results.set_fired(watermark);
        Ok(Fired::Done)
    }

    fn tick(&mut self, _: &KeyTable, cx: &mut Cx) -> Result<()> {
        let open = self.batch(self.counts.iter().map(|(&end, &count)| (end, count)), Kind::Running);
        self.next.batch(open, cx)
    }

    fn forward(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }

    fn highest_undelivered(&self) -> Option<Timestamp> {
        self.results.highest()
    }

    fn highest_pending(&self) -> Option<Timestamp> {
        self.counts.last_key_value().map(|(&end, _)| self.panes.fire_time(end))
    }

    fn freeze(&mut self, since: Since, keys: &KeyTable, mut out: StateWriter) {
        self.results.freeze(since, keys, &mut out);
        for pane in std::mem::take(&mut self.dropped) {
            out.delete_prefix(&[&[PRESENT][..], &ordered(pane)].concat());
            out.delete_prefix(&[&[EXCEPTION][..], &ordered(pane)].concat());
        }
        for (_, pane) in self.state.iter_mut() {
            let from = if since == Since::Beginning { 0 } else { pane.stored };
            pane.frozen = from..pane.slots.len();
            pane.stored = pane.slots.len();
        }
        let new = std::mem::take(&mut self.exceptions_new);
        let all = self.exceptions.iter().flat_map(|(&slot, list)| {
            list.iter().map(move |&(pane, first_end)| (slot, pane, first_end))
        });
        let exceptions = if since == Since::Beginning { all.collect() } else { new };
        for (slot, pane, first_end) in exceptions {
            let key = [&[EXCEPTION][..], &ordered(pane), &ordered(first_end), keys.key(slot)];
            out.put(keys.group(slot), &key, &());
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
        let (mut present, mut exceptions) = (vec![], vec![]);
        restore_entries(&mut self.results, from, keys, |_, key, _, keys| {
            match key {
                [PRESENT, rest @ ..] if rest.len() >= 8 => {
                    present.push((unordered(rest), keys.restore(&rest[8..])));
                }
                [EXCEPTION, rest @ ..] if rest.len() >= 16 => {
                    let (pane, end) = (unordered(rest), unordered(&rest[8..]));
                    exceptions.push((keys.restore(&rest[16..]), pane, end));
                }
                _ => {}
            }
            Ok(())
        })?;
        // The counts follow from who was present; windows that have fired are not counted again.
        present.sort_by_key(|(pane, _)| *pane);
        for of_pane in present.chunk_by(|(a, _), (b, _)| a == b) {
            let slots: Vec<u32> = of_pane.iter().map(|(_, slot)| *slot).collect();
            self.present(&slots, of_pane[0].0);
        }
        exceptions.into_iter().for_each(|(slot, pane, end)| self.add_exception(slot, pane, end));
        let fired = self.results.fired();
        self.counts.retain(|&end, _| self.panes.fire_time(end) > fired);
        self.state.iter_mut().for_each(|(_, pane)| pane.stored = pane.slots.len());
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
        }
        self.exceptions.keys().chain(self.exceptions_new.iter().map(|(s, _, _)| s)).for_each(
            |&s| {
                slots.insert(s);
            },
        );
    }

    fn counted(&self) -> u64 {
        self.results.counted()
    }

    fn status(&self) -> OperatorStatus {
        OperatorStatus {
            open: self.counts.len() as u64,
            next_fire: self.counts.first_key_value().map(|(&end, _)| self.panes.fire_time(end)),
        }
    }
}

/// The list of a pane's slots, an empty one if there is none yet.
fn slots_of(lists: &mut Vec<(i64, Vec<u32>)>, start: i64) -> &mut Vec<u32> {
    let at = lists.iter().position(|(of, _)| *of == start).unwrap_or(lists.len());
    if at == lists.len() {
        lists.push((start, Vec::with_capacity(256)));
    }
    &mut lists[at].1
}
