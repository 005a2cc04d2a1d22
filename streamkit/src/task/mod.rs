//! What runs: links between operators, the exchange, keyed inputs, sources, the edges into sinks.

mod branches;
mod catch_up;
mod exchange;
mod gauge;
mod given_up;
mod keyed_input;
mod letter;
mod portion;
mod reach;
mod sink_edge;
mod source_input;
mod split;
mod tracker;
mod union;
mod worker;

pub(crate) use branches::Branches;
pub(crate) use exchange::{Exchange, HashesOf, KeyedBatch, LateRule, Packet, watch};
pub(crate) use gauge::{Gauges, Passage, SLACK};
pub(crate) use given_up::{Accusation, GivenUp, GivenUpBy, GivenUpFor, GivenUps};
pub(crate) use keyed_input::{Channel, KeyedInput, Lookup, NamedOperator};
pub(crate) use reach::{Attachment, Reach};
pub(crate) use sink_edge::{SinkEdge, SinkMessage};
pub(crate) use source_input::{SourceInput, StampRule};
pub(crate) use split::SplitPlan;
pub(crate) use tracker::{SplitState, Tracked, Tracker};
pub(crate) use union::{Union, UnionInput};
pub(crate) use worker::{Input, Worker, WorkerShared, WorkerStatus, panic_error};
