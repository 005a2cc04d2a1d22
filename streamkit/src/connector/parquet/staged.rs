//! A file that takes every byte that it is given, whatever the disk says.
//!
//! An encoder that meets an error in the middle of a file leaves half a file, and nobody has the
//! rows any more. So it never meets one: what the disk does not take stays in memory, and is written
//! again later, from the byte on that was refused. Only a failed sync cannot be repeated (the kernel
//! may have thrown the bytes away and would say nothing of it the second time): then the file is
//! lost.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::connector::file::{Failpoints, create_new, lost, passing};
use crate::error::Result;

const ROLE: &str = "the lake's file";

/// How much is handed to the disk at once, and how much more must have come before a disk that
/// refused is asked again.
const PIECE: usize = 256 << 10;

/// A file under its staging name.
pub(super) struct Staged {
    path: PathBuf,
    failpoints: Failpoints,
    /// `None` until the disk has let us create it.
    file: Option<File>,
    /// What the file has.
    written: u64,
    /// What comes after it.
    tail: Vec<u8>,
    /// How long the tail gets before the disk is asked.
    ask_at: usize,
    hash: Box<Xxh3>,
}

impl Staged {
    pub(super) fn new(path: PathBuf, failpoints: Failpoints) -> Self {
        let hash = Box::new(Xxh3::new());
        Self { path, failpoints, file: None, written: 0, tail: vec![], ask_at: PIECE, hash }
    }

    #[cfg(test)]
    fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the disk has refused something, so that it waits in memory.
    pub(super) fn is_behind(&self) -> bool {
        self.ask_at > PIECE
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut done = 0;
        let result = self.hand_over(&mut done);
        self.written += done as u64;
        self.tail.drain(..done);
        self.ask_at = if result.is_ok() { PIECE } else { self.tail.len() + PIECE };
        result
    }

    fn hand_over(&mut self, done: &mut usize) -> io::Result<()> {
        self.failpoints.pass("lake.write")?;
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create_new(&self.path)?),
        };
        while *done < self.tail.len() {
            match file.write(&self.tail[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => *done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Hands everything to the disk, and makes it durable.
    ///
    /// # Errors
    /// A retriable one if the disk has refused bytes that are still here: call it again. Any other
    /// means that the file is lost.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.drain().map_err(|e| passing("write", ROLE, &self.path, e))?;
        let sync = || match &self.file {
            Some(file) => self.failpoints.pass("lake.sync").and_then(|()| file.sync_all()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        sync().map_err(|e| lost(ROLE, &self.path, e))
    }

    /// All bytes so far, and their hash.
    pub(super) fn content(&self) -> (u64, String) {
        let bytes = self.written + self.tail.len() as u64;
        (bytes, hash_text(&self.hash))
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= self.ask_at {
            // It is tried again, at the latest by `seal`, which says what is wrong.
            let _ = self.drain();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hash_text(hash: &Xxh3) -> String {
    format!("xxh3:{:032x}", hash.digest128())
}

/// The length and the hash of a file, as manifests have them.
pub(super) fn content_of(path: &Path) -> io::Result<(u64, String)> {
    let mut hash = Xxh3::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok((bytes, hash_text(&hash))),
            Ok(n) => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn staged(folder: &Path, name: &str, refusals: u32) -> Staged {
        let left = Arc::new(AtomicU32::new(refusals));
        let failpoints = Failpoints::new(move |step| {
            let take = |n: u32| n.checked_sub(1);
            let refused = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
            if step == "lake.write" && refused {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        });
        Staged::new(folder.join(name), failpoints)
    }

    #[test]
    fn f69_every_byte_comes_once_whatever_the_disk_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|n| (n * 31 % 251) as u8).collect();
        for refusals in 0..8 {
            let mut staged = staged(folder.path(), &format!("{refusals}"), refusals);
            for piece in bytes.chunks(100_000) {
                staged.write_all(piece).unwrap();
            }
            let mut failures = 0;
            while let Err(error) = staged.seal() {
                assert!(error.is_retriable() && staged.is_behind(), "{error}");
                failures += 1;
            }
            assert!(failures <= refusals && !staged.is_behind());
            assert_eq!(std::fs::read(staged.path()).unwrap(), bytes);
            assert_eq!(content_of(staged.path()).unwrap(), staged.content());
        }
    }

    #[test]
    fn f71_a_file_whose_sync_failed_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let failpoints = Failpoints::new(|step| match step {
            "lake.sync" => Err(io::Error::other("input/output error")),
            _ => Ok(()),
        });
        let mut staged = Staged::new(folder.path().join("a"), failpoints);
        staged.write_all(b"rows").unwrap();
        let error = staged.seal().unwrap_err();
        assert!(!error.is_retriable(), "{error}");
        assert!(error.to_string().contains("the next start reads"), "{error}");
    }
}
