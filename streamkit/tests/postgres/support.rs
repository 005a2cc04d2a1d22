//! A schema per test, writers in it, and a proxy that loses answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use streamkit::connector::postgres::{PostgresConfig, PostgresSink};
use streamkit::connector::{
    Claim, Point, Progress, Sink, SinkContext, SinkWriter, Table, TableRow,
};
use streamkit::time::Timestamp;
use streamkit::{Batch, Result};
use tokio::runtime::Runtime;

pub(crate) type Writer = Box<dyn SinkWriter<Views>>;

/// A row of the table that most tests write.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    pub(crate) minute: i64,
    pub(crate) page: String,
    pub(crate) count: u64,
}

impl TableRow for Views {
    fn table() -> Table<Self> {
        Table::<Self>::new("views")
            .key(["window_start", "page_url"])
            .timestamp_secs("window_start", |row| Timestamp::from_micros(row.minute * 60_000_000))
            .text("page_url", |row| &row.page)
            .bigint("view_count", |row| row.count)
    }
}

pub(crate) const CREATE_VIEWS: &str = "CREATE TABLE views (
    window_start timestamptz NOT NULL, page_url text NOT NULL, view_count bigint NOT NULL,
    PRIMARY KEY (window_start, page_url))";

pub(crate) fn batch(rows: &[(i64, &str, u64)]) -> Batch<Views> {
    let row =
        |&(minute, page, count): &(i64, &str, u64)| Views { minute, page: page.into(), count };
    let times = rows.iter().map(|row| Timestamp::from_micros(row.0)).collect();
    Batch::new(rows.iter().map(row).collect(), times)
}

pub(crate) fn progress(w: i64) -> Progress {
    let w = Timestamp::from_micros(w);
    Progress { point: Point::Watermark { groups: (0, 255), w, noted: BTreeMap::new() }, rows: 1 }
}

/// A schema of its own in the database that `DATABASE_URL` names; dropped at the end.
pub(crate) struct Database {
    pub(crate) runtime: Runtime,
    url: String,
    /// The test's name, which is also the job's.
    job: String,
    schema: String,
    admin: tokio_postgres::Client,
}

impl Database {
    /// `None`, and a line that says so, without `DATABASE_URL`.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let Ok(url) = std::env::var("DATABASE_URL") else {
            println!("{test}: skipped, since DATABASE_URL is not set");
            return None;
        };
        let schema = format!("test_{test}_{}", std::process::id());
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}options=-csearch_path%3D{schema}");
        let runtime = Runtime::new().unwrap();
        let admin = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        });
        let database = Self { runtime, url, job: test.to_owned(), schema, admin };
        database.sql(&format!("DROP SCHEMA IF EXISTS {0} CASCADE", database.schema));
        database.sql(&format!("CREATE SCHEMA {}", database.schema));
        Some(database)
    }

    /// With the table that most tests write.
    pub(crate) fn with_views(test: &str) -> Option<Self> {
        let database = Self::new(test)?;
        database.sql(CREATE_VIEWS);
        Some(database)
    }

    pub(crate) fn sql(&self, sql: &str) {
        self.runtime.block_on(self.admin.batch_execute(sql)).unwrap();
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.admin.batch_execute(sql))
    }

    /// The rows of a query, each as text with `|` between the columns.
    pub(crate) fn ask(&self, sql: &str) -> Vec<String> {
        let rows = self.runtime.block_on(self.admin.simple_query(sql)).unwrap();
        let text = |message: &tokio_postgres::SimpleQueryMessage| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|i| row.get(i).unwrap_or("null").to_owned());
                Some(columns.collect::<Vec<_>>().join("|"))
            }
            _ => None,
        };
        rows.iter().filter_map(text).collect()
    }

    pub(crate) fn views(&self) -> Vec<String> {
        self.ask(
            "SELECT extract(epoch FROM window_start)::bigint / 60, page_url, view_count
                    FROM views ORDER BY 1, 2",
        )
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig::new(&self.url).unwrap()
    }

    /// The configuration with another host and port.
    pub(crate) fn config_at(&self, port: u16) -> PostgresConfig {
        let (before, after) = self.url.split_once('@').unwrap();
        let (_, path) = after.split_once('/').unwrap();
        PostgresConfig::new(&format!("{before}@127.0.0.1:{port}/{path}")).unwrap()
    }

    /// The configuration with one more option of the session.
    pub(crate) fn config_with(&self, option: &str) -> PostgresConfig {
        PostgresConfig::new(&format!("{}%20{option}", self.url)).unwrap()
    }

    /// The configuration with another host (and port, if it has one) and these options.
    #[cfg(feature = "postgres-tls")]
    pub(crate) fn config_tls(&self, host: &str, options: &str) -> PostgresConfig {
        let (before, after) = self.url.split_once('@').unwrap();
        let (address, path) = after.split_once('/').unwrap();
        let (_, port) = address.rsplit_once(':').unwrap();
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        PostgresConfig::new(&format!("{before}@{host}/{path}&{options}")).unwrap()
    }

    /// The job's name, which is the test's.
    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    pub(crate) fn address(&self) -> String {
        let (_, after) = self.url.split_once('@').unwrap();
        after.split_once('/').unwrap().0.to_owned()
    }

    pub(crate) fn context(&self, sink: &str) -> SinkContext {
        SinkContext {
            job: self.job.clone(),
            sink: sink.to_owned(),
            instance: "0".to_owned(),
            runtime: self.runtime.handle().clone(),
        }
    }

    pub(crate) fn open<T: TableRow>(&self) -> Result<Box<dyn SinkWriter<T>>> {
        PostgresSink::<T>::new(&self.config()).open(&self.context("views"))
    }

    /// A writer that has recovered.
    pub(crate) fn writer(&self) -> Writer {
        let mut writer = self.open().unwrap();
        writer.recover(&self.claim()).unwrap();
        writer
    }

    pub(crate) fn claim(&self) -> Claim {
        Claim {
            job: self.job.clone(),
            sink: "views".to_owned(),
            lineage: "first".to_owned(),
            take_over: false,
        }
    }

    /// Ends the connections of this test's writers, and waits until they have ended; says how many.
    pub(crate) fn terminate_writers(&self) -> usize {
        let ended = self.ask(&format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
              WHERE application_name = 'streamkit/{}' AND pid <> pg_backend_pid()",
            self.job
        ));
        ended.len()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP SCHEMA {} CASCADE", self.schema);
        let dropped = self.runtime.block_on(self.admin.batch_execute(&sql));
        assert!(dropped.is_ok() || std::thread::panicking(), "{dropped:?}");
    }
}

