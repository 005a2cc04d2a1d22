//! Files as topics: rows as lines, and a sidecar that says how much of the file is committed.
//!
//! ```text
//! commit    append ─ sync the file ─ write and sync <file>.progress.tmp ─ rename it ─ sync the folder
//!                                                                         └ this is the commit
//! ```
//!
//! Appending cannot be undone by a reader: it may see lines after the committed length, which a
//! crash takes back and the restart writes again (rule D11).

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::durable::{self, Failpoints, beside, failed};
use crate::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::{broken, failpoint};
use crate::record::Batch;
use crate::time::millis;

/// How much is collected before it is appended.
const BUFFER: usize = 256 << 10;

type Encode<T> = Arc<dyn Fn(&T, &mut Vec<u8>) + Send + Sync>;

/// Writes every row as one line of a file.
///
/// Beside the file are `<file>.progress`, with the committed length and the progress, and
/// `<file>.lock`, which one process holds at a time. A file that has content but no sidecar is
/// refused: it was written by somebody else.
///
/// ```
/// use streamkit::connector::file::LinesSink;
///
/// let sink = LinesSink::new("names.txt", |name: &String, line| line.extend(name.bytes()));
/// ```
pub struct LinesSink<T> {
    path: PathBuf,
    encode: Encode<T>,
    options: SinkOptions,
    failpoints: Failpoints,
}

impl<T> LinesSink<T> {
    /// Writes to this file. `encode` appends the text of a row, without a line feed; one within the
    /// text becomes a space (which in JSON changes nothing), so that a row is always one line.
    pub fn new(
        path: impl Into<PathBuf>,
        encode: impl Fn(&T, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            path: path.into(),
            encode: Arc::new(encode),
            options: SinkOptions::default().commit_within(millis(200)),
            failpoints: Failpoints::default(),
        }
    }

    /// How long rows may wait for a commit, which syncs to disk; 200 ms unless told.
    #[must_use]
    pub fn commit_within(mut self, time: Duration) -> Self {
        self.options = self.options.commit_within(time);
        self
    }

    /// Calls `hook` at each named step of a commit; an error fails the step. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn failpoints(
        mut self,
        hook: impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.failpoints = Failpoints::new(hook);
        self
    }
}

impl<T> fmt::Debug for LinesSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinesSink").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T: Data> Sink<T> for LinesSink<T> {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn options(&self) -> SinkOptions {
        self.options
    }

    fn open(&mut self, _context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        durable::create_folder("the folder", durable::folder(&self.path))?;
        append_to(&self.path)?;
        Ok(Box::new(LinesWriter {
            progress_path: beside(&self.path, ".progress"),
            path: self.path.clone(),
            encode: Arc::clone(&self.encode),
            failpoints: self.failpoints.clone(),
            lock: None,
            open: None,
        }))
    }
}

fn append_to(path: &Path) -> Result<File> {
    let file = durable::options().create(true).append(true).open(path);
    file.map_err(|e| failed("open", "the output", path, e))
}

/// What the sidecar holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sidecar {
    format: u32,
    /// The committed bytes of the file.
    length: u64,
    /// `None`: claimed, and nothing committed yet.
    progress: Option<Progress>,
    lineage: String,
    /// Grows with each claim.
    owner: u64,
    job: String,
    sink: String,
}

struct LinesWriter<T> {
    path: PathBuf,
    progress_path: PathBuf,
    encode: Encode<T>,
    failpoints: Failpoints,
    lock: Option<File>,
    /// `None` before `recover`, and after any failure until the next one.
    open: Option<Open>,
}

struct Open {
    file: File,
    /// The file's length.
    length: u64,
    buffer: Vec<u8>,
    stored: Sidecar,
}

impl<T> LinesWriter<T> {
    fn read_sidecar(&self) -> Result<Option<Sidecar>> {
        durable::read_sealed("the progress file", &self.progress_path)
    }

    fn failed(&self, attempt: &str) -> impl Fn(std::io::Error) -> Error {
        let (attempt, path) = (attempt.to_owned(), self.path.clone());
        move |e| failed(&attempt, "the output", &path, e)
    }

    /// Appends what has been collected.
    fn flush(&self, open: &mut Open) -> Result<()> {
        open.file.write_all(&open.buffer).map_err(self.failed("append to"))?;
        open.length += open.buffer.len() as u64;
        open.buffer.clear();
        Ok(())
    }

    /// Writes the next sidecar where it does not count yet.
    fn stage(&self, sidecar: &Sidecar) -> Result<PathBuf> {
        let temporary = beside(&self.progress_path, ".tmp");
        durable::write_synced(&temporary, &durable::seal(sidecar))
            .map_err(|e| failed("write", "the progress file", &temporary, e))?;
        Ok(temporary)
    }

    /// Makes the staged sidecar count.
    fn publish(&self, temporary: &Path) -> std::io::Result<()> {
        fs::rename(temporary, &self.progress_path)?;
        self.failpoints.pass("lines.after_rename")?;
        durable::sync_folder(durable::folder(&self.path))
    }

