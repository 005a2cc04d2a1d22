//! An independent batch oracle: what the user-activity job must put out, to the last row.
//!
//! It computes the job's result from the whole input at once, with plain loops that follow
//! `mission.md` sentence by sentence. It shares no code with the library or the application, so that
//! a bug in either shows as a difference. Simple and obviously right beats fast here.
//!
//! Times are microseconds since 1970-01-01T00:00:00Z everywhere.
//!
//! ```text
//! mod oracle;
//! let splits = oracle::generate::round_robin(&records, 4);
//! let expected = oracle::expect(&splits, &oracle::Settings::default());
//! oracle::compare::assert_same_table("page_view_counts", &expected.page_view_counts, &actual);
//! ```
//!
//! What it does not know: records given up with `processing_error` (that is a fact of one run, not
//! of the data). Floors, also facts of a run, are given to it in [`InputSplit::floors`].
#![allow(
    dead_code,
    unreachable_pub,
    reason = "test support: every integration test uses another part of it"
)]

pub mod compare;
pub mod decode;
pub mod generate;
pub mod json;
pub mod malformed;
pub mod malformed_times;
pub mod outputs;
pub mod sessions;
pub mod tables;
pub mod time;

use std::collections::BTreeMap;

use decode::{Decoded, Event, decode};

/// One second in microseconds.
pub const SECOND: i64 = 1_000_000;
/// One minute in microseconds.
pub const MINUTE: i64 = 60 * SECOND;
/// One hour in microseconds.
pub const HOUR: i64 = 60 * MINUTE;

/// Name of the table of page views per minute and page.
pub const PAGE_VIEW_COUNTS: &str = "page_view_counts";
/// Name of the table of distinct users per sliding window.
pub const ACTIVE_USERS: &str = "active_users";
/// Name of the table of finished sessions.
pub const USER_SESSIONS: &str = "user_sessions";

/// One record as it lies in the input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputRecord {
    /// The record's key; it never changes a result, it is only carried to the output topics.
    pub key: Option<Vec<u8>>,
    /// The payload; `None` is a null payload.
    pub value: Option<Vec<u8>>,
    /// The moment an event may be at most [`Settings::max_future`] ahead of: the record's own
    /// timestamp, or for files the stored base of the limit. `None`: no limit.
    pub timestamp_micros: Option<i64>,
    /// Offset in the partition, or the 0-based line number in the file.
    pub offset: i64,
}

/// One split: a Kafka partition or a file, its records in the order they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputSplit {
    /// `topic/partition`, or the file.
    pub name: String,
    /// The topic, or the file's name.
    pub topic: String,
    /// The partition, or the number given to the file.
    pub partition: i32,
    /// Its records, in order.
    pub records: Vec<InputRecord>,
    /// Floors as a run recorded them: (first offset it is in force for, floor). Usually empty.
    pub floors: Vec<(i64, i64)>,
}

/// The settings that change results, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How far a split's watermark stays behind its highest event time.
    pub watermark_delay: i64,
    /// A pause of this length or longer ends a session.
    pub session_gap: i64,
    /// No session takes an event this long or longer after its start.
    pub session_max: i64,
    /// How far an event may be ahead of its record's timestamp.
    pub max_future: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            watermark_delay: 2 * MINUTE,
            session_gap: 30 * MINUTE,
            session_max: 24 * HOUR,
            max_future: HOUR,
        }
    }
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadRow {
    /// Topic (or file name) it was read from.
    pub topic: String,
    /// Partition it was read from.
    pub partition: i32,
    /// Offset it was read from.
    pub offset: i64,
    /// The first reason that applies.
    pub reason: String,
    /// The field the reason is about, if it is about one.
    pub field: Option<String>,
}

/// One event that is late for one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LateRow {
    /// The aggregate: its table's name.
    pub aggregate: String,
    /// Topic (or file name) it was read from.
    pub topic: String,
    /// Partition it was read from.
    pub partition: i32,
    /// Offset it was read from.
    pub offset: i64,
    /// Its event time.
    pub event_time: i64,
    /// The mark: its own split's watermark before it was read.
    pub watermark: i64,
}

/// One valid record, as it must be in the lake and in the enriched topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedRow {
    /// Event time.
    pub event_time: i64,
    /// User; an integer is taken as written.
    pub user_id: String,
    /// Page; `None` if null or absent, `Some("")` if it is the empty string.
    pub page_url: Option<String>,
    /// Type of the event.
    pub event_type: String,
    /// Topic (or file name) it was read from.
    pub topic: String,
    /// Partition it was read from.
    pub partition: i32,
    /// Offset it was read from.
    pub offset: i64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// `event_date` of the enriched record, and the lake's folder: the event time's day in UTC.
    pub event_date: String,
    /// `page_category` of the enriched record.
    pub page_category: Option<String>,
    /// The members of the original object in order: unescaped name, value as written.
    pub members: Vec<(String, String)>,
}

