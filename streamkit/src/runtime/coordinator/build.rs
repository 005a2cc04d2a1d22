//! Builds one worker's copy of the job, restores its state, and starts its thread.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, bounded};

use super::{Ended, RunningWorker};
use crate::checkpoint::Recovered;
use crate::error::{Error, Result};
use crate::flow::Cx;
use crate::graph::{Deploy, Plan, SourceParts};
use crate::record::{Place, SplitList};
use crate::runtime::config::RunConfig;
use crate::task::{
    Gauges, GivenUpFor, GivenUps, Passage, Signal, Tracker, Worker, WorkerShared, WorkerStatus,
};
use crate::time::Timestamp;

/// The most splits that can wait to be opened by one worker.
pub(super) const PLANS: usize = 16_384;

/// What all workers are built with.
pub(super) struct BuildParts<'a> {
    pub(super) begins: &'a BTreeMap<String, Timestamp>,
    pub(super) tracker: &'a Arc<Tracker>,
    pub(super) signals: &'a Arc<[Arc<Signal>]>,
    pub(super) restored_to: &'a Arc<[Place]>,
    pub(super) given_up: &'a Arc<GivenUpFor>,
    pub(super) splits: &'a SplitList,
    pub(super) aggregates: &'a Arc<[Arc<str>]>,
    pub(super) given_ups: &'a Arc<GivenUps>,
    pub(super) passage: &'a Arc<Passage>,
    pub(super) abort: &'a Arc<AtomicBool>,
    pub(super) ended: &'a Sender<Ended>,
}

/// Builds one worker, restores its state and starts its thread.
pub(super) fn build_worker(
    index: usize,
    plan: &mut Plan,
    recovered: &Recovered,
    config: &RunConfig,
    parts: BuildParts<'_>,
) -> Result<(RunningWorker, usize)> {
    let mut deploy = Deploy {
        worker: index,
        signals: Arc::clone(parts.signals),
        gauges: Gauges::default(),
        passage: Arc::clone(parts.passage),
        clock: Arc::clone(&config.clock),
        acks: Default::default(),
        restored_to: Arc::clone(parts.restored_to),
        given_up: Arc::clone(parts.given_up),
        splits: parts.splits.clone(),
        queue: config.queue,
    };
    let (mut sources, mut plans) = (vec![], vec![]);
    for source in &mut plan.sources {
        let (sender, receiver) = bounded(PLANS);
        let input = SourceParts {
            tracker: Arc::clone(parts.tracker),
            clock: Arc::clone(&config.clock),
            aggregates: Arc::clone(parts.aggregates),
            given_ups: Arc::clone(parts.given_ups),
            plans: receiver,
        };
        sources.push(source.input(&mut deploy, input)?);
        plans.push(sender);
    }
    let mut keyed = vec![];
    for make in &mut plan.keyed {
        let mut input = make(&mut deploy)?;
        input.restore(&recovered.state)?;
        input.begin(parts.begins);
        keyed.push(input);
    }
    let inputs = sources.len() + keyed.len();
    let (commands, received) = bounded(64);
    let shared = Arc::new(WorkerShared {
        signal: Arc::clone(&parts.signals[index]),
        abort: Arc::clone(parts.abort),
        status: Mutex::new(WorkerStatus::default()),
        accusation: Mutex::new(None),
    });
    let mut worker = Worker {
        sources,
        keyed,
        commands: received,
        tracker: Arc::clone(parts.tracker),
        shared: Arc::clone(&shared),
        cx: Cx::new(index, parts.aggregates.len()),
    };
    let ended = parts.ended.clone();
    let thread = std::thread::Builder::new()
        .name(format!("worker {index}"))
        .spawn(move || {
            let result = worker.run();
            // The queues into the sinks close with the worker, after it has said how it ended.
            let _ = ended.send(Ended::Worker(index, result));
        })
        .map_err(|e| Error::external("a thread cannot be started").because(e))?;
    Ok((RunningWorker { shared, commands, plans, thread: Some(thread) }, inputs))
}
