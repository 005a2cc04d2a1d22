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
    let job = Job::new(db.job());
    let script = Script::new().emit((0..100).map(row)).until(more).emit((100..2_000).map(row));
    let strategy = WatermarkStrategy::bounded_out_of_orderness(hours(2), |row: &Views| {
        Timestamp::from_micros(row.minute * 60_000_000)
    });
    let events = job.source("events", ScriptedSource::new([script]), strategy);
    let config = db.config().statement_timeout(Duration::from_millis(300));
    events.sink("views", PostgresSink::<Views>::new(&config));
    events.sink("others", others.clone());
    let config = RunConfig::new().workers(2).at_end(InputEnd::Close);
    Running::start(job, config.checkpoints(Checkpoints::shared()))
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
    start(&db, &others, &more).wait().unwrap();
    let law = "SELECT progress ->> 'rows', rejected, (SELECT count(*) FROM views),
                      (SELECT count(*) FROM streamkit_rejects) FROM streamkit_progress";
    assert_eq!(db.ask(law), ["2000|20|1980|20"]);
    assert_eq!(others.rows().len(), 2_000);
}
