//! A split that is being read: what has been read of it, and where it is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::catch_up::CatchUp;
use super::given_up::GivenUpBy;
use super::portion::{Portion, Start, Taken};
use crate::checkpoint::{SplitEntry, Totals};
use crate::connector::{
    DeadLetter, PROCESSING_ERROR, RawRecord, ReadBatch, ReadStatus, Reject, SplitReader,
};
use crate::error::panic_text;
use crate::record::{Position, Split};
use crate::time::{SplitTime, Timestamp, WatermarkStrategy};

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
    /// Records that an earlier run has given up, and why.
    pub(crate) given_up: BTreeMap<u64, String>,
    /// Records that one operator has given up, in the order of the facts: the letters about them.
    pub(crate) given_up_by: Vec<GivenUpBy>,
    /// Where a bounded run ends.
    pub(crate) end: Option<u64>,
}

/// One split with its reader.
pub(crate) struct OpenSplit<T> {
    pub(crate) plan: SplitPlan,
    pub(crate) reader: Box<dyn SplitReader<Item = T>>,
    pub(crate) time: SplitTime,
    pub(crate) position: Position,
    pub(crate) batch: ReadBatch<T>,
    /// The batch has been read, or a part of it is left: it waits for a floor, or for its turn.
    pub(crate) held: bool,
    /// A portion that waits until records of it that are given up are facts.
    pub(crate) asked: Option<Portion<T>>,
    pub(crate) status: ReadStatus,
    pub(crate) ended: bool,
    /// Reads a record again that a letter is about.
    pub(super) again: Option<(Box<dyn SplitReader<Item = T>>, ReadBatch<T>)>,
    /// Reads again what some sinks lack.
    pub(crate) catch_up: Option<Box<CatchUp<T>>>,
    /// Whether the tracker knows that some sink lacks something.
    pub(crate) behind: bool,
}

impl<T> OpenSplit<T> {
    pub(crate) fn new(
        plan: SplitPlan,
        reader: Box<dyn SplitReader<Item = T>>,
        delay: std::time::Duration,
    ) -> Self {
        let at = plan.from;
        let mut time = SplitTime::new(at.high, at.floor, delay);
        let in_force = plan.floors.iter().filter(|(from, _)| *from <= at.next);
        in_force.for_each(|(_, floor)| time.set_floor(*floor));
        let mut open = Self {
            plan,
            reader,
            time,
            position: at,
            batch: ReadBatch::default(),
            held: false,
            asked: None,
            status: ReadStatus::More,
            ended: false,
            again: None,
            catch_up: None,
            behind: false,
        };
        open.ended = open.is_at_its_end();
        open
    }

    /// A floor comes into force before the next record. Whoever reads it again must know (rule T9).
    pub(crate) fn set_floor(&mut self, floor: Timestamp) {
        if self.time.floor() < Some(floor) {
            self.plan.floors.push((self.position.next, floor));
        }
        self.time.set_floor(floor);
    }

    /// Records of a portion that waited are facts: it may go, and whoever reads them again must know.
    pub(crate) fn settled(&mut self, portion: &mut Portion<T>) {
        for at in std::mem::take(&mut portion.unsettled) {
            if let Some(letter) = portion.letters.get(&at) {
                self.plan.given_up.insert(at, letter.error.clone());
            }
        }
    }

    /// The letter about a record that an operator has given up, if it comes next.
    pub(super) fn due_letter(&self) -> Option<&GivenUpBy> {
        let next =
            usize::try_from(self.position.told).ok().and_then(|i| self.plan.given_up_by.get(i));
        next.filter(|letter| letter.letter_at <= self.position.next)
    }

    /// Whether such a letter comes next.
    pub(crate) fn has_letter(&self) -> bool {
        self.due_letter().is_some()
    }

    /// The end of what has been read, or of the split if that is before it.
    fn stop(&self) -> u64 {
        self.batch.next.min(self.plan.end.unwrap_or(u64::MAX))
    }

    /// Takes the records up to the next position at which they must be cut. `None`: there is
    /// nothing before the end.
    pub(crate) fn next_portion(&mut self, strategy: &WatermarkStrategy<T>) -> Option<Portion<T>> {
        let first = self.position.next;
        let floors = self.plan.floors.iter().map(|(from, _)| *from);
        let cuts = self.plan.cuts.iter().copied().chain(floors);
        let next = cuts.filter(|cut| *cut > first).min().unwrap_or(u64::MAX).min(self.stop());
        self.held = false;
        if next <= first {
            return None;
        }
        for (from, floor) in &self.plan.floors {
            if *from <= first {
                self.time.set_floor(*floor);
            }
        }
        let taken = self.take(next, strategy);
        let start = Start { split: self.plan.index, position: self.position, time: self.time };
        Some(Portion::new(start, taken))
    }

