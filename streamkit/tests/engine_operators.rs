//! Steps other than plain windows, and what a job says when something is wrong.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Event, Ids, Role, all_marks, at, second, strategy};
use streamkit::connector::memory::Collect;
use streamkit::operator::{Operator, Output};
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Gate, Journal, Running, Script, ScriptedSource, run};
use streamkit::time::ManualClock;
use streamkit::{Batch, Error, ErrorKind, Kind, PlanFormat};

fn event(time: i64, user: &str, id: u64) -> Event {
    Event { time, user: user.to_owned(), role: Role::Other, id }
}

fn many(n: u64, first_id: u64) -> Vec<Event> {
    (0..n).map(|i| event(i as i64 / 4, &format!("user {}", i % 5), first_id + i)).collect()
}

fn closing(workers: usize) -> RunConfig {
    RunConfig::new().workers(workers).at_end(InputEnd::Close)
}

fn ids(rows: &[Event]) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.iter().map(|e| e.id).collect();
    ids.sort_unstable();
    ids
}

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
    std::thread::sleep(millis(100));
    more.open();
    running.until("more records behind the barrier", |p| p.read == 1_000);
    std::thread::sleep(millis(100));
    assert!(running.progress().checkpoint.is_none(), "the barrier waits for the slow sink");
    slow.open();
    running.until("the checkpoint", |p| p.checkpoint.is_some());
    crash.open();
    assert!(running.wait().is_err());
    run(build(false), config().at_end(InputEnd::Close)).unwrap();
    assert_eq!(
        sums.rows().iter().map(|w: &Windowed<(), u64>| w.value).collect::<Vec<_>>(),
        [2_000]
    );
}

#[test]
fn windows_over_window_results() {
    for workers in [1, 2, 4] {
        let splits = vec![many(1_000, 0), many(700, 10_000)];
        let top = Collect::new();
        let job = Job::new("two stages");
        job.source("events", ScriptedSource::splits(splits.clone()).read_size(33), strategy())
            .key_by(|e: &Event| e.user.as_str())
            .window(Tumbling::of(seconds(10)))
            .aggregate("first", count())
            .key_by(|w: &Windowed<String, u64>| w.key.as_str())
            .window(Sliding::of(seconds(60), seconds(30)))
            .aggregate("second", (count(), sum(|w: &Windowed<String, u64>| w.value)))
            .sink("rows", top.clone());
        run(job, closing(workers)).unwrap();
        let first = model::windowed(&all_marks(&splits), 10, 10, 0);
        // A result's own time is the microsecond before its window's end.
        let results = first.results.iter().map(|((_, end, user), ids)| (end - 1, user, ids.len()));
        let mut expected: BTreeMap<(i64, i64, String), (u64, u64)> = BTreeMap::new();
        for (time, user, n) in results {
            for (start, end) in model::windows(time, 60, 30) {
                let sum = expected.entry((start, end, user.clone())).or_default();
                *sum = (sum.0 + 1, sum.1 + n as u64);
            }
        }
        assert_eq!(model::of_windows(&top.rows()), expected);
    }
}

struct Twice;

impl Operator<Event> for Twice {
    type Out = Event;
    fn on_batch(&self, input: &Batch<Event>, out: &mut Output<'_, Event>) -> streamkit::Result<()> {
        for (row, (event, time)) in input.iter().enumerate() {
            out.push(row, time, event.clone());
            out.push(row, time, Event { id: event.id + 500, ..event.clone() });
        }
        Ok(())
    }
}

#[test]
fn lateness_travels_through_stateless_steps() {
    let split = vec![event(0, "a", 0), event(100, "a", 1), event(20, "a", 2), event(95, "a", 3)];
    for way in 0..3 {
        let (rows, late) = (Collect::new(), Collect::new());
        let job = Job::new("stateless");
        let events = job.source("events", ScriptedSource::splits([split.clone()]), strategy());
        let twice = |e: &Event| [e.clone(), Event { id: e.id + 500, ..e.clone() }];
        let events = match way {
            0 => events.flat_map(twice),
            1 => events.apply(Twice),
            _ => events.filter(|e| e.id != 77).flat_map(twice).map(Event::clone),
        };
        let counts = events
            .key_by(|e: &Event| e.user.as_str())
            .window(Tumbling::of(seconds(10)))
            .aggregate("counts", Ids);
        counts.sink("rows", rows.clone());
        counts.late().sink("late", late.clone());
        run(job, closing(2)).unwrap();
        let late: Vec<_> = late
            .rows()
            .iter()
            .map(|l: &LateRecord<Event>| (l.record.id, second(l.event_time), second(l.watermark)))
            .collect();
        assert_eq!(late, [(2, 20, 90), (502, 20, 90)]);
        let expected = BTreeMap::from([
            ((0, 10, "a".to_owned()), vec![0, 500]),
            ((90, 100, "a".to_owned()), vec![3, 503]),
            ((100, 110, "a".to_owned()), vec![1, 501]),
        ]);
        assert_eq!(model::of_windows(&rows.rows()), expected);
    }
}

