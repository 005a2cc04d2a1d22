//! From a plan to running threads: recover, find the splits, build the workers.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};

use crossbeam_channel::{Sender, bounded};
use tokio::runtime::Handle;

use super::build::{BuildParts, PLANS, start_workers};
use super::patience::Patience;
use super::recover::recover;
use super::splits::{find_splits, position_sinks, reopen};
use super::{Coordinator, Ended, RunningSink, RunningWorker, Stage, discover};
use crate::checkpoint::{CheckpointLog, Fact, PlanStep, Recovered};
use crate::connector::{Claim, Point, Progress};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::flow::Signal;
use crate::graph::{Plan, SinkCell, SinkParts};
use crate::progress::JobState;
use crate::record::{Place, Split, SplitId, SplitList};
use crate::runtime::config::{InputEnd, RunConfig};
use crate::runtime::handle::Outside;
use crate::runtime::recovery::{Facts, PlannedSplit, is_complete, refuse_closed, sink_position};
use crate::runtime::suspects;
use crate::task::{GivenUps, Passage, SplitState, Tracked, Tracker};
use crate::time::Timestamp;

/// What recovery found out.
pub(super) struct Found {
    pub(super) outside: Arc<Outside>,
    /// Whether the job has made a checkpoint of something.
    pub(super) has_run: bool,
    pub(super) log: CheckpointLog,
    pub(super) lineage: String,
    pub(super) recovered: Recovered,
    /// What each sink has; of an adopted one that has not committed, where it was adopted.
    pub(super) progress: Vec<Option<Progress>>,
    /// Whether each sink has committed.
    pub(super) had_progress: Vec<bool>,
    /// From when on operators have results that began in the middle (rule D12).
    pub(super) begins: BTreeMap<String, Timestamp>,
    /// The sinks behind stateless steps that were part of the job when its checkpoint was made, or
    /// have committed since, by their place in `progress`. A new one starts at the checkpoint (rule
    /// D12).
    pub(super) position_sinks: Vec<usize>,
}

impl Found {
    /// Asks a source that may be out of reach.
    pub(super) fn ask<R>(&self, question: impl FnMut() -> Result<R>) -> Result<R> {
        Patience::new(&self.outside, self.has_run).until_done(|| false, question)
    }
}

/// Makes a fact durable; a disk that is full is waited for.
pub(super) fn append(found: &mut Found, fact: Fact) -> Result<()> {
    let patience = Patience::new(&found.outside, found.has_run);
    patience.until_done(|| false, || found.log.append_fact(&fact))?;
    found.recovered.facts.push(fact);
    Ok(())
}

