//! The SQLite sink on real files.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod disk;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use streamkit::connector::sqlite::{SqliteDatabase, SqliteSink};
use streamkit::connector::{
    Claim, Commit, Point, Progress, Sink, SinkContext, SinkWriter, Table, TableRow,
};
use streamkit::time::Timestamp;
use streamkit::{Batch, ErrorKind};
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[derive(Debug, Clone)]
struct Session {
    user: String,
    start: Timestamp,
    seconds: f64,
    events: u64,
}

impl TableRow for Session {
    fn table() -> Table<Self> {
        Table::<Self>::new("sessions")
            .key(["user_id", "start"])
            .text("user_id", |row| &row.user)
            .timestamp("start", |row| row.start)
            .timestamp_secs("minute", |row| row.start.floor_to(streamkit::time::minutes(1)))
            .double("seconds", |row| row.seconds)
            .bigint("events", |row| row.events)
    }
}

fn batch(rows: &[(&str, u64)]) -> Batch<Session> {
    let start = Timestamp::from_micros(1_767_225_661_000_001);
    let row = |&(user, events): &(&str, u64)| Session {
        user: user.to_owned(),
        start,
        seconds: 1.5,
        events,
    };
    Batch::new(rows.iter().map(row).collect(), vec![start; rows.len()])
}

fn progress(w: i64) -> Progress {
    let w = Timestamp::from_micros(w);
    Progress { point: Point::Watermark { groups: (0, 255), w, noted: BTreeMap::new() }, rows: 1 }
}

struct Files {
    folder: TempDir,
    runtime: Runtime,
}

impl Files {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), runtime: Runtime::new().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("stream_data.db")
    }

    fn context(&self, sink: &str, instance: &str) -> SinkContext {
        SinkContext {
            job: "test".to_owned(),
            sink: sink.to_owned(),
            instance: instance.to_owned(),
            runtime: self.runtime.handle().clone(),
        }
    }

    /// A writer with a connection of its own, as another process would have one.
    fn open(&self, instance: &str) -> Box<dyn SinkWriter<Session>> {
        let database = SqliteDatabase::open(self.path()).unwrap();
        SqliteSink::new(&database).open(&self.context("sessions", instance)).unwrap()
    }

    fn rows(&self) -> Vec<(String, i64)> {
        ask(&self.path(), "SELECT user_id, events FROM sessions ORDER BY user_id")
    }
}

fn ask(path: &Path, sql: &str) -> Vec<(String, i64)> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn claim() -> Claim {
    Claim {
        job: "test".to_owned(),
        sink: "sessions".to_owned(),
        lineage: "first".to_owned(),
        take_over: false,
    }
}

fn named(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
    rows.iter().map(|(user, n)| ((*user).to_owned(), *n)).collect()
}

#[test]
fn d8_rows_and_progress_come_together() {
    let files = Files::new();
    let mut writer = files.open("0");
    assert_eq!(writer.recover(&claim()).unwrap(), None);
    writer.write(&batch(&[("b", 1), ("a", 1)])).unwrap();
    writer.write(&batch(&[("b", 2)])).unwrap();
    assert_eq!(files.rows(), []);
    assert_eq!(writer.commit(&progress(60)).unwrap(), Commit::Done);
    assert_eq!(files.rows(), named(&[("a", 1), ("b", 2)]));

    // Not committed, so it is gone.
    writer.write(&batch(&[("c", 1)])).unwrap();
    assert_eq!(writer.recover(&claim()).unwrap(), Some(progress(60)));
    writer.commit(&progress(61)).unwrap();
    drop(writer);
    assert_eq!(files.open("0").recover(&claim()).unwrap(), Some(progress(61)));
    assert_eq!(files.rows(), named(&[("a", 1), ("b", 2)]));
}

#[test]
fn times_are_text_with_the_digits_of_their_column() {
    let files = Files::new();
    let mut writer = files.open("0");
    writer.recover(&claim()).unwrap();
    writer.write(&batch(&[("a", 7)])).unwrap();
    writer.commit(&progress(1)).unwrap();
    let times = ask(&files.path(), "SELECT start || ' ' || minute, events FROM sessions");
    assert_eq!(times, named(&[("2026-01-01T00:01:01.000001Z 2026-01-01T00:01:00Z", 7)]));
    let kinds = "SELECT typeof(start) || typeof(seconds) || typeof(events), 0 FROM sessions";
    assert_eq!(ask(&files.path(), kinds), named(&[("textrealinteger", 0)]));
}

