//! A topic as an exactly-once sink (rule D9).
//!
//! Each sink is a commit unit of its own: one transactional id, one record in the progress topic.
//! Rows and progress are one transaction, so nothing else has to agree with it.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{self, Entry, Until};
use super::record::ProducerRecord;
use super::target::KafkaTarget;
use super::transactions::Transactions;
use crate::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::{broken, failpoint};
use crate::record::Batch;
use crate::time::{Clock, SystemClock, Timestamp, millis};

/// A transaction with so many rows or bytes is committed early.
const FULL_ROWS: usize = 50_000;
const FULL_BYTES: usize = 16 << 20;

/// How long rows wait for a commit, however quick commits are, and however slow.
const SOONEST: Duration = millis(10);
const LATEST: Duration = millis(200);

type Encode<T> = dyn Fn(&T, Timestamp, &mut ProducerRecord) + Send + Sync;

/// Writes rows to a Kafka topic, exactly once.
///
/// Rows become visible to those who read with `isolation.level=read_committed`; any other reader
/// also sees rows of transactions that are open or were aborted.
pub struct KafkaSink<T> {
    target: KafkaTarget,
    topic: Arc<str>,
    encode: Arc<Encode<T>>,
    commit_within: Duration,
}

impl<T> fmt::Debug for KafkaSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink")
            .field("topic", &self.topic)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl<T: Data> KafkaSink<T> {
    /// Writes to `topic`. `encode` gets a row, its event time, and the record to fill.
    pub fn new(
        target: KafkaTarget,
        topic: impl Into<Arc<str>>,
        encode: impl Fn(&T, Timestamp, &mut ProducerRecord) + Send + Sync + 'static,
    ) -> Self {
        let encode = Arc::new(encode);
        Self { target, topic: topic.into(), encode, commit_within: LATEST }
    }

    /// How long rows may wait for a commit: 10 to 200 ms. Default: 200 ms. They wait as long as the
    /// last commit took, if that was shorter.
    #[must_use]
    pub fn commit_within(mut self, time: Duration) -> Self {
        self.commit_within = time.clamp(SOONEST, LATEST);
        self
    }
}

impl<T: Data> Sink<T> for KafkaSink<T> {
    fn describe(&self) -> String {
        format!("kafka topic {}", self.topic)
    }

    fn options(&self) -> SinkOptions {
        SinkOptions::default().commit_within(self.commit_within).commit_soonest(SOONEST)
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        let max_bytes = self.target.prepare(&self.topic)?;
        Ok(Box::new(Writer {
            transactional_id: format!(
                "{}.{}.{}.0",
                self.target.group, context.instance, context.sink
            ),
            target: self.target.clone(),
            topic: Arc::clone(&self.topic),
            encode: Arc::clone(&self.encode),
            key: format!("{}/{}", context.job, context.sink),
            instance: context.instance.clone(),
            max_bytes,
            // Nobody has to guess it: it only must not be another writer's.
            owner: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            claimed: None,
            confirmed: None,
            lineage: String::new(),
            transactions: None,
            record: ProducerRecord::default(),
            rows: 0,
            bytes: 0,
        }))
    }
}

struct Writer<T> {
    target: KafkaTarget,
    topic: Arc<str>,
    encode: Arc<Encode<T>>,
    transactional_id: String,
    /// The sink's key in the progress topic.
    key: String,
    instance: String,
    max_bytes: usize,
    owner: String,
    /// The version that this writer has claimed, or has tried to.
    claimed: Option<u64>,
    /// The newest version of ours that is certain to be in the progress topic.
    confirmed: Option<u64>,
    lineage: String,
    transactions: Option<Transactions>,
    record: ProducerRecord,
    /// In the open transaction.
    rows: usize,
    bytes: usize,
}

impl<T: Data> Writer<T> {
    fn store(&mut self, progress: Option<Progress>) -> Result<Commit> {
        let entry = Entry {
            lineage: self.lineage.clone(),
            owner: self.owner.clone(),
            version: self.claimed.unwrap_or(0),
            instance: self.instance.clone(),
            progress,
        };
        let transactions = self.transactions.as_mut().ok_or_else(not_recovered)?;
        transactions.begin()?;
        self.record.clear();
        self.record.set_key(self.key.as_bytes());
        self.record.set_value(entry.to_json().as_bytes());
        transactions.send_progress(&self.record)?;
        failpoint("kafka.progress_sent");
        (self.rows, self.bytes) = (0, 0);
        let commit = transactions.commit()?;
        if commit == Commit::Done {
            self.confirmed = self.claimed;
        }
        Ok(commit)
    }

