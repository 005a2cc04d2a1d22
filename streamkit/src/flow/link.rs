//! Links: the input side of whatever comes next in this worker.
//!
//! Data go in batches; between them go controls. Both are in order, and a control says something
//! about everything before it: a watermark, a barrier, the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Cx, Signal};
use crate::checkpoint::SplitEntry;
use crate::data::Data;
use crate::error::Result;
use crate::record::{Batch, Run, SplitId};
use crate::state::Changes;
use crate::time::Timestamp;

/// The input side of what comes next.
pub(crate) trait Link<T>: Send {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()>;
    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()>;
}

/// What travels between batches.
#[derive(Debug, Clone)]
pub(crate) enum Control {
    /// No record without a mark comes whose time is before this.
    Watermark(Timestamp),
    /// Everything that comes of these records of a split has been sent, on every branch. A position
    /// sink may say so once it has committed what it got.
    Read(Run),
    /// A cut through the stream: the same for every worker and channel.
    Barrier(Arc<Barrier>),
    /// Nothing comes any more: the input has ended, or the job stops.
    End,
}

/// A cut, aligned over all channels as in Chandy and Lamport's snapshots (ACM TOCS 1985).
#[derive(Debug)]
pub(crate) struct Barrier {
    pub(crate) kind: BarrierKind,
    /// How many inputs and keyed inputs it has to pass, and who waits for that.
    inputs: usize,
    coordinator: Arc<Signal>,
    /// What the workers have added to it so far.
    pub(crate) collected: Mutex<Collected>,
}

/// What a cut is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    /// Operators put their state into it.
    Checkpoint { base: bool },
    /// Operators emit their running values (rule D3).
    Tick,
    /// Operators say their highest pending fire time (rule D10).
    Drain,
    /// Everything has been read and has fired: sinks commit what they have.
    Deliver,
}

/// What a barrier has collected.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Where each split is at the cut.
    pub(crate) splits: BTreeMap<SplitId, SplitEntry>,
    /// The state of operators, by name, in the order of arrival.
    pub(crate) changes: Vec<(String, Changes)>,
    /// Records that each aggregate has counted.
    pub(crate) counted: BTreeMap<String, u64>,
    /// The highest pending fire time.
    pub(crate) pending: Option<Timestamp>,
    /// How many of the inputs and keyed inputs of all workers it has passed, and how many of these are
    /// still writing their state.
    passed: usize,
    writing: usize,
    /// The longest time that a worker stood still to put state into it.
    pub(crate) pause: Duration,
}

impl Barrier {
    pub(crate) fn new(kind: BarrierKind, inputs: usize, coordinator: &Arc<Signal>) -> Arc<Self> {
        let coordinator = Arc::clone(coordinator);
        Arc::new(Self { kind, inputs, coordinator, collected: Mutex::default() })
    }

    pub(crate) fn collect(&self, add: impl FnOnce(&mut Collected)) {
        add(&mut self.collected.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// It has passed one more input, which has this to add.
    pub(crate) fn pass(&self, add: impl FnOnce(&mut Collected)) {
        self.collect(|all| {
            add(all);
            all.passed += 1;
        });
        if self.has_passed() {
            self.coordinator.ring();
        }
    }

    /// It has passed one more input, which is going to write its state between other work.
    pub(crate) fn pass_writing(&self) {
        self.pass(|all| all.writing += 1);
    }

    /// An input has written its state.
    pub(crate) fn written(&self, add: impl FnOnce(&mut Collected)) {
        self.collect(|all| {
            add(all);
            all.writing -= 1;
        });
        if self.is_complete() {
            self.coordinator.ring();
        }
    }

    /// Whether it has passed all inputs.
    pub(crate) fn has_passed(&self) -> bool {
        let collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        collected.passed >= self.inputs
    }

    /// Whether it has passed all inputs, and they have written their state.
    pub(crate) fn is_complete(&self) -> bool {
        let collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        collected.passed >= self.inputs && collected.writing == 0
    }

    /// The next record of each split at the cut.
    pub(crate) fn positions(&self) -> BTreeMap<SplitId, u64> {
        let collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        collected.splits.iter().map(|(id, entry)| (id.clone(), entry.position.next)).collect()
    }
}

/// A fork: every branch gets every batch, by reference.
pub(crate) struct Tee<T>(pub(crate) Vec<Box<dyn Link<T>>>);

impl<T: Data> Link<T> for Tee<T> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        let Some((last, rest)) = self.0.split_last_mut() else { return Ok(()) };
        for link in rest {
            link.batch(batch.clone(), cx)?;
        }
        last.batch(batch, cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        self.0.iter_mut().try_for_each(|link| link.control(control, cx))
    }
}
