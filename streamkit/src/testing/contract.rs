//! What every connector must hold to, as functions that its tests call.

use std::fmt::Debug;

use crate::connector::{
    Claim, Commit, Point, Progress, ReadBatch, ReadStatus, Sink, SinkContext, SinkWriter, Source,
    Wake,
};
use crate::data::Data;
use crate::error::ErrorKind;
use crate::record::{Batch, Position, Split, SplitId};
use crate::time::{Timestamp, millis};

/// How many reads in a row may bring nothing before a split counts as stuck.
const PATIENCE: u32 = 10_000;

/// Checks a bounded source: every split is read to its end, positions rise, and a reader that is
/// opened at a position reads exactly what was read from there before. Returns the records of each
/// split, as `show` makes them, so that the test can compare them with what it had put in.
///
/// Each record is a position to resume at, so give it a source with some hundred records at most.
///
/// # Panics
/// If the source does not hold to the contract, saying what it did.
pub fn source_contract<S: Source, R: PartialEq + Debug>(
    source: &S,
    show: impl Fn(&S::Item) -> R,
) -> Vec<Vec<R>> {
    let splits = expect("splits(no known ones)", source.splits(&[]));
    let again = expect("splits(the known ones)", source.splits(&splits));
    let ids = |splits: &[Split]| splits.iter().map(|s| s.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&splits), ids(&again), "a known split must be reported with the same id");
    let mut all = vec![];
    for split in &splits {
        let start = expect("start", source.start(split));
        let end = expect("end", source.end(split));
        let records = read(source, split, start, end, &show, 1_024);
        let rising = records.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rising, "{}: positions must rise", split.id);
        assert!(records.iter().all(|(at, _)| (start..end).contains(at)), "{}", split.id);
        for (i, (at, _)) in records.iter().enumerate() {
            let rest = read(source, split, *at, end, &show, 3);
            assert_eq!(rest, records[i..], "{}: opened at {at}", split.id);
        }
        assert_eq!(read(source, split, end, end, &show, 3), [], "{}: opened at the end", split.id);
        all.push(records.into_iter().map(|(_, record)| record).collect());
    }
    all
}

/// Reads a split from a position to its end.
fn read<S: Source, R>(
    source: &S,
    split: &Split,
    from: u64,
    end: u64,
    show: &impl Fn(&S::Item) -> R,
    max: usize,
) -> Vec<(u64, R)> {
    let mut reader = expect("open", source.open(split, from, Wake::new(|| ())));
    let (mut records, mut next, mut nothing) = (vec![], from, 0);
    while next < end {
        let mut batch = ReadBatch::default();
        batch.restart(next);
        let status = expect("read", reader.read(&mut batch, max));
        assert!(batch.len() <= max, "{}: {} records, asked for {max}", split.id, batch.len());
        assert!(batch.next() >= next, "{}: the position went backwards", split.id);
        let first = batch.iter().map(|(at, _)| at).next();
        assert!(first.is_none_or(|at| at >= next), "{}: a record twice, {first:?}", split.id);
        nothing = if batch.next() > next { 0 } else { nothing + 1 };
        next = batch.next();
        records.extend(batch.iter().filter(|(at, _)| *at < end).map(|(at, r)| (at, show(r))));
        if next < end {
            let ended = status == ReadStatus::Ended;
            assert!(!ended, "{}: it has ended at {next}, and its end is {end}", split.id);
            assert!(nothing < PATIENCE, "{}: stuck at {next}, and its end is {end}", split.id);
        }
        if nothing > 0 {
            std::thread::sleep(millis(1));
        }
    }
    records
}

/// Checks a sink: rows and progress become visible together, `recover` discards what is not
/// committed, and a writer that was overtaken cannot commit.
///
/// `open` makes a sink on the same target each time; `row` makes the n-th row; `visible` reads from
/// the target which rows (by number) a reader sees, in any order. Must be called within a tokio
/// runtime if the sink needs one, as [`SinkContext`] has it.
///
/// # Panics
/// If the sink does not hold to the contract, saying what it did.
pub fn sink_contract<T: Data, S: Sink<T>>(
    context: &SinkContext,
    mut open: impl FnMut() -> S,
    row: impl Fn(u64) -> T,
    mut visible: impl FnMut() -> Vec<u64>,
) {
    let mut seen = || {
        let mut seen = visible();
        seen.sort_unstable();
        seen
    };
    let claim = Claim {
        job: context.job.clone(),
        sink: context.sink.clone(),
        lineage: "0123456789abcdef".to_owned(),
        take_over: true,
    };
    let batch = |rows: std::ops::Range<u64>| {
        let times = rows.clone().map(|n| Timestamp::from_micros(1_000_000 * n as i64));
        Batch::new(rows.clone().map(&row).collect(), times.collect())
    };
    let mut first = expect("open", open().open(context));
    assert_eq!(expect("recover", first.recover(&claim)), None, "nothing was ever committed");
    expect("write", first.write(&batch(0..2)));
    expect("write", first.write(&batch(2..3)));
    commit(&mut *first, &progress(3));
    assert_eq!(seen(), [0, 1, 2], "committed rows are visible");

    expect("write", first.write(&batch(3..5)));
    let found = expect("recover after a write", first.recover(&claim));
    assert_eq!(found, Some(progress(3)), "the progress is that of the last commit");
    assert_eq!(seen(), [0, 1, 2], "recover discards what is not committed");
    expect("write", first.write(&batch(3..4)));
    commit(&mut *first, &progress(4));
    assert_eq!(seen(), [0, 1, 2, 3], "what was discarded does not come back");

    commit(&mut *first, &progress(6));
    expect("write", first.write(&batch(6..7)));
    let mut second = expect("open a second time", open().open(context));
    let found = expect("recover in a second writer", second.recover(&claim));
    assert_eq!(found, Some(progress(6)), "a commit without rows stores its progress");
    assert_eq!(seen(), [0, 1, 2, 3], "a second writer sees nothing of an open transaction");
    let late = first.write(&batch(7..8)).and_then(|()| first.commit(&progress(8)));
    match late {
        Err(e) => assert_eq!(e.kind(), ErrorKind::Fenced, "an overtaken writer is fenced: {e}"),
        Ok(done) => panic!("an overtaken writer could commit: {done:?}"),
    }
    drop(first);
    expect("write", second.write(&batch(6..9)));
    commit(&mut *second, &progress(9));
    assert_eq!(seen(), [0, 1, 2, 3, 6, 7, 8], "the second writer goes on");

    let foreign = Claim { lineage: "another lineage".to_owned(), ..claim };
    let refused = open().open(context).and_then(|mut writer| writer.recover(&foreign));
    let refused = refused.map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::Fenced), "progress of another lineage is refused");
}

fn progress(rows: u64) -> Progress {
    let at = Position { next: rows, read: rows, accepted: rows, ..Position::default() };
    Progress { point: Point::Positions([(SplitId::new("contract/0"), at)].into()), rows }
}

fn commit<T>(writer: &mut dyn SinkWriter<T>, progress: &Progress) {
    match expect("commit", writer.commit(progress)) {
        Commit::Done => {}
        Commit::Unknown => {
            panic!("the outcome of a commit is unknown although nothing has gone wrong")
        }
    }
}

fn expect<V>(what: &str, result: crate::Result<V>) -> V {
    match result {
        Ok(value) => value,
        Err(e) => panic!("{what} failed: {e}"),
    }
}
