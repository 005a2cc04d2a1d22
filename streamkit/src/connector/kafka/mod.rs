//! Kafka: a topic as a source, and as an exactly-once sink.

mod close;
mod config;
mod fault;
mod fetcher;
mod flow;
mod lane;
mod ledger;
mod native;
mod observer;
mod query;
mod record;
mod sink;
mod source;
mod target;
mod transactions;

pub use record::ProducerRecord;
pub use sink::KafkaSink;
pub use source::{KafkaSource, Start};
pub use target::{KafkaTarget, TopicSettings};
