//! What a job says about its plan: when a step fails, when the plan is wrong, when it has changed.

mod model;

use std::sync::Arc;

use model::{Event, closing, many, strategy};
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Script, ScriptedSource, run};
use streamkit::{Error, ErrorKind, PlanFormat};

fn failing(build: impl FnOnce(&Stream<Event>), script: Script<Event>) -> Arc<Error> {
    let job = Job::new("failing");
    build(&job.source("events", ScriptedSource::new([script]), strategy()));
    run(job, closing(2)).unwrap_err()
}

#[test]
fn an_error_names_the_step_its_place_and_the_record() {
    let script = || Script::new().emit(many(10, 0));
    let sink = |s: &Stream<u64>| s.sink("rows", Collect::new());
    let error = failing(
        |e| {
            sink(&e.map(|e| {
                assert_ne!(e.id, 7, "seven");
                e.id
            }))
        },
        script(),
    );
    assert_eq!(error.kind(), ErrorKind::Record);
    let step = error.step().unwrap();
    assert!(step.starts_with("map (") && step.contains("engine_plans.rs:"), "{step}");
    assert!(error.to_string().contains("seven"), "{error}");
    assert!(error.origin() == Some("script/0@7"), "{error}");

    let error = failing(|e| sink(&e.map(|e| e.id)), script().fail("no disk").emit(many(1, 100)));
    assert!(error.step().unwrap().starts_with("source events ("), "{error}");
    assert!(
        error.to_string().contains("no disk") && error.to_string().contains("script/0@10"),
        "{error}"
    );

    let broken = FlakySink::new(Collect::new(), [Fault::BreakWrite(1)]);
    let error = failing(|e| e.map(|e| e.id).sink("rows", broken), script());
    assert!(error.step().unwrap().starts_with("sink rows ("), "{error}");
    let broken = FlakySink::new(Collect::new(), [Fault::Panic(1)]);
    let error = failing(|e| e.map(|e| e.id).sink("rows", broken), script());
    assert!(error.step().unwrap().starts_with("sink rows ("), "{error}");
}

#[test]
fn a_wrong_plan_is_refused_with_its_place() {
    let refused = |build: &dyn Fn(&Stream<Event>)| {
        let error = failing(build, Script::new());
        assert_eq!(error.kind(), ErrorKind::User);
        error.to_string()
    };
    let sink = |s: &Stream<Event>, name: &str| s.sink(name, Collect::new());
    let twice = refused(&|e| {
        sink(e, "rows");
        sink(e, "rows");
    });
    assert!(twice.contains("used twice") && twice.contains("engine_plans.rs"), "{twice}");
    assert!(refused(&|e| sink(e, "a/b")).contains("must be 1 to 100"));
    let mixed = refused(&|e| {
        let by = e.key_by(|e: &Event| e.user.as_str()).window(Tumbling::of(seconds(1)));
        e.map(|_| 0u64)
            .union(&by.aggregate("n", count()).map(|w| w.value))
            .sink("x", Collect::new());
    });
    assert!(mixed.contains("cannot be united"), "{mixed}");
    let none = run(Job::new("empty"), closing(1)).unwrap_err();
    assert!(none.to_string().contains("no source"), "{none}");
}

#[test]
fn d12_a_changed_plan_is_refused_and_a_plan_can_be_printed() {
    let (checkpoints, rows) = (Checkpoints::shared(), Collect::new());
    let build = |size: u64| {
        let job = Job::new("changed");
        job.source("events", ScriptedSource::splits([many(10, 0)]), strategy())
            .key_by(|e: &Event| e.user.as_str())
            .window(Tumbling::of(seconds(size)))
            .aggregate("counts", count())
            .sink("rows", rows.clone());
        job
    };
    let text = build(60).describe(PlanFormat::Text);
    assert!(text.contains("aggregate counts: 60s"), "{text}");
    for format in [PlanFormat::Mermaid, PlanFormat::Dot, PlanFormat::Json] {
        assert!(build(60).describe(format).contains("counts"));
    }
    let config = || closing(1).checkpoints(checkpoints.clone());
    run(build(60), config()).unwrap();
    let error = run(build(30), config()).unwrap_err();
    assert!(
        error.to_string().contains("aggregate counts (60s) is aggregate counts (30s) now"),
        "{error}"
    );
}

#[test]
fn d6_a_sink_that_has_lost_its_progress_stops_the_job() {
    let (checkpoints, kept) = (Checkpoints::shared(), Collect::new());
    let build = |emptied: &Collect<Event>| {
        let job = Job::new("emptied");
        let events = job.source("events", ScriptedSource::splits([many(100, 0)]), strategy());
        events.sink("kept", kept.clone());
        events.sink("emptied", emptied.clone());
        job
    };
    let first = Collect::new();
    let config = || closing(1).checkpoints(checkpoints.clone());
    run(build(&first), config().at_end(InputEnd::KeepOpen)).unwrap();
    run(build(&first), config().at_end(InputEnd::KeepOpen)).unwrap();
    let error = run(build(&Collect::new()), config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("the sink emptied"), "{error}");
    run(build(&first), config()).unwrap();
    assert_eq!(kept.rows().len(), 100);
}
