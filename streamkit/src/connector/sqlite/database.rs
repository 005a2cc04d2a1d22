//! The file, and what its errors mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode};

use crate::error::{Error, Result};
use crate::time::seconds;

/// A database file that several sinks write to. Cloning it is cheap and shares the connection.
#[derive(Clone)]
pub struct SqliteDatabase {
    connection: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

impl fmt::Debug for SqliteDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteDatabase").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteDatabase {
    /// Opens a file; makes it, and its folder, if it is not there.
    ///
    /// # Errors
    /// If the file cannot be written, or is not a database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let doing = format!("cannot open the database {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::external(doing.as_str()).because(error))?;
        }
        let connection = Connection::open(path).map_err(|error| failure(&doing, error))?;
        let set_up = || {
            connection.busy_timeout(seconds(5))?;
            // `fullfsync` is for macOS, whose plain fsync does not reach the disk.
            connection.execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;
                 PRAGMA checkpoint_fullfsync = ON; PRAGMA cache_size = -16000;",
            )?;
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        };
        let mode: String = set_up().map_err(|error| failure(&doing, error))?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(Error::external(format!(
                "{doing}: its file system has no shared memory, which a log of writes (WAL) needs \
                 (journal mode is {mode}): use a local disk"
            )));
        }
        let connection = Arc::new(Mutex::new(connection));
        Ok(Self { connection, path: Arc::new(path.to_owned()) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The connection, for one transaction.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        // After a panic within a transaction its guard has rolled it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error with the name of the file.
    pub(super) fn failure(&self, doing: &str, error: rusqlite::Error) -> Error {
        failure(&format!("{doing} in {}", self.path.display()), error)
    }
}

fn failure(doing: &str, error: rusqlite::Error) -> Error {
    let failed = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::corrupt(doing),
        Some(code) if is_passing(code) => Error::external(doing).retriable(),
        _ => Error::external(doing),
    };
    failed.because(error)
}

/// Whether the same may work later: another process is writing, or the disk is full.
fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_is_no_database_is_said_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/x.db");
        drop(SqliteDatabase::open(&path).unwrap());
        std::fs::write(
            &path,
            "this is not a database, and long enough to be seen as none".repeat(99),
        )
        .unwrap();
        let error = SqliteDatabase::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(!error.is_retriable() && error.to_string().contains("x.db"), "{error}");
        let error = SqliteDatabase::open(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::External);
    }
}
