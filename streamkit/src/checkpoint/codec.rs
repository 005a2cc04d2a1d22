//! The bytes of a checkpoint.
//!
//! All integers are little-endian; `varint` is LEB128.
//!
//! ```text
//! "SKCP"  version u32  header length u32  blocks u32            crc u32
//! header: the manifest as JSON                                  crc u32
//! blocks times:   length u64  operator (varint length, bytes)
//!                 changes (varint)  each change                 crc u32
//! "PCKS"
//! ```
//!
//! A change is a tag and its fields; `state::changes` has them.
//!
//! Each crc is the CRC-32C of *everything* before it but other crcs (a crc of what ends with its own
//! crc is a constant), so that a block from elsewhere, in another place or left out is found out,
//! and not only one that is damaged. The first line means the same in every version. The decoder believes nothing before its checksum has been checked, and checks
//! every bound after that too.

use std::num::TryFromIntError;

use bytes::Bytes;
use crc32c::crc32c_append;
use serde::{Deserialize, Serialize};

use super::manifest::{Checkpoint, FORMAT, Fact, Manifest};
use crate::error::{Error, Result};
use crate::state::{Changes, put_bytes, put_varint, read_bytes, read_varint};

const MAGIC: &[u8; 4] = b"SKCP";
const TRAILER: &[u8; 4] = b"PCKS";
const PREAMBLE: usize = 20;

pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let too_large = |e: TryFromIntError| Error::internal("a checkpoint is too large").because(e);
    let header = serde_json::to_vec(&checkpoint.manifest)
        .map_err(|e| Error::internal("a manifest cannot be encoded").because(e))?;
    let size = checkpoint.changes.iter().map(|(name, changes)| {
        32 + name.len() + changes.chunks().iter().map(Bytes::len).sum::<usize>()
    });
    let mut out = Vec::with_capacity(PREAMBLE + header.len() + 8 + size.sum::<usize>());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&u32::try_from(header.len()).map_err(too_large)?.to_le_bytes());
    let blocks = u32::try_from(checkpoint.changes.len()).map_err(too_large)?;
    out.extend_from_slice(&blocks.to_le_bytes());
    let mut seal = Seal::default();
    seal.put(&mut out);
    out.extend_from_slice(&header);
    seal.put(&mut out);
    for (operator, changes) in &checkpoint.changes {
        let at = out.len();
        out.extend_from_slice(&[0; 8]);
        put_bytes(&mut out, operator.as_bytes());
        put_varint(&mut out, changes.count());
        changes.chunks().iter().for_each(|chunk| out.extend_from_slice(chunk));
        let length = (out.len() - at - 8) as u64;
        out[at..at + 8].copy_from_slice(&length.to_le_bytes());
        seal.put(&mut out);
    }
    out.extend_from_slice(TRAILER);
    Ok(out)
}

/// How many bytes [`decode_manifest`] wants to see, given the first twenty or more.
pub(super) fn header_bytes(start: &[u8]) -> Result<usize> {
    let (length, _) = preamble(&mut Input::new(start))?;
    Ok(length.saturating_add(PREAMBLE + 4))
}

/// The manifest, from the first bytes of a checkpoint.
pub(super) fn decode_manifest(bytes: &[u8]) -> Result<Manifest> {
    header(&mut Input::new(bytes)).map(|(manifest, _)| manifest)
}

/// The changes lie where they were read.
pub(super) fn decode(bytes: &Bytes) -> Result<Checkpoint> {
    let mut input = Input::new(bytes);
    let (manifest, blocks) = header(&mut input)?;
    let mut changes = vec![];
    for _ in 0..blocks {
        let length =
            usize::try_from(u64::from_le_bytes(input.array()?)).map_err(|_| cut_short())?;
        let block = input.take(length)?;
        input.check()?;
        changes.push(decode_block(&bytes.slice_ref(block))?);
    }
    if input.array::<4>()? != *TRAILER || !input.rest.is_empty() {
        return Err(Error::corrupt("it does not end where it should"));
    }
    Ok(Checkpoint { manifest, changes })
}

/// A fact with what says that it is the one that was asked for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFact<F = Fact> {
    format: u32,
    pub(super) job: String,
    pub(super) number: u64,
    pub(super) content: F,
}

/// A line of JSON, and a line with its checksum: `crc32c 1a2b3c4d`.
pub(super) fn encode_fact(job: &str, number: u64, fact: &Fact) -> Result<Vec<u8>> {
    let stored = StoredFact { format: FORMAT, job: job.to_owned(), number, content: fact };
    let mut bytes = serde_json::to_vec(&stored)
        .map_err(|e| Error::internal("a fact cannot be encoded").because(e))?;
    bytes.push(b'\n');
    let seal = fact_seal(&bytes);
    bytes.extend_from_slice(seal.as_bytes());
    Ok(bytes)
}

