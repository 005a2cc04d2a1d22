//! Reads the splits of one source that one worker has: stamps times and marks, counts, cuts.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::gauge::Gauges;
use super::tracker::Tracker;
use super::worker::{Input, Poll};
use crate::checkpoint::{SplitEntry, Totals};
use crate::connector::{
    DeadLetter, RawRecord, ReadBatch, ReadStatus, Reject, Source, SplitReader, Wake,
};
use crate::data::Data;
use crate::error::Result;
use crate::flow::{Barrier, Control, Cx, Link};
use crate::operator::OperatorStatus;
use crate::record::{BatchBuilder, Kind, Position, Run, Split};
use crate::state::Entries;
use crate::time::{Clock, SplitTime, Timestamp, WatermarkStrategy};

/// The most records of one read.
const READ_ROWS: usize = 1_024;

/// How to read a split: decided when the job starts, or when the split is found.
#[derive(Debug, Clone)]
pub(crate) struct SplitPlan {
    /// The split's index among all splits of the job.
    pub(crate) index: u32,
    pub(crate) split: Split,
    /// Where its data began.
    pub(crate) start: u64,
    /// Where to read from.
    pub(crate) from: Position,
    /// Positions that no batch may straddle: of the checkpoint and of the sinks.
    pub(crate) cuts: Vec<u64>,
    /// Where the restored state is: the records before have been counted.
    pub(crate) restored: Position,
    pub(crate) totals: Totals,
    /// Floors that come into force at a position, ascending (rule T9).
    pub(crate) floors: Vec<(u64, Timestamp)>,
    /// Where a bounded run ends.
    pub(crate) end: Option<u64>,
}

/// What is common to all splits of a source.
pub(crate) struct StampRule<T> {
    pub(crate) strategy: WatermarkStrategy<T>,
    /// The names of the job's aggregates, for the totals.
    pub(crate) aggregates: Arc<[Arc<str>]>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) step: Arc<str>,
}

/// The splits of one source on one worker.
pub(crate) struct SourceInput<T> {
    source: Arc<dyn Source<Item = T>>,
    rule: StampRule<T>,
    tracker: Arc<Tracker>,
    wake: Wake,
    plans: Receiver<SplitPlan>,
    splits: Vec<OpenSplit<T>>,
    turn: usize,
    next: Box<dyn Link<T>>,
    dead: Option<Box<dyn Link<DeadLetter>>>,
    gauges: Gauges,
    ended: bool,
}

struct OpenSplit<T> {
    plan: SplitPlan,
    reader: Box<dyn SplitReader<Item = T>>,
    time: SplitTime,
    position: Position,
    batch: ReadBatch<T>,
    /// The batch has been read, or a part of it is left: it waits for a floor, or for its turn.
    held: bool,
    status: ReadStatus,
    ended: bool,
}

impl<T: Data> SourceInput<T> {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from parts made beside it")]
    pub(crate) fn new(
        source: Arc<dyn Source<Item = T>>,
        rule: StampRule<T>,
        tracker: Arc<Tracker>,
        wake: Wake,
        plans: Receiver<SplitPlan>,
        next: Box<dyn Link<T>>,
        dead: Option<Box<dyn Link<DeadLetter>>>,
        gauges: Gauges,
    ) -> Self {
        Self {
            source,
            rule,
            tracker,
            wake,
            plans,
            splits: vec![],
            turn: 0,
            next,
            dead,
            gauges,
            ended: false,
        }
    }

    fn open_new_splits(&mut self) -> Result<()> {
        while let Ok(plan) = self.plans.try_recv() {
            let at = plan.from;
            let reader = self.source.open(&plan.split, at.next, self.wake.clone())?;
            let delay = self.rule.strategy.out_of_orderness;
            let mut time = SplitTime::new(at.high, at.floor, delay);
            let in_force = plan.floors.iter().filter(|(from, _)| *from <= at.next);
            in_force.for_each(|(_, floor)| time.set_floor(*floor));
            self.tracker.advance(plan.index, time.own(), at.next, reader.lag());
            let ended = plan.end.is_some_and(|end| at.next >= end);
            if ended {
                self.tracker.end(plan.index);
            }
            let (batch, status) = (ReadBatch::default(), ReadStatus::More);
            let held = false;
            self.splits.push(OpenSplit {
                plan,
                reader,
                time,
                position: at,
                batch,
                held,
                status,
                ended,
            });
        }
        Ok(())
    }