#[test]
fn t6_with_allowed_lateness_the_final_result_comes_once_and_last() {
    let splits = vec![
        vec![
            event(5, "a", 0),
            event(45, "a", 1),
            event(16, "a", 2),
            event(80, "a", 3),
            event(8, "a", 4),
        ],
        vec![event(3, "b", 10), event(60, "b", 11), event(19, "b", 12), event(90, "b", 13)],
    ];
    for workers in [1, 2] {
        let (rows, late) = (Journal::new(), Collect::new());
        let job = Job::new("patient");
        let counts = job
            .source("events", ScriptedSource::splits(splits.clone()).read_size(1), strategy())
            .key_by(|e: &Event| e.user.as_str())
            .window(Sliding::of(seconds(20), seconds(10)).allowed_lateness(seconds(30)))
            .aggregate("counts", Ids);
        counts.sink("rows", rows.clone());
        counts.late().sink("late", late.clone());
        run(job, closing(workers).running_values(Some(millis(1)))).unwrap();
        let model = model::windowed(&all_marks(&splits), 20, 10, 30);
        assert_eq!(model::of_windows(&rows.rows()), model.results);
        assert_eq!(model::of_late(&late.rows()), model.late);
        final_is_last(&rows);
    }
}

/// D3: nothing comes after the final row of a window and key.
fn final_is_last(rows: &Journal<Windowed<String, Vec<u64>>>) {
    let mut last: BTreeMap<(Timestamp, String), Kind> = BTreeMap::new();
    for entry in rows.entries() {
        let key = (entry.value.window.start, entry.value.key.clone());
        let before = last.insert(key, entry.kind);
        assert_ne!(before, Some(Kind::Final), "after the final row: {entry:?}");
    }
    assert!(last.values().all(|kind| *kind == Kind::Final));
}

/// Emits a greeting at the first record, and the number of records ten seconds after the last one.
struct Visits;

impl Process<Event> for Visits {
    type State = u64;
    type Out = u64;
    fn on_record(&self, _: &Event, cx: &mut ProcessContext<'_, u64, u64>) {
        let n = cx.state.unwrap_or(0);
        if n == 0 {
            cx.emit(0);
        }
        *cx.state = Some(n + 1);
        cx.set_timer(cx.time().saturating_add(seconds(10)));
    }
    fn on_timer(&self, cx: &mut ProcessContext<'_, u64, u64>) {
        if let Some(n) = cx.state.take() {
            cx.emit(n);
        }
    }
}

