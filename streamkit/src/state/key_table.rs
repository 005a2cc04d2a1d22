//! Key bytes → dense slot: one probe per record, done once per keyed stream and worker.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::BitSet;
use super::key_group::{KeyGroup, group_of, key_hash};

/// The keys of one keyed stream that one worker owns.
///
/// Slots are dense, and used again after [`sweep`](Self::sweep) has freed them. The bytes of all
/// keys lie in one arena.
#[derive(Debug)]
pub(crate) struct KeyTable {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    arena: Vec<u8>,
    /// Keys come from outside and their hash is public: this keeps an attacker from choosing keys
    /// that share a bucket.
    scramble: u64,
    /// Sweep again once there are this many keys.
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    start: u32,
    len: u32,
}

const FEWEST_TO_SWEEP: usize = 4_096;

impl KeyTable {
    pub(crate) fn new() -> Self {
        Self {
            table: HashTable::new(),
            entries: vec![],
            free: vec![],
            arena: vec![],
            scramble: RandomState::new().hash_one(0u8) | 1,
            sweep_at: FEWEST_TO_SWEEP,
        }
    }

    /// The slot of a key, a new one if the key is not in the table.
    #[inline]
    pub(crate) fn slot(&mut self, hash: u64, key: &[u8]) -> u32 {
        let Self { table, entries, arena, free, scramble, .. } = self;
        let mixed = mix(hash, *scramble);
        let found = table.find(mixed, |&slot| {
            let entry = &entries[slot as usize];
            entry.hash == hash && bytes(arena, entry) == key
        });
        if let Some(&slot) = found {
            return slot;
        }
        // Four billion bytes of live keys are more than one worker can have state for.
        let start = u32::try_from(arena.len()).unwrap_or(u32::MAX);
        let entry = Entry { hash, start, len: u32::try_from(key.len()).unwrap_or(u32::MAX) };
        arena.extend_from_slice(key);
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
        bytes(&self.arena, &self.entries[slot as usize])
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
            let start = u32::try_from(packed.len()).unwrap_or(u32::MAX);
            packed.extend_from_slice(bytes(arena, entry));
            entry.start = start;
            true
        });
        self.arena = packed;
        self.sweep_at = (self.table.len() * 2).max(FEWEST_TO_SWEEP);
    }
}

#[inline]
fn bytes<'a>(arena: &'a [u8], entry: &Entry) -> &'a [u8] {
    &arena[entry.start as usize..entry.start as usize + entry.len as usize]
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
}
