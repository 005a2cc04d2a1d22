//! SQLite: a sink that upserts rows into a file, exactly once, with nothing to install.
//!
//! ```no_run
//! # use streamkit::connector::{Table, TableRow};
//! # struct PageViewCount;
//! # impl TableRow for PageViewCount { fn table() -> Table<Self> { Table::new("t") } }
//! use streamkit::connector::sqlite::{SqliteDatabase, SqliteSink};
//!
//! # fn main() -> streamkit::Result<()> {
//! let database = SqliteDatabase::open("data/stream_data.db")?;
//! let page_view_counts = SqliteSink::<PageViewCount>::new(&database);
//! # Ok(())
//! # }
//! ```
//!
//! The sinks of one file share one [`SqliteDatabase`], since SQLite has one writer at a time; each
//! has transactions and a progress row of its own. A transaction holds rows and progress, and the
//! progress is updated on condition that this writer still owns it (rule D8). Tables are created if
//! they are missing: `TEXT`, `INTEGER` and `REAL`, times as text in UTC that sorts as the times do.
//!
//! A commit is on the disk when it returns (`synchronous=FULL`), and readers never wait for it
//! (`WAL`): the file can be looked at with `sqlite3` while the job runs. What it costs is the wait
//! for the disk, some milliseconds whatever the number of rows; hence rows gather for a moment
//! before a commit.
//!
//! The version of the progress row makes a second process on the same file harmless. That there is
//! none is for the owner of the data folder to ensure.

mod database;
mod schema;
mod writer;

use std::fmt;
use std::sync::Arc;

use super::table::{Table, TableRow};
use super::{Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::Result;
use crate::time::millis;

pub use database::SqliteDatabase;

/// Upserts rows into a table.
pub struct SqliteSink<T> {
    database: SqliteDatabase,
    table: Arc<Table<T>>,
}

impl<T> fmt::Debug for SqliteSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSink")
            .field("database", &self.database)
            .field("table", &self.table)
            .finish()
    }
}

impl<T: TableRow> SqliteSink<T> {
    /// A sink for the table that the row type names.
    #[must_use]
    pub fn new(database: &SqliteDatabase) -> Self {
        Self::with_table(database, T::table())
    }
}

impl<T: Data> SqliteSink<T> {
    /// A sink for any table: for row types of other crates, or one type in two tables.
    #[must_use]
    pub fn with_table(database: &SqliteDatabase, table: Table<T>) -> Self {
        Self { database: database.clone(), table: Arc::new(table) }
    }
}

impl<T: Data> Sink<T> for SqliteSink<T> {
    fn describe(&self) -> String {
        format!("sqlite table {} in {}", self.table.name(), self.database.path().display())
    }

    fn options(&self) -> SinkOptions {
        SinkOptions::default().upserts().commit_within(millis(200))
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        self.table.check()?;
        let (database, table) = (self.database.clone(), Arc::clone(&self.table));
        Ok(Box::new(writer::Writer::open(database, table, context.clone())?))
    }
}
