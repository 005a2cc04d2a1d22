//! Results between firing and delivery, and the count of records behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

use crate::data::State;
use crate::error::Result;
use crate::failpoint::broken;
use crate::state::{
    BitSet, KEY_GROUPS, KeyGroup, KeyTable, Since, StateReader, StateWriter, decode, group_of,
};
use crate::time::Timestamp;

/// How far the sinks behind an operator have committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acks(Vec<Arc<AtomicI64>>);

impl Acks {
    pub(crate) fn add(&mut self, sink: Arc<AtomicI64>) {
        self.0.push(sink);
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().map(Arc::clone));
    }

    /// Every sink has every result with a fire time up to this one. Without a sink: all of them.
    fn committed(&self) -> Timestamp {
        let low = self.0.iter().map(|w| w.load(Ordering::Acquire)).min();
        Timestamp::from_micros(low.unwrap_or(i64::MAX))
    }
}

/// Fired results of an operator, until every sink behind it has committed them (rule D4).
///
/// They are kept in the form of the operator's own state rather than as encoded rows at the edge
/// into the sink: so a result type needs no serializer, and after a restart what was not delivered
/// simply fires again; the edge drops what its sink has.
#[derive(Debug)]
pub(crate) struct Results<R> {
    waiting: VecDeque<Waiting<R>>,
    /// How many of `waiting` have been emitted.
    emitted: usize,
    /// How many of `waiting` had fired before the restart.
    restored: usize,
    acks: Acks,
    /// Fired, and no longer in the operator's own state.
    fired: Timestamp,
    counted: Box<[u64; KEY_GROUPS as usize]>,
    counted_changed: bool,
}

/// One fired result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting<R> {
    pub(crate) fire_time: Timestamp,
    pub(crate) slot: u32,
    pub(crate) result: R,
}

#[derive(Serialize, Deserialize)]
struct Stored<R>(Timestamp, R);

const RESULT: u8 = b'R';
const FIRED: &[u8] = b"W";
const COUNTED: &[u8] = b"C";

impl<R: State> Results<R> {
    pub(crate) fn new(acks: Acks) -> Self {
        Self {
            waiting: VecDeque::new(),
            emitted: 0,
            restored: 0,
            acks,
            fired: Timestamp::MIN,
            counted: Box::new([0; KEY_GROUPS as usize]),
            counted_changed: false,
        }
    }

    /// Counts records with keys of these hashes, each in its key group.
    #[inline]
    pub(crate) fn count(&mut self, hashes: &[u64]) {
        hashes.iter().for_each(|hash| self.counted[group_of(*hash) as usize] += 1);
        self.counted_changed = true;
    }

    pub(crate) fn counted(&self) -> u64 {
        self.counted.iter().sum()
    }

    /// Adds a result. Fire times must not go backwards.
    pub(crate) fn push(&mut self, fire_time: Timestamp, slot: u32, result: R) {
        self.waiting.push_back(Waiting { fire_time, slot, result });
    }

    /// Takes up to `limit` results to emit. True if they had fired before the restart already.
    pub(crate) fn emit(&mut self, limit: usize, mut each: impl FnMut(&Waiting<R>)) -> bool {
        let replayed = self.emitted < self.restored;
        let all = if replayed { self.restored } else { self.waiting.len() };
        let to = all.min(self.emitted.saturating_add(limit));
        for i in self.emitted..to {
            each(&self.waiting[i]);
        }
        self.emitted = to;
        replayed
    }

    /// The fire time of the next result to emit.
    pub(crate) fn next_fire_time(&self) -> Option<Timestamp> {
        self.waiting.get(self.emitted).map(|waiting| waiting.fire_time)
    }

    /// The fire time of the last result that is not known to be delivered.
    pub(crate) fn highest(&self) -> Option<Timestamp> {
        self.waiting.back().map(|waiting| waiting.fire_time)
    }

    /// Drops what has been delivered.
    pub(crate) fn prune(&mut self) {
        let committed = self.acks.committed();
        while self.emitted > 0
            && self.waiting.front().is_some_and(|waiting| waiting.fire_time <= committed)
        {
            self.waiting.pop_front();
            self.emitted -= 1;
            self.restored = self.restored.saturating_sub(1);
        }
    }

    pub(crate) fn fired(&self) -> Timestamp {
        self.fired
    }

    pub(crate) fn set_fired(&mut self, watermark: Timestamp) {
        self.fired = self.fired.max(watermark);
    }

    pub(crate) fn alive(&self, slots: &mut BitSet) {
        for waiting in &self.waiting {
            slots.insert(waiting.slot);
        }
    }

    pub(crate) fn freeze(&mut self, since: Since, keys: &KeyTable, out: &mut StateWriter) {
        self.prune();
        // Few results wait at any time, so they are written whole.
        out.delete_prefix(&[RESULT]);
        let left_out = if broken("results.in_checkpoint") { self.waiting.len() } else { 0 };
        for (i, waiting) in self.waiting.iter().enumerate().skip(left_out) {
            let order = (i as u64).to_be_bytes();
            let key = keys.key(waiting.slot);
            let stored = StoredRef(waiting.fire_time, &waiting.result);
            out.put(keys.group(waiting.slot), &[&[RESULT], &order, key], &stored);
        }
        out.put_in_every_group(FIRED, &self.fired);
        if self.counted_changed || since == Since::Beginning {
            self.counted_changed = false;
            for (group, n) in self.counted.iter().enumerate().filter(|(_, n)| **n > 0) {
                if let Ok(group) = u8::try_from(group) {
                    out.put(group, &[COUNTED], n);
                }
            }
        }
    }

    /// Takes the entry if it is one of those written here.
    pub(crate) fn restore(
        &mut self,
        group: u8,
        key: &[u8],
        value: &[u8],
        keys: &mut KeyTable,
    ) -> Result<bool> {
        match key {
            [RESULT, rest @ ..] if rest.len() >= 8 => {
                let Stored(fire_time, result) = decode(value)?;
                self.waiting.push_back(Waiting {
                    fire_time,
                    slot: keys.restore(&rest[8..]),
                    result,
                });
            }
            FIRED => self.set_fired(decode(value)?),
            COUNTED => self.counted[group as usize] = decode(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// To be called after the last entry: results come out in order.
    pub(crate) fn restored(&mut self) {
        self.waiting.make_contiguous().sort_by_key(|waiting| waiting.fire_time);
        self.restored = self.waiting.len();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() - self.emitted
    }
}

#[derive(Serialize)]
struct StoredRef<'a, R>(Timestamp, &'a R);

/// Reads every entry of an operator: those of its results go to `results`, the others to `own`, as
/// (group, key, value).
pub(crate) fn restore_entries<R: State>(
    results: &mut Results<R>,
    from: &StateReader<'_>,
    keys: &mut KeyTable,
    mut own: impl FnMut(KeyGroup, &[u8], &[u8], &mut KeyTable) -> Result<()>,
) -> Result<()> {
    for (group, key, value) in from.iter() {
        if !results.restore(group, key, value, keys)? {
            own(group, key, value, keys)?;
        }
    }
    results.restored();
    Ok(())
}
