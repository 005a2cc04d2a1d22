//! What a job goes on from: opens the log, claims every sink, chooses the checkpoint, and carries
//! out what a person has allowed to change (rules D6, D7, D12).

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::panic::resume_unwind;
use std::sync::{Arc, PoisonError};

use tokio::runtime::Handle;

use super::patience::Patience;
use super::setup::{Found, append, claim};
use crate::checkpoint::{Checkpoint, CheckpointLog, FORMAT, Fact, Manifest, PlanStep};
use crate::connector::{Point, Progress, SinkContext};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::graph::{Plan, SinkCell};
use crate::record::Split;
use crate::runtime::config::RunConfig;
use crate::runtime::handle::Outside;
use crate::runtime::plan::{
    begins, differences, first_whole_start, is_same, is_stateful, refusal, summary,
};
use crate::runtime::recovery::{
    Facts, adopted, adopted_at, cut_start, fits, kept_by_rebuild, lost_progress, missed_results,
    still_needed,
};
use crate::time::Timestamp;

/// Opens the log, makes checkpoint 0 if it is empty, claims every sink, and chooses the checkpoint.
pub(super) fn recover(
    plan: &mut Plan,
    steps: &[PlanStep],
    job: &str,
    config: &RunConfig,
    outside: &Arc<Outside>,
    runtime: &Handle,
) -> Result<Found> {
    must_be_sinks(&plan.sinks, config)?;
    let mut log = CheckpointLog::open(config.checkpoints.location(), job, runtime.clone())?;
    let mut setting = Setting { job, outside, has_run: false, config, runtime, steps };
    if config.rebuild {
        rebuild(&mut log, plan, setting)?;
    }
    let manifests = log.manifests()?;
    setting.has_run = manifests.last().is_some_and(|newest| newest.number > 0);
    let lineage = match manifests.last() {
        Some(newest) => newest.lineage.clone(),
        None => {
            let lineage = new_lineage();
            // Before any sink is claimed with it: a lineage is durable first (rule D6).
            log.recover(|_| true)?;
            log.append_checkpoint(Checkpoint {
                manifest: first_manifest(setting, &lineage),
                changes: vec![],
            })?;
            failpoint("recovery.lineage_made");
            lineage
        }
    };
    let stored = claim_all(plan, &lineage, setting).map_err(|(sink, error)| {
        // Or one that such a refusal has left.
        let none = manifests.last().is_none_or(|newest| newest.number == 0);
        match none && error.lineage().is_some() {
            true => no_checkpoints(job, &sink, log.folder(), error),
            false => error,
        }
    })?;
    failpoint("recovery.sinks_claimed");
    // A target that was emptied: refused, or accepted as a gap.
    let newest_facts = manifests.last().map(|newest| newest.facts.clone()).unwrap_or_default();
    let mut emptied = BTreeSet::new();
    for (i, sink) in plan.sinks.iter().enumerate().filter(|(i, _)| stored[*i].is_none()) {
        let since = adopted(&newest_facts, sink.name()).map_or(0, |(checkpoint, _)| checkpoint);
        let confirms = |m: &&Manifest| {
            m.number >= since && m.confirmed.get(sink.name()).is_some_and(|c| c.has_progress)
        };
        let Some(manifest) = manifests.iter().rev().find(confirms) else { continue };
        let accepted = [&config.accept_gap, &config.backfill];
        if !accepted.iter().any(|accepted| accepted.contains(sink.name())) {
            return Err(lost_progress(job, sink.name(), manifest.number));
        }
        emptied.insert(i);
    }
    let of_sinks = plan.sinks.iter().zip(&stored).enumerate();
    let by_name: BTreeMap<String, Option<Progress>> = of_sinks
        .filter(|(i, _)| !emptied.contains(i))
        .map(|(_, (sink, progress))| (sink.name().to_owned(), progress.clone()))
        .collect();
    let recovered = log
        .recover(|manifest| fits(manifest, &by_name))?
        .ok_or_else(|| Error::internal("checkpoint 0 has vanished"))?;
    failpoint("recovery.state_read");
    let newest_plan = manifests.last().map_or(steps, |newest| &newest.plan);
    let changed = differences(newest_plan, steps);
    let allowed = &config.allow_dropped_state;
    if let Some(error) = refusal(job, recovered.newest, &changed, newest_plan, allowed) {
        return Err(error);
    }
    let had_progress = stored.iter().map(Option::is_some).collect();
    let mut found = Found {
        outside: Arc::clone(outside),
        has_run: setting.has_run,
        log,
        lineage,
        recovered,
        progress: stored,
        had_progress,
        position_sinks: vec![],
        begins: BTreeMap::new(),
    };
    must_not_have_missed(&plan.sinks, &found, newest_plan, setting)?;
    if !changed.is_empty() {
        tracing::warn!(%job, "the plan has changed: {}", summary(&changed));
    }
    let new_sinks = |sink: &dyn SinkCell| !newest_plan.iter().any(|old| old.name == sink.name());
    let adopting: Vec<usize> = (0..plan.sinks.len())
        .filter(|i| found.progress[*i].is_none())
        .filter(|i| emptied.contains(i) || new_sinks(plan.sinks[*i].as_ref()))
        .collect();
    change(&mut found, &plan.sinks, &adopting, newest_plan, setting)?;
    adopt(&mut found, &plan.sinks);
    found.begins = begins(&found.recovered.facts, steps);
    let old = &found.recovered.manifest.plan;
    found.position_sinks = (0..plan.sinks.len())
        .filter(|&i| {
            let was_part = old.iter().any(|step| step.name == plan.sinks[i].name());
            !plan.sinks[i].is_fired() && (was_part || found.progress[i].is_some())
        })
        .collect();
    Ok(found)
}

