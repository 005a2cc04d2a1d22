//! Which dead letters of a partition have been sent back: ranges of offsets.

use serde::{Deserialize, Serialize};

/// More ranges than this would make a record that the brokers refuse.
pub(super) const MOST: usize = 20_000;

/// Offsets, as ranges from first to last, apart from each other and ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ranges(Vec<(u64, u64)>);

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
