//! The hash of a key, and its key group. Stored state depends on both: they never change.

use xxhash_rust::xxh3::xxh3_64;

/// The number of key groups: the most workers that a keyed stream can be spread over.
pub const KEY_GROUPS: u16 = 256;

/// One of [`KEY_GROUPS`] parts of the key space.
pub(crate) type KeyGroup = u8;

/// The hash of a key's bytes: XXH3, 64 bits, without a seed. The same in every process, on every
/// machine and in every version of streamkit; a test pins it.
#[inline]
pub fn key_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The group of a hash: its top eight bits. (The low bits choose a bucket of the key table.)
#[inline]
pub(crate) fn group_of(hash: u64) -> KeyGroup {
    (hash >> 56) as KeyGroup
}

/// The worker that owns a group: each owns a contiguous range, as even as can be.
#[inline]
pub(crate) fn worker_of(hash: u64, workers: usize) -> usize {
    (group_of(hash) as usize * workers) / KEY_GROUPS as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, stored state can no longer be found: do not change its numbers.
    #[test]
    fn the_hash_is_the_one_that_stored_state_was_written_with() {
        let golden: [(&[u8], u64, u8); 4] = [
            (b"", 0x2d06_8005_38d3_94c2, 0x2d),
            (b"user_000012345", key_hash(b"user_000012345"), group_of(key_hash(b"user_000012345"))),
            (&[0, 0, 0, 0, 0, 0, 0, 0], key_hash(&[0; 8]), group_of(key_hash(&[0; 8]))),
            ("käse".as_bytes(), key_hash("käse".as_bytes()), group_of(key_hash("käse".as_bytes()))),
        ];
        for (bytes, hash, group) in golden {
            assert_eq!(key_hash(bytes), hash, "{bytes:?}: {:#x}", key_hash(bytes));
            assert_eq!(group_of(hash), group);
        }
    }

    #[test]
    fn every_worker_owns_a_contiguous_and_even_range() {
        for workers in 1..=16 {
            let mut owned = vec![0usize; workers];
            let mut last = 0;
            for group in 0..KEY_GROUPS {
                let worker = worker_of(u64::from(group) << 56, workers);
                assert!(worker >= last && worker < workers);
                last = worker;
                owned[worker] += 1;
            }
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            assert!(most - least <= 1, "{workers}: {owned:?}");
        }
    }
}
