//! Sinks that are far behind or take nothing: the others go on, checkpoints are made, and in the end
//! every sink has everything (rules D4, D5). And sources that do not answer at the start.

mod model;

use model::{Event, Everything, Role, all_marks, check_conservation, ids, strategy};
use streamkit::prelude::*;
use streamkit::testing::{Fault, Gate, Running, Script, ScriptedSource, run};
use streamkit::{JobProgress, SinkProgress};

/// So many records of each split that no queue holds all of them.
const RECORDS: u64 = 3_000;

/// Two splits, some disorder, some records that are late for some windows or all.
fn splits() -> Vec<Vec<Event>> {
    let event = |split: u64, n: u64| Event {
        time: (n as i64) / 4 - if n % 97 == 96 { 35 } else { (n * 7 % 5) as i64 },
        user: format!("u{}", (n + split) % 5),
        role: match n % 31 {
            0 => Role::Start,
            17 => Role::End,
            _ => Role::Other,
        },
        id: split * 1_000_000 + n,
    };
    (0..2).map(|split| (0..RECORDS).map(|n| event(split, n)).collect()).collect()
}

fn job(outputs: &Everything, source: ScriptedSource<Event>) -> Job {
    let job = Job::new("stuck");
    outputs.build(&job.source("events", source.read_size(5), strategy()));
    job
}

fn config(checkpoints: &Checkpoints) -> RunConfig {
    RunConfig::new()
        .workers(2)
        .queue(64)
        .at_end(InputEnd::Close)
        .checkpoint_interval(millis(5))
        .detach_after(millis(0))
        .catch_up_beyond(0)
        .checkpoints(checkpoints.clone())
}

/// What a sink shows; nothing until the job has started.
fn sink(progress: &JobProgress, name: &str) -> SinkProgress {
    progress.sinks.iter().find(|sink| sink.name == name).cloned().unwrap_or_default()
}

fn checkpoint(progress: &JobProgress) -> u64 {
    progress.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number)
}

/// The input is read to its end and every window but the last is out, while a sink behind stateless
/// steps takes nothing; it gets all of it from the source when it is back.
#[test]
fn d5_a_job_goes_on_without_a_sink_that_is_stuck() {
    let (splits, mut outputs, gate) = (splits(), Everything::new(), Gate::new());
    outputs.faults = vec![("raw", Fault::SlowUntil(gate.clone()))];
    let source = ScriptedSource::splits(splits.clone());
    let running = Running::start(job(&outputs, source), config(&Checkpoints::shared()));
    running.until("everything to be read without the sink", |p| {
        let raw = sink(p, "raw");
        p.read == 2 * RECORDS && raw.rows == 0 && raw.detached && raw.behind > RECORDS
    });
    running.until("nearly all windows", |p| sink(p, "tumbling rows").rows > 5 * 36);
    let before = checkpoint(&running.progress());
    running.until("checkpoints without the sink", |p| checkpoint(p) > before + 2);
    gate.open();
    let progress = running.wait().unwrap();
    let raw = sink(&progress, "raw");
    assert_eq!((raw.rows, raw.behind, raw.detached), (2 * RECORDS, 0, false));
    check_conservation(&progress);
    outputs.check(&all_marks(&splits));
}

/// The same, and the process dies while the sink is out.
#[test]
fn d5_a_sink_that_was_left_out_is_caught_up_with_after_a_restart() {
    let (splits, mut outputs) = (splits(), Everything::new());
    let (gate, checkpoints) = (Gate::new(), Checkpoints::shared());
    outputs.faults = vec![("raw", Fault::SlowUntil(gate.clone())), ("raw", Fault::BreakCommit(1))];
    let source = ScriptedSource::splits(splits.clone());
    let running = Running::start(job(&outputs, source), config(&checkpoints));
    running.until("a checkpoint at the end of what is read", |p| {
        p.read == 2 * RECORDS && checkpoint(p) > 0
    });
    let before = checkpoint(&running.progress());
    running.until("another one", |p| checkpoint(p) > before + 1);
    gate.open();
    assert!(running.wait().is_err());

    // Now it waits again, and the main reader has nothing left to read.
    let again = Gate::new();
    outputs.faults = vec![("raw", Fault::SlowUntil(again.clone()))];
    let source = ScriptedSource::splits(splits.clone());
    let running = Running::start(job(&outputs, source), config(&checkpoints));
    running.until("the state to be at the end, and the sink at the start", |p| {
        p.read == 2 * RECORDS && sink(p, "raw").behind > 0
    });
    again.open();
    let progress = running.wait().unwrap();
    check_conservation(&progress);
    outputs.check(&all_marks(&splits));
}

