//! The few calls that the safe wrapper of the client does not have.

#![expect(unsafe_code, reason = "the wrapper has no such call; each use says why it is sound")]

use std::ffi::CString;

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;

/// The first and the last position of a partition as the last fetch brought them: no request is
/// made. `None` until something was fetched.
pub(super) fn cached_watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<(u64, u64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the client is alive for as long as it is borrowed; the call copies the name, writes
    // to the two numbers only, and may be made from any thread.
    let result = unsafe {
        bindings::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    Some((u64::try_from(low).ok()?, u64::try_from(high).ok()?))
}

/// Sends everything that was given to a producer now, not after its linger time, and waits until it
/// is delivered or has failed. Says whether it has within `millis` milliseconds.
///
/// The wrapper's own flush sleeps up to 100 ms at a time; this one wakes up at the last delivery.
pub(super) fn flush<C: ClientContext>(client: &Client<C>, millis: i32) -> bool {
    // SAFETY: the client is alive for as long as it is borrowed, and the call may be made from any
    // thread. Delivery reports are events for the wrapper's clients, so that it runs no callback.
    let result = unsafe { bindings::rd_kafka_flush(client.native_ptr(), millis) };
    result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}
