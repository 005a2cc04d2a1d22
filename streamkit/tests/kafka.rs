//! The Kafka connector against a real broker: `KAFKA_BOOTSTRAP_SERVERS` says where it is.
//!
//! Without it every test prints a line and passes; with it, a broker that cannot be used is a
//! failure. Every test has topics of its own.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test may fail where it likes")]

#[path = "kafka/sink.rs"]
mod sink;
#[path = "kafka/source.rs"]
mod source;
#[path = "kafka/support.rs"]
mod support;
