//! `filter`: a selection of the same rows; nothing is copied.

use std::sync::Arc;

use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::Batch;

pub(crate) struct Filter<F, T> {
    pub(crate) f: Arc<F>,
    pub(crate) step: Arc<str>,
    pub(crate) next: Box<dyn Link<T>>,
}

impl<T: Data, F: Fn(&T) -> bool + Send + Sync> Link<T> for Filter<F, T> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        cx.step = Arc::clone(&self.step);
        let mut kept = Vec::with_capacity(batch.len());
        batch.indices().for_each(|row| {
            if (self.f)(batch.value(row)) {
                kept.push(row);
            }
        });
        // An empty selection goes on too: it says that its records were read.
        let batch = if kept.len() == batch.len() { batch } else { batch.select(kept) };
        self.next.batch(batch, cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }
}
