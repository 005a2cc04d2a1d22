//! Where a job goes on: from the checkpoint log, from what every sink says, and from the splits that
//! exist. Decisions are pure functions; the coordinator does the I/O around them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::suspects;
use crate::checkpoint::{Confirmed, Fact, Manifest, SplitEntry, Totals};
use crate::connector::{Point, Progress};
use crate::error::Error;
use crate::record::{Position, Split, SplitId};
use crate::task::{GivenUpBy, SplitPlan};
use crate::time::Timestamp;

/// Rule D7: whether the state of a checkpoint can serve these sinks. Results below what a sink had
/// confirmed are not in the checkpoint, so the sink must still have them.
pub(crate) fn fits(manifest: &Manifest, recovered: &BTreeMap<String, Option<Progress>>) -> bool {
    manifest.confirmed.iter().all(|(sink, confirmed)| {
        let Some(progress) = recovered.get(sink) else {
            return true; // The sink is no longer part of the job.
        };
        let Some(progress) = progress else {
            return !confirmed.has_progress;
        };
        match (&progress.point, confirmed.w) {
            (Point::Watermark { w, .. }, Some(needed)) => *w >= needed,
            _ => true,
        }
    })
}

/// What a checkpoint must say of a sink.
pub(crate) fn confirmed(fired: bool, has_progress: bool, w: Timestamp) -> Confirmed {
    Confirmed { w: (fired && has_progress && w > Timestamp::MIN).then_some(w), has_progress }
}

/// What the facts say, put in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) splits: Vec<(Split, u64)>,
    /// Splits that are idle, and the record before which they became so.
    pub(crate) idle: BTreeMap<SplitId, u64>,
    pub(crate) floors: BTreeMap<SplitId, Vec<(u64, Timestamp)>>,
    /// Records that were given up, and why.
    pub(crate) given_up: BTreeMap<SplitId, BTreeMap<u64, String>>,
    /// Records that one operator has given up.
    pub(crate) given_up_by: BTreeMap<SplitId, Vec<GivenUpBy>>,
    /// Records that may be to blame for a failure: first, and next after the last.
    pub(crate) suspects: BTreeMap<SplitId, Vec<(u64, u64)>>,
    /// The end positions of the last bounded run.
    pub(crate) ends: BTreeMap<SplitId, u64>,
    /// Whether all of them have been reached.
    pub(crate) end_reached: bool,
    /// The input was closed at this time, and not reopened since.
    pub(crate) closed: Option<Timestamp>,
}

impl Facts {
    pub(crate) fn of(facts: &[Fact]) -> Self {
        let mut all = Self::default();
        for fact in facts {
            match fact {
                Fact::Split { split, start } => all.splits.push((split.clone(), *start)),
                Fact::Idle { split, at } => {
                    all.idle.insert(split.clone(), *at);
                }
                Fact::Floor { split, from, floor } => {
                    all.idle.remove(split);
                    all.floors.entry(split.clone()).or_default().push((*from, *floor));
                }
                Fact::End { split, end } => {
                    if std::mem::take(&mut all.end_reached) {
                        all.ends.clear();
                    }
                    all.ends.insert(split.clone(), *end);
                }
                Fact::EndReached => all.end_reached = true,
                Fact::Closed { c } => all.closed = Some(*c),
                Fact::Reopened { .. } => all.closed = None,
                Fact::GivenUp { split, at, reason, operator: None, .. } => {
                    all.given_up.entry(split.clone()).or_default().insert(*at, reason.clone());
                }
                Fact::GivenUp { split, at, reason, operator: Some(operator), letter_at } => {
                    let by = GivenUpBy::new(operator, *at, reason, *letter_at);
                    all.given_up_by.entry(split.clone()).or_default().push(by);
                }
                Fact::Suspect { split, first, next } => {
                    all.suspects.entry(split.clone()).or_default().push((*first, *next));
                }
                Fact::Begins { .. } | Fact::Adopted { .. } => {}
            }
        }
        all.floors.values_mut().for_each(|floors| floors.sort_unstable());
        all
    }
}

/// Facts that a checkpoint goes on to carry: an idleness that a floor has ended is no longer needed.
pub(crate) fn still_needed(facts: &[Fact]) -> Vec<Fact> {
    let idle = Facts::of(facts).idle;
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Fact> = facts
        .iter()
        .rev()
        .filter(|fact| match fact {
            Fact::Idle { split, .. } => idle.contains_key(split) && seen.insert(split.clone()),
            _ => true,
        })
        .cloned()
        .collect();
    kept.reverse();
    kept
}

/// A split to be read, of which source, and where it became idle, if it is.
#[derive(Debug, Clone)]
pub(crate) struct PlannedSplit {
    pub(crate) source: usize,
    pub(crate) plan: SplitPlan,
    pub(crate) idle_at: Option<u64>,
    pub(crate) idle_after: Option<Duration>,
}

