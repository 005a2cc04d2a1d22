//! Restarts: a job that is stopped, killed and moved to another number of workers writes the same
//! rows as one that runs straight through, none of them twice.

#[path = "model/generate.rs"]
mod generate;
mod model;

use model::{Event, Everything, Role, all_marks, check_conservation, strategy};
use proptest::prelude::*;
use streamkit::JobState;
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, Gate, Running, Script, ScriptedSource, run};

/// How a run ends before its time.
#[derive(Debug, Clone)]
enum Interruption {
    /// It is asked to stop when each split has been read to this percentage.
    Stop(usize),
    /// A record at about this percentage makes user code panic.
    Panic(usize),
    /// The n-th commit of a sink breaks.
    Break(&'static str, u64),
    /// The connection breaks after the n-th commit of a sink.
    BreakAfter(&'static str, u64),
    /// A sink loses replies and requests, and goes on.
    Flaky(&'static str, u64),
}

fn sink() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("raw"),
        Just("tumbling rows"),
        Just("tumbling late"),
        Just("sliding rows"),
        Just("users rows"),
        Just("users late"),
        Just("sessions rows"),
    ]
}

fn interruption() -> impl Strategy<Value = Interruption> {
    prop_oneof![
        (0usize..=100).prop_map(Interruption::Stop),
        (0usize..=100).prop_map(Interruption::Panic),
        (sink(), 1u64..6).prop_map(|(sink, n)| Interruption::Break(sink, n)),
        (sink(), 1u64..6).prop_map(|(sink, n)| Interruption::BreakAfter(sink, n)),
        (sink(), 1u64..4).prop_map(|(sink, n)| Interruption::Flaky(sink, n)),
    ]
}

/// One run: workers, records per read, milliseconds between checkpoints and how many bytes of them are
/// written at once, how far behind a sink may be without a reader of its own, how it is interrupted.
type Plan = (usize, usize, (u64, usize), u64, Interruption);

fn plan() -> impl Strategy<Value = Plan> {
    let read_size = prop_oneof![Just(1usize), Just(3), Just(1_024)];
    let interval = prop_oneof![Just(1u64), Just(20), Just(3_600_000)];
    let portion = prop_oneof![Just(1usize), Just(200), Just(65_536)];
    let near = prop_oneof![Just(0u64), Just(5), Just(100_000)];
    (1usize..5, read_size, (interval, portion), near, interruption())
}

fn interrupted(
    splits: &[Vec<Event>],
    outputs: &Everything,
    checkpoints: &Checkpoints,
    (workers, read_size, (interval, portion), near, interruption): Plan,
) {
    let mut outputs = outputs.clone();
    let of = |percent: usize, n: usize| n * percent / 100;
    let mut source = ScriptedSource::splits(splits.to_vec());
    let (gate, mut stop_after) = (Gate::new(), None);
    match interruption {
        Interruption::Stop(percent) => {
            let script = |split: &Vec<Event>| {
                let (first, rest) = split.split_at(of(percent, split.len()));
                Script::new().emit(first.to_vec()).until(&gate).emit(rest.to_vec())
            };
            source = ScriptedSource::new(splits.iter().map(script));
            stop_after = Some(splits.iter().map(|s| of(percent, s.len())).sum::<usize>() as u64);
        }
        Interruption::Panic(percent) => {
            let all: Vec<u64> = splits.iter().flatten().map(|e| e.id).collect();
            outputs.poison = all.get(of(percent, all.len())).copied();
        }
        Interruption::Break(sink, n) => outputs.faults.push((sink, Fault::BreakCommit(n))),
        Interruption::BreakAfter(sink, n) => {
            outputs.faults.push((sink, Fault::BreakAfterCommit(n)));
        }
        Interruption::Flaky(sink, n) => {
            outputs.faults.push((sink, Fault::LoseReply(n)));
            outputs.faults.push((sink, Fault::LoseRequest(n + 1)));
        }
    }
    let job = Job::new("restart");
    outputs.build(&job.source("events", source.read_size(read_size), strategy()));
    let config = RunConfig::new()
        .workers(workers)
        .at_end(InputEnd::Close)
        .checkpoint_interval(millis(interval))
        .checkpoint_portion(portion)
        .catch_up_beyond(near)
        .checkpoints(checkpoints.clone());
    let running = Running::start(job, config);
    let _ = match stop_after {
        Some(n) => {
            running.until("the records before the stop", |p| {
                p.state == JobState::Ended || (p.state != JobState::Starting && p.read >= n)
            });
            running.stop()
        }
        None => running.wait(),
    };
}

fn check(splits: &[Vec<Event>], plans: Vec<Plan>, workers: usize) {
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    for plan in plans {
        interrupted(splits, &outputs, &checkpoints, plan);
    }
    for last in [false, true] {
        let job = Job::new("restart");
        let source = ScriptedSource::splits(splits.to_vec());
        outputs.build(&job.source("events", source, strategy()));
        let config = RunConfig::new()
            .workers(workers)
            .at_end(InputEnd::Close)
            .catch_up_beyond(workers as u64 * 3)
            .checkpoints(checkpoints.clone());
        let progress = run(job, config).unwrap();
        outputs.check(&all_marks(splits));
        if !last && progress.read > 0 {
            check_conservation(&progress);
        }
    }
}

/// State is written between batches, here an entry at a time, while all keys change, windows fire and
/// sessions close; each run is killed while that goes on, or a sink fails before it has what has fired.
#[test]
fn a_checkpoint_is_the_state_at_its_barrier_whatever_comes_while_it_is_written() {
    let event = |split: u64, n: u64| Event {
        time: (n / 20) as i64 - (n * 7 % 5) as i64,
        user: format!("u{}", n * 31 % 97),
        role: if n.is_multiple_of(41) { Role::Start } else { Role::Other },
        id: split * 10_000 + n,
    };
    let splits: Vec<Vec<_>> = (0..2).map(|s| (0..2_000).map(|n| event(s, n)).collect()).collect();
    for workers in [1, 2] {
        let plan = |interruption| (workers, 7, (1, 1), 100_000, interruption);
        let kills = (2..49).step_by(3).map(Interruption::Panic);
        check(&splits, kills.map(plan).collect(), 3 - workers);
        let sinks = ["tumbling rows", "sliding rows", "users rows", "sessions rows"];
        let breaks = sinks.into_iter().cycle().take(16).map(|sink| Interruption::Break(sink, 2));
        check(&splits, breaks.map(plan).collect(), 3 - workers);
    }
}

/// The reader is behind the state when a sink is: a checkpoint that is made meanwhile has a state
/// that holds more than has been read, and must say so.
#[test]
fn d5_a_checkpoint_made_while_catching_up_is_where_the_state_is() {
    let event = |id| Event { time: id as i64, user: "u".to_owned(), role: Role::Other, id };
    let splits = vec![(0..100).map(event).collect::<Vec<_>>()];
    let part = |n: usize, gate: &Gate| {
        let (first, rest) = splits[0].split_at(n);
        ScriptedSource::new([Script::new().emit(first.to_vec()).until(gate).emit(rest.to_vec())])
    };
    let (mut outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    let job = |outputs: &Everything, source: ScriptedSource<Event>| {
        let job = Job::new("restart");
        outputs.build(&job.source("events", source, strategy()));
        job
    };
    let config = || {
        let config = RunConfig::new().at_end(InputEnd::Close).checkpoint_interval(millis(1));
        config.checkpoints(checkpoints.clone())
    };
    // The state gets to record 50, and one sink nowhere.
    let (gate, slow) = (Gate::new(), Gate::new());
    outputs.faults = vec![("raw", Fault::SlowUntil(slow.clone())), ("raw", Fault::Panic(1))];
    let running = Running::start(job(&outputs, part(50, &gate)), config());
    running.until("all 50 to be read", |p| p.read == 50);
    let before = running.progress().checkpoint.map_or(0, |checkpoint| checkpoint.number);
    running.until("checkpoints of it", |p| {
        p.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.number > before + 1)
    });
    slow.open();
    assert!(running.wait().is_err());
    outputs.faults.clear();
    // Read from the start for that sink, and stopped long before record 50.
    let running = Running::start(job(&outputs, part(10, &gate)), config());
    running.until("the first 10", |p| {
        p.sinks.iter().any(|sink| sink.name == "raw" && sink.rows == 10)
    });
    running.stop().unwrap();
    run(job(&outputs, ScriptedSource::splits(splits.clone())), config()).unwrap();
    outputs.check(&all_marks(&splits));
}

/// Takes the sinks that `which` names, by a bit each, back to what they had. One that had nothing yet is
/// left alone: a target that was emptied is refused (rule D6).
fn roll_back(outputs: &Everything, to: &Everything, which: u16) {
    fn one<T: Clone>(now: &Collect<T>, then: &Collect<T>, bit: bool) {
        if bit && !then.rows().is_empty() {
            now.restore(then);
        }
    }
    let bit = |n: u16| which & (1 << n) != 0;
    one(&outputs.raw, &to.raw, bit(0));
    one(&outputs.tumbling, &to.tumbling, bit(1));
    one(&outputs.tumbling_late, &to.tumbling_late, bit(2));
    one(&outputs.sliding, &to.sliding, bit(3));
    one(&outputs.sliding_late, &to.sliding_late, bit(4));
    one(&outputs.users, &to.users, bit(5));
    one(&outputs.users_late, &to.users_late, bit(6));
    one(&outputs.sessions, &to.sessions, bit(7));
    one(&outputs.sessions_late, &to.sessions_late, bit(8));
}

fn backup(of: &Everything) -> Everything {
    Everything {
        tumbling: of.tumbling.backup(),
        tumbling_late: of.tumbling_late.backup(),
        sliding: of.sliding.backup(),
        sliding_late: of.sliding_late.backup(),
        users: of.users.backup(),
        users_late: of.users_late.backup(),
        sessions: of.sessions.backup(),
        sessions_late: of.sessions_late.backup(),
        raw: of.raw.backup(),
        faults: vec![],
        poison: None,
    }
}

/// Rule D7: runs that end before their time, each followed by sinks that go back to what they had
/// after an earlier one, so that the state has to come from an older checkpoint; at last, after the
/// input has been closed.
fn check_rolled_back(splits: &[Vec<Event>], runs: Vec<(Plan, usize, u16)>, workers: usize) {
    let (outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
    let mut backups = vec![];
    let mut steps = runs.into_iter().map(Some).chain([None, None]).peekable();
    while let Some(step) = steps.next() {
        let back = match step {
            Some((plan, to, which)) => {
                interrupted(splits, &outputs, &checkpoints, plan);
                backups.push(backup(&outputs));
                Some((to, which))
            }
            None => {
                let job = Job::new("restart");
                let source = ScriptedSource::splits(splits.to_vec());
                outputs.build(&job.source("events", source, strategy()));
                let config = RunConfig::new().workers(workers).at_end(InputEnd::Close);
                let config = config.catch_up_beyond(workers as u64 * 3);
                run(job, config.checkpoints(checkpoints.clone())).unwrap();
                outputs.check(&all_marks(splits));
                steps.peek().map(|_| (0, 0b1_0101_0011))
            }
        };
        if let Some((to, which)) = back {
            roll_back(&outputs, &backups[to % backups.len()], which);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_time: 20_000, ..Default::default() })]

    #[test]
    fn d7_sinks_that_were_rolled_back_get_the_same_rows_again(
        splits in generate::splits(3, 40),
        runs in proptest::collection::vec((plan(), 0usize..4, 0u16..512), 1..4),
        workers in 1usize..5,
    ) {
        check_rolled_back(&splits, runs, workers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_time: 20_000, ..Default::default() })]

    #[test]
    fn an_interrupted_job_writes_the_same_rows(
        splits in generate::splits(3, 40),
        plans in proptest::collection::vec(plan(), 1..4),
        workers in 1usize..5,
    ) {
        check(&splits, plans, workers);
    }
}