impl Coordinator {
    /// Recovers the job and starts its threads. `None`: there is nothing to do (rule D10).
    pub(crate) fn start(
        mut plan: Plan,
        job: String,
        mut config: RunConfig,
        outside: Arc<Outside>,
        runtime: &Handle,
    ) -> Result<Option<Self>> {
        config.validate()?;
        plan.validate()?;
        let started = config.clock.elapsed();
        let steps = plan.fingerprint();
        let mut found = recover(&mut plan, &steps, &job, &config, &outside, runtime)?;
        let recovered = config.clock.elapsed();
        let mut facts = Facts::of(&found.recovered.facts);
        let mut splits = find_splits(&plan.sources, &mut found, &mut facts, &config)?;
        failpoint("recovery.facts_appended");
        let found_splits = config.clock.elapsed();
        if let Some(closed) = facts.closed {
            let more: Vec<String> = splits
                .iter()
                .filter(|s| {
                    s.plan.end.is_none_or(|end| facts.ends.get(&s.plan.split.id) != Some(&end))
                })
                .map(|s| s.plan.split.id.to_string())
                .collect();
            if more.is_empty() {
                let sinks = position_sinks(&found);
                let complete = splits.iter().all(|s| is_complete(&s.plan, &sinks));
                if complete && lowest_w(&plan.sinks, &found.progress) >= closed {
                    tracing::info!(%job, "the input is closed and has no more: nothing to do");
                    return Ok(None);
                }
                // It was interrupted between closing and the end.
                config.end = InputEnd::Close;
            } else if config.reopen {
                reopen(&mut found, &mut splits, &facts, closed, config.end)?;
            } else {
                return Err(refuse_closed(&job, closed, &more));
            }
        }

        let aggregates: Arc<[Arc<str>]> = plan.aggregates.iter().map(Arc::clone).collect();
        let given_ups = Arc::new(GivenUps::default());
        let passage = Arc::new(Passage::default());
        let signals: Arc<[Arc<Signal>]> = (0..config.workers).map(|_| Signal::new()).collect();
        let keep_open = config.end == InputEnd::KeepOpen;
        let tracker = Tracker::new(
            Timestamp::MIN,
            keep_open,
            config.drift,
            signals.iter().map(Arc::clone).collect(),
            Arc::clone(&outside.bell),
        );
        for split in &splits {
            tracker.add(tracked(split));
        }
        let split_list = SplitList::default();
        splits.iter().for_each(|s| split_list.add(s.plan.split.clone()));
        let restored_to: Arc<[Place]> = splits.iter().map(|s| s.plan.restored.place()).collect();
        let given_up = splits.iter().map(|s| (s.plan.index, s.plan.given_up_by.as_slice()));
        let given_up = Arc::new(suspects::by_operator(given_up));

        let old = &found.recovered.manifest.plan;
        prepare_sinks(&mut plan.sinks, &found.progress, &splits, old, &config);
        let abandon = Arc::new(AtomicBool::new(false));
        let (ended_sender, ended) = bounded(config.workers + plan.sinks.len() + 1);
        let parts = BuildParts {
            begins: &found.begins,
            tracker: &tracker,
            signals: &signals,
            restored_to: &restored_to,
            given_up: &given_up,
            splits: &split_list,
            aggregates: &aggregates,
            given_ups: &given_ups,
            passage: &passage,
            abort: &abandon,
            ended: &ended_sender,
            bell: &outside.bell,
        };
        let (workers, inputs) = start_workers(&mut plan, &found.recovered, &config, &parts)?;
        failpoint("recovery.workers_started");
        let mut sinks = vec![];
        for ((cell, progress), had) in
            plan.sinks.iter_mut().zip(&found.progress).zip(&found.had_progress)
        {
            let parts = SinkParts {
                claim: claim(cell.name(), &job, &found.lineage, &config),
                progress: progress.clone().unwrap_or_else(|| empty(cell.is_fired())),
                splits: split_list.clone(),
                workers: config.workers,
                clock: Arc::clone(&config.clock),
                abandon: Arc::clone(&abandon),
                bell: Arc::clone(&outside.bell),
            };
            sinks.push(start_sink(
                cell.as_mut(),
                parts,
                *had,
                ended_sender.clone(),
                &outside.bell,
            )?);
        }
        failpoint("recovery.sinks_started");
        for split in &splits {
            let worker: &RunningWorker = &workers[split.plan.index as usize % config.workers];
            let full = Error::user(format!("more than {PLANS} splits for one worker"));
            worker.plans[split.source].try_send(split.plan.clone()).map_err(|_| full)?;
        }
        tracker.ring();
        let at_start = splits
            .iter()
            .map(|split| split.plan.from)
            .fold((0, 0), |(read, accepted), at| (read + at.read, accepted + at.accepted));
        let known: Vec<Split> = splits.iter().map(|s| s.plan.split.clone()).collect();
        let over = Arc::new(AtomicBool::new(false));
        let discovered = discover::start(&plan.sources, &known, &config, &over)?;
        let noted = highest_noted(&found.progress);
        let now = config.clock.elapsed();
        tracing::debug!(
            %job,
            recovered = ?recovered.saturating_sub(started),
            splits_found = ?found_splits.saturating_sub(recovered),
            threads_started = ?now.saturating_sub(found_splits),
            "the job runs"
        );
        outside.progress.lock().unwrap_or_else(PoisonError::into_inner).state = JobState::Running;
        Ok(Some(Self {
            job,
            outside,
            log: found.log,
            lineage: found.lineage,
            plan: steps,
            facts: found.recovered.facts,
            sources: plan.sources,
            sinks,
            tracker,
            given_ups,
            passage,
            split_list,
            source_of: splits.iter().map(|split| split.source).collect(),
            discovered,
            over,
            workers,
            inputs,
            ended,
            abandon,
            started,
            barrier: None,
            last_checkpoint: now,
            last_tick: now,
            last_look: now,
            checkpoint: None,
            noted,
            restored: found.recovered.manifest.watermark,
            at_start,
            stage: Stage::Running,
            config,
        }))
    }
}

