//! Reads the tables while the program writes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::tables::Tables;
use crate::support::unique;

/// Reads the tables.
#[derive(Debug, Clone)]
pub enum Reader {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Reader {
    /// The tables now, all in one transaction. `Err`: they cannot be read at the moment, or are not
    /// there yet.
    pub fn read(&self, runtime: &Runtime) -> Result<Tables, String> {
        match self {
            Self::Sqlite(path) => sqlite(path).map_err(|e| e.to_string()),
            Self::Postgres(url) => runtime.block_on(postgres(url)).map_err(|e| e.to_string()),
        }
    }
}

const PROGRESS: &str = "SELECT sink, progress FROM streamkit_progress WHERE progress IS NOT NULL";
const VIEWS: &str = "SELECT window_start, page_url, window_end, view_count FROM page_view_counts";
const USERS: &str = "SELECT window_start, window_end, active_user_count FROM active_users";
const SESSIONS: &str = "SELECT user_id, session_start_time, session_end_time,
                               session_duration_seconds FROM user_sessions";

fn sqlite(path: &Path) -> rusqlite::Result<Tables> {
    use rusqlite::{Connection, OpenFlags};
    let micros =
        |text: String| chrono::DateTime::parse_from_rfc3339(&text).unwrap().timestamp_micros();
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let all = connection.transaction()?;
    let mut tables = Tables::default();
    let mut query = all.prepare(PROGRESS)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        tables.note(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?);
    }
    let mut query = all.prepare(VIEWS)?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, i64>(3)?)));
    tables.page_view_counts = unique(rows?.map(|row| {
        let (start, page, end, views): (String, String, String, i64) = row.unwrap();
        ((micros(start), page), (micros(end), views as u64))
    }));
    let mut query = all.prepare(USERS)?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, i64>(2)?)));
    tables.active_users = unique(rows?.map(|row| {
        let (start, end, users): (String, String, i64) = row.unwrap();
        (micros(start), (micros(end), users as u64))
    }));
    let mut query = all.prepare(SESSIONS)?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, f64>(3)?)));
    tables.user_sessions = unique(rows?.map(|row| {
        let (user, start, end, seconds): (String, String, String, f64) = row.unwrap();
        ((user, micros(start)), (micros(end), seconds))
    }));
    Ok(tables)
}

async fn postgres(url: &str) -> Result<Tables, tokio_postgres::Error> {
    use tokio_postgres::{IsolationLevel, NoTls, Row};
    let micros =
        |row: &Row, i: usize| row.get::<_, chrono::DateTime<chrono::Utc>>(i).timestamp_micros();
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let all = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let all = all.read_only(true).start().await?;
    let mut tables = Tables::default();
    let progress = PROGRESS.replace("sink, progress", "sink, progress::text");
    for row in all.query(&progress, &[]).await? {
        tables.note(row.get(0), row.get(1));
    }
    let rows = all.query(VIEWS, &[]).await?;
    tables.page_view_counts = unique(rows.iter().map(|r| {
        ((micros(r, 0), r.get::<_, String>(1)), (micros(r, 2), r.get::<_, i64>(3) as u64))
    }));
    let rows = all.query(USERS, &[]).await?;
    tables.active_users =
        unique(rows.iter().map(|r| (micros(r, 0), (micros(r, 1), r.get::<_, i64>(2) as u64))));
    let rows = all.query(SESSIONS, &[]).await?;
    tables.user_sessions = unique(
        rows.iter()
            .map(|r| ((r.get::<_, String>(0), micros(r, 1)), (micros(r, 2), r.get::<_, f64>(3)))),
    );
    Ok(tables)
}
