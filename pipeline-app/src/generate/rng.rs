//! Counter-based random numbers: number `i` of a stream is computed from the stream's key and `i`
//! alone, so that any record can be produced without the ones before it.
//!
//! The function is SplitMix64 read at any position. It is written out here, in integer arithmetic
//! only, because what the generator produces for a seed must never change, not with the version of
//! a library and not with the machine.

/// The golden ratio in 64 bits: the step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a stream of random numbers is used for. Streams of different purposes are independent; the
/// numbers are part of what a seed produces and must stay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// One number per record: its faults, its jitter, its form.
    Record = 1,
    /// One number per lane, from which the numbers of its visits come.
    Lane = 2,
    /// One number per round: the order in which the lanes send.
    Round = 3,
    /// The multipliers of those orders.
    Multiplier = 4,
    /// The lengths of the visits in a block.
    Lengths = 5,
    /// Who is slow, and by how much.
    Delay = 6,
}

/// Mixes 64 bits so that every bit of the result depends on every bit of the input.
#[inline]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Number `index` of the stream `key`.
#[inline]
pub(super) const fn at(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)))
}

/// The key of one split's stream for one purpose.
pub(super) const fn stream(seed: u64, purpose: Purpose, split: u32) -> u64 {
    at(at(mix(seed), purpose as u64), split as u64)
}

/// Turns 32 random bits into a number below `n`, each about equally likely.
#[inline]
pub(super) const fn below(bits: u32, n: u32) -> u32 {
    ((bits as u64 * n as u64) >> 32) as u32
}

/// Turns 32 random bits into a number below `n`, small ones more likely: the square of a uniform
/// number, so that the first of a hundred comes up in one draw of ten.
#[inline]
pub(super) const fn skewed_below(bits: u32, n: u32) -> u32 {
    below(((bits as u64 * bits as u64) >> 32) as u32, n)
}

/// The upper 32 bits.
#[inline]
pub(super) const fn high(x: u64) -> u32 {
    (x >> 32) as u32
}

/// The lower 32 bits.
#[inline]
pub(super) const fn low(x: u64) -> u32 {
    x as u32
}

/// A probability as a number of 2³²ths, exact on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chance(u64);

impl Chance {
    /// The chance of `share`, a number from 0 to 1.
    pub(super) fn new(share: f64) -> Self {
        Self((share * 4_294_967_296.0) as u64)
    }

    /// Whether these 32 random bits are a hit.
    #[inline]
    pub(super) const fn hits(self, bits: u32) -> bool {
        (bits as u64) < self.0
    }

    /// The chance of one or the other, when they exclude each other.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // The first outputs of the reference implementation for the seed 1234567.
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for (i, number) in expected.into_iter().enumerate() {
            assert_eq!(at(1_234_567, i as u64), number);
        }
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_split() {
        let mut keys = Vec::new();
        for seed in 0..4 {
            for purpose in [Purpose::Record, Purpose::Lane, Purpose::Round, Purpose::Multiplier] {
                for split in 0..4 {
                    keys.push(stream(seed, purpose, split));
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 4 * 4 * 4);
    }

    #[test]
    fn numbers_below_a_bound_stay_below_it() {
        for n in [1, 2, 7, u32::MAX] {
            assert_eq!(below(0, n), 0);
            assert_eq!(below(u32::MAX, n), n - 1);
            assert!(skewed_below(u32::MAX, n) < n);
        }
    }

    #[test]
    fn chances_are_exact_at_the_ends_and_close_between() {
        assert!(!Chance::new(0.0).hits(0));
        assert!(Chance::new(1.0).hits(u32::MAX));
        let chance = Chance::new(0.2).or(Chance::new(0.1));
        let hits = (0..100_000).filter(|&i| chance.hits(high(at(7, i)))).count();
        assert!((29_500..30_500).contains(&hits), "{hits}");
    }

    #[test]
    fn skewed_numbers_favour_the_first() {
        let mut counts = [0u32; 100];
        for i in 0..100_000 {
            counts[skewed_below(low(at(9, i)), 100) as usize] += 1;
        }
        assert!((9_500..10_500).contains(&counts[0]), "{}", counts[0]);
        assert!((400..700).contains(&counts[99]), "{}", counts[99]);
    }
}