pub(super) fn claim(sink: &str, job: &str, lineage: &str, config: &RunConfig) -> Claim {
    Claim {
        job: job.to_owned(),
        sink: sink.to_owned(),
        lineage: lineage.to_owned(),
        take_over: config.take_over,
    }
}

fn empty(fired: bool) -> Progress {
    let point = match fired {
        true => Point::Watermark { groups: (0, 255), w: Timestamp::MIN, noted: BTreeMap::new() },
        false => Point::Positions(BTreeMap::new()),
    };
    Progress { point, rows: 0 }
}

fn tracked(split: &PlannedSplit) -> Tracked {
    let from = split.plan.from;
    Tracked {
        id: split.plan.split.id.clone(),
        state: SplitState::Active,
        own: Timestamp::MIN,
        first_own: None,
        floor: from.floor,
        caught_up_since: None,
        next: from.next,
        lag: None,
        idle_at: split.idle_at,
        idle_after: split.idle_after,
        behind: false,
    }
}

/// Every sink behind windows has every result up to here.
fn lowest_w(sinks: &[Box<dyn SinkCell>], progress: &[Option<Progress>]) -> Timestamp {
    let fired = sinks.iter().zip(progress).filter(|(sink, _)| sink.is_fired());
    let w = fired.map(|(_, progress)| match progress.as_ref().map(|progress| &progress.point) {
        Some(Point::Watermark { w, .. }) => *w,
        _ => Timestamp::MIN,
    });
    w.min().unwrap_or(Timestamp::MAX)
}

fn highest_noted(progress: &[Option<Progress>]) -> BTreeMap<SplitId, u64> {
    let mut all: BTreeMap<SplitId, u64> = BTreeMap::new();
    for progress in progress.iter().flatten() {
        if let Point::Watermark { noted, .. } = &progress.point {
            for (split, next) in noted {
                let highest = all.entry(split.clone()).or_default();
                *highest = (*highest).max(*next);
            }
        }
    }
    all
}

/// Tells every sink's edges what the target has.
fn prepare_sinks(
    sinks: &mut [Box<dyn SinkCell>],
    progress: &[Option<Progress>],
    splits: &[PlannedSplit],
    old: &[PlanStep],
    config: &RunConfig,
) {
    let was_part = |sink: &dyn SinkCell| old.iter().any(|step| step.name == sink.name());
    for (sink, progress) in sinks.iter_mut().zip(progress) {
        let point = progress.as_ref().map(|progress| &progress.point);
        let (w, has) = match point {
            Some(Point::Watermark { w, .. }) => (*w, None),
            Some(Point::Positions(positions)) => (Timestamp::MIN, Some(positions)),
            None => (Timestamp::MIN, None),
        };
        let is_new = point.is_none() && !was_part(sink.as_ref());
        let position = |split: &PlannedSplit| match is_new {
            // A sink that is new to the job starts where the state is (rule D12).
            true => split.plan.restored,
            false => {
                let plan = &split.plan;
                sink_position(&plan.split.id, plan.start, plan.given_up_by.len(), has)
            }
        };
        sink.shared().reach.start(splits.iter().map(position).collect(), config.detach_after);
        sink.prepare(w, config.workers, config.queue);
    }
}

fn start_sink(
    cell: &mut dyn SinkCell,
    parts: SinkParts,
    had_progress: bool,
    ended: Sender<Ended>,
    bell: &Arc<Signal>,
) -> Result<RunningSink> {
    let (name, fired, shared) = (cell.name().to_owned(), cell.is_fired(), cell.shared());
    let task = cell.task(parts)?;
    let (of, bell) = (name.clone(), Arc::clone(bell));
    let thread = std::thread::Builder::new()
        .name(format!("sink {name}"))
        .spawn(move || {
            let result = task();
            let _ = ended.send(Ended::Sink(of, result));
            bell.ring();
        })
        .map_err(|e| Error::external("a thread cannot be started").because(e))?;
    Ok(RunningSink { name, fired, had_progress, shared, thread: Some(thread) })
}
