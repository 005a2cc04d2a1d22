//! A checkpoint that is being written holds what was there at its barrier, whatever fires meanwhile.

use std::sync::Arc;

use super::keyed::{KeyedOperator, KeyedRows};
use super::{Acks, DistinctKeys, Fired, Sessions, WindowAggregate};
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::Batch;
use crate::state::{Change, KeyGroup, KeyTable, Since, StateWriter, key_hash};
use crate::time::{Timestamp, minutes};
use crate::window::{Panes, Session, Sliding, Tumbling, count};

struct Nowhere;

impl<T> Link<T> for Nowhere {
    fn batch(&mut self, _: Batch<T>, _: &mut Cx) -> Result<()> {
        Ok(())
    }

    fn control(&mut self, _: &Control, _: &mut Cx) -> Result<()> {
        Ok(())
    }
}

/// Five keys in the first minute; everything closes after the barrier, before a byte of them is written.
/// Returns how many entries with this tag are in the checkpoint.
fn entries(mut operator: impl KeyedOperator<u8>, tag: u8) -> usize {
    let (mut keys, mut cx) = (KeyTable::new(), Cx::new(0, 1));
    let values: Vec<u8> = (0..5).collect();
    let hashes: Vec<u64> = values.iter().map(|value| key_hash(&[*value])).collect();
    let slots: Vec<u32> = values.iter().map(|value| keys.restore(&[*value])).collect();
    let times = values.iter().map(|value| Timestamp::from_micros(i64::from(*value)));
    let batch = Batch::new(values.clone(), times.collect());
    let (rows, verdicts) = ([0, 1, 2, 3, 4], []);
    let rows = KeyedRows {
        batch: &batch,
        rows: &rows,
        slots: &slots,
        hashes: &hashes,
        verdicts: &verdicts,
    };
    operator.on_batch(&rows, &keys, &mut cx).unwrap();
    let later = Timestamp::from_micros(3_600_000_000);
    // Sessions open as the watermark passes their first event.
    while operator.fire(Timestamp::from_micros(5), &keys, &mut cx).unwrap() != Fired::Done {}
    operator.freeze(Since::Last, &keys, StateWriter::new((KeyGroup::MIN, KeyGroup::MAX)));
    while operator.fire(later, &keys, &mut cx).unwrap() != Fired::Done {}
    let changes = operator.write(usize::MAX, &keys).unwrap().into_changes().unwrap();
    let puts = changes.iter().filter(|change| match change {
        Change::Put { key, .. } => key[0] == tag,
        Change::Delete { .. } | Change::DeletePrefix { .. } => false,
    });
    puts.count()
}

#[test]
fn what_fires_while_a_checkpoint_is_written_is_in_it() {
    let tumbling = Panes::new(&Tumbling::of(minutes(1))).unwrap();
    let sliding = Panes::new(&Sliding::of(minutes(5), minutes(1))).unwrap();
    let next = || Box::new(Nowhere);
    for panes in [tumbling, sliding] {
        let windows =
            WindowAggregate::<str, u8, _>::new(panes, Arc::new(count()), Acks::default(), next());
        assert_eq!(entries(windows, b'P'), 5);
        assert_eq!(entries(DistinctKeys::new(panes, 0, next()), b'P'), 5);
    }
    let rule = Session::with_gap(minutes(1));
    let sessions = Sessions::<str, u8, _>::new(rule, Arc::new(count()), Acks::default(), next());
    assert_eq!(entries(sessions, b'O'), 5);
}
