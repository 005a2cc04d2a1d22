//! Where the database is, and how long to wait for it.

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, Row};

use super::session::Session;
use super::tls::{Mode, Tls, wishes};
use crate::error::{Error, Result};
use crate::time::{millis, seconds};

/// A connection string and time limits. Neither `Debug` nor any error shows the password.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(super) client: Config,
    place: String,
    /// Whether, and how, the connection is encrypted.
    pub(super) tls: Option<Tls>,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("place", &self.place)
            .field("user", &self.client.get_user())
            .field("encrypted", &self.tls.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}

impl PostgresConfig {
    /// From `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE`, or from `host=… user=…`
    /// pairs. No environment variable is read.
    ///
    /// `sslmode=require`, `verify-ca` and `verify-full` (with `sslrootcert=PATH`, or the system's
    /// trusted certificates) encrypt the connection, and need the cargo feature `postgres-tls`. A
    /// connection that was asked to be encrypted is never a plain one; one that was not always is.
    ///
    /// # Errors
    /// If it is no such text, names no host, or asks for what was not built in.
    pub fn new(url: &str) -> Result<Self> {
        // After an @ of the password, the rest of it would be taken for the host.
        let before_options = url.split('?').next().unwrap_or_default();
        if before_options.contains("://") && before_options.matches('@').count() > 1 {
            return Err(malformed(url));
        }
        // The parser's own message may quote a part of the password, so it is not passed on.
        let wishes = wishes(url).ok_or_else(|| malformed(url))?;
        let mut client: Config = wishes.rest.parse().map_err(|_| malformed(&wishes.rest))?;
        let tls = match wishes.mode {
            Mode::Plain if wishes.root.is_none() => None,
            Mode::Plain => return Err(root_without_mode()),
            mode => Some(Tls::new(mode, wishes.root.as_deref())?),
        };
        client.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if client.get_hosts().is_empty() && client.get_hostaddrs().is_empty() {
            return Err(malformed(url));
        }
        client
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(seconds(10))
            .keepalives_interval(seconds(3))
            .keepalives_retries(3)
            .tcp_user_timeout(seconds(15));
        let place = place(&client);
        let (connect_timeout, statement_timeout) = (seconds(5), seconds(60));
        Ok(Self { client, place, tls, connect_timeout, statement_timeout })
    }

    /// How long to wait for a connection to one address; 5 s unless said otherwise.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit.max(millis(1));
        self
    }

    /// How long one statement may take, for example because somebody holds a lock on the table;
    /// then the commit is tried again. 60 s unless said otherwise.
    #[must_use]
    pub fn statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit.max(millis(1));
        self
    }

    /// The limit for all addresses in turn.
    pub(super) fn connect_timeout_in_all(&self) -> Duration {
        let hosts = self.client.get_hosts().len().max(self.client.get_hostaddrs().len());
        self.connect_timeout.saturating_mul(u32::try_from(hosts).unwrap_or(1).max(1))
    }

    /// Host, port and database, for messages: `db:5432/stream_data`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Runs a query whose columns are all of type `text`, and returns its rows; for looking at
    /// results. `None` stands for NULL.
    ///
    /// # Errors
    /// If the database is out of reach (then the error is retriable), or refuses the query.
    pub async fn texts(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let session = Session::open(self, "streamkit/query").await.map_err(Error::from)?;
        let rows = session.rows("cannot read", sql, &[]).await.map_err(Error::from)?;
        let cell = |error| Error::user("a column of the query is not of type text").because(error);
        let texts = |row: &Row| (0..row.len()).map(|i| row.try_get(i).map_err(cell)).collect();
        rows.iter().map(texts).collect()
    }

    /// Runs `sql` if one of `tables` is missing, in one transaction; says whether it did.
    ///
    /// Copies of a program that start at the same moment wait for each other. `sql` may be several
    /// statements, such as an embedded `init-db.sql`; none of them may begin or end a transaction.
    ///
    /// # Errors
    /// If the database is out of reach (then the error is retriable), or refuses a statement.
    pub async fn ensure_schema(&self, tables: &[&str], sql: &str) -> Result<bool> {
        let session = Session::open(self, "streamkit/schema").await.map_err(Error::from)?;
        session.ensure_schema(tables, sql).await.map_err(Error::from)
    }
}

