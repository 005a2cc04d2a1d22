//! Rows that the database refuses (F59): where they go, how they are counted, and what stops instead.

use std::collections::BTreeMap;

use streamkit::connector::postgres::{OnReject, PostgresSink};
use streamkit::connector::{Commit, Point, Progress, Sink, Table, TableRow};
use streamkit::time::Timestamp;
use streamkit::{Batch, ErrorKind};

use super::support::{Database, Views, batch, progress};

/// Progress after `rows` final rows.
fn after(rows: u64) -> Progress {
    let w = Timestamp::from_micros(rows as i64);
    Progress { point: Point::Watermark { groups: (0, 255), w, noted: BTreeMap::new() }, rows }
}

/// Rule D13: every row that the progress counts is in the table or counted, and kept, as rejected.
/// (Here each row has a key of its own.)
fn conserved(db: &Database) {
    let sums = db.ask(
        "SELECT (progress ->> 'rows')::bigint = rejected + (SELECT count(*) FROM views),
                rejected = (SELECT count(*) FROM streamkit_rejects) FROM streamkit_progress",
    );
    assert_eq!(sums, ["t|t"]);
}

#[test]
fn f59_refused_rows_go_into_the_rejects_in_the_same_transaction() {
    let Some(db) = Database::with_views("rejects") else { return };
    db.sql(
        "ALTER TABLE views ADD CHECK (view_count <> 13), ADD CONSTRAINT one UNIQUE (view_count)",
    );
    let mut writer = db.writer();
    let pages: Vec<String> = (0..500).map(|n| format!("/{n}")).collect();
    let mut rows: Vec<_> = (0..).zip(&pages).map(|(n, page)| (1, &**page, n)).collect();
    rows[7].1 = "/nul\0"; // no text of a table
    rows[9].2 = u64::MAX; // no bigint
    rows[400].2 = 399; // another unique key; "/399" sorts before "/400"
    writer.write(&batch(&rows)).unwrap();
    assert_eq!(writer.commit(&after(500)).unwrap(), Commit::Done);
    conserved(&db);
    let asked = db.ask(
        "SELECT refused_row::json ->> 'page_url', refused_row::json ->> 'view_count',
                substring(error from 'SQLSTATE \\w+|U\\+0000|64 bits'), job, sink, lineage, target
           FROM streamkit_rejects ORDER BY 3",
    );
    let schema = &db.ask("SELECT current_schema()")[0];
    let place = format!("rejects|views|first|\"{schema}\".\"views\"");
    assert_eq!(
        asked,
        [
            format!("/9|null|64 bits|{place}"),
            format!("/400|399|SQLSTATE 23505|{place}"),
            format!("/13|13|SQLSTATE 23514|{place}"),
            format!("null|7|U+0000|{place}"),
        ]
    );
    assert_eq!(db.ask("SELECT count(*) FROM views"), ["496"]);

    // It goes on, and what was rejected does not come back.
    writer.write(&batch(&[(2, "/a", 1_000)])).unwrap();
    assert_eq!(writer.commit(&after(501)).unwrap(), Commit::Done);
    conserved(&db);
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(after(501)));
}

#[test]
fn f59_a_commit_with_refused_rows_that_fails_leaves_nothing_behind() {
    let Some(db) = Database::with_views("together") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count < 10)");
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 10)])).unwrap();
    // The last step, counting, finds that another process has taken over.
    db.sql(
        "CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN UPDATE streamkit_progress SET version = version + 1; RETURN NULL; END';
         CREATE TRIGGER steal AFTER INSERT ON streamkit_rejects
            FOR EACH STATEMENT EXECUTE FUNCTION steal()",
    );
    let error = writer.commit(&after(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(db.views(), [""; 0]);
    assert_eq!(db.ask("SELECT 1 FROM streamkit_rejects"), [""; 0]);
    assert_eq!(db.ask("SELECT rejected FROM streamkit_progress"), ["0"]);

    db.sql("DROP TRIGGER steal ON streamkit_rejects");
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 10)])).unwrap();
    assert_eq!(writer.commit(&after(2)).unwrap(), Commit::Done);
    conserved(&db);
    assert_eq!(db.views(), ["1|/a|1"]);
}

