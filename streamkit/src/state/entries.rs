//! The state of one operator as a restart finds it: a base, and what increments have changed since.

use std::collections::HashMap;

use super::KeyGroup;
use super::changes::{Change, Changes};

/// The state of one operator, all groups.
///
/// Nothing is put in order before it is asked for: each worker takes what is in its groups out of the
/// bytes that were read, all at the same time, and what it costs to find out which entries increments
/// have replaced is shared among them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Entries {
    base: Vec<Changes>,
    later: Vec<Changes>,
}

/// Group, key and value.
type Entry<'a> = (KeyGroup, &'a [u8], &'a [u8]);

impl Entries {
    /// Adds a part of the base, which names each of its entries once. It begins with nothing, so what
    /// it deletes means nothing.
    pub(crate) fn add_base(&mut self, changes: Changes) {
        self.base.push(changes);
    }

    /// Adds what changed after everything that was added before.
    pub(crate) fn add_later(&mut self, changes: Changes) {
        self.later.push(changes);
    }

    /// All entries, as the changes that make them out of nothing.
    pub(crate) fn puts(&self) -> Changes {
        let entries = self.reader((KeyGroup::MIN, KeyGroup::MAX)).iter();
        entries.map(|(group, key, value)| Change::Put { group, key, value }).collect()
    }

    /// How many entries there are, and the bytes of their keys and values.
    pub(crate) fn size(&self) -> (u64, u64) {
        let entries = self.reader((KeyGroup::MIN, KeyGroup::MAX)).iter();
        entries.fold((0, 0), |(n, bytes), (_, key, value)| {
            (n + 1, bytes + key.len() as u64 + value.len() as u64)
        })
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
    /// Each entry once, in the order in which they were written.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (first, last) = self.groups;
        let later = Later::of(&self.entries.later, self.groups);
        let puts = later.puts();
        let is_old = !self.entries.later.is_empty();
        let base = self.entries.base.iter().flat_map(Changes::iter);
        let base = base.filter_map(move |change| match change {
            Change::Put { group, key, value } if (first..=last).contains(&group) => {
                let replaced = is_old && later.has_changed(group, key);
                (!replaced).then_some((group, key, value))
            }
            _ => None,
        });
        base.chain(puts)
    }
}

