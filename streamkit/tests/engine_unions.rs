//! Unions: of branches, of sources and of results, with slow sinks, barriers and crashes.

mod model;

use model::{Event, Ids, all_marks, at, closing, ids, many, second, strategy};
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Gate, Running, Script, ScriptedSource, run};
use streamkit::time::ManualClock;

#[test]
fn a_union_of_branches_and_sources_loses_and_doubles_nothing() {
    for workers in [1, 3] {
        let (rows, counts) = (Collect::new(), Collect::new());
        let (first, second) = (many(3_000, 0), many(2_000, 10_000));
        let job = Job::new("union");
        let one = ScriptedSource::splits([first.clone()]).named("one").read_size(7);
        let two = ScriptedSource::splits([second.clone()]).named("two").read_size(64);
        let (one, two) = (job.source("one", one, strategy()), job.source("two", two, strategy()));
        let (even, odd) = one.split(|e| e.id % 2 == 0);
        let all = even.union(&odd).union(&two);
        let faults = [Fault::Commit(2), Fault::LoseReply(4), Fault::LoseRequest(6)];
        all.sink("rows", FlakySink::new(rows.clone(), faults));
        all.key_by(|e: &Event| e.user.as_str())
            .window(Tumbling::of(seconds(20)))
            .aggregate("counts", Ids)
            .sink("counts rows", counts.clone());
        run(job, closing(workers)).unwrap();
        let expected: Vec<u64> = (0..3_000).chain(10_000..12_000).collect();
        assert_eq!(ids(&rows.rows()), expected);
        let model = model::windowed(&all_marks(&[first, second]), 20, 20, 0);
        assert_eq!(model::of_windows(&counts.rows()), model.results);
    }
}

/// The second source must see that the queue behind the union is full; otherwise its worker blocks
/// on a queue that it must empty itself.
#[test]
fn a_slow_sink_behind_a_union_does_not_lock_a_worker() {
    let (rows, gate) = (Collect::new(), Gate::new());
    let job = Job::new("union and back-pressure");
    let one = ScriptedSource::splits([many(10, 0)]).named("one");
    let two = ScriptedSource::splits([many(4_000, 10_000)]).named("two").read_size(1);
    let one = job.source("one", one, strategy());
    one.union(&job.source("two", two, strategy()))
        .key_by(|e: &Event| e.user.as_str())
        .window(Tumbling::of(seconds(1)))
        .aggregate("counts", count())
        .sink("rows", FlakySink::new(rows.clone(), [Fault::SlowUntil(gate.clone())]));
    let running = Running::start(job, closing(1).queue(64));
    running.until("back-pressure", |p| p.back_pressured > 0);
    gate.open();
    running.wait().unwrap();
    assert_eq!(rows.rows().iter().map(|w| w.value).sum::<u64>(), 4_010);
}

/// Results of both operators wait for the sink behind the union (rule D4), and a second window
/// behind it sees exactly the results before each barrier.
#[test]
fn a_union_of_results_survives_a_crash() {
    for n in 1..8 {
        let checkpoints = Checkpoints::shared();
        let (rows, sums) = (Collect::new(), Collect::new());
        let build = |faults: Vec<Fault>, poison: Option<u64>| {
            let job = Job::new("union of results");
            let source = ScriptedSource::splits([many(2_000, 0), many(1_500, 10_000)]).read_size(9);
            let events = job
                .source("events", source, strategy())
                .inspect(move |e| assert_ne!(Some(e.id), poison));
            let first = events
                .key_by(|e: &Event| e.user.as_str())
                .window(Tumbling::of(seconds(5)))
                .aggregate("by user", count())
                .map(|w| (second(w.window.start), w.value));
            let second_ = events
                .key_by_value(|e: &Event| e.id % 3)
                .window(Tumbling::of(seconds(10)))
                .aggregate("by id", count())
                .map(|w| (second(w.window.start), w.value));
            let all = first.union(&second_);
            all.sink("rows", FlakySink::new(rows.clone(), faults));
            all.window_all(Tumbling::of(seconds(50)))
                .aggregate("sums", sum(|row: &(i64, u64)| row.1))
                .sink("sums rows", sums.clone());
            job
        };
        let config = |workers| {
            closing(workers).checkpoints(checkpoints.clone()).checkpoint_interval(millis(1))
        };
        let first = run(
            build(vec![Fault::BreakCommit(n)], (n % 2 == 0).then_some(500 + 100 * n)),
            config(2),
        );
        assert!(n % 2 == 1 || first.is_err());
        run(build(vec![], None), config(3)).unwrap();
        let total: u64 = rows.rows().iter().map(|row: &(i64, u64)| row.1).sum();
        assert_eq!(total, 2 * 3_500, "break {n}");
        let total: u64 = sums.rows().iter().map(|w: &Windowed<(), u64>| w.value).sum();
        assert_eq!(total, 2 * 3_500, "sums, break {n}");
    }
}

