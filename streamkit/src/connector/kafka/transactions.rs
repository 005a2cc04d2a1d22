//! A transactional producer, used by one thread.
//!
//! Three outcomes of a commit: it is certain that it happened, it is certain that it did not (an
//! error before the commit was asked for), or it is not known. Everything that is not plainly one of
//! the first two is the third: then a new producer with the same id is made, which ends the open
//! transaction either way, and the progress topic tells which way it went.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::util::Timeout;

use super::close::Closing;
use super::config::Properties;
use super::fault::{Fault, fail, fault};
use super::native;
use super::observer::Observer;
use super::record::ProducerRecord;
use crate::connector::Commit;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::time::{Clock, SystemClock, millis, seconds};

/// How long a transaction may stay open before the broker aborts it. It bounds for how long a
/// process that died and never comes back holds up those who read committed records only.
const TRANSACTION: Duration = seconds(60);
/// A commit that took longer may have been sent twice, and the second one may still arrive and end
/// a later transaction of this producer. So it gets no later one.
const SUSPICIOUS: Duration = millis(3_750);

/// What every transactional producer is set to.
///
/// Records wait 5 ms for others to share a request with, but never when a commit is due. With
/// reports of failures only, a record that is delivered costs no event.
const PRODUCER: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("transaction.timeout.ms", "60000"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    ("batch.num.messages", "100000"),
    ("queue.buffering.max.messages", "1000000"),
    ("queue.buffering.max.kbytes", "262144"),
    // As the Java client does, so that a key stays in its partition when producers change.
    ("partitioner", "murmur2_random"),
    ("delivery.report.only.error", "true"),
];

/// A producer and its transaction.
pub(super) struct Transactions {
    producer: Closing<BaseProducer<Observer>>,
    id: String,
    open: bool,
    /// Reported outages when the transaction began.
    outages: u64,
    clock: SystemClock,
}

impl Transactions {
    /// Connects, ends what an older producer with the same id has left open, and shuts it out.
    pub(super) fn start(properties: &Properties, id: &str, max_bytes: usize) -> Result<Self> {
        let what = || format!("cannot start transactions as {id}");
        // The client's bound is for records before compression, the topic's for batches after it.
        let largest = max_bytes.saturating_mul(4).clamp(1_000_000, 1_000_000_000).to_string();
        let batch = max_bytes.clamp(1_000, 1_000_000).to_string();
        let mut base = PRODUCER.to_vec();
        base.push(("transactional.id", id));
        base.push(("message.max.bytes", &largest));
        base.push(("batch.size", &batch));
        let producer: BaseProducer<Observer> = properties
            .config(&base)?
            .create_with_context(Observer::default())
            .map_err(|e| fail(what(), e))?;
        let producer = Closing::new(producer);
        if let Err(error) = producer.init_transactions(seconds(30)) {
            producer.poll(Duration::ZERO);
            let trouble = producer.client().context().trouble();
            let why = trouble.map_or_else(String::new, |t| format!(" ({})", t.text));
            return Err(fail(format!("{}{why}", what()), error));
        }
        let clock = SystemClock::new();
        Ok(Self { producer, id: id.to_owned(), open: false, outages: 0, clock })
    }

    /// Begins a transaction unless one is open.
    pub(super) fn begin(&mut self) -> Result<()> {
        if !self.open {
            self.producer.begin_transaction().map_err(|e| self.fail("begin", e))?;
            self.outages = self.producer.client().context().outages();
            self.open = true;
        }
        Ok(())
    }

