//! A Kafka topic: split s goes to partition s, so that a user's records stay in order.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use streamkit::time::{Timestamp, days, hours};

use super::Target;
use super::plan::{Place, Plan};
use crate::config::KafkaConfig;
use crate::generate::GeneratedSpan;
use crate::kafka_error::no_client;

/// How long the brokers may take to answer, and to take what is left at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the producer's queue is given when it is full.
const FULL: Duration = Duration::from_millis(1);

/// A topic that is written.
pub(super) struct Topic {
    producer: ThreadedProducer<Deliveries>,
    failure: Arc<Mutex<Option<KafkaError>>>,
    topic: String,
}

/// What the client tells about deliveries: the first that failed.
struct Deliveries {
    failure: Arc<Mutex<Option<KafkaError>>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.clone());
        }
    }
}

impl Topic {
    /// Connects, and creates the topic if it is not there.
    pub(super) fn open(place: &Place, plan: &Plan) -> Result<Self> {
        ensure(place, plan)?;
        let failure = Arc::new(Mutex::new(None));
        let mut client = client(
            &place.kafka,
            &[
                ("acks", "all"),
                ("enable.idempotence", "true"),
                ("linger.ms", "20"),
                ("compression.type", "lz4"),
                ("batch.size", "1000000"),
                ("queue.buffering.max.messages", "500000"),
                ("queue.buffering.max.kbytes", "131072"),
            ],
        );
        // What is asked for counts more.
        place.kafka.properties.iter().for_each(|(name, value)| {
            client.set(name, value);
        });
        let producer = client
            .create_with_context(Deliveries { failure: Arc::clone(&failure) })
            .map_err(no_client)?;
        Ok(Self { producer, failure, topic: place.topic.clone() })
    }

    fn check(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(error) = failure else { return Ok(()) };
        let hint = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InvalidTimestamp) => {
                ". The topic does not take records of the future (message.timestamp.after.max.ms): \
                 choose an earlier --start-time, or leave --fast out"
            }
            _ => "",
        };
        bail!("records could not be written to {}: {error}{hint}", self.topic)
    }
}

impl Target for Topic {
    fn write(&mut self, split: u32, arena: &[u8], span: &GeneratedSpan) -> Result<()> {
        let bytes = |range: &std::ops::Range<u32>| &arena[range.start as usize..range.end as usize];
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic)
            .partition(i32::try_from(split).unwrap_or(i32::MAX))
            .payload(bytes(&span.value))
            .timestamp(span.timestamp.div_euclid(1_000));
        if !span.key.is_empty() {
            record = record.key(bytes(&span.key));
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.check()?;
                    std::thread::sleep(FULL);
                }
                Err((error, _)) => {
                    return Err(error).with_context(|| format!("writing to {}", self.topic));
                }
            }
        }
        if span.n.is_multiple_of(1_024) { self.check() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<()> {
        let flushed = self.producer.flush(PATIENCE);
        self.check()?;
        flushed.with_context(|| {
            format!("the brokers have not taken all records of {} in time", self.topic)
        })
    }

    fn describe(&self) -> String {
        format!("topic {}", self.topic)
    }
}

fn client(kafka: &KafkaConfig, base: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.bootstrap);
    base.iter().for_each(|(name, value)| {
        client.set(*name, *value);
    });
    kafka.properties.iter().for_each(|(name, value)| {
        client.set(name, value);
    });
    client
}

/// Looks whether the topic is there, has enough partitions, and creates it if it is not.
fn ensure(place: &Place, plan: &Plan) -> Result<()> {
    let Place { kafka, topic, partitions } = place;
    // A consumer does not create what it asks for, a producer might.
    let consumer: BaseConsumer = client(kafka, &[]).create().map_err(no_client)?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).with_context(|| {
        format!("no answer from the brokers {} (KAFKA_BOOTSTRAP_SERVERS)", kafka.bootstrap)
    })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let there = found.map_or(0, |found| found.partitions().len());
    let splits = plan.options.splits as usize;
    if there == 0 {
        return create(kafka, topic, *partitions, plan);
    }
    if there < splits {
        bail!("topic {topic} has {there} partitions: choose --splits {there}, or add partitions");
    }
    if there > splits {
        tracing::warn!(
            "topic {topic} has {there} partitions, and {splits} of them get records: the others \
             hold up results until they are idle. --splits {there} fills all"
        );
    }
    Ok(())
}

fn create(kafka: &KafkaConfig, topic: &str, partitions: u32, plan: &Plan) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        client(kafka, &[]).create().map_err(no_client)?;
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    // As many replicas as the brokers' default.
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let settings = settings(plan);
    for (name, value) in &settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = tokio::runtime::Handle::current().block_on(admin.create_topics([&new], &options));
    let results = created.with_context(|| format!("topic {topic} cannot be created"))?;
    for result in results {
        match result {
            Ok(_) => tracing::info!(?settings, "created topic {topic}, {partitions} partitions"),
            // Another one was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => bail!("topic {topic} cannot be created: {code}"),
        }
    }
    Ok(())
}

/// What a topic needs for records that are not of now: brokers delete old ones and refuse those of
/// the future.
fn settings(plan: &Plan) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![];
    let start = Timestamp::from_micros(plan.options.start_time_micros);
    if plan.now.since(start) > days(1) {
        settings.push(("retention.ms", "-1"));
    }
    let soon = plan.now.saturating_add(hours(1));
    if !plan.paced && plan.end().is_none_or(|end| end > soon) {
        settings.push(("message.timestamp.after.max.ms", "9223372036854775807"));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::GeneratorOptions;
    use crate::generate_command::plan::To;

    #[test]
    fn a_topic_takes_what_is_planned_for_it() {
        let now = Timestamp::from_micros(1_780_000_000_000_000);
        let plan = |back: Duration, count, paced| Plan {
            options: GeneratorOptions {
                start_time_micros: now.saturating_sub(back).as_micros(),
                ..GeneratorOptions::default()
            },
            count,
            paced,
            now,
            to: To::File("x".into()),
        };
        let names = |plan: &Plan| settings(plan).into_iter().map(|s| s.0).collect::<Vec<_>>();
        assert!(names(&plan(hours(1), Some(1_000), false)).is_empty());
        assert!(names(&plan(Duration::ZERO, None, true)).is_empty());
        assert_eq!(names(&plan(days(2), Some(1_000), false)), ["retention.ms"]);
        let future = names(&plan(hours(2), None, false));
        assert_eq!(future, ["message.timestamp.after.max.ms"]);
    }
}