    /// Reads from the next split that has something.
    fn read_one(&mut self, cx: &mut Cx) -> Result<Poll> {
        let mut waiting = Poll::Nothing;
        for _ in 0..self.splits.len() {
            self.turn = (self.turn + 1) % self.splits.len();
            let split = &mut self.splits[self.turn];
            if split.ended {
                continue;
            }
            if !split.held {
                if self.tracker.too_far_ahead(split.plan.index) {
                    self.tracker.paused(split.plan.index);
                    waiting = Poll::Later;
                    continue;
                }
                split.batch.restart(split.position.next);
                let read = split.reader.read(&mut split.batch, READ_ROWS);
                split.status = read.map_err(|e| {
                    let at = format!("{}@{}", split.plan.split.id, split.position.next);
                    e.at_step(&self.rule.step).on_record(at)
                })?;
            }
            if split.batch.is_empty() && split.batch.next == split.position.next {
                let caught_up = split.status == ReadStatus::CaughtUp;
                self.tracker.nothing(split.plan.index, caught_up, self.rule.clock.elapsed());
                if split.status == ReadStatus::Ended {
                    split.ended = true;
                    self.tracker.end(split.plan.index);
                    return Ok(Poll::Progress);
                }
                if split.status == ReadStatus::More {
                    waiting = Poll::Later;
                }
                continue;
            }
            // A gap without a record (control records) is not a sign of life.
            if !split.batch.is_empty() {
                match self.tracker.may_stamp(split.plan.index) {
                    Some(Some(floor)) => split.time.set_floor(floor),
                    Some(None) => {}
                    None => {
                        split.held = true;
                        waiting = Poll::Later;
                        continue;
                    }
                }
            }
            split.held = false;
            let at = self.turn;
            self.process(at, cx)?;
            return Ok(Poll::Progress);
        }
        Ok(waiting)
    }

    /// Sends a batch that has been read on its way, or its part up to the next position at which it
    /// must be cut; the rest is held.
    fn process(&mut self, at: usize, cx: &mut Cx) -> Result<()> {
        let split = &mut self.splits[at];
        let mut read = std::mem::take(&mut split.batch);
        let end = split.plan.end.unwrap_or(u64::MAX);
        let stop = read.next.min(end);
        let first = split.position.next;
        let floor_cuts = split.plan.floors.iter().map(|(from, _)| *from);
        let cuts = split.plan.cuts.iter().copied().chain(floor_cuts);
        let next = cuts.filter(|cut| *cut > first).min().unwrap_or(u64::MAX).min(stop);
        if next > first {
            let upto = read.offsets.partition_point(|offset| *offset < next);
            let mut items = read.items.drain(..upto).zip(read.offsets.drain(..upto)).peekable();
            let mut raws = read.raws.drain(..upto.min(read.raws.len()));
            let upto = read.rejected.partition_point(|(offset, _)| *offset < next);
            let mut rejected = read.rejected.drain(..upto).peekable();
            cx.origin = Some((split.plan.split.id.clone(), first, next));
            cx.step = Arc::clone(&self.rule.step);
            for (from, floor) in &split.plan.floors {
                if *from <= first {
                    split.time.set_floor(*floor);
                }
            }
            let mut rows = BatchBuilder::with_capacity(items.len().min(READ_ROWS));
            let mut dead = BatchBuilder::with_capacity(0);
            let counted = first >= split.plan.restored.next;
            let mut reject = |letter: DeadLetter, split: &mut OpenSplit<T>| {
                split.position.read += 1;
                if counted {
                    *split.plan.totals.dead.entry(letter.reason.to_string()).or_default() += 1;
                }
                let time = letter.timestamp.unwrap_or(Timestamp::MIN);
                dead.push(letter, time, None);
            };
            while let Some((item, offset)) = items.next_if(|(_, offset)| *offset < next) {
                while let Some((_, letter)) = rejected.next_if(|(before, _)| *before < offset) {
                    reject(letter, split);
                }
                let time = (self.rule.strategy.event_time)(&item);
                let raw = raws.next();
                if let Some(letter) =
                    too_far_in_the_future(&self.rule.strategy, time, raw, &split.plan.split)
                {
                    reject(letter, split);
                    continue;
                }
                let mark = split.time.accept(time);
                split.position.read += 1;
                split.position.accepted += 1;
                rows.push(item, time, mark);
            }
            while let Some((_, letter)) = rejected.next_if(|(before, _)| *before < next) {
                reject(letter, split);
            }
            split.position.next = next;
            split.position.high = split.time.high();
            split.position.floor = split.time.floor();
            let run = Run { split: split.plan.index, first, end: split.position };
            if let Some(link) = &mut self.dead {
                link.batch(dead.finish(Some(run), Kind::Final), cx)?;
            }
            self.next.batch(rows.finish(Some(run), Kind::Final), cx)?;
            let read = Control::Read { split: split.plan.index, end: split.position };
            if let Some(link) = &mut self.dead {
                link.control(&read, cx)?;
            }
            self.next.control(&read, cx)?;
            cx.origin = None;
            for (i, name) in self.rule.aggregates.iter().enumerate() {
                let totals = &mut split.plan.totals;
                for (counts, total) in
                    [(&mut cx.wanted, &mut totals.wanted), (&mut cx.late, &mut totals.late)]
                {
                    let n = std::mem::take(&mut counts[i]);
                    if n > 0 {
                        *total.entry(name.to_string()).or_default() += n;
                    }
                }
            }
        }
        split.held = split.position.next < stop;
        split.batch = read;
        let lag = split.reader.lag();
        self.tracker.advance(split.plan.index, split.time.own(), split.position.next, lag);
        if split.position.next >= end
            || (split.status == ReadStatus::Ended && !split.held && stop == split.batch.next)
        {
            split.ended = true;
            split.held = false;
            self.tracker.end(split.plan.index);
        }
        Ok(())
    }

