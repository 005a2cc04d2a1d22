//! A source whose splits do what a script says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Gate;
use crate::connector::{
    DeadLetter, RawRecord, ReadBatch, ReadStatus, Reject, Source, SplitReader, Wake,
};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::record::{Split, SplitId};
use crate::time::Timestamp;

/// What one split does, step by step.
///
/// The position of a record is its place among all records of the script, rejected ones included; a
/// reader that is opened in the middle goes on with the steps after the record before its position.
/// After the last step the split has ended, unless the script [`stays`](Self::stays).
#[derive(Debug, Clone)]
pub struct Script<T> {
    steps: Vec<Step<T>>,
    records: u64,
    recorded_at: Option<Timestamp>,
    stays: bool,
}

#[derive(Debug, Clone)]
enum Step<T> {
    Record(u64, Option<Timestamp>, Record<T>),
    Waiting,
    CaughtUp,
    Until(Gate),
    QuietUntil(Gate),
    Fail(String),
}

#[derive(Debug, Clone)]
enum Record<T> {
    Item(T),
    Reject(&'static str),
}

impl<T> Default for Script<T> {
    fn default() -> Self {
        Self { steps: vec![], records: 0, recorded_at: None, stays: false }
    }
}

impl<T> Script<T> {
    /// An empty script: a split without a record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records, as fast as they are read.
    #[must_use]
    pub fn emit(mut self, items: impl IntoIterator<Item = T>) -> Self {
        for item in items {
            self.record(Record::Item(item));
        }
        self
    }

    /// A record that cannot be used, for this reason: it becomes a dead letter.
    #[must_use]
    pub fn reject(mut self, reason: &'static str) -> Self {
        self.record(Record::Reject(reason));
        self
    }

    /// The following records carry this as their own timestamp, which is what
    /// [`max_future`](crate::time::WatermarkStrategy::max_future) is measured against.
    #[must_use]
    pub fn recorded_at(mut self, time: Timestamp) -> Self {
        self.recorded_at = Some(time);
        self
    }

    /// One read finds nothing, and the source does not know whether that is the end.
    #[must_use]
    pub fn waiting(self) -> Self {
        self.step(Step::Waiting)
    }

    /// One read finds nothing, and the source is certain that this is the end for now.
    #[must_use]
    pub fn caught_up(self) -> Self {
        self.step(Step::CaughtUp)
    }

    /// Nothing until the gate is open, without evidence of the end: the split is never idle here.
    #[must_use]
    pub fn until(self, gate: &Gate) -> Self {
        self.step(Step::Until(gate.clone()))
    }

    /// Nothing until the gate is open, with evidence of the end: the split may become idle.
    #[must_use]
    pub fn quiet_until(self, gate: &Gate) -> Self {
        self.step(Step::QuietUntil(gate.clone()))
    }

    /// The read fails, with this text.
    #[must_use]
    pub fn fail(self, text: &str) -> Self {
        self.step(Step::Fail(text.to_owned()))
    }

    /// After the last step the split is caught up for ever instead of at its end.
    #[must_use]
    pub fn stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// The number of records.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn record(&mut self, record: Record<T>) {
        self.steps.push(Step::Record(self.records, self.recorded_at, record));
        self.records += 1;
    }

    fn step(mut self, step: Step<T>) -> Self {
        self.steps.push(step);
        self
    }
}

/// A source with one split for each script; they are called `script/0`, `script/1`, and so on.
#[derive(Debug, Clone)]
pub struct ScriptedSource<T> {
    topic: Arc<str>,
    scripts: Vec<Arc<Script<T>>>,
    read_size: usize,
    turns: Option<Arc<Turns>>,
    /// From this script on, splits are there only when the gate is open.
    later: Option<(usize, Gate)>,
    down: Option<Gate>,
}

#[derive(Debug)]
struct Turns {
    order: Vec<usize>,
    next: AtomicUsize,
    wakes: Mutex<Vec<Wake>>,
}

impl<T> ScriptedSource<T> {
    /// One split for each script.
    pub fn new(scripts: impl IntoIterator<Item = Script<T>>) -> Self {
        Self {
            topic: "script".into(),
            scripts: scripts.into_iter().map(Arc::new).collect(),
            read_size: usize::MAX,
            turns: None,
            later: None,
            down: None,
        }
    }

    /// One split for each list of records.
    pub fn splits(splits: impl IntoIterator<Item = Vec<T>>) -> Self {
        Self::new(splits.into_iter().map(|items| Script::new().emit(items)))
    }

    /// Another name than `script`, for a job with several scripted sources.
    #[must_use]
    pub fn named(mut self, topic: &str) -> Self {
        self.topic = topic.into();
        self
    }

    /// Splits that are there only when the gate is open, as new partitions of a topic.
    #[must_use]
    pub fn later(mut self, gate: &Gate, scripts: impl IntoIterator<Item = Script<T>>) -> Self {
        self.later = Some((self.scripts.len(), gate.clone()));
        self.scripts.extend(scripts.into_iter().map(Arc::new));
        self
    }

    /// Until the gate is open no question is answered: an error that may pass.
    #[must_use]
    pub fn down_until(mut self, gate: &Gate) -> Self {
        self.down = Some(gate.clone());
        self
    }

    /// The most records of one read.
    #[must_use]
    pub fn read_size(mut self, records: usize) -> Self {
        self.read_size = records.max(1);
        self
    }

