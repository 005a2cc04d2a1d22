//! Questions about a topic, with answers that say what to do.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::fault::{Fault, fail};
use super::observer::Observer;
use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock, millis, seconds};

/// How long a cluster may take to answer before it counts as out of reach.
const PATIENCE: Duration = seconds(15);

/// Asks until there is an answer, for [`PATIENCE`]. What a person must put right (a password, an
/// unknown host) ends it at once.
pub(super) fn patiently<T>(
    observer: &Observer,
    bootstrap: &str,
    mut ask: impl FnMut(Duration) -> Result<T, KafkaError>,
) -> Result<T> {
    let clock = SystemClock::new();
    loop {
        let error = match ask(seconds(2)) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let trouble = observer.trouble();
        let hopeless = trouble.as_ref().is_some_and(|t| t.fault == Fault::Access);
        if hopeless || clock.elapsed() >= PATIENCE {
            let why = trouble.map_or_else(String::new, |t| format!(" ({})", t.text));
            let what = format!(
                "no answer from Kafka at {bootstrap}{why}; is it running, is that its address, and \
                 are the security properties right?"
            );
            return Err(match hopeless {
                true => Error::user(what),
                false => fail(what, error),
            });
        }
        std::thread::sleep(millis(100));
    }
}

/// The numbers of a topic's partitions. The topic must exist.
pub(super) fn partitions(
    client: &Client<Observer>,
    bootstrap: &str,
    topic: &str,
) -> Result<BTreeSet<i32>> {
    let clock = SystemClock::new();
    loop {
        let metadata = patiently(client.context(), bootstrap, |wait| {
            client.fetch_metadata(Some(topic), wait)
        })?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let error = found.and_then(|t| t.error()).map(Code::from);
        let partitions: BTreeSet<i32> =
            found.iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        match error {
            None if !partitions.is_empty() => return Ok(partitions),
            Some(code @ (Code::TopicAuthorizationFailed | Code::InvalidTopic)) => {
                return Err(Error::user(format!("topic {topic} cannot be read"))
                    .because(KafkaError::MetadataFetch(code)));
            }
            // A new topic, or a broker that has just started: gone in a moment.
            Some(Code::LeaderNotAvailable) if clock.elapsed() < PATIENCE => {
                std::thread::sleep(millis(100));
            }
            _ => return Err(no_such_topic(bootstrap, topic)),
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
                let what =
                    format!("cannot find out where topic {topic} partition {partition} ends");
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
