//! The end of an input (D10), idle splits (T8) and floors (T9).

mod model;

use model::{Event, Everything, Role, all_marks, at, marks, strategy};
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Gate, Running, Script, ScriptedSource, run};
use streamkit::time::ManualClock;

fn events(times: impl IntoIterator<Item = i64>, first_id: u64) -> Vec<Event> {
    let event = |(id, time)| Event { time, user: "u".to_owned(), role: Role::Other, id };
    (first_id..).zip(times).map(event).collect()
}

fn config(end: InputEnd, checkpoints: &Checkpoints) -> RunConfig {
    RunConfig::new().workers(2).at_end(end).checkpoints(checkpoints.clone())
}

fn everything(outputs: &Everything, source: ScriptedSource<Event>) -> Job {
    let job = Job::new("ends");
    outputs.build(&job.source("events", source, strategy()));
    job
}

#[test]
fn d10_kept_open_runs_give_the_same_rows_as_one_run() {
    let splits = vec![events((0..300).step_by(7), 0), events((0..500).step_by(11), 1_000)];
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    for percent in [0, 10, 40, 40, 100] {
        let part = splits.iter().map(|s| s[..s.len() * percent / 100].to_vec());
        let job = everything(&outputs, ScriptedSource::splits(part));
        let progress = run(job, config(InputEnd::KeepOpen, &checkpoints)).unwrap();
        let there: usize = splits.iter().map(|s| s.len() * percent / 100).sum();
        assert_eq!(progress.read, there as u64, "each run reads what is new");
    }
    let job = everything(&outputs, ScriptedSource::splits(splits.clone()));
    run(job, config(InputEnd::Close, &checkpoints)).unwrap();
    outputs.check(&all_marks(&splits));
}

#[test]
fn d10_an_input_that_can_bring_no_more_ends_by_itself() {
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    let splits = vec![events((0..300).step_by(7), 0), events((0..500).step_by(11), 1_000)];
    for _ in 0..2 {
        let job = Job::new("ends");
        let source = streamkit::connector::memory::Memory::splits(splits.clone());
        outputs.build(&job.source("events", source, strategy()));
        run(job, config(InputEnd::Wait, &checkpoints)).unwrap();
        outputs.check(&all_marks(&splits));
    }
}

#[test]
fn d10_a_closed_job_has_nothing_to_do_until_there_is_more() {
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    let first = vec![events([0, 100, 50, 200], 0), events([30], 10)];
    for _ in 0..3 {
        let job = everything(&outputs, ScriptedSource::splits(first.clone()));
        run(job, config(InputEnd::Close, &checkpoints)).unwrap();
        outputs.check(&all_marks(&first));
    }
    let mut more = first.clone();
    more[1].extend(events([210, 230, 500], 20));
    for end in [InputEnd::Close, InputEnd::KeepOpen, InputEnd::Wait, InputEnd::Close] {
        let job = everything(&outputs, ScriptedSource::splits(more.clone()));
        let error = run(job, config(end, &checkpoints)).unwrap_err();
        assert!(error.message().contains("reopen"), "{error}");
        assert!(error.message().contains("script/1"), "{error}");
    }
    let job = everything(&outputs, ScriptedSource::splits(more.clone()));
    run(job, config(InputEnd::Close, &checkpoints).reopen(true)).unwrap();
    // The first run closed at C, the end of the last window or session, which is now a floor. The
    // last record of split 0 is at 200: sliding windows of 40 s that contain it end at 240 at most.
    let mut floored = marks(&more[0], &[(more[0].len(), 240)]);
    floored.extend(marks(&more[1], &[(1, 240)]));
    outputs.check(&floored);
    let job = everything(&outputs, ScriptedSource::splits(more));
    run(job, config(InputEnd::Close, &checkpoints)).unwrap();
    outputs.check(&floored);
}

