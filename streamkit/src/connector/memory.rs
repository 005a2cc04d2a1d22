//! The reference pair: a vector per split, and a sink that collects.
//!
//! They hold to every rule of the contracts, so they are also what to read before writing a
//! connector of your own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{
    Claim, Commit, Progress, ReadBatch, ReadStatus, Sink, SinkContext, SinkOptions, SinkWriter,
    Source, SplitReader, Wake,
};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::record::{Batch, Kind, Split, SplitId};
use crate::time::Timestamp;

/// A source with one split per vector. The position is the index of the next item.
#[derive(Debug, Clone)]
pub struct Memory<T> {
    splits: Vec<Arc<[T]>>,
}

impl<T> Memory<T> {
    /// One split with these items.
    pub fn new(items: impl Into<Vec<T>>) -> Self {
        Self::splits([items.into()])
    }

    /// One split for each vector; they are called `memory/0`, `memory/1`, and so on.
    pub fn splits(splits: impl IntoIterator<Item = Vec<T>>) -> Self {
        Self { splits: splits.into_iter().map(Into::into).collect() }
    }

    fn items(&self, split: &Split) -> Result<&Arc<[T]>> {
        usize::try_from(split.partition)
            .ok()
            .and_then(|i| self.splits.get(i))
            .ok_or_else(|| Error::user(format!("there is no split {}", split.id)))
    }
}

impl<T: Data + Clone> Source for Memory<T> {
    type Item = T;

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn splits(&self, _known: &[Split]) -> Result<Vec<Split>> {
        let split = |i| Split {
            id: SplitId::new(format!("memory/{i}")),
            topic: "memory".into(),
            partition: i,
            memo: String::new(),
        };
        Ok((0..self.splits.len()).filter_map(|i| i32::try_from(i).ok()).map(split).collect())
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(0)
    }

    fn end(&self, split: &Split) -> Result<u64> {
        Ok(self.items(split)?.len() as u64)
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        _wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = T>>> {
        Ok(Box::new(MemoryReader { items: Arc::clone(self.items(split)?), next: position }))
    }
}

struct MemoryReader<T> {
    items: Arc<[T]>,
    next: u64,
}

impl<T: Data + Clone> SplitReader for MemoryReader<T> {
    type Item = T;

    fn read(&mut self, batch: &mut ReadBatch<T>, max: usize) -> Result<ReadStatus> {
        let from = usize::try_from(self.next).unwrap_or(usize::MAX).min(self.items.len());
        let to = from.saturating_add(max).min(self.items.len());
        batch.extend(self.next, self.items[from..to].iter().cloned());
        self.next = to as u64;
        Ok(if to == self.items.len() { ReadStatus::Ended } else { ReadStatus::More })
    }

    fn lag(&self) -> Option<u64> {
        Some((self.items.len() as u64).saturating_sub(self.next))
    }
}

/// A sink that keeps every committed row, and survives a restart of the job within the process.
#[derive(Debug)]
pub struct Collect<T> {
    target: Arc<Mutex<Target<T>>>,
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Self { target: Arc::clone(&self.target) }
    }
}

#[derive(Debug, Clone)]
struct Target<T> {
    rows: Vec<(T, Timestamp)>,
    running: Vec<(T, Timestamp)>,
    stored: BTreeMap<String, Stored>,
}

#[derive(Debug, Clone)]
struct Stored {
    lineage: String,
    owner: u64,
    progress: Option<Progress>,
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        let target = Target { rows: vec![], running: vec![], stored: BTreeMap::new() };
        Self { target: Arc::new(Mutex::new(target)) }
    }
}

impl<T: Clone> Collect<T> {
    /// An empty target.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The final rows, in the order in which they were committed.
    pub fn rows(&self) -> Vec<T> {
        self.lock().rows.iter().map(|(value, _)| value.clone()).collect()
    }

    /// The final rows with their timestamps.
    pub fn timed_rows(&self) -> Vec<(T, Timestamp)> {
        self.lock().rows.clone()
    }

    /// The running values, in the order in which they were committed.
    pub fn running(&self) -> Vec<T> {
        self.lock().running.iter().map(|(value, _)| value.clone()).collect()
    }

    /// A copy of the target as it is now: rows and the progress that belongs to them.
    #[must_use]
    pub fn backup(&self) -> Self {
        Self { target: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Takes the target back to a copy of it, as a database is that was restored from a backup. No
    /// job may be writing to it meanwhile.
    pub fn restore(&self, backup: &Self) {
        let copy = backup.lock().clone();
        *self.lock() = copy;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Target<T>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Data + Clone> Sink<T> for Collect<T> {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn options(&self) -> SinkOptions {
        SinkOptions::default().upserts().commit_within(std::time::Duration::ZERO)
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(CollectWriter {
            target: self.clone(),
            sink: format!("{}/{}", context.job, context.sink),
            owner: 0,
            rows: vec![],
            running: vec![],
        }))
    }
}

struct CollectWriter<T> {
    target: Collect<T>,
    sink: String,
    owner: u64,
    rows: Vec<(T, Timestamp)>,
    running: Vec<(T, Timestamp)>,
}

impl<T: Data + Clone> SinkWriter<T> for CollectWriter<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.rows.clear();
        self.running.clear();
        let mut target = self.target.lock();
        let stored = target.stored.entry(self.sink.clone()).or_insert_with(|| Stored {
            lineage: claim.lineage.clone(),
            owner: 0,
            progress: None,
        });
        if stored.progress.is_some() && stored.lineage != claim.lineage {
            return Err(Error::fenced(format!(
                "sink {} holds progress of lineage {}, and the job is of lineage {}",
                self.sink, stored.lineage, claim.lineage
            ))
            .of_lineage(&stored.lineage));
        }
        stored.lineage.clone_from(&claim.lineage);
        stored.owner += 1;
        self.owner = stored.owner;
        Ok(stored.progress.clone())
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        let into = match batch.kind() {
            Kind::Final => &mut self.rows,
            Kind::Running => &mut self.running,
        };
        into.extend(batch.iter().map(|(value, time)| (value.clone(), time)));
        Ok(())
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let mut target = self.target.lock();
        let stored = target.stored.get_mut(&self.sink);
        match stored {
            Some(stored) if stored.owner == self.owner => stored.progress = Some(progress.clone()),
            _ => {
                return Err(Error::fenced(format!("sink {} was taken over", self.sink)));
            }
        }
        target.rows.append(&mut self.rows);
        target.running.append(&mut self.running);
        Ok(Commit::Done)
    }
}
