//! Questions about a topic, with answers that say what to do.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::fault::{Fault, fail, lacks, what_to_look_at};
use super::native;
use super::observer::Observer;
use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock, millis, seconds};

/// How long a cluster may take to answer before it counts as out of reach.
pub(super) const PATIENCE: Duration = seconds(15);
/// For how long a topic that was there must be missing before it counts as deleted: a broker that
/// has just started may not know of it yet.
const GONE: Duration = seconds(3);

/// Asks until there is an answer, for as long as `patience`. What a person must put right (a
/// password, an unknown host) ends it at once.
pub(super) fn patiently<T>(
    observer: &Observer,
    bootstrap: &str,
    patience: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, KafkaError>,
) -> Result<T> {
    let clock = SystemClock::new();
    loop {
        let error = match ask(patience.min(seconds(2))) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let trouble = observer.trouble();
        let hopeless = trouble.as_ref().is_some_and(|t| t.fault == Fault::Access);
        if hopeless || clock.elapsed() >= patience {
            let look = what_to_look_at(trouble.as_ref().map_or("", |t| &t.text));
            let why = trouble.map_or_else(String::new, |t| format!(" ({})", t.text));
            let what = format!("no answer from Kafka at {bootstrap}{why}; {look}");
            return Err(match hopeless {
                true => Error::user(what),
                false => fail(what, error),
            });
        }
        std::thread::sleep(millis(100));
    }
}

/// The numbers of a topic's partitions. The topic must exist; `known`: it did.
pub(super) fn partitions(
    client: &Client<Observer>,
    bootstrap: &str,
    topic: &str,
    known: bool,
    patience: Duration,
) -> Result<BTreeSet<i32>> {
    let clock = SystemClock::new();
    loop {
        let metadata = patiently(client.context(), bootstrap, patience, |wait| {
            client.fetch_metadata(Some(topic), wait)
        })?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let error = found.and_then(|t| t.error()).map(Code::from);
        let partitions: BTreeSet<i32> =
            found.iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        match error {
            None if !partitions.is_empty() => return Ok(partitions),
            Some(code @ (Code::TopicAuthorizationFailed | Code::InvalidTopic)) => {
                let error = KafkaError::MetadataFetch(code);
                let right = lacks(&error, format_args!("Describe and Read on topic {topic}"));
                return Err(fail(format!("topic {topic} cannot be read{right}"), error));
            }
            // A new topic, or a broker that has just started: over in a moment.
            Some(Code::LeaderNotAvailable) if clock.elapsed() < PATIENCE => {}
            _ if known && clock.elapsed() < GONE => {}
            _ if known => {
                return Err(Error::user(format!(
                    "topic {topic} at {bootstrap} is gone, though the job has read it: it was \
                     deleted, or this is another cluster. Nothing more can be read from it; if it \
                     is created again, start the job anew, under another name or with its state \
                     removed"
                )));
            }
            _ => return Err(no_such_topic(bootstrap, topic)),
        }
        std::thread::sleep(millis(100));
    }
}

/// The id of a topic that exists; empty where the cluster has no ids, or never answers that
/// question. `needed`: it was known once, and is to be compared.
pub(super) fn topic_id(
    client: &Client<Observer>,
    topic: &str,
    needed: bool,
    patience: Duration,
) -> Result<String> {
    let clock = SystemClock::new();
    loop {
        match native::topic_id(client, topic, patience.min(seconds(5))) {
            Ok(id) => return Ok(id.unwrap_or_default()),
            Err(Code::OperationTimedOut) if !needed => {
                tracing::warn!(
                    topic,
                    "the cluster does not tell the topic's id; if the topic is deleted and created \
                     again, only its offsets can show it"
                );
                return Ok(String::new());
            }
            // Not every broker knows a new topic at the same moment.
            Err(_) if clock.elapsed() < patience => std::thread::sleep(millis(100)),
            Err(code) => {
                let what = format!("cannot find out which topic {topic} is (its id)");
                return Err(fail(what, KafkaError::AdminOp(code)));
            }
        }
    }
}

/// The error for a topic that is not there.
pub(super) fn no_such_topic(bootstrap: &str, topic: &str) -> Error {
    Error::user(format!(
        "there is no topic {topic} at {bootstrap}; create it, for example with: kafka-topics.sh \
         --bootstrap-server {bootstrap} --create --topic {topic} --partitions 8"
    ))
}

/// The error for a partition that a topic has no longer.
pub(super) fn gone_partition(bootstrap: &str, topic: &str, partition: i32) -> Error {
    Error::user(format!(
        "topic {topic} at {bootstrap} has no partition {partition} any more, though the job has read it: \
         the topic was deleted and created again with fewer. If the new records are what is to be \
         read, start the job anew, under another name or with its state removed"
    ))
}

/// The first position of a partition, and the one after the last record that can be read: with
/// `read_committed`, the last stable offset.
pub(super) fn watermarks(
    client: &BaseConsumer<Observer>,
    topic: &str,
    partition: i32,
) -> Result<(u64, u64)> {
    let clock = SystemClock::new();
    loop {
        match client.fetch_watermarks(topic, partition, seconds(5)) {
            Ok((low, high)) => {
                return Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)));
            }
            Err(error) if clock.elapsed() >= PATIENCE => {
                let right = lacks(&error, format_args!("Describe on topic {topic}"));
                let what = format!(
                    "cannot find out where topic {topic} partition {partition} ends{right}"
                );
                return Err(fail(what, error));
            }
            Err(_) => std::thread::sleep(millis(100)),
        }
    }
}

/// The error for a position that a partition does not have, if it has not.
pub(super) fn out_of_range(
    topic: &str,
    partition: i32,
    position: u64,
    low: u64,
    high: u64,
) -> Option<Error> {
    let place = format!("topic {topic} partition {partition}: the job stands at offset {position}");
    if position < low {
        return Some(Error::user(format!(
            "{place}, but the topic has offsets {low} to {high}: {} records were removed before \
             they were read (retention). They cannot be read any more: start the job anew, under \
             another name or with its state removed, and it begins at offset {low}; and give the \
             topic a longer retention.ms",
            low - position
        )));
    }
    if position > high {
        return Some(Error::user(format!(
            "{place}, but the topic has offsets {low} to {high} only: it was deleted and created \
             again, or the cluster has lost records. If the new records are what is to be read, \
             start the job anew, under another name or with its state removed"
        )));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_in_range_up_to_the_end_itself() {
        assert!(out_of_range("a", 0, 5, 5, 9).is_none());
        assert!(out_of_range("a", 0, 9, 5, 9).is_none());
        let error = out_of_range("a", 3, 2, 5, 9).unwrap();
        for part in ["topic a", "partition 3", "offset 2", "offsets 5 to 9", "3 records", "anew"] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
        assert!(out_of_range("a", 0, 10, 5, 9).unwrap().message().contains("created again"));
    }
}
