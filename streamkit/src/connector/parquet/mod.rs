//! A lake of Parquet files in hive layout (cargo feature `parquet`).
//!
//! ```text
//! <root>/event_date=2026-01-31/part-00007-0-5d1c20ab.c000.zstd.parquet    only finished files
//! <root>.staging/parts/<sink>/…                                           files being written
//!               /manifests/<sink>/00000000000000000007.json               the commits
//!               /locks/<sink>.lock                                        who writes
//!               /compaction/…                                             what has been merged
//! ```
//!
//! Nothing but Parquet files is ever put under the root, since most readers take any other file for
//! data. What is being written is beside the root, on the same file system, so that a rename
//! publishes it.
//!
//! A commit closes and syncs the files, then creates the next manifest, which must not exist yet:
//! *that is the commit*, and the fence against a second process. It names every file and carries
//! the progress. The renames come after it, and recovery does again those that a crash has cut off.
//! People who list the folder see the files of one commit appear one after the other, each complete.
//!
//! Manifests are kept, so that people can look whether a lake is whole ([`Lake::verify`]) and merge
//! small files of closed dates ([`Lake::compact`]), while a job goes on writing.
//!
//! **A disk that is full, or a folder that is gone for a while, costs time only.** Bytes that the
//! disk refuses wait in memory (`staged.rs`), and every step of a commit can be repeated until it
//! succeeds; meanwhile the sink takes no rows. What cannot be repeated is a failed sync: it stops the
//! job, and the next start reads the rows again.

mod columns;
mod compact;
mod config;
mod layout;
mod manifest;
mod part;
mod sink;
mod staged;
mod tools;

pub use compact::{Compacted, Compaction};
pub use config::LakeSink;
pub use tools::{Lake, Verified};
