//! Records taken from the client many at a time.
//!
//! The safe wrapper hands out one record at a time, each as an event of its own with an allocation
//! and several readings of the clock: for small records that is most of what taking them costs. So
//! partitions are routed into a queue of ours, which is emptied in one call. Errors of a partition,
//! and its end, come by the same way, in order with its records.

#![expect(unsafe_code, reason = "the wrapper has no such call; each use says why it is sound")]

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;

use super::fetcher::Client;

/// A queue of a consumer.
pub(super) struct RecordQueue {
    /// Keeps the client alive for as long as the queue.
    client: Arc<Client>,
    queue: NonNull<bindings::rd_kafka_queue_t>,
}

// SAFETY: the client's queues, and all calls that are made with one here, may be used by any thread;
// the client itself is `Send` and `Sync`.
unsafe impl Send for RecordQueue {}
// SAFETY: as above.
unsafe impl Sync for RecordQueue {}

/// What comes out of a queue.
pub(super) enum Taken<'a> {
    Record {
        partition: i32,
        offset: u64,
        millis: Option<i64>,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    },
    /// An error of one partition, or its end.
    Error { partition: i32, code: Code, text: String },
}

/// What was taken in one go. It is given back to the client when this is dropped.
pub(super) struct Messages<'q> {
    messages: Vec<*mut bindings::rd_kafka_message_t>,
    _queue: &'q RecordQueue,
}

impl RecordQueue {
    pub(super) fn new(client: Arc<Client>) -> Self {
        // SAFETY: the client is alive, and is kept alive. The call allocates, and aborts the process
        // rather than return null.
        let queue = unsafe { bindings::rd_kafka_queue_new(client.client().native_ptr()) };
        match NonNull::new(queue) {
            Some(queue) => Self { client, queue },
            None => unreachable!("the client returns no null here"),
        }
    }

    /// Has the records of a partition come here: what is fetched from now on, and what waits.
    pub(super) fn route(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: client and queue are alive; the call copies the name. The partition's queue is a
        // reference of ours, checked for null and destroyed once. Forwarding holds references of its
        // own to both queues.
        unsafe {
            let rk = self.client.client().native_ptr();
            let of = bindings::rd_kafka_queue_get_partition(rk, topic.as_ptr(), partition);
            if !of.is_null() {
                bindings::rd_kafka_queue_forward(of, self.queue.as_ptr());
                bindings::rd_kafka_queue_destroy(of);
            }
        }
    }

    /// Takes up to `most`; waits for the first only.
    pub(super) fn take(&self, most: usize, wait: Duration) -> Messages<'_> {
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let mut messages = Vec::with_capacity(most);
        // SAFETY: the queue is alive. A message that is not null is ours, and so are the first `n` of
        // those that the second call writes, which is at most as many as there is room for: `n` is
        // negative if it fails, and has written none then.
        unsafe {
            let first = bindings::rd_kafka_consume_queue(self.queue.as_ptr(), millis);
            if !first.is_null() {
                messages.push(first);
                let room = most.saturating_sub(1);
                let rest = messages.as_mut_ptr().add(1);
                // With a time to wait the call would wait until there is no room left.
                let n = bindings::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, rest, room);
                messages.set_len(1 + usize::try_from(n).unwrap_or(0));
            }
        }
        Messages { messages, _queue: self }
    }
}

impl Drop for RecordQueue {
    fn drop(&mut self) {
        // SAFETY: it was made by `new` and is destroyed once; nothing borrows it any more. What waits
        // in it goes with the client's last reference to it.
        unsafe { bindings::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

impl Messages<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = Taken<'_>> {
        self.messages.iter().map(|&message| {
            // SAFETY: every pointer was returned as a message that is ours, and is destroyed when
            // `self` is dropped; nothing writes to it before. What is read is borrowed from `self`.
            unsafe { taken(message) }
        })
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        for &message in &self.messages {
            // SAFETY: it is ours, and destroyed once; the client is alive, since the queue is borrowed.
            unsafe { bindings::rd_kafka_message_destroy(message) };
        }
    }
}

/// Reads a message.
///
/// # Safety
/// `message` must be a message of the client that is not destroyed for as long as `'a`.
unsafe fn taken<'a>(message: *const bindings::rd_kafka_message_t) -> Taken<'a> {
    // SAFETY: by the contract of this function. Bytes are read only where they are, and as many as the
    // message says; the text of an error ends with a zero byte.
    unsafe {
        let at = &*message;
        if at.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = bindings::rd_kafka_message_errstr(message);
            let text = match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            };
            return Taken::Error { partition: at.partition, code: at.err.into(), text };
        }
        let mut kind = bindings::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let millis = bindings::rd_kafka_message_timestamp(message, &mut kind);
        let none = bindings::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        Taken::Record {
            partition: at.partition,
            offset: u64::try_from(at.offset).unwrap_or(0),
            millis: (kind != none && millis != -1).then_some(millis),
            key: bytes(at.key, at.key_len),
            value: bytes(at.payload, at.len),
        }
    }
}

/// Kafka's null is a null pointer.
///
/// # Safety
/// Unless `start` is null, there must be `len` bytes that nothing changes for as long as `'a`.
unsafe fn bytes<'a>(start: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract of this function.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), len) })
}