/// Everything the job must put out for an input that has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    /// Records read.
    pub read: u64,
    /// Records accepted.
    pub accepted: u64,
    /// Dead letters, in the order of splits and records.
    pub dead: Vec<DeadRow>,
    /// (window start, page) -> (window end, views).
    pub page_view_counts: BTreeMap<(i64, String), (i64, u64)>,
    /// Window start -> (window end, distinct users).
    pub active_users: BTreeMap<i64, (i64, u64)>,
    /// (user, session start) -> (session end, duration in seconds).
    pub user_sessions: BTreeMap<(String, i64), (i64, f64)>,
    /// Late events, once per aggregate, in the order of splits and records.
    pub late: Vec<LateRow>,
    /// Valid records, in the order of splits and records.
    pub accepted_rows: Vec<AcceptedRow>,
    /// Per aggregate, how many accepted events it wants: counted + late.
    pub wanted: BTreeMap<String, u64>,
    /// Per aggregate, how many events went into its rows.
    pub counted: BTreeMap<String, u64>,
}

impl Expected {
    /// Dead letters per reason, as in `--summary-json`.
    pub fn dead_by_reason(&self) -> BTreeMap<String, u64> {
        count_by(self.dead.iter().map(|row| &row.reason))
    }

    /// Late events per aggregate, as in `--summary-json`; aggregates without any are left out.
    pub fn late_by_aggregate(&self) -> BTreeMap<String, u64> {
        count_by(self.late.iter().map(|row| &row.aggregate))
    }

    /// A few lines of totals, for people.
    pub fn totals(&self) -> String {
        format!(
            "read {}, accepted {}, dead letters {:?}\n\
             rows: page_view_counts {}, active_users {}, user_sessions {}\n\
             wanted {:?}\ncounted {:?}\nlate {:?}",
            self.read,
            self.accepted,
            self.dead_by_reason(),
            self.page_view_counts.len(),
            self.active_users.len(),
            self.user_sessions.len(),
            self.wanted,
            self.counted,
            self.late_by_aggregate()
        )
    }
}

fn count_by<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    counts
}

/// What the job must put out when all of `splits` has been read to the end.
pub fn expect(splits: &[InputSplit], settings: &Settings) -> Expected {
    let mut expected = Expected::default();
    let mut views = tables::PageViewCounts::default();
    let mut users = tables::ActiveUsers::default();
    let mut sessions = sessions::Sessions::default();

    for split in splits {
        // The highest event time accepted from this split so far.
        let mut highest: Option<i64> = None;
        for record in &split.records {
            expected.read += 1;
            let limit = record.timestamp_micros.map(|at| at.saturating_add(settings.max_future));
            let event = match decode(record.value.as_deref(), limit) {
                Decoded::Dead { reason, field } => {
                    expected.dead.push(DeadRow {
                        topic: split.topic.clone(),
                        partition: split.partition,
                        offset: record.offset,
                        reason: reason.to_owned(),
                        field: field.map(str::to_owned),
                    });
                    continue;
                }
                Decoded::Valid(event) => event,
            };
            expected.accepted += 1;

            // The split's watermark before this record was read.
            let own = highest.map(|highest| highest - settings.watermark_delay);
            let mark = own.max(floor_in_force(split, record.offset));
            highest = highest.max(Some(event.event_time));

            let mut aggregate = |name: &str, wanted: bool, on_time: bool| {
                let wanted_so_far = expected.wanted.entry(name.to_owned()).or_insert(0);
                let counted_so_far = expected.counted.entry(name.to_owned()).or_insert(0);
                if !wanted {
                    return;
                }
                *wanted_so_far += 1;
                if on_time {
                    *counted_so_far += 1;
                    return;
                }
                expected.late.push(LateRow {
                    aggregate: name.to_owned(),
                    topic: split.topic.clone(),
                    partition: split.partition,
                    offset: record.offset,
                    event_time: event.event_time,
                    watermark: mark.expect("only an event with a mark can be late"),
                });
            };
            let is_view = event.event_type == "page_view";
            aggregate(PAGE_VIEW_COUNTS, is_view, is_view && views.add(&event, mark));
            aggregate(ACTIVE_USERS, true, users.add(&event, mark));
            aggregate(USER_SESSIONS, true, sessions.add(&event, mark));
            expected.accepted_rows.push(accepted_row(split, record, event));
        }
    }

    expected.page_view_counts = views.rows();
    expected.active_users = users.rows();
    expected.user_sessions = sessions.rows(settings);
    expected
}

/// The floor that holds for the record at `offset`: the last one set at or before it.
fn floor_in_force(split: &InputSplit, offset: i64) -> Option<i64> {
    let mut in_force: Option<(i64, i64)> = None;
    for &(from, floor) in &split.floors {
        if from <= offset {
            in_force = in_force.max(Some((from, floor)));
        }
    }
    in_force.map(|(_, floor)| floor)
}

fn accepted_row(split: &InputSplit, record: &InputRecord, event: Event) -> AcceptedRow {
    AcceptedRow {
        event_date: time::date(event.event_time),
        page_category: outputs::page_category(event.page_url.as_deref()),
        event_time: event.event_time,
        user_id: event.user_id,
        page_url: event.page_url,
        event_type: event.event_type,
        topic: split.topic.clone(),
        partition: split.partition,
        offset: record.offset,
        key: record.key.clone(),
        members: event.members,
    }
}
