//! `map`: one record in, one out.

use std::sync::Arc;

use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::{Batch, BatchBuilder};

pub(crate) struct Map<F, U> {
    pub(crate) f: Arc<F>,
    pub(crate) step: Arc<str>,
    pub(crate) next: Box<dyn Link<U>>,
}

impl<T: Data, U: Data, F: Fn(&T) -> U + Send + Sync> Link<T> for Map<F, U> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        cx.step = Arc::clone(&self.step);
        let mut out = BatchBuilder::with_capacity(batch.len());
        if batch.marks().is_empty() {
            for (value, time) in batch.iter() {
                out.push((self.f)(value), time, None);
            }
        } else {
            let mut marks = batch.marked().peekable();
            for row in batch.indices() {
                let mark = marks.next_if(|(marked, _)| *marked == row).map(|(_, mark)| mark);
                out.push((self.f)(batch.value(row)), batch.time(row), mark);
            }
        }
        self.next.batch(batch.like(out), cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }
}
