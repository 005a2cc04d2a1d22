//! Distinct keys of each window: one bit per key and pane, and a count per window.
//!
//! The first record of a key in a pane looks at the other panes of each window that the pane is in;
//! where none of them has the key, the window's count grows by one. All later records of that key
//! and pane are one bit test. Counts are exact, whatever the disorder, and firing costs nothing.
//!
//! Each worker counts its own keys; [`Combine`](super::Combine) adds the workers' counts.

use std::collections::{BTreeMap, HashMap};

use super::combine::Partial;
use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus};
use super::pane_list::PaneList;
use super::results::{Acks, Results, restore_entries};
use super::window::{ordered, unordered};
use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{BatchBuilder, Kind};
use crate::state::{BitSet, KeyTable, Since, StateReader, StateWriter};
use crate::time::Timestamp;
use crate::window::{Lateness, Panes};

/// The number of distinct keys of each window, of this worker's keys.
pub(crate) struct DistinctKeys {
    panes: Panes,
    worker: u32,
    state: PaneList<Pane>,
    /// Window end → keys.
    counts: BTreeMap<i64, u64>,
    /// Keys that are late for some windows of a pane: (pane, first window end), by slot (rule T4).
    exceptions: HashMap<u32, Vec<(i64, i64)>>,
    exceptions_new: Vec<(u32, i64, i64)>,
    dropped: Vec<i64>,
    results: Results<()>,
    next: Box<dyn Link<Partial>>,
}

#[derive(Debug, Default)]
struct Pane {
    present: BitSet,
    /// In the order of arrival, so that what is new since a checkpoint is a tail.
    slots: Vec<u32>,
    frozen: usize,
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
            exceptions_new: vec![],
            dropped: vec![],
            results: Results::new(Acks::default()),
            next,
        }
    }

    /// The panes that a window which reads the pane at `start` may read, and which have the key.
    fn neighbours(&self, slot: u32, start: i64) -> impl Iterator<Item = i64> {
        let (from, to) = self.panes.neighbours(start);
        let panes = self.state.range(from, to);
        panes.filter(move |(_, pane)| pane.present.contains(slot)).map(|(at, _)| at)
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

    /// Counts the key in each window of the pane, from `first_end` on, that has not got it yet.
    /// Before the pane itself gets it.
    fn appear(&mut self, slot: u32, pane: i64, first_end: i64) {
        // The nearest on either side decide: a window has all panes between two of its own.
        let (mut before, mut after) = (i64::MIN, i64::MAX);
        for at in self.neighbours(slot, pane) {
            match at <= pane {
                true => before = at,
                false => after = after.min(at),
            }
        }
        for end in self.panes.ends(pane).filter(|end| *end >= first_end) {
            let has = before >= self.panes.window(end).start.as_micros() || after < end;
            if !has && self.is_open(end) && !self.has_exception(slot, end) {
                *self.counts.entry(end).or_default() += 1;
            }
        }
    }

    /// A record of the key that is late for the windows that end before `first_end`.
    fn add_exception(&mut self, slot: u32, pane: i64, first_end: i64) {
        let list = self.exceptions.get(&slot);
        if list.is_some_and(|list| list.contains(&(pane, first_end))) {
            return;
        }
        self.appear(slot, pane, first_end);
        self.exceptions.entry(slot).or_default().push((pane, first_end));
    }

    /// A record of the key that is late for none of its windows.
    #[inline]
    fn present(&mut self, slot: u32, start: i64) {
        if !self.state.at(start).present.contains(slot) {
            self.appear(slot, start, i64::MIN);
            let pane = self.state.at(start);
            pane.present.insert(slot);
            pane.slots.push(slot);
        }
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
        rows.each(|i, lateness| {
            let slot = rows.slots[i];
            self.results.count(rows.hashes[i]);
            let start = self.panes.pane_of(rows.batch.time(rows.rows[i]));
            match lateness {
                Lateness::From(end) => {
                    self.exceptions_new.push((slot, start, end.as_micros()));
                    self.add_exception(slot, start, end.as_micros());
                }
                _ => self.present(slot, start),
            }
        });
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, _: &KeyTable, cx: &mut Cx) -> Result<Fired> {
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
        {
            self.state.pop_first();
            self.dropped.push(pane);
        }
        if !self.exceptions.is_empty() {
            let panes = self.panes;
            self.exceptions.retain(|_, list| {
                list.retain(|(pane, _)| panes.last_end(*pane) > reached);
                !list.is_empty()
            });
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

    fn freeze(&mut self, since: Since, keys: &KeyTable, out: &mut StateWriter) -> Result<()> {
        self.results.freeze(since, keys, out)?;
        for pane in std::mem::take(&mut self.dropped) {
            out.delete_prefix(&[&[PRESENT][..], &ordered(pane)].concat());
            out.delete_prefix(&[&[EXCEPTION][..], &ordered(pane)].concat());
        }
        for (start, pane) in self.state.iter_mut() {
            let from = if since == Since::Beginning { 0 } else { pane.frozen };
            for &slot in &pane.slots[from..] {
                let key = [&[PRESENT][..], &ordered(start), keys.key(slot)];
                out.put(keys.group(slot), &key, &())?;
            }
            pane.frozen = pane.slots.len();
        }
        let new = std::mem::take(&mut self.exceptions_new);
        let all = self.exceptions.iter().flat_map(|(&slot, list)| {
            list.iter().map(move |&(pane, first_end)| (slot, pane, first_end))
        });
        let exceptions = if since == Since::Beginning { all.collect() } else { new };
        for (slot, pane, first_end) in exceptions {
            let key = [&[EXCEPTION][..], &ordered(pane), &ordered(first_end), keys.key(slot)];
            out.put(keys.group(slot), &key, &())?;
        }
        Ok(())
    }

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()> {
        let (mut present, mut exceptions) = (vec![], vec![]);
        restore_entries(&mut self.results, from, keys, |key, _, keys| {
            match key {
                [PRESENT, rest @ ..] if rest.len() >= 8 => {
                    present.push((keys.restore(&rest[8..]), unordered(rest)));
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
        present.into_iter().for_each(|(slot, pane)| self.present(slot, pane));
        exceptions.into_iter().for_each(|(slot, pane, end)| self.add_exception(slot, pane, end));
        let fired = self.results.fired();
        self.counts.retain(|&end, _| self.panes.fire_time(end) > fired);
        self.state.iter_mut().for_each(|(_, pane)| pane.frozen = pane.slots.len());
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
