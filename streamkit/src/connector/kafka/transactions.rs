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
use super::fault::{Fault, fail, fault, lacks};
use super::native;
use super::observer::Observer;
use super::record::ProducerRecord;
use super::target::TIMESTAMP_AHEAD;
use super::topic::Topic;
use crate::connector::Commit;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::time::{Clock, SystemClock, millis, seconds};

/// How long a transaction may stay open before the broker aborts it, if nothing else is set. It
/// bounds for how long a process that died and never comes back holds up those who read committed
/// records only.
const TRANSACTION: Duration = seconds(60);
/// A commit that took longer may have been sent twice, and the second one may still arrive and end
/// a later transaction of this producer. So it gets no later one.
const SUSPICIOUS: Duration = millis(3_750);

/// What every transactional producer is set to.
///
/// A request leaves when it is full or after 20 ms, so that little is left to be sent when a commit is
/// due, and yet many records go at once: small requests cost more than anything else here. With
/// reports of failures only, a record that is delivered costs no event.
const PRODUCER: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("transaction.timeout.ms", "60000"),
    ("compression.type", "lz4"),
    ("linger.ms", "20"),
    ("batch.num.messages", "100000"),
    ("queue.buffering.max.messages", "1000000"),
    ("queue.buffering.max.kbytes", "262144"),
    // As the Java client does, so that a key stays in its partition when producers change.
    ("partitioner", "murmur2_random"),
    ("delivery.report.only.error", "true"),
];

/// A producer and its transaction.
pub(super) struct Transactions {
    /// The topic of the rows. Before the producer, so that it goes first.
    rows: Option<Topic>,
    producer: Closing<BaseProducer<Observer>>,
    id: String,
    /// What is written to.
    topics: [String; 2],
    /// The largest batch that the sink's topic takes.
    max_bytes: usize,
    /// How long a transaction may stay open.
    timeout: Duration,
    open: bool,
    /// When the newest transaction began.
    began: Duration,
    /// Reported outages when the transaction began.
    outages: u64,
    clock: SystemClock,
}

impl Transactions {
    /// Connects, ends what an older producer with the same id has left open, and shuts it out.
    ///
    /// `topics` are those that will be written to, the one of the rows first; a batch of that one may
    /// have `max_bytes`.
    pub(super) fn start(
        properties: &Properties,
        id: &str,
        topics: [String; 2],
        max_bytes: usize,
    ) -> Result<Self> {
        let what = || format!("cannot start transactions as {id}");
        // The client's bound is for records before compression, the topic's for batches after it.
        let largest = max_bytes.saturating_mul(4).clamp(1_000_000, 1_000_000_000).to_string();
        let batch = max_bytes.clamp(1_000, 1_000_000).to_string();
        let mut base = PRODUCER.to_vec();
        base.push(("transactional.id", id));
        base.push(("message.max.bytes", &largest));
        base.push(("batch.size", &batch));
        let config = properties.config(&base)?;
        let timeout = config.get("transaction.timeout.ms").and_then(|ms| ms.parse().ok());
        let timeout = timeout.map_or(TRANSACTION, millis);
        let producer: BaseProducer<Observer> =
            config.create_with_context(Observer::default()).map_err(|e| fail(what(), e))?;
        let producer = Closing::new(producer);
        if let Err(error) = producer.init_transactions(seconds(30)) {
            producer.poll(Duration::ZERO);
            let trouble = producer.client().context().trouble();
            let why = trouble.map_or_else(String::new, |t| format!(" ({})", t.text));
            let right = lacks(&error, format_args!("Describe and Write on transactional id {id}"));
            let limit = match error.rdkafka_error_code() {
                Some(Code::InvalidTransactionTimeout) => format!(
                    ": transaction.timeout.ms is {}, and that is more than the broker's \
                     transaction.max.timeout.ms; lower the one or raise the other",
                    timeout.as_millis()
                ),
                _ => String::new(),
            };
            return Err(fail(format!("{}{why}{right}{limit}", what()), error));
        }
        Ok(Self {
            rows: Topic::new(&producer, &topics[0]),
            producer,
            id: id.to_owned(),
            topics,
            max_bytes,
            timeout,
            open: false,
            began: Duration::ZERO,
            outages: 0,
            clock: SystemClock::new(),
        })
    }

    /// Begins a transaction unless one is open.
    pub(super) fn begin(&mut self) -> Result<()> {
        if !self.open {
            self.began = self.clock.elapsed();
            self.producer.begin_transaction().map_err(|e| self.fail("begin", e))?;
            self.outages = self.producer.client().context().outages();
            self.open = true;
        }
        Ok(())
    }

    /// Adds a row to the open transaction. The key chooses its partition.
    pub(super) fn send_row(&mut self, record: &ProducerRecord) -> Result<()> {
        let topic = &self.topics[0];
        // Headers are the one thing that the handle's way does not take.
        if let Some(rows) = self.rows.as_ref().filter(|_| record.headers().len() == 0) {
            return self.until_taken(topic, record.len(), || rows.send(&self.producer, record));
        }
        self.until_taken(topic, record.len(), || self.try_send(topic, None, record))
    }

