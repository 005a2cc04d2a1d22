//! The three tables, from PostgreSQL or from the SQLite file.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rusqlite::OpenFlags;
use streamkit::connector::postgres::PostgresConfig;

use super::table::Table;
use crate::config::{Config, Secret};

/// A table of results.
pub(super) struct Results {
    name: &'static str,
    /// The columns that are times, then the others.
    times: &'static [&'static str],
    /// Text first, then numbers, which end in `#`.
    values: &'static [&'static str],
    /// How it is sorted, newest first.
    order: &'static str,
    /// Digits of a second in its times.
    digits: usize,
}

pub(super) const PAGE_VIEW_COUNTS: Results = Results {
    name: "page_view_counts",
    times: &["window_start", "window_end"],
    values: &["page_url", "view_count#"],
    order: "window_start DESC, view_count DESC, page_url",
    digits: 0,
};

pub(super) const ACTIVE_USERS: Results = Results {
    name: "active_users",
    times: &["window_start", "window_end"],
    values: &["active_user_count#"],
    order: "window_start DESC",
    digits: 0,
};

pub(super) const USER_SESSIONS: Results = Results {
    name: "user_sessions",
    times: &["session_start_time", "session_end_time"],
    values: &["user_id", "session_duration_seconds#"],
    order: "session_end_time DESC, user_id",
    digits: 3,
};

impl Results {
    fn table(&self) -> Table {
        Table::new(self.times.iter().chain(self.values).copied())
    }

    /// Everything as text, so that one way of reading fits all.
    fn query(&self, time: impl Fn(&str) -> String, limit: usize) -> String {
        let times = self.times.iter().map(|column| time(column));
        let values = self.values.iter().map(|column| {
            let column = column.trim_end_matches('#');
            format!("CAST({column} AS text)")
        });
        let columns: Vec<String> = times.chain(values).collect();
        let (name, order) = (self.name, self.order);
        format!("SELECT {} FROM {name} ORDER BY {order} LIMIT {limit}", columns.join(", "))
    }
}

/// The newest rows.
pub(super) async fn read(config: &Config, results: &Results, limit: usize) -> Result<Table> {
    match &config.database_url {
        Some(url) => postgres(url, results, limit).await,
        None => sqlite(&config.sqlite_path(), results, limit),
    }
}

async fn postgres(url: &Secret, results: &Results, limit: usize) -> Result<Table> {
    let config = PostgresConfig::new(url.expose()).context("DATABASE_URL cannot be used")?;
    let fraction = if results.digits > 0 { ".MS" } else { "" };
    let time = |column: &str| {
        format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS{fraction}')")
    };
    let rows = config.texts(&results.query(time, limit)).await.with_context(|| {
        format!("the table {} cannot be read; a job that has run has made it", results.name)
    })?;
    let mut table = results.table();
    rows.into_iter().for_each(|row| table.push(row.into_iter().map(Option::unwrap_or_default)));
    Ok(table)
}

fn sqlite(path: &Path, results: &Results, limit: usize) -> Result<Table> {
    if !path.is_file() {
        bail!(
            "there is no {} yet: run `pipeline-app` first, or say where it is with --data-dir",
            path.display()
        );
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let rows = || -> rusqlite::Result<Table> {
        let connection = rusqlite::Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        // Times are texts: `2026-01-31T12:00:00.123456Z`.
        let length = 19 + if results.digits > 0 { 1 + results.digits } else { 0 };
        let time = |column: &str| format!("substr(replace({column}, 'T', ' '), 1, {length})");
        let mut statement = connection.prepare(&results.query(time, limit))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut table = results.table();
        while let Some(row) = rows.next()? {
            let cell = |i| row.get::<_, Option<String>>(i).map(Option::unwrap_or_default);
            table.push((0..columns).map(cell).collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Ok(table)
    };
    rows().with_context(|| format!("table {} in {} cannot be read", results.name, path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_rows_come_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream_data.db");
        let error = sqlite(&path, &PAGE_VIEW_COUNTS, 5).unwrap_err().to_string();
        assert!(error.contains("run `pipeline-app` first"), "{error}");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE page_view_counts (window_start TEXT, window_end TEXT, page_url TEXT,
                     view_count INTEGER);
                 INSERT INTO page_view_counts VALUES
                     ('2026-01-01T00:00:00Z', '2026-01-01T00:01:00Z', '/old', 9),
                     ('2026-01-01T00:01:00Z', '2026-01-01T00:02:00Z', '/b', 1),
                     ('2026-01-01T00:01:00Z', '2026-01-01T00:02:00Z', '/a', 10);
                 CREATE TABLE user_sessions (user_id TEXT, session_start_time TEXT,
                     session_end_time TEXT, session_duration_seconds REAL);
                 INSERT INTO user_sessions VALUES
                     ('u', '2026-01-01T00:00:00.123456Z', '2026-01-01T00:00:02.000001Z', 1.5);",
            )
            .unwrap();
        let text = sqlite(&path, &PAGE_VIEW_COUNTS, 2).unwrap().to_string();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows[..2],
            [
                "2026-01-01 00:01:00  2026-01-01 00:02:00  /a                10",
                "2026-01-01 00:01:00  2026-01-01 00:02:00  /b                 1",
            ]
        );
        let text = sqlite(&path, &USER_SESSIONS, 2).unwrap().to_string();
        assert!(text.contains("2026-01-01 00:00:00.123  2026-01-01 00:00:02.000"), "{text}");
        assert!(text.contains("1.5"), "{text}");
        let error = format!("{:#}", sqlite(&path, &ACTIVE_USERS, 2).unwrap_err());
        assert!(error.contains("active_users"), "{error}");
    }
}