    /// Adds a record to the open transaction.
    pub(super) fn send(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        record: &ProducerRecord,
    ) -> Result<()> {
        let mut next = BaseRecord::<[u8], [u8]>::to(topic);
        next.partition = partition;
        next.key = record.key();
        next.payload = record.value();
        next.timestamp = record.millis();
        let headers = record.headers();
        if headers.len() > 0 {
            let new = OwnedHeaders::new_with_capacity(headers.len());
            next.headers =
                Some(headers.fold(new, |all, (key, value)| all.insert(Header { key, value })));
        }
        let start = self.clock.elapsed();
        loop {
            let (error, again) = match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                KafkaError::MessageProduction(Code::QueueFull) => {
                    self.producer.poll(millis(1));
                    self.check()?;
                    if self.clock.elapsed().saturating_sub(start) > TRANSACTION {
                        return Err(self.fail("write", error));
                    }
                    next = again;
                }
                KafkaError::MessageProduction(Code::MessageSizeTooLarge) => {
                    return Err(Error::user(format!(
                        "a record of {} bytes is too large for topic {topic}; raise the topic's \
                         max.message.bytes",
                        record.len()
                    ))
                    .because(error));
                }
                error => return Err(self.fail("write", error)),
            }
        }
    }

    /// Serves the client, and finds out early about what was not delivered.
    pub(super) fn check(&self) -> Result<()> {
        self.producer.poll(Duration::ZERO);
        let Some((code, partition)) = self.producer.client().context().undelivered() else {
            return Ok(());
        };
        let error = KafkaError::MessageProduction(code);
        Err(self.fail(&format!("write to partition {partition}"), error))
    }

    /// Commits the open transaction.
    pub(super) fn commit(&mut self) -> Result<Commit> {
        let start = self.clock.elapsed();
        // Nothing may be in flight when the commit is asked for: the wrapper would wait for it in
        // steps of 100 ms.
        loop {
            self.check()?;
            if native::flush(self.producer.client(), 20) && self.producer.in_flight_count() == 0 {
                break;
            }
            if self.clock.elapsed().saturating_sub(start) > TRANSACTION {
                let error = KafkaError::Flush(Code::OperationTimedOut);
                return Err(self.fail("deliver", error));
            }
        }
        self.check()?;
        failpoint("kafka.flushed");
        self.open = false;
        let start = self.clock.elapsed();
        // No time limit but the transaction's own: with another one the client may lose track.
        match self.producer.commit_transaction(Timeout::Never) {
            Ok(()) => failpoint("kafka.committed"),
            Err(error) => {
                let error = self.fail("commit", error);
                if error.kind() == crate::ErrorKind::Fenced {
                    return Err(error);
                }
                tracing::warn!("{error}; whether it is committed is read back");
                return Ok(Commit::Unknown);
            }
        }
        let slow = self.clock.elapsed().saturating_sub(start) > SUSPICIOUS;
        self.producer.poll(Duration::ZERO);
        if slow || self.producer.client().context().outages() != self.outages {
            return Ok(Commit::Unknown);
        }
        Ok(Commit::Done)
    }

    /// The error for a failed step. What has shut this producer out, if anything has, is told by
    /// the client's fatal error only: the call itself may just say that there is one.
    fn fail(&self, step: &str, error: KafkaError) -> Error {
        let fatal = self.producer.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code).or(error.rdkafka_error_code());
        if code.map(fault) == Some(Fault::Fenced) {
            return Error::fenced(format!(
                "transactional id {} was taken over by another process: a second copy of the job \
                 with the same group and instance. This one must stop; give each copy an instance \
                 of its own",
                self.id
            ))
            .because(error);
        }
        let why = fatal.map_or_else(String::new, |(_, text)| format!(" ({text})"));
        let what = format!("transactional id {}: cannot {step}{why}", self.id);
        // With a new producer it may work, whatever it is.
        fail(what, error)
    }

    /// Closes the producer. An open transaction is aborted, since nobody can read past it until it
    /// is; if that does not work, its timeout does it.
    pub(super) fn close(self) {
        let open = self.open;
        self.producer.close_after(move |producer| {
            // A fenced producer that still has records says so on its way out.
            producer.purge(PurgeConfig::default().queue().inflight());
            producer.poll(millis(10));
            if open && producer.client().fatal_error().is_none() {
                let _ = producer.abort_transaction(seconds(2));
            }
        });
    }
}
