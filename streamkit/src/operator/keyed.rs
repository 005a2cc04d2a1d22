//! The contract of a stateful operator: it hangs on a keyed stream, beside others.

use crate::error::Result;
use crate::flow::{Control, Cx};
use crate::record::Batch;
use crate::state::{BitSet, KeyTable, Since, StateReader, StateWriter};
use crate::time::Timestamp;
use crate::window::Lateness;

/// The most rows that a firing step emits.
pub(crate) const STEP_ROWS: usize = 2_048;

/// A batch whose keys have been looked up: three columns of the same length.
pub(crate) struct KeyedRows<'a, T> {
    pub(crate) batch: &'a Batch<T>,
    /// Physical rows of the batch, ascending.
    pub(crate) rows: &'a [u32],
    /// The slot of each row's key.
    pub(crate) slots: &'a [u32],
    /// The hash of each row's key.
    pub(crate) hashes: &'a [u64],
    /// Rows that are not on time for this operator, ascending by row.
    pub(crate) verdicts: &'a [(u32, Lateness)],
}

impl<T> KeyedRows<'_, T> {
    /// Calls `f` with (index into the columns, lateness) of each row that is not too late.
    #[inline]
    pub(crate) fn each(&self, mut f: impl FnMut(usize, Lateness)) {
        if self.verdicts.is_empty() {
            (0..self.rows.len()).for_each(|i| f(i, Lateness::OnTime));
            return;
        }
        let mut verdicts = self.verdicts.iter().peekable();
        for (i, row) in self.rows.iter().enumerate() {
            while verdicts.next_if(|(at, _)| at < row).is_some() {}
            match verdicts.peek() {
                Some((at, Lateness::Late)) if at == row => {}
                Some((at, verdict)) if at == row => f(i, *verdict),
                _ => f(i, Lateness::OnTime),
            }
        }
    }
}

/// How far a firing step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    /// Everything with a fire time up to the watermark is out.
    Done,
    /// There is more; everything with a fire time up to this one is out (rule T5).
    More(Timestamp),
}

/// What an operator tells the outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct OperatorStatus {
    /// Windows, sessions or keys that wait.
    pub(crate) open: u64,
    /// The earliest time at which something may fire.
    pub(crate) next_fire: Option<Timestamp>,
}

/// A stateful operator with its output.
///
/// The keyed input calls `on_batch` for data; on a watermark it calls `fire` until `Done`, with
/// room in every queue before each call, and then `forward`s the watermark. Rows come out in
/// ascending order of their fire time f, with the timestamp f − 1 µs.
pub(crate) trait KeyedOperator<T>: Send {
    fn on_batch(&mut self, rows: &KeyedRows<'_, T>, keys: &KeyTable, cx: &mut Cx) -> Result<()>;

    fn fire(&mut self, watermark: Timestamp, keys: &KeyTable, cx: &mut Cx) -> Result<Fired>;

    /// Emits the running values of everything that is open.
    fn tick(&mut self, keys: &KeyTable, cx: &mut Cx) -> Result<()>;

    /// Hands a control to what comes next.
    fn forward(&mut self, control: &Control, cx: &mut Cx) -> Result<()>;

    /// The highest fire time of what is open.
    fn highest_pending(&self) -> Option<Timestamp>;

    /// The highest fire time of what has fired and is not known to be delivered.
    fn highest_undelivered(&self) -> Option<Timestamp>;

    /// Writes what changed. Everything a restart needs is in it.
    fn freeze(&mut self, since: Since, keys: &KeyTable, out: &mut StateWriter) -> Result<()>;

    fn restore(&mut self, from: &StateReader<'_>, keys: &mut KeyTable) -> Result<()>;

    /// Windows that start before this have no result: the operator has not seen all of their
    /// records (rule D12). Called once, before the first record.
    fn begin(&mut self, from: Timestamp) {
        let _ = from;
    }

    /// Adds the slots that the operator has state for.
    fn alive(&self, slots: &mut BitSet);

    /// Records counted since the job began, in the key groups of this worker (rule D13).
    fn counted(&self) -> u64;

    fn status(&self) -> OperatorStatus;
}