    fn stored(&self, until: Until) -> Result<Option<Entry>> {
        ledger::read(&self.target.properties, &self.target.progress_topic(), &self.key, until)
    }

    /// Whether what the progress topic says about the sink leaves it to this writer.
    fn judge(&self, stored: Option<&Entry>, lineage: &str) -> Result<()> {
        let topic = self.target.progress_topic();
        // Rule D6, also while the job runs: what was there and is gone may have been anything.
        if stored.map(|stored| stored.version) < self.confirmed {
            return Err(Error::corrupt(format!(
                "topic {topic} no longer holds how far {} has got, though this process has \
                 written it there: the topic was deleted or has lost records. Stop, and restore it \
                 or start the job anew, under another name",
                self.key
            )));
        }
        let Some(stored) = stored else { return Ok(()) };
        if stored.progress.is_some() && stored.lineage != lineage {
            return Err(Error::fenced(format!(
                "topic {topic} holds progress of lineage {} for {}, and the job is of lineage \
                 {lineage}: it was written by another job of the same name, or by this one before \
                 its checkpoints were removed",
                stored.lineage, self.key,
            ))
            .of_lineage(&stored.lineage));
        }
        self.give_way(Some(stored))
    }

    fn give_way(&self, stored: Option<&Entry>) -> Result<()> {
        match stored {
            Some(stored) if self.superseded(stored) => Err(Error::fenced(format!(
                "{} was taken over by another process (instance {}, claim {})",
                self.key, stored.instance, stored.version
            ))),
            _ => Ok(()),
        }
    }

    /// Whether somebody else has claimed the sink since this writer did.
    fn superseded(&self, stored: &Entry) -> bool {
        self.claimed.is_some_and(|mine| stored.owner != self.owner && stored.version >= mine)
    }

    fn discard(&mut self) {
        if let Some(transactions) = self.transactions.take() {
            transactions.close();
        }
        (self.rows, self.bytes) = (0, 0);
    }
}

fn not_recovered() -> Error {
    Error::internal("a Kafka sink was written to before it was recovered")
}

impl<T: Data> SinkWriter<T> for Writer<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.discard();
        if self.confirmed.is_some() {
            // Back after some time, perhaps a long one. If somebody else owns the sink by now, do
            // not even shut them out.
            self.give_way(self.stored(Until::Open)?.as_ref())?;
        }
        // First shut out the older producer and end its transaction, then read: what is read can
        // no longer change behind our back.
        let clock = SystemClock::new();
        let properties = &self.target.properties;
        let topics = [self.topic.to_string(), self.target.progress_topic()];
        let transactions =
            Transactions::start(properties, &self.transactional_id, topics, self.max_bytes)?;
        let started = clock.elapsed();
        failpoint("kafka.initialised");
        let until = if self.confirmed.is_some() { Until::End } else { Until::EndSoon };
        let stored = self.stored(until)?;
        let read = clock.elapsed();
        failpoint("kafka.progress_read");
        self.judge(stored.as_ref(), &claim.lineage)?;
        self.transactions = Some(transactions);
        self.lineage.clone_from(&claim.lineage);
        self.claimed = Some(stored.as_ref().map_or(0, |stored| stored.version) + 1);
        let progress = stored.and_then(|stored| stored.progress);
        match self.store(progress.clone())? {
            Commit::Done => {
                tracing::debug!(
                    sink = %self.key,
                    initialised = ?started,
                    progress_read = ?read,
                    claimed = ?clock.elapsed(),
                    "claimed"
                );
                failpoint("kafka.claimed");
                Ok(progress)
            }
            Commit::Unknown => Err(Error::external(format!(
                "topic {}: the claim of {} was not confirmed",
                self.target.progress_topic(),
                self.key
            ))
            .retriable()),
        }
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        let transactions = self.transactions.as_mut().ok_or_else(not_recovered)?;
        transactions.begin()?;
        for (row, time) in batch.iter() {
            self.record.clear();
            (self.encode)(row, time, &mut self.record);
            transactions.send_row(&self.record)?;
            self.bytes += self.record.len();
        }
        self.rows += batch.len();
        failpoint("kafka.sent");
        transactions.check()
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        if broken("kafka.one_transaction") && self.rows > 0 {
            self.transactions.as_mut().ok_or_else(not_recovered)?.commit()?;
        }
        failpoint("kafka.before_progress");
        let commit = self.store(Some(progress.clone()))?;
        if commit == Commit::Unknown {
            self.discard();
        }
        Ok(commit)
    }

    fn is_full(&self) -> bool {
        self.rows >= FULL_ROWS || self.bytes >= FULL_BYTES
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        if let Some(transactions) = self.transactions.take() {
            transactions.close();
        }
    }
}