fn place(client: &Config) -> String {
    let mut hosts = vec![];
    let names = client.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    });
    let names: Vec<_> = names.collect();
    let names = if names.is_empty() {
        client.get_hostaddrs().iter().map(ToString::to_string).collect()
    } else {
        names
    };
    for (i, name) in names.iter().enumerate() {
        let ports = client.get_ports();
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        hosts.push(format!("{name}:{port}"));
    }
    let database = client.get_dbname().or(client.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

fn root_without_mode() -> Error {
    Error::user(
        "the connection string of PostgreSQL has sslrootcert, and no sslmode that makes use of it: \
         add sslmode=verify-full",
    )
}

fn malformed(url: &str) -> Error {
    // Options that libpq has and this client has not. Only names of this list are repeated: what
    // looks like an option may be a part of the password.
    let known =
        ["sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "service", "gssencmode"];
    if let Some(name) = known.iter().find(|name| url.contains(&format!("{name}="))) {
        return Error::user(format!(
            "the connection string of PostgreSQL has an option or a value that is not supported: \
             {name}"
        ));
    }
    Error::user(
        "the connection string of PostgreSQL cannot be read: expected \
         postgres://USER:PASSWORD@HOST:PORT/DATABASE, with characters such as / ? # @ : % in the \
         password written as %2F %3F %23 %40 %3A %25",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f90_the_password_is_never_shown() {
        let config = PostgresConfig::new("postgres://user:s3cret@db,other:7/stream_data").unwrap();
        assert_eq!(config.place(), "db:5432,other:7/stream_data");
        assert!(!format!("{config:?}").contains("s3cret"));
        for url in [
            "postgres://user:s3cret/s3cret@db/x",
            "postgres://user:a?s3cret=s3cret@db/x",
            "postgres://user:s3cret@db:port/x",
            "postgres://user:a@s3cret@db/x",
            "postgres://user:a@b/s3cret@db/x",
            "postgres://user:a@b?s3cret@db/x",
            "postgres://user:%zzs3cret@db/x",
            "postgres://user:s3cret@db/x?sslmode=s3cret",
            "host=db password='s3cret",
            "user=x password=s3cret",
            "s3cret",
        ] {
            let shown = match PostgresConfig::new(url) {
                Ok(config) => format!("{config:?} {}", config.place()),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("s3cret"), "{url}: {shown}");
        }
    }

    /// What is refused is refused in words of ours: the text may be a password in any place.
    #[test]
    fn fuzz_connection_string() {
        let corpus = [
            "postgres://user:s3cret@db,other:7/stream_data?sslmode=disable&connect_timeout=3",
            "host=/run/postgresql user=x password='s3cret' dbname=y sslmode=require",
        ];
        let corpus = corpus.map(|text| text.as_bytes().to_vec());
        crate::testing::fuzz("connection_string", &corpus, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            match PostgresConfig::new(text) {
                Ok(config) => assert!(!config.place().is_empty()),
                Err(error) => assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}"),
            }
        });
    }

    #[test]
    fn f67_encryption_is_never_left_out_silently() {
        let problem = |url: &str| PostgresConfig::new(url).unwrap_err().to_string();
        for mode in ["require", "verify-ca", "verify-full"] {
            let url = format!("postgres://user@db/x?sslmode={mode}");
            if cfg!(feature = "postgres-tls") {
                // With a root that is not there: the system's may be none.
                let error = problem(&format!("{url}&sslrootcert=/none.crt"));
                assert!(error.contains("sslrootcert /none.crt cannot be used"), "{error}");
            } else {
                assert!(problem(&url).contains("cargo feature postgres-tls"));
            }
        }
        assert!(problem("postgres://user@db/x?sslmode=yes").contains("not supported: sslmode"));
        assert!(problem("postgres://user@db/x?sslrootcert=/a").contains("add sslmode=verify-full"));
        for mode in ["prefer", "allow", "disable"] {
            let url = format!("postgres://user@db/x?sslmode={mode}");
            let config = PostgresConfig::new(&url).unwrap();
            assert_eq!(config.client.get_ssl_mode(), SslMode::Disable);
        }
        PostgresConfig::new("host=/run/postgresql user=x dbname=y").unwrap();
    }
}
