//! The connectors in memory, and those for tests, hold to the contracts themselves.

use streamkit::connector::SinkContext;
use streamkit::connector::memory::{Collect, Memory};
use streamkit::testing::{
    Fault, FlakySink, Gate, Journal, Script, ScriptedSource, sink_contract, source_contract,
};

fn context() -> SinkContext {
    SinkContext {
        job: "contract".to_owned(),
        sink: "rows".to_owned(),
        instance: "0".to_owned(),
        runtime: tokio::runtime::Handle::current(),
    }
}

#[test]
fn sources_in_memory() {
    let splits = vec![(0..50).collect::<Vec<u64>>(), vec![], vec![7]];
    assert_eq!(source_contract(&Memory::splits(splits.clone()), |n| *n), splits);
    for size in [1, 2, 1_000] {
        let source = ScriptedSource::splits(splits.clone()).read_size(size);
        assert_eq!(source_contract(&source, |n| *n), splits);
    }
    let gate = Gate::new();
    gate.open();
    let script = Script::new().emit(0..3).waiting().reject("bad").caught_up().until(&gate);
    let source = ScriptedSource::new([script.emit(3..5).quiet_until(&gate).emit(5..6)]);
    assert_eq!(source_contract(&source, |n| *n), [[0u64, 1, 2, 3, 4, 5]]);
}

#[tokio::test]
async fn sinks_in_memory() {
    let rows = Collect::new();
    sink_contract(&context(), || rows.clone(), |n| n, || rows.rows());
    let rows = Journal::new();
    sink_contract(&context(), || rows.clone(), |n| n, || rows.rows());
}

#[tokio::test]
#[should_panic(expected = "the outcome of a commit is unknown")]
async fn a_sink_that_loses_a_reply_is_noticed() {
    let rows = Collect::new();
    let flaky = FlakySink::new(rows.clone(), [Fault::LoseReply(2)]);
    sink_contract(&context(), || flaky.clone(), |n| n, || rows.rows());
}
