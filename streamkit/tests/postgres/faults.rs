//! Connections that end, answers that are lost, and statements that hang.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use streamkit::ErrorKind;
use streamkit::connector::postgres::{PostgresConfig, PostgresSink};
use streamkit::connector::{Commit, Sink};

use super::support::{Database, Proxy, Views, batch, progress};

#[test]
fn f55_a_connection_that_ends_costs_nothing_but_time() {
    let Some(db) = Database::with_views("killed") else { return };
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    writer.commit(&progress(1)).unwrap();

    writer.write(&batch(&[(1, "/a", 2), (2, "/b", 1)])).unwrap();
    assert_eq!(db.terminate_writers(), 1);
    match writer.commit(&progress(2)) {
        Ok(outcome) => assert_eq!(outcome, Commit::Unknown),
        Err(error) => assert!(error.is_retriable(), "{error}"),
    }
    assert_eq!(db.views(), ["1|/a|1"]);
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(progress(1)));
    writer.write(&batch(&[(1, "/a", 2), (2, "/b", 1)])).unwrap();
    assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
    assert_eq!(db.views(), ["1|/a|2", "2|/b|1"]);

    // A second end, noticed by recover itself.
    assert_eq!(db.terminate_writers(), 1);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(progress(2)));
}

#[test]
fn f55_a_connection_that_ends_within_a_commit_leaves_it_undone() {
    let Some(db) = Database::with_views("within") else { return };
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    db.sql("BEGIN; LOCK TABLE views IN ACCESS EXCLUSIVE MODE");
    let commit = thread::spawn(move || (writer.commit(&progress(1)), writer));
    while db
        .ask("SELECT 1 FROM pg_locks WHERE relation = 'views'::regclass AND NOT granted")
        .is_empty()
    {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(db.terminate_writers(), 1);
    let (committed, mut writer) = commit.join().unwrap();
    assert_eq!(committed.unwrap(), Commit::Unknown);
    db.sql("COMMIT");
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    assert_eq!(db.views(), [""; 0]);
}

#[test]
fn f55_rows_and_progress_stay_together_whenever_connections_end() {
    let Some(db) = Database::with_views("storm") else { return };
    let done = AtomicBool::new(false);
    let mut writer = db.writer();
    let (mut next, mut failures) = (1, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for pause in (0..).map(|n: u64| n * 7 % 29) {
                thread::sleep(Duration::from_millis(pause));
                if done.load(Ordering::SeqCst) {
                    return;
                }
                db.terminate_writers();
                // One statement, so one moment: commit n leaves n rows and the progress n.
                let seen = db.ask(
                    "SELECT (SELECT count(*) FROM views),
                            coalesce(progress -> 'point' -> 'watermark' ->> 'w', '0')
                       FROM streamkit_progress",
                );
                let (rows, w) = seen[0].split_once('|').unwrap();
                assert_eq!(rows, w);
            }
        });
        while next <= 300 {
            writer.write(&batch(&[(next, "/a", 1), (1, "/a", next as u64)])).unwrap();
            match writer.commit(&progress(next)) {
                Ok(Commit::Done) => {
                    next += 1;
                    continue;
                }
                Ok(Commit::Unknown) => {}
                Err(error) => assert!(error.is_retriable(), "{error}"),
            }
            failures += 1;
            let recovered = loop {
                match writer.recover(&db.claim()) {
                    Ok(recovered) => break recovered,
                    Err(error) => assert!(error.is_retriable(), "{error}"),
                }
            };
            if recovered == Some(progress(next)) {
                next += 1;
            } else {
                assert_eq!(recovered, (next > 1).then(|| progress(next - 1)));
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    println!("{failures} failed commits");
    assert!(failures > 0);
    assert_eq!(db.ask("SELECT count(*), max(view_count) FROM views"), ["300|300"]);
}

#[test]
fn f56_a_commit_whose_answer_is_lost_is_found_by_recover() {
    let Some(db) = Database::with_views("answer") else { return };
    let proxy = Proxy::new(db.address());
    let config = db.config_at(proxy.port);
    let mut writer = PostgresSink::<Views>::new(&config).open(&db.context("views")).unwrap();
    writer.recover(&db.claim()).unwrap();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    // Until the server has answered everything else: the client closes its statements in passing.
    thread::sleep(Duration::from_millis(200));
    proxy.lose_answers(true);
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Unknown);
    assert!(writer.recover(&db.claim()).unwrap_err().is_retriable());
    proxy.lose_answers(false);
    // The server still has the old session, with the lock; recover ends it.
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(progress(1)));
    assert_eq!(db.views(), ["1|/a|1"]);
}

#[test]
fn f64_a_statement_that_hangs_is_tried_again() {
    let Some(db) = Database::with_views("hang") else { return };
    let config = db.config().statement_timeout(Duration::from_secs(2));
    let mut writer = PostgresSink::<Views>::new(&config).open(&db.context("views")).unwrap();
    writer.recover(&db.claim()).unwrap();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    db.sql("BEGIN; LOCK TABLE views IN ACCESS EXCLUSIVE MODE");
    let error = writer.commit(&progress(1)).unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("statement timeout"), "{error}");
    db.sql("COMMIT");
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
}

/// Half open: the connection is there for this side, and nothing comes back. (The kernel's limits do not
/// help, since somebody acknowledges every packet.)
#[test]
fn f65_a_connection_that_swallows_everything_is_given_up() {
    let Some(db) = Database::with_views("half_open") else { return };
    let proxy = Proxy::new(db.address());
    let limit = Duration::from_millis(100);
    let config = db.config_at(proxy.port).statement_timeout(limit).connect_timeout(limit);
    let mut writer = PostgresSink::<Views>::new(&config).open(&db.context("views")).unwrap();
    writer.recover(&db.claim()).unwrap();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    proxy.swallow(true);
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Unknown);
    let error = writer.recover(&db.claim()).unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("cannot connect"), "{error}");
    proxy.swallow(false);
    // The old session still holds the lock, for all that the server knows.
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    assert_eq!(db.views(), ["1|/a|1"]);
}

#[test]
fn f54_a_server_that_is_not_there_may_come() {
    let Some(db) = Database::new("absent") else { return };
    let config = db.config_at(1);
    let opened = PostgresSink::<Views>::new(&config).open(&db.context("views"));
    let error = opened.err().unwrap();
    assert!(error.is_retriable(), "{error}");
    assert!(error.to_string().contains("cannot connect to PostgreSQL at 127.0.0.1:1/"), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn f67_f90_a_wrong_password_stops_the_job_and_is_not_shown() {
    let Some(db) = Database::new("secret") else { return };
    let address = db.address();
    let url = format!("postgres://nobody_{}:c4nary@{address}/stream_data", std::process::id());
    let config = PostgresConfig::new(&url).unwrap();
    let mut sink = PostgresSink::<Views>::new(&config);
    let error = sink.open(&db.context("views")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(!error.is_retriable(), "{error}");
    let shown = format!("{error} {error:?} {config:?} {sink:?} {}", sink.describe());
    assert!(!shown.contains("c4nary"), "{shown}");
}
