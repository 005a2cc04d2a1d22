//! A topic that one producer writes to, so that it is not looked up by its name for each record.

#![expect(unsafe_code, reason = "the wrapper has no such call; each use says why it is sound")]

use std::ffi::{CString, c_void};
use std::ptr::{NonNull, null_mut};

use rdkafka::bindings;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::observer::Observer;
use super::record::ProducerRecord;

/// A topic of a producer. It must be dropped before the producer is.
pub(super) struct Topic(NonNull<bindings::rd_kafka_topic_t>);

// SAFETY: the client's topics may be used by any thread.
unsafe impl Send for Topic {}

impl Topic {
    /// `None` if the name is none.
    pub(super) fn new(producer: &BaseProducer<Observer>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the producer is alive; the call copies the name. Without a configuration of its own
        // the topic has that of the producer.
        let topic = unsafe {
            let rk = producer.client().native_ptr();
            bindings::rd_kafka_topic_new(rk, name.as_ptr(), null_mut())
        };
        NonNull::new(topic).map(Self)
    }

    /// Gives a record without headers to the producer, which copies it.
    ///
    /// # Errors
    /// As the wrapper's `send`.
    pub(super) fn send(
        &self,
        producer: &BaseProducer<Observer>,
        record: &ProducerRecord,
    ) -> Result<(), Code> {
        use bindings::rd_kafka_vtype_t as Kind;
        let field = |vtype, u| bindings::rd_kafka_vu_t { vtype, u };
        let bytes = |bytes: Option<&[u8]>| {
            let (ptr, size) = bytes.map_or((null_mut(), 0), |bytes| {
                (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len())
            });
            let mem = bindings::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size };
            bindings::rd_kafka_vu_s__bindgen_ty_1 { mem }
        };
        let flags = bindings::rd_kafka_vu_s__bindgen_ty_1 { i: bindings::RD_KAFKA_MSG_F_COPY };
        let time = bindings::rd_kafka_vu_s__bindgen_ty_1 { i64_: record.millis().unwrap_or(0) };
        let topic = bindings::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.0.as_ptr() };
        let fields = [
            field(Kind::RD_KAFKA_VTYPE_RKT, topic),
            field(Kind::RD_KAFKA_VTYPE_MSGFLAGS, flags),
            field(Kind::RD_KAFKA_VTYPE_VALUE, bytes(record.value())),
            field(Kind::RD_KAFKA_VTYPE_KEY, bytes(record.key())),
            field(Kind::RD_KAFKA_VTYPE_TIMESTAMP, time),
        ];
        // SAFETY: producer and topic are alive, and the topic is the producer's. The call reads as
        // many fields as it is told, copies key and value, and writes to none of it. An error that is
        // not null is ours, and destroyed once.
        let code = unsafe {
            let rk = producer.client().native_ptr();
            let error = bindings::rd_kafka_produceva(rk, fields.as_ptr(), fields.len());
            if error.is_null() {
                return Ok(());
            }
            let code = bindings::rd_kafka_error_code(error);
            bindings::rd_kafka_error_destroy(error);
            code
        };
        debug_assert_ne!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
        Err(code.into())
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: it was made by `new`, is destroyed once, and the producer is still alive.
        unsafe { bindings::rd_kafka_topic_destroy(self.0.as_ptr()) };
    }
}
