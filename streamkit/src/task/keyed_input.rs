//! The receiving side of an exchange, with every operator that hangs on the keyed stream.
//!
//! There is one queue per sending worker. A watermark is the minimum over them. A barrier stops a
//! queue until it has come from all of them: then exactly the records before it have been seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use super::gauge::{Gauges, Passage};
use super::worker::{Input, Poll};
use super::{KeyedBatch, Packet};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::flow::{Barrier, BarrierKind, Control, Cx};
use crate::operator::{Fired, KeyedOperator, KeyedRows, OperatorStatus};
use crate::state::{BitSet, Entries, KeyTable, Since, StateWriter};
use crate::time::{Clock, Timestamp};
use crate::window::Lateness;

/// Looks up the keys of rows of a batch: (batch, rows, hashes) → slots.
pub(crate) type Lookup<T> =
    Box<dyn Fn(&crate::record::Batch<T>, &[u32], &[u64], &mut KeyTable, &mut Vec<u32>) + Send>;

/// One keyed stream on one worker.
pub(crate) struct KeyedInput<T> {
    pub(crate) channels: Vec<Channel<T>>,
    pub(crate) lookup: Lookup<T>,
    pub(crate) operators: Vec<NamedOperator<T>>,
    pub(crate) gauges: Gauges,
    passage: Arc<Passage>,
    clock: Arc<dyn Clock>,
    /// Whether records are taken in only to let a barrier pass: there is no room to fire.
    held: bool,
    pub(crate) groups: (u8, u8),
    keys: KeyTable,
    watermark: Timestamp,
    /// A watermark that is being fired: operator by operator, step by step.
    firing: Option<(Timestamp, usize)>,
    barrier: Option<Arc<Barrier>>,
    writing: Option<Writing>,
    /// About how many bytes of state are written at once.
    portion: usize,
    ended: bool,
    slots: Vec<u32>,
    verdicts: Vec<(u32, Lateness)>,
}

/// State that is being written for a checkpoint, between other work: operator by operator.
struct Writing {
    barrier: Arc<Barrier>,
    op: usize,
    /// The longest time that it has taken at once.
    pause: Duration,
}

/// An operator with the name that its state is stored under.
pub(crate) struct NamedOperator<T> {
    pub(crate) name: Arc<str>,
    pub(crate) step: Arc<str>,
    pub(crate) operator: Box<dyn KeyedOperator<T>>,
}

/// The queue from one sending worker.
pub(crate) struct Channel<T> {
    receiver: Receiver<Packet<T>>,
    watermark: Timestamp,
    at_barrier: bool,
    ended: bool,
}

impl<T> Channel<T> {
    pub(crate) fn new(receiver: Receiver<Packet<T>>) -> Self {
        Self { receiver, watermark: Timestamp::MIN, at_barrier: false, ended: false }
    }
}

impl<T: Data> KeyedInput<T> {
    pub(crate) fn new(
        channels: Vec<Channel<T>>,
        lookup: Lookup<T>,
        operators: Vec<NamedOperator<T>>,
        gauges: Gauges,
        (passage, clock, portion): (Arc<Passage>, Arc<dyn Clock>, usize),
        groups: (u8, u8),
    ) -> Self {
        Self {
            channels,
            lookup,
            operators,
            gauges,
            passage,
            clock,
            held: false,
            groups,
            keys: KeyTable::new(),
            watermark: Timestamp::MIN,
            firing: None,
            barrier: None,
            writing: None,
            portion,
            ended: false,
            slots: vec![],
            verdicts: vec![],
        }
    }

