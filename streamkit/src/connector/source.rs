//! The contract of a source.

use std::fmt;
use std::sync::Arc;

use super::{DeadLetter, RawRecord};
use crate::data::Data;
use crate::error::Result;
use crate::record::{Split, SplitId};

/// Where records come from. It lists splits and opens a reader for each.
///
/// Everything but [`SplitReader::read`] may block: it is called from threads that do nothing else.
pub trait Source: Send + Sync + 'static {
    /// What one record is.
    type Item: Data;

    /// What is read, for the printed plan and for messages: `kafka topic user_activity`.
    fn describe(&self) -> String;

    /// All splits that exist now, in a stable order. Called at start and, while an unbounded job
    /// runs, every [`discover_every`](crate::RunConfig::discover_every) from a thread of its own:
    /// those that are not among `known` are taken in.
    ///
    /// `known` are the splits that the job has seen before, as they were reported then. A split
    /// that is known must be reported with the same `id`; its `topic`, `partition` and `memo` are
    /// taken from `known`.
    ///
    /// # Errors
    /// If the splits cannot be listed: a topic or a file that does not exist, a broker out of reach.
    fn splits(&self, known: &[Split]) -> Result<Vec<Split>>;

    /// The position at which a split is read the first time: the start of the data, or wherever the
    /// source is configured to start.
    ///
    /// # Errors
    /// If the position cannot be found out.
    fn start(&self, split: &Split) -> Result<u64>;

    /// The position after the last record that exists now: where a bounded run ends. A reader must
    /// get to this position (by records, or by [`ReadBatch::set_next`]) once it has read all of it.
    ///
    /// # Errors
    /// If there is no end, or it cannot be found out.
    fn end(&self, split: &Split) -> Result<u64>;

    /// Opens a split so that the first record read is the one at `position`.
    ///
    /// A reader that has something new calls `wake`; it may do so at any time and from any thread.
    ///
    /// # Errors
    /// If there is no such position any more: it must never silently start elsewhere.
    fn open(
        &self,
        split: &Split,
        position: u64,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = Self::Item>>>;

    /// These positions are durable everywhere. For monitoring (a consumer group's lag) only; the
    /// job never starts from what is stored here.
    fn committed(&self, positions: &[(SplitId, u64)]) {
        let _ = positions;
    }
}

/// Reads one split.
pub trait SplitReader: Send {
    /// What one record is.
    type Item;

    /// Appends up to `max` records to `batch`, in order, and sets the batch's next position.
    ///
    /// Must not block longer than a read from a local disk takes: the thread serves other splits
    /// and operators. With nothing at hand, say so and call [`Wake`] later.
    ///
    /// # Errors
    /// If the split cannot be read. The job stops; there is no second chance for the reader.
    fn read(&mut self, batch: &mut ReadBatch<Self::Item>, max: usize) -> Result<ReadStatus>;

    /// How many records are waiting to be read, if that is known: the lag.
    fn lag(&self) -> Option<u64> {
        None
    }
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// There may be more.
    More,
    /// Nothing at hand, and no evidence about the end: a slow network, a broker out of reach.
    Waiting,
    /// The split has been read to its end as it is now, and the source is certain of that. Only
    /// this makes a split idle after a while.
    CaughtUp,
    /// There will never be more.
    Ended,
}

/// Wakes the thread that reads a split.
#[derive(Clone)]
pub struct Wake(Arc<dyn Fn() + Send + Sync>);

impl Wake {
    /// A wake-up that calls `f`.
    pub fn new(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Says that a read may now find something.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

/// What one read brings: records, dead letters, and the position after both.
#[derive(Debug)]
pub struct ReadBatch<T> {
    pub(crate) items: Vec<T>,
    /// The position of each item.
    pub(crate) offsets: Vec<u64>,
    /// The undecoded form of each item; empty if the source has none.
    pub(crate) raws: Vec<RawRecord>,
    /// Dead letters with their positions.
    pub(crate) rejected: Vec<(u64, DeadLetter)>,
    pub(crate) next: u64,
}

impl<T> Default for ReadBatch<T> {
    fn default() -> Self {
        Self { items: vec![], offsets: vec![], raws: vec![], rejected: vec![], next: 0 }
    }
}

impl<T> ReadBatch<T> {
    /// Adds the record at `offset`, and moves the next position behind it.
    pub fn push(&mut self, offset: u64, item: T) {
        self.items.push(item);
        self.offsets.push(offset);
        self.next = offset + 1;
    }

    /// Adds records whose positions follow on each other, from `first` on, and moves the next position
    /// behind the last.
    pub fn extend(&mut self, first: u64, items: impl IntoIterator<Item = T>) {
        self.items.extend(items);
        let new = (self.items.len() - self.offsets.len()) as u64;
        self.offsets.extend(first..first + new);
        self.next = first + new;
    }

    /// Moves the next position without a record: control records and compaction leave gaps.
    pub fn set_next(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// The position after everything in the batch.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The number of records, dead letters included.
    pub fn len(&self) -> usize {
        self.items.len() + self.rejected.len()
    }

    /// Whether there is neither a record nor a dead letter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records and their positions.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.offsets.iter().copied().zip(&self.items)
    }

    /// Empties the batch and says where it begins.
    pub(crate) fn restart(&mut self, next: u64) {
        self.items.clear();
        self.offsets.clear();
        self.raws.clear();
        self.rejected.clear();
        self.next = next;
    }
}
