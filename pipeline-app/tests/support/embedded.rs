//! What the job leaves in a folder when it runs without services: tables in SQLite, a lake, files.

use std::path::Path;

use super::{check_enriched, lake, unique};
use crate::oracle::compare::{assert_same_rows, assert_same_table};
use crate::oracle::{Expected, time};

/// Every output, against the oracle.
pub fn check(expected: &Expected, data_dir: &Path, lake_path: &Path) {
    check_tables(expected, &data_dir.join("stream_data.db"));
    let rows = lake::rows(lake_path);
    let wanted: Vec<_> = expected
        .accepted_rows
        .iter()
        .map(|r| {
            let (at, user) = ((r.partition, r.offset), r.user_id.clone());
            let (page, kind) = (r.page_url.clone(), r.event_type.clone());
            (at, r.event_time, user, page, kind, r.event_date.clone())
        })
        .collect();
    assert_same_rows("lake", &wanted, &rows);

    let lines = |topic: &str| {
        let path = data_dir.join("topics").join(format!("{topic}.jsonl"));
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let enriched = lines("enriched_activity");
    assert_eq!(enriched.len(), expected.accepted_rows.len());
    check_enriched(expected, enriched.iter().map(|line| (None, line.as_str())));

    let value = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let text = |v: &serde_json::Value, name: &str| v[name].as_str().unwrap_or_default().to_owned();
    let late: Vec<_> = lines("user_activity.late")
        .iter()
        .map(|line| {
            let v = value(line);
            let at = (text(&v, "topic"), v["partition"].as_i64(), v["offset"].as_i64());
            (text(&v, "aggregate"), at, text(&v, "watermark"))
        })
        .collect();
    let wanted: Vec<_> = expected
        .late
        .iter()
        .map(|l| {
            let at = (l.topic.clone(), Some(i64::from(l.partition)), Some(l.offset));
            (l.aggregate.clone(), at, time::show(l.watermark))
        })
        .collect();
    assert_same_rows("late", &wanted, &late);
    let dead: Vec<_> = lines("user_activity.dlq")
        .iter()
        .map(|line| {
            let v = value(line);
            (text(&v, "topic"), v["offset"].as_i64(), text(&v, "reason"), text(&v, "field"))
        })
        .collect();
    let wanted: Vec<_> = expected
        .dead
        .iter()
        .map(|d| {
            let field = d.field.clone().unwrap_or_default();
            (d.topic.clone(), Some(d.offset), d.reason.clone(), field)
        })
        .collect();
    assert_same_rows("dead letters", &wanted, &dead);
}

fn check_tables(expected: &Expected, path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    let micros = |text: String| {
        let time = chrono::DateTime::parse_from_rfc3339(&text).unwrap();
        assert!(text.ends_with('Z'), "{text} is not marked as UTC");
        time.timestamp_micros()
    };
    let mut query = database
        .prepare("SELECT window_start, page_url, window_end, view_count FROM page_view_counts")
        .unwrap();
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, i64>(3)?)));
    let counts = unique(rows.unwrap().map(|row| {
        let (start, page, end, views): (String, String, String, i64) = row.unwrap();
        ((micros(start), page), (micros(end), views as u64))
    }));
    assert_same_table("page_view_counts", &expected.page_view_counts, &counts);
    let mut query = database
        .prepare("SELECT window_start, window_end, active_user_count FROM active_users")
        .unwrap();
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, i64>(2)?)));
    let users = unique(rows.unwrap().map(|row| {
        let (start, end, users): (String, String, i64) = row.unwrap();
        (micros(start), (micros(end), users as u64))
    }));
    assert_same_table("active_users", &expected.active_users, &users);
    let mut query = database
        .prepare("SELECT user_id, session_start_time, session_end_time, session_duration_seconds FROM user_sessions")
        .unwrap();
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, f64>(3)?)));
    let sessions = unique(rows.unwrap().map(|row| {
        let (user, start, end, seconds): (String, String, String, f64) = row.unwrap();
        ((user, micros(start)), (micros(end), seconds))
    }));
    assert_same_table("user_sessions", &expected.user_sessions, &sessions);
}
