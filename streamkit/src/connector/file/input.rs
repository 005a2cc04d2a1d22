//! Bytes of an input file, plain or unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::split;
use crate::error::Result;

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(super) enum Input {
    Plain(Plain),
    #[cfg(feature = "gzip")]
    Gzip(Box<flate2::bufread::MultiGzDecoder<io::BufReader<File>>>),
}

/// A plain file, read up to a length that is looked up whenever it is reached.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Whether a file is packed, by its name.
pub(super) fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"))
}

impl Input {
    /// Takes a file that is at its start.
    pub(super) fn new(path: &Path, file: File) -> Result<Self> {
        if !is_packed(path) {
            return Ok(Self::Plain(Plain { file, offset: 0, length: 0 }));
        }
        #[cfg(feature = "gzip")]
        {
            let bytes = io::BufReader::with_capacity(64 << 10, file);
            Ok(Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(bytes))))
        }
        #[cfg(not(feature = "gzip"))]
        Err(crate::Error::user(format!(
            "reading {} needs the cargo feature `gzip` of streamkit",
            path.display()
        )))
    }

    /// Opens the file at a path, from its start.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::new(path, split::open(path)?)
    }

    /// The file, if it is a plain one.
    pub(super) fn plain(&self) -> Option<&Plain> {
        match self {
            Self::Plain(plain) => Some(plain),
            #[cfg(feature = "gzip")]
            Self::Gzip(_) => None,
        }
    }

    /// Appends up to `limit` bytes; none means that this is the end, as the file is now. Bytes may
    /// have been appended before an error.
    pub(super) fn read(&mut self, into: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.read(into, limit),
            #[cfg(feature = "gzip")]
            Self::Gzip(bytes) => {
                into.reserve_exact(limit);
                bytes.by_ref().take(limit as u64).read_to_end(into)
            }
        }
    }
}

impl Plain {
    fn read(&mut self, into: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
        if self.offset >= self.length {
            self.length = self.file.metadata()?.len();
        }
        let shorter =
            || io::Error::new(io::ErrorKind::UnexpectedEof, "it was truncated while it was read");
        let left = self.length.checked_sub(self.offset).ok_or_else(shorter)?;
        let limit = left.min(limit as u64);
        // `read_to_end` neither zeroes the room that it fills nor asks for more than there is.
        into.reserve_exact(usize::try_from(limit).unwrap_or(0));
        let read = (&self.file).take(limit).read_to_end(into)?;
        self.offset += read as u64;
        if (read as u64) < limit { Err(shorter()) } else { Ok(read) }
    }
}