/// What does not change while a job is recovered.
#[derive(Clone, Copy)]
struct Setting<'a> {
    job: &'a str,
    outside: &'a Outside,
    /// Whether the job has made a checkpoint of something.
    has_run: bool,
    config: &'a RunConfig,
    runtime: &'a Handle,
    steps: &'a [PlanStep],
}

fn must_be_sinks(sinks: &[Box<dyn SinkCell>], config: &RunConfig) -> Result<()> {
    let named = config.accept_gap.iter().map(|sink| ("a gap is accepted for", sink));
    for (what, name) in
        named.chain(config.backfill.iter().map(|sink| ("a backfill is asked of", sink)))
    {
        let Some(sink) = sinks.iter().find(|sink| sink.name() == name) else {
            let names: Vec<String> = sinks.iter().map(|s| format!("{:?}", s.name())).collect();
            return Err(Error::user(format!(
                "{what} {name:?}, and the job has no such sink; its sinks are {}",
                names.join(", ")
            )));
        };
        if sink.is_fired() && config.backfill.contains(name) {
            return Err(Error::user(format!(
                "{what} {name:?}, which is behind windows, sessions or timers: what fired before is in no state. A rebuild (RunConfig::rebuild) computes it again"
            )));
        }
    }
    Ok(())
}

/// Carries out a change of the plan, or of what a sink has, as a checkpoint of its own before
/// anything is read (rule D12): a crash at any moment finds the plan before it or the plan after it.
fn change(
    found: &mut Found,
    sinks: &[Box<dyn SinkCell>],
    adopting: &[usize],
    newest_plan: &[PlanStep],
    setting: Setting<'_>,
) -> Result<()> {
    let Setting { job, steps, .. } = setting;
    let chosen = found.recovered.manifest.clone();
    let is_in = |step: &PlanStep, plan: &[PlanStep]| plan.iter().any(|other| is_same(step, other));
    let stateful = |step: &&PlanStep| is_stateful(step);
    let begin: Vec<&PlanStep> =
        steps.iter().filter(stateful).filter(|step| !is_in(step, &chosen.plan)).collect();
    let gone: BTreeSet<&str> = chosen
        .plan
        .iter()
        .filter(stateful)
        .filter(|step| !is_in(step, steps))
        .map(|step| step.name.as_str())
        .collect();
    let names = |plan: &[PlanStep]| -> BTreeSet<String> {
        plan.iter().map(|step| step.name.clone()).collect()
    };
    if begin.is_empty()
        && gone.is_empty()
        && adopting.is_empty()
        && names(&chosen.plan) == names(steps)
    {
        return Ok(());
    }
    let decided = begins(&found.recovered.facts, steps);
    let from = first_whole_start(&chosen, &found.progress);
    for step in begin {
        // An older checkpoint was chosen for a sink that went back: the operator began before.
        let again = is_in(step, newest_plan) && decided.contains_key(&step.name);
        if !again && from > Timestamp::MIN {
            tracing::warn!(%job, operator = %step.name, %from, "begins with the first window that starts at or after this time");
            let (operator, parameters) = (step.name.clone(), step.parameters.clone());
            append(found, Fact::Begins { operator, parameters, from })?;
        }
    }
    let number = found.log.next_number();
    let mut manifest = Manifest {
        number,
        base: number,
        created: setting.config.clock.now(),
        plan: steps.to_vec(),
        ..chosen.clone()
    };
    for &i in adopting {
        let sink = sinks[i].name();
        let was = manifest.confirmed.remove(sink);
        let backfill = setting.config.backfill.contains(sink);
        if backfill {
            tracing::info!(%job, %sink, "the sink is filled from the first record on");
        } else if let Some(was) = was {
            let w = was.w.map_or_else(|| "checkpoint".to_owned(), |w| w.to_string());
            tracing::warn!(%job, %sink, "a gap is accepted: the sink lacks what it had committed up to {w}, and goes on from checkpoint {}", chosen.number);
        }
        let (sink, positions) = (sink.to_owned(), adopted_at(&chosen, backfill));
        append(found, Fact::Adopted { sink, checkpoint: number, positions })?;
    }
    manifest.facts = still_needed(&found.recovered.facts);
    manifest.facts_through = found.log.last_fact();
    manifest.confirmed.retain(|sink, _| steps.iter().any(|step| step.name == *sink));
    manifest.counted.retain(|operator, _| !gone.contains(operator.as_str()));
    for entry in &mut manifest.splits {
        entry.totals.late.retain(|operator, _| !gone.contains(operator.as_str()));
        entry.totals.wanted.retain(|operator, _| !gone.contains(operator.as_str()));
    }
    found.recovered.state.retain(|operator, _| !gone.contains(operator.as_str()));
    let state = found.recovered.state.iter();
    let changes = state.map(|(operator, entries)| (operator.clone(), entries.puts())).collect();
    found.log.append_checkpoint(Checkpoint { manifest: manifest.clone(), changes })?;
    found.recovered.manifest = manifest;
    Ok(())
}

