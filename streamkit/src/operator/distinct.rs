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
    state: BTreeMap<i64, Pane>,
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
            state: BTreeMap::new(),
            counts: BTreeMap::new(),
            exceptions: HashMap::new(),
            exceptions_new: vec![],
            dropped: vec![],
            results: Results::new(Acks::default()),
            next,
        }
    }

    /// Whether the window that ends at `end` has the key already, by another pane than `except`.
    fn has(&self, slot: u32, end: i64, except: i64) -> bool {
        let start = self.panes.window(end).start.as_micros();
        let in_pane = self
            .state
            .range(start..end)
            .any(|(&at, pane)| at != except && pane.present.contains(slot));
        in_pane
            || self.exceptions.get(&slot).is_some_and(|list| {
                list.iter().any(|&(pane, first)| (start..end).contains(&pane) && first <= end)
            })
    }

    /// Whether the window has not fired, nor started before the operator began.
    fn is_open(&self, end: i64) -> bool {
        self.panes.fire_time(end) > self.results.fired()
    }

    /// The first record of a key in a pane.
    fn appear(&mut self, slot: u32, start: i64) {
        for end in self.panes.ends(start) {
            if self.is_open(end) && !self.has(slot, end, start) {
                *self.counts.entry(end).or_default() += 1;
            }
        }
    }

    fn add_exception(&mut self, slot: u32, pane: i64, first_end: i64) {
        let list = self.exceptions.get(&slot);
        if list.is_some_and(|list| list.contains(&(pane, first_end))) {
            return;
        }
        for end in self.panes.ends(pane).filter(|end| *end >= first_end) {
            // No pane is excepted: the key may be in this very pane by an earlier record.
            if self.is_open(end) && !self.has(slot, end, i64::MIN) {
                *self.counts.entry(end).or_default() += 1;
            }
        }
        self.exceptions.entry(slot).or_default().push((pane, first_end));
    }

    fn present(&mut self, slot: u32, start: i64) {
        let pane = self.state.entry(start).or_default();
        if pane.present.insert(slot) {
            pane.slots.push(slot);
            self.appear(slot, start);
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
        let mut current: (i64, Pane) = (i64::MIN, Pane::default());
        rows.each(|i, lateness| {
            let slot = rows.slots[i];
            self.results.count(rows.hashes[i]);
            let start = self.panes.pane_of(rows.batch.time(rows.rows[i]));
            if let Lateness::From(end) = lateness {
                self.exceptions_new.push((slot, start, end.as_micros()));
                // Exceptions read all panes, so the one that is held must be in its place.
                if current.0 != i64::MIN {
                    let (at, pane) = std::mem::replace(&mut current, (i64::MIN, Pane::default()));
                    self.state.insert(at, pane);
                }
                self.add_exception(slot, start, end.as_micros());
                return;
            }
            if current.0 != start {
                let pane = self.state.remove(&start).unwrap_or_default();
                let (at, old) = std::mem::replace(&mut current, (start, pane));
                if at != i64::MIN {
                    self.state.insert(at, old);
                }
            }
            if current.1.present.insert(slot) {
                current.1.slots.push(slot);
                self.appear(slot, start);
            }
        });
        if current.0 != i64::MIN {
            self.state.insert(current.0, current.1);
        }
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
        while let Some((&pane, _)) = self.state.first_key_value()
            && self.panes.last_end(pane) <= reached
        {
            self.state.remove(&pane);
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
        for (&start, pane) in &mut self.state {
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
        self.state.values_mut().for_each(|pane| pane.frozen = pane.slots.len());
        Ok(())
    }

    fn begin(&mut self, from: Timestamp) {
        self.results.set_fired(self.panes.fired_before(from));
    }

    fn alive(&self, slots: &mut BitSet) {
        for pane in self.state.values() {
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
