//! Where a job reads and writes: a folder, or a folder and real services.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::fate::Mode;
use super::proxy::Proxy;
use super::tables::Tables;
use crate::oracle::generate::{file_content, file_split};
use crate::oracle::{Expected, InputSplit, Settings, expect};
use crate::support::kafka::{self, Topic};
use crate::support::services::{self, Database};
use crate::support::{embedded, unique};

/// The surroundings of one job.
pub struct Place {
    folder: TempDir,
    splits: Vec<InputSplit>,
    /// How much of each split is there for the program.
    fed: Vec<usize>,
    pub expected: Expected,
    kind: Kind,
}

enum Kind {
    Embedded { inputs: Vec<PathBuf> },
    Services(Box<Services>),
}

struct Services {
    kafka: String,
    name: String,
    topic: Topic,
    database: Option<Database>,
    /// In front of the database.
    proxy: Proxy,
    runtime: Runtime,
}

impl Place {
    /// An empty place for these splits. `None`: there are no services.
    pub fn new(mode: Mode, mut splits: Vec<InputSplit>, seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let kind = match mode {
            Mode::Embedded => {
                let mut inputs = vec![];
                for (i, split) in splits.iter_mut().enumerate() {
                    let name = format!("part{i}.jsonl");
                    let path = folder.path().join(&name);
                    File::create(&path).unwrap();
                    let content = file_content(&split.records);
                    *split = file_split(&name, split.partition, &content, None);
                    inputs.push(path);
                }
                Kind::Embedded { inputs }
            }
            Mode::Services => {
                let (kafka, admin) = services::services()?;
                let runtime = Runtime::new().unwrap();
                // A name of its own, whatever else runs or was left behind.
                static PLACES: AtomicU32 = AtomicU32::new(0);
                let id = std::process::id();
                let n = PLACES.fetch_add(1, Ordering::Relaxed);
                let name = format!("crash-{id}-{n}");
                let server = admin.split(['@', '/']).nth(3).unwrap().to_owned();
                let (topic, database, proxy) = runtime.block_on(async {
                    (
                        Topic::create(&kafka, &name, splits.len()).await,
                        Database::create(&admin, &format!("crash_{id}_{n}")).await,
                        Proxy::start(server, seed).await,
                    )
                });
                splits.iter_mut().for_each(|split| split.topic = name.clone());
                let database = Some(database);
                Kind::Services(Box::new(Services { kafka, name, topic, database, proxy, runtime }))
            }
        };
        let expected = expect(&splits, &Settings::default());
        let fed = vec![0; splits.len()];
        let mut place = Self { folder, splits, fed, expected, kind };
        // A file is known by its first line.
        place.feed(0.01);
        Some(place)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder, for a person to look at.
    pub fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// The arguments that say what to read and where to write.
    pub fn args(&self) -> Vec<String> {
        let mut args = vec!["--data-dir".to_owned(), "data".to_owned()];
        let mut set = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        set("--ui-bind", "off");
        // Whether a split was idle is not in the data, so results must not depend on it here.
        set("--idle-timeout", "off");
        match &self.kind {
            Kind::Embedded { inputs } => {
                inputs.iter().for_each(|input| set("--input", input.to_str().unwrap()));
            }
            Kind::Services(at) => {
                set("--kafka-bootstrap-servers", &at.kafka);
                set("--database-url", &at.url_through_proxy());
                set("--kafka-input-topic", &at.name);
                set("--kafka-output-topic", &format!("{}-out", at.name));
                set("--kafka-group-id", &format!("{}-group", at.name));
            }
        }
        args
    }

    /// Gives the program this share of the input.
    pub fn feed(&mut self, share: f64) {
        for (i, split) in self.splits.iter().enumerate() {
            let to = (split.records.len() as f64 * share).ceil() as usize;
            let (from, to) = (self.fed[i], to.clamp(self.fed[i], split.records.len()));
            if from == to {
                continue;
            }
            let records = &split.records[from..to];
            match &self.kind {
                Kind::Embedded { inputs } => {
                    let mut file = File::options().append(true).open(&inputs[i]).unwrap();
                    file.write_all(&file_content(records)).unwrap();
                }
                Kind::Services(at) => {
                    at.runtime.block_on(at.topic.produce(split.partition, records));
                }
            }
            self.fed[i] = to;
        }
    }

    /// Compares every output; panics with the difference.
    pub fn check(&self) {
        let data = self.folder().join("data");
        match &self.kind {
            Kind::Embedded { .. } => embedded::check(&self.expected, &data, &data.join("lake")),
            Kind::Services(at) => at.runtime.block_on(services::check(
                &self.expected,
                &at.kafka,
                &at.name,
                &at.url(),
                &data.join("lake"),
            )),
        }
    }

    /// What reads the tables from another thread.
    pub fn reader(&self) -> Reader {
        match &self.kind {
            Kind::Embedded { .. } => Reader::Sqlite(self.folder().join("data/stream_data.db")),
            Kind::Services(at) => Reader::Postgres(at.url()),
        }
    }

    /// `kill -9` for a service of `dev/services`, and a new start after this time.
    pub fn outage(&self, name: &str, time: Duration) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/services");
        let run = |arg: &str| {
            let out = Command::new(&script).args([arg, name]).output().unwrap();
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        // `kafka: running (pid 4711, port 19092)`
        let status = run("status");
        let line = status.lines().find(|line| line.starts_with(&format!("{name}: running (pid ")));
        let pid = line.and_then(|line| line.split(['(', ' ', ',']).nth(4)).unwrap();
        Command::new("kill").args(["-KILL", pid]).status().unwrap();
        std::thread::sleep(time);
        let said = run("up");
        assert!(run("status").contains(&format!("{name}: running")), "{said}");
    }

    /// Whether the network to PostgreSQL fails from now on; how often it was cut so far.
    pub fn network(&self, troubled: bool) -> u64 {
        let Kind::Services(at) = &self.kind else { return 0 };
        at.proxy.set_troubled(troubled);
        at.proxy.cuts()
    }

    /// Ends the program's sessions with PostgreSQL.
    pub fn end_sessions(&self) {
        let Kind::Services(at) = &self.kind else { return };
        at.runtime.block_on(async {
            let client = services::connect(&at.url()).await;
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name LIKE 'streamkit/%'";
            // One that has ended by itself meanwhile is no trouble.
            let _ = client.batch_execute(sql).await;
        });
    }
}

impl Services {
    fn url(&self) -> String {
        self.database.as_ref().unwrap().url()
    }

    fn url_through_proxy(&self) -> String {
        let url = self.url();
        let (user, place) = url.split_once('@').unwrap();
        let (_, database) = place.split_once('/').unwrap();
        format!("{user}@{}/{database}", self.proxy.address())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // After a failure the services may be in any state, and the failure is what counts.
        if std::thread::panicking() {
            return;
        }
        if let Some(database) = self.database.take() {
            self.runtime.block_on(async {
                kafka::delete(&self.kafka, &self.name).await;
                database.drop().await;
            });
        }
    }
}

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
