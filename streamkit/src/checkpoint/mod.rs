//! The checkpoint log: the home of what is neither in the sources nor in the sinks.
//!
//! A source can be read again and a sink remembers by itself how far it has got; keyed state can
//! do neither, so it has a log of its own. A *checkpoint* stores in one atomic step the positions
//! of the sources, the watermarks, what changed in the state and the facts so far. A *fact* is
//! something that is not in the data (a split was idle, an input has ended); it is durable before
//! anything that it decided leaves the job (rule D1), and it costs a small object of its own rather
//! than a checkpoint.
//!
//! The log is a folder of immutable objects, each written whole, with put-if-absent, and covered by
//! checksums:
//!
//! ```text
//! <root>/<job>/checkpoint-0000000007   a manifest and changes of the state
//! <root>/<job>/facts-0000000012        one fact
//! ```
//!
//! A checkpoint is a *base*, which holds all of the state, or an *increment*, which holds what
//! changed since the checkpoint before it. Numbers go up by one. So put-if-absent is also the fence:
//! of two processes that run one job, one finds its number taken (rule D8).
//!
//! `protocol` decides, from facts to decisions and without I/O; `codec` turns objects into bytes;
//! `store` moves bytes; `reader` judges what it gets; `log` puts them together.
//!
//! A running job owns its log. Anybody may look at it: [`Checkpoints::inspect`] opens an
//! [`Inspector`], which never writes.
//!
//! ```
//! use streamkit::Checkpoints;
//!
//! let folder = std::env::temp_dir();
//! let inspector = Checkpoints::Directory(folder).inspect("no such job")?;
//! assert!(inspector.list()?.is_empty());
//! # Ok::<(), streamkit::Error>(())
//! ```
//!
//! [`Checkpoints::inspect`]: crate::Checkpoints::inspect

mod codec;
mod inspect;
mod log;
#[cfg(test)]
mod log_tests;
mod manifest;
pub(crate) mod protocol;
mod reader;
mod store;

pub use inspect::{Damage, Detail, Inspector, OperatorState, Summary, Verification};
pub(crate) use log::{CheckpointLog, Recovered};
pub(crate) use manifest::Checkpoint;
pub use manifest::{Confirmed, FORMAT, Fact, Manifest, PlanStep, SplitEntry, Totals};
pub(crate) use store::Location;
