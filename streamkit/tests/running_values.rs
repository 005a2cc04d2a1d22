//! Running values (D3): they never go backwards, nothing comes after a final row, a replay withholds
//! them, and only a sink that upserts gets any.

mod model;

use std::collections::BTreeMap;

use model::{Event, Role, second, strategy};
use streamkit::Kind;
use streamkit::connector::SinkOptions;
use streamkit::prelude::*;
use streamkit::testing::{Entry, Fault, FlakySink, Gate, Journal, Running, Script, ScriptedSource};

fn events(range: std::ops::Range<u64>) -> Vec<Event> {
    let user = |id| format!("user {}", id % 3);
    range.map(|id| Event { time: id as i64 / 5, user: user(id), role: Role::Other, id }).collect()
}

type Rows<K> = Journal<Windowed<K, u64>>;

/// No value of a window is below one that came before, and the final one is the last.
fn check<K: Ord + Clone + std::fmt::Debug>(entries: &[Entry<Windowed<K, u64>>]) -> usize {
    let mut last: BTreeMap<(i64, K), (u64, Kind)> = BTreeMap::new();
    let mut running = 0;
    for entry in entries {
        let key = (second(entry.value.window.start), entry.value.key.clone());
        running += usize::from(entry.kind == Kind::Running);
        if let Some((value, kind)) = last.insert(key, (entry.value.value, entry.kind)) {
            assert_ne!(kind, Kind::Final, "after the final row: {entry:?}");
            assert!(entry.value.value >= value, "{value} before {entry:?}");
        }
    }
    running
}

/// What may be seen from outside at some moment: the latest value of each window and key.
fn seen<K: Ord + Clone>(rows: &Rows<K>, kind: Kind) -> u64 {
    let entries = rows.entries();
    let of = entries.iter().filter(|entry| entry.kind == kind);
    let latest = of.map(|e| ((e.value.window.start, e.value.key.clone()), e.value.value));
    latest.collect::<BTreeMap<_, _>>().values().sum()
}

#[test]
fn d3_running_values_never_go_backwards_over_restarts() {
    const N: u64 = 600;
    for workers in [1, 3] {
        let checkpoints = Checkpoints::shared();
        let (counts, users) = (Rows::<String>::new(), Rows::<()>::new());
        let append: Rows<String> = Journal::with_options(SinkOptions::default());
        // Three runs that crash, with the checkpoint that the job began with, and one that ends.
        for (run, upto) in [(0, 200), (1, 350), (2, 500), (3, N)] {
            let gate = Gate::new();
            let poison = (run < 3).then_some(N);
            let split = |part: u64| {
                let mine = |event: &Event| event.id % 2 == part;
                let before = events(0..upto).into_iter().filter(mine);
                let script = Script::new().emit(before).until(&gate);
                let crash = events(N..N + 1).into_iter().map(|e| Event { time: 0, ..e });
                if run == 3 { script } else { script.emit(crash).stays() }
            };
            let job = Job::new("running");
            let source = ScriptedSource::new([split(0), split(1)]).read_size(5);
            let by_user = job
                .source("events", source, strategy())
                .inspect(move |e| assert_ne!(Some(e.id), poison))
                .key_by(|e: &Event| e.user.as_str());
            let windows = by_user.window(Tumbling::of(seconds(30))).aggregate("counts", count());
            windows.sink("counts rows", FlakySink::new(counts.clone(), [Fault::LoseReply(3)]));
            windows.sink("append", append.clone());
            let sliding = Sliding::of(seconds(30), seconds(10));
            by_user.window_all(sliding).count_keys("users").sink("users rows", users.clone());
            let config = RunConfig::new()
                .workers(if run % 2 == 0 { workers } else { 2 })
                .running_values(Some(millis(1)))
                .checkpoints(checkpoints.clone())
                .checkpoint_interval(if run == 1 { millis(5) } else { hours(1) })
                .at_end(if run == 3 { InputEnd::Close } else { InputEnd::Wait });
            let running = Running::start(job, config);
            running.until("running values of everything that was read", |_| total(&counts) == upto);
            gate.open();
            assert_eq!(running.wait().is_err(), run < 3);
        }
        assert!(check(&counts.entries()) > 0 && check(&users.entries()) > 0);
        assert_eq!(seen(&counts, Kind::Final), N);
        assert!(append.entries().iter().all(|entry| entry.kind == Kind::Final));
        assert_eq!(seen(&append, Kind::Final), N);
    }
}

/// The sum of the latest values, final or running.
fn total(rows: &Rows<String>) -> u64 {
    let entries = rows.entries();
    let latest =
        entries.iter().map(|e| ((e.value.window.start, e.value.key.clone()), e.value.value));
    latest.collect::<BTreeMap<_, _>>().values().sum()
}

#[test]
fn without_an_interval_there_are_none() {
    let rows = Rows::<String>::new();
    let job = Job::new("none");
    job.source("events", ScriptedSource::splits([events(0..500)]), strategy())
        .key_by(|e: &Event| e.user.as_str())
        .window(Tumbling::of(seconds(10)).allowed_lateness(seconds(20)))
        .aggregate("counts", count())
        .sink("rows", rows.clone());
    streamkit::testing::run(job, RunConfig::new().workers(2).at_end(InputEnd::Close)).unwrap();
    assert_eq!(check(&rows.entries()), 0);
    assert_eq!(seen(&rows, Kind::Final), 500);
}
