//! What the status says, in words: functions of a snapshot.

use std::collections::BTreeMap;

use streamkit::time::{Timestamp, minutes};

use super::last_minute::Figures;
use crate::snapshot::{Sink, Snapshot, word};
use crate::text::{about, bytes, hour_and_minute, number, shorten, time_of_day};

/// The outputs, as sinks are named in the job and as they are called in a status.
pub(crate) const OUTPUTS: [(&str, &str); 5] = [
    ("page_view_counts table", "page_view_counts"),
    ("active_users table", "active_users"),
    ("user_sessions table", "user_sessions"),
    ("lake", "lake"),
    ("enriched", "enriched"),
];

/// What is known besides the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The wall-clock time.
    pub now: Option<Timestamp>,
    /// Records per second.
    pub rate: f64,
    /// Figures of the last minute.
    pub figures: Figures,
    /// Why no result comes.
    pub standstill: Option<String>,
}

/// The block of lines that a terminal shows.
pub fn block(job: &Snapshot, around: &Around) -> Vec<String> {
    // What matters fits into 80 columns; more is cut.
    let mut lines = vec![headline(job, around), watermark_line(job, around)];
    lines.extend(figures_lines(&around.figures));
    let (tables, others) = OUTPUTS.split_at(3);
    for (label, outputs) in [("tables", tables), ("records", others)] {
        let rows = rows_of(job, outputs);
        if !rows.is_empty() {
            lines.push(format!("  {label:<12}{rows}"));
        }
    }
    lines.push(format!("  late        {}", with_parts(&job.late)));
    lines.push(format!("  dead        {}", with_parts(&job.dead_letters)));
    // Something is wrong with a table then: no line while there is nothing to say.
    let rejected = job.rejected();
    if !rejected.is_empty() {
        lines.push(format!("  rejected    {}", with_parts(&rejected)));
    }
    if let Some(checkpoint) = &job.checkpoint {
        lines.push(format!(
            "  checkpoint  {} made {} ago in {}, {}",
            checkpoint.number,
            about(checkpoint.age),
            about(checkpoint.duration),
            bytes(checkpoint.bytes)
        ));
    }
    if let Some(trouble) = &job.trouble {
        lines.push(format!("  ! {trouble}"));
    }
    for sink in &job.sinks {
        if let Some(trouble) = &sink.trouble {
            lines.push(format!("  ! {}: {trouble}", sink.name));
        }
        if let Some(behind) = behind(sink) {
            lines.push(format!("  ! {}: {behind}", sink.name));
        }
    }
    lines
}

/// What is to be said of a sink that lacks records which everything else has had.
fn behind(sink: &Sink) -> Option<String> {
    match (sink.detached, sink.behind) {
        (true, n) => Some(format!(
            "stuck, so the job goes on without it; {} records behind, which it gets when it is back",
            number(n)
        )),
        (false, 0) => None,
        (false, n) => Some(format!("catching up, {} records behind", number(n))),
    }
}

fn headline(job: &Snapshot, around: &Around) -> String {
    let mut line = format!(
        "{} {} {}: {} events/s, {} read",
        job.job,
        word(job.state),
        about(job.uptime),
        number(around.rate.round().max(0.0) as u64),
        number(job.read)
    );
    if let Some(lag) = job.lag() {
        line.push_str(&format!(", {} waiting", number(lag)));
    }
    if job.back_pressured > 0 {
        line.push_str(&format!(", {} of {} workers held up", job.back_pressured, job.workers));
    }
    line
}

fn watermark_line(job: &Snapshot, around: &Around) -> String {
    let mut line = match job.watermark {
        None => "  watermark   none yet".to_owned(),
        Some(watermark) => {
            let behind = match around.now {
                Some(now) if now > watermark.0 => {
                    format!(", {} behind the clock", about(now.since(watermark.0)))
                }
                _ => String::new(),
            };
            format!("  watermark   {} UTC{behind}", time_of_day(watermark.0))
        }
    };
    if let Some(why) = &around.standstill {
        line.push_str(&format!(" ({why})"));
    }
    line
}

fn figures_lines(figures: &Figures) -> Vec<String> {
    let Some(end) = figures.end else {
        return vec!["  last minute none is complete yet".to_owned()];
    };
    let start = end.saturating_sub(minutes(1));
    let more = if figures.more_views { "more than " } else { "" };
    let mut line = format!(
        "  last minute {}–{}: {more}{} page views",
        hour_and_minute(start),
        hour_and_minute(end),
        number(figures.views)
    );
    if let Some(users) = figures.users {
        line.push_str(&format!(", {} active users in 5 minutes", number(users)));
    }
    let top: Vec<String> = figures
        .top
        .iter()
        .map(|(page, n)| format!("{} {}", shorten(page, 40), number(*n)))
        .collect();
    vec![line, format!("  top pages   {}", top.join(", "))]
}

/// `page_view_counts 1,234, lake 5,678 (+90)`: committed, and written but not committed.
pub(crate) fn rows(job: &Snapshot) -> String {
    rows_of(job, &OUTPUTS)
}

