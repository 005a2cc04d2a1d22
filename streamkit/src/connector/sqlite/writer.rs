//! The writer: gathers rows in memory and commits them with the progress.

use std::sync::Arc;

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::SqliteDatabase;
use super::schema::{self, CREATE_PROGRESS_TABLE};
use crate::connector::table::{Rows, Table, Values, random_owner};
use crate::connector::{Claim, Commit, Progress, SinkContext, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::{broken, failpoint};
use crate::record::Batch;

/// A transaction should not get larger: the other sinks of the file wait for it.
const FULL_ROWS: usize = 100_000;
const FULL_BYTES: usize = 32 << 20;

/// Writes to one table.
pub(super) struct Writer<T> {
    database: SqliteDatabase,
    context: SinkContext,
    table: Arc<Table<T>>,
    upsert: String,
    rows: Rows<T>,
    lease: Option<Lease>,
}

/// The right to write: what every commit is conditional on.
struct Lease {
    owner: String,
    version: i64,
}

/// A commit that failed.
enum Failed {
    /// Nothing was committed.
    Surely(Error),
    /// The disk failed while it was being written.
    Perhaps(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Surely(error)
    }
}

impl<T: Data> Writer<T> {
    pub(super) fn open(
        database: SqliteDatabase,
        table: Arc<Table<T>>,
        context: SinkContext,
    ) -> Result<Self> {
        let doing = format!("cannot create table {}", table.name());
        let found = {
            let mut connection = database.lock();
            let create = |connection: &mut Connection| {
                let transaction = begin(connection)?;
                transaction.execute_batch(CREATE_PROGRESS_TABLE)?;
                transaction.execute_batch(&schema::create(&table))?;
                let found = schema::look(&transaction, table.name())?;
                transaction.commit()?;
                Ok(found)
            };
            create(&mut connection).map_err(|error| database.failure(&doing, error))?
        };
        schema::fit(&found, &table, &database.path().display().to_string())?;
        let (upsert, rows) = (schema::upsert(&table), Rows::new(Arc::clone(&table)));
        Ok(Self { database, context, table, upsert, rows, lease: None })
    }

    fn commit_rows(&self, progress: &Progress) -> Result<(), Failed> {
        let Some(lease) = &self.lease else {
            return Err(Error::internal("a commit without a successful recover").into());
        };
        let doing = format!("cannot write to table {}", self.table.name());
        let failed = |error| self.database.failure(&doing, error);
        let order = self.rows.to_write();
        let mut connection = self.database.lock();
        if broken("sqlite.one_transaction") {
            self.note(&connection, lease, progress).map_err(failed)?;
        }
        failpoint("sqlite.before_begin");
        // Rolled back when it is dropped, which is how every early return ends it.
        let transaction = begin(&mut connection).map_err(failed)?;
        failpoint("sqlite.begun");
        if let Err(error) = self.write_rows(&transaction, &order) {
            return Err(match error {
                RowError::Sqlite(error) => failed(error).into(),
                RowError::Value(problem) => {
                    Error::user(format!("table {}, {problem}", self.table.name())).into()
                }
            });
        }
        failpoint("sqlite.rows_written");
        if self.note(&transaction, lease, progress).map_err(failed)? != 1 {
            return Err(self.taken_over(&transaction).into());
        }
        failpoint("sqlite.before_commit");
        transaction.commit().map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Failed::Surely(failed(error))
            }
            _ => Failed::Perhaps(failed(error)),
        })?;
        failpoint("sqlite.committed");
        Ok(())
    }

    /// Moves the progress, if it is still this writer's: then one row has changed.
    fn note(
        &self,
        connection: &Connection,
        lease: &Lease,
        progress: &Progress,
    ) -> Result<usize, rusqlite::Error> {
        let (job, sink) = (&self.context.job, &self.context.sink);
        connection.execute(
            "UPDATE streamkit_progress
                SET progress = ?1, updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
              WHERE job = ?2 AND sink = ?3 AND owner = ?4 AND version = ?5",
            params![progress.to_json(), job, sink, lease.owner, lease.version],
        )
    }

    fn write_rows(&self, transaction: &Transaction<'_>, order: &[u32]) -> Result<(), RowError> {
        if order.is_empty() {
            return Ok(());
        }
        let mut statement = transaction.prepare(&self.upsert)?;
        let mut time = String::new();
        for &row in order {
            let index = row as usize;
            let columns = self.table.columns().iter().zip(self.rows.columns());
            for (n, (column, values)) in (1..).zip(columns) {
                match values {
                    Values::Text { .. } => statement.raw_bind_parameter(n, values.text(row))?,
                    Values::BigInt(values) => statement.raw_bind_parameter(n, values[index])?,
                    // It would be stored as NULL.
                    Values::Double(values) if values[index].is_nan() => {
                        let column = &column.name;
                        let problem = format!("column {column}: NaN, which SQLite cannot store");
                        return Err(RowError::Value(problem));
                    }
                    Values::Double(values) => statement.raw_bind_parameter(n, values[index])?,
                    Values::Timestamp(micros) => {
                        time.clear();
                        schema::write_time(&mut time, micros[index], column.kind);
                        statement.raw_bind_parameter(n, time.as_str())?;
                    }
                }
            }
            statement.raw_execute()?;
        }
        Ok(())
    }

    fn taken_over(&self, connection: &Connection) -> Error {
        let (job, sink) = (&self.context.job, &self.context.sink);
        let by = match stored(connection, job, sink, "owner") {
            Ok(Some((owner, when))) => {
                let instance = owner.split(':').next().unwrap_or_default();
                format!("by instance {instance} at {when}")
            }
            _ => "by another process".to_owned(),
        };
        let file = self.database.path().display();
        Error::fenced(format!(
            "sink {sink} of job {job} was taken over {by}; nothing was written to {file}"
        ))
    }
}