    fn on_batch(&mut self, keyed: &KeyedBatch<T>, cx: &mut Cx) -> Result<()> {
        let batch = &keyed.batch;
        (self.lookup)(batch, &keyed.rows, &keyed.hashes, &mut self.keys, &mut self.slots);
        for (op, named) in self.operators.iter_mut().enumerate() {
            cx.step = Arc::clone(&named.step);
            self.verdicts.clear();
            let of_op = keyed.verdicts.iter().filter(|(at, _, _)| usize::from(*at) == op);
            self.verdicts.extend(of_op.map(|(_, row, verdict)| (*row, *verdict)));
            let rows = KeyedRows {
                batch,
                rows: &keyed.rows,
                slots: &self.slots,
                hashes: &keyed.hashes,
                verdicts: &self.verdicts,
            };
            // A letter covers no record.
            let run = batch.run().filter(|run| run.first() < run.next());
            cx.taking = run.map(|run| (Arc::clone(&named.name), *run));
            named.operator.on_batch(&rows, &self.keys, cx)?;
        }
        cx.taking = None;
        Ok(())
    }

    /// One firing step. True if the watermark has been dealt with.
    fn fire(&mut self, cx: &mut Cx) -> Result<bool> {
        let Some((watermark, op)) = self.firing else { return Ok(true) };
        let Some(named) = self.operators.get_mut(op) else {
            self.firing = None;
            // What is to be written names slots.
            if self.writing.is_none() && self.keys.wants_sweep() {
                let mut alive = BitSet::default();
                self.operators.iter().for_each(|named| named.operator.alive(&mut alive));
                self.keys.sweep(&alive);
            }
            return Ok(true);
        };
        cx.step = Arc::clone(&named.step);
        let fired = named.operator.fire(watermark, &self.keys, cx)?;
        failpoint("keyed.fired");
        match fired {
            Fired::Done => {
                named.operator.forward(&Control::Watermark(watermark), cx)?;
                self.firing = Some((watermark, op + 1));
            }
            Fired::More(until) => {
                named.operator.forward(&Control::Watermark(until), cx)?;
            }
        }
        Ok(false)
    }

