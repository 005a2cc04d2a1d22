//! From a plan to running threads: recover, find the splits, build the workers.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Sender, bounded};
use tokio::runtime::Handle;

use super::patience::Patience;
use super::recover::recover;
use super::{Coordinator, Ended, RunningSink, RunningWorker, Stage, discover};
use crate::checkpoint::{CheckpointLog, Fact, PlanStep, Recovered};
use crate::connector::{Claim, Point, Progress};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::flow::Cx;
use crate::graph::{Deploy, Plan, SinkCell, SinkParts, SourceCell, SourceParts};
use crate::progress::JobState;
use crate::record::{Place, Position, Split, SplitId, SplitList};
use crate::runtime::config::{InputEnd, RunConfig};
use crate::runtime::handle::Outside;
use crate::runtime::recovery::{
    Facts, PlannedSplit, SplitFacts, is_complete, plan_split, refuse_closed, reopening,
    sink_position,
};
use crate::runtime::suspects;
use crate::task::{
    Gauges, GivenUpFor, GivenUps, Passage, Signal, SplitState, Tracked, Tracker, Worker,
    WorkerShared, WorkerStatus,
};
use crate::time::Timestamp;

/// The most splits that can wait to be opened by one worker.
const PLANS: usize = 16_384;

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
    fn ask<R>(&self, question: impl FnMut() -> Result<R>) -> Result<R> {
        Patience::new(&self.outside, self.has_run).until_done(|| false, question)
    }
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
        let mut facts = Facts::of(&found.recovered.facts);
        let mut splits = find_splits(&plan.sources, &mut found, &mut facts, &config)?;
        failpoint("recovery.facts_appended");
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
        let mut workers = vec![];
        let mut inputs = 0;
        for worker in 0..config.workers {
            let (running, n) = build_worker(
                worker,
                &mut plan,
                &found.recovered,
                &config,
                BuildParts {
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
                },
            )?;
            inputs += n;
            workers.push(running);
        }
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
            };
            sinks.push(start_sink(cell.as_mut(), parts, *had, ended_sender.clone())?);
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

/// The splits that exist, with everything that was decided about them before.
fn find_splits(
    sources: &[Box<dyn SourceCell>],
    found: &mut Found,
    facts: &mut Facts,
    config: &RunConfig,
) -> Result<Vec<PlannedSplit>> {
    let checkpoint: BTreeMap<SplitId, _> = found
        .recovered
        .manifest
        .splits
        .iter()
        .map(|entry| (entry.split.id.clone(), entry.clone()))
        .collect();
    let known: Vec<Split> = facts.splits.iter().map(|(split, _)| split.clone()).collect();
    // Rule D6: a job that has committed anything never starts a split in the middle of its time.
    // (A checkpoint may have been made before any split was known: by a start that was refused.)
    let first_start = facts.splits.is_empty();
    let mut planned: Vec<PlannedSplit> = vec![];
    for (number, source) in sources.iter().enumerate() {
        for split in found.ask(|| source.splits(&known))? {
            if planned.iter().any(|p| p.plan.split.id == split.id) {
                return Err(Error::user(format!(
                    "two sources have a split called {}: give each its own data",
                    split.id
                ))
                .at_step(source.step()));
            }
            let known = facts.splits.iter().find(|(known, _)| known.id == split.id).cloned();
            let (split, start) = match known {
                Some(known) => known,
                None => {
                    let start = found.ask(|| source.start(&split))?;
                    append(found, Fact::Split { split: split.clone(), start })?;
                    if !first_start {
                        let floor =
                            found.recovered.manifest.watermark.max(highest_w(&found.progress));
                        let id = split.id.clone();
                        append(found, Fact::Floor { split: id.clone(), from: start, floor })?;
                        facts.floors.entry(id).or_default().push((start, floor));
                    }
                    (split, start)
                }
            };
            let old_end = facts.ends.get(&split.id).copied();
            let end = match (config.end, old_end) {
                // Whether there is more than when it was closed; nothing is decided by it yet.
                // A source without an end says so with an error that no waiting helps against.
                (InputEnd::Wait, _) if facts.closed.is_some() => {
                    match found.ask(|| source.end(&split)) {
                        Err(error) if error.is_retriable() => return Err(error),
                        end => end.ok(),
                    }
                }
                (_, _) if facts.closed.is_some() => Some(found.ask(|| source.end(&split))?),
                (InputEnd::Wait | InputEnd::KeepOpen, Some(end)) if !facts.end_reached => {
                    // The bounded run before may have let the watermark pass the split (rule T9).
                    let floors = facts.floors.entry(split.id.clone()).or_default();
                    let floor = found.recovered.manifest.watermark.max(highest_w(&found.progress));
                    if !floors.iter().any(|(from, has)| *from == end && *has >= floor) {
                        floors.push((end, floor));
                        floors.sort_unstable();
                        append(found, Fact::Floor { split: split.id.clone(), from: end, floor })?;
                    }
                    Some(end).filter(|_| config.end == InputEnd::KeepOpen)
                }
                (InputEnd::Wait, _) => None,
                (_, Some(end)) if !facts.end_reached => Some(end),
                (_, _) => {
                    let end = found.ask(|| source.end(&split))?;
                    append(found, Fact::End { split: split.id.clone(), end })?;
                    Some(end)
                }
            };
            let index = u32::try_from(planned.len()).unwrap_or(u32::MAX);
            let idle_at = facts.idle.get(&split.id).copied();
            let idle_after = source.idle_after();
            let floors = facts.floors.get(&split.id).cloned().unwrap_or_default();
            let sinks = position_sinks(found);
            let entry = checkpoint.get(&split.id);
            let given_up = facts.given_up.get(&split.id).cloned().unwrap_or_default();
            let given_up_by = facts.given_up_by.get(&split.id).cloned().unwrap_or_default();
            let suspects = facts.suspects.get(&split.id).map_or(&[][..], Vec::as_slice);
            let near = config.catch_up_beyond;
            let facts = SplitFacts {
                split,
                start,
                entry,
                sinks,
                floors,
                given_up,
                given_up_by,
                suspects,
                end,
                near,
            };
            let mut plan = plan_split(index, facts);
            plan.cuts.extend(idle_at.filter(|at| *at > plan.from.next));
            planned.push(PlannedSplit { source: number, plan, idle_at, idle_after });
        }
    }
    if config.end == InputEnd::Wait && !facts.ends.is_empty() && !facts.end_reached {
        append(found, Fact::EndReached)?;
    }
    Ok(planned)
}