/// A sink that was adopted, and has not committed yet, goes on from where it was adopted.
fn adopt(found: &mut Found, sinks: &[Box<dyn SinkCell>]) {
    for (sink, progress) in sinks.iter().zip(&mut found.progress) {
        if progress.is_some() || sink.is_fired() {
            continue;
        }
        if let Some((_, positions)) = adopted(&found.recovered.facts, sink.name()) {
            *progress = Some(Progress { point: Point::Positions(positions.clone()), rows: 0 });
        }
    }
}

/// A sink behind windows that comes back: what fired meanwhile is in no state.
fn must_not_have_missed(
    sinks: &[Box<dyn SinkCell>],
    found: &Found,
    newest_plan: &[PlanStep],
    setting: Setting<'_>,
) -> Result<()> {
    let watermark = found.recovered.manifest.watermark;
    for (sink, progress) in sinks.iter().zip(&found.progress) {
        let name = sink.name();
        let Some(Progress { point: Point::Watermark { w, .. }, .. }) = progress else { continue };
        if *w >= watermark || newest_plan.iter().any(|step| step.name == name) {
            continue;
        }
        if !setting.config.accept_gap.contains(name) {
            return Err(missed_results(setting.job, name, *w, watermark));
        }
        tracing::warn!(job = %setting.job, sink = %name, "a gap is accepted: results after {w} and up to {watermark} are missing");
    }
    Ok(())
}

/// Begins the job's state anew: a checkpoint without state, from the first record on. What was
/// decided about records (starts, floors, ends) stays as it was, if the log still tells.
fn rebuild(log: &mut CheckpointLog, plan: &mut Plan, setting: Setting<'_>) -> Result<()> {
    let before = log.start_over()?;
    let lineage = match &before {
        Some((newest, _)) if newest.number > 0 => newest.lineage.clone(),
        // A start that was refused for the sinks' lineage has left an empty checkpoint 0 of its own.
        Some((first, _)) => lineage_of_sinks(plan, first.lineage.clone(), setting)?,
        None => lineage_of_sinks(plan, new_lineage(), setting)?,
    };
    // Before anything is written: another process that runs the job holds them, and goes on.
    claim_all(plan, &lineage, setting).map_err(|(_, error)| error)?;
    let facts = kept_by_rebuild(before.map(|(_, facts)| facts).unwrap_or_default());
    let starts = Facts::of(&facts).splits;
    let known: Vec<Split> = starts.iter().map(|(split, _)| split.clone()).collect();
    let patience = || Patience::new(setting.outside, setting.has_run);
    for source in &plan.sources {
        for split in patience().until_done(|| false, || source.splits(&known))? {
            let start = starts.iter().find(|(known, _)| known.id == split.id);
            let start = start.map_or(0, |(_, start)| *start);
            let first = patience().until_done(|| false, || source.start(&split))?;
            if first > start {
                return Err(cut_start(&split.id, start, first).at_step(source.step()));
            }
        }
    }
    let number = log.next_number();
    let manifest = Manifest {
        number,
        base: number,
        facts,
        facts_through: log.last_fact(),
        ..first_manifest(setting, &lineage)
    };
    log.append_checkpoint(Checkpoint { manifest, changes: vec![] })?;
    tracing::warn!(job = %setting.job, checkpoint = number, "the job is rebuilt from its first record");
    Ok(())
}

