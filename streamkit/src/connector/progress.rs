//! How far a sink has got: what it stores in the same atomic step as its rows (rule D2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::record::{Position, SplitId};
use crate::time::Timestamp;

/// A sink's progress, as its target stores it: the text of [`to_json`](Self::to_json), beside the
/// lineage and the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How far.
    pub point: Point,
    /// Final rows written since the job began (rule D13).
    pub rows: u64,
}

/// The two kinds of progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Behind stateless steps: the next record of each split.
    Positions(BTreeMap<SplitId, Position>),
    /// Behind windows, sessions and timers.
    Watermark {
        /// The range of key groups, first to last, that this progress speaks for.
        groups: (u16, u16),
        /// Every final result with a fire time up to this one is in.
        w: Timestamp,
        /// Running values include every record before these positions.
        noted: BTreeMap<SplitId, u64>,
    },
}

impl Progress {
    /// The text that a target stores.
    pub fn to_json(&self) -> String {
        // Maps with string keys and integers: serializing cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text that a target has stored.
    ///
    /// # Errors
    /// If it is not a progress.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| {
            Error::corrupt(format!("stored progress cannot be read: {text:?}")).because(e)
        })
    }
}

/// Who wants to write, said to a target before anything is written (rules D6, D8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The job's name.
    pub job: String,
    /// The sink's name within the job.
    pub sink: String,
    /// The random id that the job's checkpoint 0 was made with. A target that holds progress of
    /// another lineage must be refused, naming both.
    pub lineage: String,
    /// Whether a lock that another process holds may be taken over.
    pub take_over: bool,
}

/// How a commit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The rows and the progress are durable and visible.
    Done,
    /// The reply was lost. The runtime calls [`recover`](super::SinkWriter::recover), compares, and
    /// writes again what is missing; or, if it has not kept the rows, commits again.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d2_progress_survives_its_text() {
        let positions = BTreeMap::from([(
            SplitId::new("user_activity/0"),
            Position { next: 7, high: Some(Timestamp::from_micros(-3)), ..Position::default() },
        )]);
        for point in [
            Point::Positions(positions),
            Point::Watermark {
                groups: (0, 255),
                w: Timestamp::from_micros(60_000_000),
                noted: BTreeMap::from([(SplitId::new("a"), 3)]),
            },
        ] {
            let progress = Progress { point, rows: 12 };
            assert_eq!(Progress::from_json(&progress.to_json()).unwrap(), progress);
        }
        assert!(Progress::from_json("{}").is_err());
    }

    #[test]
    fn fuzz_progress() {
        let position = Position { next: 7, high: Some(Timestamp::MIN), ..Position::default() };
        let positions = Point::Positions(BTreeMap::from([(SplitId::new("t/0"), position)]));
        let noted = BTreeMap::from([(SplitId::new("a"), 3)]);
        let w = Point::Watermark { groups: (0, 255), w: Timestamp::from_micros(60), noted };
        let text = |point| Progress { point, rows: 12 }.to_json().into_bytes();
        crate::testing::fuzz("progress", &[text(positions), text(w)], |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            match Progress::from_json(text) {
                Ok(read) => assert_eq!(Progress::from_json(&read.to_json()).unwrap(), read),
                Err(error) => assert_eq!(error.kind(), crate::ErrorKind::Corrupt),
            }
        });
    }
}
