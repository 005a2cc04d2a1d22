//! Builds each worker's copy of the job, restores its state, and starts its thread.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, bounded};

use super::{Ended, RunningWorker};
use crate::checkpoint::Recovered;
use crate::error::{Error, Result};
use crate::flow::{Control, Cx, Signal};
use crate::graph::{Deploy, Plan, SourceParts};
use crate::record::{Place, SplitList};
use crate::runtime::config::RunConfig;
use crate::task::{
    Gauges, GivenUpFor, GivenUps, Passage, SplitPlan, Tracker, Worker, WorkerShared, WorkerStatus,
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
    pub(super) bell: &'a Arc<Signal>,
}

/// A worker that does not run yet, and what the coordinator keeps of it.
struct Built {
    worker: Worker,
    commands: Sender<Control>,
    plans: Vec<Sender<SplitPlan>>,
}

/// Builds all workers, restores their state, each with a thread of its own, and starts them. Returns
/// them with the number of their inputs.
pub(super) fn start_workers(
    plan: &mut Plan,
    recovered: &Recovered,
    config: &RunConfig,
    parts: &BuildParts<'_>,
) -> Result<(Vec<RunningWorker>, usize)> {
    let mut workers = vec![];
    for index in 0..config.workers {
        workers.push(build(index, plan, config, parts)?);
    }
    let inputs = workers.iter().map(|built| built.worker.inputs()).sum();
    std::thread::scope(|threads| {
        let restore = |built: &mut Built| built.worker.restore(&recovered.state, parts.begins);
        let restoring: Vec<_> =
            workers.iter_mut().map(|built| threads.spawn(move || restore(built))).collect();
        let results = restoring.into_iter().map(|t| t.join().unwrap_or_else(|p| resume_unwind(p)));
        results.collect::<Result<()>>()
    })?;
    let start = |(index, built)| start(index, built, parts.ended.clone(), parts.bell);
    let workers: Result<_> = workers.into_iter().enumerate().map(start).collect();
    Ok((workers?, inputs))
}

fn build(
    index: usize,
    plan: &mut Plan,
    config: &RunConfig,
    parts: &BuildParts<'_>,
) -> Result<Built> {
    let mut deploy = Deploy {
        worker: index,
        signals: Arc::clone(parts.signals),
        gauges: Gauges::default(),
        passage: Arc::clone(parts.passage),
        clock: Arc::clone(&config.clock),
        portion: config.checkpoint_portion,
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
    let keyed: Result<_> = plan.keyed.iter_mut().map(|make| make(&mut deploy)).collect();
    let (commands, received) = bounded(64);
    let shared = Arc::new(WorkerShared {
        signal: Arc::clone(&parts.signals[index]),
        abort: Arc::clone(parts.abort),
        status: Mutex::new(WorkerStatus::default()),
        accusation: Mutex::new(None),
    });
    let worker = Worker {
        sources,
        keyed: keyed?,
        commands: received,
        tracker: Arc::clone(parts.tracker),
        shared,
        cx: Cx::new(index, parts.aggregates.len()),
    };
    Ok(Built { worker, commands, plans })
}

fn start(
    index: usize,
    built: Built,
    ended: Sender<Ended>,
    bell: &Arc<Signal>,
) -> Result<RunningWorker> {
    let bell = Arc::clone(bell);
    let Built { mut worker, commands, plans } = built;
    let shared = Arc::clone(&worker.shared);
    let thread = std::thread::Builder::new()
        .name(format!("worker {index}"))
        .spawn(move || {
            let result = worker.run();
            // The queues into the sinks close with the worker, after it has said how it ended.
            let _ = ended.send(Ended::Worker(index, result));
            bell.ring();
        })
        .map_err(|e| Error::external("a thread cannot be started").because(e))?;
    Ok(RunningWorker { shared, commands, plans, thread: Some(thread) })
}
