//! Sends records when they are due, whatever becomes of them: a slow reader does not slow the load, and
//! a record that leaves late counts from when it was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientContext;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use streamkit::time::{Clock as _, SystemClock, millis};

use super::figures::{Times, micros};
use super::schedule::Schedule;
use super::services::{PATIENCE, Services};

/// The least that the sender sleeps.
const NAP: Duration = millis(1);

/// What the load was really like.
#[derive(Debug)]
pub struct Sent {
    /// How far behind its schedule the sender was, for each record.
    pub behind: Times,
    /// From when a record was due until the broker had it.
    pub appended: Times,
}

/// Notes when the broker has what.
struct Appended {
    clock: SystemClock,
    start: Duration,
    /// Microseconds after the start, by the record's number.
    at: Arc<[AtomicU32]>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Appended {}

impl ProducerContext for Appended {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => {
                let at = micros(self.clock.elapsed().saturating_sub(self.start));
                self.at[number].store(at, Ordering::Relaxed);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Sends all records; the first is due at `start` of the clock. Those before `from` are not measured.
///
/// # Errors
/// If the broker does not take one.
pub fn send(
    services: &Services,
    topic: &str,
    schedule: &Schedule,
    (clock, start): (&SystemClock, Duration),
    from: u64,
) -> Result<Sent> {
    let at: Arc<[AtomicU32]> = (0..schedule.count).map(|_| AtomicU32::new(0)).collect();
    let failed = Arc::new(AtomicU64::new(0));
    let context =
        Appended { clock: clock.clone(), start, at: Arc::clone(&at), failed: Arc::clone(&failed) };
    let producer: ThreadedProducer<Appended> = services
        .client()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // The client's default is 5 ms of waiting for records that share a request, and so is Java's:
        // with less, the broker would be busy with the load alone.
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(context)?;
    let mut behind = Vec::with_capacity(usize::try_from(schedule.count)?);
    schedule.each(|number, split, timestamp, key, value| {
        let due = start + Duration::from_micros(schedule.due(number));
        let mut now = clock.elapsed();
        while now < due {
            // Not once for each record: what is due by then leaves together.
            std::thread::sleep((due - now).max(NAP));
            now = clock.elapsed();
        }
        if number >= from {
            behind.push(micros(now - due));
        }
        let record = BaseRecord::with_opaque_to(topic, usize::try_from(number)?)
            .partition(i32::try_from(split)?)
            .timestamp(timestamp)
            .key(key)
            .payload(value);
        // A full queue would be a second of a broker that takes nothing: that is no load any more.
        producer.send(record).map_err(|(error, _)| error).context("a record cannot be sent")
    })?;
    producer.flush(PATIENCE).context("the broker has not taken all records in time")?;
    let failed = failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "the broker has refused {failed} records");
    let appended = (from..).zip(&at[usize::try_from(from)?..]).map(|(number, at)| {
        let due = u32::try_from(schedule.due(number)).unwrap_or(u32::MAX);
        at.load(Ordering::Relaxed).saturating_sub(due)
    });
    Ok(Sent { behind: Times::new(behind), appended: Times::new(appended.collect()) })
}
