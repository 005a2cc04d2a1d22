//! A server that refuses for a while, and tables that change under a running job.

use std::thread;
use std::time::Duration;

use streamkit::ErrorKind;
use streamkit::connector::postgres::{PostgresConfig, PostgresSink};
use streamkit::connector::{Commit, Sink};

use super::support::{Database, Proxy, Views, batch, progress};

#[test]
fn f60_f61_f62_what_passes_is_tried_again_and_is_exact() {
    let Some(db) = Database::with_views("passing") else { return };
    // The server's own codes, raised at the moment of writing; sequences survive the rollback.
    db.sql(
        "CREATE SEQUENCE attempts; CREATE TABLE faults (n bigint, code text);
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE attempt bigint := nextval('attempts'); wanted text;
         BEGIN
           SELECT code INTO wanted FROM faults WHERE n = attempt;
           IF FOUND THEN RAISE EXCEPTION 'as ordered' USING ERRCODE = wanted; END IF;
           RETURN NULL;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON views FOR EACH STATEMENT EXECUTE FUNCTION fail()",
    );
    let codes = ["40P01", "40001", "55P03", "53300", "53100", "57014", "25006", "57P01", "08006"];
    for (n, code) in (1..).zip(codes) {
        db.sql(&format!("INSERT INTO faults VALUES ({n}, '{code}')"));
    }
    let mut writer = db.writer();
    for code in codes {
        writer.write(&batch(&[(1, "/a", 1)])).unwrap();
        match writer.commit(&progress(1)) {
            Err(error) => {
                assert!(
                    error.is_retriable() && error.to_string().contains(code),
                    "{code}: {error}"
                );
            }
            // A server that has become read-only is left at once.
            Ok(outcome) => assert_eq!((outcome, code), (Commit::Unknown, "25006")),
        }
        assert_eq!(writer.recover(&db.claim()).unwrap(), None, "{code}");
        assert_eq!(db.views(), [""; 0], "{code}");
    }
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    assert_eq!(db.views(), ["1|/a|1"]);
    assert_eq!(db.ask("SELECT 1 FROM streamkit_rejects"), [""; 0]);
}

#[test]
fn f60_a_real_deadlock_costs_nothing_but_an_attempt() {
    let Some(db) = Database::with_views("deadlock") else { return };
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 1)])).unwrap();
    writer.commit(&progress(1)).unwrap();
    // Somebody has row b, and will want row a, which the writer has by then.
    db.sql("BEGIN; UPDATE views SET view_count = 1 WHERE page_url = '/b'");
    writer.write(&batch(&[(1, "/a", 2), (1, "/b", 2)])).unwrap();
    let commit = thread::spawn(move || (writer.commit(&progress(2)), writer));
    let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                   AND application_name = 'streamkit/deadlock'";
    while db.ask(waits).is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    let other = db.try_sql("UPDATE views SET view_count = 1 WHERE page_url = '/a'");
    db.sql(if other.is_ok() { "COMMIT" } else { "ROLLBACK" });
    let (committed, mut writer) = commit.join().unwrap();
    println!("the server chose {}", if other.is_ok() { "the writer" } else { "the other one" });
    if let Err(error) = committed {
        assert!(error.is_retriable() && error.to_string().contains("40P01"), "{error}");
        assert!(other.is_ok(), "one of the two must get on");
        assert_eq!(writer.recover(&db.claim()).unwrap(), Some(progress(1)));
        writer.write(&batch(&[(1, "/a", 2), (1, "/b", 2)])).unwrap();
        assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
    }
    assert_eq!(db.views(), ["1|/a|2", "1|/b|2"]);
}

#[test]
fn f58_a_server_that_cannot_be_written_to_may_be_the_right_one_again() {
    let Some(db) = Database::with_views("standby") else { return };
    let read_only = db.config_with("-cdefault_transaction_read_only%3Don");
    let opened = PostgresSink::<Views>::new(&read_only).open(&db.context("views"));
    let error = opened.err().unwrap();
    assert!(error.is_retriable(), "{error}");
    assert!(error.to_string().contains("does not allow writes"), "{error}");
}

