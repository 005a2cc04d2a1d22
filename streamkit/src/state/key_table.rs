//! Key bytes → dense slot: one probe per record, done once per keyed stream and worker.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::BitSet;
use super::key_group::{KeyGroup, group_of, key_hash};
use super::prefetch::{AHEAD, prefetch};

/// The keys of one keyed stream that one worker owns.
///
/// Slots are dense, and used again after [`sweep`](Self::sweep) has freed them. A short key lies in
/// its entry, so that a look-up touches two places: a cell and the entry. For a batch both are asked
/// for ahead, cells first, so that waiting for one key's memory overlaps with that for others'.
///
/// ```text
/// cells     hash → slot             4 bytes; linear probing, at most five eighths of them in use
/// entries   slot → hash, key        32 bytes; a key of more than 20 bytes is in the arena
/// ```
///
/// A cell has as many bits for the slot as it takes to count cells; the rest are bits of the hash, so
/// that another key's entry is hardly ever looked at.
#[derive(Debug)]
pub(crate) struct KeyTable {
    /// A power of two of them. 0: empty; otherwise bits of the hash, and the slot + 1.
    cells: Vec<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Keys that are too long for their entry.
    arena: Vec<u8>,
    /// Keys come from outside and their hash is public: this keeps an attacker from choosing keys
    /// that share a cell.
    scramble: u64,
    /// Sweep again once there are this many keys.
    sweep_at: usize,
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
const FEWEST_CELLS: usize = 1_024;
const NO_SLOT: u32 = u32::MAX;
/// The length of an entry whose slot is free.
const FREE: u32 = u32::MAX;

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
            cells: vec![0; FEWEST_CELLS],
            entries: vec![],
            free: vec![],
            arena: vec![],
            scramble: RandomState::new().hash_one(0u8) | 1,
            sweep_at: FEWEST_TO_SWEEP,
        }
    }

    /// The slot that each key has if its hash is not just similar: to be [confirmed](Self::confirm).
    /// Asks for their entries.
    pub(crate) fn guess(&self, hashes: &[u64], slots: &mut Vec<u32>) {
        let cells = Cells::of(&self.cells, self.scramble);
        slots.clear();
        slots.resize(hashes.len(), NO_SLOT);
        hashes.iter().take(AHEAD).for_each(|hash| cells.ask(*hash));
        for (at, (slot, hash)) in slots.iter_mut().zip(hashes).enumerate() {
            if let Some(ahead) = hashes.get(at + AHEAD) {
                cells.ask(*ahead);
            }
            *slot = cells.first_like(*hash);
            prefetch(&self.entries, *slot as usize);
        }
    }

    /// The slot of a key for which this was the [guess](Self::guess).
    #[inline(always)]
    pub(crate) fn confirm(&mut self, guess: u32, hash: u64, key: &[u8]) -> u32 {
        match self.entries.get(guess as usize) {
            Some(entry) if entry.is(hash, key, &self.arena) => guess,
            _ => self.slot(hash, key),
        }
    }

    /// The slot of a key, a new one if the key is not in the table.
    #[inline(never)]
    fn slot(&mut self, hash: u64, key: &[u8]) -> u32 {
        let cells = Cells::of(&self.cells, self.scramble);
        let is_it = |slot: &u32| self.entries[*slot as usize].is(hash, key, &self.arena);
        if let Some(slot) = cells.like(hash).find(is_it) {
            return slot;
        }
        if self.len() + 1 > self.cells.len() / 8 * 5 {
            self.cells = vec![0; self.cells.len() * 2];
            self.fill_cells();
        }
        let entry = Entry::new(hash, key, &mut self.arena);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        put(&mut self.cells, mix(hash, self.scramble), slot);
        slot
    }

    /// Puts all keys into cells that are empty.
    fn fill_cells(&mut self) {
        for (slot, entry) in (0u32..).zip(&self.entries).filter(|(_, entry)| entry.len != FREE) {
            put(&mut self.cells, mix(entry.hash, self.scramble), slot);
        }
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
        self.entries.len() - self.free.len()
    }

    /// Whether the table has grown enough for a [`sweep`](Self::sweep) to pay.
    pub(crate) fn wants_sweep(&self) -> bool {
        self.len() >= self.sweep_at
    }

    /// Frees every slot that is not alive, and packs the arena.
    pub(crate) fn sweep(&mut self, alive: &BitSet) {
        let mut packed = Vec::with_capacity(self.arena.len() / 2);
        for (slot, entry) in (0u32..).zip(&mut self.entries) {
            if entry.len == FREE {
                continue;
            }
            if !alive.contains(slot) {
                entry.len = FREE;
                self.free.push(slot);
            } else if entry.len as usize > INLINE {
                let mut moved = *entry;
                moved.put_in_arena(entry.key(&self.arena), &mut packed);
                *entry = moved;
            }
        }
        self.arena = packed;
        self.cells.fill(0);
        self.fill_cells();
        self.sweep_at = (self.len() * 2).max(FEWEST_TO_SWEEP);
    }
}

