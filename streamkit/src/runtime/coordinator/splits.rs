//! The splits that a job starts with: which there are, where each begins and ends, and the facts about
//! that, which are durable before anything is decided by them (rules T9, D1, D10).

use std::collections::BTreeMap;

use super::setup::{Found, append};
use crate::checkpoint::Fact;
use crate::connector::{Point, Progress};
use crate::error::{Error, Result};
use crate::graph::SourceCell;
use crate::record::{Position, Split, SplitId};
use crate::runtime::config::{InputEnd, RunConfig};
use crate::runtime::recovery::{Facts, PlannedSplit, SplitFacts, plan_split, reopening};
use crate::time::Timestamp;

/// The splits that exist, with everything that was decided about them before.
pub(super) fn find_splits(
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
pub(super) fn position_sinks(found: &Found) -> Vec<Option<&BTreeMap<SplitId, Position>>> {
    found
        .position_sinks
        .iter()
        .map(|&i| match &found.progress[i] {
            Some(Progress { point: Point::Positions(positions), .. }) => Some(positions),
            _ => None,
        })
        .collect()
}

/// Makes the facts of [`reopening`] durable, and puts them into the plans.
pub(super) fn reopen(
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

fn highest_w(progress: &[Option<Progress>]) -> Timestamp {
    let of = |progress: &Progress| match &progress.point {
        Point::Watermark { w, .. } => Some(*w),
        Point::Positions(_) => None,
    };
    progress.iter().flatten().filter_map(of).max().unwrap_or(Timestamp::MIN)
}
