//! Key bytes → dense slot: one probe per record, done once per keyed stream and worker.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::BitSet;
use super::key_group::{KeyGroup, group_of, key_hash};
use super::prefetch::prefetch;

/// The keys of one keyed stream that one worker owns.
///
/// Slots are dense, and used again after [`sweep`](Self::sweep) has freed them. A short key lies in
/// its entry, so that a look-up touches two places: the table and the entry.
///
/// ```text
/// table     hash → slot             4 bytes a key, and one for the tag
/// entries   slot → hash, key        32 bytes; a key of more than 20 bytes is in the arena
/// ```
#[derive(Debug)]
pub(crate) struct KeyTable {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Keys that are too long for their entry.
    arena: Vec<u8>,
    /// Keys come from outside and their hash is public: this keeps an attacker from choosing keys
    /// that share a bucket.
    scramble: u64,
    /// Sweep again once there are this many keys.
    sweep_at: usize,
    /// Of a batch: the slot that each key has if its hash is not just similar.
    guesses: Vec<u32>,
}

/// A key with its hash. A long key's first bytes are those of its place in the arena.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    len: u32,
    inline: [u8; INLINE],
}

/// The longest key that lies in its entry.
const INLINE: usize = 20;
const FEWEST_TO_SWEEP: usize = 65_536;
const NO_SLOT: u32 = u32::MAX;

impl Entry {
    fn new(hash: u64, key: &[u8], arena: &mut Vec<u8>) -> Self {
        let mut entry =
            Self { hash, len: u32::try_from(key.len()).unwrap_or(u32::MAX), inline: [0; INLINE] };
        if key.len() <= INLINE {
            entry.inline[..key.len()].copy_from_slice(key);
        } else {
            entry.put_in_arena(key, arena);
        }
        entry
    }

    fn put_in_arena(&mut self, key: &[u8], arena: &mut Vec<u8>) {
        let start = arena.len() as u64;
        self.inline[..8].copy_from_slice(&start.to_le_bytes());
        arena.extend_from_slice(key);
    }

    #[inline]
    fn key<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        let len = self.len as usize;
        if len <= INLINE {
            return &self.inline[..len];
        }
        let mut start = [0; 8];
        start.copy_from_slice(&self.inline[..8]);
        let start = u64::from_le_bytes(start) as usize;
        &arena[start..start + len]
    }

    #[inline]
    fn is(&self, hash: u64, key: &[u8], arena: &[u8]) -> bool {
        self.hash == hash && same(self.key(arena), key)
    }
}

impl KeyTable {
    pub(crate) fn new() -> Self {
        Self {
            table: HashTable::new(),
            entries: vec![],
            free: vec![],
            arena: vec![],
            scramble: RandomState::new().hash_one(0u8) | 1,
            sweep_at: FEWEST_TO_SWEEP,
            guesses: vec![],
        }
    }

    /// Prepares to look up these keys: finds their entries by the hashes alone, and asks for them.
    pub(crate) fn expect(&mut self, hashes: &[u64]) {
        let Self { table, entries, scramble, guesses, .. } = self;
        guesses.clear();
        guesses.extend(hashes.iter().map(|hash| {
            let guess = table.find(mix(*hash, *scramble), |_| true).copied().unwrap_or(NO_SLOT);
            prefetch(entries, guess as usize);
            guess
        }));
    }

    /// The slot of the `at`-th key of those that were [expected](Self::expect).
    #[inline]
    pub(crate) fn expected(&mut self, at: usize, hash: u64, key: &[u8]) -> u32 {
        let guess = self.guesses.get(at).copied().unwrap_or(NO_SLOT);
        match self.entries.get(guess as usize) {
            Some(entry) if entry.is(hash, key, &self.arena) => guess,
            _ => self.slot(hash, key),
        }
    }

