//! The jobs of the examples: run straight through, interrupted anywhere, and resumed with another
//! number of workers, they write the same.

use streamkit::JobState;
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Gate, Running, Script, ScriptedSource, run};

macro_rules! example {
    ($name:ident, $path:literal) => {
        #[allow(dead_code, unreachable_pub, reason = "a program of its own, with a main")]
        #[path = $path]
        mod $name;
    };
}

example!(hello_stream, "../../examples/hello_stream.rs");
example!(tumbling_counts, "../../examples/tumbling_counts.rs");
example!(sliding_active_users, "../../examples/sliding_active_users.rs");
example!(sessions, "../../examples/sessions.rs");
example!(late_and_dead_letters, "../../examples/late_and_dead_letters.rs");
example!(custom_source_operator_sink, "../../examples/custom_source_operator_sink.rs");

type Out = FlakySink<Collect<String>>;

/// What the sinks of a job have; a job with fewer leaves the others empty.
#[derive(Clone, Default)]
struct Rows([Collect<String>; 3]);

impl Rows {
    /// The first one has the fault.
    fn sinks(&self, mut fault: Option<Fault>) -> [Out; 3] {
        self.0.each_ref().map(|rows| FlakySink::new(rows.clone(), fault.take()))
    }

    fn sorted(&self) -> [Vec<String>; 3] {
        self.0.each_ref().map(|rows| {
            let mut rows = rows.rows();
            rows.sort();
            rows
        })
    }
}

fn config(checkpoints: &Checkpoints, workers: usize) -> RunConfig {
    let config = RunConfig::new().workers(workers).at_end(InputEnd::Close);
    config.checkpoints(checkpoints.clone()).checkpoint_interval(millis(1))
}

/// Every job is cut short twice, by a stop after each number of records and by a sink that breaks at
/// its first or second commit, and goes on with one to three workers.
fn check<T: Clone + Send + Sync + 'static>(
    splits: &[Vec<T>],
    job: impl Fn(ScriptedSource<T>, [Out; 3]) -> Job,
) {
    let straight = Rows::default();
    let whole = || ScriptedSource::splits(splits.to_vec());
    run(job(whole(), straight.sinks(None)), RunConfig::new().at_end(InputEnd::Close)).unwrap();
    assert!(!straight.sorted()[0].is_empty());
    let longest = splits.iter().map(Vec::len).max().unwrap_or(0);
    for cut in 0..=longest {
        for (n, workers) in [(1, 2), (2, 3), (1, 1), (2, 1)] {
            let (rows, checkpoints, gate) = (Rows::default(), Checkpoints::shared(), Gate::new());
            let script = |split: &Vec<T>| {
                let (first, rest) = split.split_at(cut.min(split.len()));
                Script::new().emit(first.to_vec()).until(&gate).emit(rest.to_vec())
            };
            let source = ScriptedSource::new(splits.iter().map(script));
            let running = Running::start(job(source, rows.sinks(None)), config(&checkpoints, 1));
            let there: usize = splits.iter().map(|split| cut.min(split.len())).sum();
            running.until("the records before the stop", |p| {
                p.state == JobState::Ended
                    || (p.state != JobState::Starting && p.read >= there as u64)
            });
            running.stop().unwrap();
            let broken = rows.sinks(Some(Fault::BreakAfterCommit(n)));
            // Whether it breaks or is done before: the last one goes on from there.
            let _ = run(job(whole(), broken), config(&checkpoints, 4 - workers));
            run(job(whole(), rows.sinks(None)), config(&checkpoints, workers)).unwrap();
            assert_eq!(rows.sorted(), straight.sorted(), "stopped after {cut}, {workers} workers");
        }
    }
}

#[test]
fn hello_stream_goes_on_where_it_was() {
    check(&[hello_stream::readings()], |source, [out, ..]| hello_stream::job(source, out));
}

#[test]
fn tumbling_counts_go_on_where_they_were() {
    check(&[tumbling_counts::views()], |source, [counts, late, _]| {
        tumbling_counts::job(source, counts, late)
    });
}

#[test]
fn sliding_active_users_go_on_where_they_were() {
    check(&sliding_active_users::events(), |source, [out, ..]| {
        sliding_active_users::job(source, out)
    });
}

#[test]
fn sessions_go_on_where_they_were() {
    check(&[sessions::events()], |source, [out, ..]| sessions::job(source, out));
}

#[test]
fn late_and_dead_letters_go_on_where_they_were() {
    check(&[late_and_dead_letters::lines()], |source, [results, late, dead]| {
        late_and_dead_letters::job(source, results, late, dead)
    });
}

/// Its operator, behind a source that can be cut anywhere, into a sink that breaks.
#[test]
fn factors_go_on_where_they_were() {
    check(&[(7..13).collect(), (13..17).collect()], |source, [out, ..]| {
        custom_source_operator_sink::job(source, out)
    });
}

/// And its source and its sink: the numbers so far, then some more, and so on, with another number of
/// workers each time.
#[test]
fn a_source_and_a_sink_of_ones_own_go_on_where_they_were() {
    use custom_source_operator_sink::{Numbers, Shelf, job};
    let keep_open = |checkpoints: &Checkpoints, workers| {
        config(checkpoints, workers).at_end(InputEnd::KeepOpen)
    };
    let straight = Shelf::default();
    run(job(Numbers { end: 17 }, straight.clone()), keep_open(&Checkpoints::shared(), 1)).unwrap();
    let straight = straight.take();
    assert_eq!(straight.len(), 10);
    for first in 7..=17 {
        for second in first..=17 {
            let (shelf, checkpoints) = (Shelf::default(), Checkpoints::shared());
            for (end, workers) in [(first, 1), (second, 3), (17, 2)] {
                let job = job(Numbers { end }, shelf.clone());
                run(job, keep_open(&checkpoints, workers)).unwrap();
            }
            assert_eq!(shelf.take(), straight, "cut at {first} and {second}");
        }
    }
}