    fn entry(split: &OpenSplit<T>, position: Position) -> SplitEntry {
        SplitEntry {
            split: split.plan.split.clone(),
            position,
            start: split.plan.start,
            totals: split.plan.totals.clone(),
        }
    }
}

/// The guard against one broken clock that would make everything else late.
fn too_far_in_the_future<T>(
    strategy: &WatermarkStrategy<T>,
    time: Timestamp,
    raw: Option<RawRecord>,
    split: &Split,
) -> Option<DeadLetter> {
    let limit = strategy.max_future?;
    let raw = raw?;
    let base = raw.timestamp?;
    (time > base.saturating_add(limit)).then(|| {
        let error =
            format!("event_time {time} is more than {limit:?} after the record's timestamp {base}");
        let reject = Reject { reason: "future_event_time", field: Some("event_time"), error };
        DeadLetter::new(reject, &split.topic, &raw)
    })
}

impl<T: Data> Input for SourceInput<T> {
    fn poll(&mut self, cx: &mut Cx) -> Result<Poll> {
        if self.ended {
            return Ok(Poll::Ended);
        }
        self.open_new_splits().map_err(|e| e.at_step(&self.rule.step))?;
        if !self.gauges.have_room() {
            self.splits.iter().for_each(|split| self.tracker.paused(split.plan.index));
            return Ok(Poll::NoRoom);
        }
        self.read_one(cx)
    }

    fn has_room(&self) -> bool {
        self.gauges.have_room()
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        if let Control::Barrier(barrier) = control {
            self.open_new_splits()?;
            Barrier::collect(barrier, |all| {
                for split in &self.splits {
                    // While a sink is caught up with, the state is ahead of the reader.
                    let (read, restored) = (split.position, split.plan.restored);
                    let at = if read.next < restored.next { restored } else { read };
                    all.splits.insert(split.plan.split.id.clone(), Self::entry(split, at));
                }
                all.passed += 1;
            });
        }
        if let Some(dead) = &mut self.dead {
            dead.control(control, cx)?;
        }
        self.next.control(control, cx)?;
        if matches!(control, Control::End) {
            self.ended = true;
        }
        Ok(())
    }

    fn restore(&mut self, _: &mut dyn FnMut(&str) -> Option<Entries>) -> Result<()> {
        Ok(())
    }

    fn totals(&self, into: &mut Vec<SplitEntry>) {
        into.extend(self.splits.iter().map(|split| Self::entry(split, split.position)));
    }

    fn status(&self, _: &mut Vec<(Arc<str>, OperatorStatus, u64)>) {}
}
