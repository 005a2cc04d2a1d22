//! Kafka: a topic as a source, and as an exactly-once sink.
//!
//! A source reads each partition from the position that the job says. It never asks a consumer
//! group where to go on: the group that [`KafkaSource::group`] names gets a copy of the job's
//! positions, so that lag tools see the job, and that is all.
//!
//! A sink writes rows and its progress in one transaction of Kafka's. Each sink is a commit unit of
//! its own:
//!
//! | what | name |
//! |---|---|
//! | transactional id | `<group>.<instance>.<sink>.0` |
//! | its progress | the record `<job>/<sink>` of the compacted topic `<group>.progress` |
//!
//! Whoever starts with a transactional id shuts out whoever had it before and ends what that one
//! has left open; then it reads the progress topic to its end. So after a crash, a lost reply, or
//! with a second copy started by mistake, there is one answer to the question how far the sink has
//! got, and one process that may go on from there.
//!
//! Downstream, only a reader with `isolation.level=read_committed` gets each row exactly once; that
//! is not the default of most clients.
//!
//! The client is librdkafka, built without TLS, so that nothing has to be installed for it. A program
//! that needs TLS or SCRAM adds `rdkafka = { version = "0.39", features = ["ssl"] }` to its own
//! `Cargo.toml` (and OpenSSL's development files to the machine): Cargo builds the client once, with
//! all that anybody asks for. Until then a property that needs it is an error that says so.
//!
//! Whatever property of the client a person sets is passed on, but for those that the promises
//! above rest on. None of its types is part of this interface.

mod close;
mod config;
mod fault;
mod fetcher;
mod fetching;
mod flow;
mod lane;
mod ledger;
mod native;
mod observer;
mod query;
mod record;
mod record_queue;
mod sink;
mod source;
mod splits;
mod target;
mod topic;
mod transactions;

pub use record::ProducerRecord;
pub use sink::KafkaSink;
pub use source::{KafkaSource, Start};
pub use target::{KafkaTarget, TopicSettings};
