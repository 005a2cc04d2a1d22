//! One connection, with a time limit on everything that waits for the server.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postgres_types::ToSql;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::PostgresConfig;
use super::error::Failure;
#[cfg(feature = "postgres-tls")]
use super::tls::Tls;
use crate::error::Error;
use crate::time::seconds;

/// Copies that create tables take this lock, so that two of them do not meet in the middle.
/// `init-db.sql` names the same number for whoever runs it by hand.
const SCHEMA_LOCK: i64 = 7_236_269_021;

/// A connection and what it found out about its server.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) backend: Backend,
    pub(super) database: String,
    place: String,
    limit: Duration,
    driver: AbortHandle,
    ended: Arc<OnceLock<String>>,
}

/// A server process, as no other process of any time is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started: String,
}

impl Session {
    /// Connects, and makes the settings that the sink relies on.
    pub(super) async fn open(config: &PostgresConfig, name: &str) -> Result<Self, Failure> {
        let place = config.place().to_owned();
        let mut options = config.client.clone();
        options.application_name(name).connect_timeout(config.connect_timeout);
        let doing = format!("cannot connect to PostgreSQL at {place}");
        // The client's own limit is per address, and ends with the TCP connection.
        let limit = config.connect_timeout_in_all().saturating_add(seconds(1));
        let ended = Arc::new(OnceLock::new());
        let connecting = tokio::time::timeout(limit, connect(&options, config, &ended));
        let (client, driver) = match connecting.await {
            Ok(connected) => connected.map_err(|error| Failure::new(&doing, error))?,
            Err(_) => {
                return Err(Failure::lost(Error::external(format!("{doing} within {limit:?}"))));
            }
        };
        let mut session = Self {
            client,
            backend: Backend { pid: 0, started: String::new() },
            database: String::new(),
            place,
            // The server's limit comes first and leaves the connection usable.
            limit: config.statement_timeout.saturating_add(seconds(10)),
            driver,
            ended,
        };
        session.set_up(config.statement_timeout).await?;
        Ok(session)
    }

    async fn set_up(&mut self, statement_timeout: Duration) -> Result<(), Failure> {
        let limit = statement_timeout.as_millis().min(i32::MAX as u128);
        // The zone makes a conversion between the two kinds of timestamp harmless. The server
        // must notice that this process's machine is gone, as its locks would stay for hours. An
        // acknowledged commit must stay, whatever the server's default.
        let settings = format!(
            "SET TimeZone = 'UTC';
             SET statement_timeout = {limit};
             SET idle_in_transaction_session_timeout = '60s';
             SET default_transaction_isolation = 'read committed';
             SET tcp_keepalives_idle = 10;
             SET tcp_keepalives_interval = 3;
             SET tcp_keepalives_count = 3;
             SET tcp_user_timeout = 15000;
             SELECT set_config('synchronous_commit', 'on', false)
              WHERE current_setting('synchronous_commit') = 'off';"
        );
        self.batch("cannot set up the session", &settings).await?;
        let about = "SELECT pg_backend_pid(), a.backend_start::text, current_database()::text,
                            current_setting('server_encoding'), current_setting('server_version'),
                            current_setting('server_version_num')::int
                       FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()";
        let row = self.row("cannot ask about the server", about, &[]).await?;
        self.backend = Backend { pid: row.get(0), started: row.get(1) };
        self.database = row.get(2);
        let (encoding, version, number): (&str, &str, i32) = (row.get(3), row.get(4), row.get(5));
        let problem = if number < 120_000 {
            format!("is version {version}, and streamkit needs 12 or newer")
        } else if !matches!(encoding, "UTF8" | "SQL_ASCII") {
            format!("stores text as {encoding}, and streamkit needs a database with encoding UTF8")
        } else {
            return Ok(());
        };
        Err(Error::user(format!("the PostgreSQL database at {} {problem}", self.place)).into())
    }

