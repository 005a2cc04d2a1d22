//! pipeline-app as a whole under a load that does not wait for it: what dev/latency-bench and
//! dev/state-bench share.
//!
//! ```text
//! schedule ──> sender ──> Kafka ──> pipeline-app ──┬─> enriched topic ──> observe
//!   what is due when,                              └─> PostgreSQL ──────> observe
//!   and what must come out
//! ```

pub mod app;
pub mod figures;
pub mod observe;
pub mod people;
pub mod schedule;
pub mod sender;
pub mod services;