pub(super) fn decode_fact(bytes: &[u8]) -> Result<StoredFact> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let (line, seal) =
        bytes.split_at_checked(bytes.len().saturating_sub(FACT_SEAL)).ok_or_else(cut_short)?;
    if seal != fact_seal(line).as_bytes() {
        return Err(Error::corrupt("its checksum is not that of what it says"));
    }
    let unreadable = |e| Error::corrupt("its JSON cannot be read").because(e);
    let Format { format } = serde_json::from_slice(line).map_err(unreadable)?;
    if format != FORMAT {
        return Err(unknown_format(format));
    }
    serde_json::from_slice(line).map_err(unreadable)
}

const FACT_SEAL: usize = "crc32c 1a2b3c4d\n".len();

fn fact_seal(line: &[u8]) -> String {
    format!("crc32c {:08x}\n", crc32c_append(0, line))
}

/// The lengths of header and state: (bytes of the header, blocks).
fn preamble(input: &mut Input<'_>) -> Result<(usize, u32)> {
    if input.array::<4>()? != *MAGIC {
        return Err(Error::corrupt("it is not a checkpoint"));
    }
    let version = u32::from_le_bytes(input.array()?);
    let length = u32::from_le_bytes(input.array()?);
    let blocks = u32::from_le_bytes(input.array()?);
    input.check()?;
    if version != FORMAT {
        return Err(unknown_format(version));
    }
    Ok((usize::try_from(length).map_err(|_| cut_short())?, blocks))
}

fn header(input: &mut Input<'_>) -> Result<(Manifest, u32)> {
    let (length, blocks) = preamble(input)?;
    let json = input.take(length)?;
    input.check()?;
    let manifest: Manifest = serde_json::from_slice(json)
        .map_err(|e| Error::corrupt("its manifest cannot be read").because(e))?;
    if manifest.format != FORMAT {
        return Err(unknown_format(manifest.format));
    }
    if manifest.base > manifest.number {
        return Err(Error::corrupt(format!(
            "checkpoint {} cannot build on {}",
            manifest.number, manifest.base
        )));
    }
    Ok((manifest, blocks))
}

fn decode_block(block: &Bytes) -> Result<(String, Changes)> {
    let mut rest = &block[..];
    let operator = read_bytes(&mut rest).ok_or_else(cut_short)?.to_vec();
    let operator = String::from_utf8(operator)
        .map_err(|e| Error::corrupt("the name of an operator cannot be read").because(e))?;
    let count = read_varint(&mut rest).ok_or_else(cut_short)?;
    let changes = Changes::read(count, block.slice_ref(rest)).ok_or_else(|| {
        Error::corrupt(format!("the state of {operator:?} is not {count} changes and no more"))
    })?;
    Ok((operator, changes))
}

/// The running checksum of an object.
#[derive(Debug, Default)]
struct Seal {
    crc: u32,
    through: usize,
}

impl Seal {
    /// Appends the checksum of all of `out` but earlier checksums.
    fn put(&mut self, out: &mut Vec<u8>) {
        self.crc = crc32c_append(self.crc, &out[self.through..]);
        out.extend_from_slice(&self.crc.to_le_bytes());
        self.through = out.len();
    }
}

/// What is left to decode.
struct Input<'a> {
    rest: &'a [u8],
    /// Read, but not yet part of `crc`.
    unchecked: &'a [u8],
    crc: u32,
}

impl<'a> Input<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, unchecked: bytes, crc: 0 }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Reads a checksum, and compares it with that of everything before but checksums.
    fn check(&mut self) -> Result<()> {
        let read = self.unchecked.len() - self.rest.len();
        self.crc = crc32c_append(self.crc, &self.unchecked[..read]);
        let stored = u32::from_le_bytes(self.array()?);
        self.unchecked = self.rest;
        if stored == self.crc {
            Ok(())
        } else {
            Err(Error::corrupt(format!(
                "its checksum is {:08x} where {stored:08x} was written",
                self.crc
            )))
        }
    }
}

fn cut_short() -> Error {
    Error::corrupt("it is cut short")
}

/// For a person, not a damage: the file is as it was written.
pub(super) fn unknown_format(format: u32) -> Error {
    Error::user(format!(
        "it was written in format {format} and this version of streamkit reads format {FORMAT}; \
         use the version that wrote it"
    ))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
