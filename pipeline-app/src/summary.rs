//! What is left to say when the job has ended: figures for people and for programs, and whether
//! every record is accounted for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use streamkit::time::{Clock as _, SystemClock};
use streamkit::{JobHandle, JobState};

use crate::config::Config;
use crate::job::JOB;
use crate::snapshot::{Snapshot, Time, word};
use crate::status::lines::{OUTPUTS, rows, with_parts};
use crate::text::{about, bytes, number};

/// The aggregates, by the names of their tables.
const AGGREGATES: [&str; 3] = ["page_view_counts", "active_users", "user_sessions"];
/// How often a job that starts is asked where it starts.
const LOOK: Duration = Duration::from_millis(5);

/// Measures one run of the job.
#[derive(Debug, Clone)]
pub struct Run {
    clock: SystemClock,
    fresh: bool,
    /// What had been read before this run.
    read_before: Arc<AtomicU64>,
}

impl Run {
    /// To be called before the job is started: whether it has run before can be seen then only.
    pub fn prepare(config: &Config) -> Self {
        Self {
            clock: SystemClock::new(),
            fresh: !config.checkpoint_path.join(JOB).exists(),
            read_before: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Finds out how much the job had read before this run, in the background.
    pub fn watch(&self, handle: &JobHandle) {
        if self.fresh {
            return;
        }
        let (handle, read_before) = (handle.clone(), Arc::clone(&self.read_before));
        tokio::spawn(async move {
            loop {
                let progress = handle.progress();
                let over = matches!(progress.state, JobState::Ended | JobState::Failed);
                if over || !progress.splits.is_empty() {
                    return read_before.store(progress.read, Ordering::Relaxed);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// The figures, when the job has ended.
    pub fn finish(&self, handle: &JobHandle) -> Summary {
        let before = self.read_before.load(Ordering::Relaxed);
        Summary::new(handle.progress().into(), before, self.clock.elapsed(), peak_memory())
    }
}

/// The figures of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    job: Snapshot,
    read_before: u64,
    wall: Duration,
    peak_memory: Option<u64>,
}

/// The form of `--summary-json`.
#[derive(Debug, Serialize)]
struct Json<'a> {
    read: u64,
    accepted: u64,
    dead_letters: &'a BTreeMap<String, u64>,
    late: BTreeMap<&'a str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    given_up: &'a BTreeMap<String, u64>,
    rows: BTreeMap<&'a str, u64>,
    /// Only if there are any: of the rows, by table, what the database has refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rejected: BTreeMap<String, u64>,
    watermark: Option<Time>,
    wall_seconds: f64,
    events_per_second: f64,
    peak_memory_bytes: Option<u64>,
}

impl Summary {
    /// The figures of a job that has ended, had read `read_before` records before this run, and
    /// took `wall`.
    pub fn new(job: Snapshot, read_before: u64, wall: Duration, peak_memory: Option<u64>) -> Self {
        Self { job, read_before, wall, peak_memory }
    }

    fn read_now(&self) -> u64 {
        self.job.read.saturating_sub(self.read_before)
    }

    fn per_second(&self) -> f64 {
        let wall = self.wall.as_secs_f64();
        if wall > 0.0 { self.read_now() as f64 / wall } else { 0.0 }
    }

    /// The text of `--summary-json`: counts are of the job's whole life, the speed is this run's.
    pub fn json(&self) -> String {
        let job = &self.job;
        let late = |table| (table, job.late.get(table).copied().unwrap_or(0));
        let rows = |(sink, name)| (name, job.sink(sink).map_or(0, |sink| sink.rows));
        let json = Json {
            read: job.read,
            accepted: job.accepted,
            dead_letters: &job.dead_letters,
            late: AGGREGATES.into_iter().map(late).collect(),
            given_up: &job.given_up,
            rows: OUTPUTS.into_iter().map(rows).collect(),
            rejected: job.rejected(),
            watermark: job.watermark,
            wall_seconds: self.wall.as_secs_f64(),
            events_per_second: self.per_second(),
            peak_memory_bytes: self.peak_memory,
        };
        // Numbers and texts: serializing cannot fail.
        let mut text = serde_json::to_string_pretty(&json).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Writes [`json`](Self::json) to a file, so that a reader never sees half of it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        std::fs::write(&beside, self.json())
            .and_then(|()| std::fs::rename(&beside, path))
            .with_context(|| format!("--summary-json {} cannot be written", path.display()))
    }

    /// Whether the job has failed before it read anything: then the error says it all.
    pub fn is_empty(&self) -> bool {
        self.job.state == JobState::Failed && self.job.splits.is_empty()
    }

    /// Whether every record is accounted for. Of a job that has failed nobody knows: its outputs
    /// are behind, each by its own amount, until the next run.
    fn account(&self) -> Vec<String> {
        let differences = conservation(&self.job);
        match (self.job.state, differences.is_empty()) {
            (JobState::Failed, _) => vec![],
            (_, true) => vec![format!(
                "  conserved    every one of the {} records is accounted for",
                number(self.job.read)
            )],
            (_, false) => {
                differences.into_iter().map(|text| format!("  NOT CONSERVED {text}")).collect()
            }
        }
    }

    /// The figures for people.
    pub fn text(&self) -> String {
        let job = &self.job;
        let earlier = match self.read_before {
            0 => String::new(),
            _ => format!(", {} since the job began", number(job.read)),
        };
        let mut lines = vec![
            format!(
                "{} {} after {}: {} records read, {} per second{earlier}",
                job.job,
                word(job.state),
                about(self.wall),
                number(self.read_now()),
                number(self.per_second().round() as u64)
            ),
            format!("  accepted     {}", number(job.accepted)),
            format!("  dead letters {}", with_parts(&job.dead_letters)),
            format!("  late         {}", with_parts(&job.late)),
        ];
        if !job.given_up.is_empty() {
            lines.push(format!("  given up     {}", with_parts(&job.given_up)));
        }
        lines.push(format!("  rows         {}", rows(job)));
        let rejected = job.rejected();
        if !rejected.is_empty() {
            let what = with_parts(&rejected);
            lines.push(format!("  rejected     {what} of those rows, into streamkit_rejects"));
        }
        let watermark = job.watermark.map_or("none".to_owned(), |time| time.0.to_string());
        lines.push(format!("  watermark    {watermark}"));
        if let Some(peak) = self.peak_memory {
            lines.push(format!("  peak memory  {}", bytes(peak)));
        }
        lines.extend(self.account());
        lines.push(String::new());
        lines.join("\n")
    }
}

/// What does not add up, of a job whose input has stopped and whose sinks have caught up with it;
/// nothing, if every record is accounted for.
pub fn conservation(job: &Snapshot) -> Vec<String> {
    let mut problems = vec![];
    let mut compare = |left: &str, a: u64, right: &str, b: u64| {
        if a != b {
            let (a, b, by) = (number(a), number(b), number(a.abs_diff(b)));
            problems.push(format!("{left} {a}, but {right} {b}: {by} apart"));
        }
    };
    let dead: u64 = job.dead_letters.values().sum();
    compare("read", job.read, "accepted + dead letters", job.accepted + dead);
    for name in ["lake", "enriched"] {
        if let Some(sink) = job.sink(name) {
            compare("accepted", job.accepted, &format!("rows of {name}"), sink.rows);
        }
    }
    for (name, wanted) in &job.wanted {
        let part = |of: &BTreeMap<String, u64>| of.get(name).copied().unwrap_or(0);
        let sum = part(&job.counted) + part(&job.late);
        compare(&format!("{name} wants"), *wanted, "counted + late", sum);
    }
    problems
}

/// The most memory that this process has had, if the system says so.
pub fn peak_memory() -> Option<u64> {
    memory("VmHWM:")
}

/// The memory that this process has now, if the system says so.
pub(crate) fn memory_now() -> Option<u64> {
    memory("VmRSS:")
}

fn memory(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use streamkit::time::Timestamp;

    use super::*;
    use crate::snapshot::Sink;

    fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    fn job() -> Snapshot {
        let sink = |name: &str, rows| Sink { name: name.into(), rows, ..Sink::default() };
        Snapshot {
            job: "user-activity".into(),
            state: JobState::Ended,
            watermark: Time::known(Timestamp::from_micros(1_767_225_600_000_000)),
            read: 110,
            accepted: 100,
            dead_letters: counts(&[("bad_json", 7), ("empty", 3)]),
            wanted: counts(&[("page_view_counts", 60), ("active_users", 100)]),
            late: counts(&[("page_view_counts", 2)]),
            counted: counts(&[("page_view_counts", 58), ("active_users", 100)]),
            sinks: vec![
                sink("page_view_counts table", 12),
                sink("lake", 100),
                sink("enriched", 100),
                sink("dead letters", 10),
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_json_has_this_form() {
        let summary = Summary::new(job(), 10, Duration::from_secs(2), Some(1_024));
        let expected = serde_json::json!({
            "read": 110, "accepted": 100,
            "dead_letters": {"bad_json": 7, "empty": 3},
            "late": {"page_view_counts": 2, "active_users": 0, "user_sessions": 0},
            "rows": {"page_view_counts": 12, "active_users": 0, "user_sessions": 0,
                     "lake": 100, "enriched": 100},
            "watermark": "2026-01-01T00:00:00.000000Z",
            "wall_seconds": 2.0, "events_per_second": 50.0, "peak_memory_bytes": 1_024,
        });
        let found: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!(found, expected);
        let nothing = Summary::new(Snapshot::default(), 0, Duration::ZERO, None);
        let found: serde_json::Value = serde_json::from_str(&nothing.json()).unwrap();
        assert!(found["watermark"].is_null() && found["events_per_second"] == 0.0);
    }

    #[test]
    fn the_text_says_what_happened() {
        let text = Summary::new(job(), 10, Duration::from_secs(2), Some(12_300_000)).text();
        let expected = "user-activity ended after 2.0 s: 100 records read, 50 per second, \
                        110 since the job began\n  accepted     100\n  \
                        dead letters 10 (bad_json 7, empty 3)\n  \
                        late         2 (page_view_counts 2)\n  \
                        rows         page_view_counts 12, lake 100, enriched 100\n  \
                        watermark    2026-01-01T00:00:00.000000Z\n  \
                        peak memory  12.3 MB\n  \
                        conserved    every one of the 110 records is accounted for\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn refused_rows_are_told_of() {
        let mut job = job();
        job.sinks[0].rejected = 4;
        let summary = Summary::new(job, 0, Duration::ZERO, None);
        let found: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!(found["rejected"], serde_json::json!({"page_view_counts": 4}));
        let line = "  rejected     4 (page_view_counts 4) of those rows, into streamkit_rejects\n";
        assert!(summary.text().contains(line), "{}", summary.text());
    }

    #[test]
    fn f85_what_an_aggregate_has_given_up_is_said_and_not_missed() {
        let mut job = job();
        job.given_up = counts(&[("active_users", 2)]);
        for of in [&mut job.wanted, &mut job.counted] {
            *of.get_mut("active_users").unwrap() -= 2;
        }
        assert!(conservation(&job).is_empty());
        let summary = Summary::new(job, 0, Duration::from_secs(1), None);
        assert!(summary.text().contains("\n  given up     2 (active_users 2)\n"));
        assert!(summary.json().contains("\"given_up\": {\n    \"active_users\": 2\n  }"));
    }

    #[test]
    fn what_is_missing_is_named() {
        type Change = fn(&mut Snapshot);
        let cases: [(Change, &str); 4] = [
            (|j| j.read += 1, "read 111, but accepted + dead letters 110: 1 apart"),
            (|j| j.sinks[1].rows = 97, "accepted 100, but rows of lake 97: 3 apart"),
            (|j| j.sinks[2].rows = 101, "accepted 100, but rows of enriched 101: 1 apart"),
            (|j| j.late.clear(), "page_view_counts wants 60, but counted + late 58: 2 apart"),
        ];
        assert!(conservation(&job()).is_empty());
        for (change, expected) in cases {
            let mut job = job();
            change(&mut job);
            assert_eq!(conservation(&job), [expected]);
            let text = Summary::new(job, 0, Duration::ZERO, None).text();
            assert!(text.contains("NOT CONSERVED"), "{text}");
        }
        let mut failed = job();
        (failed.state, failed.sinks[1].rows) = (JobState::Failed, 1);
        let summary = Summary::new(failed, 0, Duration::ZERO, None);
        assert!(!summary.text().contains("CONSERVED") && summary.is_empty());
        let mut without = job();
        without.sinks.clear();
        assert!(conservation(&without).is_empty(), "an output that is off is not missed");
    }

    #[test]
    fn memory_is_known_on_linux() {
        if cfg!(target_os = "linux") {
            assert!(peak_memory() >= memory_now() && memory_now() > Some(100_000));
        }
    }

    #[test]
    fn the_file_is_written_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        let summary = Summary::new(job(), 0, Duration::from_secs(1), None);
        summary.write_json(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), summary.json());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = summary.write_json(&folder.path().join("no/such/x")).unwrap_err();
        assert!(error.to_string().starts_with("--summary-json"), "{error}");
    }
}
