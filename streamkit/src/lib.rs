//! streamkit: event-time stream processing, embedded in your own program.
#![deny(missing_docs)]

// In the order in which a record meets them.
pub mod data;
mod error;
mod record;
pub mod time;

mod state;

pub mod operator;
pub mod window;

pub mod connector;

mod checkpoint;
mod graph;
mod job;
mod runtime;
pub mod stream;
mod task;

pub mod prelude;

pub use error::{Error, ErrorKind, Result};
pub use graph::PlanFormat;
pub use job::Job;
pub use record::{Batch, Kind, Position, Run, Split, SplitId};
pub use runtime::{
    CheckpointProgress, Checkpoints, InputEnd, JobHandle, JobProgress, JobState, OperatorProgress,
    RunConfig, SinkProgress, SplitProgress,
};
pub use state::{KEY_GROUPS, key_hash};
