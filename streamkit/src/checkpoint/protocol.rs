//! The decisions of the checkpoint log: facts in, decision out, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::manifest::Manifest;
use crate::time::{Timestamp, hours};

/// So many of the newest checkpoints are kept, however old.
const NEWEST_KEPT: usize = 10;
/// Of those of this time, the first of every hour is kept (rule D7).
const KEPT_FOR: Duration = hours(24);
const THINNED_TO: Duration = hours(1);
/// A base is due after this many increments, however small.
const MOST_INCREMENTS: u64 = 20;

/// The numbers of the objects in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Number and bytes.
    pub(crate) checkpoints: BTreeMap<u64, u64>,
    pub(crate) facts: BTreeSet<u64>,
}

/// The newest objects that this process knows of: read at recovery, or written by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) checkpoint: Option<u64>,
    /// 0 if there was no fact yet.
    pub(crate) fact: u64,
}

/// An object, by kind and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Checkpoint(u64),
    Fact(u64),
}

/// The number of the checkpoint after this one. The first is 0.
pub(crate) fn next_number(newest: Option<u64>) -> u64 {
    newest.map_or(0, |number| number.saturating_add(1))
}

/// Whether another process writes to the log: an object that is newer than ours.
///
/// Asked after every put. A process that was stopped for long may find a number free because the
/// object was collected meanwhile; its put succeeds, and this finds out. A fact counts too: this
/// process did not know of it, and may have decided otherwise.
pub(crate) fn is_fenced(listing: &Listing, ours: &Ours) -> Option<Object> {
    let checkpoint = listing.checkpoints.last_key_value().map(|(&number, _)| number);
    let fact = listing.facts.last().copied();
    match (checkpoint, fact) {
        (newest, _) if newest > ours.checkpoint => newest.map(Object::Checkpoint),
        (_, Some(newest)) if newest > ours.fact => Some(Object::Fact(newest)),
        _ => None,
    }
}

/// A base, and the increments on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) base: u64,
    pub(crate) base_bytes: u64,
    pub(crate) increments: u64,
    pub(crate) increment_bytes: u64,
}

impl Chain {
    pub(crate) fn new(base: u64, base_bytes: u64) -> Self {
        Self { base, base_bytes, increments: 0, increment_bytes: 0 }
    }

    /// With one more increment.
    pub(crate) fn and(self, bytes: u64) -> Self {
        let increment_bytes = self.increment_bytes.saturating_add(bytes);
        Self { increments: self.increments.saturating_add(1), increment_bytes, ..self }
    }

    /// Whether the next checkpoint should be a base: replaying the increments would cost more than
    /// reading one, or there are too many of them.
    pub(crate) fn base_is_due(self) -> bool {
        self.increments >= MOST_INCREMENTS || self.increment_bytes > self.base_bytes
    }
}

/// Which checkpoint a job goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// There is no checkpoint: start from nothing.
    Empty,
    /// Its header is damaged. It is the newest, so falling back would take back what it decided.
    Damaged(u64),
    /// `number` cannot be restored: `missing` is not there.
    Incomplete { number: u64, missing: u64 },
    /// Take the state of this one. The facts are always those of the newest.
    Take(u64),
    /// No kept checkpoint fits what the sinks have.
    NoneFits,
}

/// Chooses the newest checkpoint that `fits` (rule D7).
///
/// `seen` has every checkpoint in the log, with `None` for a damaged header. Checkpoints of another
/// lineage than the newest's, and ones with a gap between their base and themselves, are no
/// candidates: the former belong to a job that was given up, the latter cannot be restored.
pub(crate) fn choose(
    seen: &BTreeMap<u64, Option<Manifest>>,
    fits: impl Fn(&Manifest) -> bool,
) -> Choice {
    let Some((&newest, header)) = seen.last_key_value() else { return Choice::Empty };
    let Some(header) = header else { return Choice::Damaged(newest) };
    if let Some(missing) = gap(seen, header) {
        return Choice::Incomplete { number: newest, missing };
    }
    seen.values()
        .rev()
        .flatten()
        .filter(|manifest| manifest.lineage == header.lineage && gap(seen, manifest).is_none())
        .find(|manifest| fits(manifest))
        .map_or(Choice::NoneFits, |manifest| Choice::Take(manifest.number))
}

/// The first number that is missing between a checkpoint's base and itself.
fn gap<T>(seen: &BTreeMap<u64, T>, manifest: &Manifest) -> Option<u64> {
    let mut there = seen.range(manifest.base..).map(|(&number, _)| number);
    (manifest.base..=manifest.number).find(|&number| there.next() != Some(number))
}

