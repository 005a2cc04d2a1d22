//! Dead letters of a topic: reading them, and sending them back exactly once.
//!
//! What has been sent is remembered in a record of `<group>.progress`, one for each partition of
//! the dead letters' topic, written in the same transaction as the records that are sent: whatever
//! kills the command, either both are there or neither. Offsets of a consumer group would only say
//! how far somebody has got, and not which dead letters were chosen on the way; and they expire.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::Verdict;
use super::letter::Letter;
use super::redriven::{MOST, Ranges, Sent};
use crate::config::{KafkaConfig, Topics};
use crate::job::JOB;
use crate::kafka_error::no_client;
use crate::show::topic::{Quiet, client, consumer, partitions};

const PATIENCE: Duration = Duration::from_secs(30);
/// Records of one transaction.
const AT_A_TIME: u64 = 500;

type Consumer = BaseConsumer<Quiet>;

/// Calls `each` with every committed dead letter, partition by partition.
pub(super) fn read(
    kafka: &KafkaConfig,
    topic: &str,
    mut each: impl FnMut(Letter) -> Result<()>,
) -> Result<()> {
    let consumer = consumer(kafka)?;
    let partitions = partitions(&consumer, kafka, topic)?;
    if partitions.is_empty() {
        bail!("there is no topic {topic} at {}: a job that has run has made it", kafka.bootstrap);
    }
    for partition in partitions {
        read_partition(&consumer, topic, partition, &mut |message| each(letter(message)))?;
    }
    Ok(())
}

/// Reads a partition from its first record to its end as it is now.
fn read_partition(
    consumer: &Consumer,
    topic: &str,
    partition: i32,
    each: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    let (low, high) = consumer
        .fetch_watermarks(topic, partition, PATIENCE)
        .with_context(|| format!("the end of {topic}/{partition} cannot be found"))?;
    if high <= low {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low))?;
    consumer.assign(&list).with_context(|| format!("{topic} cannot be read"))?;
    loop {
        match consumer.poll(PATIENCE) {
            None => bail!("{topic}: no answer from the brokers for {} s", PATIENCE.as_secs()),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(anyhow!(error).context(format!("reading {topic}"))),
            // What is written while it is read is for the next time.
            Some(Ok(message)) if message.offset() >= high => return Ok(()),
            Some(Ok(message)) => each(&message)?,
        }
    }
}

