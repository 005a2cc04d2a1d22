//! A sink that keeps the order of everything that it committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::record::{Batch, Kind};
use crate::time::{Timestamp, millis};

/// A committed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// The row.
    pub value: T,
    /// Its timestamp.
    pub time: Timestamp,
    /// Whether it was final.
    pub kind: Kind,
    /// The number of the commit that made it visible, over all restarts.
    pub commit: u64,
}

/// A sink that keeps every committed row, final or running, in the order of writing, and the
/// progress of each commit; it survives a restart of the job within the process.
#[derive(Debug)]
pub struct Journal<T> {
    target: Arc<Mutex<Target<T>>>,
    options: SinkOptions,
}

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Self { target: Arc::clone(&self.target), options: self.options }
    }
}

#[derive(Debug)]
struct Target<T> {
    entries: Vec<Entry<T>>,
    commits: Vec<Progress>,
    /// By job and sink: lineage, owner, progress.
    claims: BTreeMap<String, (String, u64, Option<Progress>)>,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        let target = Target { entries: vec![], commits: vec![], claims: BTreeMap::new() };
        let options = SinkOptions::default().upserts().commit_within(millis(1));
        Self { target: Arc::new(Mutex::new(target)), options }
    }
}

impl<T: Clone> Journal<T> {
    /// An empty target that takes running values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With other options, for example without upserts.
    #[must_use]
    pub fn with_options(options: SinkOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Everything that was committed, in order.
    pub fn entries(&self) -> Vec<Entry<T>> {
        self.lock().entries.clone()
    }

    /// The final rows, in order.
    pub fn rows(&self) -> Vec<T> {
        let target = self.lock();
        let last = target.entries.iter().filter(|entry| entry.kind == Kind::Final);
        last.map(|entry| entry.value.clone()).collect()
    }

    /// The progress of each commit, in order.
    pub fn commits(&self) -> Vec<Progress> {
        self.lock().commits.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Target<T>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Data + Clone> Sink<T> for Journal<T> {
    fn describe(&self) -> String {
        "journal".to_owned()
    }

    fn options(&self) -> SinkOptions {
        self.options
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        let sink = format!("{}/{}", context.job, context.sink);
        Ok(Box::new(Writer { journal: self.clone(), sink, owner: 0, open: vec![] }))
    }
}

struct Writer<T> {
    journal: Journal<T>,
    sink: String,
    owner: u64,
    open: Vec<Entry<T>>,
}

impl<T: Data + Clone> SinkWriter<T> for Writer<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.open.clear();
        let mut target = self.journal.lock();
        let stored = target.claims.entry(self.sink.clone());
        let stored = stored.or_insert_with(|| (claim.lineage.clone(), 0, None));
        if stored.2.is_some() && stored.0 != claim.lineage {
            return Err(Error::fenced(format!(
                "journal {} holds progress of lineage {}, and the job is of lineage {}",
                self.sink, stored.0, claim.lineage
            ))
            .of_lineage(&stored.0));
        }
        stored.0.clone_from(&claim.lineage);
        stored.1 += 1;
        self.owner = stored.1;
        Ok(stored.2.clone())
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        let kind = batch.kind();
        let entry = |(value, time): (&T, _)| Entry { value: value.clone(), time, kind, commit: 0 };
        self.open.extend(batch.iter().map(entry));
        Ok(())
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let mut guard = self.journal.lock();
        let target = &mut *guard;
        match target.claims.get_mut(&self.sink) {
            Some(stored) if stored.1 == self.owner => stored.2 = Some(progress.clone()),
            _ => return Err(Error::fenced(format!("journal {} was taken over", self.sink))),
        }
        let commit = target.commits.len() as u64;
        target.commits.push(progress.clone());
        target.entries.extend(self.open.drain(..).map(|entry| Entry { commit, ..entry }));
        Ok(Commit::Done)
    }
}
