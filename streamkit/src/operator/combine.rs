//! The second half of a count over all keys: adds the counts of the workers.

use std::collections::BTreeMap;

use super::keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus, STEP_ROWS};
use super::results::{Acks, Results, restore_entries};
use super::window::{ordered, unordered};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{Batch, BatchBuilder, Kind};
use crate::state::{BitSet, KeyTable, Since, StateReader, StateWriter, decode};
use crate::time::Timestamp;
use crate::window::{Panes, Window, Windowed};

/// One worker's count of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) window: Window,
    pub(crate) count: u64,
    pub(crate) worker: u32,
}

/// Adds partial counts; all of them come to one worker.
pub(crate) struct Combine {
    panes: Panes,
    /// Window end → the sum of the final counts that have come.
    sums: BTreeMap<i64, u64>,
    changed: Vec<i64>,
    dropped: Vec<i64>,
    /// Window end → worker → its latest running count. Not part of the state: after a restart
    /// running values are withheld until every worker has sent its own again (rule D3).
    running: BTreeMap<i64, BTreeMap<u32, u64>>,
    emitted: BTreeMap<i64, u64>,
    frozen: Option<StateWriter>,
    results: Results<(i64, u64)>,
    next: Box<dyn Link<Windowed<(), u64>>>,
}

const SUM: u8 = b'P';

impl Combine {
    pub(crate) fn new(panes: Panes, acks: Acks, next: Box<dyn Link<Windowed<(), u64>>>) -> Self {
        Self {
            panes,
            sums: BTreeMap::new(),
            changed: vec![],
            dropped: vec![],
            running: BTreeMap::new(),
            emitted: BTreeMap::new(),
            frozen: None,
            results: Results::new(acks),
            next,
        }
    }

    fn row(&self, batch: &mut BatchBuilder<Windowed<(), u64>>, end: i64, value: u64) {
        let windowed = Windowed { window: self.panes.window(end), key: (), value };
        batch.push(windowed, self.panes.fire_time(end).previous(), None);
    }

    /// Running counts; they do not go through the key table, since they are not state.
    pub(crate) fn on_running(&mut self, batch: &Batch<Partial>) {
        for partial in batch.values() {
            let end = partial.window.end.as_micros();
            self.running.entry(end).or_default().insert(partial.worker, partial.count);
        }
    }
}

impl KeyedOperator<Partial> for Combine {
    fn on_batch(&mut self, rows: &KeyedRows<'_, Partial>, _: &KeyTable, _: &mut Cx) -> Result<()> {
        if rows.batch.kind() == Kind::Running {
            self.on_running(rows.batch);
            return Ok(());
        }
        for &row in rows.rows {
            let partial = rows.batch.value(row);
            let end = partial.window.end.as_micros();
            *self.sums.entry(end).or_default() += partial.count;
            self.changed.push(end);
        }
        Ok(())
    }

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired> {
        self.results.prune();
        while let Some((&end, &sum)) = self.sums.first_key_value()
            && self.panes.fire_time(end) <= watermark
        {
            self.sums.remove(&end);
            self.dropped.push(end);
            // All partial counts have the same key, `()`, which is the only one in the table.
            debug_assert!(keys.len() <= 1);
            self.results.push(self.panes.fire_time(end), 0, (end, sum));
        }
        let mut due = vec![];
        let replayed = self.results.emit(STEP_ROWS, |waiting| due.push(waiting.result));
        if !due.is_empty() {
            let mut batch = BatchBuilder::with_capacity(due.len());
            due.iter().for_each(|&(end, sum)| self.row(&mut batch, end, sum));
            self.next.batch(batch.finish(None, Kind::Final).with_replayed(replayed), cx)?;
        }
        if let Some(next) = self.results.next_fire_time() {
            return Ok(Fired::More(next.previous()));
        }
        let reached = watermark.as_micros().saturating_sub(self.panes.fire_time(0).as_micros());
        self.running.retain(|&end, _| end > reached);
        self.emitted.retain(|&end, _| end > reached);
        self.results.set_fired(watermark);
        Ok(Fired::Done)
    }

    fn tick(&mut self, _: &KeyTable, cx: &mut Cx) -> Result<()> {
        let mut batch = BatchBuilder::with_capacity(self.running.len());
        for (&end, workers) in &self.running {
            let sum: u64 = workers.values().sum();
            if self.emitted.insert(end, sum) != Some(sum) {
                self.row(&mut batch, end, sum);
            }
        }
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
        self.sums.last_key_value().map(|(&end, _)| self.panes.fire_time(end))
    }

    fn freeze(&mut self, since: Since, keys: &KeyTable, mut out: StateWriter) {
        self.results.freeze(since, keys, &mut out);
        for end in std::mem::take(&mut self.dropped) {
            out.delete_prefix(&[&[SUM][..], &ordered(end)].concat());
        }
        let changed = std::mem::take(&mut self.changed);
        for (&end, sum) in &self.sums {
            if since == Since::Beginning || changed.contains(&end) {
                out.put(keys.group(0), &[&[SUM], &ordered(end)], sum);
            }
        }
        self.frozen = Some(out);
    }

    fn write(&mut self, _: usize, _: &KeyTable) -> Option<StateWriter> {
        self.frozen.take()
    }

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()> {
        let sums = &mut self.sums;
        restore_entries(&mut self.results, from, keys, |_, key, value, keys| {
            if let [SUM, end @ ..] = key {
                keys.restore(&[]);
                sums.insert(unordered(end), decode(value)?);
            }
            Ok(())
        })
    }

    fn alive(&self, slots: &mut BitSet) {
        slots.insert(0);
    }

    fn counted(&self) -> u64 {
        0
    }

    fn status(&self) -> OperatorStatus {
        OperatorStatus { open: self.sums.len() as u64, next_fire: None }
    }
}
