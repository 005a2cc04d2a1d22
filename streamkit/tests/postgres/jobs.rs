//! Whole jobs whose table is in trouble.

use std::time::Duration;

use streamkit::connector::memory::Collect;
use streamkit::connector::postgres::PostgresSink;
use streamkit::prelude::*;
use streamkit::testing::{Gate, Running, Script, ScriptedSource};

use super::support::{Database, Views};

fn row(n: u64) -> Views {
    Views { minute: n as i64 % 60, page: format!("/{n}"), count: n }
}

fn start(db: &Database, others: &Collect<Views>, more: &Gate) -> Running {
    let script = Script::new().emit((0..100).map(row)).until(more).emit((100..2_000).map(row));
    start_with(db, others, script, &Checkpoints::shared())
}

fn start_with(
    db: &Database,
    others: &Collect<Views>,
    script: Script<Views>,
    checkpoints: &Checkpoints,
) -> Running {
    let job = Job::new(db.job());
    let strategy = WatermarkStrategy::bounded_out_of_orderness(hours(2), |row: &Views| {
        Timestamp::from_micros(row.minute * 60_000_000)
    });
    let events = job.source("events", ScriptedSource::new([script]), strategy);
    let config = db.config().statement_timeout(Duration::from_millis(300));
    events.sink("views", PostgresSink::<Views>::new(&config));
    events.sink("others", others.clone());
    let config = RunConfig::new().workers(2).at_end(InputEnd::Close);
    Running::start(job, config.checkpoints(checkpoints.clone()))
}

fn in_trouble(running: &Running, text: &str) {
    running.until("the trouble to be shown", |progress| {
        let trouble = progress.sinks.iter().filter_map(|sink| sink.trouble.as_ref());
        trouble.into_iter().any(|trouble| trouble.contains(text))
    });
}

#[test]
fn f64_while_somebody_locks_a_table_the_other_sinks_go_on() {
    let Some(db) = Database::with_views("locked") else { return };
    let (others, more) = (Collect::new(), Gate::new());
    let running = start(&db, &others, &more);
    running.until("the first rows", |progress| {
        progress.sinks.iter().filter(|sink| sink.rows == 100).count() == 2
    });
    db.sql("BEGIN; LOCK TABLE views IN ACCESS EXCLUSIVE MODE");
    more.open();
    in_trouble(&running, "statement timeout");
    running.until("the other sink to have all", |_| others.rows().len() == 2_000);
    db.sql("COMMIT");
    running.wait().unwrap();
    assert_eq!(db.ask("SELECT count(*), sum(view_count) FROM views"), ["2000|1999000"]);
}

#[test]
fn f59_a_job_with_rows_that_are_refused_ends_well_and_counts_every_row() {
    let Some(db) = Database::with_views("counts") else { return };
    db.sql("ALTER TABLE views ADD CHECK (view_count % 100 <> 7)");
    let (others, more) = (Collect::new(), Gate::new());
    more.open();
    let running = start(&db, &others, &more);
    let progress = running.wait().unwrap();
    let rejected = progress.sinks.iter().map(|sink| (&*sink.name, sink.rejected));
    assert_eq!(rejected.collect::<Vec<_>>(), [("views", 20), ("others", 0)]);
    let law = "SELECT progress ->> 'rows', rejected, (SELECT count(*) FROM views),
                      (SELECT count(*) FROM streamkit_rejects) FROM streamkit_progress";
    assert_eq!(db.ask(law), ["2000|20|1980|20"]);
    assert_eq!(others.rows().len(), 2_000);
}

/// A replica takes over that lacks the last transactions: rows and progress go back together. The job
/// stops, since somebody else seems to have written, and the next start fills in what is missing from an
/// older checkpoint (rule D7).
#[test]
fn f57_a_server_that_has_lost_its_last_transactions_gets_them_again() {
    let Some(db) = Database::with_views("failover") else { return };
    let (others, more, end) = (Collect::new(), Gate::new(), Gate::new());
    let checkpoints = Checkpoints::shared();
    let script = || {
        let script = Script::new().emit((0..100).map(row)).until(&more);
        script.emit((100..2_000).map(row)).until(&end).emit((2_000..2_100).map(row))
    };
    let running = start_with(&db, &others, script(), &checkpoints);
    let written = |progress: &streamkit::JobProgress, n: u64| {
        progress.sinks.iter().filter(|sink| sink.rows >= n).count() == 2
    };
    running.until("the first rows", |progress| written(progress, 100));
    db.sql(
        "CREATE TABLE views_then AS TABLE views;
         CREATE TABLE progress_then AS TABLE streamkit_progress",
    );
    more.open();
    running.until("more rows", |progress| written(progress, 2_000));
    db.sql(
        "BEGIN; TRUNCATE views, streamkit_progress;
         INSERT INTO views TABLE views_then;
         INSERT INTO streamkit_progress TABLE progress_then; COMMIT",
    );
    db.terminate_writers();
    end.open();
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("progress that this process did not write"), "{error}");
    start_with(&db, &others, script(), &checkpoints).wait().unwrap();
    assert_eq!(db.ask("SELECT count(*), sum(view_count) FROM views"), ["2100|2203950"]);
    assert_eq!(db.ask("SELECT progress ->> 'rows' FROM streamkit_progress"), ["2100"]);
    assert_eq!(others.rows().len(), 2_100);
}
