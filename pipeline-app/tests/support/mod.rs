//! Runs the job in memory and turns its output into the oracle's terms.

#![allow(dead_code, unreachable_pub, reason = "each integration test uses another part of it")]

pub mod embedded;
pub mod kafka;
pub mod lake;
pub mod program;
pub mod services;

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use pipeline_app::job::{Outputs, Processed, Times, user_activity};
use pipeline_app::model::Activity;
use pipeline_app::rows::{ActiveUsers, PageViewCount, UserSession};
use pipeline_app::source::ActivityDecoder;
use pipeline_app::status::LastMinute;
use streamkit::connector::memory::{Collect, Memory};
use streamkit::connector::{DeadLetter, RawRecord, SourceExt};
use streamkit::prelude::*;
use streamkit::{JobProgress, SplitId};

use crate::oracle::{
    AcceptedRow, Expected, InputRecord, InputSplit,
    compare::{assert_same_rows, assert_same_table},
    json::Json,
    outputs::enriched_difference,
};

/// The lines of the real web log that the tests run on.
pub fn web_activity() -> Vec<InputRecord> {
    let bytes = include_bytes!("../data/web_activity.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    crate::oracle::generate::records(text.lines())
}

/// The collecting end of every output.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    pub page_view_counts: Collect<PageViewCount>,
    pub active_users: Collect<ActiveUsers>,
    pub user_sessions: Collect<UserSession>,
    pub lake: Collect<Processed>,
    pub enriched: Collect<Processed>,
    pub dead_letters: Collect<DeadLetter>,
    pub late: Collect<LateRecord<Activity>>,
}

impl Collected {
    pub fn outputs(&self) -> Outputs {
        Outputs {
            page_view_counts: Some(Box::new(self.page_view_counts.clone())),
            active_users: Some(Box::new(self.active_users.clone())),
            user_sessions: Some(Box::new(self.user_sessions.clone())),
            lake: Some(Box::new(self.lake.clone())),
            enriched: Some(Box::new(self.enriched.clone())),
            dead_letters: Box::new(self.dead_letters.clone()),
            late: Box::new(self.late.clone()),
        }
    }
}

/// The splits as a source in memory.
pub fn source(splits: &[InputSplit]) -> impl Source<Item = Activity> + use<> {
    let raw = |split: &InputSplit| {
        split
            .records
            .iter()
            .map(|record| RawRecord {
                key: record.key.clone().map(Bytes::from),
                value: record.value.clone().map(Bytes::from),
                timestamp: record.timestamp_micros.map(Timestamp::from_micros),
                partition: split.partition,
                offset: u64::try_from(record.offset).unwrap(),
            })
            .collect()
    };
    Memory::splits(splits.iter().map(raw).collect::<Vec<_>>()).decode(ActivityDecoder)
}

/// Runs the whole job over the splits, to its end.
pub async fn run(splits: &[InputSplit], config: RunConfig) -> (Collected, JobProgress) {
    let collected = Collected::default();
    let job = user_activity(
        source(splits),
        collected.outputs(),
        Times::default(),
        &LastMinute::default(),
    );
    let handle = job.start(config.at_end(InputEnd::Close)).unwrap();
    handle.wait().await.unwrap();
    (collected, handle.progress())
}

