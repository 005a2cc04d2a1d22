//! The exchange: each record to the worker that owns its key.
//!
//! Lateness is decided here, before the exchange, from the record's own mark (rule T3): so it does
//! not matter what the other splits, or the receiving worker, have seen meanwhile. A batch is not
//! copied: every receiver gets the same batch, and which of its rows are its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::gauge::{Gauges, SLACK};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::broken;
use crate::flow::{Control, Cx, Link, Signal};
use crate::record::{Batch, BatchBuilder, Kind, LateRecord, MakeLate, Place, SplitList};
use crate::state::worker_of;
use crate::time::Timestamp;
use crate::window::Lateness;

/// What one worker sends to another.
#[derive(Debug)]
pub(crate) enum Packet<T> {
    Batch(KeyedBatch<T>),
    Control(Control),
}

/// A batch for one worker.
#[derive(Debug)]
pub(crate) struct KeyedBatch<T> {
    pub(crate) batch: Batch<T>,
    /// The receiver's rows: physical ones, ascending.
    pub(crate) rows: Vec<u32>,
    /// The hash of each of these rows' key.
    pub(crate) hashes: Vec<u64>,
    /// Rows that are not on time: (operator, physical row, verdict), sorted.
    pub(crate) verdicts: Arc<[(u16, u32, Lateness)]>,
}

/// What is late for one operator behind the exchange, and where it goes.
pub(crate) struct LateRule<T> {
    /// The operator's place among those of the keyed stream.
    pub(crate) operator: u16,
    /// `None`: nothing is ever late.
    pub(crate) lateness: Option<Arc<dyn Fn(Timestamp, Timestamp) -> Lateness + Send + Sync>>,
    /// The late output, if anybody listens.
    pub(crate) output: Option<Box<dyn Link<LateRecord<T>>>>,
    /// Makes a late record; there only where there is an output.
    pub(crate) make: Option<MakeLate<T>>,
    /// The operator's index among those that count.
    pub(crate) aggregate: usize,
    /// Records that the operator has given up: it gets nothing of them (fault F85).
    pub(crate) given_up: BTreeSet<(u32, u64)>,
}

/// The hashes of the keys of rows of a batch.
pub(crate) type HashesOf<T> = Arc<dyn Fn(&Batch<T>, &[u32]) -> Vec<u64> + Send + Sync>;

/// The sending side, on one worker.
pub(crate) struct Exchange<T> {
    pub(crate) hashes: HashesOf<T>,
    pub(crate) senders: Vec<(Sender<Packet<T>>, Arc<Signal>)>,
    pub(crate) rules: Vec<LateRule<T>>,
    /// For each split: the position below which records are in the restored state already.
    pub(crate) restored_to: Arc<[Place]>,
    /// The splits of the job, by index.
    pub(crate) splits: SplitList,
    /// Whether any operator is behind it, and whether one takes running values.
    pub(crate) wanted: bool,
    pub(crate) running: bool,
}

impl<T: Data> Exchange<T> {
    /// Decides what is late, and sends that to the late outputs.
    fn judge(&mut self, batch: &Batch<T>, cx: &mut Cx) -> Result<Vec<(u16, u32, Lateness)>> {
        let mut verdicts = vec![];
        let counted = batch.run().is_some() && !cx.catching_up && !self.is_restored(batch);
        // A record that any operator has given up is alone in its batch.
        let alone = batch.run().and_then(|run| Some((run.split, run.only()?)));
        for rule in &mut self.rules {
            let mut late = rule.output.is_some().then(|| BatchBuilder::with_capacity(0));
            let (mut missed, before) = (0, verdicts.len());
            if let Some(lateness) = &rule.lateness {
                for (row, mark) in batch.marked() {
                    let verdict = lateness(batch.time(row), mark);
                    if verdict == Lateness::OnTime {
                        continue;
                    }
                    verdicts.push((rule.operator, row, verdict));
                    if verdict == Lateness::Late {
                        missed += 1;
                        if let (Some(late), Some(make)) = (&mut late, &rule.make) {
                            let time = batch.time(row);
                            let split = batch.run().and_then(|run| self.splits.get(run.split));
                            let record = make(batch.value(row), time, mark, split);
                            late.push(record, time, None);
                        }
                    }
                }
            }
            let mut wanted = batch.len() as u64;
            if alone.is_some_and(|record| rule.given_up.contains(&record)) {
                // What was late is late as before: the late output may have it already.
                wanted = missed;
                verdicts.truncate(before);
                let skipped = batch.indices().map(|row| (rule.operator, row, Lateness::Late));
                verdicts.extend(skipped);
            }
            if counted {
                cx.wanted[rule.aggregate] += wanted;
                cx.late[rule.aggregate] += missed;
            }
            if let (Some(late), Some(output)) = (late, &mut rule.output) {
                output.batch(late.finish(batch.run().copied(), Kind::Final), cx)?;
            }
        }
        Ok(verdicts)
    }

