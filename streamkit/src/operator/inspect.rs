//! `inspect`: looks at each record and lets it pass.

use std::sync::Arc;

use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::Batch;

pub(crate) struct Inspect<F, T> {
    pub(crate) f: Arc<F>,
    pub(crate) step: Arc<str>,
    pub(crate) next: Box<dyn Link<T>>,
}

impl<T: Data, F: Fn(&T) + Send + Sync> Link<T> for Inspect<F, T> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        cx.step = Arc::clone(&self.step);
        batch.values().for_each(|value| (self.f)(value));
        self.next.batch(batch, cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }
}
