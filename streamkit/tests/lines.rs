//! Files as topics: what a crash takes back, and who may write (rules D6, D8, D11).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use streamkit::connector::file::LinesSink;
use streamkit::connector::{
    Claim, Commit, Point, Progress, Sink, SinkContext, SinkOptions, SinkWriter,
};
use streamkit::time::Timestamp;
use streamkit::{Batch, ErrorKind, Position, SplitId};

type Writer = Box<dyn SinkWriter<u64>>;

fn sink(path: &Path) -> LinesSink<u64> {
    LinesSink::new(path, |n: &u64, line| line.extend(format!("row {n}").bytes()))
}

fn open<T: 'static>(mut sink: impl Sink<T>) -> Box<dyn SinkWriter<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = SinkContext {
        job: "job".to_owned(),
        sink: "lines".to_owned(),
        instance: "0".to_owned(),
        runtime: runtime.handle().clone(),
    };
    sink.open(&context).unwrap()
}

fn claim(lineage: &str) -> Claim {
    Claim {
        job: "job".to_owned(),
        sink: "lines".to_owned(),
        lineage: lineage.to_owned(),
        take_over: false,
    }
}

fn batch(rows: std::ops::Range<u64>) -> Batch<u64> {
    let times = rows.clone().map(|n| Timestamp::from_micros(n as i64)).collect();
    Batch::new(rows.collect(), times)
}

fn progress(next: u64) -> Progress {
    let position = Position { next, ..Position::default() };
    let positions = BTreeMap::from([(SplitId::new("memory/0"), position)]);
    Progress { point: Point::Positions(positions), rows: next }
}

fn text(rows: u64) -> String {
    (0..rows).map(|n| format!("row {n}\n")).collect()
}

/// Does what a runtime does: recovers, and writes what the recovered progress does not cover.
fn go_on(writer: &mut Writer, to: u64) -> Result<(), streamkit::Error> {
    let mut next = writer.recover(&claim("L"))?.map_or(0, |p| p.rows);
    while next < to {
        writer.write(&batch(next..next + 2))?;
        next += 2;
        if writer.commit(&progress(next))? == Commit::Unknown {
            return Err(streamkit::Error::external("unknown").retriable());
        }
    }
    Ok(())
}

#[test]
fn d11_rows_without_a_commit_are_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topics/rows.jsonl");
    let mut writer = open(sink(&path));
    assert_eq!(writer.recover(&claim("L")).unwrap(), None);
    writer.write(&batch(0..3)).unwrap();
    assert_eq!(writer.commit(&progress(3)).unwrap(), Commit::Done);
    assert_eq!(fs::read_to_string(&path).unwrap(), text(3));
    // Progress alone.
    assert_eq!(writer.commit(&progress(4)).unwrap(), Commit::Done);
    // More than the buffer holds, so that a tail gets into the file.
    writer.write(&batch(3..100_000)).unwrap();
    drop(writer);
    assert!(fs::metadata(&path).unwrap().len() > 500_000);
    let mut writer = open(sink(&path));
    assert_eq!(writer.recover(&claim("L")).unwrap(), Some(progress(4)));
    assert_eq!(fs::read_to_string(&path).unwrap(), text(3));
}

#[test]
fn d11_a_commit_that_fails_or_is_killed_at_any_step_loses_and_repeats_nothing() {
    let steps =
        ["lines.after_append", "lines.after_sync", "lines.after_stage", "lines.after_rename"];
    let folder = tempfile::tempdir().unwrap();
    for (i, step) in steps.into_iter().enumerate() {
        for kill in [false, true] {
            for nth in 0..4 {
                let path = folder.path().join(format!("{i}-{kill}-{nth}.jsonl"));
                let passed = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&passed);
                let mut writer = open(sink(&path).failpoints(move |at| {
                    if at == step && count.fetch_add(1, Ordering::Relaxed) == nth {
                        return Err(io::Error::from(io::ErrorKind::StorageFull));
                    }
                    Ok(())
                }));
                let error = go_on(&mut writer, 10).unwrap_err();
                assert!(error.is_retriable(), "{step}: {error}");
                if kill {
                    drop(writer);
                    writer = open(sink(&path));
                }
                go_on(&mut writer, 10).unwrap();
                assert!(passed.load(Ordering::Relaxed) > nth);
                assert_eq!(fs::read_to_string(&path).unwrap(), text(10), "{step} {kill} {nth}");
            }
        }
    }
}

