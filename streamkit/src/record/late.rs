//! What came too late for an aggregate.

use std::sync::Arc;

use super::Split;
use crate::time::Timestamp;

/// A record that was too late for every window that an aggregate would have put it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateRecord<T> {
    /// The record.
    pub record: T,
    /// The aggregate's name.
    pub aggregate: Arc<str>,
    /// The record's event time.
    pub event_time: Timestamp,
    /// Its mark: how far its own split's watermark had got before it was read.
    pub watermark: Timestamp,
    /// The split that it was read from.
    pub split: Option<Arc<Split>>,
}

/// Makes a late record of a record, its event time, its mark and its split.
pub(crate) type MakeLate<T> =
    Arc<dyn Fn(&T, Timestamp, Timestamp, Option<Arc<Split>>) -> LateRecord<T> + Send + Sync>;
