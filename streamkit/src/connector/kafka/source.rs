//! A topic as a source.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::config::Properties;
use super::fault::fail;
use super::fetcher::{Client, Fetcher};
use super::lane::{Chunk, Lane, Next};
use super::observer::Observer;
use super::{query, splits};
use crate::connector::{RawRecord, ReadBatch, ReadStatus, Source, SplitReader, Wake};
use crate::error::{Error, Result};
use crate::record::{Split, SplitId};
use crate::time::seconds;

/// Where a partition is read from the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At its first record.
    #[default]
    Earliest,
    /// Behind its last record, as it is when the job first sees the topic. A partition that the
    /// topic gets later is read from its first record on: what it got before the job noticed it
    /// is new as well.
    Latest,
}

/// A Kafka topic, read partition by partition.
///
/// A position is an offset. It comes from the job, never from a consumer group: the group named by
/// [`group`](Self::group) only gets a copy of the job's positions, so that lag tools see the job.
///
/// ```no_run
/// use streamkit::connector::kafka::KafkaSource;
///
/// let source = KafkaSource::new("localhost:9092", "user_activity").group("user-activity");
/// ```
pub struct KafkaSource {
    properties: Properties,
    topic: Arc<str>,
    group: Option<String>,
    start: Start,
    committed_only: bool,
    buffer: usize,
    /// One consumer; a second one while a partition is read twice at the same time.
    fetchers: Mutex<Vec<Slot>>,
    /// The cluster has answered once.
    answered: AtomicBool,
    /// Partitions that the topic got after the job had begun.
    later: Mutex<BTreeSet<i32>>,
}

/// A consumer, and the partitions that it reads.
struct Slot {
    fetcher: Arc<Fetcher>,
    open: Vec<Arc<Lane>>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("topic", &self.topic)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// The topic at the cluster with these bootstrap servers (`host:port`, separated by commas).
    pub fn new(bootstrap: impl Into<String>, topic: impl Into<Arc<str>>) -> Self {
        Self {
            properties: Properties::new(bootstrap),
            topic: topic.into(),
            group: None,
            start: Start::Earliest,
            committed_only: true,
            buffer: 16 << 20,
            fetchers: Mutex::default(),
            answered: AtomicBool::new(false),
            later: Mutex::default(),
        }
    }

    /// Where a partition is read from the first time. Default: at its first record.
    #[must_use]
    pub fn start_at(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The consumer group that gets a copy of the job's positions. Default: none.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Whether records of open and aborted transactions are left out. Default: yes. A topic that is
    /// not written by transactions is read the same either way.
    #[must_use]
    pub fn read_committed(mut self, yes: bool) -> Self {
        self.committed_only = yes;
        self
    }

    /// How many bytes may wait to be read, over all partitions. Default: 16 MiB.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer = bytes;
        self
    }

    /// A property of the client (librdkafka's names; common names of the Java client are
    /// translated): security, above all.
    #[must_use]
    pub fn set(mut self, property: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.set(property, value);
        self
    }

    fn connect(&self) -> Result<Arc<Fetcher>> {
        let isolation = if self.committed_only { "read_committed" } else { "read_uncommitted" };
        let mut base = CONSUMER.to_vec();
        base.push(("isolation.level", isolation));
        base.push(("group.id", self.group.as_deref().unwrap_or("streamkit")));
        let config = self.properties.config(&base)?;
        let client: Client = config
            .create_with_context(Observer::default())
            .map_err(|e| fail(format!("cannot read topic {}", self.topic), e))?;
        Ok(Arc::new(Fetcher::start(
            client,
            &self.properties.bootstrap,
            Arc::clone(&self.topic),
            self.buffer,
        )?))
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.fetchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first consumer.
    fn fetcher(&self) -> Result<Arc<Fetcher>> {
        let mut slots = self.slots();
        if let Some(slot) = slots.first() {
            return Ok(Arc::clone(&slot.fetcher));
        }
        let fetcher = self.connect()?;
        slots.push(Slot { fetcher: Arc::clone(&fetcher), open: vec![] });
        Ok(fetcher)
    }

    fn ask<T>(&self, ask: impl FnOnce(&Client) -> Result<T>) -> Result<T> {
        let fetcher = self.fetcher()?;
        let client = fetcher.client().ok_or_else(|| Error::internal("the consumer is closed"))?;
        ask(client)
    }

    /// Puts a lane on a consumer that does not read the partition yet.
    fn assign(&self, lane: &Arc<Lane>, position: u64) -> Result<Arc<Fetcher>> {
        self.fetcher()?;
        let mut slots = self.slots();
        for slot in slots.iter_mut() {
            slot.open.retain(|lane| !lane.is_closed());
        }
        let busy = |slot: &Slot| slot.open.iter().any(|l| l.partition == lane.partition);
        // A consumer beside the first one goes when nothing is read by it any more.
        let mut index = 0;
        slots.retain(|slot| {
            index += 1;
            index == 1 || !slot.open.is_empty()
        });
        let free = match slots.iter().position(|slot| !busy(slot)) {
            Some(free) => free,
            None => {
                slots.push(Slot { fetcher: self.connect()?, open: vec![] });
                slots.len() - 1
            }
        };
        let slot = &mut slots[free];
        slot.open.push(Arc::clone(lane));
        slot.fetcher.open(Arc::clone(lane), position);
        Ok(Arc::clone(&slot.fetcher))
    }
}

/// What every consumer is set to.
///
/// An answer waits for 16 KiB, but not longer than 10 ms: that bounds both the delay at a low rate
/// and the number of requests at a high one. When the client's queue is full it looks again after
/// 2 ms (its own default of a second is a well-known brake). Little is fetched ahead, since our own
/// queues hold enough, and what is fetched ahead is lost when a partition is paused.
const CONSUMER: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("check.crcs", "true"),
    ("fetch.min.bytes", "16384"),
    ("fetch.wait.max.ms", "10"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.max.bytes", "8388608"),
    ("queued.min.messages", "1000000"),
    ("queued.max.messages.kbytes", "4096"),
    ("fetch.queue.backoff.ms", "2"),
    ("fetch.error.backoff.ms", "100"),
];

impl Source for KafkaSource {
    type Item = RawRecord;