/// What is known of one split when its plan is made.
pub(crate) struct SplitFacts<'a> {
    pub(crate) split: Split,
    pub(crate) start: u64,
    /// What the checkpoint has of it.
    pub(crate) entry: Option<&'a SplitEntry>,
    /// The progress of each position sink that was part of the job before; `None` if it has none.
    pub(crate) sinks: Vec<Option<&'a BTreeMap<SplitId, Position>>>,
    pub(crate) floors: Vec<(u64, Timestamp)>,
    pub(crate) given_up: BTreeMap<u64, String>,
    pub(crate) given_up_by: Vec<GivenUpBy>,
    pub(crate) suspects: &'a [(u64, u64)],
    pub(crate) end: Option<u64>,
    /// So many records a sink may be behind the checkpoint without a reader of its own.
    pub(crate) near: u64,
}

/// Where a sink goes on with a split: what it has, or else the start of the data. It may have been
/// sent more letters than a log that was lost knew.
pub(crate) fn sink_position(
    split: &SplitId,
    start: u64,
    letters: usize,
    has: Option<&BTreeMap<SplitId, Position>>,
) -> Position {
    let at_start = Position { next: start, ..Position::default() };
    let at = has.and_then(|has| has.get(split).copied()).unwrap_or(at_start);
    Position { told: at.told.min(letters as u64), ..at }
}

/// Rule D5: the reader starts at the lowest of the checkpoint and the sinks that are near it, and no
/// portion straddles a position of any of them. Sinks that are further behind get a reader of their
/// own.
pub(crate) fn plan_split(index: u32, facts: SplitFacts<'_>) -> SplitPlan {
    let SplitFacts { split, start, entry, sinks, floors, .. } = facts;
    let SplitFacts { given_up, given_up_by, suspects: accused, end, near, .. } = facts;
    let checkpoint = match entry {
        Some(entry) => entry.position,
        None => Position { next: start, ..Position::default() },
    };
    let letters = given_up_by.len();
    let of_sinks = sinks.iter().map(|has| sink_position(&split.id, start, letters, *has));
    let all: Vec<Position> = of_sinks.chain(std::iter::once(checkpoint)).collect();
    let is_near = |at: &&Position| at.next.saturating_add(near) >= checkpoint.next;
    let from =
        all.iter().filter(is_near).copied().min_by_key(Position::place).unwrap_or(checkpoint);
    let mut cuts: Vec<u64> = all.iter().map(|at| at.next).filter(|at| *at > from.next).collect();
    cuts.extend(suspects::cuts(from.next, accused, &given_up_by));
    cuts.sort_unstable();
    cuts.dedup();
    SplitPlan {
        index,
        start,
        from,
        cuts,
        restored: checkpoint,
        totals: entry.map_or_else(Totals::default, |entry| entry.totals.clone()),
        floors,
        given_up,
        given_up_by,
        end,
        split,
    }
}

/// Whether the state and every one of these sinks have a split up to its end. The reader's start does
/// not tell: a sink that is far behind has a reader of its own (rule D5).
pub(crate) fn is_complete(
    plan: &SplitPlan,
    sinks: &[Option<&BTreeMap<SplitId, Position>>],
) -> bool {
    let Some(end) = plan.end else { return false };
    let letters = plan.given_up_by.len();
    let due = plan.given_up_by.iter().filter(|by| by.letter_at <= end).count() as u64;
    let of_sinks = sinks.iter().map(|has| sink_position(&plan.split.id, plan.start, letters, *has));
    of_sinks
        .chain(std::iter::once(plan.restored))
        .all(|at| at.next > end || (at.next == end && at.told >= due))
}

/// Rule D10: the last watermark of an input that is being closed, or none if everything has fired.
/// `closed`: it was closed before a crash, and is finished with the same one.
pub(crate) fn closes_at(
    pending: Option<Timestamp>,
    closed: Option<Timestamp>,
    watermark: Timestamp,
) -> Option<Timestamp> {
    let c = pending.max(closed.filter(|closed| *closed > watermark))?;
    Some(c.max(watermark))
}

/// Rule D10: a closed job goes on, with the time of closing as the floor of every split, from the end
/// that it was closed at: what comes before that was on time. `splits` are these ends, and the new
/// ones of a bounded run.
///
/// The order matters, since a crash may come after any of these facts: the job counts as closed until
/// all floors are durable, and takes its new ends only then.
pub(crate) fn reopening(closed: Timestamp, splits: &[(SplitId, u64, Option<u64>)]) -> Vec<Fact> {
    let floors = splits.iter().map(|(split, from, _)| {
        let split = split.clone();
        Fact::Floor { split, from: *from, floor: closed }
    });
    let ends = splits.iter().filter_map(|(split, _, end)| {
        let split = split.clone();
        Some(Fact::End { split, end: (*end)? })
    });
    floors.chain([Fact::Reopened { c: closed }]).chain(ends).collect()
}