    /// Takes what was read before `next`, and sorts out what cannot be used.
    fn take(&mut self, next: u64, strategy: &WatermarkStrategy<T>) -> Taken<T> {
        let (plan, read) = (&self.plan, &mut self.batch);
        let upto = read.offsets.partition_point(|offset| *offset < next);
        let items = take_first(&mut read.items, upto);
        let offsets = take_first(&mut read.offsets, upto);
        let raws = take_first(&mut read.raws, upto);
        let upto = read.rejected.partition_point(|(offset, _)| *offset < next);
        let mut letters: BTreeMap<u64, DeadLetter> = read.rejected.drain(..upto).collect();
        let (times, untimed) = event_times(strategy, &items);
        let mut refused: BTreeMap<usize, DeadLetter> = BTreeMap::new();
        for (row, error) in untimed {
            let raw = raws.get(row).cloned();
            refused.insert(row, DeadLetter::given_up(&plan.split, offsets[row], raw, error));
        }
        if let Some(limit) = strategy.max_future {
            for (row, raw) in raws.iter().enumerate() {
                if let Some(letter) = too_far_in_the_future(limit, times[row], raw, &plan.split) {
                    refused.entry(row).or_insert(letter);
                }
            }
        }
        for (&at, error) in plan.given_up.range(self.position.next..next) {
            // In a replay it may be unusable in another way, or in none.
            let row = offsets.binary_search(&at);
            let raw = row.ok().and_then(|row| raws.get(row).cloned());
            let letter = DeadLetter::given_up(&plan.split, at, raw, error.clone());
            match row {
                Ok(row) => _ = refused.insert(row, letter),
                Err(_) => {
                    _ = letters.entry(at).and_modify(|old| {
                        old.reason = letter.reason;
                        old.field = None;
                        old.error = letter.error;
                    })
                }
            }
        }
        let mut taken =
            Taken { items, times, offsets, raws, letters, unsettled: BTreeSet::new(), next };
        taken.refuse(refused);
        let fact = |at: &u64| plan.given_up.contains_key(at);
        let given_up = taken.letters.iter().filter(|(_, l)| l.reason == PROCESSING_ERROR);
        taken.unsettled = given_up.map(|(at, _)| *at).filter(|at| !fact(at)).collect();
        taken
    }

    /// The portion has gone down every branch.
    pub(crate) fn went(&mut self, portion: &Portion<T>) {
        if portion.begin() >= self.plan.restored.place() {
            let totals = &mut self.plan.totals;
            match &portion.of {
                Some(operator) => *totals.given_up.entry(operator.clone()).or_default() += 1,
                None => {
                    for letter in portion.letters.values() {
                        *totals.dead.entry(letter.reason.to_string()).or_default() += 1;
                    }
                }
            }
        }
        self.position = portion.end;
        self.time = portion.time;
        self.held = self.position.next < self.stop();
    }

    /// Whether nothing will follow.
    pub(crate) fn is_at_its_end(&self) -> bool {
        let read = self.status == ReadStatus::Ended && !self.held && self.stop() == self.batch.next;
        let end = self.plan.end.is_some_and(|end| self.position.next >= end);
        (read || end) && !self.has_letter()
    }

    /// What a checkpoint says of the split. While a sink is caught up with, the state is ahead of
    /// the reader.
    pub(crate) fn checkpointed(&self) -> SplitEntry {
        let (read, restored) = (self.position, self.plan.restored);
        self.entry(if read.place() < restored.place() { restored } else { read })
    }

    pub(crate) fn entry(&self, position: Position) -> SplitEntry {
        SplitEntry {
            split: self.plan.split.clone(),
            position,
            start: self.plan.start,
            totals: self.plan.totals.clone(),
        }
    }
}

/// Takes the first `n`: mostly all of them, and then nothing is copied.
fn take_first<T>(column: &mut Vec<T>, n: usize) -> Vec<T> {
    if n >= column.len() {
        let room = column.len();
        return std::mem::replace(column, Vec::with_capacity(room));
    }
    column.drain(..n).collect()
}

/// The event time of each item; and the items that user code cannot read it from, with the panic of
/// the second try.
fn event_times<T>(
    strategy: &WatermarkStrategy<T>,
    items: &[T],
) -> (Vec<Timestamp>, Vec<(usize, String)>) {
    let mut times = Vec::with_capacity(items.len());
    let (mut untimed, mut tried) = (vec![], None);
    // One frame for all of them: catching costs nothing as long as nothing is thrown.
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
        let rest = &items[times.len()..];
        (strategy.event_times)(rest, &mut times);
    })) {
        let at = times.len();
        if tried.replace(at) == Some(at) {
            untimed.push((at, panic_text(panic.as_ref())));
            times.push(Timestamp::MIN);
        }
    }
    (times, untimed)
}

/// The guard against one broken clock that would make everything else late.
fn too_far_in_the_future(
    limit: std::time::Duration,
    time: Timestamp,
    raw: &RawRecord,
    split: &Split,
) -> Option<DeadLetter> {
    let base = raw.timestamp?;
    (time > base.saturating_add(limit)).then(|| {
        let error =
            format!("event_time {time} is more than {limit:?} after the record's timestamp {base}");
        let reject = Reject { reason: "future_event_time", field: Some("event_time"), error };
        DeadLetter::new(reject, &split.topic, raw)
    })
}