    fn describe(&self) -> String {
        format!("kafka topic {}", self.topic)
    }

    /// After the first answer a cluster that is out of reach is an error within some two seconds:
    /// whoever asks while the job runs has other things to do, and asks again.
    fn splits(&self, known: &[Split]) -> Result<Vec<Split>> {
        let bootstrap = &self.properties.bootstrap;
        let known = splits::of_topic(&self.topic, known);
        let patience = match self.answered.load(Ordering::Acquire) {
            true => seconds(1),
            false => query::PATIENCE,
        };
        let there = self.ask(|client| {
            let known = !known.is_empty();
            query::partitions(client.client(), bootstrap, &self.topic, known, patience)
        })?;
        let needed = known.iter().any(|split| !split.memo.is_empty());
        let id =
            self.ask(|client| query::topic_id(client.client(), &self.topic, needed, patience))?;
        self.answered.store(true, Ordering::Release);
        let splits = splits::decide(&self.topic, bootstrap, &there, &id, &known)?;
        if !known.is_empty() {
            let new = splits.iter().filter(|split| known.iter().all(|known| known.id != split.id));
            let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
            later.extend(new.map(|split| split.partition));
        }
        Ok(splits)
    }

    fn start(&self, split: &Split) -> Result<u64> {
        let (low, high) =
            self.ask(|client| query::watermarks(client, &self.topic, split.partition))?;
        let later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match self.start {
            Start::Latest if !later.contains(&split.partition) => high,
            Start::Latest | Start::Earliest => low,
        })
    }

    fn end(&self, split: &Split) -> Result<u64> {
        let (_, high) =
            self.ask(|client| query::watermarks(client, &self.topic, split.partition))?;
        Ok(high)
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = RawRecord>>> {
        let partition = split.partition;
        let (low, high) = self.ask(|client| query::watermarks(client, &self.topic, partition))?;
        if let Some(error) = query::out_of_range(&self.topic, partition, position, low, high) {
            return Err(error);
        }
        let lane = Arc::new(Lane::new(partition, wake));
        lane.set_high(high);
        let fetcher = self.assign(&lane, position)?;
        Ok(Box::new(Reader { lane, fetcher, chunk: None, next: position }))
    }

    fn committed(&self, positions: &[(SplitId, u64)]) {
        if self.group.is_none() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (id, next) in positions {
            let Some(partition) = splits::partition_of(&self.topic, id) else { continue };
            let offset = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            let _ = list.add_partition_offset(&self.topic, partition, offset);
        }
        if list.count() == 0 {
            return;
        }
        let stored = self.ask(|client| {
            client.commit(&list, CommitMode::Async).map_err(|e| fail("cannot store offsets", e))
        });
        if let Err(error) = stored {
            tracing::debug!("the group's offsets were not stored: {error}");
        }
    }
}

/// Reads one partition.
struct Reader {
    lane: Arc<Lane>,
    fetcher: Arc<Fetcher>,
    /// What is being read, and how far.
    chunk: Option<(Chunk, usize)>,
    next: u64,
}

impl SplitReader for Reader {
    type Item = RawRecord;

    fn read(&mut self, batch: &mut ReadBatch<RawRecord>, max: usize) -> Result<ReadStatus> {
        let mut room = max;
        while room > 0 {
            if let Some((chunk, done)) = &mut self.chunk {
                let to = chunk.len().min(*done + room);
                for index in *done..to {
                    let record = chunk.record(index, self.lane.partition);
                    self.next = record.offset + 1;
                    batch.push(record.offset, record);
                }
                room -= to - *done;
                *done = to;
                if to < chunk.len() {
                    return Ok(ReadStatus::More);
                }
                self.chunk = None;
            }
            match self.lane.next()? {
                Next::Chunk(chunk) => {
                    self.fetcher.drained();
                    self.chunk = Some((chunk, 0));
                }
                Next::End(end) => {
                    self.next = self.next.max(end.offset);
                    batch.set_next(end.offset);
                    let reached = end.offset >= end.high;
                    return Ok(if reached { ReadStatus::CaughtUp } else { ReadStatus::Waiting });
                }
                Next::Nothing => return Ok(ReadStatus::Waiting),
            }
        }
        Ok(ReadStatus::More)
    }

    fn lag(&self) -> Option<u64> {
        Some(self.lane.high().saturating_sub(self.next))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fetcher.close(Arc::clone(&self.lane));
    }
}