/// The cells, with what it takes to find one.
struct Cells<'a> {
    cells: &'a [u32],
    scramble: u64,
}

impl<'a> Cells<'a> {
    #[inline]
    fn of(cells: &'a [u32], scramble: u64) -> Self {
        Self { cells, scramble }
    }

    /// Begins to load the cell where a key of this hash should be.
    #[inline(always)]
    fn ask(&self, hash: u64) {
        prefetch(self.cells, home(mix(hash, self.scramble), self.cells.len()));
    }

    /// The first slot whose key has a similar hash.
    #[inline(always)]
    fn first_like(&self, hash: u64) -> u32 {
        let (mixed, mask) = (mix(hash, self.scramble), self.cells.len() - 1);
        let mut at = home(mixed, self.cells.len());
        loop {
            let cell = self.cells[at & mask];
            if cell == 0 {
                return NO_SLOT;
            }
            if is_like(cell, mixed, mask) {
                return slot_of(cell, mask);
            }
            at += 1;
        }
    }

    /// All slots whose keys have a similar hash.
    fn like(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (mixed, mask) = (mix(hash, self.scramble), self.cells.len() - 1);
        let probed = (home(mixed, self.cells.len())..).map(move |at| self.cells[at & mask]);
        let similar = probed.take_while(|cell| *cell != 0);
        similar.filter(move |cell| is_like(*cell, mixed, mask)).map(move |c| slot_of(c, mask))
    }
}

/// Where a key should be: the top bits choose among a power of two of cells.
#[inline(always)]
fn home(mixed: u64, cells: usize) -> usize {
    (mixed >> (u64::BITS - cells.trailing_zeros())) as usize
}

/// Whether the cell has the same bits of the hash, in the part that is not the slot's.
#[inline(always)]
fn is_like(cell: u32, mixed: u64, mask: usize) -> bool {
    (cell ^ mixed as u32) & !(mask as u32) == 0
}

#[inline(always)]
fn slot_of(cell: u32, mask: usize) -> u32 {
    (cell & mask as u32) - 1
}

/// Puts a slot into the first empty cell from its key's home on. There is one.
#[inline]
fn put(cells: &mut [u32], mixed: u64, slot: u32) {
    let mask = cells.len() - 1;
    let mut at = home(mixed, cells.len());
    while cells[at & mask] != 0 {
        at += 1;
    }
    cells[at & mask] = (mixed as u32 & !(mask as u32)) | (slot + 1);
}

/// Whether two keys are equal. Those of a common length are compared as a few words, which may
/// overlap: that is a fraction of the price of the library's comparison.
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
    let same_at = |at: usize| word(a, at) == word(b, at);
    match len {
        8..=16 => same_at(0) && same_at(len - 8),
        17..=32 => same_at(0) && same_at(8) && same_at(len - 16) && same_at(len - 8),
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
        let mut guesses = vec![];
        table.guess(&hashes, &mut guesses);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(
                table.confirm(guesses[at], hashes[at], key.as_bytes()),
                slots[at],
                "{key:?}"
            );
            assert_eq!(table.key(slots[at]), key.as_bytes());
        }
        assert!(table.confirm(guesses[3], hashes[4], b"xxxy") >= 60, "the guess is another key's");
    }

    #[test]
    fn keys_are_found_again_however_much_the_table_grows_and_is_swept() {
        let key = |n: u32| n.to_le_bytes();
        let mut table = KeyTable::new();
        let mut slots: Vec<(u32, u32)> = vec![];
        for round in 0..4u32 {
            let new = round * 30_000..(round + 1) * 30_000;
            slots.extend(new.map(|n| (n, table.restore(&key(n)))));
            let hashes: Vec<u64> = slots.iter().map(|(n, _)| key_hash(&key(*n))).collect();
            let mut guesses = vec![];
            table.guess(&hashes, &mut guesses);
            for (at, (n, slot)) in slots.iter().enumerate() {
                assert_eq!(table.confirm(guesses[at], hashes[at], &key(*n)), *slot);
            }
            slots.retain(|(n, _)| n % 3 != round % 3);
            let mut alive = BitSet::default();
            slots.iter().for_each(|(_, slot)| _ = alive.insert(*slot));
            table.sweep(&alive);
            assert_eq!(table.len(), slots.len());
        }
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
