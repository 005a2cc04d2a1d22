//! What a checkpoint says about the job, in JSON, so that a person can read it with any tool.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::{Position, Split, SplitId};
use crate::state::Changes;
use crate::time::Timestamp;

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The header of a checkpoint: everything but the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The job's name.
    pub job: String,
    /// The random id that was made with checkpoint 0 (rule D6).
    pub lineage: String,
    /// 0, 1, 2, …; never used twice in one log.
    pub number: u64,
    /// The number of the base that this checkpoint builds on; its own number if it is a base.
    pub base: u64,
    /// When it was made, by the clock of the machine.
    pub created: Timestamp,
    /// The fingerprint of the plan (rule D12).
    pub plan: Vec<PlanStep>,
    /// Where every split has been read to.
    pub splits: Vec<SplitEntry>,
    /// The splits that are idle.
    pub idle: Vec<SplitId>,
    /// All facts that are still needed, in the order in which they were appended.
    pub facts: Vec<Fact>,
    /// Every fact object with this number or a lower one is contained in `facts`, or is no longer
    /// needed. (Fact objects count from 1, so 0 means none.)
    pub facts_through: u64,
    /// The job's watermark.
    pub watermark: Timestamp,
    /// What each sink had confirmed: undelivered results below are not in this checkpoint (rule
    /// D7).
    pub confirmed: BTreeMap<String, Confirmed>,
    /// Records that each operator has counted (rule D13).
    pub counted: BTreeMap<String, u64>,
}

/// A stateful operator, a source or a sink: what must not change unnoticed between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Its name, under which state and progress are stored.
    pub name: String,
    /// What it is: `source`, `aggregate`, `sink`.
    pub kind: String,
    /// The parameters, as text.
    pub parameters: String,
}

/// Where a split has been read to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitEntry {
    /// The split, as it was at first sight.
    pub split: Split,
    /// The next record, and what lateness needs to know of those before it.
    pub position: Position,
    /// The first record of the split that the job has read.
    pub start: u64,
    /// What became of the records before the position.
    pub totals: Totals,
}

/// A split's running totals before its position (rule D13).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Dead letters by reason.
    pub dead: BTreeMap<String, u64>,
    /// Late records by aggregate.
    pub late: BTreeMap<String, u64>,
    /// Records that each aggregate should have seen, on time or late.
    pub wanted: BTreeMap<String, u64>,
    /// Records that each operator has given up and that a dead letter was sent about. They are
    /// accepted, and not among those wanted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given_up: BTreeMap<String, u64>,
}

/// How far a sink was known to have got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The W of a sink behind windows.
    pub w: Option<Timestamp>,
    /// Whether the sink had any progress: if it has none now, it was lost (rule D6).
    pub has_progress: bool,
}

/// Something that is not in the data and yet decided what has left the job (rule D1).
///
/// A fact that this version does not know is an error, never passed over: something may have been
/// decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "each variant says what its fields are")]
#[non_exhaustive]
pub enum Fact {
    /// First sight of a split, and where reading it starts.
    Split { split: Split, start: u64 },
    /// The split, read up to this record, has no say in the watermark until further notice. A
    /// replay of the records before it is not idle.
    Idle { split: SplitId, at: u64 },
    /// From this position on, the split's watermark is at least this (rule T9).
    Floor { split: SplitId, from: u64, floor: Timestamp },
    /// Where a bounded input ends: the record after the last one (rule D10).
    End { split: SplitId, end: u64 },
    /// Every split has been read to its end.
    EndReached,
    /// The input is closed: every result up to `c` has fired (rule D10).
    Closed { c: Timestamp },
    /// A closed job goes on; nothing before `c` is on time any more (rule D10).
    Reopened { c: Timestamp },
    /// A record was given up, after a panic or a spent retry budget, and is a dead letter from now
    /// on, in every replay too. With an operator, it is given up for that one only: everything else
    /// has it, and its dead letter is sent when the split has been read to `letter_at`.
    GivenUp {
        split: SplitId,
        at: u64,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operator: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        letter_at: Option<u64>,
    },
    /// An operator behind an exchange has failed on one of the records from `first` on and before
    /// `next`; which one is found out by looking at them one by one.
    Suspect { split: SplitId, first: u64, next: u64 },
    /// An aggregate that is new to a job that had read records, or has other parameters than before,
    /// has no result for windows that start before this (rule D12).
    Begins { operator: String, parameters: String, from: Timestamp },
    /// As long as it has no progress, the sink is taken to have everything before these positions:
    /// it was new to the job when checkpoint `checkpoint` was made, or its target was emptied and
    /// the gap accepted (rules D6, D12).
    Adopted { sink: String, checkpoint: u64, positions: BTreeMap<SplitId, Position> },
}

/// A manifest, and the state: all of it in a base, what changed in an increment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) manifest: Manifest,
    /// Operator and changes. An operator may occur more than once (each worker has a part). A base
    /// puts each entry once; the changes of an increment apply in the order given.
    pub(crate) changes: Vec<(String, Changes)>,
}

impl Manifest {
    /// Whether the checkpoint holds all of the state.
    pub fn is_base(&self) -> bool {
        self.base == self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_a_fact_that_this_version_does_not_know_is_an_error() {
        let known = r#"{"fact":"floor","split":"a/0","from":7,"floor":60000000}"#;
        let floor = Fact::Floor {
            split: SplitId::new("a/0"),
            from: 7,
            floor: Timestamp::from_micros(60_000_000),
        };
        assert_eq!(serde_json::from_str::<Fact>(known).unwrap(), floor);
        assert_eq!(serde_json::to_string(&floor).unwrap(), known);
        assert_eq!(serde_json::to_string(&Fact::EndReached).unwrap(), r#"{"fact":"end_reached"}"#);
        let old = r#"{"fact":"given_up","split":"a/0","at":7,"reason":"panic"}"#;
        let (split, reason) = (SplitId::new("a/0"), "panic".to_owned());
        let of_all = Fact::GivenUp { split, at: 7, reason, operator: None, letter_at: None };
        assert_eq!(serde_json::from_str::<Fact>(old).unwrap(), of_all);
        assert_eq!(serde_json::to_string(&of_all).unwrap(), old);
        assert!(serde_json::from_str::<Fact>(r#"{"fact":"from_the_future"}"#).is_err());
        assert!(
            serde_json::from_str::<Fact>(r#"{"fact":"idle","split":"a/0","at":1,"but":1}"#)
                .is_err()
        );
    }
}