/// What retention needs to know of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) number: u64,
    pub(crate) base: u64,
    pub(crate) created: Timestamp,
    pub(crate) facts_through: u64,
}

/// The checkpoints to keep:
///
/// - the newest ten;
/// - of the last 24 hours, the first of every hour, so that a sink that was restored from a backup
///   of that time finds a checkpoint at most an hour older than itself (rule D7);
/// - the newest of those that are older, for the first of these hours;
/// - whatever one of these builds on, down to its base.
///
/// Asking again later never needs one that was dropped before.
pub(crate) fn which_to_keep(all: &[Kept], now: Timestamp) -> BTreeSet<u64> {
    let mut by_number: Vec<&Kept> = all.iter().collect();
    by_number.sort_by_key(|kept| kept.number);
    let young = now.saturating_sub(KEPT_FOR);
    let mut firsts: BTreeMap<Timestamp, &Kept> = BTreeMap::new();
    let mut last_old = None;
    for &kept in &by_number {
        if kept.created < young {
            last_old = Some(kept);
        } else {
            firsts.entry(kept.created.floor_to(THINNED_TO)).or_insert(kept);
        }
    }
    let newest = by_number.iter().rev().take(NEWEST_KEPT).copied();
    newest
        .chain(firsts.into_values())
        .chain(last_old)
        .flat_map(|kept| kept.base..=kept.number)
        .collect()
}

/// The fact objects that can go: contained in each of the newest ten checkpoints. (The newest alone
/// would do, unless a person has to remove it because its disk damaged it.)
pub(crate) fn facts_to_drop(all: &[Kept], facts: &BTreeSet<u64>) -> Vec<u64> {
    let mut by_number: Vec<&Kept> = all.iter().collect();
    by_number.sort_by_key(|kept| kept.number);
    let newest = by_number.iter().rev().take(NEWEST_KEPT);
    let through = newest.map(|kept| kept.facts_through).min().unwrap_or(0);
    facts.range(..=through).copied().collect()
}

/// What became of an object whose put failed for another reason than that its name was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailedPut {
    /// It is not there: the same put can be tried again.
    TryAgain,
    /// It is there, but perhaps not durable: recovery must decide, this process cannot go on.
    Unknown,
    /// Another process was faster.
    Fenced,
}

