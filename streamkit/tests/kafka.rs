//! The Kafka connector against a real broker: `KAFKA_BOOTSTRAP_SERVERS` says where it is.
//!
//! Without it every test prints a line and passes; with it, a broker that cannot be used is a
//! failure. Every test has topics of its own.
//!
//! What takes a broker down has a broker of its own for it, and needs minutes, so it is ignored
//! unless it is asked for: `cargo test -p streamkit --all-features --test kafka -- --ignored`.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test may fail where it likes")]

#[path = "kafka/access.rs"]
mod access;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/outages.rs"]
mod outages;
#[path = "kafka/own_broker.rs"]
mod own_broker;
#[path = "kafka/proxy.rs"]
mod proxy;
#[path = "kafka/sink.rs"]
mod sink;
#[path = "kafka/source.rs"]
mod source;
#[path = "kafka/support.rs"]
mod support;