/// Refuses a sink whose target was emptied, or is another one (rule D6).
pub(crate) fn lost_progress(job: &str, sink: &str, checkpoint: u64) -> Error {
    Error::user(format!(
        "the sink {sink} of job {job} has no progress in its target, although checkpoint {checkpoint} says that it had committed: the target was emptied, or it is another one. Point the sink to its target, or restore it. To go on without what it had: --accept-gap \"{sink}\" (RunConfig::accept_gap). To fill it from the first record on, if it is not behind windows: --backfill \"{sink}\" (RunConfig::backfill); otherwise choose another job name"
    ))
}

/// Refuses a sink behind windows that was no part of the job for a while: what fired meanwhile is
/// not in the state any more (rule D12).
pub(crate) fn missed_results(job: &str, sink: &str, w: Timestamp, watermark: Timestamp) -> Error {
    Error::user(format!(
        "the sink {sink} is back in job {job}, and has every result up to {w}; those after it and up to {watermark} fired while it was no part of the job, and are gone. To go on without them: --accept-gap \"{sink}\" (RunConfig::accept_gap); or give the sink another name and an empty target"
    ))
}

/// Refuses to rebuild what the source does not have any more (rule D6).
pub(crate) fn cut_start(split: &SplitId, start: u64, first: u64) -> Error {
    Error::user(format!(
        "the job cannot be rebuilt: {split} has to be read from record {start} on, and the first one that is left is {first}. Bring the checkpoint folder back from a backup, or choose another job name and empty targets"
    ))
}

/// The facts that a job keeps when its state is computed anew: what was decided about its records.
pub(crate) fn kept_by_rebuild(facts: Vec<Fact>) -> Vec<Fact> {
    let about_state = |fact: &Fact| matches!(fact, Fact::Begins { .. } | Fact::Adopted { .. });
    facts.into_iter().filter(|fact| !about_state(fact)).collect()
}

/// Rule D12: where a sink that is new to the job begins: at its checkpoint, or with the first records.
pub(crate) fn adopted_at(checkpoint: &Manifest, backfill: bool) -> BTreeMap<SplitId, Position> {
    let at = |entry: &SplitEntry| match backfill {
        true => Position { next: entry.start, ..Position::default() },
        false => entry.position,
    };
    checkpoint.splits.iter().map(|entry| (entry.split.id.clone(), at(entry))).collect()
}

/// The last adoption of a sink: by which checkpoint, and from where it goes on.
pub(crate) fn adopted<'a>(
    facts: &'a [Fact],
    sink: &str,
) -> Option<(u64, &'a BTreeMap<SplitId, Position>)> {
    facts.iter().rev().find_map(|fact| match fact {
        Fact::Adopted { sink: name, checkpoint, positions } if name == sink => {
            Some((*checkpoint, positions))
        }
        _ => None,
    })
}