    /// The slot of a key, a new one if the key is not in the table.
    fn slot(&mut self, hash: u64, key: &[u8]) -> u32 {
        let Self { table, entries, arena, free, scramble, .. } = self;
        let mixed = mix(hash, *scramble);
        let found = table.find(mixed, |&slot| entries[slot as usize].is(hash, key, arena));
        if let Some(&slot) = found {
            return slot;
        }
        let entry = Entry::new(hash, key, arena);
        let slot = match free.pop() {
            Some(slot) => {
                entries[slot as usize] = entry;
                slot
            }
            None => {
                entries.push(entry);
                u32::try_from(entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        table.insert_unique(mixed, slot, |&slot| mix(entries[slot as usize].hash, *scramble));
        slot
    }

    /// The slot of a key that a checkpoint holds.
    pub(crate) fn restore(&mut self, key: &[u8]) -> u32 {
        self.slot(key_hash(key), key)
    }

    /// The bytes of a slot's key.
    #[inline]
    pub(crate) fn key(&self, slot: u32) -> &[u8] {
        self.entries[slot as usize].key(&self.arena)
    }

    pub(crate) fn group(&self, slot: u32) -> KeyGroup {
        group_of(self.entries[slot as usize].hash)
    }

    /// The number of slots, free ones included: the length that a column needs.
    pub(crate) fn slots(&self) -> usize {
        self.entries.len()
    }

    /// The number of keys.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table has grown enough for a [`sweep`](Self::sweep) to pay.
    pub(crate) fn wants_sweep(&self) -> bool {
        self.table.len() >= self.sweep_at
    }

    /// Frees every slot that is not alive, and packs the arena.
    pub(crate) fn sweep(&mut self, alive: &BitSet) {
        let mut packed = Vec::with_capacity(self.arena.len() / 2);
        let (entries, arena, free) = (&mut self.entries, &self.arena, &mut self.free);
        self.table.retain(|&mut slot| {
            if !alive.contains(slot) {
                free.push(slot);
                return false;
            }
            let entry = &mut entries[slot as usize];
            if entry.len as usize > INLINE {
                let mut moved = *entry;
                moved.put_in_arena(entry.key(arena), &mut packed);
                *entry = moved;
            }
            true
        });
        self.arena = packed;
        self.sweep_at = (self.table.len() * 2).max(FEWEST_TO_SWEEP);
    }
}

/// Whether two keys are equal. Those of a common length are compared as one or two words each,
/// which is a fraction of the price of the library's comparison.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    fn word(bytes: &[u8], at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    }
    let len = a.len();
    if len != b.len() {
        return false;
    }
    match len {
        8..=16 => word(a, 0) == word(b, 0) && word(a, len - 8) == word(b, len - 8),
        _ => a == b,
    }
}

#[inline]
fn mix(hash: u64, scramble: u64) -> u64 {
    let product = u128::from(hash) * u128::from(scramble);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(table: &mut KeyTable, key: &str) -> u32 {
        table.restore(key.as_bytes())
    }

    #[test]
    fn a_key_keeps_its_slot_and_a_swept_slot_is_used_again() {
        let mut table = KeyTable::new();
        let slots: Vec<u32> = (0..100).map(|i| slot(&mut table, &format!("key {i}"))).collect();
        assert_eq!(slots, (0..100).collect::<Vec<u32>>());
        let mut alive = BitSet::default();
        (0..100).filter(|i| i % 2 == 0).for_each(|i| {
            alive.insert(i);
        });
        table.sweep(&alive);
        assert_eq!(table.len(), 50);
        assert_eq!(slot(&mut table, "key 42"), 42);
        assert_eq!(table.key(42), b"key 42");
        assert_eq!(slot(&mut table, "new") % 2, 1, "a freed slot");
        assert_eq!(table.slots(), 100);
    }

    #[test]
    fn a_key_of_any_length_is_found_whichever_way_it_is_looked_up() {
        let mut table = KeyTable::new();
        let keys: Vec<String> = (0..60).map(|len| "x".repeat(len)).collect();
        let slots: Vec<u32> = keys.iter().map(|key| slot(&mut table, key)).collect();
        let others: Vec<String> = (1..60).map(|len| "x".repeat(len - 1) + "y").collect();
        others.iter().for_each(|key| _ = slot(&mut table, key));
        let mut alive = BitSet::default();
        slots.iter().for_each(|slot| _ = alive.insert(*slot));
        table.sweep(&alive);
        assert_eq!(table.len(), 60);
        let hashes: Vec<u64> = keys.iter().map(|key| key_hash(key.as_bytes())).collect();
        table.expect(&hashes);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(table.expected(at, hashes[at], key.as_bytes()), slots[at], "{key:?}");
            assert_eq!(table.key(slots[at]), key.as_bytes());
        }
        assert!(table.expected(3, hashes[4], b"xxxy") >= 60, "the guess is another key's");
    }

    #[test]
    fn keys_are_the_same_if_every_byte_is() {
        for len in 0..40 {
            let key: Vec<u8> = (0..len).collect();
            assert!(same(&key, &key.clone()));
            for at in 0..key.len() {
                let mut other = key.clone();
                other[at] ^= 1;
                assert!(!same(&key, &other), "{len} {at}");
            }
        }
        assert!(!same(b"12345678", b"123456789"));
    }
}
