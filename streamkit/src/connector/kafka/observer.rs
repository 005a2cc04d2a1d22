//! What a client reports beside records: log lines, errors, the end of a partition.
//!
//! The client's own threads put these into its queue; the callbacks here run on whatever thread
//! polls it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{Message, TopicPartitionList};

use super::fault::{Fault, fault, lacks};

/// The end of a partition, as the broker's last answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The position after everything that can be read: under `read_committed` the last stable
    /// offset. Control records before it are counted.
    pub(super) offset: u64,
    /// The position after everything that is there, open transactions included.
    pub(super) high: u64,
}

/// Trouble that the client has reported.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) fault: Fault,
    pub(super) text: String,
}

/// A record that was not delivered, and why.
#[derive(Debug, Clone)]
pub(super) struct Undelivered {
    pub(super) code: Code,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) bytes: usize,
}

/// One client's callbacks, and what they have said.
#[derive(Debug, Default)]
pub(super) struct Observer {
    end: Mutex<Option<End>>,
    trouble: Mutex<Option<Trouble>>,
    /// How often the connection was in trouble.
    outages: AtomicU64,
    /// How often the client has written an error into its log.
    complaints: AtomicU64,
    undelivered: Mutex<Option<Undelivered>>,
    /// The group's offsets could not be stored, and that was said.
    mirror_failed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer {
    /// The end of a partition that was reported just before the poll that said so returned. The
    /// wrapper's error value has neither offset nor high watermark, but the text has both.
    pub(super) fn take_end(&self) -> Option<End> {
        lock(&self.end).take()
    }

    /// The last trouble, in the client's words.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        lock(&self.trouble).clone()
    }

    /// Grows with every trouble of the connection.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }

    /// Grows with every error in the client's log. That a topic or a partition is gone, or may no
    /// longer be read, is said there only if records are taken many at a time.
    pub(super) fn complaints(&self) -> u64 {
        self.complaints.load(Ordering::Acquire)
    }

    /// The first record that was not delivered. One that the client threw away because another
    /// was refused says less than that one, whichever of them is told first.
    pub(super) fn undelivered(&self) -> Option<Undelivered> {
        lock(&self.undelivered).clone()
    }
}

impl ClientContext for Observer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // A connection that breaks is a line first, and an error only if it cannot be made again.
        if matches!(facility, "FAIL" | "REQTMOUT") {
            self.outages.fetch_add(1, Ordering::AcqRel);
        }
        if facility == "ERROR" {
            self.complaints.fetch_add(1, Ordering::AcqRel);
        }
        match level {
            // A property for the other kind of client: people set the same ones for both.
            _ if facility == "CONFWARN" => tracing::debug!("kafka client: {line}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!("kafka client: {facility} {line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!("kafka client: {facility} {line}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!("kafka client: {facility} {line}"),
        }
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if code == Code::PartitionEOF {
            *lock(&self.end) = parse_end(reason);
            return;
        }
        let fault = fault(code);
        // A broken connection has its own line in the log already.
        match fault {
            Fault::Network if code != Code::AllBrokersDown => tracing::debug!("kafka: {reason}"),
            _ => tracing::warn!("kafka client: {reason}"),
        }
        if matches!(fault, Fault::Access | Fault::Network) {
            self.outages.fetch_add(1, Ordering::AcqRel);
            let mut trouble = lock(&self.trouble);
            // That all brokers are down says less than why the last one is.
            if code != Code::AllBrokersDown || trouble.is_none() {
                *trouble = Some(Trouble { fault, text: reason.to_owned() });
            }
        }
    }
}

impl ConsumerContext for Observer {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // A copy for lag tools, not the truth: it stops nothing. But what a person must put right
        // is said, once.
        let Err(error) = result else { return };
        let settings = error.rdkafka_error_code().map(fault) == Some(Fault::Settings);
        if settings && !self.mirror_failed.swap(true, Ordering::AcqRel) {
            let right = lacks(&error, "Read on the group and on the topic");
            tracing::warn!("lag tools will not see the job{right}: {error}");
        } else {
            tracing::debug!("the group's offsets were not stored: {error}");
        }
    }
}

impl ProducerContext for Observer {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            let mut first = lock(&self.undelivered);
            let purged = |code| matches!(code, Code::PurgeQueue | Code::PurgeInflight);
            if first.as_ref().is_none_or(|first| purged(first.code) && !purged(code)) {
                *first = Some(Undelivered {
                    code,
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    bytes: message.key().map_or(0, <[u8]>::len)
                        + message.payload().map_or(0, <[u8]>::len),
                });
            }
        }
    }
}

/// Reads `… reached end of partition at offset 6 (HighwaterMark 9)`.
pub(super) fn parse_end(reason: &str) -> Option<End> {
    let number = |after: &str| -> Option<u64> {
        let rest = reason.split_once(after)?.1;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    };
    Some(End { offset: number("at offset ")?, high: number("(HighwaterMark ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_end_out_of_the_clients_words() {
        let text = "Fetch from broker 1 reached end of partition at offset 6 (HighwaterMark 9)";
        assert_eq!(parse_end(text), Some(End { offset: 6, high: 9 }));
        assert_eq!(parse_end("Fetch from broker 1 reached the end"), None);
    }

    #[test]
    fn counts_outages_and_keeps_the_last_words() {
        let observer = Observer::default();
        observer.error(KafkaError::Global(Code::PartitionEOF), "at offset 1 (HighwaterMark 1)");
        assert_eq!(observer.outages(), 0);
        assert_eq!(observer.take_end(), Some(End { offset: 1, high: 1 }));
        assert_eq!(observer.take_end(), None);
        observer.log(RDKafkaLogLevel::Info, "FAIL", "Disconnected");
        assert_eq!((observer.outages(), observer.complaints()), (1, 0));
        observer.log(RDKafkaLogLevel::Error, "ERROR", "a [0]: topic does not exist");
        assert_eq!((observer.outages(), observer.complaints()), (1, 1));
        observer.error(KafkaError::Global(Code::BrokerTransportFailure), "refused");
        observer.error(KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(observer.outages(), 3);
        assert_eq!(observer.trouble().map(|t| t.text).as_deref(), Some("refused"));
    }
}
