//! The job at one moment, as plain data: what the terminal, the metrics, the summary and
//! `/api/v1/progress` are made of.
//!
//! The engine's own type can only be made by the engine. This one can be made by anybody, so that
//! everything that is derived from it is a function that a test can call.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use streamkit::time::Timestamp;
use streamkit::{JobProgress, JobState};

/// The job at one moment; counts are of its whole life.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// The job's name.
    pub job: String,
    /// What it is doing.
    #[serde(serialize_with = "state_name")]
    pub state: JobState,
    /// The job's watermark.
    pub watermark: Option<Time>,
    /// Records read.
    pub read: u64,
    /// Records accepted.
    pub accepted: u64,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Records that each aggregate wants.
    pub wanted: BTreeMap<String, u64>,
    /// Of those, late ones.
    pub late: BTreeMap<String, u64>,
    /// Of those, counted ones.
    pub counted: BTreeMap<String, u64>,
    /// Records that each aggregate has given up, since it failed on them: accepted, and not wanted.
    pub given_up: BTreeMap<String, u64>,
    /// Every split.
    pub splits: Vec<Split>,
    /// Every stateful operator.
    pub operators: Vec<Operator>,
    /// Every sink.
    pub sinks: Vec<Sink>,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Why the job as a whole does not get on.
    pub trouble: Option<String>,
    /// Workers that wait for room in a queue.
    pub back_pressured: usize,
    /// Workers.
    pub workers: usize,
    /// The time since the job was started.
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
}

/// A split at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Split {
    /// Its name.
    pub split: String,
    /// The next record to read.
    pub next: u64,
    /// Its own watermark.
    pub watermark: Option<Time>,
    /// Whether it is idle, and so does not hold the job's watermark.
    pub idle: bool,
    /// Whether it has been read to its end.
    pub ended: bool,
    /// Since when it has brought nothing.
    #[serde(rename = "quiet_seconds", serialize_with = "maybe_seconds")]
    pub quiet_for: Option<Duration>,
    /// Records that wait to be read.
    pub lag: Option<u64>,
}

/// A stateful operator at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Operator {
    /// Its name.
    pub name: String,
    /// Windows, sessions or keys that are open.
    pub open: u64,
    /// The earliest event time at which something may become final.
    pub next_fire: Option<Time>,
}

/// A sink at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sink {
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
    /// Every final result up to this time is in.
    pub watermark: Option<Time>,
    /// Rows written and not committed.
    pub pending_rows: u64,
    /// Records that were read and that it has not been sent yet.
    pub behind: u64,
    /// Whether the job goes on without it.
    pub detached: bool,
    /// Why it does not get on.
    pub trouble: Option<String>,
    /// How long the last commit took.
    #[serde(rename = "last_commit_seconds", serialize_with = "seconds")]
    pub last_commit: Duration,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Its number.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// Of that, how long records stood still.
    #[serde(rename = "pause_seconds", serialize_with = "seconds")]
    pub pause: Duration,
    /// How long ago it was made.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
}

/// A known time; in JSON a text with six digits and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Time {
    /// The time, unless it is before or after all others.
    pub fn known(time: Timestamp) -> Option<Self> {
        (time != Timestamp::MIN && time != Timestamp::MAX).then_some(Self(time))
    }

    /// Seconds since 1970.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_micros() as f64 / 1e6
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(duration: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(s)
}

/// A state as one word.
pub fn word(state: JobState) -> &'static str {
    match state {
        JobState::Starting => "starting",
        JobState::Running => "running",
        JobState::Stopping => "stopping",
        JobState::Ended => "ended",
        JobState::Failed => "failed",
        _ => "unknown",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn state_name<S: Serializer>(state: &JobState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(*state))
}

impl From<JobProgress> for Snapshot {
    fn from(progress: JobProgress) -> Self {
        let splits = progress.splits.into_iter().map(|split| Split {
            split: split.split,
            next: split.position.next,
            watermark: split.watermark.and_then(Time::known),
            idle: split.idle,
            ended: split.ended,
            quiet_for: split.quiet_for,
            lag: split.lag,
        });
        let operators = progress.operators.into_iter().map(|operator| Operator {
            name: operator.name,
            open: operator.open,
            next_fire: operator.next_fire.and_then(Time::known),
        });
        let sinks = progress.sinks.into_iter().map(|sink| Sink {
            name: sink.name,
            target: sink.target,
            rows: sink.rows,
            rejected: sink.rejected,
            commits: sink.commits,
            watermark: sink.watermark.and_then(Time::known),
            pending_rows: sink.pending_rows,
            behind: sink.behind,
            detached: sink.detached,
            trouble: sink.trouble,
            last_commit: sink.last_commit,
        });
        Self {
            job: progress.job,
            state: progress.state,
            watermark: progress.watermark.and_then(Time::known),
            read: progress.read,
            accepted: progress.accepted,
            dead_letters: progress.dead_letters,
            wanted: progress.wanted,
            late: progress.late,
            counted: progress.counted,
            given_up: progress.given_up,
            splits: splits.collect(),
            operators: operators.collect(),
            sinks: sinks.collect(),
            checkpoint: progress.checkpoint.map(|checkpoint| Checkpoint {
                number: checkpoint.number,
                bytes: checkpoint.bytes,
                duration: checkpoint.duration,
                pause: checkpoint.pause,
                age: checkpoint.age,
            }),
            trouble: progress.trouble,
            back_pressured: progress.back_pressured,
            workers: progress.workers,
            uptime: progress.uptime,
        }
    }
}

impl Snapshot {
    /// A sink by its name.
    pub fn sink(&self, name: &str) -> Option<&Sink> {
        self.sinks.iter().find(|sink| sink.name == name)
    }

    /// Rows that their targets have refused, by the names of the tables.
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let refused = self.sinks.iter().filter(|sink| sink.rejected > 0);
        let table = |name: &str| name.trim_end_matches(" table").to_owned();
        refused.map(|sink| (table(&sink.name), sink.rejected)).collect()
    }

    /// Records that wait to be read, if any split knows.
    pub fn lag(&self) -> Option<u64> {
        self.splits.iter().filter_map(|split| split.lag).reduce(|a, b| a.saturating_add(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_texts_and_durations_seconds() {
        let snapshot = Snapshot {
            state: JobState::Running,
            watermark: Time::known(Timestamp::from_micros(1_767_225_600_000_001)),
            uptime: Duration::from_millis(1_500),
            splits: vec![Split { split: "a/0".into(), lag: Some(3), ..Split::default() }],
            ..Snapshot::default()
        };
        let json = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(json["state"], "running");
        assert_eq!(json["watermark"], "2026-01-01T00:00:00.000001Z");
        assert_eq!(json["uptime_seconds"], 1.5);
        assert_eq!(json["splits"][0]["lag"], 3);
        assert!(json["splits"][0]["quiet_seconds"].is_null());
        assert_eq!(snapshot.lag(), Some(3));
    }

    #[test]
    fn no_time_is_not_a_time() {
        let mut progress = JobProgress::default();
        progress.watermark = Some(Timestamp::MIN);
        assert_eq!(Snapshot::from(progress).watermark, None);
    }
}
