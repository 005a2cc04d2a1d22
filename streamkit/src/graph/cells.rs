//! Sources and sinks in the plan, their types erased: what the coordinator needs of them.

use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::Deploy;
use crate::connector::{Claim, Progress, SinkContext};
use crate::error::Result;
use crate::flow::Signal;
use crate::progress::SinkProgress;
use crate::record::{Split, SplitId, SplitList};
use crate::task::{GivenUps, Input, Reach, SplitPlan, Tracker};
use crate::time::{Clock, Timestamp};

/// Finds new splits, and where their data begin.
pub(crate) type FindSplits = Box<dyn Fn(&[Split]) -> Result<Vec<(Split, u64)>> + Send>;

/// What the coordinator needs of a source.
pub(crate) trait SourceCell: Send {
    fn step(&self) -> &Arc<str>;
    fn idle_after(&self) -> Option<Duration>;
    fn splits(&self, known: &[Split]) -> Result<Vec<Split>>;
    fn start(&self, split: &Split) -> Result<u64>;
    fn end(&self, split: &Split) -> Result<u64>;
    /// Looks for splits that are not among those known, from a thread of its own.
    fn finder(&self) -> FindSplits;
    /// Whether anybody takes its dead letters.
    fn has_dead_letters(&self) -> bool;
    fn committed(&self, positions: &[(SplitId, u64)]);
    fn input(&mut self, deploy: &mut Deploy, parts: SourceParts) -> Result<Box<dyn Input>>;
}

/// What a source's input on one worker is made with.
pub(crate) struct SourceParts {
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) aggregates: Arc<[Arc<str>]>,
    pub(crate) given_ups: Arc<GivenUps>,
    pub(crate) plans: Receiver<SplitPlan>,
}

/// What the coordinator needs of a sink.
pub(crate) trait SinkCell: Send {
    fn name(&self) -> &str;
    fn is_fired(&self) -> bool;
    fn shared(&self) -> Arc<SinkShared>;
    /// Connects, unless it has.
    fn open(&mut self, context: &SinkContext) -> Result<()>;
    /// Claims; returns the stored progress.
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>>;
    /// Makes the queue. `has_w`: the watermark that the target has, for a sink behind windows.
    fn prepare(&mut self, has_w: Timestamp, workers: usize, queue: usize);
    /// The sink's thread, to be run once.
    fn task(&mut self, parts: SinkParts) -> Result<Box<dyn FnOnce() -> Result<()> + Send>>;
}

/// What a sink's thread is made with.
pub(crate) struct SinkParts {
    pub(crate) claim: Claim,
    pub(crate) progress: Progress,
    pub(crate) splits: SplitList,
    pub(crate) workers: usize,
    pub(crate) clock: Arc<dyn Clock>,
    /// Set when a graceful stop has taken too long: give up instead of trying again.
    pub(crate) abandon: Arc<AtomicBool>,
    /// Wakes the coordinator.
    pub(crate) bell: Arc<Signal>,
}

/// What a sink shows to operators, coordinator and outside.
#[derive(Debug)]
pub(crate) struct SinkShared {
    /// Every final result with a fire time up to this one is committed.
    pub(crate) acked: Arc<AtomicI64>,
    /// How far a sink behind stateless steps has been sent each split.
    pub(crate) reach: Arc<Reach>,
    pub(crate) status: Mutex<SinkProgress>,
}
