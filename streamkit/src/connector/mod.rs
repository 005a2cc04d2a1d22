//! Connectors: how records come in and go out.
//!
//! The contracts are [`Source`] with [`SplitReader`], and [`Sink`] with [`SinkWriter`]. A connector
//! never sees a watermark, a barrier or a checkpoint: it reads from a position, writes rows, and
//! stores the progress that it is given in the same atomic step as the rows.
//!
//! | module | feature | source | sink |
//! |---|---|---|---|
//! | [`memory`] | | a vector per split | collects |
//! | [`file`] | (`gzip` for `.gz`) | JSON lines | JSON lines with a committed length |
#![cfg_attr(feature = "kafka", doc = "| [`kafka`] | `kafka` | partitions | transactions |")]
#![cfg_attr(feature = "postgres", doc = "| [`postgres`] | `postgres` | | upserts |")]
#![cfg_attr(feature = "sqlite", doc = "| [`sqlite`] | `sqlite` | | upserts |")]
#![cfg_attr(feature = "parquet", doc = "| [`parquet`] | `parquet` | | a lake in hive layout |")]

mod format;
mod progress;
mod sink;
mod source;

pub use format::{DeadLetter, Decode, Decoded, RawRecord, Reject, SourceExt};
pub use progress::{Claim, Commit, Point, Progress};
pub use sink::{Sink, SinkContext, SinkOptions, SinkWriter};
pub use source::{ReadBatch, ReadStatus, Source, SplitReader, Wake};

pub mod memory;
