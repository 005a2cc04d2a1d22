//! Finding the next byte of a JSON string that is not an ordinary letter, sixteen bytes at a time.

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