/// Passes bytes on, and does harm when it is told to.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// The client's connection ends at the next answer, while the server's side stays open.
    lose_answers: Arc<AtomicBool>,
    /// The server gets ROLLBACK for COMMIT.
    roll_back: Arc<AtomicBool>,
    /// Encryption is said not to be there.
    deny_encryption: Arc<AtomicBool>,
    /// Nothing that is sent arrives, and nobody is told.
    swallow: Arc<AtomicBool>,
    /// How many more answers come through before both sides end.
    answers: Arc<AtomicI64>,
}

impl Proxy {
    pub(crate) fn new(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            lose_answers: Arc::default(),
            roll_back: Arc::default(),
            deny_encryption: Arc::default(),
            swallow: Arc::default(),
            answers: Arc::new(AtomicI64::new(i64::MAX)),
        };
        let this = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                if this.deny_encryption.load(Ordering::SeqCst) {
                    // Eight bytes ask for it, and one says no.
                    client.read_exact(&mut [0; 8]).unwrap();
                    client.write_all(b"N").unwrap();
                }
                let (to_server, from_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (one, two) = (this.clone(), this.clone());
                std::thread::spawn(move || one.requests(from_client, to_server));
                std::thread::spawn(move || two.answers(server, client));
            }
        });
        proxy
    }

    pub(crate) fn lose_answers(&self, lose: bool) {
        self.lose_answers.store(lose, Ordering::SeqCst);
    }

    pub(crate) fn roll_back_commits(&self, roll_back: bool) {
        self.roll_back.store(roll_back, Ordering::SeqCst);
    }

    /// From now on, on all connections, for as long as it is said.
    pub(crate) fn swallow(&self, swallow: bool) {
        self.swallow.store(swallow, Ordering::SeqCst);
    }

    #[cfg(feature = "postgres-tls")]
    pub(crate) fn deny_encryption(&self) {
        self.deny_encryption.store(true, Ordering::SeqCst);
    }

    pub(crate) fn cut_after(&self, answers: i64) {
        self.answers.store(answers, Ordering::SeqCst);
    }

    pub(crate) fn cut_never(&self) {
        self.answers.store(i64::MAX, Ordering::SeqCst);
    }

    /// Requests are passed on; the server is never told that the client has gone.
    fn requests(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if self.swallow.load(Ordering::SeqCst) {
                continue;
            }
            let mut request = buffer[..n].to_vec();
            let commit = b"Q\0\0\0\x0bCOMMIT\0";
            let at = request.windows(commit.len()).position(|bytes| bytes == commit);
            if let Some(at) = at.filter(|_| self.roll_back.load(Ordering::SeqCst)) {
                request.splice(at..at + commit.len(), *b"Q\0\0\0\x0dROLLBACK\0");
            }
            let passed = to.write_all(&request);
            if passed.is_err() {
                return;
            }
        }
    }

    fn answers(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if self.lose_answers.load(Ordering::SeqCst) {
                let _ = to.shutdown(Shutdown::Both);
                // Kept open until the server itself ends it.
                let _ = std::io::copy(&mut from, &mut std::io::sink());
                return;
            }
            if self.answers.fetch_sub(1, Ordering::SeqCst) <= 0 {
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                return;
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }
}
