//! Which file is which, over restarts (rule D14).
//!
//! A path alone is not enough: a file that was replaced by another under the same name would be
//! read on from a line number that means nothing in it. Content alone is not enough either: the
//! file grows. So a split is a path and a hash of the file's head, as long as it was when the file
//! was seen first; the length is kept in the split's memo.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::durable::failed;
use crate::error::{Error, Result};
use crate::record::{Split, SplitId};
use crate::time::{Clock, Timestamp};

/// How much of a file tells it from others, at most.
const HEAD: u64 = 4_096;

/// What a file's split remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// How many bytes the hash in the split's id covers.
    pub(super) hashed: u64,
    /// What `max_future` is measured against: the later of modification and first sight.
    pub(super) limit_base: Timestamp,
}

/// A known file: its split's id taken apart, and the memo.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    pub(super) memo: Memo,
    hash: String,
}

impl Identity {
    /// Reads a split that was made by [`first_sight`].
    pub(super) fn of(split: &Split) -> Result<Self> {
        let odd = || Error::corrupt(format!("{} is not the split of a file", split.id));
        let (path, hash) = split.id.as_str().rsplit_once('#').ok_or_else(odd)?;
        let memo = serde_json::from_str(&split.memo).map_err(|e| odd().because(e))?;
        Ok(Self { path: PathBuf::from(path), memo, hash: hash.to_owned() })
    }

    /// Whether the file still begins as it did. It leaves the file at its start.
    pub(super) fn check(&self, file: &mut File) -> Result<()> {
        let (length, hash) = head(file, self.memo.hashed)
            .and_then(|head| file.seek(SeekFrom::Start(0)).map(|_| head))
            .map_err(|e| failed("read", "the input", &self.path, e))?;
        if length == self.memo.hashed && hash == self.hash {
            return Ok(());
        }
        Err(Error::user(format!(
            "{} is not the file that this job has read before: its first {} bytes have changed. \
             Bring the old file back, or give the new one another name",
            self.path.display(),
            self.memo.hashed
        )))
    }
}

/// Opens an input file, for reading only.
pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| failed("open", "the input", path, e))
}

/// The path under which a file is known: absolute and without links.
pub(super) fn canonical(path: &Path) -> Result<String> {
    let full = fs::canonicalize(path).map_err(|e| failed("open", "the input", path, e))?;
    let metadata = fs::metadata(&full).map_err(|e| failed("open", "the input", path, e))?;
    if !metadata.is_file() {
        return Err(Error::user(format!("the input {} is not a regular file", path.display())));
    }
    full.into_os_string().into_string().map_err(|path| {
        Error::user(format!("the name of the input {} is not UTF-8", path.display()))
    })
}

/// Makes the split of a file that was never seen before.
pub(super) fn first_sight(path: &str, partition: i32, clock: &dyn Clock) -> Result<Split> {
    let on_error = |e| failed("read", "the input", Path::new(path), e);
    let mut file = open(Path::new(path))?;
    let (hashed, hash) = head(&mut file, HEAD).map_err(on_error)?;
    let modified = file.metadata().and_then(|m| m.modified()).map_err(on_error)?;
    let modified = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let modified = Timestamp::from_micros(0).saturating_add(modified);
    let memo = Memo { hashed, limit_base: modified.max(clock.now()) };
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    Ok(Split {
        id: SplitId::new(format!("{path}#{hash}")),
        topic: name.into(),
        partition,
        // Two integers: serializing them cannot fail.
        memo: serde_json::to_string(&memo).unwrap_or_default(),
    })
}

/// The first `length` bytes, or all if there are fewer: how many, and their hash.
fn head(file: &mut File, length: u64) -> std::io::Result<(u64, String)> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64, format!("{:016x}", xxh3_64(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ManualClock, hours};

    #[test]
    fn d14_an_id_survives_growth_and_does_not_survive_another_head() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a#b.jsonl");
        fs::write(&path, "first\n").unwrap();
        let path = canonical(&path).unwrap();
        let clock = ManualClock::at(Timestamp::from_micros(5));
        let split = first_sight(&path, 3, &clock).unwrap();
        assert_eq!((split.partition, &*split.topic), (3, "a#b.jsonl"));
        let identity = Identity::of(&split).unwrap();
        assert_eq!(identity.path, Path::new(&path));
        assert_eq!(identity.memo.hashed, 6);
        for (content, same) in
            [("first\nsecond\n", true), ("first\n", true), ("first", false), ("fIrst\n", false)]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(identity.check(&mut open(path.as_ref()).unwrap()).is_ok(), same);
        }
    }

    #[test]
    fn d14_the_limit_base_is_the_later_of_modification_and_first_sight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "").unwrap();
        let path = canonical(&path).unwrap();
        let base = |clock: &ManualClock| {
            let split = first_sight(&path, 0, clock).unwrap();
            Identity::of(&split).unwrap().memo.limit_base
        };
        let modified = base(&ManualClock::at(Timestamp::from_micros(5)));
        assert!(modified > Timestamp::from_micros(1_700_000_000_000_000));
        let later = modified.saturating_add(hours(1));
        assert_eq!(base(&ManualClock::at(later)), later);
    }

    #[test]
    fn the_format_of_a_memo_is_fixed() {
        let memo = Memo { hashed: 7, limit_base: Timestamp::from_micros(9) };
        let text = r#"{"hashed":7,"limit_base":9}"#;
        assert_eq!(serde_json::to_string(&memo).unwrap(), text);
        assert_eq!(serde_json::from_str::<Memo>(text).unwrap(), memo);
    }
}
