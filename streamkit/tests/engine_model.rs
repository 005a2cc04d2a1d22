//! The engine against a batch model: the same results, to the last row, whatever the number of
//! workers, the size of a read and the race between the splits.

#[path = "model/generate.rs"]
mod generate;
mod model;

use model::{Event, Everything, all_marks, check_conservation, strategy};
use proptest::prelude::*;
use streamkit::prelude::*;
use streamkit::testing::{ScriptedSource, run};

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
