//! Records that user code cannot process: each becomes a dead letter and leaves all branches, and
//! everything else is as if it had never been usable (rule D1, fault F85).

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Event, Everything, Marked, Role, all_marks, at, check_conservation, strategy};
use streamkit::connector::DeadLetter;
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, Gate, Running, Script, ScriptedSource, run};

/// Two splits with disorder. Every 40th record of a split is far ahead: where it is given up, it
/// must not make those after it late.
fn splits() -> Vec<Vec<Event>> {
    let split = |s: u64| {
        let event = |i: u64| Event {
            time: (i as i64) + if i % 40 == 39 { 50 } else { 0 } - (i % 3) as i64 * 4,
            user: format!("u{}", i % 7),
            role: Role::Other,
            id: s * 1_000 + i,
        };
        (0..400).map(event).collect()
    };
    vec![split(0), split(1)]
}

fn is_bad(id: u64) -> bool {
    id % 40 == 39
}

/// What is left when the bad ones are no records.
fn model_without_bad() -> Vec<Marked> {
    let good = splits().into_iter().map(|s| s.into_iter().filter(|e| !is_bad(e.id)).collect());
    all_marks(&good.collect::<Vec<Vec<Event>>>())
}

fn bad_positions() -> BTreeSet<(i32, u64)> {
    (0..2).flat_map(|s| (0..400).filter(|i| is_bad(*i)).map(move |i| (s, i))).collect()
}

fn positions(dead: &Collect<DeadLetter>) -> BTreeSet<(i32, u64)> {
    let rows = dead.rows();
    let set: BTreeSet<_> = rows.iter().map(|letter| (letter.partition, letter.offset)).collect();
    assert_eq!(set.len(), rows.len(), "each once");
    assert!(rows.iter().all(|letter| letter.reason == "processing_error"), "{rows:?}");
    set
}

type Prepare = fn(&Stream<Event>) -> Stream<Event>;

/// A job whose last branch fails on the bad records; the others have them already by then.
fn failing(
    outputs: &Everything,
    dead: &Collect<DeadLetter>,
    source: ScriptedSource<Event>,
    branch: impl Fn(&Stream<Event>),
) -> Job {
    let job = Job::new("record errors");
    let events = job.source("events", source, strategy());
    outputs.build(&events);
    events.dead_letters().sink("dead letters", dead.clone());
    branch(&events);
    job
}

#[test]
fn f85_a_panic_in_any_step_takes_the_record_out_of_all_branches() {
    let boom = |e: &Event| assert!(!is_bad(e.id), "boom");
    let prepare: [(&str, Prepare); 4] = [
        ("inspect", |s| s.inspect(|e| assert!(!is_bad(e.id), "boom"))),
        ("map", |s| s.map(|e| if is_bad(e.id) { panic!("boom") } else { e.clone() })),
        ("filter", |s| s.filter(|e| if is_bad(e.id) { panic!("boom") } else { true })),
        ("flat_map", |s| s.flat_map(|e| if is_bad(e.id) { panic!("boom") } else { [e.clone()] })),
    ];
    for workers in [1, 3] {
        for (step, prepare) in prepare {
            let (outputs, dead) = (Everything::new(), Collect::new());
            let last = Collect::new();
            let job = failing(&outputs, &dead, ScriptedSource::splits(splits()), |events| {
                prepare(events).sink("last", last.clone());
            });
            let progress = run(job, RunConfig::new().workers(workers)).unwrap();
            outputs.check(&model_without_bad());
            assert_eq!(positions(&dead), bad_positions(), "{step}");
            assert!(
                dead.rows().iter().all(|l| l.error.starts_with(step) && l.error.contains("boom"))
            );
            assert_eq!(last.rows().len(), 780);
            assert_eq!((progress.read, progress.accepted), (800, 780));
            assert_eq!(progress.dead_letters["processing_error"], 20);
            check_conservation(&progress);
        }
        let (outputs, dead) = (Everything::new(), Collect::new());
        let job = failing(&outputs, &dead, ScriptedSource::splits(splits()), |events| {
            let key = move |e: &Event| {
                boom(e);
                e.id % 3
            };
            let counts = events.key_by_value(key).window(Tumbling::of(seconds(10)));
            counts.aggregate("by key", count()).sink("last", Collect::new());
        });
        check_conservation(&run(job, RunConfig::new().workers(workers)).unwrap());
        outputs.check(&model_without_bad());
        assert_eq!(positions(&dead), bad_positions(), "a key");
    }
}

#[test]
fn f85_a_panic_that_does_not_come_again_costs_nothing() {
    let (outputs, dead) = (Everything::new(), Collect::new());
    let panics = Arc::new(AtomicU64::new(0));
    let job = failing(&outputs, &dead, ScriptedSource::splits(splits()), |events| {
        let panics = Arc::clone(&panics);
        let once = move |e: &Event| {
            if e.id == 39 {
                assert!(panics.fetch_add(1, Ordering::SeqCst) > 0, "only once");
            }
        };
        events.inspect(once).sink("last", Collect::new());
    });
    let progress = run(job, RunConfig::new()).unwrap();
    assert!(panics.load(Ordering::SeqCst) > 1);
    assert_eq!((progress.accepted, positions(&dead).len()), (800, 0));
    outputs.check(&all_marks(&splits()));
}

#[test]
fn f85_a_time_that_cannot_be_read_is_a_dead_letter() {
    let (outputs, dead) = (Everything::new(), Collect::new());
    let job = Job::new("times");
    let strategy = WatermarkStrategy::bounded_out_of_orderness(seconds(10), |e: &Event| {
        assert!(!is_bad(e.id), "no time");
        at(e.time)
    });
    let events = job.source("events", ScriptedSource::splits(splits()).read_size(30), strategy);
    events.dead_letters().sink("dead letters", dead.clone());
    outputs.build(&events);
    let progress = run(job, RunConfig::new()).unwrap();
    outputs.check(&model_without_bad());
    assert_eq!(positions(&dead), bad_positions());
    check_conservation(&progress);
}