    /// Waits for an answer. `doing` says what is attempted, for the error.
    pub(super) async fn run<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let doing = || format!("PostgreSQL at {}: {doing}", self.place);
        match tokio::time::timeout(self.limit, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_closed() => {
                // Why it was closed went to the task that drives the connection.
                let why = self.ended.get().map_or("connection closed", String::as_str);
                Err(Failure::lost(Error::external(format!("{}: {why}", doing()))))
            }
            Ok(Err(error)) => Err(Failure::new(&doing(), error)),
            Err(_) => {
                // What the server does about it is unknown, so the connection cannot be used.
                self.driver.abort();
                let limit = self.limit;
                Err(Failure::lost(Error::external(format!("{}: no answer in {limit:?}", doing()))))
            }
        }
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, doing: &str, sql: &str) -> Result<(), Failure> {
        self.run(doing, self.client.batch_execute(sql)).await
    }

    pub(super) async fn rows(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        self.run(doing, self.client.query(sql, parameters)).await
    }

    /// Exactly one row.
    pub(super) async fn row(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Failure> {
        self.run(doing, self.client.query_one(sql, parameters)).await
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether the connection is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Gives up whatever transaction is open.
    pub(super) async fn roll_back(&self) -> Result<(), Failure> {
        self.batch("cannot roll back", "ROLLBACK").await
    }

    /// Runs `sql` if a table is missing.
    pub(super) async fn ensure_schema(&self, tables: &[&str], sql: &str) -> Result<bool, Failure> {
        if self.all_exist(tables).await? {
            return Ok(false);
        }
        let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})");
        self.batch("cannot begin", &begin).await?;
        // Another copy may have created them while this one waited.
        let missing = !self.all_exist(tables).await?;
        if missing {
            let doing = format!("cannot create the tables {}", tables.join(", "));
            self.batch(&doing, sql).await?;
        }
        self.batch("cannot commit", "COMMIT").await?;
        if missing && !self.all_exist(tables).await? {
            let tables = tables.join(", ");
            let text = format!("the SQL text for the tables {tables} did not create all of them");
            return Err(Error::user(text).into());
        }
        Ok(missing)
    }

    async fn all_exist(&self, tables: &[&str]) -> Result<bool, Failure> {
        // Not `to_regclass` alone: within a transaction it goes on not finding what was not there
        // when the session looked before, since only access to a table refreshes what it knows.
        let sql = "SELECT bool_and(EXISTS (SELECT FROM pg_class c WHERE c.relname = name
                                             AND pg_table_is_visible(c.oid)))
                     FROM unnest($1::text[]) name";
        let row = self.row("cannot look for tables", sql, &[&tables]).await?;
        Ok(row.get::<_, Option<bool>>(0).unwrap_or(true))
    }
}

/// Connects, encrypted or not, and spawns what drives the connection.
async fn connect(
    options: &Config,
    config: &PostgresConfig,
    ended: &Arc<OnceLock<String>>,
) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    match &config.tls {
        None => {
            let (client, connection) = options.connect(NoTls).await?;
            Ok((client, drive(connection, Arc::clone(ended))))
        }
        #[cfg(not(feature = "postgres-tls"))]
        Some(tls) => match *tls {},
        #[cfg(feature = "postgres-tls")]
        Some(Tls(tls)) => {
            let tls = tokio_postgres_rustls::MakeRustlsConnect::new((**tls).clone());
            let (client, connection) = options.connect(tls).await?;
            Ok((client, drive(connection, Arc::clone(ended))))
        }
    }
}

fn drive(
    connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    ended: Arc<OnceLock<String>>,
) -> AbortHandle {
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let text = error.as_db_error().map_or_else(|| error.to_string(), describe_end);
            let _ = ended.set(text);
        }
    });
    driver.abort_handle()
}

fn describe_end(error: &tokio_postgres::error::DbError) -> String {
    format!("{} (SQLSTATE {})", error.message(), error.code().code())
}