/// While a sink behind windows takes nothing, the job comes to a halt when its queues are full; but
/// checkpoints go on, and hold what has fired and is not delivered. A restart delivers it.
#[test]
fn d4_checkpoints_are_made_while_a_sink_behind_windows_is_stuck() {
    let (splits, mut outputs) = (splits(), Everything::new());
    let (gate, checkpoints) = (Gate::new(), Checkpoints::shared());
    outputs.faults =
        vec![("tumbling rows", Fault::SlowUntil(gate.clone())), ("tumbling rows", Fault::Panic(1))];
    // One user, one window a second: so many results that they fill the queue.
    let source = ScriptedSource::splits(splits.clone());
    let config = || config(&checkpoints).running_values(Some(millis(5)));
    let running = Running::start(job(&outputs, source), config());
    let mut last = (0, 0);
    let mut same = 0;
    running.until("the job to come to a halt", |p| {
        let now = (p.read, checkpoint(p));
        same = if now.0 == last.0 && p.back_pressured > 0 { same + 1 } else { 0 };
        last = now;
        same > 50
    });
    let before = running.progress();
    running.until("checkpoints all the same", |p| checkpoint(p) > checkpoint(&before) + 3);
    let after = running.progress();
    assert!(after.read < 2 * RECORDS, "it was not held up: the test shows nothing");
    assert_eq!(after.read, before.read, "its state grows while it waits");
    gate.open();
    assert!(running.wait().is_err());
    outputs.faults.clear();
    let progress = run(job(&outputs, ScriptedSource::splits(splits.clone())), config()).unwrap();
    check_conservation(&progress);
    outputs.check(&all_marks(&splits));
}

/// A job that has run before waits for a target that is down when it starts, as it would later; and it
/// can be stopped meanwhile. Of a new job it is an error, since its settings are probably wrong.
#[test]
fn f54_a_job_that_has_run_waits_for_a_target_that_is_down_at_its_start() {
    let (splits, mut outputs) = (splits(), Everything::new());
    let (gate, checkpoints) = (Gate::new(), Checkpoints::shared());
    let start = |outputs: &Everything, checkpoints: &Checkpoints| {
        let source = ScriptedSource::splits(splits.clone());
        Running::start(job(outputs, source), config(checkpoints))
    };
    let poisoned = Everything { poison: Some(1_000_500), ..outputs.clone() };
    let running = start(&poisoned, &checkpoints);
    assert!(running.wait().unwrap_err().to_string().contains("poisoned"));
    outputs.faults = vec![("users rows", Fault::DownUntil(gate.clone()))];
    let new = Everything { faults: outputs.faults.clone(), ..Everything::new() };
    let error = start(&new, &Checkpoints::shared()).wait().unwrap_err();
    assert!(error.is_retriable(), "a new job: {error}");
    let waits = |p: &JobProgress| sink(p, "users rows").trouble.is_some();
    let running = start(&outputs, &checkpoints);
    running.until("the sink to be tried", waits);
    assert!(running.stop().is_err(), "it could not even start");
    let running = start(&outputs, &checkpoints);
    running.until("the sink to be tried again", waits);
    gate.open();
    let progress = running.wait().unwrap();
    check_conservation(&progress);
    outputs.check(&all_marks(&splits));
}

/// The same for a source.
#[test]
fn f27_a_job_that_has_run_waits_for_a_source_that_is_down_at_its_start() {
    let (splits, outputs) = (splits(), Everything::new());
    let (gate, checkpoints) = (Gate::new(), Checkpoints::shared());
    let source = || ScriptedSource::splits(splits.clone());
    let poisoned = Everything { poison: Some(1_000_500), ..outputs.clone() };
    let running = Running::start(job(&poisoned, source()), config(&checkpoints));
    assert!(running.wait().unwrap_err().to_string().contains("poisoned"));
    let start = |outputs: &Everything, checkpoints: &Checkpoints| {
        Running::start(job(outputs, source().down_until(&gate)), config(checkpoints))
    };
    let error = start(&Everything::new(), &Checkpoints::shared()).wait().unwrap_err();
    assert!(error.is_retriable(), "a new job: {error}");
    let waits = |p: &JobProgress| p.trouble.as_ref().is_some_and(|t| t.contains("is down"));
    let running = start(&outputs, &checkpoints);
    running.until("the source to be asked", waits);
    assert!(running.stop().is_err(), "it could not even start");
    let running = start(&outputs, &checkpoints);
    running.until("the source to be asked again", waits);
    gate.open();
    let progress = running.wait().unwrap();
    assert_eq!(progress.trouble, None);
    check_conservation(&progress);
    outputs.check(&all_marks(&splits));
}

/// A split that the job finds while a sink is out is not lost to the sink.
#[test]
fn d5_a_split_that_appears_while_a_sink_is_out_reaches_it() {
    let (splits, mut outputs) = (splits(), Everything::new());
    let (gate, later) = (Gate::new(), Gate::new());
    outputs.faults = vec![("raw", Fault::SlowUntil(gate.clone()))];
    let script = |split: &Vec<Event>| Script::new().emit(split.clone()).stays();
    let source = ScriptedSource::new([script(&splits[0])]).later(&later, [script(&splits[1])]);
    let config =
        config(&Checkpoints::shared()).at_end(InputEnd::Wait).discover_every(Some(millis(1)));
    let running = Running::start(job(&outputs, source), config);
    running.until("the sink to be left out", |p| p.read == RECORDS && sink(p, "raw").detached);
    later.open();
    running.until("the new split to be read", |p| p.read == 2 * RECORDS);
    gate.open();
    running.until("the sink to have all of it", |p| sink(p, "raw").rows == 2 * RECORDS);
    running.stop().unwrap();
    assert_eq!(ids(&outputs.raw.rows()), ids(&splits.concat()));
}
