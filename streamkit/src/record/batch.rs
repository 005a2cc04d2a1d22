//! A batch of records, shared by branches and workers without a clone.
//!
//! ```text
//! rows       ┌ values: [v0 v1 v2 v3 v4 v5]      behind one Arc: a fork shares it
//!            └ times:  [t0 t1 t2 t3 t4 t5]
//! selection    [0, 2, 5]                         what a filter leaves; None = all rows
//! marks        [(2, w)]                          rows behind their split's watermark (rule T2)
//! run          split 3, records 700 → 706        None after an exchange
//! ```

use std::sync::Arc;

use super::{Place, Position};
use crate::time::Timestamp;

/// Whether a row is a window's last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event, or a result that never changes again.
    Final,
    /// A value of a window that is still open. A later row of the same key replaces it.
    Running,
}

/// Which records of which split a batch covers, dead letters and filtered records included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The split, as an index into the source's list of splits.
    pub(crate) split: u32,
    /// The position of the first record.
    pub(crate) first: u64,
    /// Letters about given up records that were sent before it ([`Position::told`]).
    pub(crate) told: u64,
    /// The position after the last record.
    pub(crate) end: Position,
}

impl Run {
    /// The first record that the batch covers.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The record after the last one that the batch covers.
    pub fn next(&self) -> u64 {
        self.end.next
    }

    /// Where it begins.
    pub(crate) fn begin(&self) -> Place {
        (self.first, self.told)
    }

    /// The one position that it covers, if it is only one.
    pub(crate) fn only(&self) -> Option<u64> {
        (self.first + 1 == self.end.next).then_some(self.first)
    }
}

/// The columns that branches share.
#[derive(Debug)]
pub(crate) struct Rows<T> {
    pub(crate) values: Vec<T>,
    pub(crate) times: Vec<Timestamp>,
}

/// Records with their event times. Cloning one costs a few reference counts, whatever its size.
#[derive(Debug)]
pub struct Batch<T> {
    rows: Arc<Rows<T>>,
    selection: Option<Arc<[u32]>>,
    marks: Option<Arc<[(u32, Timestamp)]>>,
    run: Option<Run>,
    kind: Kind,
    replayed: bool,
}

impl<T> Clone for Batch<T> {
    fn clone(&self) -> Self {
        Self {
            rows: Arc::clone(&self.rows),
            selection: self.selection.clone(),
            marks: self.marks.clone(),
            run: self.run,
            kind: self.kind,
            replayed: self.replayed,
        }
    }
}

impl<T> Batch<T> {
    /// A batch of `values` at `times`, both of the same length: for tests and custom operators.
    pub fn new(values: Vec<T>, times: Vec<Timestamp>) -> Self {
        debug_assert_eq!(values.len(), times.len());
        let rows = Arc::new(Rows { values, times });
        Self { rows, selection: None, marks: None, run: None, kind: Kind::Final, replayed: false }
    }

    /// The number of selected rows.
    pub fn len(&self) -> usize {
        self.selection.as_ref().map_or(self.rows.values.len(), |s| s.len())
    }

    /// Whether no row is selected. An empty batch still says that its records were read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the rows are final.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The records that the batch covers, before any exchange.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// The selected rows, in order: value and event time.
    pub fn iter(&self) -> impl Iterator<Item = (&T, Timestamp)> {
        self.indices().map(|i| {
            let i = i as usize;
            (&self.rows.values[i], self.rows.times[i])
        })
    }

