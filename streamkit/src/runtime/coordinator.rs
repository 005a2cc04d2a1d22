//! The coordinator: one thread that recovers the job, starts its threads, and decides everything
//! that is not in the data: checkpoints, ticks, idleness, the end.

mod accuse;
mod build;
mod discover;
mod patience;
mod recover;
mod setup;
mod splits;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use self::discover::Discovered;
use self::patience::Patience;
use super::config::{InputEnd, RunConfig};
use super::handle::Outside;
use super::recovery::{Facts, closes_at, still_needed};
use super::suspects::without_cleared;
use crate::checkpoint::{Checkpoint, CheckpointLog, FORMAT, Fact, Manifest, PlanStep};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::flow::{Barrier, BarrierKind, Control};
use crate::graph::{SinkShared, SourceCell};
use crate::progress::{CheckpointProgress, JobState};
use crate::record::{SplitId, SplitList};
use crate::task::{GivenUps, Passage, SplitPlan, SplitState, Tracker, WorkerShared};
use crate::time::{Timestamp, millis};

/// A job that has been set up.
pub(crate) struct Coordinator {
    job: String,
    config: RunConfig,
    outside: Arc<Outside>,
    log: CheckpointLog,
    lineage: String,
    plan: Vec<PlanStep>,
    facts: Vec<Fact>,
    sources: Vec<Box<dyn SourceCell>>,
    sinks: Vec<RunningSink>,
    tracker: Arc<Tracker>,
    given_ups: Arc<GivenUps>,
    passage: Arc<Passage>,
    split_list: SplitList,
    /// The source of each split, by its index.
    source_of: Vec<usize>,
    discovered: Receiver<Result<Discovered>>,
    /// Whether the coordinator has ended.
    over: Arc<AtomicBool>,
    workers: Vec<RunningWorker>,
    /// How many inputs a barrier has to pass.
    inputs: usize,
    ended: Receiver<Ended>,
    abandon: Arc<AtomicBool>,
    started: Duration,

    barrier: Option<(Arc<Barrier>, Duration)>,
    last_checkpoint: Duration,
    last_tick: Duration,
    last_look: Duration,
    /// The newest checkpoint, and when it was made.
    checkpoint: Option<(CheckpointProgress, Timestamp)>,
    /// Running values are withheld until every split is past this (rule D3).
    noted: BTreeMap<SplitId, u64>,
    /// No floor is below this: the restored state has fired up to here at most (rule T9).
    restored: Timestamp,
    /// Records read, and those accepted, before this run.
    at_start: (u64, u64),
    stage: Stage,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A worker's thread, and how to talk to it.
struct RunningWorker {
    shared: Arc<WorkerShared>,
    commands: Sender<Control>,
    /// By source.
    plans: Vec<Sender<SplitPlan>>,
    thread: Option<JoinHandle<()>>,
}

/// A sink's thread.
struct RunningSink {
    name: String,
    fired: bool,
    had_progress: bool,
    shared: Arc<SinkShared>,
    thread: Option<JoinHandle<()>>,
}

/// What a thread says when it ends.
enum Ended {
    Worker(usize, Result<()>),
    Sink(String, Result<()>),
}

/// Where the job is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Everything has been read; what is the highest pending fire time?
    Draining,
    /// Everything has fired; sinks are committing it. What they have is not in the last checkpoint.
    Delivering {
        since: Duration,
    },
    /// The last checkpoint is on its way; then the end is sent.
    LastCheckpoint,
    /// The end has been sent; threads are ending.
    Ending {
        since: Duration,
    },
}

/// How often the coordinator looks at everything. What it has to decide soon wakes it.
const STEP: Duration = millis(5);
/// How long the last checkpoint waits for sinks. One that takes longer has its results in it.
const DELIVERY: Duration = millis(100);

