//! The contract of a stateful operator: it hangs on a keyed stream, beside others.

use std::ops::Range;

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

/// Some rows that are not too late, as indices into the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// They are on time.
    OnTime(Range<usize>),
    /// One that is late for the windows that end before this.
    From(usize, Timestamp),
}

impl<T> KeyedRows<'_, T> {
    /// Calls `f` with all rows that are not too late, in order, in stretches as long as possible: what
    /// is late is looked at here, and not for every row.
    #[inline]
    pub(crate) fn stretches(&self, mut f: impl FnMut(Stretch)) {
        let mut from = 0;
        for (row, verdict) in self.verdicts {
            let Ok(at) = self.rows[from..].binary_search(row) else { continue };
            let at = from + at;
            if from < at {
                f(Stretch::OnTime(from..at));
            }
            if let Lateness::From(end) = verdict {
                f(Stretch::From(at, *end));
            }
            from = at + 1;
        }
        if from < self.rows.len() {
            f(Stretch::OnTime(from..self.rows.len()));
        }
    }

    /// As [`stretches`](Self::stretches), where a record is on time or late, and nothing between.
    #[inline]
    pub(crate) fn on_time(&self, mut f: impl FnMut(Range<usize>)) {
        self.stretches(|stretch| match stretch {
            Stretch::OnTime(rows) => f(rows),
            Stretch::From(..) => {}
        });
    }

    /// The time of a row.
    #[inline]
    pub(crate) fn time(&self, at: usize) -> i64 {
        self.batch.time(self.rows[at]).as_micros()
    }

    /// The first of these rows, and those right behind it whose times are in the same pane, which
    /// starts at `start`.
    #[inline]
    pub(crate) fn run(&self, rows: &Range<usize>, start: i64, length: i64) -> Range<usize> {
        let others = self.rows[rows.start + 1..rows.end].iter();
        let run = others.take_while(|row| {
            (0..length).contains(&self.batch.time(**row).as_micros().wrapping_sub(start))
        });
        rows.start..rows.start + 1 + run.count()
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

    /// Notes what a checkpoint is to hold: all that a restart needs of the state as it is now. What is
    /// little is written at once, the rest by [`write`](Self::write), which is called between batches
    /// until it hands the writer back. What is about to change before that is written first.
    fn freeze(&mut self, since: Since, keys: &KeyTable, out: StateWriter);

    /// Writes more of what was frozen, about so many bytes. Hands the writer back with the last of it.
    fn write(&mut self, bytes: usize, keys: &KeyTable) -> Option<StateWriter>;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn t3_rows_that_are_late_part_those_that_are_on_time() {
        let batch = Batch::new(vec![0; 9], (0..9).map(at).collect());
        let rows = [0, 1, 3, 4, 6, 7, 8];
        let stretches = |verdicts: &[(u32, Lateness)]| {
            let keyed = KeyedRows { batch: &batch, rows: &rows, slots: &[], hashes: &[], verdicts };
            let mut all = vec![];
            keyed.stretches(|stretch| all.push(stretch));
            all
        };
        assert_eq!(stretches(&[]), [Stretch::OnTime(0..7)]);
        let from = Lateness::From(at(60));
        // Row 5 is not selected.
        let late = [(0, from), (3, Lateness::Late), (5, from), (6, from), (8, Lateness::Late)];
        assert_eq!(
            stretches(&late),
            [
                Stretch::From(0, at(60)),
                Stretch::OnTime(1..2),
                Stretch::OnTime(3..4),
                Stretch::From(4, at(60)),
                Stretch::OnTime(5..6),
            ]
        );
    }

    #[test]
    fn a_run_is_as_long_as_the_times_are_in_one_pane() {
        let batch = Batch::new(vec![0; 6], [10, 19, 12, 20, 11, 9].map(at).to_vec());
        let rows = [0, 1, 2, 3, 4, 5];
        let keyed =
            KeyedRows { batch: &batch, rows: &rows, slots: &[], hashes: &[], verdicts: &[] };
        assert_eq!(keyed.run(&(0..6), 10, 10), 0..3);
        assert_eq!(keyed.run(&(1..2), 10, 10), 1..2);
        assert_eq!(keyed.run(&(3..6), 20, 10), 3..4);
        assert_eq!(keyed.run(&(4..6), 10, 10), 4..5);
    }
}