#[test]
fn f69_a_full_disk_costs_time_only() {
    let Some(disk) = disk::Disk::mount("size=1m") else { return };
    let path = disk.path().join("rows.jsonl");
    let mut writer = open(sink(&path));
    go_on(&mut writer, 10).unwrap();
    let filler = disk.fill();
    for _ in 0..3 {
        // More than what is left of the file's last page.
        let written =
            writer.write(&batch(10..1_000)).and_then(|()| writer.commit(&progress(1_000)));
        let error = written.unwrap_err();
        assert!(error.is_retriable() && error.to_string().contains("os error 28"), "{error}");
        // What a runtime does; the claim needs room, too.
        match writer.recover(&claim("L")) {
            Ok(recovered) => assert_eq!(recovered, Some(progress(10))),
            Err(error) => {
                assert!(error.is_retriable(), "{error}");
                break;
            }
        }
    }
    fs::remove_file(filler).unwrap();
    assert_eq!(writer.recover(&claim("L")).unwrap(), Some(progress(10)));
    assert_eq!(fs::read_to_string(&path).unwrap(), text(10));
    go_on(&mut writer, 1_000).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text(1_000));
}

#[test]
fn d8_two_writers_are_kept_apart_with_and_without_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let mut first = open(sink(&path));
    first.recover(&claim("L")).unwrap();
    first.write(&batch(0..1)).unwrap();
    let mut second = open(sink(&path));
    let error = second.recover(&Claim { take_over: true, ..claim("L") }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    // Recovering again with the lock in hand is what follows any error.
    first.recover(&claim("L")).unwrap();
    // A disk on which locks do not work.
    fs::remove_file(folder.path().join("rows.lock")).unwrap();
    second.recover(&claim("L")).unwrap();
    assert_eq!(first.commit(&progress(1)).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(second.commit(&progress(0)).unwrap(), Commit::Done);
    drop(second);
    open(sink(&path)).recover(&claim("L")).unwrap();
}

#[test]
fn d6_a_file_of_another_lineage_is_refused_naming_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    // Claimed, and nothing committed: not theirs yet.
    open(sink(&path)).recover(&claim("earlier")).unwrap();
    let mut writer = open(sink(&path));
    assert_eq!(writer.recover(&claim("mine")).unwrap(), None);
    writer.commit(&progress(0)).unwrap();
    drop(writer);
    let error = open(sink(&path)).recover(&claim("other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("mine") && error.to_string().contains("other"), "{error}");
}

#[test]
fn d11_a_shorter_file_and_a_foreign_one_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    fs::write(&path, "somebody's notes\n").unwrap();
    let error = open(sink(&path)).recover(&claim("L")).unwrap_err();
    assert!(error.to_string().contains("was not written by this job"), "{error}");
    fs::write(&path, "").unwrap();
    go_on(&mut open(sink(&path)), 4).unwrap();
    fs::write(&path, text(3)).unwrap();
    let error = open(sink(&path)).recover(&claim("L")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("18 bytes, and 24 were committed"), "{error}");
}

#[test]
fn a_row_is_one_line_whatever_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let sink = LinesSink::new(&path, |row: &&str, line| line.extend(row.bytes()));
    let options = Sink::<&str>::options(&sink);
    assert_eq!(
        options,
        SinkOptions::default().commit_within(std::time::Duration::from_millis(200))
    );
    let mut writer = open(sink);
    writer.recover(&claim("L")).unwrap();
    let rows = vec!["{\n  \"a\": 1\n}", "", "x"];
    writer.write(&Batch::new(rows, vec![Timestamp::MIN; 3])).unwrap();
    writer.commit(&progress(3)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{   \"a\": 1 }\n\nx\n");
}