    /// Whether the restored state has the whole batch already. Batches are cut at the position of
    /// the checkpoint, so it never has a part.
    fn is_restored(&self, batch: &Batch<T>) -> bool {
        !broken("state.positions")
            && batch.run().is_some_and(|run| {
                self.restored_to.get(run.split as usize).is_some_and(|&to| run.end.place() <= to)
            })
    }
}

impl<T: Data> Link<T> for Exchange<T> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        let verdicts: Arc<[_]> = self.judge(&batch, cx)?.into();
        let unwanted = batch.kind() == Kind::Running && !self.running;
        if !self.wanted
            || batch.is_empty()
            || cx.catching_up
            || self.is_restored(&batch)
            || batch.is_replayed()
            || unwanted
        {
            return Ok(());
        }
        let workers = self.senders.len();
        let mut rows = Vec::with_capacity(batch.len());
        batch.indices().for_each(|row| rows.push(row));
        let hashes = (self.hashes)(&batch, &rows);
        if let [(sender, signal)] = &self.senders[..] {
            let keyed = KeyedBatch { batch, rows, hashes, verdicts };
            return send(sender, signal, Packet::Batch(keyed), cx);
        }
        let room = batch.len().div_ceil(workers) + batch.len() / 8;
        let mut parts: Vec<(Vec<u32>, Vec<u64>)> =
            (0..workers).map(|_| (Vec::with_capacity(room), Vec::with_capacity(room))).collect();
        for (row, hash) in rows.into_iter().zip(hashes) {
            let (rows, hashes) = &mut parts[worker_of(hash, workers)];
            rows.push(row);
            hashes.push(hash);
        }
        for ((rows, hashes), (sender, signal)) in parts.into_iter().zip(&self.senders) {
            if rows.is_empty() {
                continue;
            }
            let (batch, verdicts) = (batch.clone(), Arc::clone(&verdicts));
            send(sender, signal, Packet::Batch(KeyedBatch { batch, rows, hashes, verdicts }), cx)?;
        }
        Ok(())
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        for rule in &mut self.rules {
            if let Some(output) = &mut rule.output {
                output.control(control, cx)?;
            }
        }
        if matches!(control, Control::Read(_)) {
            return Ok(()); // What is keyed goes by watermarks.
        }
        for (sender, signal) in &self.senders {
            send(sender, signal, Packet::Control(control.clone()), cx)?;
        }
        Ok(())
    }
}

fn send<T: Data>(
    sender: &Sender<Packet<T>>,
    signal: &Arc<Signal>,
    packet: Packet<T>,
    cx: &mut Cx,
) -> Result<()> {
    let (sender, signal) = (sender.clone(), Arc::clone(signal));
    cx.send(move || {
        // There is room (the step would not have begun otherwise), so this does not block.
        sender.send(packet).map_err(|_| Error::internal("a worker has stopped"))?;
        signal.ring();
        Ok(())
    })
}

/// Watches the queues of an exchange.
pub(crate) fn watch<T: Data>(senders: &[(Sender<Packet<T>>, Arc<Signal>)], gauges: &mut Gauges) {
    for (sender, _) in senders {
        let sender = sender.clone();
        let capacity = sender.capacity().unwrap_or(usize::MAX);
        gauges.add(Arc::new(move || sender.len() + SLACK <= capacity));
    }
}
