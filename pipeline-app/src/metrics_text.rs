//! `/metrics`: the Prometheus text format, written from a snapshot.
//!
//! There is no recorder: all that is shown is counted by the engine anyway, and a scrape costs what
//! one look at the job costs.

use std::fmt::{Display, Write as _};

use streamkit::JobState;
use streamkit::time::Timestamp;

use crate::snapshot::{Snapshot, word};

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The name of the job's source, which stands for the job as a whole.
const SOURCE: &str = "activity";

/// What is shown besides the snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// The wall-clock time.
    pub now: Timestamp,
    /// The process's memory, if known.
    pub memory: Option<u64>,
    /// Whether splits are partitions of Kafka topics.
    pub kafka: bool,
}

/// The text.
pub fn render(job: &Snapshot, around: Around) -> String {
    let mut text = Text::default();
    text.family("streamkit_build_info", "gauge", "The program's version.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("streamkit_job_state", "gauge", "1 for the state that the job is in.");
    for state in [
        JobState::Starting,
        JobState::Running,
        JobState::Stopping,
        JobState::Ended,
        JobState::Failed,
    ] {
        text.sample(&[("state", word(state))], u8::from(job.state == state));
    }
    text.family("streamkit_uptime_seconds", "gauge", "Time since the job was started.");
    text.sample(&[], job.uptime.as_secs_f64());
    if let Some(memory) = around.memory {
        text.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        text.sample(&[], memory);
    }
    records(&mut text, job);
    time(&mut text, job, around);
    splits(&mut text, job, around.kafka);
    operators(&mut text, job);
    sinks(&mut text, job);
    checkpoints(&mut text, job);
    text.0
}

fn records(text: &mut Text, job: &Snapshot) {
    text.family(
        "streamkit_records_in_total",
        "counter",
        "Records read by the source, and records that each aggregate wants (numInputRows).",
    );
    text.sample(&[("operator", SOURCE)], job.read);
    for (operator, n) in &job.wanted {
        text.sample(&[("operator", operator)], *n);
    }
    text.family(
        "streamkit_records_out_total",
        "counter",
        "Records accepted by the source, and records counted by each aggregate.",
    );
    text.sample(&[("operator", SOURCE)], job.accepted);
    for (operator, n) in &job.counted {
        text.sample(&[("operator", operator)], *n);
    }
    text.family(
        "streamkit_records_late_total",
        "counter",
        "Records too late for an aggregate (numRowsDroppedByWatermark, numLateRecordsDropped).",
    );
    for (operator, n) in &job.late {
        text.sample(&[("operator", operator)], *n);
    }
    if !job.given_up.is_empty() {
        text.family(
            "streamkit_records_given_up_total",
            "counter",
            "Records that an aggregate failed on and has given up; it alone lacks them.",
        );
        for (operator, n) in &job.given_up {
            text.sample(&[("operator", operator)], *n);
        }
    }
    text.family("streamkit_dead_letters_total", "counter", "Records that could not be used.");
    for (reason, n) in &job.dead_letters {
        text.sample(&[("reason", reason)], *n);
    }
}

fn time(text: &mut Text, job: &Snapshot, around: Around) {
    let Some(watermark) = job.watermark else { return };
    text.family(
        "streamkit_watermark_timestamp_seconds",
        "gauge",
        "The job's watermark, in seconds since 1970 (currentOutputWatermark).",
    );
    text.sample(&[("operator", SOURCE)], watermark.as_secs_f64());
    text.family(
        "streamkit_watermark_lag_seconds",
        "gauge",
        "How far the watermark is behind the clock.",
    );
    let lag = around.now.since(watermark.0).as_secs_f64();
    text.sample(&[("operator", SOURCE)], lag);
}

fn splits(text: &mut Text, job: &Snapshot, kafka: bool) {
    text.family("streamkit_split_lag_records", "gauge", "Records that wait to be read.");
    for split in &job.splits {
        if let Some(lag) = split.lag {
            text.sample(&[("split", &split.split)], lag);
        }
    }
    if kafka {
        text.family(
            "streamkit_kafka_consumer_lag",
            "gauge",
            "Records of a partition that wait to be read (records-lag).",
        );
        for split in &job.splits {
            if let (Some((topic, partition)), Some(lag)) = (split.split.rsplit_once('/'), split.lag)
            {
                text.sample(&[("topic", topic), ("partition", partition)], lag);
            }
        }
    }
    text.family("streamkit_split_idle", "gauge", "1 if a split does not hold the watermark.");
    for split in &job.splits {
        text.sample(&[("split", &split.split)], u8::from(split.idle));
    }
    text.family("streamkit_workers", "gauge", "Worker threads.");
    text.sample(&[], job.workers);
    text.family(
        "streamkit_workers_back_pressured",
        "gauge",
        "Worker threads that wait for room in a queue.",
    );
    text.sample(&[], job.back_pressured);
}

fn operators(text: &mut Text, job: &Snapshot) {
    text.family("streamkit_windows_open", "gauge", "Open windows or sessions.");
    for operator in &job.operators {
        text.sample(&[("operator", &operator.name)], operator.open);
    }
}

fn sinks(text: &mut Text, job: &Snapshot) {
    text.family("streamkit_sink_rows_total", "counter", "Final rows committed (numOutputRows).");
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], sink.rows);
    }
    text.family(
        "streamkit_sink_rejected_rows_total",
        "counter",
        "Of those, rows that the target has refused, and that were put aside.",
    );
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], sink.rejected);
    }
    text.family("streamkit_sink_pending_rows", "gauge", "Rows written and not committed.");
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], sink.pending_rows);
    }
    text.family("streamkit_sink_commits_total", "counter", "Commits since the start.");
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], sink.commits);
    }
    text.family("streamkit_sink_last_commit_seconds", "gauge", "How long the last commit took.");
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], sink.last_commit.as_secs_f64());
    }
    text.family("streamkit_job_troubled", "gauge", "1 if the job as a whole does not get on.");
    text.sample(&[], u8::from(job.trouble.is_some()));
    text.family("streamkit_sink_troubled", "gauge", "1 if a sink does not get on.");
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], u8::from(sink.trouble.is_some()));
    }
    text.family(
        "streamkit_sink_behind_records",
        "gauge",
        "Records that were read and that the sink has not been sent yet: it is being caught up with.",
    );
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], sink.behind);
    }
    text.family(
        "streamkit_sink_detached",
        "gauge",
        "1 if the job goes on without the sink for now.",
    );
    for sink in &job.sinks {
        text.sample(&[("sink", &sink.name)], u8::from(sink.detached));
    }
    text.family(
        "streamkit_sink_watermark_timestamp_seconds",
        "gauge",
        "Every final result up to this time is committed.",
    );
    for sink in &job.sinks {
        if let Some(watermark) = sink.watermark {
            text.sample(&[("sink", &sink.name)], watermark.as_secs_f64());
        }
    }
}