    fn claim(&mut self, claim: &Claim) -> Result<Open> {
        if self.lock.is_none() {
            let path = beside(&self.path, ".lock");
            self.lock = durable::lock("the lock file", &path)?;
        }
        if self.lock.is_none() {
            return Err(Error::fenced(format!(
                "another process writes to {}; stop it first (its lock ends with it, so there is \
                 nothing to take over)",
                self.path.display()
            )));
        }
        let file = append_to(&self.path)?;
        let length = file.metadata().map_err(self.failed("read"))?.len();
        let stored = self.read_sidecar()?;
        let name = self.path.display();
        if stored.is_none() && length > 0 {
            return Err(Error::user(format!(
                "{name} holds {length} bytes, and {} is missing: it was not written by this job. \
                 Move it away, or bring the progress file back",
                self.progress_path.display()
            )));
        }
        let mut stored = stored.unwrap_or_else(|| Sidecar {
            format: 1,
            length: 0,
            progress: None,
            lineage: claim.lineage.clone(),
            owner: 0,
            job: claim.job.clone(),
            sink: claim.sink.clone(),
        });
        if stored.format != 1 {
            return Err(Error::corrupt(format!(
                "{} is of format {}, and this version reads format 1",
                self.progress_path.display(),
                stored.format
            )));
        }
        if stored.progress.is_some() && stored.lineage != claim.lineage {
            return Err(Error::fenced(format!(
                "{name} is of lineage {} (job {}), and this job is of lineage {}",
                stored.lineage, stored.job, claim.lineage
            ))
            .of_lineage(&stored.lineage));
        }
        if length < stored.length {
            return Err(Error::corrupt(format!(
                "{name} holds {length} bytes, and {} were committed: it was truncated",
                stored.length
            )));
        }
        if length > stored.length && !broken("lines.truncate") {
            file.set_len(stored.length).map_err(self.failed("truncate"))?;
            file.sync_all().map_err(self.failed("sync"))?;
            failpoint("lines.truncated");
        }
        stored.owner += 1;
        stored.lineage.clone_from(&claim.lineage);
        stored.job.clone_from(&claim.job);
        stored.sink.clone_from(&claim.sink);
        let temporary = self.stage(&stored)?;
        self.publish(&temporary)
            .map_err(|e| failed("claim", "the progress file", &self.progress_path, e))?;
        failpoint("lines.claimed");
        let (length, buffer) = (stored.length, Vec::with_capacity(BUFFER));
        Ok(Open { file, length, buffer, stored })
    }
}

impl<T: Data> SinkWriter<T> for LinesWriter<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.open = None;
        let open = self.claim(claim)?;
        let progress = open.stored.progress.clone();
        self.open = Some(open);
        Ok(progress)
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        let mut open = self.open.take().ok_or_else(unclaimed)?;
        for row in batch.values() {
            let start = open.buffer.len();
            (self.encode)(row, &mut open.buffer);
            one_line(&mut open.buffer, start);
            if open.buffer.len() >= BUFFER {
                self.flush(&mut open)?;
            }
        }
        self.open = Some(open);
        Ok(())
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let mut open = self.open.take().ok_or_else(unclaimed)?;
        let at = |step| self.failpoints.pass(step).map_err(self.failed("commit to"));
        self.flush(&mut open)?;
        at("lines.after_append")?;
        if open.length > open.stored.length {
            open.file.sync_data().map_err(self.failed("sync"))?;
        }
        at("lines.after_sync")?;
        // The lock keeps others out; this notices where locks do not work, as on some network mounts.
        let owner = self.read_sidecar()?.map(|stored| stored.owner);
        if owner != Some(open.stored.owner) {
            return Err(Error::fenced(format!("{} was taken over", self.path.display())));
        }
        open.stored.length = open.length;
        open.stored.progress = Some(progress.clone());
        let temporary = self.stage(&open.stored)?;
        at("lines.after_stage")?;
        if let Err(error) = self.publish(&temporary) {
            tracing::warn!(path = %self.path.display(), %error, "it is not certain whether a commit succeeded");
            return Ok(Commit::Unknown);
        }
        self.open = Some(open);
        Ok(Commit::Done)
    }
}

/// Ends the row that begins at `start`, and sees to it that it is one line.
fn one_line(buffer: &mut Vec<u8>, mut start: usize) {
    while let Some(at) = memchr(b'\n', &buffer[start..]) {
        start += at;
        buffer[start] = b' ';
    }
    buffer.push(b'\n');
}

fn unclaimed() -> Error {
    Error::internal("a file was written to before `recover`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_sidecar() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.progress");
        let text = |s: &str| s.to_owned();
        let (lineage, job, sink) = (text("l"), text("j"), text("s"));
        let sidecar =
            Sidecar { format: 1, length: 70, progress: None, lineage, owner: 3, job, sink };
        let corpus = [durable::seal(&sidecar).into_bytes()];
        crate::testing::fuzz("sidecar", &corpus, |bytes| {
            fs::write(&path, bytes).unwrap();
            if let Ok(read) = durable::read_sealed::<Sidecar>("the progress file", &path) {
                assert_eq!(read.as_ref(), Some(&sidecar));
            }
        });
    }
}
