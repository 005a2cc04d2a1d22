//! What the tests share: topics, producers of test data, readers that keep everything.

use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use streamkit::connector::kafka::KafkaSource;
use streamkit::connector::{RawRecord, ReadBatch, ReadStatus, Source, SplitReader, Wake};
use streamkit::time::{Clock, SystemClock, millis, seconds};

/// The broker, or `None` (and a line that says so) if the tests have none.
pub(crate) fn broker(test: &str) -> Option<String> {
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok();
    if servers.is_none() {
        println!("{test}: skipped, KAFKA_BOOTSTRAP_SERVERS is not set");
    }
    servers
}

/// A name that no other test and no other run has.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::SeqCst);
    format!("it.{name}.{:x}.{n}", SystemClock::new().now().as_micros())
}

pub(crate) fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

pub(crate) fn admin(broker: &str) -> AdminClient<DefaultClientContext> {
    config(broker).create().unwrap()
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Creates a topic with a name of its own.
pub(crate) fn create(
    broker: &str,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> String {
    let topic = unique(name);
    create_as(broker, &topic, partitions, settings);
    topic
}

/// Creates a topic with this name.
pub(crate) fn create_as(broker: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let admin = admin(broker);
    let options = AdminOptions::new().operation_timeout(Some(seconds(10)));
    for result in wait(admin.create_topics([&new], &options)).unwrap() {
        result.unwrap();
    }
}

/// A producer of test data, with transactions if it has an id.
pub(crate) fn producer(broker: &str, transactional_id: Option<&str>) -> BaseProducer {
    let mut config = config(broker);
    config.set("linger.ms", "1");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create().unwrap();
    if transactional_id.is_some() {
        producer.init_transactions(seconds(30)).unwrap();
    }
    producer
}

pub(crate) fn send(producer: &BaseProducer, topic: &str, partition: i32, values: &[&str]) {
    for value in values {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(seconds(10)).unwrap();
}

/// Reads one split and keeps everything.
pub(crate) struct Reading {
    pub(crate) reader: Box<dyn SplitReader<Item = RawRecord>>,
    pub(crate) records: Vec<RawRecord>,
    pub(crate) next: u64,
    clock: SystemClock,
}

impl Reading {
    pub(crate) fn open(source: &KafkaSource, partition: usize, position: u64) -> Self {
        let split = source.splits(&[]).unwrap().remove(partition);
        let reader = source.open(&split, position, Wake::new(|| ())).unwrap();
        Self { reader, records: vec![], next: position, clock: SystemClock::new() }
    }

    fn read(&mut self) -> streamkit::Result<ReadStatus> {
        let mut batch = ReadBatch::default();
        let status = self.reader.read(&mut batch, 1_000);
        self.next = self.next.max(batch.next());
        self.records.extend(batch.iter().map(|(_, record)| record.clone()));
        status
    }

    /// Reads until `enough`, at most a minute: a client needs a while to notice that it gets no
    /// answer.
    pub(crate) fn until(&mut self, what: &str, enough: impl Fn(&Self, ReadStatus) -> bool) {
        let start = self.clock.elapsed();
        loop {
            let status = self.read().unwrap();
            if enough(self, status) {
                return;
            }
            let read = self.records.len();
            let late = self.clock.elapsed() - start > seconds(60);
            assert!(!late, "{what}: {read} records, next {}, {status:?}", self.next);
            std::thread::sleep(millis(2));
        }
    }

    pub(crate) fn caught_up(&mut self) {
        self.until("caught up", |_, status| status == ReadStatus::CaughtUp);
    }

    pub(crate) fn values(&self) -> Vec<String> {
        let text = |r: &RawRecord| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap();
        self.records.iter().map(text).collect()
    }

    /// What reading fails with.
    pub(crate) fn failure(&mut self) -> streamkit::Error {
        let start = self.clock.elapsed();
        loop {
            match self.read() {
                Err(error) => return error,
                Ok(_) => assert!(self.clock.elapsed() - start < seconds(60), "no error"),
            }
            std::thread::sleep(millis(5));
        }
    }
}

/// Every record of a topic, partition by partition, as those see it who read committed records.
pub(crate) fn read_topic(broker: &str, topic: &str, committed_only: bool) -> Vec<RawRecord> {
    let source = KafkaSource::new(broker, topic).read_committed(committed_only);
    let mut records = vec![];
    for (i, split) in source.splits(&[]).unwrap().iter().enumerate() {
        let end = source.end(split).unwrap();
        let mut reading = Reading::open(&source, i, 0);
        reading.until("the end of the topic", |reading, _| reading.next >= end);
        records.append(&mut reading.records);
    }
    records
}
