//! The contract of a sink.

use std::time::Duration;

use super::{Claim, Commit, Progress};
use crate::error::Result;
use crate::record::Batch;
use crate::time::millis;

/// Where records go.
#[diagnostic::on_unimplemented(
    message = "this sink does not accept `{T}` records",
    note = "convert the records with `.map(..)` before `.sink(..)`"
)]
pub trait Sink<T>: Send + 'static {
    /// What is written, for the printed plan and for messages: `kafka topic enriched_activity`.
    fn describe(&self) -> String;

    /// How the runtime should treat the sink.
    fn options(&self) -> SinkOptions {
        SinkOptions::default()
    }

    /// Connects, and checks everything that can be checked before the first row.
    ///
    /// # Errors
    /// If the target is not there, or not as it must be. A retriable error is retried.
    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>>;
}

impl<T: 'static> Sink<T> for Box<dyn Sink<T>> {
    fn describe(&self) -> String {
        (**self).describe()
    }

    fn options(&self) -> SinkOptions {
        (**self).options()
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        (**self).open(context)
    }
}

/// How the runtime treats a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkOptions {
    /// Whether a later row of the same key replaces an earlier one. Only such a sink gets running
    /// values; any other sees final rows only.
    pub upserts: bool,
    /// How long rows may wait for a commit, counted from the first row after the last commit.
    /// Zero: commit as soon as nothing more is at hand.
    pub commit_within: Duration,
    /// Where commits are quick, rows wait for one only as long as the last one took, but at least this
    /// long. `None`: they wait for [`commit_within`](Self::commit_within) in any case.
    pub commit_soonest: Option<Duration>,
    /// The same as `commit_within` for the very first commit of a job: so that there is something to
    /// see early where commits are rare.
    pub first_commit_within: Option<Duration>,
    /// How long progress without any row may wait for a commit.
    pub note_within: Duration,
    /// Whether the runtime keeps rows until they are committed, to write them again after an error.
    /// For a sink whose commits are so far apart that the rows between two of them do not fit into
    /// memory, it does not. Then the writer keeps what it has taken, so that a commit that failed can
    /// be made again as it is; see [`SinkWriter`]. An error of `write` stops the job, and the next
    /// start reads the rows again.
    pub keeps_rows: bool,
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self {
            upserts: false,
            commit_within: millis(50),
            commit_soonest: None,
            first_commit_within: None,
            note_within: millis(1_000),
            keeps_rows: true,
        }
    }
}

impl SinkOptions {
    /// A later row of the same key replaces an earlier one.
    #[must_use]
    pub fn upserts(mut self) -> Self {
        self.upserts = true;
        self
    }

    /// Rows may wait this long for a commit.
    #[must_use]
    pub fn commit_within(mut self, time: Duration) -> Self {
        self.commit_within = time;
        self
    }

    /// Rows wait for a commit only as long as the last one took, but at least this long.
    #[must_use]
    pub fn commit_soonest(mut self, time: Duration) -> Self {
        self.commit_soonest = Some(time);
        self
    }

    /// The runtime does not keep rows until they are committed; see
    /// [`keeps_rows`](Self::keeps_rows).
    #[must_use]
    pub fn without_kept_rows(mut self) -> Self {
        self.keeps_rows = false;
        self
    }

    /// The rows of the job's very first commit may wait this long.
    #[must_use]
    pub fn first_commit_within(mut self, time: Duration) -> Self {
        self.first_commit_within = Some(time);
        self
    }

    /// Progress without rows may wait this long for a commit.
    #[must_use]
    pub fn note_within(mut self, time: Duration) -> Self {
        self.note_within = time;
        self
    }
}

/// What a sink is told when it is opened.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The job's name.
    pub job: String,
    /// The sink's name within the job.
    pub sink: String,
    /// Which copy of the program this is; stable over restarts.
    pub instance: String,
    /// The runtime that the job was started in, for clients that are async: a writer has a thread
    /// of its own and may block on it.
    pub runtime: tokio::runtime::Handle,
}

/// Writes to one target. It has a thread of its own, so that it may block.
///
/// The life of a writer: `recover`, then `write` any number of times and `commit`, and so on. The
/// rows between two commits, the commit's progress, and nothing else, become visible in one atomic
/// step. After any error, and after [`Commit::Unknown`], the runtime waits a little, calls
/// `recover` again and then writes again every row that the recovered progress does not cover.
///
/// A writer [without kept rows](SinkOptions::without_kept_rows) is not asked to `recover` again:
/// after a retriable error of `commit`, and after [`Commit::Unknown`], the runtime waits a little and
/// calls `commit` again, with the same progress, until it is done. So the writer must keep whatever
/// it has taken, and each step of its commit must be one that can be repeated. Any error of `write`
/// stops the job; so it should take what it cannot pass on yet, and be [full](Self::is_full).
pub trait SinkWriter<T>: Send {
    /// Discards whatever is not committed, takes ownership of the target so that no older process
    /// can commit any more, and reads the stored progress: `None` if this job never committed.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) if another process holds the target, or it
    /// belongs to another lineage; a retriable error if the target is out of reach.
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>>;

    /// Adds the batch's selected rows to the open transaction. [`Batch::kind`] says whether they
    /// are final; running rows come only if [`SinkOptions::upserts`]. Batches are never empty.
    ///
    /// # Errors
    /// A retriable error sends the runtime back to `recover`; any other stops the job.
    fn write(&mut self, batch: &Batch<T>) -> Result<()>;

    /// Stores `progress` and makes it and all rows since the last commit durable and visible, in
    /// one atomic step.
    ///
    /// # Errors
    /// As for `write`. If it is not certain that nothing was committed: [`Commit::Unknown`].
    fn commit(&mut self, progress: &Progress) -> Result<Commit>;

    /// Whether the open transaction is as large as it should get.
    fn is_full(&self) -> bool {
        false
    }

    /// Final rows that the target has refused since the job began, and that were put aside instead:
    /// a commit's progress counts them as written.
    fn rejected(&self) -> u64 {
        0
    }
}