#[test]
fn f59_a_batch_of_refused_rows_only_moves_the_progress() {
    let Some(db) = Database::with_views("all") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count < 0)");
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 2), (1, "/c", 3)])).unwrap();
    assert_eq!(writer.commit(&after(3)).unwrap(), Commit::Done);
    conserved(&db);
    writer.write(&batch(&[(1, "/nul\0", 1)])).unwrap();
    assert_eq!(writer.commit(&after(4)).unwrap(), Commit::Done);
    conserved(&db);
    assert_eq!(db.views(), [""; 0]);
    assert_eq!(writer.recover(&db.claim()).unwrap(), Some(after(4)));
}

#[test]
fn f59_a_large_commit_with_a_refused_row_is_one_transaction_too() {
    let Some(db) = Database::with_views("large_reject") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count < 1000000)");
    let mut writer = db.writer();
    let pages: Vec<_> = (0..60_000).map(|n| format!("/{n}")).collect();
    let mut rows: Vec<_> = pages.iter().map(|page| (1, page.as_str(), 1)).collect();
    rows[59_000].2 = 1_000_000;
    writer.write(&batch(&rows)).unwrap();
    assert_eq!(writer.commit(&after(60_000)).unwrap(), Commit::Done);
    conserved(&db);
    assert_eq!(db.ask("SELECT count(*) FROM views"), ["59999"]);
}

#[test]
fn f59_a_constraint_that_waits_for_the_commit_does_not_loop() {
    let Some(db) = Database::with_views("deferred") else { return };
    db.sql("ALTER TABLE views ADD UNIQUE (view_count) DEFERRABLE INITIALLY DEFERRED");
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 1), (1, "/c", 2)])).unwrap();
    assert_eq!(writer.commit(&after(3)).unwrap(), Commit::Done);
    conserved(&db);
    assert_eq!(db.views(), ["1|/a|1", "1|/c|2"]);
}

#[test]
fn f59_stopping_is_a_choice_and_names_the_table() {
    let Some(db) = Database::with_views("refused") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count < 10)");
    let mut sink = PostgresSink::<Views>::new(&db.config()).on_reject(OnReject::Stop);
    let mut writer = sink.open(&db.context("views")).unwrap();
    writer.recover(&db.claim()).unwrap();
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 10)])).unwrap();
    let error = writer.commit(&progress(1)).unwrap_err();
    assert!(!error.is_retriable());
    assert!(error.to_string().contains("views") && error.to_string().contains("23514"), "{error}");
    assert_eq!(db.views(), [""; 0]);
    assert_eq!(writer.recover(&db.claim()).unwrap(), None);
    let error = writer.write(&batch(&[(1, "/\0", 1)])).unwrap_err();
    assert!(error.to_string().contains("table views, column page_url: U+0000"), "{error}");
}