    /// Reads records one by one in this order of splits; when it is used up, splits are free again.
    /// For interleavings; not for a source that is started more than once.
    #[must_use]
    pub fn turns(mut self, order: impl Into<Vec<usize>>) -> Self {
        let turns =
            Turns { order: order.into(), next: AtomicUsize::new(0), wakes: Mutex::default() };
        self.turns = Some(Arc::new(turns));
        self
    }

    fn must_be_up(&self) -> Result<()> {
        match &self.down {
            Some(gate) if !gate.is_open() => Err(Error::external("the source is down").retriable()),
            _ => Ok(()),
        }
    }

    fn script(&self, split: &Split) -> Result<(usize, &Arc<Script<T>>)> {
        let i = usize::try_from(split.partition).unwrap_or(usize::MAX);
        let script = self.scripts.get(i);
        script.map(|s| (i, s)).ok_or_else(|| Error::user(format!("there is no split {}", split.id)))
    }
}

impl<T: Data + Clone> Source for ScriptedSource<T> {
    type Item = T;

    fn describe(&self) -> String {
        format!("scripts {}", self.topic)
    }

    fn splits(&self, _known: &[Split]) -> Result<Vec<Split>> {
        self.must_be_up()?;
        let split = |i| Split {
            id: SplitId::new(format!("{}/{i}", self.topic)),
            topic: Arc::clone(&self.topic),
            partition: i,
            memo: String::new(),
        };
        let there = match &self.later {
            Some((before, gate)) if !gate.is_open() => *before,
            _ => self.scripts.len(),
        };
        Ok((0..there).filter_map(|i| i32::try_from(i).ok()).map(split).collect())
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(0)
    }

    fn end(&self, split: &Split) -> Result<u64> {
        Ok(self.script(split)?.1.records)
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = T>>> {
        let (number, script) = self.script(split)?;
        let before = |step: &Step<T>| matches!(step, Step::Record(at, ..) if *at < position);
        let at = script.steps.iter().rposition(before).map_or(0, |last| last + 1);
        let (script, topic) = (Arc::clone(script), Arc::clone(&self.topic));
        let turns = self.turns.as_ref().map(|turns| (number, Arc::clone(turns)));
        let (partition, read_size) = (split.partition, self.read_size);
        Ok(Box::new(Reader { topic, partition, script, at, read_size, turns, wake }))
    }
}

struct Reader<T> {
    topic: Arc<str>,
    partition: i32,
    script: Arc<Script<T>>,
    /// The next step.
    at: usize,
    read_size: usize,
    turns: Option<(usize, Arc<Turns>)>,
    wake: Wake,
}

impl<T: Data + Clone> SplitReader for Reader<T> {
    type Item = T;

    fn read(&mut self, batch: &mut ReadBatch<T>, max: usize) -> Result<ReadStatus> {
        let max = max.min(self.read_size);
        while batch.len() < max {
            let status = match self.script.steps.get(self.at) {
                None if self.script.stays => Some(ReadStatus::CaughtUp),
                None => Some(ReadStatus::Ended),
                Some(Step::Record(at, time, record)) => {
                    if !self.is_my_turn() {
                        return Ok(ReadStatus::Waiting);
                    }
                    self.push(batch, *at, *time, record);
                    self.at += 1;
                    None
                }
                // What is at hand leaves first, so that the test knows what has been read.
                Some(_) if !batch.is_empty() => Some(ReadStatus::More),
                Some(Step::Waiting) => {
                    self.at += 1;
                    Some(ReadStatus::Waiting)
                }
                Some(Step::CaughtUp) => {
                    self.at += 1;
                    Some(ReadStatus::CaughtUp)
                }
                Some(Step::Until(gate)) if !gate.is_open_or_wakes(&self.wake) => {
                    Some(ReadStatus::Waiting)
                }
                Some(Step::QuietUntil(gate)) if !gate.is_open_or_wakes(&self.wake) => {
                    Some(ReadStatus::CaughtUp)
                }
                Some(Step::Until(_) | Step::QuietUntil(_)) => {
                    self.at += 1;
                    None
                }
                Some(Step::Fail(text)) => return Err(Error::external(text.clone())),
            };
            if let Some(status) = status {
                return Ok(status);
            }
        }
        Ok(ReadStatus::More)
    }

    fn lag(&self) -> Option<u64> {
        let record = |step: &&Step<T>| matches!(step, Step::Record(..));
        Some(self.script.steps[self.at..].iter().filter(record).count() as u64)
    }
}

impl<T: Data + Clone> Reader<T> {
    fn push(&self, batch: &mut ReadBatch<T>, at: u64, time: Option<Timestamp>, record: &Record<T>) {
        let partition = self.partition;
        let raw = RawRecord { timestamp: time, partition, offset: at, ..RawRecord::default() };
        match record {
            Record::Item(item) => {
                batch.push(at, item.clone());
                batch.raws.push(raw);
            }
            Record::Reject(reason) => {
                let error = format!("the script rejects record {at}");
                let reject = Reject { reason, field: None, error };
                batch.rejected.push((at, DeadLetter::new(reject, &self.topic, &raw)));
                batch.set_next(at + 1);
            }
        }
    }

    fn is_my_turn(&self) -> bool {
        let Some((split, turns)) = &self.turns else { return true };
        let next = turns.next.load(Ordering::SeqCst);
        let mut wakes = turns.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.order.get(next) {
            Some(turn) if turn != split => {
                wakes.push(self.wake.clone());
                return false;
            }
            Some(_) => turns.next.store(next + 1, Ordering::SeqCst),
            None => {}
        }
        let wakes = std::mem::take(&mut *wakes);
        wakes.iter().for_each(Wake::wake);
        true
    }
}