/// What increments have changed in some groups.
#[derive(Default)]
struct Later<'a> {
    /// The place in `changes` of the last change of each entry.
    last: HashMap<(KeyGroup, &'a [u8]), usize>,
    /// What the entry is now, if it is not gone; and how many prefixes had been deleted before.
    changes: Vec<(Option<Entry<'a>>, usize)>,
    /// Prefixes that were deleted, by their length: they have one or two different ones.
    prefixes: Vec<(usize, HashMap<&'a [u8], Deleted>)>,
    deleted: usize,
}

/// When a prefix was deleted, by the number of deletions before, and in which groups.
type Deleted = Vec<(usize, (KeyGroup, KeyGroup))>;

impl<'a> Later<'a> {
    fn of(parts: &'a [Changes], (first, last): (KeyGroup, KeyGroup)) -> Self {
        let mut later = Self::default();
        for change in parts.iter().flat_map(Changes::iter) {
            match change {
                Change::Put { group, key, value } if (first..=last).contains(&group) => {
                    later.set(group, key, Some((group, key, value)));
                }
                Change::Delete { group, key } if (first..=last).contains(&group) => {
                    later.set(group, key, None);
                }
                Change::DeletePrefix { groups, prefix } => later.delete_prefix(groups, prefix),
                Change::Put { .. } | Change::Delete { .. } => {}
            }
        }
        later
    }

    fn set(&mut self, group: KeyGroup, key: &'a [u8], entry: Option<Entry<'a>>) {
        if let Some(before) = self.last.insert((group, key), self.changes.len()) {
            self.changes[before].0 = None;
        }
        self.changes.push((entry, self.deleted));
    }

    fn delete_prefix(&mut self, groups: (KeyGroup, KeyGroup), prefix: &'a [u8]) {
        let at = self.prefixes.iter().position(|(length, _)| *length == prefix.len());
        let at = at.unwrap_or_else(|| {
            self.prefixes.push((prefix.len(), HashMap::new()));
            self.prefixes.len() - 1
        });
        self.prefixes[at].1.entry(prefix).or_default().push((self.deleted, groups));
        self.deleted += 1;
    }

    /// Whether an entry was deleted by its prefix, after so many other deletions.
    fn is_deleted(&self, group: KeyGroup, key: &[u8], since: usize) -> bool {
        self.prefixes.iter().any(|(length, of_length)| {
            let deleted = key.get(..*length).and_then(|prefix| of_length.get(prefix));
            deleted.is_some_and(|deleted| {
                let mut deleted = deleted.iter().rev().take_while(|(at, _)| *at >= since);
                deleted.any(|(_, (first, last))| (*first..=*last).contains(&group))
            })
        })
    }

    /// Whether an entry of the base is gone, or another one.
    fn has_changed(&self, group: KeyGroup, key: &[u8]) -> bool {
        self.is_deleted(group, key, 0) || self.last.contains_key(&(group, key))
    }

    /// The entries that increments have put and that are there, in order.
    fn puts(&self) -> Vec<Entry<'a>> {
        let is_there = |(entry, since): &(Option<Entry<'a>>, usize)| {
            entry.filter(|(group, key, _)| !self.is_deleted(*group, key, *since))
        };
        self.changes.iter().filter_map(is_there).collect()
    }
}

/// For tests: two that hold the same are equal, however they came about.
#[cfg(test)]
impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |entries: &Self| {
            let owned = |(group, key, value): Entry<'_>| (group, key.to_vec(), value.to_vec());
            let mut all: Vec<_> = entries.reader((0, 255)).iter().map(owned).collect();
            all.sort_unstable();
            all
        };
        sorted(self) == sorted(other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn increments_apply_in_order_and_prefixes_stay_within_their_groups() {
        let put = |group, key| Change::Put { group, key, value: &[1] };
        let keys: [(u8, &'static [u8]); 5] =
            [(1, b"a1"), (1, b"a2"), (1, b"b"), (2, b"a3"), (9, b"a4")];
        let mut entries = Entries::default();
        entries.add_base(keys[..2].iter().map(|(group, key)| put(*group, key)).collect());
        let later = keys[2..].iter().map(|(group, key)| put(*group, key));
        let gone = [
            Change::DeletePrefix { groups: (0, 5), prefix: b"a" },
            Change::Delete { group: 9, key: b"zz" },
            put(4, b"a5"),
        ];
        entries.add_later(later.chain(gone).collect());
        let keys = |first, last| -> Vec<Vec<u8>> {
            entries.reader((first, last)).iter().map(|(_, key, _)| key.to_vec()).collect()
        };
        assert_eq!(keys(0, 255), [b"b".to_vec(), b"a4".to_vec(), b"a5".to_vec()]);
        assert_eq!(keys(2, 9), [b"a4".to_vec(), b"a5".to_vec()]);
        assert_eq!(entries.size(), (3, 8));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, Vec<u8>, u8),
        Delete(u8, Vec<u8>),
        DeletePrefix(u8, u8, Vec<u8>),
    }

    impl Step {
        fn change(&self) -> Change<'_> {
            match self {
                Self::Put(group, key, value) => {
                    Change::Put { group: *group, key, value: std::slice::from_ref(value) }
                }
                Self::Delete(group, key) => Change::Delete { group: *group, key },
                Self::DeletePrefix(first, last, prefix) => {
                    Change::DeletePrefix { groups: (*first, *last), prefix }
                }
            }
        }
    }

    /// Groups and keys of a small world, so that changes meet.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || proptest::collection::vec(0u8..3, 0..4);
        let step = prop_oneof![
            (0u8..4, key(), any::<u8>()).prop_map(|(group, key, v)| Step::Put(group, key, v)),
            (0u8..4, key()).prop_map(|(group, key)| Step::Delete(group, key)),
            (0u8..4, 0u8..4, key())
                .prop_map(|(first, last, prefix)| Step::DeletePrefix(first, last, prefix)),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// A base at any moment and increments of any length after it are the same as a plain map, in
        /// which every entry is looked at.
        #[test]
        fn a_base_and_its_increments_are_the_state(
            steps in steps(), at in 0usize..60, length in 1usize..20,
        ) {
            let at = at.min(steps.len());
            let mut plain: BTreeMap<(u8, Vec<u8>), Vec<u8>> = BTreeMap::new();
            let mut all = Entries::default();
            let mut parts = Entries::default();
            for (i, step) in steps.iter().enumerate() {
                if i == at {
                    parts.add_base(all.puts());
                }
                all.add_later([step.change()].into_iter().collect());
                match step.clone() {
                    Step::Put(group, key, value) => drop(plain.insert((group, key), vec![value])),
                    Step::Delete(group, key) => drop(plain.remove(&(group, key))),
                    Step::DeletePrefix(first, last, prefix) => plain.retain(|(group, key), _| {
                        !(first..=last).contains(group) || !key.starts_with(&prefix)
                    }),
                }
            }
            for part in steps[at..].chunks(length) {
                parts.add_later(part.iter().map(Step::change).collect());
            }
            if at < steps.len() {
                prop_assert_eq!(&parts, &all);
            }
            let entries = all.reader((0, 255)).iter();
            let entries = entries.map(|(group, key, value)| ((group, key.to_vec()), value.to_vec()));
            let mut entries: Vec<_> = entries.collect();
            entries.sort_unstable();
            prop_assert_eq!(entries, plain.into_iter().collect::<Vec<_>>());
        }
    }
}
