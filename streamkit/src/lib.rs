//! Event-time stream processing, embedded in your own program.
//!
//! A [`Job`] reads records from sources, computes with the times at which things *happened*, and
//! writes results to sinks, each result once, whatever is interrupted when. It runs on threads of
//! your process. There is no cluster, no server and no second language.
//!
//! It is not a database, it has no SQL and no scheduler, and it installs no signal handler, logger
//! or metrics recorder: those are the program's. One process uses all cores of one machine.
//!
//! # Example
//!
//! Page views per page and minute. Everything here is in memory; with a topic as the source and a
//! table as the sink only these two lines change.
//!
//! ```
//! use streamkit::connector::memory::{Collect, Memory};
//! use streamkit::prelude::*;
//!
//! #[derive(Clone)]
//! struct View {
//!     page: &'static str,
//!     time: Timestamp,
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let views = [("/home", 5), ("/cart", 20), ("/home", 70), ("/home", 40)]
//!     .map(|(page, s)| View { page, time: Timestamp::from_micros(s * 1_000_000) });
//! let counts = Collect::new();
//!
//! let job = Job::new("views");
//! let time = WatermarkStrategy::bounded_out_of_orderness(minutes(2), |view: &View| view.time);
//! job.source("views", Memory::new(views), time)
//!     .key_by(|view| view.page)
//!     .window(Tumbling::of(minutes(1)))
//!     .aggregate("views per minute", count())
//!     .map(|row| (row.window.start.as_micros() / 60_000_000, row.key.clone(), row.value))
//!     .sink("counts", counts.clone());
//! job.run(RunConfig::new()).await?;
//!
//! let mut rows = counts.rows();
//! rows.sort();
//! assert_eq!(rows, [(0, "/cart".into(), 1), (0, "/home".into(), 2), (1, "/home".into(), 1)]);
//! # Ok(())
//! # }
//! ```
//!
//! More, each a program of its own, is in the repository's `examples/`.
//!
//! # Guarantees
//!
//! - **Final results are a function of the data.** Whether a record is late is decided by the
//!   records before it in its own split (a partition, a file), never by the race between splits.
//!   Batch sizes, the number of workers, restarts and replays change nothing. The exceptions are
//!   written down where they are made: a split that was idle and comes back, for instance, see
//!   [`WatermarkStrategy::idle_after`](time::WatermarkStrategy::idle_after).
//! - **Each sink gets each result once.** A sink stores how far it has got in the same atomic step
//!   as its rows; after a crash the job replays, and what a sink has already is dropped. This holds
//!   for every sink of this crate, and for every [`SinkWriter`](connector::SinkWriter) that keeps
//!   its contract.
//! - **Results do not wait for checkpoints.** A final result leaves as soon as the watermark allows
//!   it, however rare checkpoints are.
//! - **Nothing is dropped in silence.** Records that cannot be used are
//!   [dead letters](stream::Stream::dead_letters), records that come too late go to a
//!   [late output](stream::Aggregated::late); both are counted, in any case.
//! - **Memory is bounded**: every queue is, and a slow sink slows the source. State is in memory, and
//!   grows with the number of keys in open windows.
//!
//! For a restart of the process to go on where it was, the job needs a folder for its
//! [`Checkpoints`]; the default keeps them in memory.
//!
//! # Features
//!
//! None is on by default, and without them no C compiler is needed.
//!
//! | feature | brings | needs to build |
//! |---|---|---|
//! | `kafka` | source and sink for topics | a C and C++ compiler, make |
//! | `postgres` | sink for PostgreSQL tables | |
//! | `postgres-tls` | encrypted connections to it | a C compiler |
//! | `parquet` | sink for a lake of Parquet files | a C compiler |
//! | `sqlite` | sink for SQLite tables | a C compiler |
//! | `gzip` | `.gz` files as input | |
//! | `full` | all of these | |
//!
//! # Where to read on
//!
//! In the order in which a record meets them:
//! [`connector`] (where records come from and go to), [`time`] (what time means for them),
//! [`stream`] (what can be done with them), [`operator`] and [`window`] (how it is done), [`data`]
//! (what may travel, be a key, be state). [`RunConfig`] says how a job is run, [`JobHandle`] stops
//! and watches it, [`Job::describe`] prints its plan, [`checkpoint`] looks into what it has stored. The [`prelude`] has what a job is written with.
#![deny(missing_docs)]
#![warn(unreachable_pub)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

// In the order in which a record meets them.
pub mod data;
mod error;
#[cfg(feature = "failpoints")]
pub mod failpoint;
#[cfg(not(feature = "failpoints"))]
mod failpoint;
mod record;
pub mod time;

mod state;

pub mod operator;
pub mod window;

pub mod connector;

pub mod checkpoint;
mod flow;
mod graph;
mod job;
mod progress;
mod runtime;
pub mod stream;
mod task;

pub mod prelude;
pub mod testing;

#[cfg(test)]
mod protocol_models;

pub use error::{Error, ErrorKind, Result};
pub use graph::PlanFormat;
pub use job::Job;
pub use progress::{
    CheckpointProgress, JobProgress, JobState, OperatorProgress, SinkProgress, SplitProgress,
};
pub use record::{Batch, Kind, LateRecord, Position, Run, Split, SplitId};
pub use runtime::{Checkpoints, InputEnd, JobHandle, RunConfig};
pub use state::{KEY_GROUPS, key_hash};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