    /// The selected values, in order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.indices().map(|i| &self.rows.values[i as usize])
    }

    /// The rows behind their split's watermark, as (row, mark). The row counts *all* rows.
    pub(crate) fn marks(&self) -> &[(u32, Timestamp)] {
        self.marks.as_deref().unwrap_or_default()
    }

    /// The selected physical row numbers, ascending.
    pub(crate) fn indices(&self) -> Indices<'_> {
        match &self.selection {
            Some(selection) => Indices::Some(selection.iter()),
            None => Indices::All(0..u32::try_from(self.rows.values.len()).unwrap_or(u32::MAX)),
        }
    }

    pub(crate) fn value(&self, row: u32) -> &T {
        &self.rows.values[row as usize]
    }

    pub(crate) fn time(&self, row: u32) -> Timestamp {
        self.rows.times[row as usize]
    }

    /// The earliest and the latest time of the selected rows.
    pub(crate) fn times_within(&self) -> Option<(Timestamp, Timestamp)> {
        let mut times = self.indices().map(|row| self.time(row));
        let first = times.next()?;
        Some(times.fold((first, first), |(low, high), time| (low.min(time), high.max(time))))
    }

    /// The same batch with only these rows, which must be selected ones, ascending.
    pub(crate) fn select(&self, rows: Vec<u32>) -> Self {
        Self { selection: Some(rows.into()), ..self.clone() }
    }

    /// The same rows, chosen, marked and accounted for anew.
    pub(crate) fn restamped(&self, rows: Vec<u32>, marks: Vec<(u32, Timestamp)>, run: Run) -> Self {
        let marks = (!marks.is_empty()).then(|| marks.into());
        Self { selection: Some(rows.into()), marks, run: Some(run), ..self.clone() }
    }

    /// Whether the rows are results that had fired before the restart: a sink may lack them, but
    /// the state of every operator behind has them.
    pub(crate) fn is_replayed(&self) -> bool {
        self.replayed
    }

    pub(crate) fn with_replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    /// What a step that makes new rows of these keeps of the batch.
    pub(crate) fn like<U>(&self, rows: BatchBuilder<U>) -> Batch<U> {
        rows.finish(self.run, self.kind).with_replayed(self.replayed)
    }

    /// The selected rows that have a mark.
    pub(crate) fn marked(&self) -> impl Iterator<Item = (u32, Timestamp)> {
        self.marks().iter().copied().filter(|(row, _)| match &self.selection {
            None => true,
            Some(selection) => selection.binary_search(row).is_ok(),
        })
    }
}

/// Selected row numbers, ascending.
pub(crate) enum Indices<'a> {
    All(std::ops::Range<u32>),
    Some(std::slice::Iter<'a, u32>),
}

impl Iterator for Indices<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Indices::All(range) => range.next(),
            Indices::Some(rows) => rows.next().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Indices::All(range) => range.size_hint(),
            Indices::Some(rows) => rows.size_hint(),
        }
    }

    /// So that `for_each` asks once, and not for every row, which of the two it is.
    #[inline]
    fn fold<B, F: FnMut(B, u32) -> B>(self, init: B, f: F) -> B {
        match self {
            Indices::All(range) => range.fold(init, f),
            Indices::Some(rows) => rows.copied().fold(init, f),
        }
    }
}

/// Builds a batch row by row.
#[derive(Debug)]
pub(crate) struct BatchBuilder<T> {
    values: Vec<T>,
    times: Vec<Timestamp>,
    marks: Vec<(u32, Timestamp)>,
}

impl<T> BatchBuilder<T> {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            marks: Vec::new(),
        }
    }

    /// Rows that are there already, with the marks of some of them.
    pub(crate) fn of(values: Vec<T>, times: Vec<Timestamp>, marks: Vec<(u32, Timestamp)>) -> Self {
        Self { values, times, marks }
    }

    pub(crate) fn push(&mut self, value: T, time: Timestamp, mark: Option<Timestamp>) {
        if let Some(mark) = mark {
            self.marks.push((u32::try_from(self.values.len()).unwrap_or(u32::MAX), mark));
        }
        self.values.push(value);
        self.times.push(time);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn finish(self, run: Option<Run>, kind: Kind) -> Batch<T> {
        let marks = (!self.marks.is_empty()).then(|| self.marks.into());
        let rows = Arc::new(Rows { values: self.values, times: self.times });
        Batch { rows, selection: None, marks, run, kind, replayed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_selection_keeps_rows_times_and_marks_together() {
        let mut builder = BatchBuilder::with_capacity(4);
        for i in 0..4 {
            builder.push(i, at(i), (i % 2 == 1).then_some(at(100)));
        }
        let batch = builder.finish(None, Kind::Final);
        assert_eq!(batch.marked().collect::<Vec<_>>(), [(1, at(100)), (3, at(100))]);
        let some = batch.select(vec![0, 3]);
        assert_eq!(some.iter().collect::<Vec<_>>(), [(&0, at(0)), (&3, at(3))]);
        assert_eq!(some.marked().collect::<Vec<_>>(), [(3, at(100))]);
        assert_eq!(some.len(), 2);
        assert!(batch.select(vec![]).is_empty());
    }
}
