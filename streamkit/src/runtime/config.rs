//! How a job is run; what it computes does not depend on it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{Inspector, Location};
use crate::error::{Error, Result};
use crate::state::KEY_GROUPS;
use crate::time::{Clock, SystemClock, hours, seconds};

/// Where the checkpoint log is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Checkpoints {
    /// In memory: a restart within the process finds it, a restart of the process does not.
    #[default]
    None,
    /// In a local folder, one sub-folder for each job; written through to the disk.
    Directory(PathBuf),
    /// In memory, shared by all runs that are given this value: for tests of restarts.
    Shared(Arc<object_store::memory::InMemory>),
}

impl Checkpoints {
    /// A log in memory that later runs can be given too.
    pub fn shared() -> Self {
        Self::Shared(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Opens the checkpoints of a job to look at them, whether it is running or not. Nothing is
    /// written, and no lock is taken.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn inspect(&self, job: &str) -> Result<Inspector> {
        Inspector::open(self.location(), job)
    }

    pub(crate) fn location(&self) -> Location {
        match self {
            Self::None => Location::Memory(Arc::new(object_store::memory::InMemory::new())),
            Self::Shared(store) => Location::Memory(Arc::clone(store)),
            Self::Directory(path) => Location::Directory(path.clone()),
        }
    }
}

/// What happens where the input ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputEnd {
    /// At the end of what is there the job waits for more. Only where every reader says that there
    /// will never be more (a vector, a `.gz` file) it closes all windows and ends.
    #[default]
    Wait,
    /// The job reads what is there when it starts, closes all windows and ends. More input later is
    /// refused, unless the job is reopened.
    Close,
    /// The job reads what is there when it starts and stops; windows stay open for the next run.
    KeepOpen,
}

