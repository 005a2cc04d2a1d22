//! Files as a source: every line is a record.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::input::{self, Input};
use super::reader::LineReader;
use super::split::{self, Identity};
use super::watch::Watcher;
use crate::connector::{RawRecord, Source, SplitReader, Wake};
use crate::error::{Error, Result};
use crate::record::Split;
use crate::time::{Clock, SystemClock};

/// Reads lines of files, JSON or other; each file is a split (rule D14).
///
/// A line ends with LF or CRLF, and an empty line is a record with an empty value. The position is
/// the number of the line; the first is 0.
///
/// A plain file is followed: whatever is appended is read, and a line that is begun waits for its
/// end. With [`bounded`](Self::bounded) it is read to its end, and what follows the last line feed
/// is a line too. A `.gz` file (cargo feature `gzip`) is always read so. A file that is read in a
/// bounded run must not be appended to meanwhile in the middle of a line.
///
/// A file is known by its path and its head: one that was truncated, or replaced by another, is
/// refused. The record timestamp is the later of the file's modification and the moment the job saw
/// it first.
///
/// ```
/// use streamkit::connector::file::FileSource;
///
/// let source = FileSource::new(["monday.jsonl.gz", "today.jsonl"]);
/// ```
#[derive(Clone)]
pub struct FileSource {
    paths: Vec<PathBuf>,
    bounded: bool,
    max_line: usize,
    clock: Arc<dyn Clock>,
    watcher: Arc<Watcher>,
}

impl FileSource {
    /// Reads these files. Their order gives them their partition numbers the first time.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            bounded: false,
            max_line: 64 << 20,
            clock: Arc::new(SystemClock::new()),
            watcher: Arc::default(),
        }
    }

    /// Whether plain files end, too, where they end now. Otherwise they are followed.
    #[must_use]
    pub fn bounded(mut self, bounded: bool) -> Self {
        self.bounded = bounded;
        self
    }

    /// How long a line may be, about; 64 MiB unless told. A longer one is an error, since it would
    /// have to fit into memory.
    #[must_use]
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    /// Asks this clock when a file was seen first.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource")
            .field("paths", &self.paths)
            .field("bounded", &self.bounded)
            .finish_non_exhaustive()
    }
}

impl Source for FileSource {
    type Item = RawRecord;

    fn describe(&self) -> String {
        match self.paths.as_slice() {
            [path] => format!("file {}", path.display()),
            [path, more @ ..] => format!("file {} and {} more", path.display(), more.len()),
            [] => "no file".to_owned(),
        }
    }

    fn splits(&self, known: &[Split]) -> Result<Vec<Split>> {
        if self.paths.is_empty() {
            return Err(Error::user("there is no input file to read"));
        }
        let mut seen = BTreeSet::new();
        let mut splits = Vec::with_capacity(self.paths.len());
        let mut next = known.iter().map(|s| s.partition + 1).max().unwrap_or(0);
        let known = known.iter().map(|s| Ok((s, Identity::of(s)?))).collect::<Result<Vec<_>>>()?;
        for path in &self.paths {
            let full = split::canonical(path)?;
            match known.iter().find(|(_, identity)| identity.path == Path::new(&full)) {
                Some((split, identity)) => {
                    identity.check(&mut split::open(&identity.path)?)?;
                    splits.push((*split).clone());
                }
                None => {
                    // Opened so that a file that cannot be read is found at start.
                    Input::open(Path::new(&full))?;
                    splits.push(split::first_sight(&full, next, &*self.clock)?);
                    next += 1;
                }
            }
            if !seen.insert(full) {
                return Err(Error::user(format!("the input {} is given twice", path.display())));
            }
        }
        Ok(splits)
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(0)
    }

    fn end(&self, split: &Split) -> Result<u64> {
        LineReader::open(Identity::of(split)?, split.partition, self.max_line, None)?.count()
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = RawRecord>>> {
        let identity = Identity::of(split)?;
        let follower = if self.bounded || input::is_packed(&identity.path) {
            None
        } else {
            Some(self.watcher.follow(&identity.path, wake)?)
        };
        let mut reader = LineReader::open(identity, split.partition, self.max_line, follower)?;
        reader.seek(position)?;
        Ok(Box::new(reader))
    }
}