#[test]
fn d8_a_second_writer_fences_the_first() {
    let files = Files::new();
    let mut first = files.open("0");
    first.recover(&claim()).unwrap();
    first.write(&batch(&[("a", 1)])).unwrap();
    first.commit(&progress(1)).unwrap();
    first.write(&batch(&[("a", 2), ("b", 2)])).unwrap();

    let mut second = files.open("7");
    assert_eq!(second.recover(&claim()).unwrap(), Some(progress(1)));
    let error = first.commit(&progress(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("was taken over by instance 7 at 2"), "{error}");
    assert_eq!(files.rows(), named(&[("a", 1)]));
    second.write(&batch(&[("a", 3)])).unwrap();
    assert_eq!(second.commit(&progress(3)).unwrap(), Commit::Done);
    assert_eq!(files.rows(), named(&[("a", 3)]));
}

#[test]
fn d6_progress_of_another_lineage_is_refused() {
    let files = Files::new();
    let mut writer = files.open("0");
    // Claimed and never committed: nothing of that lineage is there.
    writer.recover(&claim()).unwrap();
    let other = Claim { lineage: "other".to_owned(), ..claim() };
    assert_eq!(writer.recover(&other).unwrap(), None);
    writer.commit(&progress(1)).unwrap();
    let error = writer.recover(&claim()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    for part in ["of lineage other (last written 2", "of lineage first", "stream_data.db"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(writer.commit(&progress(2)).is_err(), "without a claim there is no commit");
}

#[test]
fn sinks_of_one_file_commit_on_their_own() {
    let files = Files::new();
    let database = SqliteDatabase::open(files.path()).unwrap();
    let threads: Vec<_> = ["x", "y", "z"]
        .map(|sink| {
            let (database, context) = (database.clone(), files.context(sink, "0"));
            std::thread::spawn(move || {
                let table = Table::new(sink).key(["n"]).bigint("n", |n: &u64| *n);
                let mut writer = SqliteSink::with_table(&database, table).open(&context).unwrap();
                writer.recover(&Claim { sink: sink.to_owned(), ..claim() }).unwrap();
                for n in 0..20 {
                    writer.write(&Batch::new(vec![n], vec![Timestamp::MIN])).unwrap();
                    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
                }
            })
        })
        .into();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for sink in ["x", "y", "z"] {
        let count = format!("SELECT '{sink}', count(*) FROM {sink}");
        assert_eq!(ask(&files.path(), &count), named(&[(sink, 20)]));
    }
}

#[test]
fn a_file_that_somebody_else_is_writing_to_is_tried_again() {
    let files = Files::new();
    let mut writer = files.open("0");
    writer.recover(&claim()).unwrap();
    writer.write(&batch(&[("a", 1)])).unwrap();
    let other = Connection::open(files.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = writer.commit(&progress(1)).unwrap_err();
    assert!(error.is_retriable(), "{error}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(writer.recover(&claim()).unwrap(), None);
    writer.write(&batch(&[("a", 1)])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    assert_eq!(files.rows(), named(&[("a", 1)]));
}

#[test]
fn a_value_that_cannot_be_stored_stops_the_job_and_leaves_nothing() {
    let files = Files::new();
    let mut writer = files.open("0");
    writer.recover(&claim()).unwrap();
    let start = Timestamp::from_micros(0);
    let row = |user: &str, seconds| Session { user: user.to_owned(), start, seconds, events: 1 };
    let rows = vec![row("a", 1.0), row("b", f64::NAN)];
    writer.write(&Batch::new(rows, vec![start; 2])).unwrap();
    let error = writer.commit(&progress(1)).unwrap_err();
    assert!(error.to_string().contains("table sessions, column seconds: NaN"), "{error}");
    assert!(!error.is_retriable());
    assert_eq!(files.rows(), []);
    let error = writer.write(&Batch::new(vec![row("\0", 1.0)], vec![start])).unwrap_err();
    assert!(error.to_string().contains("column user_id: U+0000"), "{error}");
}

#[test]
fn a_table_of_another_form_is_found_when_the_sink_is_opened() {
    let files = Files::new();
    let other = Connection::open(files.path()).unwrap();
    other.execute_batch("CREATE TABLE sessions (user_id TEXT PRIMARY KEY)").unwrap();
    let database = SqliteDatabase::open(files.path()).unwrap();
    let opened = SqliteSink::<Session>::new(&database).open(&files.context("sessions", "0"));
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("stream_data.db") && error.contains("no column start"), "{error}");
}

#[test]
fn f69_a_full_disk_costs_time_only() {
    let Some(disk) = disk::Disk::mount("size=2m") else { return };
    let files = Files::new();
    let path = disk.path().join("stream_data.db");
    let database = SqliteDatabase::open(&path).unwrap();
    let mut writer = SqliteSink::new(&database).open(&files.context("sessions", "0")).unwrap();
    writer.recover(&claim()).unwrap();
    writer.write(&batch(&[("a", 1)])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    let filler = disk.fill();
    let users: Vec<String> = (0..2_000).map(|n| format!("user-{n:0>100}")).collect();
    let rows: Vec<_> = users.iter().map(|user| (user.as_str(), 1)).collect();
    for _ in 0..3 {
        let written = writer.write(&batch(&rows)).and_then(|()| writer.commit(&progress(2)));
        match written {
            Ok(outcome) => assert_eq!(outcome, Commit::Unknown),
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
        match writer.recover(&claim()) {
            Ok(recovered) => assert_eq!(recovered, Some(progress(1))),
            Err(error) => {
                assert!(error.is_retriable(), "{error}");
                break;
            }
        }
    }
    assert_eq!(ask(&path, "SELECT user_id, events FROM sessions"), named(&[("a", 1)]));
    std::fs::remove_file(filler).unwrap();
    assert_eq!(writer.recover(&claim()).unwrap(), Some(progress(1)));
    writer.write(&batch(&rows)).unwrap();
    assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
    assert_eq!(ask(&path, "SELECT 'all', count(*) FROM sessions"), named(&[("all", 2_001)]));
}
