//! A sink that only adds up what it gets.

use std::sync::{Arc, Mutex, PoisonError};

use streamkit::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkWriter};
use streamkit::prelude::*;
use streamkit::{Batch, Result};

use crate::outcome::Outcome;

/// A row that an [`Outcome`] can take.
pub trait Row: Send + Sync + 'static {
    /// Adds it.
    fn add_to(&self, outcome: &mut Outcome);
}

/// Adds rows up. There is one process and one run, so progress need not outlive it.
#[derive(Debug, Clone, Default)]
pub struct AddUp(Arc<Mutex<Outcome>>);

impl AddUp {
    /// What has been committed, by all sinks that are clones of this one.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Row> Sink<T> for AddUp {
    fn describe(&self) -> String {
        "a sum".to_owned()
    }

    fn open(&mut self, _: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(Writer { open: Outcome::default(), stored: None, all: self.clone() }))
    }
}

struct Writer {
    open: Outcome,
    stored: Option<Progress>,
    all: AddUp,
}

impl<T: Row> SinkWriter<T> for Writer {
    fn recover(&mut self, _: &Claim) -> Result<Option<Progress>> {
        Ok(self.stored.clone())
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        batch.values().for_each(|row| row.add_to(&mut self.open));
        Ok(())
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let open = std::mem::take(&mut self.open);
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).add(&open);
        self.stored = Some(progress.clone());
        Ok(Commit::Done)
    }
}

/// A late event, whichever aggregate missed it.
impl<T: Send + Sync + 'static> Row for LateRecord<T> {
    fn add_to(&self, outcome: &mut Outcome) {
        outcome.late += 1;
    }
}

/// Page views.
impl Row for Windowed<Vec<u8>, u64> {
    fn add_to(&self, outcome: &mut Outcome) {
        outcome.page_views(self.window.start.as_micros(), &self.key, self.value);
    }
}

/// Active users.
impl Row for Windowed<(), u64> {
    fn add_to(&self, outcome: &mut Outcome) {
        outcome.active_users(self.window.start.as_micros(), self.value);
    }
}

/// Sessions.
impl Row for SessionResult<Vec<u8>, u64> {
    fn add_to(&self, outcome: &mut Outcome) {
        let (start, end) = (self.start.as_micros(), self.end.as_micros());
        outcome.session(&self.key, start, end, self.value);
    }
}

/// Counts by number.
impl Row for Windowed<u64, u64> {
    fn add_to(&self, outcome: &mut Outcome) {
        outcome.row([self.window.start.as_micros() as u64, self.key, self.value, 0]);
    }
}
