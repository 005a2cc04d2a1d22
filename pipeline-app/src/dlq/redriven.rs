//! Which dead letters of a partition have been sent back: ranges of offsets.

use serde::{Deserialize, Serialize};

/// More ranges than this would make a record that the brokers refuse.
pub(super) const MOST: usize = 20_000;

/// Offsets, as ranges from first to last, apart from each other and ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>")]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = &'static str;

    fn try_from(ranges: Vec<(u64, u64)>) -> Result<Self, Self::Error> {
        let apart = |pair: &[(u64, u64)]| pair[0].1 < pair[1].0 && pair[1].0 - pair[0].1 > 1;
        match ranges.iter().all(|(first, last)| first <= last) && ranges.windows(2).all(apart) {
            true => Ok(Self(ranges)),
            false => Err("ranges of offsets that are not in order"),
        }
    }
}

/// What was sent back from a partition of the dead letters' topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// The topic's id; empty where the cluster has none.
    pub(super) topic_id: String,
    pub(super) offsets: Ranges,
}

impl Ranges {
    pub(super) fn contains(&self, offset: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < offset);
        self.0.get(at).is_some_and(|(first, _)| *first <= offset)
    }

    pub(super) fn insert(&mut self, offset: u64) {
        if self.contains(offset) {
            return;
        }
        let at = self.0.partition_point(|(_, last)| *last < offset);
        let joins_before = at > 0 && self.0[at - 1].1 + 1 == offset;
        let joins_after = self.0.get(at).is_some_and(|(first, _)| offset + 1 == *first);
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = offset,
            (false, true) => self.0[at].0 = offset,
            (false, false) => self.0.insert(at, (offset, offset)),
        }
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fuzz_redriven() {
        let corpus = ["[]", "[[0,3],[5,5],[18446744073709551614,18446744073709551615]]"];
        let corpus = corpus.map(|text| text.as_bytes().to_vec());
        streamkit::testing::fuzz("redriven", &corpus, |bytes| {
            let Ok(mut ranges) = serde_json::from_slice::<Ranges>(bytes) else { return };
            for offset in [0, 4, 5, u64::MAX - 2, u64::MAX] {
                ranges.insert(offset);
                assert!(ranges.contains(offset));
            }
            let apart = |pair: &[(u64, u64)]| pair[0].1 < pair[1].0 - 1;
            assert!(ranges.0.windows(2).all(apart) && ranges.0.iter().all(|(a, b)| a <= b));
            let text = serde_json::to_vec(&ranges).unwrap();
            assert_eq!(serde_json::from_slice::<Ranges>(&text).unwrap(), ranges);
        });
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(offsets in proptest::collection::vec(0u64..40, 0..60)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for offset in offsets {
                ranges.insert(offset);
                set.insert(offset);
            }
            for offset in 0..42 {
                prop_assert_eq!(ranges.contains(offset), set.contains(&offset));
            }
            prop_assert_eq!(ranges.last(), set.last().copied());
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
            let text = serde_json::to_string(&ranges).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), ranges);
        }
    }
}
