//! What an operator puts into a checkpoint, and gets back from it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::KeyGroup;
use crate::error::{Error, Result};

/// What a checkpoint asks of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Everything: a base.
    Beginning,
    /// What changed since the last time it was asked: an increment.
    Last,
}

/// One change of the state of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The entry is now this.
    Put { group: KeyGroup, key: Vec<u8>, value: Vec<u8> },
    /// The entry is gone.
    Delete { group: KeyGroup, key: Vec<u8> },
    /// All entries whose key starts with this are gone, in every group of the worker.
    DeletePrefix { groups: (KeyGroup, KeyGroup), prefix: Vec<u8> },
}

/// The changes of one operator on one worker, in order.
#[derive(Debug)]
pub(crate) struct StateWriter {
    groups: (KeyGroup, KeyGroup),
    changes: Vec<Change>,
    scratch: Vec<u8>,
}

impl StateWriter {
    /// A writer for a worker that owns the groups from the first to the last.
    pub(crate) fn new(groups: (KeyGroup, KeyGroup)) -> Self {
        Self { groups, changes: vec![], scratch: vec![] }
    }

    pub(crate) fn put(
        &mut self,
        group: KeyGroup,
        key: &[&[u8]],
        value: &impl Serialize,
    ) -> Result<()> {
        self.scratch.clear();
        encode(value, &mut self.scratch)?;
        self.changes.push(Change::Put { group, key: key.concat(), value: self.scratch.clone() });
        Ok(())
    }

    /// The same entry in each group: for what belongs to the worker and not to a key.
    pub(crate) fn put_in_every_group(&mut self, key: &[u8], value: &impl Serialize) -> Result<()> {
        for group in self.groups.0..=self.groups.1 {
            self.put(group, &[key], value)?;
        }
        Ok(())
    }

    pub(crate) fn delete(&mut self, group: KeyGroup, key: &[&[u8]]) {
        self.changes.push(Change::Delete { group, key: key.concat() });
    }

    pub(crate) fn delete_prefix(&mut self, prefix: &[u8]) {
        let change = Change::DeletePrefix { groups: self.groups, prefix: prefix.to_vec() };
        self.changes.push(change);
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

/// The state of one operator, all groups: a base with the increments applied.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Entries {
    map: BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>,
}

impl Entries {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { group, key, value } => {
                self.map.insert((group, key), value);
            }
            Change::Delete { group, key } => {
                self.map.remove(&(group, key));
            }
            Change::DeletePrefix { groups: (first, last), prefix } => {
                for group in first..=last {
                    let doomed: Vec<_> = self
                        .map
                        .range((group, prefix.clone())..)
                        .take_while(|((g, key), _)| *g == group && key.starts_with(&prefix))
                        .map(|(at, _)| at.clone())
                        .collect();
                    for at in doomed {
                        self.map.remove(&at);
                    }
                }
            }
        }
    }

    /// All entries, as the changes that make them out of nothing.
    pub(crate) fn puts(&self) -> Vec<Change> {
        let put = |((group, key), value): (&(KeyGroup, Vec<u8>), &Vec<u8>)| Change::Put {
            group: *group,
            key: key.clone(),
            value: value.clone(),
        };
        self.map.iter().map(put).collect()
    }

    /// How many entries there are, and the bytes of their keys and values.
    pub(crate) fn size(&self) -> (u64, u64) {
        let bytes = |((_, key), value): (&(KeyGroup, Vec<u8>), &Vec<u8>)| key.len() + value.len();
        (self.map.len() as u64, self.map.iter().map(bytes).sum::<usize>() as u64)
    }

    /// The entries of the groups from the first to the last.
    pub(crate) fn reader(&self, groups: (KeyGroup, KeyGroup)) -> StateReader<'_> {
        StateReader { entries: self, groups }
    }
}

