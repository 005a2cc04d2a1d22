//! `try_map`: a function that can fail, and what becomes of the record then.

use std::fmt::Display;
use std::sync::Arc;

use crate::data::Data;
use crate::error::{Error, Result};
use crate::flow::{Control, Cx, Link};
use crate::record::{Batch, BatchBuilder};

/// What happens to a record on which a function fails, after the tries it has.
///
/// A try follows the one before at once: a step must not wait, so this is for functions that fail
/// by chance, not for asking another system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnError {
    retries: u32,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    DeadLetter,
    Skip,
    Fail,
}

impl OnError {
    /// The record becomes a dead letter with the reason `processing_error`. It leaves *all* branches
    /// of its source, as if it had never been usable, in every replay as well; so this is for streams
    /// that come from a source by stateless steps. It stops the job where nobody takes the source's
    /// [dead letters](crate::stream::Stream::dead_letters), and behind windows, where there is no
    /// record to be given up.
    #[must_use]
    pub fn dead_letter() -> Self {
        Self { retries: 0, then: Then::DeadLetter }
    }

    /// The record leaves this branch; the others keep it. The first and then ever rarer ones are
    /// logged as a warning.
    #[must_use]
    pub fn skip() -> Self {
        Self { retries: 0, then: Then::Skip }
    }

    /// The job stops.
    #[must_use]
    pub fn fail() -> Self {
        Self { retries: 0, then: Then::Fail }
    }

    /// So many more tries first. Default: none.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }
}

pub(crate) struct TryMap<F, U> {
    pub(crate) f: Arc<F>,
    pub(crate) on_error: OnError,
    pub(crate) step: Arc<str>,
    pub(crate) next: Box<dyn Link<U>>,
    /// Records skipped by this worker.
    pub(crate) skipped: u64,
}

impl<F, U> TryMap<F, U> {
    /// Calls the function as often as it may fail. `Ok(None)`: the record is skipped.
    fn call<T, E: Display>(&mut self, value: &T) -> Result<Option<U>>
    where
        F: Fn(&T) -> Result<U, E>,
    {
        let mut tries = 0;
        let error = loop {
            match (self.f)(value) {
                Ok(mapped) => return Ok(Some(mapped)),
                Err(_) if tries < self.on_error.retries => tries += 1,
                Err(error) => break error,
            }
        };
        match self.on_error.then {
            Then::DeadLetter => Err(Error::record(error.to_string())),
            Then::Fail => Err(Error::user(error.to_string())),
            Then::Skip => {
                self.skipped += 1;
                if self.skipped.is_power_of_two() {
                    let (step, skipped) = (&self.step, self.skipped);
                    tracing::warn!(%step, %error, skipped, "a record is skipped");
                }
                Ok(None)
            }
        }
    }
}

impl<T: Data, U: Data, E: Display, F> Link<T> for TryMap<F, U>
where
    F: Fn(&T) -> Result<U, E> + Send + Sync,
{
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        cx.step = Arc::clone(&self.step);
        let mut out = BatchBuilder::with_capacity(batch.len());
        let mut marks = batch.marked().peekable();
        for row in batch.indices() {
            let mark = marks.next_if(|(marked, _)| *marked == row).map(|(_, mark)| mark);
            if let Some(value) = self.call(batch.value(row))? {
                out.push(value, batch.time(row), mark);
            }
        }
        self.next.batch(batch.like(out), cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.next.control(control, cx)
    }
}
