//! Where a split has been read to (rule T1).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The name of a split: `topic/partition`, or a file. Stable over restarts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitId(Arc<str>);

impl SplitId {
    /// A split's name.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a source that is read in order by one reader: a Kafka partition, a file, a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Its stable name.
    pub id: SplitId,
    /// The topic, or the file's name, as dead letters and late records report it.
    pub topic: Arc<str>,
    /// The partition's number, or the number that a file was given at first sight.
    pub partition: i32,
    /// What the source wants to remember of the split: whatever it says at first sight is stored
    /// with the job and comes back with every later [`open`](crate::connector::Source::open).
    pub memo: String,
}

impl Split {
    /// A split without a memo.
    pub fn new(id: impl Into<Arc<str>>, topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { id: SplitId::new(id), topic: topic.into(), partition, memo: String::new() }
    }
}

/// A position within a split, with what lateness needs to know of the records before it.
///
/// `next` is the next record to read, not the last one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The next record: a Kafka offset, a line number, a record number.
    pub next: u64,
    /// The highest accepted event time before `next`.
    pub high: Option<Timestamp>,
    /// The floor in force: the watermark below which every record counts as late, whatever `high`.
    pub floor: Option<Timestamp>,
    /// Records read before `next`, since the job began.
    pub read: u64,
    /// Of those, the accepted ones; the others are dead letters.
    pub accepted: u64,
    /// Dead letters sent before `next` about records that had been accepted, and that one operator
    /// has given up since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub told: u64,
}

/// Where something stands among the records of a split and the letters between them: (`next`,
/// `told`). A letter is no record, so it has no position of its own.
pub(crate) type Place = (u64, u64);

impl Position {
    pub(crate) fn place(&self) -> Place {
        (self.next, self.told)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