/// Rule D4: what a sink has not committed is in the state of *both* operators in front of the union.
#[test]
fn a_union_of_results_keeps_what_its_sink_lacks() {
    let (up, crash) = (Gate::new(), Gate::new());
    let (rows, checkpoints) = (Collect::new(), Checkpoints::shared());
    let build = |first: bool| {
        let job = Job::new("undelivered");
        let script = Script::new().emit(many(800, 0)).until(&crash).emit(many(1, 9_000));
        let script = if first { script.stays() } else { Script::new().emit(many(800, 0)) };
        let up_ = up.clone();
        let events =
            job.source("events", ScriptedSource::new([script]), strategy()).inspect(move |e| {
                assert_ne!(e.id, 9_000);
                up_.close();
            });
        let by_user = events.key_by(|e: &Event| e.user.as_str()).window(Tumbling::of(seconds(5)));
        let by_id = events.key_by_value(|e: &Event| e.id % 3).window(Tumbling::of(seconds(5)));
        let by_user = by_user.aggregate("by user", count()).map(|w| w.value);
        let by_id = by_id.aggregate("by id", count()).map(|w| w.value);
        let faults = if first { vec![Fault::DownUntil(up.clone())] } else { vec![] };
        by_user.union(&by_id).sink("rows", FlakySink::new(rows.clone(), faults));
        job
    };
    up.open();
    let config = || RunConfig::new().workers(2).checkpoints(checkpoints.clone());
    let running = Running::start(build(true), config().checkpoint_interval(millis(5)));
    running.until("the records", |p| p.read == 800 && p.watermark > Some(at(180)));
    let number = |p: &streamkit::JobProgress| p.checkpoint.map_or(0, |c| c.number);
    let before = number(&running.progress());
    running.until("three more checkpoints", |p| number(p) >= before + 3);
    crash.open();
    assert!(running.wait().is_err());
    assert_eq!(rows.rows(), [0u64; 0]);
    run(build(false), config().at_end(InputEnd::Close)).unwrap();
    assert_eq!(rows.rows().iter().sum::<u64>(), 2 * 800);
}

/// A second window behind a union sees exactly the results before each barrier, although one of the
/// two operators in front of it waits for a slow sink while the other one goes on.
#[test]
fn a_union_of_results_is_cut_by_a_barrier_in_one_place() {
    let (slow, more, crash) = (Gate::new(), Gate::new(), Gate::new());
    let (sums, checkpoints, clock) =
        (Collect::new(), Checkpoints::shared(), ManualClock::default());
    let stuck_rows = Collect::new();
    let build = |first: bool| {
        let job = Job::new("barriers");
        let all = many(1_000, 0);
        let script = Script::new().emit(all[..900].to_vec()).until(&more);
        let script = script.emit(all[900..].to_vec()).until(&crash).emit(many(1, 9_000)).stays();
        let script = if first { script } else { Script::new().emit(all) };
        let events = job
            .source("events", ScriptedSource::new([script]).read_size(4), strategy())
            .inspect(|e| assert_ne!(e.id, 9_000));
        let fast = events.key_by(|e: &Event| e.user.as_str()).window(Tumbling::of(seconds(2)));
        let fast = fast.aggregate("fast", count()).map(|w| w.value);
        let stuck = events.key_by_value(|e: &Event| e.id % 3).window(Tumbling::of(seconds(2)));
        let stuck = stuck.aggregate("stuck", count()).map(|w| w.value);
        let faults = if first { vec![Fault::SlowUntil(slow.clone())] } else { vec![] };
        stuck.sink("slow", FlakySink::new(stuck_rows.clone(), faults));
        let sum_of = sum(|n: &u64| *n);
        fast.union(&stuck)
            .window_all(Tumbling::of(seconds(10_000)))
            .aggregate("sums", sum_of)
            .sink("sums rows", sums.clone());
        job
    };
    let config = || RunConfig::new().workers(1).checkpoints(checkpoints.clone());
    let patient = config().queue(256).clock(clock.clone()).checkpoint_interval(seconds(10));
    let running = Running::start(build(true), patient);
    running.until("the slow sink to be full", |p| p.back_pressured > 0 && p.read == 900);
    clock.advance(seconds(11));
    // The barrier passes both of them, though one cannot fire what comes before it.
    running.until("the checkpoint", |p| p.checkpoint.is_some());
    more.open();
    slow.open();
    running.until("more records behind the barrier", |p| p.read == 1_000);
    crash.open();
    assert!(running.wait().is_err());
    run(build(false), config().at_end(InputEnd::Close)).unwrap();
    assert_eq!(
        sums.rows().iter().map(|w: &Windowed<(), u64>| w.value).collect::<Vec<_>>(),
        [2_000]
    );
}