/// The lineage of the progress that the sinks have, if the checkpoints that it was made with are gone;
/// else `ours`.
fn lineage_of_sinks(plan: &mut Plan, ours: String, setting: Setting<'_>) -> Result<String> {
    match claim_all(plan, &ours, setting) {
        Ok(_) => Ok(ours),
        Err((_, error)) => match error.lineage() {
            Some(lineage) => Ok(lineage.to_owned()),
            None => Err(error),
        },
    }
}

/// Opens and claims every sink, those whose target is out of reach again and again. They are opened at
/// the same time, since that is mostly waiting for answers, and claimed one after the other: if one of
/// them is another process's, those behind it are left alone. In rounds, since one sink may be held up
/// by what another one has left open, and will end when it is claimed.
fn claim_all(
    plan: &mut Plan,
    lineage: &str,
    setting: Setting<'_>,
) -> Result<Vec<Option<Progress>>, (String, Error)> {
    let mut stored: Vec<Option<Option<Progress>>> = plan.sinks.iter().map(|_| None).collect();
    let mut patience = Patience::new(setting.outside, setting.has_run);
    loop {
        let opened = open_all(&mut plan.sinks, setting);
        let mut failed = None;
        for ((sink, stored), opened) in plan.sinks.iter_mut().zip(&mut stored).zip(opened) {
            if stored.is_some() {
                continue;
            }
            let claim = claim(sink.name(), setting.job, lineage, setting.config);
            let result = opened.and_then(|()| sink.recover(&claim));
            let status = sink.shared();
            let trouble = result.as_ref().err().map(ToString::to_string);
            status.status.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
            setting.outside.show_sink(&status);
            match result {
                Ok(progress) => {
                    *stored = Some(progress);
                    failpoint("recovery.sink_claimed");
                }
                Err(error) if patience.allows(&error) => {
                    tracing::warn!(sink = %sink.name(), %error, "a sink cannot be opened; trying again");
                    failed = Some((sink.name().to_owned(), error));
                }
                Err(error) => return Err((sink.name().to_owned(), error)),
            }
        }
        let Some(failed) = failed else { break };
        if !patience.pause(|| false) {
            return Err(failed);
        }
    }
    Ok(stored.into_iter().map(Option::flatten).collect())
}

/// Opens those that are not open.
fn open_all(sinks: &mut [Box<dyn SinkCell>], setting: Setting<'_>) -> Vec<Result<()>> {
    let Setting { job, config, runtime, .. } = setting;
    std::thread::scope(|threads| {
        let open = |sink: &mut Box<dyn SinkCell>| {
            sink.open(&SinkContext {
                job: job.to_owned(),
                sink: sink.name().to_owned(),
                instance: config.instance.clone(),
                runtime: runtime.clone(),
            })
        };
        let opening: Vec<_> =
            sinks.iter_mut().map(|sink| threads.spawn(move || open(sink))).collect();
        opening.into_iter().map(|open| open.join().unwrap_or_else(|p| resume_unwind(p))).collect()
    })
}

/// Rule D6: says which side is from where.
fn no_checkpoints(job: &str, sink: &str, folder: &str, error: Error) -> Error {
    let lineage = error.lineage().unwrap_or_default().to_owned();
    let text = format!(
        "there is no checkpoint of job {job} in {folder}, but the sink {sink} has progress of lineage {lineage}: the checkpoint folder is missing, or it is another one. Point the job to the right folder, or bring it back from a backup. To compute its state anew from the first record, while the sinks keep what they have: --rebuild (RunConfig::rebuild). To start from nothing: empty the targets"
    );
    debug_assert_eq!(error.kind(), ErrorKind::Fenced);
    Error::fenced(text).because(error)
}

fn first_manifest(setting: Setting<'_>, lineage: &str) -> Manifest {
    Manifest {
        format: FORMAT,
        job: setting.job.to_owned(),
        lineage: lineage.to_owned(),
        number: 0,
        base: 0,
        created: setting.config.clock.now(),
        plan: setting.steps.to_vec(),
        splits: vec![],
        idle: vec![],
        facts: vec![],
        facts_through: 0,
        watermark: Timestamp::MIN,
        confirmed: BTreeMap::new(),
        counted: BTreeMap::new(),
    }
}

/// 128 random bits, as text.
fn new_lineage() -> String {
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}
