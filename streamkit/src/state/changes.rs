//! Changes of the state of an operator, in the bytes that a checkpoint holds.
//!
//! ```text
//! put            0  group  key  value
//! delete         1  group  key
//! delete prefix  2  first group  last group  prefix
//! ```
//!
//! A group is a byte; a key, a value and a prefix are their length (LEB128) and their bytes. An
//! operator writes this form at once: a job stands still for a checkpoint as long as that takes, and
//! a vector for each entry would take ten times as long.

use bytes::Bytes;

use super::KeyGroup;

/// One change of the state of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// The entry is now this.
    Put { group: KeyGroup, key: &'a [u8], value: &'a [u8] },
    /// The entry is gone.
    Delete { group: KeyGroup, key: &'a [u8] },
    /// All entries whose key starts with this are gone, in each of the groups from the first to the
    /// last.
    DeletePrefix { groups: (KeyGroup, KeyGroup), prefix: &'a [u8] },
}

/// Changes in order, in chunks of whole ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    count: u64,
    chunks: Vec<Bytes>,
}

impl Changes {
    /// Takes bytes that were read; `None` if they are not so many changes and nothing else.
    pub(crate) fn read(count: u64, bytes: Bytes) -> Option<Self> {
        let mut rest = &bytes[..];
        for _ in 0..count {
            read_change(&mut rest)?;
        }
        rest.is_empty().then(|| Self { count, chunks: vec![bytes] })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Their bytes, in order.
    pub(crate) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The changes, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.chunks.iter().flat_map(|chunk| {
            let mut rest = &chunk[..];
            // They were written here, or read and found to be whole.
            std::iter::from_fn(move || read_change(&mut rest))
        })
    }
}

impl PartialEq for Changes {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for Changes {}

impl<'a> FromIterator<Change<'a>> for Changes {
    fn from_iter<I: IntoIterator<Item = Change<'a>>>(changes: I) -> Self {
        let mut builder = ChangesBuilder::default();
        for change in changes {
            match change {
                Change::Put { group, key, value } => builder.put(group, &[key], value),
                Change::Delete { group, key } => builder.delete(group, &[key]),
                Change::DeletePrefix { groups, prefix } => builder.delete_prefix(groups, prefix),
            }
        }
        builder.finish()
    }
}

/// Writes changes one after the other. A key is given in parts.
#[derive(Debug, Default)]
pub(crate) struct ChangesBuilder {
    count: u64,
    full: Vec<Bytes>,
    /// The bytes in `full`.
    closed: usize,
    open: Vec<u8>,
}

/// A chunk that has so many bytes is full. Chunks of one size are memory that is used again, and
/// none is ever copied to make it larger.
const CHUNK: usize = 256 * 1024;

impl ChangesBuilder {
    #[inline]
    pub(crate) fn put(&mut self, group: KeyGroup, key: &[&[u8]], value: &[u8]) {
        let out = self.next();
        out.extend_from_slice(&[0, group]);
        put_parts(out, key);
        put_bytes(out, value);
    }

    #[inline]
    pub(crate) fn delete(&mut self, group: KeyGroup, key: &[&[u8]]) {
        let out = self.next();
        out.extend_from_slice(&[1, group]);
        put_parts(out, key);
    }

    pub(crate) fn delete_prefix(&mut self, groups: (KeyGroup, KeyGroup), prefix: &[u8]) {
        let out = self.next();
        out.extend_from_slice(&[2, groups.0, groups.1]);
        put_bytes(out, prefix);
    }

    /// How many bytes have been written.
    pub(crate) fn written(&self) -> usize {
        self.closed + self.open.len()
    }

    pub(crate) fn finish(mut self) -> Changes {
        if !self.open.is_empty() {
            self.full.push(Bytes::from(self.open));
        }
        Changes { count: self.count, chunks: self.full }
    }

    /// Where the next change goes.
    #[inline]
    fn next(&mut self) -> &mut Vec<u8> {
        self.count += 1;
        if self.open.len() >= CHUNK {
            self.closed += self.open.len();
            let room = Vec::with_capacity(CHUNK + CHUNK / 16);
            self.full.push(Bytes::from(std::mem::replace(&mut self.open, room)));
        }
        &mut self.open
    }
}

#[inline]
fn put_parts(out: &mut Vec<u8>, parts: &[&[u8]]) {
    put_varint(out, parts.iter().map(|part| part.len() as u64).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends a length and bytes.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number as LEB128.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The inverse of [`put_varint`]; `None` if the bytes end, or the number is too large.
#[inline]
pub(crate) fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The inverse of [`put_bytes`].
#[inline]
pub(crate) fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_varint(rest)?).ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}

#[inline]
fn read_change<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    let (&[tag, group], behind) = rest.split_first_chunk()?;
    *rest = behind;
    match tag {
        0 => Some(Change::Put { group, key: read_bytes(rest)?, value: read_bytes(rest)? }),
        1 => Some(Change::Delete { group, key: read_bytes(rest)? }),
        2 => {
            let (&last, behind) = rest.split_first()?;
            *rest = behind;
            Some(Change::DeletePrefix { groups: (group, last), prefix: read_bytes(rest)? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_of_any_length_come_back_in_order_over_many_chunks() {
        let values: Vec<Vec<u8>> = (0..2_000usize)
            .map(|n| vec![n as u8; n * 37 % 1_500])
            .chain([vec![7; 3 * CHUNK]])
            .collect();
        let change = |(n, value): (usize, &'static [u8])| match n % 3 {
            0 => Change::Put { group: n as u8, key: &value[..value.len() / 2], value },
            1 => Change::Delete { group: n as u8, key: value },
            _ => Change::DeletePrefix { groups: (n as u8, 255), prefix: value },
        };
        let all: Vec<Change<'_>> =
            values.into_iter().map(|value| &*value.leak()).enumerate().map(change).collect();
        let changes: Changes = all.iter().copied().collect();
        assert!(changes.chunks().len() > 3, "{} chunks", changes.chunks().len());
        assert!(changes.iter().eq(all.iter().copied()));
        assert_eq!(changes.count(), all.len() as u64);
        let whole = Bytes::from(changes.chunks().concat());
        assert_eq!(Changes::read(changes.count(), whole.clone()), Some(changes.clone()));
        assert_eq!(Changes::read(changes.count() - 1, whole.clone()), None, "bytes left over");
        assert_eq!(Changes::read(changes.count() + 1, whole), None);
    }

    proptest! {
        #[test]
        fn varints_survive(value in any::<u64>()) {
            let mut bytes = vec![];
            put_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(read_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn garbage_is_refused_or_whole(garbage in proptest::collection::vec(any::<u8>(), 0..200), n in 0u64..9) {
            let _ = read_varint(&mut &garbage[..]);
            if let Some(changes) = Changes::read(n, Bytes::from(garbage)) {
                prop_assert_eq!(changes.iter().count() as u64, n);
            }
        }
    }
}
