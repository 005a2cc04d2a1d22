//! The few calls that the safe wrapper of the client does not have.

#![expect(unsafe_code, reason = "the wrapper has no such call; each use says why it is sound")]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::observer::Observer;

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

/// Tells a client's observer the errors that it has reported so far: for a client that nobody polls,
/// as those for administration are. Never for one that somebody polls: it takes what they wait for.
pub(super) fn tell_errors(client: &Client<Observer>) {
    // SAFETY: the client is alive for as long as it is borrowed. The queue is a reference of ours,
    // and every event is ours; each is destroyed once, after the last use of what belongs to it.
    unsafe {
        let queue = bindings::rd_kafka_queue_get_main(client.native_ptr());
        loop {
            let event = bindings::rd_kafka_queue_poll(queue, 0);
            if event.is_null() {
                break;
            }
            if bindings::rd_kafka_event_type(event) == bindings::RD_KAFKA_EVENT_ERROR {
                let code = Code::from(bindings::rd_kafka_event_error(event));
                let text = bindings::rd_kafka_event_error_string(event);
                if !text.is_null() {
                    let text = CStr::from_ptr(text).to_string_lossy();
                    client.context().error(KafkaError::Global(code), &text);
                }
            }
            bindings::rd_kafka_event_destroy(event);
        }
        bindings::rd_kafka_queue_destroy(queue);
    }
}

/// The id that a topic got when it was created: another one of the same name has another id.
/// `None` if the cluster is too old to have ids.
///
/// # Errors
/// If there is no answer in time, or no such topic.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, Code> {
    let topic = CString::new(topic).map_err(|_| Code::InvalidTopic)?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let operation = bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let mut names = [topic.as_ptr()];
    let mut text = [0; 256];
    // SAFETY: the client is alive for as long as it is borrowed. What is made here (queue, options,
    // collection, event) is checked for null where it can be, used by this thread only, and
    // destroyed once, at the end; the call copies the collection and the options. Everything read
    // from the event belongs to it, and is copied before it is destroyed. A queue may be destroyed
    // before an answer has come: the answer is then dropped.
    unsafe {
        let rk = client.native_ptr();
        let queue = bindings::rd_kafka_queue_new(rk);
        let options = bindings::rd_kafka_AdminOptions_new(rk, operation);
        bindings::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis,
            text.as_mut_ptr(),
            text.len(),
        );
        let topics = bindings::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        bindings::rd_kafka_DescribeTopics(rk, topics, options, queue);
        bindings::rd_kafka_TopicCollection_destroy(topics);
        bindings::rd_kafka_AdminOptions_destroy(options);
        let event = bindings::rd_kafka_queue_poll(queue, millis);
        let id = if event.is_null() { Err(Code::OperationTimedOut) } else { id_of(event) };
        if !event.is_null() {
            bindings::rd_kafka_event_destroy(event);
        }
        bindings::rd_kafka_queue_destroy(queue);
        id
    }
}

/// The id of the only topic that an answer describes.
///
/// # Safety
/// `event` must be an event that is not destroyed for the time of the call.
unsafe fn id_of(event: *mut bindings::rd_kafka_event_t) -> Result<Option<String>, Code> {
    const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    let good = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: by the contract of this function; each pointer that may be null is looked at first,
    // and the array has as many elements as the call says.
    unsafe {
        match bindings::rd_kafka_event_error(event) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION => return Ok(None),
            error if error != good => return Err(error.into()),
            _ => {}
        }
        let result = bindings::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(Code::Fail);
        }
        let mut count = 0;
        let topics = bindings::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count != 1 {
            return Err(Code::Fail);
        }
        let topic = *topics;
        // A null error is none, and the call knows that.
        let error = bindings::rd_kafka_TopicDescription_error(topic);
        let code = bindings::rd_kafka_error_code(error);
        if code != good {
            return Err(code.into());
        }
        let id = bindings::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Ok(None);
        }
        let id = bindings::rd_kafka_Uuid_base64str(id);
        if id.is_null() {
            return Ok(None);
        }
        let id = CStr::from_ptr(id).to_string_lossy().into_owned();
        Ok((id != NONE).then_some(id))
    }
}
