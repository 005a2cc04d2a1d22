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
    use crate::data::Key;

    /// If this test fails, stored state can no longer be found: do not change its numbers.
    #[test]
    fn the_hash_is_the_one_that_stored_state_was_written_with() {
        let golden: [(&[u8], u64, u8); 5] = [
            (b"", 0x2d06_8005_38d3_94c2, 0x2d),
            (b"user_000012345", 0xbce5_3f30_99fb_3851, 0xbc),
            (b"https://shop.example.com/catalog/1?ref=home", 0xe2e6_3ce6_2be0_008c, 0xe2),
            (&[0, 0, 0, 0, 0, 0, 0, 0], 0xc77b_3abb_6f87_acd9, 0xc7),
            ("käse".as_bytes(), 0xc3b8_a562_fbcf_dfb1, 0xc3),
        ];
        for (bytes, hash, group) in golden {
            assert_eq!(key_hash(bytes), hash, "{bytes:?}: {:#x}", key_hash(bytes));
            assert_eq!(group_of(hash), group);
        }
    }

    /// A job may name a user or a page by its text or by its bytes, and change its mind: the state
    /// that it has stored is found either way.
    #[test]
    fn a_text_and_its_bytes_are_in_the_same_group() {
        fn group<K: Key + ?Sized>(key: &K) -> KeyGroup {
            key.with_bytes(|bytes| group_of(key_hash(bytes)))
        }
        let keys = [
            ("user_000012345", 0xbc),
            ("42", 0x12),
            ("Zoë", 0x44),
            ("https://shop.example.com/catalog/1?ref=home", 0xe2),
            ("/", 0x47),
        ];
        for (key, expected) in keys {
            assert_eq!(group(key), expected, "{key}: {:#x}", group(key));
            assert_eq!(group(&key.to_owned()), expected);
            assert_eq!(group(key.as_bytes()), expected);
            assert_eq!(group(&key.as_bytes().to_vec()), expected);
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
