//! The progress topic: how far each sink has got, and who owns it (rules D6, D9).
//!
//! One record per sink, keyed `job/sink`, written in the same transaction as the rows: whichever
//! rows are visible, the record with their progress is, too. The group's offsets would not do: they
//! expire, lose their metadata on a reset, and take twice as long.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::close::Closing;
use super::config::Properties;
use super::fault::{Fault, fail, fault, lacks};
use super::observer::Observer;
use crate::connector::Progress;
use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock, millis, seconds};

/// What the progress topic says about one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) lineage: String,
    /// Which writer wrote it: a random word, made when a writer is opened.
    pub(super) owner: String,
    /// How often the sink was claimed, by any writer.
    pub(super) version: u64,
    /// For people: which copy of the program it was.
    pub(super) instance: String,
    /// Absent as long as nothing was committed.
    pub(super) progress: Option<Progress>,
}

impl Entry {
    pub(super) fn to_json(&self) -> String {
        // Maps with string keys and integers: serializing cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

const READER: &[(&str, &str)] = &[
    ("group.id", "streamkit"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    ("fetch.wait.max.ms", "10"),
    ("fetch.queue.backoff.ms", "2"),
    // A topic that was made a moment ago has no leader yet.
    ("fetch.error.backoff.ms", "20"),
    ("topic.metadata.refresh.fast.interval.ms", "50"),
];

/// How much of the topic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// All that is there when the reading begins. That is not the last stable offset: another
    /// sink's open transaction may hold that one back below a record of ours that is committed. So
    /// the end is the high watermark that the first answer brings, and what is open below it is
    /// waited for.
    End,
    /// The same; but what is open is probably of a sink of this job that will be claimed next, which
    /// ends it. So it is not waited for, and whoever claims tries again.
    EndSoon,
    /// Up to the first open transaction: enough for a suspicion, not for a decision.
    Open,
}

const OTHER_IS_OPEN: &str = "another sink's transaction is open";

/// The newest committed entry of `key`.
pub(super) fn read(
    properties: &Properties,
    topic: &str,
    key: &str,
    until: Until,
) -> Result<Option<Entry>> {
    let what = || format!("cannot read the sinks' progress from topic {topic}");
    let client: BaseConsumer<Observer> = properties
        .config(READER)?
        .create_with_context(Observer::default())
        .map_err(|e| fail(what(), e))?;
    let client = Closing::unawaited(client);
    // The client looks for the start of a partition whose leader it does not know only half a second
    // later. If there is no answer now, it finds out in its own time.
    let _ = client.fetch_metadata(Some(topic), seconds(5));
    {
        // In a scope of its own: a list that outlives its client makes closing it hang.
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(topic, 0, Offset::Beginning)
            .and_then(|()| client.assign(&list));
        assigned.map_err(|e| fail(what(), e))?;
    }
    let clock = SystemClock::new();
    let mut newest = None;
    let mut goal = None;
    loop {
        match client.poll(millis(100)) {
            Some(Ok(message)) if message.key() == Some(key.as_bytes()) => {
                newest = message.payload().map(<[u8]>::to_vec);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let end = client.context().take_end().ok_or_else(|| {
                    Error::internal(format!("{}: the client does not say where it ends", what()))
                })?;
                if until == Until::Open || end.offset >= *goal.get_or_insert(end.high) {
                    break;
                }
                tracing::info!(topic, "{OTHER_IS_OPEN}: waiting for its end");
            }
            Some(Err(error)) if error.rdkafka_error_code().map(fault) != Some(Fault::Network) => {
                let right = lacks(&error, format_args!("Read on topic {topic}"));
                return Err(fail(format!("{}{right}", what()), error));
            }
            Some(_) | None => {}
        }
        // The client says only once that it is at the end, so this is not asked there.
        if until == Until::EndSoon && goal.is_some() && clock.elapsed() > seconds(1) {
            return Err(Error::external(format!("{}: {OTHER_IS_OPEN}", what())).retriable());
        }
        if clock.elapsed() > seconds(90) {
            return Err(Error::external(format!(
                "{}: no end of it within 90 s; {OTHER_IS_OPEN}, or Kafka does not answer",
                what()
            ))
            .retriable());
        }
    }
    let Some(newest) = newest else { return Ok(None) };
    serde_json::from_slice(&newest).map(Some).map_err(|e| {
        Error::corrupt(format!("topic {topic} has an unreadable record for {key}")).because(e)
    })
}
