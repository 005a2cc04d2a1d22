//! What every step of a worker may use while it runs.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::record::{Run, SplitId};

/// Something on its way to another thread.
type Outgoing = Box<dyn FnOnce() -> Result<()> + Send>;

/// The worker's context: who it is, what it is doing, and the counts of the batch in hand.
pub(crate) struct Cx {
    pub(crate) worker: usize,
    /// The step that is running, for the message of an error or a panic.
    pub(crate) step: Arc<str>,
    /// The records that are being processed, for the same messages.
    pub(crate) origin: Option<(SplitId, u64, u64)>,
    /// The operator behind an exchange that is taking in records, and which.
    pub(crate) taking: Option<(Arc<str>, Run)>,
    /// Of the present source batch: records that each aggregate wants, and those late for it.
    pub(crate) wanted: Vec<u64>,
    pub(crate) late: Vec<u64>,
    /// The batch is for sinks that lack it; everything else has had it (rule D5).
    pub(crate) catching_up: bool,
    /// A sink behind windows has no room: a barrier passes all the same, and tells it nothing.
    pub(crate) held: bool,
    /// While there is a list, what a step sends goes there, and leaves only when the step is through
    /// on every branch: a step that panics on one of them has then sent nothing on any.
    staged: Option<Vec<Outgoing>>,
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("step", &self.step).field("origin", &self.origin).finish()
    }
}

impl Cx {
    pub(crate) fn new(worker: usize, aggregates: usize) -> Self {
        Self {
            worker,
            step: "start".into(),
            origin: None,
            taking: None,
            wanted: vec![0; aggregates],
            late: vec![0; aggregates],
            catching_up: false,
            held: false,
            staged: None,
        }
    }

    /// Hands something to another thread by `send`: now, or when the step is through.
    pub(crate) fn send(
        &mut self,
        send: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        match &mut self.staged {
            Some(staged) => {
                staged.push(Box::new(send));
                Ok(())
            }
            None => send(),
        }
    }

    /// From here on nothing leaves before [`release`](Self::release).
    pub(crate) fn stage(&mut self) {
        self.staged = Some(vec![]);
    }

    /// The step is through: what it has sent leaves, in order.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.staged.take().into_iter().flatten().try_for_each(|send| send())
    }

    /// The step has failed: what it has sent and counted is forgotten.
    pub(crate) fn discard(&mut self) {
        self.staged = None;
        self.wanted.fill(0);
        self.late.fill(0);
    }

    /// The origin as people write it: `topic/partition@first..next`.
    pub(crate) fn origin_text(&self) -> Option<String> {
        self.origin.as_ref().map(|(split, first, next)| format!("{split}@{first}..{next}"))
    }
}
