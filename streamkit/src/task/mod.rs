//! What runs: links between operators, the exchange, keyed inputs, sources, the edges into sinks.

mod exchange;
mod gauge;
mod keyed_input;
mod sink_edge;
mod source_input;
mod tracker;
mod union;
mod worker;

pub(crate) use exchange::{Exchange, HashOf, KeyedBatch, LateRule, Packet, hash_by, watch};
pub(crate) use gauge::{Gauges, SLACK, Signal};
pub(crate) use keyed_input::{Channel, KeyedInput, Lookup, NamedOperator};
pub(crate) use sink_edge::{SinkEdge, SinkMessage};
pub(crate) use source_input::{SourceInput, SplitPlan, StampRule};
pub(crate) use tracker::{SplitState, Tracked, Tracker};
pub(crate) use union::{Union, UnionInput};
pub(crate) use worker::{Input, Worker, WorkerShared, WorkerStatus, panic_error};
