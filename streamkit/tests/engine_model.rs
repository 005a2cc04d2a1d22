//! The engine against a batch model: the same results, to the last row, whatever the number of
//! workers, the size of a read and the race between the splits.

#[path = "model/generate.rs"]
mod generate;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use model::{Event, Everything, Role, all_marks, check_conservation, strategy};
use proptest::prelude::*;
use streamkit::prelude::*;
use streamkit::testing::{Fault, ScriptedSource, run};
use streamkit::time::{Clock, SystemClock};

fn check(splits: &[Vec<Event>], source: ScriptedSource<Event>, workers: usize) {
    let everything = Everything::new();
    let job = Job::new("model");
    everything.build(&job.source("events", source, strategy()));
    let progress = run(job, RunConfig::new().workers(workers).at_end(InputEnd::Close)).unwrap();
    everything.check(&all_marks(splits));
    check_conservation(&progress);
    let all: usize = splits.iter().map(Vec::len).sum();
    assert_eq!((progress.read, progress.accepted), (all as u64, all as u64));
    for name in ["tumbling", "sliding", "users", "sessions"] {
        assert_eq!(progress.wanted.get(name).copied().unwrap_or(0), all as u64, "{name}");
    }
}

/// A wall clock that is moved by an hour each time that somebody looks, forwards and back.
#[derive(Clone)]
struct Jumping(SystemClock, Arc<AtomicI64>);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        let odd = self.1.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        let now = self.0.now();
        if odd { now.saturating_add(hours(1)) } else { now.saturating_sub(hours(1)) }
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// In a straight run, and in one that goes on from a checkpoint that an hour later or earlier has made.
#[test]
fn f87_a_wall_clock_that_jumps_changes_no_result() {
    let event = |split: u64, n: u64| Event {
        time: 100 + (n * 3) as i64 - ((n * 7 + split) % 5) as i64 * 8,
        user: format!("u{}", (n + split) % 3),
        role: if n.is_multiple_of(11) { Role::Start } else { Role::Other },
        id: split * 1_000 + n,
    };
    let splits: Vec<Vec<_>> = (0..2).map(|s| (0..200).map(|n| event(s, n)).collect()).collect();
    for workers in [1, 3] {
        let clock = Jumping(SystemClock::new(), Arc::default());
        let (mut outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
        outputs.faults = vec![("tumbling rows", Fault::BreakAfterCommit(1))];
        for last in [false, true] {
            let job = Job::new("jumping");
            let source = ScriptedSource::splits(splits.clone()).read_size(3);
            outputs.build(&job.source("events", source, strategy()));
            let config = RunConfig::new().workers(workers).at_end(InputEnd::Close);
            let config = config.clock(clock.clone()).checkpoint_interval(millis(1));
            let ended = run(job, config.checkpoints(checkpoints.clone()));
            assert_eq!(ended.is_ok(), last, "the first run breaks");
            outputs.faults.clear();
        }
        outputs.check(&all_marks(&splits));
        assert!(clock.1.load(Ordering::SeqCst) > 2, "somebody has looked");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn results_are_a_function_of_the_data(splits in generate::splits(3, 60)) {
        for (workers, read_size) in [(1, 1), (1, 1_024), (2, 3), (4, 1), (4, 1_024)] {
            let source = ScriptedSource::splits(splits.clone()).read_size(read_size);
            check(&splits, source, workers);
        }
    }

    #[test]
    fn the_order_in_which_splits_are_read_does_not_matter(
        splits in generate::splits(3, 25),
        order in proptest::collection::vec(0usize..3, 75),
        workers in 1usize..4,
    ) {
        // Only turns that a split can take, or it would wait for ever.
        let mut left: Vec<usize> = splits.iter().map(Vec::len).collect();
        let order: Vec<usize> = order
            .into_iter()
            .filter(|&split| {
                let can = left.get(split).is_some_and(|left| *left > 0);
                if can {
                    left[split] -= 1;
                }
                can
            })
            .collect();
        let source = ScriptedSource::splits(splits.clone()).turns(order);
        check(&splits, source, workers);
    }
}
