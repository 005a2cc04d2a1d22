//! Tables that are not as the job's row type says, and the creation of those that are missing.

use streamkit::connector::postgres::PostgresSink;
use streamkit::connector::{Sink, Table};
use streamkit::time::Timestamp;

use super::support::{CREATE_VIEWS, Database, Views, batch, progress};

#[test]
fn a_missing_table_is_found_when_the_sink_is_opened() {
    let Some(db) = Database::new("missing") else { return };
    let error = db.open::<Views>().err().unwrap().to_string();
    for part in [
        "no table views in database",
        "`psql -f init-db.sql`",
        "CREATE TABLE views (window_start timestamp with time zone, page_url text, view_count \
         bigint, PRIMARY KEY (window_start, page_url))",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_table_must_have_the_columns_types_and_the_key() {
    let Some(db) = Database::with_views("columns") else { return };
    let problem = |sql: &str| {
        db.sql(sql);
        db.open::<Views>().err().map(|error| error.to_string()).unwrap_or_default()
    };
    let cases = [
        ("ALTER TABLE views RENAME view_count TO n", "no column view_count (expected: bigint)"),
        ("ALTER TABLE views RENAME n TO view_count", ""),
        ("ALTER TABLE views ALTER view_count TYPE text", "is text, and must be bigint"),
        ("ALTER TABLE views ALTER view_count TYPE int USING 1", ""),
        ("ALTER TABLE views ADD more int NOT NULL", "column more of table"),
        ("ALTER TABLE views ALTER more SET DEFAULT 1", ""),
        (
            "ALTER TABLE views DROP CONSTRAINT views_pkey",
            "no unique key on (window_start, page_url)",
        ),
        ("CREATE UNIQUE INDEX one ON views (page_url, window_start) WHERE more > 1", "it has none"),
        ("CREATE UNIQUE INDEX two ON views (page_url)", "it has (page_url)"),
        ("CREATE UNIQUE INDEX three ON views (page_url, window_start) INCLUDE (more)", ""),
        ("ALTER TABLE views RENAME TO x; CREATE VIEW views AS SELECT * FROM x", "is not a table"),
    ];
    for (sql, expected) in cases {
        let problem = problem(sql);
        assert!(
            problem.contains(expected) && problem.is_empty() == expected.is_empty(),
            "{sql}: {problem}"
        );
    }
}

#[test]
fn tables_with_and_without_time_zone_hold_the_same_points_in_time() {
    let Some(db) = Database::new("zones") else { return };
    let micros = 1_767_225_600_123_456;
    for kind in ["timestamptz", "timestamp"] {
        db.sql(&format!("DROP TABLE IF EXISTS times; CREATE TABLE times (at {kind} PRIMARY KEY)"));
        // Whatever the zone of the server or of whoever asks.
        db.sql("SET TimeZone = 'Asia/Kolkata'");
        let table = Table::new("times").key(["at"]).timestamp("at", |at: &Timestamp| *at);
        let mut sink = PostgresSink::with_table(&db.config(), table);
        let mut writer = sink.open(&db.context(kind)).unwrap();
        let claim = streamkit::connector::Claim { sink: kind.to_owned(), ..db.claim() };
        writer.recover(&claim).unwrap();
        let at = Timestamp::from_micros(micros);
        writer.write(&streamkit::Batch::new(vec![at], vec![at])).unwrap();
        writer.commit(&progress(1)).unwrap();
        let utc = if kind == "timestamp" { "at" } else { "at AT TIME ZONE 'UTC'" };
        assert_eq!(db.ask(&format!("SELECT {utc} FROM times")), ["2026-01-01 00:00:00.123456"]);
    }
}

#[test]
fn copies_that_start_together_create_the_tables_once() {
    let Some(db) = Database::new("create") else { return };
    let sql = format!("{CREATE_VIEWS}; CREATE TABLE once (n int); INSERT INTO once VALUES (1)");
    let created = db.runtime.block_on(async {
        let copies: Vec<_> = (0..4)
            .map(|_| {
                let (config, sql) = (db.config(), sql.clone());
                tokio::spawn(async move { config.ensure_schema(&["views", "once"], &sql).await })
            })
            .collect();
        let mut created = 0;
        for copy in copies {
            created += i32::from(copy.await.unwrap().unwrap());
        }
        created
    });
    assert_eq!(created, 1);
    assert_eq!(db.ask("SELECT count(*) FROM once"), ["1"]);
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    writer.commit(&progress(1)).unwrap();
}

#[test]
fn a_schema_that_cannot_be_made_is_an_error_that_leaves_nothing() {
    let Some(db) = Database::new("nothing") else { return };
    let ensure = |sql: &str| {
        let error = db.runtime.block_on(db.config().ensure_schema(&["views"], sql)).unwrap_err();
        assert!(!error.is_retriable());
        error.to_string()
    };
    let error = ensure("CREATE TABLE views (n int); CREATE TABLE other (n nonsense)");
    assert!(
        error.contains("cannot create the tables views") && error.contains("nonsense"),
        "{error}"
    );
    assert_eq!(db.ask("SELECT to_regclass('views')"), ["null"]);
    assert!(ensure("SELECT 1").contains("did not create all of them"));
}
