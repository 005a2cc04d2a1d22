//! Seeded mutation of what comes from outside, for tests of decoders.

use super::coverage::Coverage;
use crate::time::{Clock, SystemClock, seconds};

const ROUNDS: u64 = 3_000;
const LARGEST_CORPUS: usize = 20_000;

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

/// Feeds mutations of the corpus to `check`, which should panic if what it decodes goes wrong: bytes are
/// flipped, cut, copied and spliced. A decoder must refuse the result, or read something that it would
/// write itself.
///
/// Without further ado it is a few thousand inputs, always the same ones, so that it fits into a test.
/// With `FUZZ_SECONDS` in the environment it goes on for so long, from another seed each time; it
/// prints the seed, and `FUZZ_SEED` repeats one. The input that `check` has panicked on is printed.
///
/// ```
/// use streamkit::testing::fuzz;
///
/// fuzz("number", &[b"-17".to_vec(), b"300".to_vec()], |bytes| {
///     let Some(n) = str::from_utf8(bytes).ok().and_then(|text| text.parse::<i32>().ok()) else {
///         return;
///     };
///     assert_eq!(n.to_string().parse(), Ok(n));
/// });
/// ```
pub fn fuzz(target: &str, corpus: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
    let clock = SystemClock::new();
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = number("FUZZ_SECONDS");
    // With a limit from the environment every run looks elsewhere, and says where.
    let seed = match (limit, number("FUZZ_SEED")) {
        (_, Some(seed)) => seed,
        (Some(_), None) => clock.now().as_micros().unsigned_abs(),
        (None, None) => 1,
    };
    println!("{target}: seed {seed}");
    let (mut random, mut rounds) = (Random(seed), 0);
    let (mut corpus, mut coverage) = (corpus.to_vec(), Coverage::default());
    loop {
        match limit {
            Some(limit) if rounds % 64 == 0 && clock.elapsed() >= seconds(limit) => break,
            None if rounds == ROUNDS => break,
            _ => {}
        }
        let input = mutated(&corpus, &mut random);
        coverage.forget();
        let shown = Shown { target, input: &input };
        check(shown.input);
        drop(shown);
        rounds += 1;
        if coverage.is_new() && corpus.len() < LARGEST_CORPUS {
            corpus.push(input);
        }
    }
    println!("{target}: {rounds} inputs{}", coverage.summary());
}

/// splitmix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Prints the input if the check of it panics.
struct Shown<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}: panicked on b\"{}\"", self.target, self.input.escape_ascii());
        }
    }
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
