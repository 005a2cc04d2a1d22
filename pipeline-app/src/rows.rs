//! The rows of the three tables: what an aggregate's result is to a database.

use streamkit::connector::{Table, TableRow};
use streamkit::time::Timestamp;
use streamkit::window::{SessionResult, Windowed};

/// A row of `page_view_counts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageViewCount {
    /// The first instant of the minute.
    pub window_start: Timestamp,
    /// The first instant after it.
    pub window_end: Timestamp,
    /// The page.
    pub page_url: String,
    /// Its views in that minute.
    pub view_count: u64,
}

impl PageViewCount {
    /// The row of a result.
    pub fn of(result: &Windowed<Vec<u8>, u64>) -> Self {
        Self {
            window_start: result.window.start,
            window_end: result.window.end,
            page_url: text(&result.key),
            view_count: result.value,
        }
    }
}

/// A key's text. Keys are the bytes of texts that were checked when they were decoded.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

impl TableRow for PageViewCount {
    fn table() -> Table<Self> {
        Table::<Self>::new("page_view_counts")
            .key(["window_start", "page_url"])
            .timestamp_secs("window_start", |row| row.window_start)
            .timestamp_secs("window_end", |row| row.window_end)
            .text("page_url", |row| &row.page_url)
            .bigint("view_count", |row| row.view_count)
    }
}

/// A row of `active_users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveUsers {
    /// The first instant of the five minutes.
    pub window_start: Timestamp,
    /// The first instant after them.
    pub window_end: Timestamp,
    /// Distinct users in them.
    pub active_user_count: u64,
}

impl ActiveUsers {
    /// The row of a result.
    pub fn of(result: &Windowed<(), u64>) -> Self {
        Self {
            window_start: result.window.start,
            window_end: result.window.end,
            active_user_count: result.value,
        }
    }
}

impl TableRow for ActiveUsers {
    fn table() -> Table<Self> {
        Table::<Self>::new("active_users")
            .key(["window_start"])
            .timestamp_secs("window_start", |row| row.window_start)
            .timestamp_secs("window_end", |row| row.window_end)
            .bigint("active_user_count", |row| row.active_user_count)
    }
}

/// A row of `user_sessions`.
#[derive(Debug, Clone, PartialEq)]
pub struct UserSession {
    /// The user.
    pub user_id: String,
    /// The time of the first event.
    pub session_start_time: Timestamp,
    /// The time of the last event.
    pub session_end_time: Timestamp,
}

impl UserSession {
    /// The row of a finished session.
    pub fn of(session: &SessionResult<Vec<u8>, u64>) -> Self {
        Self {
            user_id: text(&session.key),
            session_start_time: session.start,
            session_end_time: session.end,
        }
    }

    /// From the first event to the last one; zero if there was only one.
    pub fn duration_seconds(&self) -> f64 {
        self.session_end_time.since(self.session_start_time).as_micros() as f64 / 1e6
    }
}

impl TableRow for UserSession {
    fn table() -> Table<Self> {
        Table::<Self>::new("user_sessions")
            .key(["user_id", "session_start_time"])
            .text("user_id", |row| &row.user_id)
            .timestamp("session_start_time", |row| row.session_start_time)
            .timestamp("session_end_time", |row| row.session_end_time)
            .double("session_duration_seconds", Self::duration_seconds)
    }
}
