//! `flat_map` and `apply`: any number of records out.

use std::sync::Arc;

use super::{Operator, Output};
use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{Batch, BatchBuilder};

/// Any stateless operator in a chain.
pub(crate) struct FlatMap<O, U> {
    pub(crate) operator: Arc<O>,
    pub(crate) step: Arc<str>,
    pub(crate) next: Box<dyn Link<U>>,
}

impl<T: Data, U: Data, O: Operator<T, Out = U>> Link<T> for FlatMap<O, U> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        cx.step = Arc::clone(&self.step);
        let mut builder = BatchBuilder::with_capacity(batch.len());
        let rows: Vec<u32> = batch.indices().collect();
        self.operator.on_batch(&batch, &mut Output::new(&mut builder, batch.marks(), &rows))?;
        self.next.batch(batch.like(builder), cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }
}

/// The operator behind `flat_map`.
pub(crate) struct Expand<F>(pub(crate) F);

impl<T: Data, U: Data, I, F> Operator<T> for Expand<F>
where
    I: IntoIterator<Item = U>,
    F: Fn(&T) -> I + Send + Sync + 'static,
{
    type Out = U;

    fn on_batch(&self, input: &Batch<T>, out: &mut Output<'_, U>) -> Result<()> {
        for (row, (value, time)) in input.iter().enumerate() {
            for value in (self.0)(value) {
                out.push(row, time, value);
            }
        }
        Ok(())
    }
}