#[test]
fn d1_a_record_that_was_given_up_stays_so_in_every_replay() {
    // The first run gives the records up and then fails; in the second nothing is wrong with them.
    let (mut outputs, dead) = (Everything::new(), Collect::new());
    let checkpoints = Checkpoints::shared();
    outputs.faults = vec![("tumbling rows", Fault::BreakCommit(3))];
    for bad in [true, false] {
        if !bad {
            outputs.faults.clear();
        }
        let job =
            failing(&outputs, &dead, ScriptedSource::splits(splits()).read_size(50), |events| {
                events
                    .inspect(move |e| assert!(!(bad && is_bad(e.id))))
                    .sink("last", Collect::new());
            });
        let result = run(job, RunConfig::new().workers(2).checkpoints(checkpoints.clone()));
        assert_eq!(result.is_err(), bad, "{result:?}");
    }
    let given_up = positions(&dead);
    assert!(!given_up.is_empty());
    let left = splits().into_iter().zip(0..).map(|(split, s)| {
        let kept = |e: &Event| !given_up.contains(&(s, e.id % 1_000));
        split.into_iter().filter(kept).collect()
    });
    outputs.check(&all_marks(&left.collect::<Vec<Vec<Event>>>()));
}

#[test]
fn without_dead_letters_a_panic_stops_the_job_and_names_the_record() {
    let job = Job::new("no dead letters");
    let events = job.source("events", ScriptedSource::splits(splits()), strategy());
    events.inspect(|e| assert!(e.id != 77, "boom")).sink("last", Collect::new());
    let error = run(job, RunConfig::new().workers(1)).unwrap_err();
    assert!(error.to_string().contains("boom"), "{error}");
    assert!(error.step().unwrap().starts_with("inspect"), "{error}");
    assert_eq!(error.origin(), Some("script/0@77"));
}

#[test]
fn a_function_that_fails_does_what_its_policy_says() {
    let fails = |e: &Event| if is_bad(e.id) { Err(format!("{} is bad", e.id)) } else { Ok(e.id) };
    let run_with = |on_error: OnError| {
        let (outputs, dead, last) = (Everything::new(), Collect::new(), Collect::new());
        let job = failing(&outputs, &dead, ScriptedSource::splits(splits()), |events| {
            events.try_map(fails, on_error).sink("last", last.clone());
        });
        (run(job, RunConfig::new().workers(2)), outputs, dead, last)
    };
    let (result, outputs, dead, last) = run_with(OnError::dead_letter());
    result.unwrap();
    outputs.check(&model_without_bad());
    assert_eq!((positions(&dead), last.rows().len()), (bad_positions(), 780));
    let letter = dead.rows().into_iter().find(|l| l.partition == 0 && l.offset == 39).unwrap();
    assert!(letter.error.ends_with("39 is bad"), "{}", letter.error);

    let (result, outputs, dead, last) = run_with(OnError::skip());
    result.unwrap();
    outputs.check(&all_marks(&splits()));
    assert_eq!((dead.rows().len(), last.rows().len()), (0, 780), "the other branches keep it");

    let error = run_with(OnError::fail()).0.unwrap_err();
    assert!(error.to_string().contains("is bad"), "{error}");
}

#[test]
fn a_function_is_tried_as_often_as_its_policy_says() {
    for (retries, left) in [(2, 800), (0, 799)] {
        let (dead, last) = (Collect::new(), Collect::new());
        let job = Job::new("retries");
        let events = job.source("events", ScriptedSource::splits(splits()), strategy());
        events.dead_letters().sink("dead letters", dead.clone());
        let tries = AtomicU64::new(0);
        let third_time = move |e: &Event| match e.id {
            39 if tries.fetch_add(1, Ordering::SeqCst) < 2 => Err("not yet"),
            id => Ok(id),
        };
        // Without retries the first try is with the batch, and the second one alone.
        let on_error = OnError::dead_letter().retries(retries);
        events.try_map(third_time, on_error).sink("last", last.clone());
        run(job, RunConfig::new().workers(1)).unwrap();
        assert_eq!((last.rows().len(), positions(&dead).len()), (left, 800 - left));
    }
}

#[test]
fn f19_a_job_stops_when_too_many_records_are_dead_letters() {
    let (go, dead) = (Gate::new(), Collect::new());
    let mut script = Script::new();
    for event in splits().remove(0) {
        script = script.emit([event]);
        for _ in 0..4 {
            script = script.reject("bad");
        }
    }
    let script = script.until(&go);
    let build = || {
        let job = Job::new("garbage");
        let events = job.source("events", ScriptedSource::new([script.clone()]), strategy());
        events.dead_letters().sink("dead letters", dead.clone());
        events.sink("rows", Collect::new());
        job
    };
    let checkpoints = Checkpoints::shared();
    let limit =
        |part| RunConfig::new().checkpoints(checkpoints.clone()).max_dead_letters(Some(part));
    let running = Running::start(build(), limit(0.7));
    let error = running.wait().unwrap_err();
    assert!(error.message().contains("of 2000 records are dead letters"), "{error}");
    assert!(error.message().contains("bad 1600") && error.message().contains("0.7"), "{error}");
    let error = run(build(), limit(1.5)).unwrap_err();
    assert!(error.message().contains("max_dead_letters is 1.5"), "{error}");
    go.open();
    run(build(), limit(0.9)).unwrap();
}