#[test]
fn f59_more_rejects_than_allowed_stop_the_job_and_write_nothing() {
    let Some(db) = Database::with_views("max_rejects") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count < 10)");
    let open = |limit| {
        let mut sink = PostgresSink::<Views>::new(&db.config()).max_rejects(Some(limit));
        let mut writer = sink.open(&db.context("views")).unwrap();
        writer.recover(&db.claim()).unwrap();
        writer
    };
    let mut writer = open(2);
    writer.write(&batch(&[(1, "/a", 1), (1, "/b", 10), (1, "/nul\0", 1)])).unwrap();
    assert_eq!(writer.commit(&after(3)).unwrap(), Commit::Done, "as many as are allowed");
    assert_eq!(writer.rejected(), 2);
    writer.write(&batch(&[(2, "/a", 1)])).unwrap();
    assert_eq!(writer.commit(&after(4)).unwrap(), Commit::Done, "and what fits goes on");
    conserved(&db);
    for (rows, why) in
        [([(3, "/c", 1), (3, "/d", 11)], "23514"), ([(3, "/c", 1), (3, "\0", 1)], "U+0000")]
    {
        writer.write(&batch(&rows)).unwrap();
        let error = writer.commit(&after(6)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("max_rejects = 2") && text.contains("\"views\"") && text.contains(why),
            "{text}"
        );
        assert_eq!(writer.recover(&db.claim()).unwrap(), Some(after(4)));
        assert_eq!(writer.rejected(), 2);
        conserved(&db);
    }
    drop(writer);
    // What the job had before counts after a restart, too; a higher limit lets it go on.
    let mut writer = open(3);
    assert_eq!(writer.rejected(), 2);
    writer.write(&batch(&[(3, "/c", 1), (3, "/d", 11)])).unwrap();
    assert_eq!(writer.commit(&after(6)).unwrap(), Commit::Done);
    assert_eq!(writer.rejected(), 3);
    conserved(&db);
}

#[test]
fn f63_a_new_column_that_refuses_every_row_is_not_the_rows_fault() {
    let Some(db) = Database::with_views("column") else { return };
    let mut writer = db.writer();
    db.sql("ALTER TABLE views ADD region text NOT NULL");
    writer.write(&batch(&[(1, "/a", 1)])).unwrap();
    let error = writer.commit(&after(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("column region of table"), "{error}");
    assert_eq!(db.ask("SELECT 1 FROM streamkit_rejects"), [""; 0]);
}

#[test]
fn a_progress_table_of_an_earlier_version_learns_to_count_rejects() {
    let Some(db) = Database::with_views("earlier") else { return };
    let mut writer = db.writer();
    writer.commit(&after(0)).unwrap();
    drop(writer);
    db.sql("ALTER TABLE streamkit_progress DROP COLUMN rejected; DROP TABLE streamkit_rejects");
    let mut writer = db.writer();
    writer.write(&batch(&[(1, "/nul\0", 1)])).unwrap();
    assert_eq!(writer.commit(&after(1)).unwrap(), Commit::Done);
    conserved(&db);
}

struct Note(String, String);

impl TableRow for Note {
    fn table() -> Table<Self> {
        Table::<Self>::new("notes").key(["k"]).text("k", |row| &row.0).text("v", |row| &row.1)
    }
}

#[test]
fn f22_text_that_looks_like_sql_is_text() {
    let Some(db) = Database::new("injection") else { return };
    db.sql("CREATE TABLE notes (k text PRIMARY KEY, v text CHECK (v <> k))");
    let nasty = "'); DROP TABLE notes; --";
    let texts = [nasty, "\"; DROP TABLE notes", "$$ \\' $1", "{\"a\": \"}\"}", "%s\u{1b}[2J\n"];
    let mut context = db.context("views");
    context.instance = nasty.to_owned();
    let mut writer = PostgresSink::<Note>::new(&db.config()).open(&context).unwrap();
    let claim = streamkit::connector::Claim { lineage: nasty.to_owned(), ..db.claim() };
    writer.recover(&claim).unwrap();
    let rows: Vec<_> = texts.iter().map(|text| Note((*text).to_owned(), "v".to_owned())).collect();
    // Its values are equal, so it is refused and must survive as text.
    let refused = Note(nasty.repeat(2), nasty.repeat(2));
    let all: Vec<_> = rows.into_iter().chain([refused]).collect();
    let times = vec![Timestamp::MIN; all.len()];
    writer.write(&Batch::new(all, times)).unwrap();
    assert_eq!(writer.commit(&after(6)).unwrap(), Commit::Done);
    let mut found = db.ask("SELECT k FROM notes");
    found.sort();
    let mut expected = texts.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(found, expected);
    let rejected = db.ask("SELECT refused_row::json ->> 'k' FROM streamkit_rejects");
    assert_eq!(rejected, [nasty.repeat(2)]);
}