/// What a worker reads of an operator's state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateReader<'a> {
    entries: &'a Entries,
    groups: (KeyGroup, KeyGroup),
}

impl<'a> StateReader<'a> {
    /// Group, key and value of each entry.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyGroup, &'a [u8], &'a [u8])> {
        self.entries
            .map
            .range((self.groups.0, vec![])..)
            .take_while(move |((group, _), _)| *group <= self.groups.1)
            .map(|((group, key), value)| (*group, key.as_slice(), value.as_slice()))
    }
}

/// The one encoding of state: postcard.
pub(crate) fn encode(value: &impl Serialize, into: &mut Vec<u8>) -> Result<()> {
    let bytes = std::mem::take(into);
    match postcard::to_extend(value, bytes) {
        Ok(bytes) => {
            *into = bytes;
            Ok(())
        }
        Err(e) => Err(Error::user("a value of the state cannot be encoded").because(e)),
    }
}

/// The inverse of [`encode`].
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::corrupt(
            "stored state cannot be decoded; was the type of an accumulator changed without a new name?",
        )
        .because(e)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn increments_apply_in_order_and_prefixes_stay_within_their_groups() {
        let mut entries = Entries::default();
        let put = |group, key: &[u8]| Change::Put { group, key: key.to_vec(), value: vec![1] };
        for change in [put(1, b"a1"), put(1, b"a2"), put(1, b"b"), put(2, b"a3"), put(9, b"a4")] {
            entries.apply(change);
        }
        entries.apply(Change::DeletePrefix { groups: (0, 5), prefix: b"a".to_vec() });
        entries.apply(Change::Delete { group: 9, key: b"zz".to_vec() });
        let keys = |first, last| -> Vec<Vec<u8>> {
            entries.reader((first, last)).iter().map(|(_, key, _)| key.to_vec()).collect()
        };
        assert_eq!(keys(0, 255), [b"b".to_vec(), b"a4".to_vec()]);
        assert_eq!(keys(2, 9), [b"a4".to_vec()]);
    }

    /// Groups and keys of a small world, so that changes meet.
    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let key = || proptest::collection::vec(0u8..3, 0..4);
        let change = prop_oneof![
            (0u8..4, key(), any::<u8>()).prop_map(|(group, key, v)| Change::Put {
                group,
                key,
                value: vec![v]
            }),
            (0u8..4, key()).prop_map(|(group, key)| Change::Delete { group, key }),
            (0u8..4, 0u8..4, key())
                .prop_map(|(a, b, prefix)| Change::DeletePrefix { groups: (a, b), prefix }),
        ];
        proptest::collection::vec(change, 0..60)
    }

    proptest! {
        /// A base at any moment and the increments after it are the same as all changes, and as a
        /// plain map, in which every entry is looked at.
        #[test]
        fn a_base_and_its_increments_are_the_state(changes in changes(), at in 0usize..60) {
            let mut plain: BTreeMap<(u8, Vec<u8>), Vec<u8>> = BTreeMap::new();
            let mut all = Entries::default();
            let mut base = Entries::default();
            for (i, change) in changes.iter().enumerate() {
                if i == at {
                    for (group, key, value) in all.reader((0, 255)).iter() {
                        let (key, value) = (key.to_vec(), value.to_vec());
                        base.apply(Change::Put { group, key, value });
                    }
                }
                all.apply(change.clone());
                if i >= at {
                    base.apply(change.clone());
                }
                match change.clone() {
                    Change::Put { group, key, value } => drop(plain.insert((group, key), value)),
                    Change::Delete { group, key } => drop(plain.remove(&(group, key))),
                    Change::DeletePrefix { groups: (a, b), prefix } => {
                        plain.retain(|(g, key), _| *g < a || *g > b || !key.starts_with(&prefix));
                    }
                }
            }
            if at < changes.len() {
                prop_assert_eq!(&base, &all);
            }
            prop_assert_eq!(all.map, plain);
        }
    }
}
