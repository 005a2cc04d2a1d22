//! Records behind an exchange that an operator has failed on (fault F85). The first failure puts all
//! records of a batch under suspicion; the next start cuts them apart, so that the next failure names
//! the one, which the operator gives up then. Pure functions.

use std::collections::BTreeMap;

use crate::checkpoint::{Fact, SplitEntry};
use crate::record::SplitId;
use crate::task::{GivenUpBy, GivenUpFor};

/// Where a split must be cut, beyond `from`: a record that may be to blame, or is, never shares a
/// batch; and a letter comes at one position, whoever reads.
pub(crate) fn cuts(from: u64, suspects: &[(u64, u64)], given_up_by: &[GivenUpBy]) -> Vec<u64> {
    let one_by_one = suspects.iter().flat_map(|&(first, next)| first.max(from)..=next);
    let alone = given_up_by.iter().flat_map(|by| [by.at, by.at.saturating_add(1), by.letter_at]);
    one_by_one.chain(alone).filter(|at| *at > from).collect()
}

/// Where the letter about a record that is given up comes. No sink has had anything of the split from
/// there on, neither from its own reader, which is at `read`, nor before a restart that has that read
/// again (`sent`); and a split's letters come in the order in which they were decided.
pub(crate) fn letter_at(
    read: Option<u64>,
    sent: impl Iterator<Item = u64>,
    before: &[GivenUpBy],
) -> u64 {
    let letters = before.iter().map(|by| by.letter_at);
    read.into_iter().chain(sent).chain(letters).max().unwrap_or(0)
}

/// The facts without the suspicions that have not come true: the checkpoint has these records.
pub(crate) fn without_cleared(mut facts: Vec<Fact>, checkpoint: &[SplitEntry]) -> Vec<Fact> {
    let reached: BTreeMap<&SplitId, u64> =
        checkpoint.iter().map(|entry| (&entry.split.id, entry.position.next)).collect();
    facts.retain(|fact| match fact {
        Fact::Suspect { split, next, .. } => reached.get(split).is_none_or(|at| at < next),
        _ => true,
    });
    facts
}

/// What each operator has given up, by the indices of the splits.
pub(crate) fn by_operator<'a>(splits: impl Iterator<Item = (u32, &'a [GivenUpBy])>) -> GivenUpFor {
    let mut all = GivenUpFor::new();
    for (split, given_up_by) in splits {
        for by in given_up_by {
            all.entry(by.operator.clone()).or_default().insert((split, by.at));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Totals;
    use crate::record::{Position, Split};
    use crate::runtime::recovery::{SplitFacts, plan_split, sink_position};

    fn by(operator: &str, at: u64, letter_at: u64) -> GivenUpBy {
        GivenUpBy { operator: operator.into(), at, error: "boom".into(), letter_at }
    }

    #[test]
    fn f85_suspects_are_cut_apart_and_what_is_given_up_is_alone() {
        assert_eq!(cuts(0, &[(3, 6)], &[]), [3, 4, 5, 6]);
        assert_eq!(cuts(4, &[(3, 6)], &[]), [5, 6]);
        assert_eq!(cuts(0, &[], &[by("users", 7, 20)]), [7, 8, 20]);
        assert_eq!(cuts(9, &[(3, 6)], &[by("users", 7, 20)]), [20]);
        assert_eq!(cuts(20, &[(3, 6)], &[by("users", 7, 20)]), [0; 0]);
    }

    #[test]
    fn f85_a_letter_comes_where_nobody_has_been() {
        let before = [by("users", 3, 12), by("users", 5, 10)];
        let at = |read, sent: &[u64], before| letter_at(read, sent.iter().copied(), before);
        assert_eq!(at(Some(7), &[5, 3], &[]), 7, "every sink is left out and caught up with");
        assert_eq!(at(Some(4), &[2, 9], &[]), 9, "a sink had more before a restart");
        assert_eq!(at(Some(4), &[9], &before), 12);
        assert_eq!(at(None, &[], &[]), 0);
    }

    #[test]
    fn f85_a_suspicion_is_dropped_when_a_checkpoint_has_the_records() {
        let suspect = Fact::Suspect { split: SplitId::new("t/0"), first: 3, next: 6 };
        let facts = vec![suspect, Fact::EndReached];
        let left = |split: &str, next| {
            let position = Position { next, ..Position::default() };
            let (split, totals) = (Split::new(split, "t", 0), Totals::default());
            let entry = SplitEntry { split, position, start: 0, totals };
            without_cleared(facts.clone(), &[entry]).len()
        };
        assert_eq!((left("t/0", 5), left("t/0", 6), left("t/1", 6)), (2, 1, 2));
        assert_eq!(without_cleared(facts.clone(), &[]), facts);
    }

    /// A sink that lacks a letter only is behind one that has it, and a lost log knows of none.
    #[test]
    fn f85_a_reader_starts_at_the_lowest_place_where_letters_count() {
        let id = SplitId::new("t/0");
        let sink = |told| {
            BTreeMap::from([(id.clone(), Position { next: 20, told, ..Position::default() })])
        };
        let sinks = [sink(2), sink(1)];
        let plan = |given_up_by| {
            let facts = SplitFacts {
                split: Split::new("t/0", "t", 0),
                start: 20,
                entry: None,
                sinks: sinks.iter().map(Some).collect(),
                floors: vec![],
                given_up: BTreeMap::new(),
                given_up_by,
                suspects: &[(20, 22)],
                end: None,
                near: 100,
            };
            plan_split(0, facts)
        };
        let with = plan(vec![by("a", 7, 20), by("a", 8, 20)]);
        assert_eq!((with.from.place(), with.cuts), ((20, 0), vec![21, 22]));
        let at = |letters| sink_position(&id, 0, letters, Some(&sinks[0])).place();
        assert_eq!((at(0), at(1), at(2), at(3)), ((20, 0), (20, 1), (20, 2), (20, 2)));
    }

    #[test]
    fn f85_an_operator_knows_what_it_has_given_up() {
        let (first, second) = ([by("a", 7, 9), by("b", 7, 9)], [by("a", 1, 2)]);
        let all = by_operator([(0, &first[..]), (3, &second[..])].into_iter());
        assert_eq!(all["a"].iter().collect::<Vec<_>>(), [&(0, 7), &(3, 1)]);
        assert_eq!(all["b"].iter().collect::<Vec<_>>(), [&(0, 7)]);
    }
}