/// Refuses a job whose input was closed and has grown since (rule D10).
pub(crate) fn refuse_closed(job: &str, closed: Timestamp, more: &[String]) -> Error {
    Error::user(format!(
        "the input of job {job} was closed at {closed}, and there is more of it now ({}). Choose another job name, or reopen the job: then records before that time are late",
        more.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_micros(s * 1_000_000)
    }

    fn split(name: &str) -> Split {
        Split { id: SplitId::new(name), topic: "t".into(), partition: 0, memo: String::new() }
    }

    fn position(next: u64) -> Position {
        Position {
            next,
            high: Some(at(next as i64)),
            read: next,
            accepted: next,
            floor: None,
            told: 0,
        }
    }

    fn manifest(confirmed: &[(&str, Confirmed)]) -> Manifest {
        Manifest {
            format: 1,
            job: "j".into(),
            lineage: "l".into(),
            number: 3,
            base: 3,
            created: at(0),
            plan: vec![],
            splits: vec![],
            idle: vec![],
            facts: vec![],
            facts_through: 0,
            watermark: at(0),
            confirmed: confirmed.iter().map(|(name, c)| ((*name).to_owned(), *c)).collect(),
            counted: BTreeMap::new(),
        }
    }

    #[test]
    fn d7_a_checkpoint_fits_only_sinks_that_have_what_it_lacks() {
        let w = |w: i64| {
            let point = Point::Watermark { groups: (0, 255), w: at(w), noted: BTreeMap::new() };
            Some(Progress { point, rows: 0 })
        };
        let manifest = manifest(&[("a", confirmed(true, true, at(60)))]);
        let sinks = |progress| BTreeMap::from([("a".to_owned(), progress)]);
        assert!(fits(&manifest, &sinks(w(60))));
        assert!(!fits(&manifest, &sinks(w(59))), "restored from a backup");
        assert!(!fits(&manifest, &sinks(None)), "emptied");
        assert!(fits(&manifest, &BTreeMap::new()), "no longer part of the job");
    }

    #[test]
    fn d5_the_reader_starts_at_the_lowest_position_that_is_near_and_cuts_at_the_others() {
        let entry = SplitEntry {
            split: split("a"),
            position: position(50),
            start: 0,
            totals: Totals::default(),
        };
        let lake = BTreeMap::from([(SplitId::new("a"), position(20))]);
        let topic = BTreeMap::from([(SplitId::new("a"), position(70))]);
        let plan = |near| {
            let facts = SplitFacts {
                split: split("a"),
                start: 0,
                entry: Some(&entry),
                sinks: vec![Some(&lake), Some(&topic)],
                floors: vec![],
                given_up: BTreeMap::new(),
                given_up_by: vec![],
                suspects: &[],
                end: None,
                near,
            };
            let plan = plan_split(0, facts);
            (plan.from, plan.cuts, plan.restored)
        };
        assert_eq!(plan(30), (position(20), vec![50, 70], position(50)));
        assert_eq!(plan(29), (position(50), vec![70], position(50)), "it has a reader of its own");
    }

    #[test]
    fn d10_a_split_is_complete_when_every_sink_has_it_and_its_letters() {
        let letter = GivenUpBy { letter_at: 50, ..GivenUpBy::new("users", 7, "boom", None) };
        let entry = |told| SplitEntry {
            split: split("a"),
            position: Position { told, ..position(50) },
            start: 0,
            totals: Totals::default(),
        };
        let complete = |sink: Option<Position>, letters: &[GivenUpBy], told| {
            let sink = sink.map(|at| BTreeMap::from([(SplitId::new("a"), at)]));
            let (entry, sinks) = (entry(told), vec![sink.as_ref()]);
            let facts = SplitFacts {
                split: split("a"),
                start: 0,
                entry: Some(&entry),
                sinks: sinks.clone(),
                floors: vec![],
                given_up: BTreeMap::new(),
                given_up_by: letters.to_vec(),
                suspects: &[],
                end: Some(50),
                near: 0,
            };
            is_complete(&plan_split(0, facts), &sinks)
        };
        assert!(complete(Some(position(50)), &[], 0));
        assert!(!complete(Some(position(49)), &[], 0), "far behind, with a reader of its own");
        assert!(!complete(None, &[], 0), "it has nothing");
        let told = Some(Position { told: 1, ..position(50) });
        assert!(complete(told, std::slice::from_ref(&letter), 1));
        assert!(
            !complete(Some(position(50)), std::slice::from_ref(&letter), 1),
            "it lacks the letter"
        );
        assert!(!complete(told, &[letter], 0), "the state is before the letter");
    }

    #[test]
    fn d1_facts_are_read_in_order() {
        let id = SplitId::new("a");
        let facts = [
            Fact::Split { split: split("a"), start: 7 },
            Fact::Idle { split: id.clone(), at: 8 },
            Fact::Floor { split: id.clone(), from: 9, floor: at(5) },
            Fact::Idle { split: id.clone(), at: 10 },
            Fact::End { split: id.clone(), end: 11 },
        ];
        let read = Facts::of(&facts);
        assert_eq!(read.idle[&id], 10);
        assert_eq!(read.floors[&id], [(9, at(5))]);
        assert_eq!(read.ends[&id], 11);
        let kept = still_needed(&facts);
        assert_eq!(kept.len(), 4, "the first idleness was ended by a floor");
        assert_eq!(Facts::of(&kept), read);
    }

    /// A crash may come after any fact: what is durable by then must not open closed windows again.
    #[test]
    fn d10_a_job_counts_as_reopened_when_its_floors_are_durable() {
        let splits = [(SplitId::new("a"), 3, Some(5)), (SplitId::new("b"), 4, None)];
        let closed = Fact::Closed { c: at(60) };
        let ends = [Fact::End { split: SplitId::new("a"), end: 3 }, Fact::EndReached];
        let before: Vec<Fact> = ends.into_iter().chain([closed]).collect();
        let facts = reopening(at(60), &splits);
        for n in 0..=facts.len() {
            let all: Vec<Fact> = before.iter().chain(&facts[..n]).cloned().collect();
            let known = Facts::of(&all);
            let has_floors = known.floors.len() == 2;
            assert!(known.closed.is_some() || has_floors, "after {n} facts");
            let new_end = known.ends.get(&SplitId::new("a")) == Some(&5);
            assert!(known.closed.is_none() || !new_end, "after {n} facts");
        }
        assert_eq!(facts.len(), 4);
    }
}
