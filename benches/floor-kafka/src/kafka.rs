//! librdkafka's two batch calls, which its Rust crate has no safe form of. They are what makes
//! this a floor: a call per record costs more than everything that is done with it.

use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};

const MOST: usize = 4096;

pub struct Record<'a> {
    pub partition: i32,
    pub offset: i64,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

pub struct Reader<'a> {
    // The queue must not outlive the consumer.
    _consumer: &'a BaseConsumer,
    queue: *mut sys::rd_kafka_queue_t,
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

impl<'a> Reader<'a> {
    pub fn new(consumer: &'a BaseConsumer) -> Self {
        // SAFETY: the handle is valid for as long as the consumer is borrowed.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        assert!(!queue.is_null(), "the consumer has a queue");
        Self { _consumer: consumer, queue, messages: vec![std::ptr::null_mut(); MOST] }
    }

    /// Calls `each` with the records that are there, after waiting for one for at most 100 ms.
    pub fn read(&mut self, mut each: impl FnMut(Record<'_>)) {
        // SAFETY: the queue is open, and the array has room for MOST pointers.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue, 100, self.messages.as_mut_ptr(), MOST)
        };
        let count = usize::try_from(count).expect("records can be read");
        for &message in &self.messages[..count] {
            // SAFETY: the first `count` pointers are messages that are ours until they are destroyed,
            // and librdkafka does not write to them any more.
            let record = unsafe {
                let message = &*message;
                assert_eq!(
                    message.err,
                    rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
                    "reading"
                );
                Record {
                    partition: message.partition,
                    offset: message.offset,
                    key: bytes(message.key, message.key_len),
                    value: bytes(message.payload, message.len),
                }
            };
            each(record);
            // SAFETY: once for each, and `each` cannot have kept what it was lent.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // SAFETY: got from librdkafka, and given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// SAFETY: `start` is null, or the start of `length` bytes that live as long as the result is used.
unsafe fn bytes<'a>(start: *mut std::ffi::c_void, length: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) }
}

/// Records for one topic, sent together.
pub struct Writer {
    topic: *mut sys::rd_kafka_topic_t,
    buffer: Vec<u8>,
    /// Partition, start, end of the key, end.
    spans: Vec<(i32, usize, usize, usize)>,
}

impl Writer {
    pub fn new(producer: &BaseProducer, topic: &str) -> Self {
        let name = CString::new(topic).expect("a topic's name has no zero byte");
        // SAFETY: the producer is valid, and the name ends with a zero byte.
        let topic = unsafe {
            sys::rd_kafka_topic_new(
                producer.client().native_ptr(),
                name.as_ptr(),
                std::ptr::null_mut(),
            )
        };
        assert!(!topic.is_null(), "the topic has a handle");
        Self { topic, buffer: Vec::new(), spans: Vec::new() }
    }

    pub fn push(&mut self, partition: i32, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(key);
        let key_end = self.buffer.len();
        value(&mut self.buffer);
        self.spans.push((partition, start, key_end, self.buffer.len()));
    }

    pub fn send(&mut self, producer: &BaseProducer) {
        let mut messages: Vec<sys::rd_kafka_message_t> = Vec::with_capacity(self.spans.len());
        for &(partition, start, key_end, end) in &self.spans {
            // SAFETY: all zero is a valid message, and the one that librdkafka asks for.
            let mut message: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
            message.partition = partition;
            message.key = self.buffer[start..].as_mut_ptr().cast();
            message.key_len = key_end - start;
            message.payload = self.buffer[key_end..].as_mut_ptr().cast();
            message.len = end - key_end;
            messages.push(message);
        }
        let mut sent = 0;
        while sent < messages.len() {
            let rest = &mut messages[sent..];
            let flags = (sys::RD_KAFKA_MSG_F_COPY | sys::RD_KAFKA_MSG_F_PARTITION) as i32;
            // SAFETY: the messages point into the buffer, which stays as it is, and are copied (F_COPY).
            let took = unsafe {
                sys::rd_kafka_produce_batch(
                    self.topic,
                    -1,
                    flags,
                    rest.as_mut_ptr(),
                    rest.len() as i32,
                )
            };
            sent += usize::try_from(took).expect("a number of messages");
            if sent < messages.len() {
                // The queue is full.
                producer.poll(Duration::from_millis(1));
            }
        }
        self.buffer.clear();
        self.spans.clear();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: got from librdkafka, and given back once.
        unsafe { sys::rd_kafka_topic_destroy(self.topic) };
    }
}
