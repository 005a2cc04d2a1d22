//! Finding the next byte of a JSON string that is not an ordinary letter, sixteen bytes at a time.
//!
//! Who looks for many of them in one text asks [`Specials`], which looks at every byte once; who
//! looks for a few asks [`find_special`].

use wide::u8x16;

const WIDTH: usize = 16;

/// The position of the first quote, backslash or control character from `at` on, or the length of
/// the text.
#[inline]
pub(super) fn find_special(text: &[u8], at: usize) -> usize {
    find(text, at, |bytes| special(bytes).to_bitmask())
}

/// As [`find_special`], but stops at what is not ASCII, too.
#[inline]
pub(super) fn find_special_or_not_ascii(text: &[u8], at: usize) -> usize {
    // A bit mask is made of the high bits, which are set in what is not ASCII.
    find(text, at, |bytes| (special(bytes) | bytes).to_bitmask())
}

/// The special bytes of one text, asked for from the front to the back.
///
/// A text is taken in blocks, and what has been found in the block at hand is kept as bits: most
/// strings are shorter than a block, so that most answers are a shift and a count.
pub(super) struct Specials<'a> {
    text: &'a [u8],
    /// Where the block at hand starts.
    start: usize,
    /// Bit n: whether byte `start + n` is special; the first byte is the lowest bit.
    found: u64,
    /// The bytes of all blocks so far, by `or`.
    seen: u8x16,
}

/// Bytes of a block: one for each bit.
const BLOCK: usize = 64;

impl<'a> Specials<'a> {
    #[inline]
    pub(super) fn of(text: &'a [u8]) -> Self {
        let mut specials = Self { text, start: 0, found: 0, seen: u8x16::splat(0) };
        specials.look(0);
        specials
    }

    /// As [`find_special`]. It is fast if `at` is not before what was found last.
    #[inline]
    pub(super) fn next(&mut self, at: usize) -> usize {
        // Before the block at hand it is a huge number, and so not in the block either.
        let ahead = at.wrapping_sub(self.start);
        if ahead < BLOCK {
            let found = self.found >> ahead;
            if found != 0 {
                return at + found.trailing_zeros() as usize;
            }
        }
        self.next_further(at)
    }

    /// [`next`](Self::next) when it is not in the block at hand.
    #[inline(never)]
    fn next_further(&mut self, at: usize) -> usize {
        let in_block = at.wrapping_sub(self.start) < BLOCK;
        let mut at = if in_block { self.start + BLOCK } else { at };
        loop {
            if at >= self.text.len() {
                return self.text.len();
            }
            self.look(at - at % BLOCK);
            let found = self.found >> (at % BLOCK);
            if found != 0 {
                return at + found.trailing_zeros() as usize;
            }
            at = self.start + BLOCK;
        }
    }

    /// Whether everything was ASCII in the blocks that had to be looked at.
    #[inline]
    pub(super) fn were_ascii(&self) -> bool {
        self.seen.to_bitmask() == 0
    }

    /// Takes the block that starts here, which is before the end.
    #[inline]
    fn look(&mut self, start: usize) {
        self.start = start;
        let rest = self.text.get(start..).unwrap_or_default();
        self.found = match (rest.first_chunk(), self.text.last_chunk()) {
            (Some(block), _) => self.specials(block),
            // The last one is looked at with what is before it, which is shifted out.
            (None, Some(block)) => self.specials(block).unbounded_shr((BLOCK - rest.len()) as u32),
            (None, None) => {
                let mut block = [b' '; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                self.specials(&block)
            }
        };
    }

    #[inline]
    fn specials(&mut self, block: &[u8; BLOCK]) -> u64 {
        let (parts, _) = block.as_chunks::<WIDTH>();
        parts.iter().rev().fold(0, |found, part| {
            let part = u8x16::new(*part);
            self.seen |= part;
            found << WIDTH | u64::from(special(part).to_bitmask())
        })
    }
}

#[inline(always)]
fn find(text: &[u8], mut at: usize, mask: impl Fn(u8x16) -> u32) -> usize {
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<WIDTH>) {
        let found = mask(u8x16::new(*chunk));
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += WIDTH;
    }
    find_near_end(text, at, mask)
}

/// [`find`] in the last bytes.
#[inline(always)]
fn find_near_end(text: &[u8], at: usize, mask: impl Fn(u8x16) -> u32) -> usize {
    let Some(rest) = text.get(at..) else {
        return text.len();
    };
    // If possible they are looked at with those before them, which are shifted out.
    let (chunk, excess) = match text.last_chunk::<WIDTH>() {
        Some(chunk) => (*chunk, WIDTH - rest.len()),
        None => {
            let mut chunk = [b' '; WIDTH];
            chunk[..rest.len()].copy_from_slice(rest);
            (chunk, 0)
        }
    };
    let found = mask(u8x16::new(chunk)) >> excess;
    at + rest.len().min(found.trailing_zeros() as usize)
}

/// All bits of the lanes that are a quote, a backslash or a control character.
#[inline(always)]
fn special(bytes: u8x16) -> u8x16 {
    let is_control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let is_quote = bytes.simd_eq(u8x16::splat(b'"'));
    let is_backslash = bytes.simd_eq(u8x16::splat(b'\\'));
    is_control | is_quote | is_backslash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_are_those_that_are_found_one_by_one() {
        let mut random = 1_u64;
        for length in 0..300 {
            let mut text = vec![b'x'; length];
            for byte in &mut text {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                if random >> 59 == 0 {
                    *byte = (random >> 40) as u8 >> (length % 2);
                }
            }
            for step in [1, 2, 7, 63, 64, 65, 200] {
                let mut specials = Specials::of(&text);
                for at in (0..=length + 1).step_by(step) {
                    assert_eq!(specials.next(at), find_special(&text, at), "{at} of {text:?}");
                }
                // The last question was about the end, and so all has been looked at.
                assert!(step > 1 || specials.were_ascii() == text.is_ascii(), "{text:?}");
            }
        }
    }

    #[test]
    fn every_byte_is_told_at_every_position() {
        for length in 0..50 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    let expected = if is_special { at } else { length };
                    assert_eq!(find_special(&text, 0), expected, "{byte} at {at} of {length}");
                    assert_eq!(find_special(&text, at), expected);
                    assert_eq!(find_special(&text, at + 1), length);
                    let mut specials = Specials::of(&text);
                    assert_eq!(specials.next(0), expected);
                    assert_eq!(specials.next(at), expected);
                    assert_eq!(specials.next(at + 1), length);
                    let expected = if is_special || byte >= 0x80 { at } else { length };
                    assert_eq!(find_special_or_not_ascii(&text, at), expected);
                    assert_eq!(find_special_or_not_ascii(&text, at / 2), expected);
                }
            }
        }
        assert_eq!(find_special(b"", 0), 0);
        assert_eq!(find_special(b"x", 2), 1);
    }

    #[test]
    fn the_first_of_several_is_found() {
        let text = "abc\"def\\ghi\u{1f}jkl é mno pqr stu vwx\"";
        let positions: Vec<_> = (0..=text.len())
            .filter(|&at| find_special(text.as_bytes(), at) == at && at < text.len())
            .collect();
        assert_eq!(positions, [3, 7, 11, text.len() - 1]);
        assert_eq!(find_special_or_not_ascii(text.as_bytes(), 12), 16);
    }
}