fn checkpoints(text: &mut Text, job: &Snapshot) {
    let Some(checkpoint) = &job.checkpoint else { return };
    text.family("streamkit_checkpoints_total", "counter", "Number of the newest checkpoint.");
    text.sample(&[], checkpoint.number);
    text.family("streamkit_checkpoint_bytes", "gauge", "Size of the newest checkpoint.");
    text.sample(&[], checkpoint.bytes);
    text.family(
        "streamkit_checkpoint_duration_seconds",
        "gauge",
        "How long the newest checkpoint took.",
    );
    text.sample(&[], checkpoint.duration.as_secs_f64());
    text.family(
        "streamkit_checkpoint_pause_seconds",
        "gauge",
        "How long records stood still for the newest checkpoint, on the worker that took longest.",
    );
    text.sample(&[], checkpoint.pause.as_secs_f64());
    text.family("streamkit_checkpoint_age_seconds", "gauge", "Age of the newest checkpoint.");
    text.sample(&[], checkpoint.age.as_secs_f64());
}

/// The text so far, and the family that samples are added to.
#[derive(Default)]
struct Text(String, &'static str);

impl Text {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(self.1);
        for (i, (name, label)) in labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{name}=\"{}\"", escape(label));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::snapshot::{Checkpoint, Sink, Split, Time};

    const NOW: Timestamp = Timestamp::from_micros(1_767_225_602_500_000);

    fn text(job: &Snapshot) -> String {
        render(job, Around { now: NOW, memory: Some(5), kafka: true })
    }

    #[test]
    fn a_job_is_shown_with_all_its_figures() {
        let job = Snapshot {
            state: JobState::Running,
            read: 12,
            accepted: 10,
            dead_letters: [("bad_json".into(), 2)].into(),
            wanted: [("page_view_counts".into(), 8)].into(),
            late: [("page_view_counts".into(), 1)].into(),
            watermark: Time::known(Timestamp::from_micros(1_767_225_600_000_000)),
            splits: vec![Split { split: "a/b/3".into(), lag: Some(7), ..Split::default() }],
            sinks: vec![Sink {
                name: "odd \"name\"\\".into(),
                rows: 4,
                rejected: 3,
                ..Sink::default()
            }],
            checkpoint: Some(Checkpoint {
                age: Duration::from_millis(1_500),
                pause: Duration::from_millis(7),
                ..Default::default()
            }),
            ..Snapshot::default()
        };
        let text = text(&job);
        for line in [
            "streamkit_job_state{state=\"running\"} 1",
            "streamkit_job_state{state=\"failed\"} 0",
            "streamkit_records_in_total{operator=\"activity\"} 12",
            "streamkit_records_in_total{operator=\"page_view_counts\"} 8",
            "streamkit_records_late_total{operator=\"page_view_counts\"} 1",
            "streamkit_dead_letters_total{reason=\"bad_json\"} 2",
            "streamkit_watermark_timestamp_seconds{operator=\"activity\"} 1767225600",
            "streamkit_watermark_lag_seconds{operator=\"activity\"} 2.5",
            "streamkit_kafka_consumer_lag{topic=\"a/b\",partition=\"3\"} 7",
            "streamkit_sink_rows_total{sink=\"odd \\\"name\\\"\\\\\"} 4",
            "streamkit_sink_rejected_rows_total{sink=\"odd \\\"name\\\"\\\\\"} 3",
            "streamkit_checkpoint_age_seconds 1.5",
            "streamkit_checkpoint_pause_seconds 0.007",
            "process_resident_memory_bytes 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_family_is_declared_once_and_every_sample_belongs_to_one() {
        let text = text(&Snapshot::default());
        let mut families = HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(families.insert(rest.split(' ').next().unwrap()), "{line}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(families.contains(name), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }
}