/// Compares every output with what the oracle expects, to the last row.
pub fn check(expected: &Expected, got: &Collected, progress: &JobProgress) {
    let micros = Timestamp::as_micros;
    let rows = got.page_view_counts.rows().into_iter();
    let counts = unique(
        rows.map(|r| ((micros(r.window_start), r.page_url), (micros(r.window_end), r.view_count))),
    );
    assert_same_table("page_view_counts", &expected.page_view_counts, &counts);
    let rows = got.active_users.rows().into_iter();
    let users =
        unique(rows.map(|r| (micros(r.window_start), (micros(r.window_end), r.active_user_count))));
    assert_same_table("active_users", &expected.active_users, &users);
    let rows = got.user_sessions.rows().into_iter();
    let sessions = unique(rows.map(|r| {
        let duration = r.duration_seconds();
        ((r.user_id, micros(r.session_start_time)), (micros(r.session_end_time), duration))
    }));
    assert_same_table("user_sessions", &expected.user_sessions, &sessions);

    let wanted: Vec<_> = expected
        .accepted_rows
        .iter()
        .map(|r| (r.partition, r.offset, r.event_time, r.user_id.clone(), r.page_url.clone()))
        .collect();
    for (name, output) in [("lake", &got.lake), ("enriched", &got.enriched)] {
        let rows: Vec<_> = output.rows().iter().map(|p| lake_row(&p.activity)).collect();
        assert_same_rows(name, &wanted, &rows);
    }
    let late: Vec<_> = got
        .late
        .rows()
        .into_iter()
        .map(|l| {
            let (partition, offset) = (l.record.partition(), l.record.offset());
            (l.aggregate.to_string(), partition, offset, micros(l.event_time), micros(l.watermark))
        })
        .collect();
    let wanted: Vec<_> = expected
        .late
        .iter()
        .map(|l| (l.aggregate.clone(), l.partition, l.offset, l.event_time, l.watermark))
        .collect();
    assert_same_rows("late", &wanted, &late);
    let dead: Vec<_> = got
        .dead_letters
        .rows()
        .into_iter()
        .map(|d| (d.partition, d.offset as i64, d.reason.to_string(), d.field.map(Into::into)))
        .collect();
    let wanted: Vec<(i32, i64, String, Option<String>)> = expected
        .dead
        .iter()
        .map(|d| (d.partition, d.offset, d.reason.clone(), d.field.clone()))
        .collect();
    assert_same_rows("dead letters", &wanted, &dead);

    // The law of conservation, as the program itself has measured it (rule D13).
    assert_eq!(progress.read, expected.read);
    assert_eq!(progress.accepted, expected.accepted);
    assert_eq!(progress.read, progress.accepted + progress.dead_letters.values().sum::<u64>());
    assert_eq!(nonzero(&progress.wanted), nonzero(&expected.wanted));
    assert_eq!(nonzero(&progress.counted), nonzero(&expected.counted));
    assert_eq!(nonzero(&progress.late), nonzero(&expected.late_by_aggregate()));
    for sink in &progress.sinks {
        let rows = match sink.name.as_str() {
            "page_view_counts table" => expected.page_view_counts.len(),
            "active_users table" => expected.active_users.len(),
            "user_sessions table" => expected.user_sessions.len(),
            "lake" | "enriched" => expected.accepted_rows.len(),
            "dead letters" => expected.dead.len(),
            _ => expected.late.len(),
        };
        assert_eq!(sink.rows, rows as u64, "rows of {}", sink.name);
    }
}

/// The fields that the job adds.
const OURS: [&str; 3] = ["processing_time", "event_date", "page_category"];

/// Compares enriched records (the key, where there is one to compare, and the text) with the
/// accepted ones. They do not say where they come from, so they are matched by the text of their
/// original members.
pub fn check_enriched<'a>(
    expected: &Expected,
    enriched: impl Iterator<Item = (Option<Option<Vec<u8>>>, &'a str)>,
) {
    let ours = |name: &str| OURS.contains(&name);
    let mut by_members: BTreeMap<Vec<String>, Vec<&AcceptedRow>> = BTreeMap::new();
    for row in &expected.accepted_rows {
        let members = row.members.iter().filter(|(name, _)| !ours(name));
        by_members.entry(members.map(|(_, text)| text.clone()).collect()).or_default().push(row);
    }
    for (key, text) in enriched {
        let Ok(Json::Object(members)) = crate::oracle::json::parse(text) else {
            panic!("not an object: {text}");
        };
        let original = members.iter().filter(|member| !ours(&member.name));
        let texts: Vec<String> = original.map(|m| text[m.start..m.end].to_owned()).collect();
        let rows = by_members.get_mut(&texts).expect("an input record for every enriched one");
        let at = rows.iter().position(|row| {
            key.as_ref().is_none_or(|key| row.key == *key)
                && enriched_difference(row, text).is_none()
        });
        rows.swap_remove(at.expect("an input record that explains every field"));
    }
    assert!(by_members.values().all(Vec::is_empty), "input records without an enriched one");
}

fn lake_row(activity: &Activity) -> (i32, i64, i64, String, Option<String>) {
    (
        activity.partition(),
        activity.offset(),
        activity.event_time(),
        activity.user_id().to_owned(),
        activity.page_url().map(str::to_owned),
    )
}

fn nonzero(counts: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| (name.clone(), *n)).collect()
}

/// A map of rows; a key that occurs twice is a row too many.
pub fn unique<K: Ord + std::fmt::Debug + Clone, V>(
    rows: impl Iterator<Item = (K, V)>,
) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    for (key, value) in rows {
        assert!(map.insert(key.clone(), value).is_none(), "two final rows for {key:?}");
    }
    map
}

/// The name of a split of [`source`].
pub fn split_id(i: usize) -> SplitId {
    SplitId::new(format!("memory/{i}"))
}
