//! What a running job shows of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::Position;
use crate::time::Timestamp;

/// The job at one moment. Counts are of the job's whole life, restarts included.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JobProgress {
    /// The job's name.
    pub job: String,
    /// What it is doing.
    pub state: JobState,
    /// The job's watermark; [`Timestamp::MIN`] until every split has had a record.
    pub watermark: Option<Timestamp>,
    /// Records read: accepted and dead letters.
    pub read: u64,
    /// Records accepted.
    pub accepted: u64,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Records that each aggregate wants.
    pub wanted: BTreeMap<String, u64>,
    /// Of those, late ones.
    pub late: BTreeMap<String, u64>,
    /// Of those, counted ones, as the operators themselves have counted them. When everything has
    /// been processed, wanted = counted + late.
    pub counted: BTreeMap<String, u64>,
    /// Records that each operator has given up, since it failed on them: they are accepted, have a
    /// dead letter, and are not among those wanted.
    pub given_up: BTreeMap<String, u64>,
    /// Every split.
    pub splits: Vec<SplitProgress>,
    /// Every stateful operator.
    pub operators: Vec<OperatorProgress>,
    /// Every sink.
    pub sinks: Vec<SinkProgress>,
    /// The newest checkpoint.
    pub checkpoint: Option<CheckpointProgress>,
    /// Why the job as a whole does not get on, if it does not: a source that does not answer at the
    /// start, a fact that cannot be written. It is tried again.
    pub trouble: Option<String>,
    /// Workers that wait for room in a queue.
    pub back_pressured: usize,
    /// Workers.
    pub workers: usize,
    /// The time since the job was started.
    pub uptime: Duration,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum JobState {
    /// It recovers: opens sinks, reads the checkpoint log, finds the splits.
    #[default]
    Starting,
    /// It runs.
    Running,
    /// It has been asked to stop, or its input has ended, and it commits what it has.
    Stopping,
    /// It has ended well.
    Ended,
    /// It has failed.
    Failed,
}

/// A split at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SplitProgress {
    /// Its name.
    pub split: String,
    /// Where it has been read to.
    pub position: Position,
    /// Its own watermark.
    pub watermark: Option<Timestamp>,
    /// Whether it is idle, and so does not hold the job's watermark.
    pub idle: bool,
    /// Whether it has been read to its end.
    pub ended: bool,
    /// Since when it has brought nothing although it was read to its end.
    pub quiet_for: Option<Duration>,
    /// Records that wait to be read, if known.
    pub lag: Option<u64>,
}

/// A stateful operator at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OperatorProgress {
    /// Its name.
    pub name: String,
    /// Windows, sessions or keys that are open.
    pub open: u64,
    /// The earliest event time at which something may become final.
    pub next_fire: Option<Timestamp>,
}

/// A sink at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SinkProgress {
    /// Its name.
    pub name: String,
    /// What it writes to.
    pub target: String,
    /// Final rows committed since the job began.
    pub rows: u64,
    /// Of those, rows that the target has refused, and that were put aside.
    pub rejected: u64,
    /// Commits in this run.
    pub commits: u64,
    /// Every final result up to this time is in, for a sink behind windows.
    pub watermark: Option<Timestamp>,
    /// Records before these positions are in, for a sink behind stateless steps; and how many of
    /// them were accepted.
    pub positions: BTreeMap<String, Position>,
    /// Rows written and not committed.
    pub pending_rows: u64,
    /// Why it does not get on, if it does not: it is tried again.
    pub trouble: Option<String>,
    /// Records that have been read and that a sink behind stateless steps has not been sent yet: it
    /// was far behind at the start, or is left out while it is stuck.
    pub behind: u64,
    /// Whether the job goes on without the sink for now, since it is stuck and its queue is full.
    pub detached: bool,
    /// How long the last commit took.
    pub last_commit: Duration,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CheckpointProgress {
    /// Its number.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
    /// From the barrier to the durable object.
    pub duration: Duration,
    /// Of that, the longest time that records stood still at once: state is written in portions, with
    /// records taken in between.
    pub pause: Duration,
    /// How long ago it was made.
    pub age: Duration,
}
