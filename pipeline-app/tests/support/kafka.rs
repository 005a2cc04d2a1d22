//! Topics of a real broker: make them, fill them, read them back as committed readers see them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::oracle::InputRecord;

const PATIENCE: Duration = Duration::from_secs(30);

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    headers: BTreeMap<String, String>,
}

impl Record {
    /// A header's text; empty if there is none.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).cloned().unwrap_or_default()
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().unwrap()
}

/// A record that the broker refuses must not be missed in silence.
struct AllDelivered;

impl ClientContext for AllDelivered {}

impl ProducerContext for AllDelivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            panic!("{} refused a record of the input: {error}", record.topic());
        }
    }
}

/// A topic of a test.
pub struct Topic {
    bootstrap: String,
    name: String,
}

impl Topic {
    /// Makes the topic, in place of an older one.
    pub async fn create(bootstrap: &str, name: &str, partitions: usize) -> Self {
        delete(bootstrap, name).await;
        Self::make(bootstrap, name, partitions).await
    }

    /// Makes the topic, and touches no other.
    pub async fn make(bootstrap: &str, name: &str, partitions: usize) -> Self {
        let new =
            NewTopic::new(name, i32::try_from(partitions).unwrap(), TopicReplication::Fixed(1));
        let made = admin(bootstrap).create_topics([&new], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|result| {
            result.unwrap();
        });
        Self { bootstrap: bootstrap.to_owned(), name: name.to_owned() }
    }

    /// Appends records to a partition, in order.
    pub async fn produce(&self, partition: i32, records: &[InputRecord]) {
        let producer: BaseProducer<AllDelivered> = client(&self.bootstrap)
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(AllDelivered)
            .unwrap();
        for record in records {
            let mut message: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(&self.name).partition(partition);
            if let Some(key) = &record.key {
                message = message.key(key.as_slice());
            }
            if let Some(value) = &record.value {
                message = message.payload(value.as_slice());
            }
            if let Some(micros) = record.timestamp_micros {
                message = message.timestamp(micros / 1_000);
            }
            producer.send(message).map_err(|(e, _)| e).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE).unwrap();
    }
}

/// Writes one record with headers.
pub async fn send(bootstrap: &str, topic: &str, headers: &[(&str, &str)], value: &[u8]) {
    let producer: BaseProducer<AllDelivered> =
        client(bootstrap).create_with_context(AllDelivered).unwrap();
    let headers = headers.iter().fold(OwnedHeaders::new(), |all, &(key, value)| {
        all.insert(Header { key, value: Some(value) })
    });
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(value).headers(headers);
    producer.send(record).map_err(|(e, _)| e).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// Deletes a test's input topic and everything that the job made for it.
pub async fn delete(bootstrap: &str, name: &str) {
    let names = [
        name.to_owned(),
        format!("{name}-out"),
        format!("{name}.dlq"),
        format!("{name}.late"),
        format!("{name}-group.progress"),
    ];
    delete_topics(bootstrap, &names.each_ref().map(String::as_str)).await;
}

/// Deletes topics.
pub async fn delete_topics(bootstrap: &str, names: &[&str]) {
    // Those that do not exist are no trouble.
    let _ = admin(bootstrap).delete_topics(names, &AdminOptions::new()).await;
    // A deletion goes on for a moment after it was answered.
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// All committed records of a topic.
pub async fn read_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read(&bootstrap, &topic)).await.unwrap()
}

fn consumer(bootstrap: &str, isolation: &str) -> BaseConsumer {
    client(bootstrap)
        .set("group.id", "tests-that-never-commit")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

/// Waits until no transaction is open. A commit is answered before its markers are in the partitions, and
/// until then who reads committed records does not see it.
fn wait_for_markers(bootstrap: &str, committed: &BaseConsumer, topic: &str, partitions: i32) {
    let all = consumer(bootstrap, "read_uncommitted");
    for partition in 0..partitions {
        let end = |of: &BaseConsumer| of.fetch_watermarks(topic, partition, PATIENCE).unwrap().1;
        let closed = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            end(committed) == end(&all)
        });
        assert!(closed, "{topic}/{partition}: a transaction stays open");
    }
}

fn read(bootstrap: &str, topic: &str) -> Vec<Record> {
    let consumer = consumer(bootstrap, "read_committed");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    assert!(partitions > 0, "there is no topic {topic}");
    wait_for_markers(bootstrap, &consumer, topic, i32::try_from(partitions).unwrap());
    {
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap() {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
    }
    let (mut records, mut ended) = (vec![], 0);
    while ended < partitions {
        match consumer.poll(PATIENCE).expect("no end of the partition within the time") {
            Ok(message) => {
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|h| {
                        let value = h.value.unwrap_or_default();
                        (h.key.to_owned(), String::from_utf8_lossy(value).into_owned())
                    })
                });
                records.push(Record {
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.into_iter().flatten().collect(),
                });
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
    records
}
