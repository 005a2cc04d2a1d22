//! Whole jobs whose lake is in trouble.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use streamkit::connector::memory::Collect;
use streamkit::connector::parquet::LakeSink;
use streamkit::prelude::*;
use streamkit::testing::{Gate, Running, Script, ScriptedSource, run};

use super::disk::Disk;
use super::support::*;

/// 100 rows, and the others when the gate is open.
fn job(lake: LakeSink<Row>, others: &Collect<Row>, more: &Gate, rows: u64) -> Job {
    let job = Job::new("lake");
    let script = Script::new().emit((0..100).map(row)).until(more).emit((100..rows).map(row));
    let strategy = WatermarkStrategy::bounded_out_of_orderness(days(3), |row: &Row| {
        Timestamp::from_micros(row.at)
    });
    let events = job.source("events", ScriptedSource::new([script]), strategy);
    events.sink("lake", lake.roll_every(millis(20)));
    events.sink("others", others.clone());
    job
}

fn config(checkpoints: &Checkpoints) -> RunConfig {
    RunConfig::new().workers(2).at_end(InputEnd::Close).checkpoints(checkpoints.clone())
}

#[test]
fn f69_a_job_outlives_a_full_disk_and_its_other_sinks_go_on() {
    let Some(disk) = Disk::mount("size=8m") else { return };
    let root = disk.path().join("lake");
    let (others, more) = (Collect::new(), Gate::new());
    let checkpoints = Checkpoints::shared();
    let running = Running::start(job(sink(&root), &others, &more, 2_000), config(&checkpoints));
    running.until("the first rows in the lake", |p| {
        p.sinks.iter().any(|sink| sink.name == "lake" && sink.rows == 100)
    });
    let filler = disk.fill();
    more.open();
    running.until("the trouble to be shown", |progress| {
        let trouble = progress.sinks.iter().filter_map(|sink| sink.trouble.as_ref());
        trouble.into_iter().any(|trouble| trouble.contains("os error 28"))
    });
    running.until("the other sink to have all", |_| others.rows().len() == 2_000);
    assert_eq!(read(&root), expected(100));
    fs::remove_file(filler).unwrap();
    running.wait().unwrap();
    assert_eq!(read(&root), expected(2_000));
    let found = streamkit::connector::parquet::Lake::open(&root).unwrap().verify().unwrap();
    assert_eq!((found.problems, found.rows), (vec![], 2_000));
}

#[test]
fn f71_a_job_that_a_failed_sync_has_stopped_goes_on_exactly() {
    let Lake { root, _folder, .. } = lake();
    let (others, more) = (Collect::new(), Gate::new());
    more.open();
    let checkpoints = Checkpoints::shared();
    let broken = Arc::new(AtomicBool::new(true));
    let on = Arc::clone(&broken);
    let lake = sink(&root).failpoints(move |at| match at {
        "lake.sync" if on.load(Ordering::SeqCst) => Err(io::Error::from_raw_os_error(5)),
        _ => Ok(()),
    });
    let error = run(job(lake, &others, &more, 500), config(&checkpoints)).unwrap_err().to_string();
    assert!(error.contains("sink lake") && error.contains("the next start reads it"), "{error}");
    assert_eq!(files(&root).len(), 0);
    run(job(sink(&root), &others, &more, 500), config(&checkpoints)).unwrap();
    assert_eq!(read(&root), expected(500));
}

/// What `verify` counts is what is there, however the job came to go on (rule D6).
#[test]
fn d6_a_lake_is_whole_after_a_gap_was_accepted_and_after_a_rebuild() {
    let Lake { root, staging, _folder } = lake();
    let (others, more, checkpoints) = (Collect::new(), Gate::new(), Checkpoints::shared());
    let running = Running::start(job(sink(&root), &others, &more, 500), config(&checkpoints));
    running.until("the first rows in the lake", |p| {
        p.sinks.iter().any(|sink| sink.name == "lake" && sink.rows == 100)
    });
    running.stop().unwrap();
    more.open();
    let whole = |rows: u64| {
        let found = streamkit::connector::parquet::Lake::open(&root).unwrap().verify().unwrap();
        assert_eq!((found.problems, found.rows), (vec![], rows));
        assert_eq!(read(&root).len() as u64, rows);
    };
    whole(100);
    fs::remove_dir_all(&root).unwrap();
    fs::remove_dir_all(&staging).unwrap();
    let start = |rows, config| run(job(sink(&root), &others, &more, rows), config);
    let error = start(500, config(&checkpoints)).unwrap_err().to_string();
    assert!(error.contains("--accept-gap \"lake\""), "{error}");
    start(500, config(&checkpoints).accept_gap("lake")).unwrap();
    whole(400);
    // The log is lost; the input has grown.
    let lost = Checkpoints::shared();
    let error = start(700, config(&lost)).unwrap_err().to_string();
    assert!(error.contains("--rebuild"), "{error}");
    let progress = start(700, config(&lost).rebuild(true)).unwrap();
    whole(600);
    // And rebuilt within its log.
    start(700, config(&lost).rebuild(true).reopen(true)).unwrap();
    whole(600);
    assert_eq!(others.rows().len(), 700);
    assert_eq!(progress.sinks.len(), 2);
}