#[test]
fn f63_a_table_that_changes_under_a_job_is_named_with_the_difference() {
    let Some(db) = Database::with_views("shape") else { return };
    let changed = |sql: &str| {
        let mut writer = db.writer();
        db.sql(sql);
        writer.write(&batch(&[(1, "/a", 1)])).unwrap();
        let error = writer.commit(&progress(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User, "{error}");
        assert!(!error.is_retriable(), "{error}");
        error.to_string()
    };
    for (change, back, text) in [
        (
            "ALTER TABLE views RENAME view_count TO n",
            "ALTER TABLE views RENAME n TO view_count",
            "no column view_count (expected: bigint); it has window_start, page_url, n",
        ),
        (
            "ALTER TABLE views ALTER view_count TYPE boolean USING true",
            "ALTER TABLE views ALTER view_count TYPE bigint USING 1",
            "column view_count of table",
        ),
        (
            "ALTER TABLE views DROP CONSTRAINT views_pkey",
            "ALTER TABLE views ADD PRIMARY KEY (window_start, page_url)",
            "has no unique key on (window_start, page_url)",
        ),
        (
            "ALTER TABLE views RENAME TO v",
            "ALTER TABLE v RENAME TO views",
            "there is no table views",
        ),
    ] {
        let error = changed(change);
        assert!(error.contains(text), "{change}: {error}");
        db.sql(back);
    }
    assert_eq!(db.views(), [""; 0]);
}

#[test]
fn f63_a_change_that_still_fits_is_prepared_for_again() {
    let Some(db) = Database::with_views("again") else { return };
    let mut writer = db.writer();
    let changes = [
        "ALTER TABLE views ALTER window_start TYPE timestamp USING window_start AT TIME ZONE 'UTC'",
        "ALTER TABLE views ALTER view_count TYPE numeric",
        "DROP TABLE streamkit_rejects; ALTER TABLE views ADD CHECK (page_url <> '/nul') NOT VALID",
        "ALTER TABLE views RENAME TO old; CREATE TABLE views (LIKE old INCLUDING ALL)",
    ];
    for (next, change) in (1..).zip(changes) {
        db.sql(change);
        let rows = [(next, "/a", 1), (next, "/nul", 1)];
        writer.write(&batch(&rows)).unwrap();
        let mut attempts = 1;
        while let Err(error) = writer.commit(&progress(next)) {
            assert!(error.is_retriable(), "{change}: {error}");
            attempts += 1;
            assert!(attempts < 4, "{change}: {error}");
            writer.recover(&db.claim()).unwrap();
            writer.write(&batch(&rows)).unwrap();
        }
        println!("{attempts} attempts: {change}");
    }
    assert_eq!(db.ask("SELECT count(*) FROM old"), ["5"]);
    assert_eq!(db.ask("SELECT extract(epoch FROM window_start)::bigint FROM views"), ["240"]);
}

#[test]
fn f66_a_commit_that_is_answered_with_a_rollback_is_not_one() {
    let Some(db) = Database::with_views("rollback") else { return };
    let proxy = Proxy::new(db.address());
    let mut writer =
        PostgresSink::<Views>::new(&db.config_at(proxy.port)).open(&db.context("views")).unwrap();
    writer.recover(&db.claim()).unwrap();
    db.sql("ALTER TABLE views ADD CHECK (view_count < 10)");
    // A refused row makes it a transaction of several statements. The client takes any answer to
    // COMMIT for success, and this one will be ROLLBACK.
    let rows = [(1, "/a", 1), (1, "/b", 10)];
    writer.write(&batch(&rows)).unwrap();
    proxy.roll_back_commits(true);
    let error = writer.commit(&progress(1)).unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("rolled a transaction back"));
    proxy.roll_back_commits(false);
    assert_eq!(db.views(), [""; 0]);
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    writer.write(&batch(&rows)).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    assert_eq!(db.views(), ["1|/a|1"]);
    assert_eq!(db.ask("SELECT count(*) FROM streamkit_rejects"), ["1"]);
}

#[test]
fn f55_a_connection_that_ends_between_any_two_statements_of_a_commit_leaves_it_undone() {
    let Some(db) = Database::with_views("phases") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count < 10)");
    let rows = [(1, "/a", 1), (1, "/b", 10), (1, "/c", 2)];
    let proxy = Proxy::new(db.address());
    let config: PostgresConfig = db.config_at(proxy.port);
    let mut cut = 0;
    loop {
        let mut writer = PostgresSink::<Views>::new(&config).open(&db.context("views")).unwrap();
        writer.recover(&db.claim()).unwrap();
        writer.write(&batch(&rows)).unwrap();
        // Until everything else has been answered: the client closes its statements in passing.
        thread::sleep(Duration::from_millis(100));
        proxy.cut_after(cut);
        let commit = writer.commit(&progress(1));
        proxy.cut_never();
        if let Ok(Commit::Done) = commit {
            break;
        }
        if let Err(error) = commit {
            assert!(error.is_retriable(), "cut {cut}: {error}");
        }
        let recovered = writer.recover(&db.claim()).unwrap();
        let done = recovered == Some(progress(1));
        assert_eq!(db.views().len(), if done { 2 } else { 0 }, "cut {cut}");
        let rejects = db.ask("SELECT count(*) FROM streamkit_rejects");
        assert_eq!(rejects, [if done { "1" } else { "0" }], "cut {cut}");
        drop(writer);
        db.sql("TRUNCATE views, streamkit_rejects, streamkit_progress");
        cut += 1;
    }
    println!("cut after each of {cut} answers");
    assert!(cut > 10, "the commit has more steps than {cut}");
    assert_eq!(db.views(), ["1|/a|1", "1|/c|2"]);
}
