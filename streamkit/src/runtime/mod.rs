//! Who starts, watches and ends a job.

mod config;
mod coordinator;
mod handle;
mod held;
mod pace;
mod plan;
pub(crate) mod recovery;
mod sink_cell;
mod sink_task;
mod source_cell;
mod suspects;
mod ticks;

pub use config::{Checkpoints, InputEnd, RunConfig};
pub(crate) use coordinator::Coordinator;
pub use handle::JobHandle;
pub(crate) use handle::Outside;
pub(crate) use sink_cell::SinkNode;
pub(crate) use source_cell::SourceNode;