/// The positions of each position sink that was part of the job before.
fn position_sinks(found: &Found) -> Vec<Option<&BTreeMap<SplitId, Position>>> {
    found
        .position_sinks
        .iter()
        .map(|&i| match &found.progress[i] {
            Some(Progress { point: Point::Positions(positions), .. }) => Some(positions),
            _ => None,
        })
        .collect()
}

pub(super) fn append(found: &mut Found, fact: Fact) -> Result<()> {
    let patience = Patience::new(&found.outside, found.has_run);
    patience.until_done(|| false, || found.log.append_fact(&fact))?;
    found.recovered.facts.push(fact);
    Ok(())
}

/// Makes the facts of [`reopening`] durable, and puts them into the plans.
fn reopen(
    found: &mut Found,
    splits: &mut [PlannedSplit],
    facts: &Facts,
    closed: Timestamp,
    end: InputEnd,
) -> Result<()> {
    tracing::warn!(%closed, "the job is reopened: records before that time are late");
    let mut all = vec![];
    for split in splits {
        let plan = &mut split.plan;
        // A split that came after the closing has its floor from first sight.
        let from = facts.ends.get(&plan.split.id).copied().unwrap_or(plan.start);
        plan.floors.push((from, closed));
        plan.floors.sort_unstable();
        plan.end = plan.end.filter(|_| end != InputEnd::Wait);
        all.push((plan.split.id.clone(), from, plan.end));
    }
    reopening(closed, &all).into_iter().try_for_each(|fact| append(found, fact))
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

fn highest_w(progress: &[Option<Progress>]) -> Timestamp {
    let of = |progress: &Progress| match &progress.point {
        Point::Watermark { w, .. } => Some(*w),
        Point::Positions(_) => None,
    };
    progress.iter().flatten().filter_map(of).max().unwrap_or(Timestamp::MIN)
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
) -> Result<RunningSink> {
    let (name, fired, shared) = (cell.name().to_owned(), cell.is_fired(), cell.shared());
    let task = cell.task(parts)?;
    let of = name.clone();
    let thread = std::thread::Builder::new()
        .name(format!("sink {name}"))
        .spawn(move || {
            let result = task();
            let _ = ended.send(Ended::Sink(of, result));
        })
        .map_err(|e| Error::external("a thread cannot be started").because(e))?;
    Ok(RunningSink { name, fired, had_progress, shared, thread: Some(thread) })
}

/// What all workers are built with.
struct BuildParts<'a> {
    begins: &'a BTreeMap<String, Timestamp>,
    tracker: &'a Arc<Tracker>,
    signals: &'a Arc<[Arc<Signal>]>,
    restored_to: &'a Arc<[Place]>,
    given_up: &'a Arc<GivenUpFor>,
    splits: &'a SplitList,
    aggregates: &'a Arc<[Arc<str>]>,
    given_ups: &'a Arc<GivenUps>,
    passage: &'a Arc<Passage>,
    abort: &'a Arc<AtomicBool>,
    ended: &'a Sender<Ended>,
}

/// Builds one worker, restores its state and starts its thread.
fn build_worker(
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
