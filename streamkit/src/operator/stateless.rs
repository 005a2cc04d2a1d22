//! The contract of a stateless operator.

use crate::error::Result;
use crate::record::{Batch, BatchBuilder};
use crate::time::Timestamp;

/// A stateless transformation: it sees one batch and remembers nothing of it.
///
/// What comes out may depend on the batch's records only, each taken alone: batches are cut
/// differently in every run. State belongs into windows, sessions or
/// [`process`](crate::stream::KeyedStream::process), where checkpoints can see it.
pub trait Operator<In>: Send + Sync + 'static {
    /// What comes out.
    type Out;

    /// Reads the rows of `input` and pushes what comes of them.
    ///
    /// # Errors
    /// [`Error::record`](crate::Error::record) says that a record of the batch cannot be processed:
    /// the operator is called again with each record alone, and those on which it fails become dead
    /// letters. Any other error stops the job.
    fn on_batch(&self, input: &Batch<In>, out: &mut Output<'_, Self::Out>) -> Result<()>;
}

/// Where a stateless operator puts its results.
#[derive(Debug)]
pub struct Output<'a, T> {
    builder: &'a mut BatchBuilder<T>,
    marks: &'a [(u32, Timestamp)],
    rows: &'a [u32],
}

impl<'a, T> Output<'a, T> {
    pub(crate) fn new(
        builder: &'a mut BatchBuilder<T>,
        marks: &'a [(u32, Timestamp)],
        rows: &'a [u32],
    ) -> Self {
        Self { builder, marks, rows }
    }

    /// Adds a result that was made of the `row`-th selected row of the input, counted from 0. It
    /// keeps that row's event time and lateness.
    pub fn push(&mut self, row: usize, time: Timestamp, value: T) {
        let mark = match self.rows.get(row) {
            Some(physical) if !self.marks.is_empty() => self
                .marks
                .binary_search_by_key(physical, |(row, _)| *row)
                .ok()
                .map(|at| self.marks[at].1),
            _ => None,
        };
        self.builder.push(value, time, mark);
    }
}
