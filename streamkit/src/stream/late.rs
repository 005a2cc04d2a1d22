//! The result of an aggregate, and the stream of what came too late for it.

use std::ops::Deref;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Step, Stream};
use crate::data::Data;
use crate::graph::Consumers;
use crate::record::{LateRecord, MakeLate};

/// What listens to the late records of an aggregate.
pub(crate) struct LateOutput<T> {
    pub(crate) consumers: Consumers<LateRecord<T>>,
    pub(crate) make: Arc<Mutex<Option<MakeLate<T>>>>,
}

impl<T> Clone for LateOutput<T> {
    fn clone(&self) -> Self {
        Self { consumers: Arc::clone(&self.consumers), make: Arc::clone(&self.make) }
    }
}

impl<T> Default for LateOutput<T> {
    fn default() -> Self {
        Self { consumers: Consumers::default(), make: Arc::default() }
    }
}

/// The results of an aggregate over records of type `T`: a stream of `R`, with a late output.
pub struct Aggregated<T, R> {
    pub(crate) results: Stream<R>,
    pub(crate) name: Arc<str>,
    pub(crate) input: usize,
    pub(crate) late: LateOutput<T>,
}

impl<T, R> std::fmt::Debug for Aggregated<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aggregated").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T, R> Deref for Aggregated<T, R> {
    type Target = Stream<R>;

    fn deref(&self) -> &Stream<R> {
        &self.results
    }
}

impl<T: Data + Clone, R> Aggregated<T, R> {
    /// The records that were too late for every window of theirs. Which these are depends on the
    /// data alone. Without a listener they are only counted.
    #[track_caller]
    pub fn late(&self) -> Stream<LateRecord<T>> {
        let step = Step::plain("late", Location::caller());
        let mut out = Stream::new(&self.results.plan, step, vec![self.input], false);
        out.consumers = Arc::clone(&self.late.consumers);
        let aggregate = Arc::clone(&self.name);
        let make: MakeLate<T> = Arc::new(move |record, event_time, watermark, split| LateRecord {
            record: record.clone(),
            aggregate: Arc::clone(&aggregate),
            event_time,
            watermark,
            split,
        });
        *self.late.make.lock().unwrap_or_else(PoisonError::into_inner) = Some(make);
        out
    }
}
