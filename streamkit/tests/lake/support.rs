//! A lake with three dates, its writer, and an independent reader.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use streamkit::connector::parquet::LakeSink;
use streamkit::connector::{Claim, Commit, Point, Progress, Sink, SinkContext, SinkWriter};
use streamkit::time::Timestamp;
use streamkit::{Batch, Error, Position, SplitId};

pub(crate) const DAY: i64 = 86_400_000_000;
pub(crate) const FIRST: i64 = 20_000 * DAY; // 2024-10-04

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) at: i64,
    pub(crate) user: String,
    pub(crate) page: Option<String>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Row `n`; rows are spread over three dates.
pub(crate) fn row(n: u64) -> Row {
    Row {
        at: FIRST + n as i64 % 3 * DAY + n as i64,
        user: format!("user-{}", n % 7),
        page: (!n.is_multiple_of(4)).then(|| format!("/page/{}", n % 5)),
        partition: (n % 2) as i32,
        offset: n as i64,
    }
}

pub(crate) fn sink(root: &Path) -> LakeSink<Row> {
    LakeSink::new(root, |row: &Row| Timestamp::from_micros(row.at))
        .timestamp("event_time", |row| Timestamp::from_micros(row.at))
        .text("user_id", |row| &row.user)
        .text_or_null("page_url", |row| row.page.as_deref())
        .int32("source_partition", |row| row.partition)
        .int64("source_offset", |row| row.offset)
}

pub(crate) type Writer = Box<dyn SinkWriter<Row>>;

pub(crate) fn try_open(mut sink: LakeSink<Row>) -> Result<Writer, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    sink.open(&SinkContext {
        job: "job".to_owned(),
        sink: "lake".to_owned(),
        instance: "0".to_owned(),
        runtime: runtime.handle().clone(),
    })
}

pub(crate) fn open(sink: LakeSink<Row>) -> Writer {
    try_open(sink).unwrap()
}

pub(crate) fn claim(lineage: &str) -> Claim {
    Claim {
        job: "job".to_owned(),
        sink: "lake".to_owned(),
        lineage: lineage.to_owned(),
        take_over: false,
    }
}

pub(crate) fn batch(rows: Vec<Row>) -> Batch<Row> {
    let times = rows.iter().map(|row| Timestamp::from_micros(row.at)).collect();
    Batch::new(rows, times)
}

pub(crate) fn rows(range: std::ops::Range<u64>) -> Batch<Row> {
    batch(range.map(row).collect())
}

pub(crate) fn progress(next: u64) -> Progress {
    let position = Position { next, ..Position::default() };
    let positions = BTreeMap::from([(SplitId::new("memory/0"), position)]);
    Progress { point: Point::Positions(positions), rows: next }
}

/// Does what a runtime does: recovers, and writes what the recovered progress does not cover.
pub(crate) fn go_on(writer: &mut Writer, to: u64) -> Result<(), Error> {
    let mut next = writer.recover(&claim("L"))?.map_or(0, |p| p.rows);
    while next < to {
        writer.write(&rows(next..next + 5))?;
        writer.write(&rows(next + 5..next + 10))?;
        next += 10;
        if writer.commit(&progress(next))? == Commit::Unknown {
            return Err(Error::external("unknown").retriable());
        }
    }
    Ok(())
}

/// All files under a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Reads the lake; checks that it holds nothing else and that every row is in its date's folder.
pub(crate) fn read(root: &Path) -> Vec<Row> {
    let mut read = vec![];
    for path in files(root) {
        assert!(path.to_str().unwrap().ends_with(".c000.zstd.parquet"), "{path:?}");
        read.extend(read_file(&path));
    }
    read.sort();
    read
}

pub(crate) fn read_file(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let mut rows = vec![];
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let at = row.get_timestamp_micros(0).unwrap();
        let date = chrono::DateTime::from_timestamp_micros(at).unwrap().date_naive();
        assert_eq!(folder, format!("event_date={date}"));
        rows.push(Row {
            at,
            user: row.get_string(1).unwrap().clone(),
            page: row.get_string(2).ok().cloned(),
            partition: row.get_int(3).unwrap(),
            offset: row.get_long(4).unwrap(),
        });
    }
    assert!(!rows.is_empty(), "a file without rows");
    rows
}

pub(crate) fn expected(n: u64) -> Vec<Row> {
    let mut rows: Vec<_> = (0..n).map(row).collect();
    rows.sort();
    rows
}

pub(crate) struct Lake {
    pub(crate) _folder: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) staging: PathBuf,
}

pub(crate) fn lake() -> Lake {
    let folder = tempfile::tempdir().unwrap();
    let (root, staging) = (folder.path().join("lake"), folder.path().join("lake.staging"));
    Lake { _folder: folder, root, staging }
}

/// Why a commit has to be made again.
pub(crate) fn not_done(commit: Result<Commit, Error>) -> Option<Error> {
    match commit {
        Ok(Commit::Done) => None,
        Ok(Commit::Unknown) => Some(Error::external("unknown").retriable()),
        Err(error) => Some(error),
    }
}
