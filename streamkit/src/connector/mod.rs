//! Connectors: how records come in and go out.
//!
//! The contracts are [`Source`] with [`SplitReader`], and [`Sink`] with [`SinkWriter`]. A connector
//! never sees a watermark, a barrier or a checkpoint: it reads from a position, writes rows, and
//! stores the progress that it is given in the same atomic step as the rows.
//!
//! | module | feature | source | sink |
//! |---|---|---|---|
//! | [`memory`] | | a vector per split | collects |
//! | [`generator`] | | made-up items | |
//! | [`mod@file`] | (`gzip` for `.gz`) | lines of files | lines, with a committed length |
#![cfg_attr(
    feature = "kafka",
    doc = "| [`kafka`] | `kafka` | partitions of a topic | transactions |"
)]
#![cfg_attr(feature = "postgres", doc = "| [`postgres`] | `postgres` | | upserts |")]
#![cfg_attr(feature = "sqlite", doc = "| [`sqlite`] | `sqlite` | | upserts |")]
#![cfg_attr(feature = "parquet", doc = "| [`parquet`] | `parquet` | | a lake in hive layout |")]

mod format;
mod progress;
mod sink;
mod source;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod table;

pub(crate) use format::PROCESSING_ERROR;
pub use format::{DeadLetter, Decode, Decoded, RawRecord, Reject, SourceExt};
pub use progress::{Claim, Commit, Point, Progress};
pub use sink::{Sink, SinkContext, SinkOptions, SinkWriter};
pub use source::{ReadBatch, ReadStatus, Source, SplitReader, Wake};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use table::{Table, TableRow};

pub mod file;
pub mod generator;
pub mod memory;

#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;