    /// Adds a record of the progress topic, which has one partition.
    pub(super) fn send_progress(&mut self, record: &ProducerRecord) -> Result<()> {
        let topic = &self.topics[1];
        self.until_taken(topic, record.len(), || self.try_send(topic, Some(0), record))
    }

    fn try_send(
        &self,
        topic: &str,
        partition: Option<i32>,
        record: &ProducerRecord,
    ) -> Result<(), Code> {
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
        let sent = self.producer.send(next);
        sent.map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Fail))
    }

    /// Tries until the client takes a record of so many bytes: it may have to make room first.
    fn until_taken(
        &self,
        topic: &str,
        bytes: usize,
        send: impl Fn() -> Result<(), Code>,
    ) -> Result<()> {
        // Asked for only where it matters: the time costs as much as the record.
        let mut full_since = None;
        loop {
            let Err(code) = send() else { return Ok(()) };
            let error = KafkaError::MessageProduction(code);
            match code {
                Code::QueueFull => {
                    self.producer.poll(millis(1));
                    self.check()?;
                    let now = self.clock.elapsed();
                    if now.saturating_sub(*full_since.get_or_insert(now)) > self.timeout {
                        return Err(self.fail(&format!("write to topic {topic}"), error));
                    }
                }
                Code::MessageSizeTooLarge => {
                    return Err(self.too_large(topic, bytes).because(error));
                }
                _ => {
                    // The client refuses what follows a record that was not delivered a moment before
                    // it tells which one that was, and why.
                    for _ in 0..20 {
                        self.check()?;
                        self.producer.poll(millis(10));
                    }
                    self.check()?;
                    return Err(self.fail(&format!("write to topic {topic}"), error));
                }
            }
        }
    }

    /// Serves the client, and finds out early about what was not delivered.
    pub(super) fn check(&self) -> Result<()> {
        self.producer.poll(Duration::ZERO);
        let Some(lost) = self.producer.client().context().undelivered() else {
            return Ok(());
        };
        let error = KafkaError::MessageProduction(lost.code);
        if matches!(lost.code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) {
            return Err(self.too_large(&lost.topic, lost.bytes).because(error));
        }
        if lost.code == Code::InvalidTimestamp {
            return Err(Error::user(format!(
                "topic {} does not take the timestamp of a record, which is that of its input \
                 record: set the topic's {TIMESTAMP_AHEAD} to what the input topic has",
                lost.topic
            ))
            .because(error));
        }
        let what = format!("write to topic {} partition {}", lost.topic, lost.partition);
        Err(self.fail(&what, error))
    }

    fn too_large(&self, topic: &str, bytes: usize) -> Error {
        Error::user(format!(
            "a record of {bytes} bytes is too large for topic {topic}, compressed as well; raise \
             the topic's max.message.bytes (it was {} when the sink was opened)",
            self.max_bytes
        ))
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
            if self.clock.elapsed().saturating_sub(start) > self.timeout {
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
        let error = self.cause(error);
        let fatal = self.producer.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code).or(error.rdkafka_error_code());
        if code.map(fault) == Some(Fault::Fenced) {
            // The broker shuts out whoever has let a transaction run out, too (a process that was
            // stopped for a while). The progress topic tells whether there is anybody else.
            if self.clock.elapsed().saturating_sub(self.began) >= self.timeout {
                return Error::external(format!(
                    "transactional id {}: cannot {step}: the transaction was open for longer than \
                     transaction.timeout.ms ({} ms), so Kafka has aborted it",
                    self.id,
                    self.timeout.as_millis()
                ))
                .retriable()
                .because(error);
            }
            return Error::fenced(format!(
                "transactional id {} was taken over by another process: a second copy of the job \
                 with the same group and instance. This one must stop; give each copy an instance \
                 of its own",
                self.id
            ))
            .because(error);
        }
        let why = fatal.map_or_else(String::new, |(_, text)| format!(" ({text})"));
        let right = lacks(
            &error,
            format_args!(
                "Write on every topic of the transaction ({}), and on its id",
                self.topics.join(", ")
            ),
        );
        let what = format!("transactional id {}: cannot {step}{why}{right}", self.id);
        // With a new producer it may work, whatever it is.
        fail(what, error)
    }

    /// What is behind an error that only says that the transaction cannot go on. The client tells
    /// it to whoever asks it to begin another one; to do so is refused in any case.
    fn cause(&self, error: KafkaError) -> KafkaError {
        let says_nothing =
            |code| matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::State);
        if !self.open || !error.rdkafka_error_code().is_some_and(says_nothing) {
            return error;
        }
        match self.producer.begin_transaction() {
            Err(cause) if !cause.rdkafka_error_code().is_some_and(says_nothing) => cause,
            _ => error,
        }
    }

    /// Closes the producer. An open transaction is aborted, since nobody can read past it until it
    /// is; if that does not work, its timeout does it.
    pub(super) fn close(self) {
        let open = self.open;
        drop(self.rows);
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