#[test]
fn a_process_sees_records_in_order_and_timers_first() {
    let splits = vec![
        vec![event(9, "a", 0), event(0, "a", 1), event(40, "a", 2), event(19, "a", 3)],
        vec![event(20, "b", 10), event(29, "b", 11), event(39, "b", 12)],
    ];
    for workers in [1, 2, 4] {
        let (rows, late) = (Collect::new(), Collect::new());
        let job = Job::new("process");
        let visits = job
            .source("events", ScriptedSource::splits(splits.clone()).read_size(1), strategy())
            .key_by(|e: &Event| e.user.as_str())
            .process("visits", Visits);
        visits.sink("rows", rows.clone());
        visits.late().sink("late", late.clone());
        run(job, closing(workers)).unwrap();
        let rows = rows.timed_rows().into_iter().map(|(row, time)| {
            let row: streamkit::operator::ProcessResult<String, u64> = row;
            assert_eq!(row.time, time, "the result's time is that of the call");
            (row.key, second(row.time), row.value)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        let row = |key: &str, time, n| (key.to_owned(), time, n);
        // a: 0 and 9, timer at 19; 19 is late (40 − 10 = 30). b: 20 and 29, timer at 39 before
        // the record at 39.
        let expected = [
            row("a", 0, 0),
            row("a", 19, 2),
            row("a", 40, 0),
            row("a", 50, 1),
            row("b", 20, 0),
            row("b", 39, 0),
            row("b", 39, 2),
            row("b", 49, 1),
        ];
        assert_eq!(rows, expected);
        assert_eq!(
            late.rows().iter().map(|l: &LateRecord<Event>| l.record.id).collect::<Vec<_>>(),
            [3]
        );
    }
}

/// A timer that sets itself again for ever.
struct Heartbeat;

impl Process<Event> for Heartbeat {
    type State = ();
    type Out = ();
    fn on_record(&self, _: &Event, cx: &mut ProcessContext<'_, (), ()>) {
        cx.set_timer(cx.time().saturating_add(seconds(10)));
    }
    fn on_timer(&self, cx: &mut ProcessContext<'_, (), ()>) {
        cx.emit(());
        cx.set_timer(cx.time().saturating_add(seconds(10)));
    }
}

#[test]
fn d10_a_timer_that_sets_itself_again_does_not_keep_a_job_from_ending() {
    let rows = Collect::new();
    let job = Job::new("heartbeat");
    job.source("events", ScriptedSource::splits([vec![event(0, "a", 0)]]), strategy())
        .key_by(|e: &Event| e.user.as_str())
        .process("beats", Heartbeat)
        .sink("rows", rows.clone());
    run(job, closing(1)).unwrap();
    assert_eq!(rows.rows().len(), 1);
}

#[test]
fn dead_letters_are_counted_and_do_not_move_the_watermark() {
    let (dead, rows) = (Collect::new(), Collect::new());
    let script = Script::new()
        .recorded_at(at(10))
        .reject("bad_json")
        .emit([event(5, "a", 0), event(4_000, "a", 1)])
        .reject("empty")
        .emit([event(6, "a", 2)]);
    let job = Job::new("dead letters");
    let limit = strategy().max_future(hours(1));
    let events = job.source("events", ScriptedSource::new([script]).read_size(2), limit);
    events.dead_letters().map(|d| (d.reason.to_string(), d.offset)).sink("dead", dead.clone());
    events.sink("rows", rows.clone());
    let progress = run(job, closing(1)).unwrap();
    assert_eq!(ids(&rows.rows()), [0, 2]);
    let expected = [("bad_json", 0), ("future_event_time", 2), ("empty", 3)];
    assert_eq!(dead.rows(), expected.map(|(reason, at)| (reason.to_owned(), at)));
    assert_eq!((progress.read, progress.accepted), (5, 2));
    assert_eq!(progress.dead_letters.values().sum::<u64>(), 3);
}

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
    assert!(step.starts_with("map (") && step.contains("engine_operators.rs:"), "{step}");
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
    assert!(twice.contains("used twice") && twice.contains("engine_operators.rs"), "{twice}");
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

#[test]
fn a_stop_ends_although_a_sink_is_down() {
    let gate = Gate::new();
    let job = Job::new("down");
    let source = ScriptedSource::splits([many(5_000, 0)]).read_size(1);
    let faults = [Fault::Write(2), Fault::DownUntil(gate.clone())];
    gate.open();
    let sink = FlakySink::new(Collect::new(), faults);
    job.source("events", source, strategy())
        .inspect({
            let gate = gate.clone();
            move |e| {
                if e.id == 3 {
                    gate.close()
                }
            }
        })
        .sink("rows", sink);
    let config = RunConfig::new().workers(1).queue(64).shutdown_timeout(millis(50));
    let running = Running::start(job, config);
    running.until("back-pressure", |p| p.back_pressured > 0);
    let error = running.stop().unwrap_err();
    assert!(error.to_string().contains("nothing is lost"), "{error}");
}

#[test]
fn a_failed_job_stops_reading() {
    let calm = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let job = Job::new("failing");
    let endless = (0..200_000).map(|i| event(i, "a", 1_000 + i as u64));
    let source = ScriptedSource::splits([many(20, 0), endless.collect()]).read_size(1);
    let seen = Arc::clone(&calm);
    job.source("events", source, strategy())
        .inspect(move |e| {
            assert_ne!(e.id, 19);
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        })
        .sink("rows", Collect::new());
    assert!(run(job, RunConfig::new().workers(2).drift(days(365_000))).is_err());
    // Not an assertion about time: the count must come to rest.
    let mut last = u64::MAX;
    for _ in 0..1_000 {
        let now = calm.load(std::sync::atomic::Ordering::SeqCst);
        if now == last && now < 200_000 {
            return;
        }
        last = now;
        std::thread::sleep(millis(20));
    }
    panic!("the workers of a failed job go on");
}

#[test]
fn a_fork_into_a_slow_and_a_fast_sink_brings_both_everything() {
    let (fast, slow, gate) = (Collect::new(), Collect::new(), Gate::new());
    let job = Job::new("fork");
    let source = ScriptedSource::splits([many(3_000, 0)]).read_size(10);
    let events = job.source("events", source, strategy());
    events.sink("fast", fast.clone());
    events.sink("slow", FlakySink::new(slow.clone(), [Fault::SlowUntil(gate.clone())]));
    let running = Running::start(job, closing(2).queue(64));
    running.until("what fits into the queue", |_| fast.rows().len() >= 100);
    gate.open();
    running.wait().unwrap();
    let all: Vec<u64> = (0..3_000).collect();
    assert_eq!((ids(&fast.rows()), ids(&slow.rows())), (all.clone(), all));
}
