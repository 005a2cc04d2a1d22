//! The end of a topic. No group is joined and no offset committed: looking leaves no trace.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::records::{Record, members};
use crate::config::KafkaConfig;
use crate::kafka_error::no_client;

/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Offsets are not records: each transaction ends with one that is not. So more are read than shown.
const MARGIN: i64 = 200;

/// Logs no errors: that a partition has been read to its end is one to the client, and others come
/// back from calls.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client");
    }
}

impl ConsumerContext for Quiet {}

/// A client of the cluster.
pub(crate) fn client(kafka: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.bootstrap);
    for (name, value) in &kafka.properties {
        client.set(name, value);
    }
    client
}

/// A consumer that joins no group and sees what is committed.
pub(crate) fn consumer(kafka: &KafkaConfig) -> Result<BaseConsumer<Quiet>> {
    client(kafka)
        // The client wants a name even where no group is joined.
        .set("group.id", "pipeline-app-show")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create_with_context(Quiet)
        .map_err(no_client)
}

/// The partitions of a topic; none, if there is no such topic.
pub(crate) fn partitions(
    consumer: &BaseConsumer<Quiet>,
    kafka: &KafkaConfig,
    topic: &str,
) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).with_context(|| {
        format!("no answer from the brokers {} (KAFKA_BOOTSTRAP_SERVERS)", kafka.bootstrap)
    })?;
    Ok(metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none())
        .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
        .collect())
}

/// The newest records, the newest first.
pub(super) fn newest(kafka: &KafkaConfig, topic: &str, limit: usize) -> Result<Vec<Record>> {
    let consumer = consumer(kafka)?;
    let partitions = partitions(&consumer, kafka, topic)?;
    if partitions.is_empty() {
        bail!("there is no topic {topic} at {}: a job that has run has made it", kafka.bootstrap);
    }
    let mut list = TopicPartitionList::new();
    let mut unread = 0_usize;
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .with_context(|| format!("the end of {topic}/{partition} cannot be found"))?;
        if high > low {
            let back = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(4).max(MARGIN);
            let start = high.saturating_sub(back).max(low);
            list.add_partition_offset(topic, partition, Offset::Offset(start))?;
            unread += 1;
        }
    }
    if unread > 0 {
        consumer.assign(&list).with_context(|| format!("{topic} cannot be read"))?;
    }
    let mut found: Vec<(i64, i64, Record)> = Vec::new();
    while unread > 0 {
        match consumer.poll(PATIENCE) {
            None => bail!("{topic}: no answer from the brokers for {} s", PATIENCE.as_secs()),
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            Some(Err(error)) => return Err(anyhow!(error).context(format!("reading {topic}"))),
            Some(Ok(message)) => {
                let time = message.timestamp().to_millis().unwrap_or(i64::MIN);
                found.push((time, message.offset(), record(&message)));
            }
        }
    }
    found.sort_by_key(|(time, offset, _)| std::cmp::Reverse((*time, *offset)));
    Ok(found.into_iter().take(limit).map(|(_, _, record)| record).collect())
}

/// The headers count more than the value's members of the same name: those of a dead letter are
/// about it, its value is what somebody sent.
fn record(message: &BorrowedMessage<'_>) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = message.payload().unwrap_or_default();
    let Some(headers) = message.headers() else { return members(value) };
    let mut record = Record::new();
    for header in headers.iter() {
        let name = header.key.split_once('.').map_or(header.key, |(_, name)| name);
        record.insert(name.to_owned(), header.value.map(text).unwrap_or_default());
    }
    if record.is_empty() {
        return members(value);
    }
    record.insert("key".to_owned(), message.key().map(text).unwrap_or_default());
    record.insert("value".to_owned(), text(value));
    record
}
