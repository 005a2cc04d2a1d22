//! streamkit: event-time stream processing, embedded in your own program.
#![deny(missing_docs)]

pub mod data;
mod error;
mod record;
pub mod time;

pub mod connector;

pub use error::{Error, ErrorKind, Result};
pub use record::{Batch, Kind, Position, Run, Split, SplitId};
