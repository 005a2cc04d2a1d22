//! Files: lines as records, and files as topics.
//!
//! [`FileSource`] reads lines, plain or packed (`.gz`, cargo feature `gzip`); [`LinesSink`] writes
//! them, with a committed length beside the file, so that a restart neither loses nor repeats one.

mod durable;
mod input;
mod reader;
mod sink;
mod source;
mod split;
mod watch;

#[cfg(feature = "parquet")]
pub(crate) use durable::options as durable_options;
#[cfg(feature = "parquet")]
pub(crate) use durable::{
    Failpoints, beside, create_folder, create_new, failed, lock, lost, passing, read_sealed, seal,
    sync_folder, write_synced,
};
pub use sink::LinesSink;
pub use source::FileSource;
