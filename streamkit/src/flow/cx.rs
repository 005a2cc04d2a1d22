//! What every step of a worker may use while it runs.

use std::sync::Arc;

use crate::record::SplitId;

/// The worker's context: who it is, what it is doing, and the counts of the batch in hand.
#[derive(Debug)]
pub(crate) struct Cx {
    pub(crate) worker: usize,
    /// The step that is running, for the message of an error or a panic.
    pub(crate) step: Arc<str>,
    /// The records that are being processed, for the same messages.
    pub(crate) origin: Option<(SplitId, u64, u64)>,
    /// Of the present source batch: records that each aggregate wants, and those late for it.
    pub(crate) wanted: Vec<u64>,
    pub(crate) late: Vec<u64>,
}

impl Cx {
    pub(crate) fn new(worker: usize, aggregates: usize) -> Self {
        Self {
            worker,
            step: "start".into(),
            origin: None,
            wanted: vec![0; aggregates],
            late: vec![0; aggregates],
        }
    }

    /// The origin as people write it: `topic/partition@first..next`.
    pub(crate) fn origin_text(&self) -> Option<String> {
        self.origin.as_ref().map(|(split, first, next)| format!("{split}@{first}..{next}"))
    }
}
