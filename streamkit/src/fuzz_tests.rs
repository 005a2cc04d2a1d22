//! Seeded mutation of what comes from outside, for the tests `fuzz_..` beside the decoders.
//!
//! Every decoder of stored bytes has such a test: from a corpus of what the encoder writes, bytes are
//! flipped, cut, copied and spliced, and the decoder must refuse the result or read something that it
//! would write itself. In an ordinary run it is a few thousand inputs, always the same ones;
//! `dev/fuzz [TARGET] [SECONDS]` goes on for longer, from another seed each time.

use crate::time::{Clock, SystemClock, seconds};

const ROUNDS: u64 = 3_000;

/// Pieces that decoders trip over.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"null",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"\\ud800",
    b"\\u0000",
    b"\0",
    b"\n",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xc3\x28",
    b"\x80",
];

/// splitmix64.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Calls `check` with mutations of the corpus.
pub(crate) fn fuzz(target: &str, corpus: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
    let clock = SystemClock::new();
    let limit: Option<u64> = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    // With a limit from the environment every run looks elsewhere, and says where.
    let seed = match (limit, std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok())) {
        (_, Some(seed)) => seed,
        (Some(_), None) => clock.now().as_micros().unsigned_abs(),
        (None, None) => 1,
    };
    println!("{target}: seed {seed}");
    let (mut random, mut rounds) = (Random(seed), 0);
    loop {
        match limit {
            Some(limit) if rounds % 64 == 0 && clock.elapsed() >= seconds(limit) => break,
            None if rounds == ROUNDS => break,
            _ => {}
        }
        check(&mutated(corpus, &mut random));
        rounds += 1;
    }
    println!("{target}: {rounds} inputs");
}

fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(3) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(12)).min(input.len());
        match random.below(8) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 if at < end => input[at] = random.next() as u8,
            3 if at < end => input[at] ^= 1 << random.below(8),
            4 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                input.splice(at..end, piece.iter().copied());
            }
        }
    }
    input
}