fn rows_of(job: &Snapshot, outputs: &[(&str, &str)]) -> String {
    let part = |(sink, label): &(&str, &str)| {
        let sink = job.sink(sink)?;
        let pending = match sink.pending_rows {
            0 => String::new(),
            n => format!(" (+{})", number(n)),
        };
        Some(format!("{label} {}{pending}", number(sink.rows)))
    };
    outputs.iter().filter_map(part).collect::<Vec<_>>().join(", ")
}

/// `12 (bad_json 10, empty 2)`: the sum and what it is made of, the most first.
pub(crate) fn with_parts(counts: &BTreeMap<String, u64>) -> String {
    let mut parts: Vec<(&String, &u64)> = counts.iter().filter(|(_, n)| **n > 0).collect();
    parts.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let parts: Vec<String> =
        parts.into_iter().map(|(name, n)| format!("{name} {}", number(*n))).collect();
    let sum = number(counts.values().sum());
    if parts.is_empty() { sum } else { format!("{sum} ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::text::is_active;

    use streamkit::JobState;

    use super::*;
    use crate::snapshot::{Checkpoint, Sink, Split, Time};

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_micros(minute * 60_000_000)
    }

    fn sink(name: &str, rows: u64, pending_rows: u64) -> Sink {
        Sink { name: name.into(), rows, pending_rows, ..Sink::default() }
    }

    #[test]
    fn the_block_of_a_job_at_work() {
        let mut job = Snapshot {
            job: "user-activity".into(),
            state: JobState::Running,
            watermark: Time::known(at(605)),
            read: 1_234_567,
            dead_letters: [("bad_json".into(), 10), ("empty".into(), 2)].into(),
            late: [("active_users".into(), 0), ("user_sessions".into(), 3)].into(),
            sinks: vec![sink("lake", 1_000, 500), sink("page_view_counts table", 42, 0)],
            splits: vec![Split { lag: Some(7_000), ..Split::default() }],
            checkpoint: Some(Checkpoint {
                number: 7,
                bytes: 1_500,
                duration: Duration::from_millis(85),
                pause: Duration::from_millis(3),
                age: Duration::from_secs(4),
            }),
            uptime: Duration::from_secs(200),
            workers: 2,
            ..Snapshot::default()
        };
        let around = Around {
            now: Some(at(607)),
            rate: 12_345.4,
            figures: Figures {
                end: Some(at(605)),
                views: 321,
                more_views: false,
                top: vec![("/home".into(), 100), ("/cart".into(), 50)],
                users: Some(99),
            },
            standstill: None,
        };
        let expected = [
            "user-activity running 3 m 20 s: 12,345 events/s, 1,234,567 read, 7,000 waiting",
            "  watermark   10:05:00 UTC, 2 m 0 s behind the clock",
            "  last minute 10:04–10:05: 321 page views, 99 active users in 5 minutes",
            "  top pages   /home 100, /cart 50",
            "  tables      page_view_counts 42",
            "  records     lake 1,000 (+500)",
            "  late        3 (user_sessions 3)",
            "  dead        12 (bad_json 10, empty 2)",
            "  checkpoint  7 made 4.0 s ago in 85 ms, 1.5 kB",
        ];
        assert_eq!(block(&job, &around), expected);

        job.sinks[1].rejected = 2;
        assert_eq!(block(&job, &around)[8], "  rejected    2 (page_view_counts 2)");
        job.sinks[1].rejected = 0;

        job.back_pressured = 1;
        job.sinks[0].trouble = Some("disk full".into());
        job.trouble = Some("no answer from Kafka".into());
        let lines = block(&job, &Around { standstill: Some("input quiet".into()), ..around });
        assert!(lines[0].ends_with(", 1 of 2 workers held up"), "{lines:?}");
        assert!(lines[1].ends_with(" (input quiet)"), "{lines:?}");
        assert_eq!(lines[9..11], ["  ! no answer from Kafka", "  ! lake: disk full"]);
    }

    #[test]
    fn f24_a_page_cannot_move_the_cursor() {
        let top = vec![("/a\u{1b}[2J\n\u{202e}".to_owned(), 7), ("/x".repeat(1_000), 1)];
        let figures = Figures { end: Some(at(605)), top, ..Figures::default() };
        let lines = block(&Snapshot::default(), &Around { figures, ..Around::default() });
        assert!(!lines.iter().any(|line| line.chars().any(is_active)), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() < 120), "{lines:?}");
    }

    #[test]
    fn a_job_that_begins_has_little_to_say() {
        let job = Snapshot { job: "j".into(), ..Snapshot::default() };
        let lines = block(&job, &Around::default());
        assert_eq!(lines[0], "j starting 0 ms: 0 events/s, 0 read");
        assert_eq!(lines[1], "  watermark   none yet");
        assert_eq!(lines[2], "  last minute none is complete yet");
        assert_eq!(lines[3..], ["  late        0", "  dead        0"]);
    }
}
