//! A growable set of small numbers: slots that are dirty, present, alive.

/// A bit for each slot.
#[derive(Debug, Default, Clone)]
pub(crate) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// Adds `slot`; true if it was not in the set.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        if word >= self.words.len() {
            self.words.resize((word + 1).max(self.words.len() * 2), 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(word) = self.words.get_mut(slot as usize / 64) {
            *word &= !(1u64 << (slot % 64));
        }
    }

    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word & (1u64 << (slot % 64)) != 0)
    }

    pub(crate) fn clear(&mut self) {
        self.words.iter_mut().for_each(|word| *word = 0);
    }

    /// The first member that is not below `from`.
    pub(crate) fn next(&self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        let mut skipped = u64::MAX << (from % 64);
        for (i, word) in self.words.iter().enumerate().skip(first) {
            let rest = word & std::mem::replace(&mut skipped, u64::MAX);
            if rest != 0 {
                return u32::try_from(i * 64).ok().map(|base| base + rest.trailing_zeros());
            }
        }
        None
    }

    /// The members, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                u32::try_from(i * 64).ok().map(|base| base + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted() {
        let mut set = BitSet::default();
        assert!(set.insert(3) && set.insert(200) && !set.insert(3));
        assert!(set.contains(200) && !set.contains(4) && !set.contains(100_000));
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 200]);
        assert_eq!(
            [0, 3, 4, 200, 201, 9_999].map(|from| set.next(from)),
            [Some(3), Some(3), Some(200), Some(200), None, None]
        );
        set.remove(3);
        assert_eq!(set.iter().collect::<Vec<_>>(), [200]);
        set.clear();
        assert_eq!(set.iter().count(), 0);
    }
}
