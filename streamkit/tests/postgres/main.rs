//! The PostgreSQL sink on a real server: the one that `DATABASE_URL` names, in a schema of each
//! test's own. Without `DATABASE_URL` the tests are skipped.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod faults;
mod jobs;
mod rejects;
mod server;
mod support;
mod tables;
mod tls;

use streamkit::ErrorKind;
use streamkit::connector::Commit;
use support::{Database, batch, progress};

#[test]
fn d8_rows_and_progress_come_together() {
    let Some(db) = Database::with_views("together") else { return };
    let mut writer = db.open().unwrap();
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    writer.write(&batch(&[(1, "/b", 2), (1, "/a", 1)])).unwrap();
    writer.write(&batch(&[(2, "/a", 3), (1, "/b", 4)])).unwrap();
    assert_eq!(db.views(), [""; 0]);
    assert_eq!(writer.commit(&progress(60)).unwrap(), Commit::Done);
    assert_eq!(db.views(), ["1|/a|1", "1|/b|4", "2|/a|3"]);

    // Not committed, so it is gone.
    writer.write(&batch(&[(3, "/a", 9)])).unwrap();
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(progress(60)));
    writer.commit(&progress(61)).unwrap();
    drop(writer);
    assert_eq!(
        db.open::<support::Views>().unwrap().recover(&db.claim()).unwrap(),
        Some(progress(61))
    );
    assert_eq!(db.views().len(), 3);
    let stored = "SELECT job, sink, lineage, version,
                         progress -> 'point' -> 'watermark' ->> 'w' FROM streamkit_progress";
    assert_eq!(db.ask(stored), ["together|views|first|3|61"]);
}

#[test]
fn d2_progress_without_rows_is_a_commit() {
    let Some(db) = Database::with_views("alone") else { return };
    let mut writer = db.writer();
    assert_eq!(writer.commit(&progress(5)).unwrap(), Commit::Done);
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(progress(5)));
    assert_eq!(db.views(), [""; 0]);
}

#[test]
fn a_row_that_does_not_change_is_not_touched() {
    let Some(db) = Database::with_views("untouched") else { return };
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 1)])).unwrap();
    writer.commit(&progress(1)).unwrap();
    let before = db.ask("SELECT page_url, xmin, ctid FROM views ORDER BY 1");
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 2)])).unwrap();
    writer.commit(&progress(2)).unwrap();
    let after = db.ask("SELECT page_url, xmin, ctid FROM views ORDER BY 1");
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    assert_eq!(db.views(), ["1|/a|1", "1|/b|2"]);
}

#[test]
fn a_row_that_is_there_is_replaced_though_all_before_were_new() {
    for others in [1, 60_000] {
        let Some(db) = Database::with_views(&format!("replaced_{others}")) else { return };
        let mut writer = db.writer();
        writer.write(&batch(&[(1, "/a", 1), (1, "/b", 1)])).unwrap();
        writer.commit(&progress(1)).unwrap();
        let pages: Vec<_> = (0..others).map(|i| format!("/page/{i}")).collect();
        let new: Vec<_> = pages.iter().map(|page| (1, page.as_str(), 1)).collect();
        writer.write(&batch(&new)).unwrap();
        writer.write(&batch(&[(1, "/a", 2)])).unwrap();
        assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
        let sums = format!("{}|{}", others + 2, others + 3);
        assert_eq!(db.ask("SELECT count(*), sum(view_count) FROM views"), [sums]);
        assert_eq!(db.ask("SELECT count(distinct xmin::text) FROM views"), ["2"]);
    }
}

#[test]
fn a_large_commit_is_atomic_too() {
    let Some(db) = Database::with_views("large") else { return };
    let mut writer = db.writer();
    let pages: Vec<_> = (0..120_000).map(|i| format!("/page/{i}")).collect();
    for pages in pages.chunks(10_000) {
        let rows: Vec<_> = pages.iter().map(|page| (1, page.as_str(), 1)).collect();
        writer.write(&batch(&rows)).unwrap();
    }
    assert!(writer.is_full());
    db.sql("UPDATE streamkit_progress SET version = version + 1");
    assert_eq!(writer.commit(&progress(1)).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(db.ask("SELECT count(*) FROM views"), ["0"]);

    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    for pages in pages.chunks(10_000) {
        let rows: Vec<_> = pages.iter().map(|page| (1, page.as_str(), 1)).collect();
        writer.write(&batch(&rows)).unwrap();
    }
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    assert!(!writer.is_full());
    assert_eq!(db.ask("SELECT count(*), sum(view_count) FROM views"), ["120000|120000"]);
    assert_eq!(db.ask("SELECT count(distinct xmin::text) FROM views"), ["1"]);
}

#[test]
fn d8_a_newer_version_fences_every_commit() {
    let Some(db) = Database::with_views("version") else { return };
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    db.sql("UPDATE streamkit_progress SET version = version + 1, owner = '7:x'");
    let error = writer.commit(&progress(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("was taken over by instance 7 at 2"), "{error}");
    assert_eq!(db.views(), [""; 0]);
}

#[test]
fn d8_a_second_writer_is_turned_away() {
    let Some(db) = Database::with_views("second") else { return };
    let mut first = db.writer();
    let mut second = db.open::<support::Views>().unwrap();
    let error = second.recover(&db.claim()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    for part in ["sink views of job second", "streamkit/second", "pid ", "--take-over"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    first.write(&batch(&[(1, "/a", 1)])).unwrap();
    first.commit(&progress(1)).unwrap();
    drop(first);
    assert_eq!(second.recover(&db.claim()).unwrap(), Some(progress(1)));
}

#[test]
fn d8_taking_over_fences_the_first_writer() {
    let Some(db) = Database::with_views("steal") else { return };
    let mut first = db.writer();
    first.write(&batch(&[(1, "/a", 1)])).unwrap();
    first.commit(&progress(1)).unwrap();
    first.write(&batch(&[(1, "/a", 2)])).unwrap();

    let mut second = db.open::<support::Views>().unwrap();
    let taking = streamkit::connector::Claim { take_over: true, ..db.claim() };
    assert_eq!(second.recover(&taking).unwrap(), Some(progress(1)));
    // The first one lost its connection, and with it what it had not committed.
    let committed = first.commit(&progress(2));
    assert!(!matches!(committed, Ok(Commit::Done)), "{committed:?}");
    assert_eq!(first.recover(&db.claim()).unwrap_err().kind(), ErrorKind::Fenced);
    second.write(&batch(&[(1, "/a", 3)])).unwrap();
    assert_eq!(second.commit(&progress(3)).unwrap(), Commit::Done);
    assert_eq!(db.views(), ["1|/a|3"]);
}

#[test]
fn d6_progress_of_another_lineage_is_refused() {
    let Some(db) = Database::with_views("lineage") else { return };
    drop(db.writer());
    // Claimed and never committed: nothing of the old lineage is there.
    let other = streamkit::connector::Claim { lineage: "other".to_owned(), ..db.claim() };
    let mut writer = db.open::<support::Views>().unwrap();
    assert_eq!(writer.recover(&other).unwrap(), None);
    writer.commit(&progress(1)).unwrap();

    let error = writer.recover(&db.claim()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    for part in ["of lineage other (last written 2", "of lineage first", "sink views"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(writer.commit(&progress(2)).is_err(), "without a claim there is no commit");
    assert_eq!(writer.recover(&other).unwrap(), Some(progress(1)));
}
