//! From the plan to one worker: factories build the links downstream of an input.

use std::sync::{Arc, Mutex, PoisonError};

use crate::data::Data;
use crate::error::Result;
use crate::flow::Signal;
use crate::flow::{Link, Tee};
use crate::operator::Acks;
use crate::record::{Place, SplitList};
use crate::task::{Gauges, GivenUpFor, Passage};
use crate::time::Clock;

/// Everything downstream of a step, as functions that build one worker's worth of it.
pub(crate) type Consumers<T> =
    Arc<Mutex<Vec<Box<dyn FnMut(&mut Deploy) -> Result<Box<dyn Link<T>>> + Send>>>>;

/// One worker under construction.
pub(crate) struct Deploy {
    pub(crate) worker: usize,
    pub(crate) signals: Arc<[Arc<Signal>]>,
    /// The queues that the input being built can fill.
    pub(crate) gauges: Gauges,
    pub(crate) passage: Arc<Passage>,
    pub(crate) clock: Arc<dyn Clock>,
    /// About how many bytes of state are written at once.
    pub(crate) portion: usize,
    /// What the sinks reached from the operator being built acknowledge to.
    pub(crate) acks: Acks,
    /// For each split: the position of the checkpoint.
    pub(crate) restored_to: Arc<[Place]>,
    /// Records that operators have given up.
    pub(crate) given_up: Arc<GivenUpFor>,
    /// The splits of the job, by index.
    pub(crate) splits: SplitList,
    pub(crate) queue: usize,
}

impl Deploy {
    pub(crate) fn workers(&self) -> usize {
        self.signals.len()
    }

    /// The key groups that the worker owns, first and last.
    pub(crate) fn groups(&self) -> (u8, u8) {
        let owned = |group: u8| {
            crate::state::worker_of(u64::from(group) << 56, self.workers()) == self.worker
        };
        let first = (0..=u8::MAX).find(|&group| owned(group)).unwrap_or(0);
        let last = (0..=u8::MAX).rev().find(|&group| owned(group)).unwrap_or(u8::MAX);
        (first, last)
    }
}

/// Builds the link that feeds every consumer of `T` on one worker.
pub(crate) fn link<T: Data>(
    consumers: &Consumers<T>,
    deploy: &mut Deploy,
) -> Result<Box<dyn Link<T>>> {
    let mut consumers = consumers.lock().unwrap_or_else(PoisonError::into_inner);
    let mut links = consumers.iter_mut().map(|make| make(deploy)).collect::<Result<Vec<_>>>()?;
    Ok(match links.len() {
        1 => links.remove(0),
        _ => Box::new(Tee(links)),
    })
}