/// How to run a job. Made by [`RunConfig::new`], changed by its methods.
#[derive(Clone)]
pub struct RunConfig {
    pub(crate) workers: usize,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) checkpoint_portion: usize,
    pub(crate) running_values: Option<Duration>,
    pub(crate) end: InputEnd,
    pub(crate) reopen: bool,
    pub(crate) take_over: bool,
    pub(crate) rebuild: bool,
    pub(crate) accept_gap: BTreeSet<String>,
    pub(crate) backfill: BTreeSet<String>,
    pub(crate) allow_dropped_state: BTreeSet<String>,
    pub(crate) instance: String,
    pub(crate) queue: usize,
    pub(crate) drift: Duration,
    pub(crate) max_dead_letters: Option<f64>,
    pub(crate) discover_every: Option<Duration>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) detach_after: Duration,
    pub(crate) catch_up_beyond: u64,
    pub(crate) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for RunConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunConfig")
            .field("workers", &self.workers)
            .field("checkpoints", &self.checkpoints)
            .field("checkpoint_interval", &self.checkpoint_interval)
            .field("running_values", &self.running_values)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl RunConfig {
    /// One worker per core, no durable checkpoints, no end of the input.
    #[must_use]
    pub fn new() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            checkpoints: Checkpoints::None,
            checkpoint_interval: seconds(10),
            checkpoint_portion: 64 * 1024,
            running_values: None,
            end: InputEnd::Wait,
            reopen: false,
            take_over: false,
            rebuild: false,
            accept_gap: BTreeSet::new(),
            backfill: BTreeSet::new(),
            allow_dropped_state: BTreeSet::new(),
            instance: "0".to_owned(),
            queue: 128,
            drift: hours(1),
            max_dead_letters: None,
            discover_every: Some(seconds(5)),
            shutdown_timeout: seconds(30),
            detach_after: seconds(10),
            catch_up_beyond: 100_000,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Worker threads, 1 to 256. Default: the number of cores.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Where the checkpoint log is. Default: in memory only.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = checkpoints;
        self
    }

    /// The time between two checkpoints. Results do not wait for them; it bounds what is read again
    /// after a crash. Default: 10 s.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.checkpoint_interval = interval;
        self
    }

    /// About how many bytes of its state a worker writes for a checkpoint before it goes on with
    /// records: less means shorter pauses and longer checkpoints. State of [`Process`](crate::prelude::Process)
    /// is written at once. Default: 64 KiB.
    #[must_use]
    pub fn checkpoint_portion(mut self, bytes: usize) -> Self {
        self.checkpoint_portion = bytes.max(1);
        self
    }

    /// How often values of open windows are emitted to sinks that upsert. Default: never.
    #[must_use]
    pub fn running_values(mut self, interval: Option<Duration>) -> Self {
        self.running_values = interval;
        self
    }

    /// What happens where the input ends. Default: the job waits for more, if more can come.
    #[must_use]
    pub fn at_end(mut self, end: InputEnd) -> Self {
        self.end = end;
        self
    }

    /// Goes on with a job whose input was closed: records before the time at which it was closed
    /// are late.
    #[must_use]
    pub fn reopen(mut self, reopen: bool) -> Self {
        self.reopen = reopen;
        self
    }

    /// Takes sinks over from a process that still holds them.
    #[must_use]
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Computes the state of the job anew, from the first record of every split. Sinks keep what
    /// they have, and drop it when it comes again. For a checkpoint folder that is lost or damaged,
    /// and for changes of the plan that need all records: a result that is in a sink already stays
    /// as it is, and what follows is by the new plan.
    ///
    /// What was decided about records (when a silent split came back, where an input ended) is kept
    /// if the log still tells; of a lost log it is gone, so that records may count as late, or in
    /// time, that did not before. It is refused if the source has deleted the first records.
    #[must_use]
    pub fn rebuild(mut self, rebuild: bool) -> Self {
        self.rebuild = rebuild;
        self
    }

    /// Goes on although this sink lacks results: its target was emptied, or it was no part of the
    /// job for a while. It goes on from the checkpoint. Can be said for several sinks.
    #[must_use]
    pub fn accept_gap(mut self, sink: impl Into<String>) -> Self {
        self.accept_gap.insert(sink.into());
        self
    }

    /// Fills a sink behind stateless steps from the first record of every split on, if it is new to
    /// the job or its target was emptied; everything else goes on meanwhile. Without this a new sink
    /// starts at the checkpoint. The source must still have these records. Can be said for several
    /// sinks; for one that has begun already it means nothing.
    #[must_use]
    pub fn backfill(mut self, sink: impl Into<String>) -> Self {
        self.backfill.insert(sink.into());
        self
    }

    /// Lets the state of an operator go that is no longer part of the job, or has other parameters
    /// than before. Can be said for several operators.
    ///
    /// With its state go its open windows, and results that were not written yet; so stop the job
    /// cleanly before. An aggregate over windows begins again with the first window that starts
    /// after every record that was read and after every result that was written: windows that
    /// started before have no result by it. A new aggregate does the same without this. Sessions
    /// and [`process`](crate::stream::KeyedStream::process) cannot begin in the middle; they take a
    /// [`rebuild`](Self::rebuild).
    #[must_use]
    pub fn allow_dropped_state(mut self, operator: impl Into<String>) -> Self {
        self.allow_dropped_state.insert(operator.into());
        self
    }

    /// Which copy of the program this is: stable over restarts, different for copies that run at
    /// the same time. Default: `0`.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = instance.into();
        self
    }

    /// How many batches a queue between two threads holds, 64 or more. Default: 128.
    #[must_use]
    pub fn queue(mut self, batches: usize) -> Self {
        self.queue = batches;
        self
    }

    /// How much event time a split may be ahead of the slowest one that has unread records; it
    /// bounds the number of open windows. Default: 1 h.
    #[must_use]
    pub fn drift(mut self, drift: Duration) -> Self {
        self.drift = drift;
        self
    }

    /// The part of the records that may be dead letters, above 0 and below 1: with more of them
    /// among the records of this run, and at least 1,000 records, the job stops. It may be reading
    /// what it was not made for. Default: no limit.
    #[must_use]
    pub fn max_dead_letters(mut self, part: Option<f64>) -> Self {
        self.max_dead_letters = part;
        self
    }

    /// How often sources are asked for new splits while the job runs: partitions that were added to a
    /// topic. One that is found is read from its first record on, and gets a floor: what is older than
    /// the job's watermark at that moment is late. The same look
    /// notices that a topic was deleted and created again, which stops the job. `None`: only at the
    /// start. Default: 5 s.
    #[must_use]
    pub fn discover_every(mut self, interval: Option<Duration>) -> Self {
        self.discover_every = interval;
        self
    }

    /// How long a graceful stop may take. What is not committed then is written by the next run.
    /// Default: 30 s.
    #[must_use]
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// How long a sink behind stateless steps may be stuck in one write or commit, trying again
    /// included, with its queue full, before the job goes on without it. It gets what it lacks from the source when
    /// it is back; so the source must keep its records for as long as a target may be down. Until then
    /// the job waits for it, as it always does for a sink that is merely slow, and for one behind
    /// windows. Default: 10 s.
    #[must_use]
    pub fn detach_after(mut self, time: Duration) -> Self {
        self.detach_after = time;
        self
    }

    /// At the start, a sink behind stateless steps may be this many records of a split behind the
    /// checkpoint, and the job begins where it is. One that is further behind gets what it lacks by a
    /// reader of its own, while everything else goes on. Default: 100,000.
    #[must_use]
    pub fn catch_up_beyond(mut self, records: u64) -> Self {
        self.catch_up_beyond = records;
        self
    }

    /// The clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.workers < 1 || self.workers > usize::from(KEY_GROUPS) {
            return Err(Error::user(format!(
                "workers is {}, and must be from 1 to {KEY_GROUPS}",
                self.workers
            )));
        }
        if self.queue < 64 {
            return Err(Error::user(format!("queue is {}, and must be 64 or more", self.queue)));
        }
        if let Some(part) = self.max_dead_letters.filter(|part| !(*part > 0.0 && *part < 1.0)) {
            return Err(Error::user(format!(
                "max_dead_letters is {part}, and must be above 0 and below 1"
            )));
        }
        if self.checkpoint_interval.is_zero() || self.running_values.is_some_and(|r| r.is_zero()) {
            return Err(Error::user("an interval of zero is not possible"));
        }
        Ok(())
    }
}