#[test]
fn d10_a_crash_while_closing_is_finished_by_the_next_run() {
    let splits = vec![events((0..400).step_by(3), 0), events((0..350).step_by(5), 1_000)];
    for sink in ["raw", "tumbling rows", "sessions rows", "users rows"] {
        for n in 1..6 {
            let (mut outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
            outputs.faults = vec![(sink, Fault::BreakCommit(n))];
            let job = everything(&outputs, ScriptedSource::splits(splits.clone()));
            let _ = run(job, config(InputEnd::Close, &checkpoints));
            outputs.faults.clear();
            let job = everything(&outputs, ScriptedSource::splits(splits.clone()));
            run(job, config(InputEnd::Close, &checkpoints)).unwrap();
            outputs.check(&all_marks(&splits));
        }
    }
}

/// The last checkpoint of a closed job may be durable before the last commit of a sink is. Where that
/// sink has a reader of its own, the start of the split's own reader says nothing about it.
#[test]
fn d10_a_closed_job_goes_on_for_a_sink_that_is_far_behind() {
    let splits = vec![events((0..400).step_by(3), 0), events((0..350).step_by(5), 1_000)];
    for far in [0, 10, u64::MAX] {
        let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
        let part = splits.iter().map(|s| s[..s.len() / 2].to_vec());
        let job = everything(&outputs, ScriptedSource::splits(part));
        run(job, config(InputEnd::KeepOpen, &checkpoints)).unwrap();
        let before = outputs.raw.backup();
        for missed_its_last_commit in [false, true, false] {
            if missed_its_last_commit {
                outputs.raw.restore(&before);
            }
            let job = everything(&outputs, ScriptedSource::splits(splits.clone()));
            let config = config(InputEnd::Close, &checkpoints).catch_up_beyond(far);
            run(job, config).unwrap();
            outputs.check(&all_marks(&splits));
        }
    }
}

/// The job was closed, and killed before its last checkpoint: a restart reads what was on time again,
/// and the floor of reopening must not make that late.
#[test]
fn d10_a_floor_of_reopening_begins_at_the_end_that_was_closed() {
    let first = vec![events([0, 100, 50, 200], 0), events([30], 10)];
    let mut more = first.clone();
    more[1].extend(events([210, 230, 500], 20));
    for sink in ["tumbling rows", "sessions rows", "users rows"] {
        for n in 1..4 {
            let (mut outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
            outputs.faults = vec![(sink, Fault::BreakAfterCommit(n))];
            let config = || config(InputEnd::Close, &checkpoints).checkpoint_interval(hours(1));
            let job = everything(&outputs, ScriptedSource::splits(first.clone()));
            let _ = run(job, config());
            outputs.faults.clear();
            for _ in 0..2 {
                let job = everything(&outputs, ScriptedSource::splits(more.clone()));
                run(job, config().reopen(true)).unwrap();
            }
            let mut floored = marks(&more[0], &[(more[0].len(), 240)]);
            floored.extend(marks(&more[1], &[(1, 240)]));
            outputs.check(&floored);
        }
    }
}

/// A run that was to close its input has let the watermark pass a split that had ended. It was
/// stopped, and the next runs keep the input open.
#[test]
fn d10_a_run_that_is_kept_open_after_a_bounded_one_has_floors() {
    let (outputs, checkpoints, gate) = (Everything::new(), Checkpoints::shared(), Gate::new());
    let first = vec![events([0, 100, 150], 0), events([5], 10)];
    let script = Script::new().emit(first[0][..2].to_vec()).until(&gate);
    let source = [script.emit(first[0][2..].to_vec()), Script::new().emit(first[1].clone())];
    let job = everything(&outputs, ScriptedSource::new(source));
    let running = Running::start(job, config(InputEnd::Close, &checkpoints));
    running.until("split 1 to be passed", |p| p.watermark == Some(at(90)) && p.read == 3);
    running.stop().unwrap();
    let job = everything(&outputs, ScriptedSource::splits(first.clone()));
    run(job, config(InputEnd::KeepOpen, &checkpoints)).unwrap();
    let mut more = first.clone();
    more[1].extend(events([20, 95, 300], 20));
    let job = everything(&outputs, ScriptedSource::splits(more.clone()));
    run(job, config(InputEnd::Close, &checkpoints)).unwrap();
    let mut expected = marks(&more[0], &[]);
    expected.extend(marks(&more[1], &[(1, 90)]));
    outputs.check(&expected);
}

/// The input is closed and every sink behind windows has everything, but one behind no window.
#[test]
fn d10_a_sink_that_was_slow_when_the_job_closed_gets_the_rest() {
    let splits = vec![events((0..400).step_by(3), 0)];
    let (mut outputs, checkpoints, slow) = (Everything::new(), Checkpoints::shared(), Gate::new());
    outputs.faults = vec![("raw", Fault::SlowUntil(slow.clone())), ("raw", Fault::Panic(1))];
    let job = everything(&outputs, ScriptedSource::splits(splits.clone()));
    let running = Running::start(job, config(InputEnd::Close, &checkpoints));
    running.until("the other sinks to have everything", |p| {
        let fired = p.sinks.iter().filter(|sink| sink.name.ends_with("rows"));
        fired.clone().count() == 4 && fired.clone().all(|sink| sink.watermark >= Some(at(430)))
    });
    slow.open();
    assert!(running.wait().is_err());
    outputs.faults.clear();
    let job = everything(&outputs, ScriptedSource::splits(splits.clone()));
    run(job, config(InputEnd::Close, &checkpoints)).unwrap();
    outputs.check(&all_marks(&splits));
}

#[test]
fn d10_an_empty_input_closes() {
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    for _ in 0..2 {
        let job = everything(&outputs, ScriptedSource::splits([vec![], vec![]]));
        run(job, config(InputEnd::Close, &checkpoints)).unwrap();
        outputs.check(&[]);
    }
}

fn idle_strategy() -> WatermarkStrategy<Event> {
    strategy().idle_after(seconds(30))
}

type Counts = Collect<Windowed<String, Vec<u64>>>;

fn tumbling(
    source: ScriptedSource<Event>,
    poison: Option<u64>,
    rows: &Counts,
    late: &Collect<LateRecord<Event>>,
) -> Job {
    let job = Job::new("idle");
    let counts = job
        .source("events", source, idle_strategy())
        .inspect(move |e| assert_ne!(Some(e.id), poison))
        .key_by(|e: &Event| e.user.as_str())
        .window(Tumbling::of(seconds(20)))
        .aggregate("counts", model::Ids);
    counts.sink("rows", rows.clone());
    counts.late().sink("late", late.clone());
    job
}

fn lasting(clock: &ManualClock, checkpoints: &Checkpoints) -> RunConfig {
    let config = RunConfig::new().workers(2).clock(clock.clone()).checkpoints(checkpoints.clone());
    config.checkpoint_interval(hours(1_000))
}

fn idle(running: &Running, clock: &ManualClock, split: usize) {
    running.until("the split to be read to its end", |p| {
        p.splits.get(split).is_some_and(|s| s.quiet_for.is_some())
    });
    clock.advance(seconds(31));
    running.until("idleness", |p| p.splits[split].idle);
}

/// T8, T9, D1: split 0 is idle while split 1 goes on to 100; then it brings older records. The
/// fact and the floor must be in force in every replay, whatever the checkpoint.
#[test]
fn t9_a_floor_after_idleness_survives_restarts() {
    // Killed while it is idle, killed after it, stopped while it is idle, stopped after it.
    for (after, crash) in [(false, true), (true, true), (false, false), (true, false)] {
        let (quiet, end, go_on) = (Gate::new(), Gate::new(), Gate::new());
        let (clock, checkpoints) = (ManualClock::default(), Checkpoints::shared());
        let (rows, late) = (Counts::new(), Collect::new());
        let script = || {
            let first = Script::new().emit(events([5, 15], 0)).quiet_until(&quiet);
            let first = first.emit(events([16, 50, 95, 130], 10)).quiet_until(&end).stays();
            let second = Script::new().emit(events([6, 110], 20)).until(&go_on);
            ScriptedSource::new([first, second.emit(events([141], 30)).stays()])
        };
        let poison = crash.then_some(30);
        let running =
            Running::start(tumbling(script(), poison, &rows, &late), lasting(&clock, &checkpoints));
        idle(&running, &clock, 0);
        // 110 − 10: the windows before 100 are final.
        running.until("the watermark", |p| p.watermark == Some(at(100)));
        running.until("the first rows", |_| rows.rows().len() == 1);
        if after {
            quiet.open();
            running.until("the records after the idleness", |p| p.splits[0].position.next == 6);
            assert_eq!(running.progress().splits[0].position.floor, Some(at(100)));
        }
        if crash {
            go_on.open();
            assert!(running.wait().is_err());
            go_on.close();
        } else {
            running.stop().unwrap();
        }
        let running =
            Running::start(tumbling(script(), None, &rows, &late), lasting(&clock, &checkpoints));
        if !after {
            // What was idle is so again where it was, and not before.
            running.until("the same watermark", |p| p.watermark == Some(at(100)));
            quiet.open();
        }
        running.until("the records after the idleness", |p| {
            p.splits.first().is_some_and(|s| s.position.next == 6)
        });
        go_on.open();
        running.until("everything", |p| p.read == 9);
        running.until("the watermark", |p| p.watermark >= Some(at(120)));
        running.stop().unwrap();
        let ids = |rows: Vec<Windowed<String, Vec<u64>>>| -> Vec<(i64, Vec<u64>)> {
            let row = |row: Windowed<_, Vec<u64>>| (model::second(row.window.start), row.value);
            let mut rows: Vec<_> = rows.into_iter().map(row).collect();
            rows.sort_unstable();
            rows
        };
        let case = format!("after the idleness: {after}, crash: {crash}");
        assert_eq!(ids(rows.rows()), [(0, vec![0, 1, 20]), (100, vec![21])], "{case}");
        let mut late: Vec<_> =
            late.rows().iter().map(|l| (l.record.id, model::second(l.watermark))).collect();
        late.sort_unstable();
        assert_eq!(late, [(10, 100), (11, 100), (12, 100)], "{case}");
    }
}

/// The restored state has fired up to 100, and no sink of windows has committed anything yet.
#[test]
fn t9_a_floor_is_not_below_the_restored_state() {
    let (quiet, crash, far) = (Gate::new(), Gate::new(), Gate::new());
    let (up, slow) = (Gate::new(), Gate::new());
    up.open();
    let (clock, checkpoints) = (ManualClock::default(), Checkpoints::shared());
    let (late, rows) = (Collect::new(), Collect::new());
    let build = |poison: Option<u64>| {
        let first = Script::new().emit(events([5, 15], 0)).quiet_until(&quiet);
        let first = first.emit(events([16, 50], 10)).stays();
        let second = Script::new().emit(events([6], 20)).until(&far).emit(events([110], 21));
        let second = second.until(&crash).emit(events([109], 30)).stays();
        let job = Job::new("floor");
        let events = job.source("events", ScriptedSource::new([first, second]), idle_strategy());
        // It never commits in the first run, so that the second one begins at the first record.
        let behind = Fault::DownUntil(up.clone());
        events.sink("behind", FlakySink::new(Collect::new(), [behind]));
        let counts = events
            .inspect({
                let up = up.clone();
                move |e| {
                    assert_ne!(Some(e.id), poison);
                    if poison.is_some() {
                        up.close();
                    }
                }
            })
            .key_by(|e: &Event| e.user.as_str())
            .window(Tumbling::of(seconds(20)))
            .aggregate("counts", count());
        counts.late().sink("late", late.clone());
        let fault = match poison {
            Some(_) => Fault::DownUntil(up.clone()),
            None => Fault::SlowUntil(slow.clone()),
        };
        counts.map(|w| w.value).sink("rows", FlakySink::new(rows.clone(), [fault]));
        job
    };
    far.open();
    let often = lasting(&clock, &checkpoints).checkpoint_interval(seconds(100));
    let running = Running::start(build(Some(30)), often);
    idle(&running, &clock, 0);
    running.until("the watermark", |p| p.watermark == Some(at(100)));
    clock.advance(seconds(200));
    running.until("a checkpoint", |p| p.checkpoint.is_some());
    crash.open();
    assert!(running.wait().is_err());
    crash.close();
    far.close();
    up.open();
    let running = Running::start(build(None), lasting(&clock, &checkpoints));
    running.until("the idle split to be where it was", |p| {
        p.splits.first().is_some_and(|s| s.position.next == 2 && s.idle)
    });
    quiet.open();
    running.until("the records after the idleness", |p| {
        p.splits.first().is_some_and(|s| s.position.next == 4)
    });
    running.until("the late ones", |_| late.rows().len() == 2);
    far.open();
    slow.open();
    running.until("the rows", |_| rows.rows() == [3]);
    running.stop().unwrap();
}

#[test]
fn t8_a_source_that_is_never_idle_is_not_made_idle_by_another() {
    let (clock, checkpoints) = (ManualClock::default(), Checkpoints::shared());
    let job = Job::new("two sources");
    let raw = Collect::new();
    let busy = ScriptedSource::new([Script::new().emit(events([200], 0)).stays()]).named("busy");
    let calm = ScriptedSource::new([Script::new().emit(events([5], 10)).stays()]).named("calm");
    let one = job.source("one", busy, idle_strategy());
    one.union(&job.source("two", calm, strategy())).sink("raw", raw);
    let running = Running::start(job, lasting(&clock, &checkpoints));
    running.until("both to be read", |p| {
        p.splits.iter().filter(|s| s.quiet_for.is_some()).count() == 2
    });
    clock.advance(seconds(1_000));
    running.until("one to be idle", |p| p.splits.iter().any(|s| s.idle));
    clock.advance(seconds(1_000));
    std::thread::sleep(millis(50));
    let progress = running.stop().unwrap();
    let idle: Vec<_> = progress.splits.iter().filter(|s| s.idle).map(|s| s.split.clone()).collect();
    assert_eq!(idle, ["busy/0"]);
}

#[test]
fn t9_a_split_added_after_a_restart_gets_a_floor_and_does_not_stop_the_watermark() {
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    let first = vec![events([0, 50, 110], 0)];
    let job = everything(&outputs, ScriptedSource::splits(first.clone()));
    run(job, config(InputEnd::KeepOpen, &checkpoints)).unwrap();
    let second = vec![first[0].clone(), events([20, 99, 100, 200], 10), vec![]];
    let job = everything(&outputs, ScriptedSource::splits(second.clone()));
    run(job, config(InputEnd::KeepOpen, &checkpoints)).unwrap();
    let job = everything(&outputs, ScriptedSource::splits(second.clone()));
    run(job, config(InputEnd::Close, &checkpoints)).unwrap();
    let mut expected = marks(&second[0], &[]);
    expected.extend(marks(&second[1], &[(0, 100)]));
    outputs.check(&expected);
}