    fn on_control(&mut self, channel: usize, control: Control, cx: &mut Cx) -> Result<()> {
        match control {
            Control::Watermark(w) => {
                self.channels[channel].watermark = w;
                let low = self.channels.iter().map(|c| c.watermark).min();
                if let Some(low) = low.filter(|low| *low > self.watermark) {
                    self.watermark = low;
                    self.firing = Some((low, 0));
                }
            }
            Control::Read(_) => {}
            Control::Barrier(barrier) => {
                self.channels[channel].at_barrier = true;
                self.barrier = Some(barrier);
                if self.channels.iter().all(|c| c.at_barrier || c.ended) {
                    self.channels.iter_mut().for_each(|c| c.at_barrier = false);
                    if let Some(barrier) = self.barrier.take() {
                        self.on_barrier(&barrier, cx)?;
                    }
                }
            }
            Control::End => {
                self.channels[channel].ended = true;
                if self.channels.iter().all(|c| c.ended) {
                    self.ended = true;
                    for named in &mut self.operators {
                        named.operator.forward(&Control::End, cx)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Arc<Barrier>, cx: &mut Cx) -> Result<()> {
        let began = self.clock.elapsed();
        for named in &mut self.operators {
            cx.step = Arc::clone(&named.step);
            match barrier.kind {
                BarrierKind::Checkpoint { base } => {
                    let since = if base { Since::Beginning } else { Since::Last };
                    named.operator.freeze(since, &self.keys, StateWriter::new(self.groups));
                    let counted = named.operator.counted();
                    barrier.collect(|all| {
                        *all.counted.entry(named.name.to_string()).or_default() += counted;
                    });
                }
                // Left out: what changed is in the next one.
                BarrierKind::Tick if self.held => {}
                BarrierKind::Deliver => {}
                BarrierKind::Tick => named.operator.tick(&self.keys, cx)?,
                BarrierKind::Drain => {
                    // What had fired before a restart waits for the watermark to get there again.
                    let fired = named.operator.highest_undelivered();
                    let fired = fired.filter(|fire_time| *fire_time > self.watermark);
                    let pending = named.operator.highest_pending().max(fired);
                    barrier.collect(|all| all.pending = all.pending.max(pending));
                }
            }
            cx.held = self.held;
            named.operator.forward(&Control::Barrier(Arc::clone(barrier)), cx)?;
            cx.held = false;
        }
        if matches!(barrier.kind, BarrierKind::Checkpoint { .. }) {
            let pause = self.clock.elapsed().saturating_sub(began);
            self.writing = Some(Writing { barrier: Arc::clone(barrier), op: 0, pause });
            barrier.pass_writing();
        } else {
            barrier.pass(|_| {});
        }
        Ok(())
    }

    /// Writes a portion of the state for the checkpoint that is being made. False if there is none.
    fn write_state(&mut self, cx: &mut Cx) -> Result<bool> {
        let Some(writing) = &mut self.writing else { return Ok(false) };
        let began = self.clock.elapsed();
        while let Some(named) = self.operators.get_mut(writing.op) {
            cx.step = Arc::clone(&named.step);
            let Some(out) = named.operator.write(self.portion, &self.keys) else { break };
            let changes = out.into_changes()?;
            writing.barrier.collect(|all| all.changes.push((named.name.to_string(), changes)));
            writing.op += 1;
        }
        let pause = writing.pause.max(self.clock.elapsed().saturating_sub(began));
        writing.pause = pause;
        if writing.op == self.operators.len()
            && let Some(writing) = self.writing.take()
        {
            writing.barrier.written(|all| all.pause = all.pause.max(pause));
        }
        Ok(true)
    }

    /// Takes one thing in, or fires a step.
    fn take_in(&mut self, cx: &mut Cx) -> Result<Poll> {
        if self.ended {
            return Ok(Poll::Ended);
        }
        if !self.gauges.have_room() || !self.may_go_on() {
            return Ok(Poll::NoRoom);
        }
        if !self.held && !self.fire(cx)? {
            return Ok(Poll::Progress);
        }
        for channel in 0..self.channels.len() {
            let from = &mut self.channels[channel];
            if from.at_barrier || from.ended {
                continue;
            }
            match from.receiver.try_recv() {
                Ok(Packet::Batch(batch)) => {
                    self.on_batch(&batch, cx)?;
                    return Ok(Poll::Progress);
                }
                Ok(Packet::Control(control)) => {
                    self.on_control(channel, control, cx)?;
                    return Ok(Poll::Progress);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::internal("a sending worker has stopped"));
                }
            }
        }
        Ok(Poll::Nothing)
    }

    /// Whether there is room to fire, or else a reason to go on without: then the watermark is noted,
    /// and fired later. A record cannot be too late for what has not fired yet, since that was decided
    /// before the exchange.
    fn may_go_on(&mut self) -> bool {
        let held = !self.gauges.results_have_room();
        if held && !self.passage.is_wanted() {
            return false;
        }
        if held != self.held {
            self.held = held;
            self.passage.hold(held);
        }
        true
    }
}

impl<T: Data> Input for KeyedInput<T> {
    fn poll(&mut self, cx: &mut Cx) -> Result<Poll> {
        let has_written = self.write_state(cx)?;
        let poll = self.take_in(cx)?;
        Ok(if has_written { Poll::Progress } else { poll })
    }

    fn restore(&mut self, state: &BTreeMap<String, Entries>) -> Result<()> {
        for named in &mut self.operators {
            if let Some(entries) = state.get(&*named.name) {
                named
                    .operator
                    .restore(&entries.reader(self.groups), &mut self.keys)
                    .map_err(|e| e.at_step(&named.step))?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, begins: &BTreeMap<String, Timestamp>) {
        for named in &mut self.operators {
            if let Some(from) = begins.get(&*named.name) {
                named.operator.begin(*from);
            }
        }
    }

    fn status(&self, into: &mut Vec<(Arc<str>, OperatorStatus, u64)>) {
        for named in &self.operators {
            let (status, counted) = (named.operator.status(), named.operator.counted());
            into.push((Arc::clone(&named.name), status, counted));
        }
    }
}