/// `found`: whether the name is taken now, and then whether by our bytes. `None`: that cannot be
/// found out.
pub(crate) fn after_failed_put(found: Option<Option<bool>>) -> AfterFailedPut {
    match found {
        Some(None) => AfterFailedPut::TryAgain,
        Some(Some(false)) => AfterFailedPut::Fenced,
        Some(Some(true)) | None => AfterFailedPut::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::minutes;

    fn manifest(number: u64, base: u64, lineage: &str) -> Manifest {
        Manifest {
            format: super::super::FORMAT,
            job: "job".into(),
            lineage: lineage.into(),
            number,
            base,
            created: Timestamp::from_micros(0),
            plan: vec![],
            splits: vec![],
            idle: vec![],
            facts: vec![],
            facts_through: 0,
            watermark: Timestamp::MIN,
            confirmed: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    /// Number and base; base 99 for a damaged header.
    fn log(checkpoints: &[(u64, u64)]) -> BTreeMap<u64, Option<Manifest>> {
        let one = |&(n, base): &(u64, u64)| (n, (base != 99).then(|| manifest(n, base, "a")));
        checkpoints.iter().map(one).collect()
    }

    #[test]
    fn d7_the_newest_that_fits_is_taken_and_a_damaged_newest_is_never_passed_over() {
        assert_eq!(choose(&log(&[]), |_| true), Choice::Empty);
        let three = log(&[(0, 0), (1, 0), (2, 0)]);
        assert_eq!(choose(&three, |_| true), Choice::Take(2));
        assert_eq!(choose(&three, |m| m.number < 2), Choice::Take(1));
        assert_eq!(choose(&three, |_| false), Choice::NoneFits);
        assert_eq!(choose(&log(&[(0, 0), (1, 99)]), |_| true), Choice::Damaged(1));
        let middle = log(&[(0, 0), (1, 99), (2, 2)]);
        assert_eq!(choose(&middle, |_| true), Choice::Take(2), "an old one does no harm");
    }

    #[test]
    fn d7_what_cannot_be_restored_is_no_candidate() {
        let newest = log(&[(3, 3), (5, 3)]);
        assert_eq!(choose(&newest, |_| true), Choice::Incomplete { number: 5, missing: 4 });
        let older = log(&[(1, 1), (3, 1), (6, 6)]);
        assert_eq!(choose(&older, |m| m.number < 6), Choice::Take(1));
    }

    #[test]
    fn d6_a_lineage_that_was_given_up_is_no_candidate() {
        let mut seen = log(&[(0, 0), (1, 0)]);
        seen.insert(2, Some(manifest(2, 2, "b")));
        assert_eq!(choose(&seen, |_| true), Choice::Take(2));
        assert_eq!(choose(&seen, |m| m.number < 2), Choice::NoneFits);
    }

    #[test]
    fn d8_anything_newer_than_ours_is_another_process() {
        let ours = Ours { checkpoint: Some(7), fact: 12 };
        let listing = |checkpoints: &[u64], facts: &[u64]| Listing {
            checkpoints: checkpoints.iter().map(|&n| (n, 1)).collect(),
            facts: facts.iter().copied().collect(),
        };
        assert_eq!(is_fenced(&listing(&[6, 7], &[11, 12]), &ours), None);
        assert_eq!(is_fenced(&listing(&[7, 30], &[12]), &ours), Some(Object::Checkpoint(30)));
        assert_eq!(is_fenced(&listing(&[7], &[13]), &ours), Some(Object::Fact(13)));
        assert_eq!(is_fenced(&listing(&[], &[]), &ours), None);
        let first = Ours::default();
        assert_eq!(is_fenced(&listing(&[0], &[]), &first), Some(Object::Checkpoint(0)));
        assert_eq!((next_number(None), next_number(Some(7))), (0, 8));
    }

    #[test]
    fn d8_a_put_of_unknown_outcome_is_decided_by_recovery() {
        assert_eq!(after_failed_put(Some(None)), AfterFailedPut::TryAgain);
        assert_eq!(after_failed_put(Some(Some(true))), AfterFailedPut::Unknown);
        assert_eq!(after_failed_put(Some(Some(false))), AfterFailedPut::Fenced);
        assert_eq!(after_failed_put(None), AfterFailedPut::Unknown);
    }

    #[test]
    fn a_base_is_due_when_increments_outgrow_it_or_are_many() {
        let large = Chain::new(0, 100);
        assert!(!large.base_is_due() && !large.and(60).and(40).base_is_due());
        assert!(large.and(60).and(41).base_is_due());
        let mut many = Chain::new(0, 1_000);
        (0..19).for_each(|_| many = many.and(1));
        assert!(!many.base_is_due() && many.and(1).base_is_due());
    }

    fn kept(number: u64, base: u64, minute: u64) -> Kept {
        let created = Timestamp::from_micros(0).saturating_add(minutes(minute));
        Kept { number, base, created, facts_through: number }
    }

    #[test]
    fn d7_a_day_is_kept_hour_by_hour() {
        // One every ten minutes for three days, a base every four.
        let all: Vec<Kept> = (0..432).map(|n| kept(n, n / 4 * 4, n * 10)).collect();
        let keep = which_to_keep(&all, all[431].created);
        assert!((422..=431).all(|n| keep.contains(&n)), "the newest ten");
        // The day began at minute 2,870 (number 287), a moment before an hour (number 288).
        assert!((287..=431).all(|n| n % 6 != 0 || keep.contains(&n)), "the first of every hour");
        assert_eq!(keep.first(), Some(&284), "the base of 286, the last one before");
        assert!(!keep.contains(&290) && keep.len() < 75, "{keep:?}");
        assert_eq!(which_to_keep(&[], Timestamp::MIN), BTreeSet::new());
    }

    #[test]
    fn facts_stay_while_one_of_the_newest_ten_checkpoints_may_need_them() {
        let all: Vec<Kept> = (0..30).map(|n| kept(n, n, n)).collect();
        let facts: BTreeSet<u64> = (1..=31).collect();
        assert_eq!(facts_to_drop(&all, &facts), (1..=20).collect::<Vec<_>>());
        assert_eq!(facts_to_drop(&[], &facts), [0u64; 0]);
    }

    proptest! {
        #[test]
        fn d7_nothing_that_is_kept_needs_what_was_dropped(
            steps in proptest::collection::vec((0u64..200, any::<bool>(), any::<bool>()), 1..120)
        ) {
            let (mut there, mut minute, mut base) = (vec![], 0, 0);
            for (number, (pause, is_base, collect)) in (0u64..).zip(steps) {
                minute += pause;
                if is_base {
                    base = number;
                }
                there.push(kept(number, base, minute));
                if collect {
                    let keep = which_to_keep(&there, kept(number, base, minute).created);
                    there.retain(|one| keep.contains(&one.number));
                }
                let numbers: BTreeSet<u64> = there.iter().map(|one| one.number).collect();
                prop_assert!(numbers.contains(&number));
                for one in &there {
                    prop_assert!((one.base..=one.number).all(|n| numbers.contains(&n)), "{one:?}");
                }
            }
        }
    }
}
