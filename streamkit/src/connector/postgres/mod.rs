//! PostgreSQL: a sink that upserts rows, exactly once.
//!
//! ```no_run
//! # use streamkit::connector::{Table, TableRow};
//! # struct PageViewCount;
//! # impl TableRow for PageViewCount { fn table() -> Table<Self> { Table::new("t") } }
//! use streamkit::connector::postgres::{PostgresConfig, PostgresSink};
//!
//! # fn main() -> streamkit::Result<()> {
//! let config = PostgresConfig::new("postgres://user:password@db/stream_data")?;
//! let page_view_counts = PostgresSink::<PageViewCount>::new(&config);
//! # Ok(())
//! # }
//! ```
//!
//! **One statement is one commit.** The rows of a transaction travel as one array per column, and
//! the same statement that upserts them moves the sink's row in `streamkit_progress`, on condition
//! that this writer still owns it: no row of the result is written otherwise. So a commit is one
//! round trip and atomic by itself; only a commit too large for one statement is put between
//! `BEGIN` and `COMMIT`. A row that would not change is not touched, so a replay costs no disk.
//!
//! **One writer per sink** (rule D8). Starting takes a session lock (`pg_advisory_lock`) and makes
//! a new version of the sink's progress row. The lock turns away a second copy of the job before
//! it does harm; the version is what makes it harmless, whatever happens to locks and connections.
//!
//! **Rows that the database refuses** (a value out of range, a constraint) are found by halving, and
//! go into `streamkit_rejects` in the same transaction; [`OnReject`] says what else can be done.
//! `streamkit_progress.rejected` counts them, so that at any moment the final rows that the progress
//! counts are those written and those rejected.
//!
//! **Times** are points in time: `timestamptz`, or `timestamp` in UTC where a table has that.
//!
//! **Encryption** is what `sslmode` and `sslrootcert` of the connection string ask for, with the cargo
//! feature `postgres-tls`; [`PostgresConfig::new`] says how.
//!
//! Needs PostgreSQL 12 or newer, and a session of its own: behind PgBouncer, session pooling.

mod config;
mod error;
mod lease;
mod rejects;
mod schema;
mod session;
mod statement;
#[cfg(test)]
mod tests;
mod tls;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::table::{Table, TableRow};
use super::{Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::Result;

use writer::Writer;

pub use config::PostgresConfig;
pub use rejects::OnReject;

/// Upserts rows into a table.
pub struct PostgresSink<T> {
    config: PostgresConfig,
    table: Arc<Table<T>>,
    on_reject: OnReject,
    max_rejects: Option<u64>,
}

impl<T> fmt::Debug for PostgresSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSink")
            .field("config", &self.config)
            .field("table", &self.table)
            .finish()
    }
}

impl<T: TableRow> PostgresSink<T> {
    /// A sink for the table that the row type names.
    #[must_use]
    pub fn new(config: &PostgresConfig) -> Self {
        Self::with_table(config, T::table())
    }
}

impl<T: Data> PostgresSink<T> {
    /// A sink for any table: for row types of other crates, or one type in two tables.
    #[must_use]
    pub fn with_table(config: &PostgresConfig, table: Table<T>) -> Self {
        let (config, table) = (config.clone(), Arc::new(table));
        Self { config, table, on_reject: OnReject::default(), max_rejects: None }
    }

    /// What happens to a row that the database refuses; unless told, it goes into the table
    /// `streamkit_rejects`, which is created if it is missing.
    #[must_use]
    pub fn on_reject(mut self, on_reject: OnReject) -> Self {
        self.on_reject = on_reject;
        self
    }

    /// How many rows of this sink may be put aside since the job began; with one more the job stops,
    /// and nothing of that commit is written. Unless told, there is no limit.
    #[must_use]
    pub fn max_rejects(mut self, limit: Option<u64>) -> Self {
        self.max_rejects = limit;
        self
    }
}

impl<T: Data> Sink<T> for PostgresSink<T> {
    fn describe(&self) -> String {
        format!("postgres table {} at {}", self.table.name(), self.config.place())
    }

    fn options(&self) -> SinkOptions {
        // While one commit is on its way the next rows gather, so the load sets the size of a
        // commit, and waiting would only add to the latency of an idle job.
        SinkOptions::default().upserts().commit_within(Duration::ZERO)
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        self.table.check()?;
        let table = Arc::clone(&self.table);
        let choice = (self.on_reject, self.max_rejects);
        Ok(Box::new(Writer::open(self.config.clone(), table, choice, context.clone())?))
    }
}