impl Coordinator {
    /// Runs the job to its end.
    pub(crate) fn run(mut self) -> Result<()> {
        self.outside.bell.register();
        let (mut workers, mut sinks) = (self.workers.len(), self.sinks.len());
        let mut failure: Option<Error> = None;
        while workers + sinks > 0 {
            while let Ok(ended) = self.ended.try_recv() {
                match ended {
                    Ended::Worker(i, result) => {
                        workers -= 1;
                        tracing::debug!(worker = i, "worker ended");
                        note_failure(&mut failure, result);
                    }
                    Ended::Sink(name, result) => {
                        sinks -= 1;
                        tracing::debug!(sink = %name, "sink ended");
                        note_failure(&mut failure, result);
                    }
                }
            }
            if failure.is_some() {
                break;
            }
            if let Err(error) = self.step() {
                failure = Some(error);
                break;
            }
            self.show();
            if workers + sinks > 0 {
                self.outside.bell.wait(STEP);
            }
        }
        if failure.is_some() {
            self.abort(&mut workers, &mut sinks, &mut failure);
            if workers == 0 {
                failure = failure.map(|error| match error.kind() {
                    ErrorKind::Fenced => error,
                    _ => self.accuse(error),
                });
            }
            self.show();
            self.set_state(JobState::Failed);
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.join();
        self.show();
        self.set_state(JobState::Ended);
        Ok(())
    }

    /// Stops all threads where they are: what they had not committed is written by the next run.
    /// A sink that hangs in its client is not waited for longer than a graceful stop may take.
    /// A thread that fails takes its neighbours with it, and one of these may have been heard first.
    fn abort(&mut self, workers: &mut usize, sinks: &mut usize, failure: &mut Option<Error>) {
        self.abandon.store(true, Ordering::SeqCst);
        self.tracker.ring();
        let deadline = self.config.clock.elapsed() + self.config.shutdown_timeout;
        while *workers + *sinks > 0 && self.config.clock.elapsed() < deadline {
            match self.ended.recv_timeout(STEP) {
                Ok(Ended::Worker(_, result)) => {
                    *workers -= 1;
                    note_failure(failure, result);
                }
                Ok(Ended::Sink(_, result)) => {
                    *sinks -= 1;
                    note_failure(failure, result);
                }
                Err(_) => {}
            }
        }
        if *workers + *sinks == 0 {
            self.join();
        }
    }

    fn join(&mut self) {
        let workers = self.workers.iter_mut().filter_map(|worker| worker.thread.take());
        let sinks = self.sinks.iter_mut().filter_map(|sink| sink.thread.take());
        for thread in workers.chain(sinks) {
            // How it ended has been said already.
            let _ = thread.join();
        }
    }

    /// One look at everything.
    fn step(&mut self) -> Result<()> {
        let now = self.config.clock.elapsed();
        self.finish_barrier(now)?;
        match self.stage {
            Stage::Running => self.while_running(now),
            Stage::Draining => Ok(()),
            Stage::Delivering { since } => {
                let closed = Facts::of(&self.facts).closed;
                let delivered = closed.is_none_or(|closed| self.lowest_w() >= closed);
                let long = now.saturating_sub(since) >= DELIVERY;
                if self.barrier.is_some() {
                    return Ok(());
                }
                if delivered || long || self.outside.stop.load(Ordering::SeqCst) {
                    return self.last_checkpoint(now);
                }
                Ok(())
            }
            Stage::LastCheckpoint => {
                let stopped = self.outside.stop.load(Ordering::SeqCst);
                if stopped
                    && now.saturating_sub(self.last_checkpoint) >= self.config.shutdown_timeout
                {
                    return Err(Error::external(
                        "the job could not make its last checkpoint before the deadline of the stop, since a sink takes no rows; nothing is lost, the next start goes on from the checkpoint before",
                    ));
                }
                Ok(())
            }
            Stage::Ending { since } => {
                if now.saturating_sub(since) >= self.config.shutdown_timeout {
                    self.abandon.store(true, Ordering::SeqCst);
                }
                Ok(())
            }
        }
    }

    fn while_running(&mut self, now: Duration) -> Result<()> {
        self.wake_splits()?;
        self.give_up_records()?;
        self.take_in_split()?;
        self.look_at_dead_letters()?;
        if self.barrier.is_some() {
            return Ok(());
        }
        if self.outside.stop.load(Ordering::SeqCst) {
            tracing::info!(job = %self.job, "stopping: open windows stay open");
            self.set_state(JobState::Stopping);
            return self.last_checkpoint(now);
        }
        if self.tracker.all_ended() && (self.config.end != InputEnd::Wait || self.bound_input()?) {
            self.set_state(JobState::Stopping);
            if self.config.end == InputEnd::KeepOpen {
                // The ends are consumed: the next run takes new ones (rule D10).
                self.fact(Fact::EndReached)?;
                return self.last_checkpoint(now);
            }
            self.stage = Stage::Draining;
            return self.send_barrier(BarrierKind::Drain, now);
        }
        if now.saturating_sub(self.last_look) >= millis(200) {
            self.last_look = now;
            self.look_for_idle_splits(now)?;
        }
        // The one that has been due for longer: if checkpoints take longer than their interval, there
        // are ticks between them all the same.
        let checkpoint = self.last_checkpoint.saturating_add(self.config.checkpoint_interval);
        let tick =
            self.config.running_values.map(|interval| self.last_tick.saturating_add(interval));
        if let Some(tick) = tick
            && tick <= now
            && (tick < checkpoint || checkpoint > now)
            && self.may_tick()
        {
            self.last_tick = now;
            return self.send_barrier(BarrierKind::Tick, now);
        }
        if checkpoint <= now {
            return self.send_checkpoint(now);
        }
        Ok(())
    }

    /// An input that nobody gave an end has come to one by itself: every reader says that there will
    /// never be more. The ends are facts from here on, as if they had been known at the start.
    fn bound_input(&mut self) -> Result<bool> {
        let splits = self.tracker.snapshot();
        if splits.is_empty() {
            return Ok(false);
        }
        for split in splits {
            self.fact(Fact::End { split: split.id, end: split.next })?;
        }
        self.config.end = InputEnd::Close;
        Ok(true)
    }

    fn last_checkpoint(&mut self, now: Duration) -> Result<()> {
        self.stage = Stage::LastCheckpoint;
        self.send_checkpoint(now)
    }

    fn send_checkpoint(&mut self, now: Duration) -> Result<()> {
        self.last_checkpoint = now;
        let base = self.log.next_is_base();
        self.send_barrier(BarrierKind::Checkpoint { base }, now)
    }

    fn send_barrier(&mut self, kind: BarrierKind, now: Duration) -> Result<()> {
        let barrier = Barrier::new(kind, self.inputs, &self.outside.bell);
        self.barrier = Some((Arc::clone(&barrier), now));
        // At the end all that is left has to fire, and that needs room.
        self.passage.want(kind != BarrierKind::Drain);
        self.send(&Control::Barrier(barrier))?;
        failpoint("coordinator.barrier_sent");
        Ok(())
    }

    fn send(&self, control: &Control) -> Result<()> {
        for worker in &self.workers {
            if worker.commands.send(control.clone()).is_err() {
                // The worker has failed, and is about to say why.
                return Ok(());
            }
            worker.shared.signal.ring();
        }
        Ok(())
    }

    fn finish_barrier(&mut self, now: Duration) -> Result<()> {
        let Some((barrier, since)) = &self.barrier else { return Ok(()) };
        if barrier.has_passed() {
            self.passage.want(false);
        }
        if !barrier.is_complete() {
            return Ok(());
        }
        let (barrier, since) = (Arc::clone(barrier), *since);
        self.barrier = None;
        failpoint("coordinator.barrier_passed");
        match barrier.kind {
            BarrierKind::Tick | BarrierKind::Deliver => Ok(()),
            BarrierKind::Checkpoint { .. } => {
                match self.write_checkpoint(&barrier, since) {
                    // No result waits for it, and the next one is a base, which needs nothing of it.
                    Err(error) if error.is_retriable() && self.stage == Stage::Running => {
                        tracing::warn!(%error, "no checkpoint was written; the next one is due as ever");
                    }
                    written => written?,
                }
                if self.stage == Stage::LastCheckpoint {
                    self.stage = Stage::Ending { since: now };
                    self.send(&Control::End)?;
                    failpoint("coordinator.end_sent");
                }
                Ok(())
            }
            BarrierKind::Drain => {
                // Facts come that may have to wait, and nothing is shown meanwhile.
                self.show();
                let pending = {
                    let collected =
                        barrier.collected.lock().unwrap_or_else(PoisonError::into_inner);
                    collected.pending
                };
                let closed = Facts::of(&self.facts).closed;
                match closes_at(pending, closed, self.tracker.watermark()) {
                    // Rule D10: one final watermark, durable before anything is decided by it.
                    // Results may open windows of a second aggregate, hence the next round.
                    Some(c) => {
                        if closed.is_none_or(|closed| c > closed) {
                            self.fact(Fact::Closed { c })?;
                        }
                        failpoint("coordinator.closed");
                        self.tracker.close(c);
                        self.send_barrier(BarrierKind::Drain, now)
                    }
                    None => {
                        if closed.is_none() {
                            self.fact(Fact::Closed { c: self.tracker.watermark() })?;
                        }
                        self.fact(Fact::EndReached)?;
                        failpoint("coordinator.end_reached");
                        self.stage = Stage::Delivering { since: now };
                        self.send_barrier(BarrierKind::Deliver, now)
                    }
                }
            }
        }
    }

    fn write_checkpoint(&mut self, barrier: &Barrier, since: Duration) -> Result<()> {
        let mut collected = barrier.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let BarrierKind::Checkpoint { base } = barrier.kind else { return Ok(()) };
        let number = self.log.next_number();
        let base = if base { number } else { self.log.base().unwrap_or(number) };
        let now = self.config.clock.now();
        let idle = self.tracker.snapshot().into_iter();
        let idle = idle.filter(|t| matches!(t.state, SplitState::Idle | SplitState::Waking));
        let splits: Vec<_> = std::mem::take(&mut collected.splits).into_values().collect();
        self.facts = without_cleared(still_needed(&self.facts), &splits);
        let manifest = Manifest {
            format: FORMAT,
            job: self.job.clone(),
            lineage: self.lineage.clone(),
            number,
            base,
            created: now,
            plan: self.plan.clone(),
            splits,
            idle: idle.map(|t| t.id).collect(),
            facts: self.facts.clone(),
            facts_through: self.log.last_fact(),
            // While catching up, the restored state is ahead of what is read.
            watermark: self.tracker.watermark().max(self.restored),
            confirmed: self.confirmed(),
            counted: std::mem::take(&mut collected.counted),
        };
        let positions: Vec<(SplitId, u64)> =
            manifest.splits.iter().map(|e| (e.split.id.clone(), e.position.next)).collect();
        let changes = std::mem::take(&mut collected.changes);
        let pause = collected.pause;
        drop(collected);
        let bytes = self.log.append_checkpoint(Checkpoint { manifest, changes })?;
        failpoint("coordinator.checkpointed");
        self.log.collect_garbage(now)?;
        let duration = self.config.clock.elapsed().saturating_sub(since);
        let age = Duration::ZERO;
        self.checkpoint = Some((CheckpointProgress { number, bytes, duration, pause, age }, now));
        self.sources.iter().for_each(|source| source.committed(&positions));
        Ok(())
    }

    /// Makes a fact durable; only then may anything be decided by it (rule D1). Where the disk is full
    /// it waits for room, unless the job is asked to stop, or a thread fails, meanwhile. Sinks go on;
    /// workers do until they need the decision (a floor is decided under the tracker's lock).
    fn fact(&mut self, fact: Fact) -> Result<()> {
        let Self { outside, log, ended, .. } = self;
        let fails = || !ended.is_empty();
        let patience = Patience::new(outside, true);
        if let Err(error) = patience.until_done(fails, || log.append_fact(&fact)) {
            // What the thread has to say is the cause.
            return Err(match error.is_retriable() && fails() {
                true => Error::internal("a thread ended while a fact could not be written"),
                false => error,
            });
        }
        self.facts.push(fact);
        Ok(())
    }

    fn set_state(&self, state: JobState) {
        self.outside.progress.lock().unwrap_or_else(PoisonError::into_inner).state = state;
    }

    fn checkpoint_progress(&self) -> Option<CheckpointProgress> {
        let (made, at) = self.checkpoint?;
        Some(CheckpointProgress { age: self.config.clock.now().since(at), ..made })
    }
}

/// A fence outranks everything, and a cause its consequences; otherwise the first failure is the
/// cause of the others.
fn note_failure(failure: &mut Option<Error>, result: Result<()>) {
    let outranks = |new: &Error, old: &Error| {
        new.kind() == ErrorKind::Fenced
            || (old.kind() == ErrorKind::Internal && new.kind() != ErrorKind::Internal)
    };
    if let Err(error) = result
        && failure.as_ref().is_none_or(|old| outranks(&error, old))
    {
        *failure = Some(error);
    }
}