fn letter(message: &BorrowedMessage<'_>) -> Letter {
    let mut letter = Letter {
        partition: message.partition(),
        offset: u64::try_from(message.offset()).unwrap_or_default(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        ..Letter::default()
    };
    let headers = message.headers();
    for header in headers.into_iter().flat_map(|headers| headers.iter()) {
        let text = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
        match header.key {
            "dlq.reason" => letter.reason = text,
            "dlq.field" => letter.field = text,
            "dlq.error" => letter.error = text,
            "dlq.operator" => letter.operator = text,
            "dlq.topic" => letter.topic = text,
            "dlq.timestamp" => letter.timestamp = text,
            "dlq.partition" => letter.source_partition = text.parse().unwrap_or(-1),
            "dlq.offset" => letter.source_offset = text.parse().unwrap_or(-1),
            _ => {}
        }
    }
    letter
}

/// Dead letters on their way back.
pub(super) struct Redrive {
    producer: ThreadedProducer<DefaultProducerContext>,
    dlq: String,
    input: String,
    progress: String,
    /// The id of the dead letters' topic; empty where the cluster has none.
    dlq_id: String,
    /// The input's partitions.
    partitions: Vec<i32>,
    /// By partition of the dead letters' topic: what was sent, this time included.
    sent: BTreeMap<i32, Ranges>,
    /// Those that the open transaction has sent from.
    touched: Vec<i32>,
    open: u64,
    total: u64,
}

impl Redrive {
    /// Shuts out a command that was killed or still runs, and then reads what it has sent: that can
    /// no longer change. `dlq_id` is the id of the dead letters' topic.
    pub(super) fn start(kafka: &KafkaConfig, topics: &Topics, dlq_id: String) -> Result<Self> {
        let producer: ThreadedProducer<DefaultProducerContext> = client(kafka)
            .set("transactional.id", format!("{}.redrive", topics.group))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .create()
            .map_err(no_client)?;
        producer.init_transactions(PATIENCE).with_context(|| {
            format!("no transaction can be begun at {} (KAFKA_BOOTSTRAP_SERVERS)", kafka.bootstrap)
        })?;
        let mut redrive = Self {
            producer,
            dlq: topics.dlq.clone(),
            input: topics.input.clone(),
            progress: format!("{}.progress", topics.group),
            dlq_id,
            partitions: vec![],
            sent: BTreeMap::new(),
            touched: vec![],
            open: 0,
            total: 0,
        };
        redrive.read_progress(kafka)?;
        Ok(redrive)
    }

    fn read_progress(&mut self, kafka: &KafkaConfig) -> Result<()> {
        let consumer = consumer(kafka)?;
        let found = partitions(&consumer, kafka, &self.progress)?;
        if found.is_empty() {
            bail!(
                "there is no topic {} at {}: the job has made it if it has run with this group \
                 (KAFKA_GROUP_ID)",
                self.progress,
                kafka.bootstrap
            );
        }
        self.partitions = partitions(&consumer, kafka, &self.input)?;
        let mut stored: BTreeMap<i32, Sent> = BTreeMap::new();
        for partition in found {
            read_partition(&consumer, &self.progress, partition, &mut |message| {
                let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                let of = key.and_then(|key| key.strip_prefix(&self.key("")));
                let Some(of) = of.and_then(|of| of.parse::<i32>().ok()) else { return Ok(()) };
                let sent = message.payload().map(serde_json::from_slice).transpose();
                let sent = sent.with_context(|| {
                    format!("what {} says of {} cannot be read", self.progress, self.dlq)
                })?;
                stored.insert(of, sent.unwrap_or_default());
                Ok(())
            })?;
        }
        let known = |id: &str| !id.is_empty() && !self.dlq_id.is_empty();
        let before = stored.len();
        stored.retain(|_, sent| !known(&sent.topic_id) || sent.topic_id == self.dlq_id);
        if stored.len() < before {
            eprintln!("{} was created again: nothing was sent back from it yet", self.dlq);
        }
        for (partition, Sent { offsets: ranges, .. }) in &stored {
            let (_, high) = consumer.fetch_watermarks(&self.dlq, *partition, PATIENCE)?;
            if ranges.last().is_some_and(|last| last >= u64::try_from(high).unwrap_or(0)) {
                bail!(
                    "{} says that dead letters up to {:?} of {}/{partition} were sent, and it ends \
                     at {high}: the topic was made anew. Delete the record {:?} of {}, or use \
                     another topic (KAFKA_DLQ_TOPIC)",
                    self.progress,
                    ranges.last(),
                    self.dlq,
                    self.key(&partition.to_string()),
                    self.progress
                );
            }
        }
        self.sent = stored.into_iter().map(|(partition, sent)| (partition, sent.offsets)).collect();
        Ok(())
    }

    fn key(&self, partition: &str) -> String {
        format!("{JOB}/redrive/{}/{partition}", self.dlq)
    }

    /// What happens to a dead letter.
    pub(super) fn verdict(&self, letter: &Letter) -> Verdict {
        if letter.topic != self.input {
            Verdict::Foreign
        } else if self.sent.get(&letter.partition).is_some_and(|s| s.contains(letter.offset)) {
            Verdict::Sent
        } else if letter.is_counted() {
            Verdict::Counted
        } else if !self.partitions.contains(&letter.source_partition) {
            Verdict::Homeless
        } else {
            Verdict::Send
        }
    }

    /// Sends a dead letter, unless it has been sent: key and value as they were, to the partition
    /// and with the timestamp that they had.
    pub(super) fn send(&mut self, letter: &Letter) -> Result<()> {
        if self.verdict(letter) != Verdict::Send {
            return Ok(());
        }
        if self.open == 0 {
            self.producer.begin_transaction()?;
        }
        let from = format!("{}/{}/{}", self.dlq, letter.partition, letter.offset);
        let header = Header { key: "redriven.from", value: Some(&from) };
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.input)
            .partition(letter.source_partition)
            .headers(OwnedHeaders::new().insert(header));
        if let Some(key) = &letter.key {
            record = record.key(key);
        }
        if let Some(value) = &letter.value {
            record = record.payload(value);
        }
        if let Some(millis) = letter.timestamp_millis() {
            record = record.timestamp(millis);
        }
        self.enqueue(record)?;
        let sent = self.sent.entry(letter.partition).or_default();
        sent.insert(letter.offset);
        if sent.len() > MOST {
            bail!(
                "dead letters of {MOST} different places were sent, and more cannot be remembered: \
                 send those between them, too, by leaving --reason out"
            );
        }
        if !self.touched.contains(&letter.partition) {
            self.touched.push(letter.partition);
        }
        self.open += 1;
        if self.open == AT_A_TIME { self.commit() } else { Ok(()) }
    }

    fn enqueue(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    return Err(error).with_context(|| format!("writing to {}", self.input));
                }
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        for partition in std::mem::take(&mut self.touched) {
            let key = self.key(&partition.to_string());
            let offsets = self.sent[&partition].clone();
            let sent = Sent { topic_id: self.dlq_id.clone(), offsets };
            let sent = serde_json::to_string(&sent)?;
            let record = BaseRecord::<[u8], [u8]>::to(&self.progress)
                .key(key.as_bytes())
                .payload(sent.as_bytes());
            self.enqueue(record)?;
        }
        self.producer.commit_transaction(PATIENCE).with_context(|| {
            format!(
                "{} dead letters may or may not have been sent; the same command again sends only \
                 what is missing",
                self.open
            )
        })?;
        self.total += self.open;
        self.open = 0;
        Ok(())
    }

    /// Sends what is left, and says how many were sent.
    pub(super) fn finish(mut self) -> Result<u64> {
        if self.open > 0 {
            self.commit()?;
        }
        Ok(self.total)
    }
}