/// Why rows could not be written.
enum RowError {
    Sqlite(rusqlite::Error),
    Value(String),
}

impl From<rusqlite::Error> for RowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Begins as a writer at once: a transaction that reads first and writes later can find that
/// somebody else has written meanwhile.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// A column of a progress row, and when the row was written.
fn stored(
    connection: &Connection,
    job: &str,
    sink: &str,
    column: &str,
) -> Result<Option<(String, String)>, rusqlite::Error> {
    let sql =
        format!("SELECT {column}, updated_at FROM streamkit_progress WHERE job = ?1 AND sink = ?2");
    connection.query_row(&sql, [job, sink], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Makes `owner` the only one who can commit; `None` if the progress is of another lineage.
fn take(
    connection: &mut Connection,
    [job, sink, lineage, owner]: [&str; 4],
) -> Result<Option<(i64, Option<String>)>, rusqlite::Error> {
    let transaction = begin(connection)?;
    // A row without progress stands for no rows: a job of another lineage ended between its claim
    // and its first commit. That is no reason to refuse.
    let taken = transaction
        .query_row(
            "INSERT INTO streamkit_progress AS p (job, sink, lineage, owner, version)
             VALUES (?1, ?2, ?3, ?4, 1)
             ON CONFLICT (job, sink) DO UPDATE
                SET lineage = excluded.lineage, owner = excluded.owner, version = p.version + 1,
                    updated_at = excluded.updated_at
              WHERE p.lineage = excluded.lineage OR p.progress IS NULL
             RETURNING version, progress",
            [job, sink, lineage, owner],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    transaction.commit()?;
    Ok(taken)
}

impl<T: Data> SinkWriter<T> for Writer<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.rows.clear();
        self.lease = None;
        let failed = |error| self.database.failure("cannot claim the sink's progress", error);
        let mut connection = self.database.lock();
        let owner = random_owner(&self.context.instance);
        let (job, sink) = (&self.context.job, &self.context.sink);
        let taken = take(&mut connection, [job, sink, &claim.lineage, &owner]);
        let Some((version, progress)) = taken.map_err(failed)? else {
            let found = stored(&connection, job, sink, "lineage").map_err(failed)?;
            let (lineage, when) = found.unwrap_or_default();
            return Err(Error::fenced(format!(
                "sink {sink} of job {job}: the progress in {file} is of lineage {lineage} (last \
                 written {when}), and this job is of lineage {ours}. Either the checkpoint folder \
                 or the database is not the one that belongs to this job",
                file = self.database.path().display(),
                ours = claim.lineage,
            ))
            .of_lineage(&lineage));
        };
        failpoint("sqlite.claimed");
        let progress = progress.as_deref().map(Progress::from_json).transpose()?;
        self.lease = Some(Lease { owner, version });
        Ok(progress)
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        self.rows.push(batch)
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let committed = self.commit_rows(progress);
        self.rows.clear();
        let failed = match committed {
            Ok(()) => return Ok(Commit::Done),
            Err(failed) => failed,
        };
        self.lease = None;
        match failed {
            Failed::Surely(error) => Err(error),
            Failed::Perhaps(error) => {
                tracing::warn!(%error, "it is not known whether a commit was done");
                Ok(Commit::Unknown)
            }
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= FULL_ROWS || self.rows.text_bytes() >= FULL_BYTES
    }
}
