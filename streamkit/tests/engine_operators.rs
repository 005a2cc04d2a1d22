//! Steps other than plain windows, and jobs that end before their time.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Event, Ids, all_marks, at, closing, event, ids, many, second, strategy};
use streamkit::connector::memory::Collect;
use streamkit::operator::{Operator, Output};
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Gate, Journal, Running, Script, ScriptedSource, run};
use streamkit::{Batch, Kind};

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
