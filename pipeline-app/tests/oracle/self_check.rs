//! The oracle's own tests of windows, sessions and marks: cases computed by hand, and properties that must hold for any input.
//!
//! Not part of [`super::oracle`], so that they run once and not with every test that uses it:
//!
//! ```text
//! mod oracle;
//! #[path = "oracle/self_check.rs"]
//! mod self_check;
//! #[path = "oracle/self_check_records.rs"]
//! mod self_check_records;
//! ```

use std::collections::BTreeMap;
use std::io::Read;

use super::oracle::generate::{self, Random};
use super::oracle::malformed;
use super::oracle::sessions::{Kind, sessions_of_one_user};
use super::oracle::{self, *};

/// 2024-01-15T12:00:00Z
pub(crate) const NOON: i64 = 1_705_320_000 * SECOND;

/// One event at noon plus these seconds.
pub(crate) fn event(seconds: f64, user: &str, page: &str, event_type: &str) -> String {
    let time = 1_705_320_000.0 + seconds;
    format!(
        "{{\"event_time\":{time},\"user_id\":\"{user}\",\"page_url\":\"{page}\",\"event_type\":\"{event_type}\"}}"
    )
}

/// What is expected of these lines in one split.
pub(crate) fn expect_one_split(lines: &[String]) -> Expected {
    expect(&generate::round_robin(&generate::records(lines), 1), &Settings::default())
}

/// Late rows as (aggregate, offset, watermark in seconds after noon).
fn late(expected: &Expected) -> Vec<(&str, i64, i64)> {
    let short = |row: &'_ LateRow| (row.offset, (row.watermark - NOON) / SECOND);
    expected.late.iter().map(|r| (r.aggregate.as_str(), short(r).0, short(r).1)).collect()
}

#[test]
fn tumbling_windows_are_half_open_and_late_when_their_end_is_reached() {
    let expected = expect_one_split(&[
        event(0.0, "a", "/x", "page_view"),
        event(59.5, "a", "/x", "page_view"),
        event(60.0, "b", "/x", "page_view"),
        event(61.0, "b", "/x", "click"),
        event(179.0, "c", "/y", "page_view"), // own watermark 59 from here on
        event(10.0, "d", "/x", "page_view"),  // [0, 60) is still open
        event(180.0, "c", "/y", "page_view"), // own watermark 60 from here on
        event(59.9, "d", "/x", "page_view"),  // [0, 60) has been passed
        event(60.0, "d", "/x", "page_view"),  // on the watermark: not late for anything
    ]);
    let at = |minute: i64| NOON + minute * MINUTE;
    let row = |minute, page: &str, n| ((at(minute), page.to_owned()), (at(minute + 1), n));
    let rows = [row(0, "/x", 3), row(1, "/x", 2), row(2, "/y", 1), row(3, "/y", 1)];
    assert_eq!(expected.page_view_counts, BTreeMap::from(rows));
    // Offset 5 is older than the watermark 59: late for sessions only.
    let rows = [(USER_SESSIONS, 5, 59), (PAGE_VIEW_COUNTS, 7, 60), (USER_SESSIONS, 7, 60)];
    assert_eq!(late(&expected), rows);
}

#[test]
fn partly_late_events_count_in_the_windows_that_are_left() {
    let expected = expect_one_split(&[
        event(300.0, "a", "", "click"), // in windows starting at minutes 1 to 5; own watermark 180
        event(30.0, "b", "", "click"),  // windows start at -4 to 0 and end at 1 to 5: 4, 5 are left
        event(600.0, "a", "", "click"), // own watermark 480
        event(239.0, "c", "", "click"), // windows end at 4 to 8: all passed, 8 exactly reached
        event(240.0, "d", "", "click"), // windows end at 5 to 9: one is left, starting at 4
        event(240.0, "d", "", "click"), // the same user again
    ]);
    let row = |minute: i64, n| (NOON + minute * MINUTE, (NOON + (minute + 5) * MINUTE, n));
    // b in 0 only and not in 1 (it was before minute 1), and in -1, which ends at 4.
    let rows = [
        row(-1, 1),
        row(0, 1),
        row(1, 1),
        row(2, 1),
        row(3, 1),
        row(4, 2),
        row(5, 1),
        row(6, 1),
        row(7, 1),
        row(8, 1),
        row(9, 1),
        row(10, 1),
    ];
    compare::assert_same_table("active_users", &BTreeMap::from(rows), &expected.active_users);
    let sessions =
        [1, 3, 4, 5].map(|offset| (USER_SESSIONS, offset, if offset == 1 { 180 } else { 480 }));
    let mut rows = sessions.to_vec();
    rows.insert(1, (ACTIVE_USERS, 3, 480));
    assert_eq!(late(&expected), rows);
}

#[test]
fn every_split_has_its_own_mark_and_dead_letters_do_not_move_it() {
    let mut lines = vec![
        event(0.0, "a", "/", "page_view"),
        event(0.0, "b", "/", "page_view"),
        event(7200.0, "a", "/", "page_view"), // too far ahead of its timestamp
        event(3600.0, "b", "/", "page_view"), // just not too far
        event(0.0, "a", "/", "page_view"),
        event(0.0, "b", "/", "page_view"),
        event(7200.0, "", "/", "page_view"), // dead for another reason
        "{".to_owned(),
        event(1.0, "a", "/", "page_view"),
    ];
    let mut records = generate::records(&lines);
    for record in &mut records {
        record.timestamp_micros = Some(NOON);
    }
    let expected = expect(&generate::round_robin(&records, 2), &Settings::default());
    assert_eq!((expected.read, expected.accepted), (9, 6));
    let dead: Vec<_> = expected.dead.iter().map(|d| (d.partition, d.offset, &*d.reason)).collect();
    assert_eq!(dead, [(0, 1, "future_event_time"), (0, 3, "empty_field"), (1, 3, "bad_json")]);
    let late: Vec<_> =
        expected.late.iter().map(|r| (&*r.aggregate, r.partition, r.offset)).collect();
    assert_eq!(late, [(PAGE_VIEW_COUNTS, 1, 2), (ACTIVE_USERS, 1, 2), (USER_SESSIONS, 1, 2)]);
    assert_eq!(expected.late[0].watermark, NOON + 3600 * SECOND - 2 * MINUTE);

    // A floor counts like a watermark from its offset on, but not if it is behind the split's own.
    lines.truncate(2);
    let mut splits = generate::round_robin(&generate::records(&lines), 1);
    splits[0].floors = vec![(1, NOON + 1)];
    let expected = expect(&splits, &Settings::default());
    let rows: Vec<_> =
        expected.late.iter().map(|r| (&*r.aggregate, r.offset, r.watermark)).collect();
    assert_eq!(rows, [(USER_SESSIONS, 1, NOON + 1)]);
    splits[0].floors = vec![(0, NOON - HOUR)];
    assert_eq!(expect(&splits, &Settings::default()).late, []);
}

#[test]
fn session_rules() {
    use Kind::{End, Other, Start};
    // Times in minutes; expected sessions as (start, end).
    type Case = (&'static str, &'static [(i64, Kind)], &'static [(i64, i64)]);
    let cases: &[Case] = &[
        ("gap not reached", &[(0, Other), (29, Other), (58, Other)], &[(0, 58)]),
        ("gap reached", &[(0, Other), (30, Other)], &[(0, 0), (30, 30)]),
        ("start splits", &[(0, Other), (5, Start), (6, Other)], &[(0, 0), (5, 6)]),
        ("start first", &[(5, Other), (5, Start), (0, Other)], &[(0, 0), (5, 5)]),
        ("two starts at once", &[(5, Start), (5, Start), (6, Other)], &[(5, 6)]),
        ("two starts", &[(5, Start), (6, Start)], &[(5, 5), (6, 6)]),
        ("end closes", &[(0, Start), (5, End), (6, Other)], &[(0, 5), (6, 6)]),
        ("end last", &[(0, Start), (5, End), (5, Other), (5, End)], &[(0, 5)]),
        ("end alone", &[(5, End)], &[(5, 5)]),
        ("ends alone", &[(5, End), (5, End), (6, End)], &[(5, 5), (6, 6)]),
        ("all at once", &[(5, End), (5, Other), (5, Start), (5, End), (5, Start)], &[(5, 5)]),
        ("start at once with an end", &[(0, Other), (5, End), (5, Start)], &[(0, 0), (5, 5)]),
        ("end after the gap", &[(0, Start), (30, End)], &[(0, 0), (30, 30)]),
        (
            "end then others",
            &[(0, End), (1, Other), (2, End), (3, Other)],
            &[(0, 0), (1, 2), (3, 3)],
        ),
    ];
    for (name, events, sessions) in cases {
        let in_micros = |m: i64| NOON + m * MINUTE;
        let events: Vec<_> = events.iter().map(|&(m, kind)| (in_micros(m), kind)).collect();
        let sessions: Vec<_> =
            sessions.iter().map(|&(a, b)| (in_micros(a), in_micros(b))).collect();
        assert_eq!(sessions_of_one_user(&events, &Settings::default()), sessions, "{name}");
    }

    // Every 20 minutes for 25 hours: the event 24 hours after the start opens a new session.
    let events: Vec<_> = (0..75).map(|n| (n * 20 * MINUTE, Other)).collect();
    let sessions = [(0, 24 * HOUR - 20 * MINUTE), (24 * HOUR, 24 * HOUR + 40 * MINUTE)];
    assert_eq!(sessions_of_one_user(&events, &Settings::default()), sessions);
    // An end at that moment opens a session and closes it; the next event opens another.
    let mut events = events;
    events.push((24 * HOUR, End));
    events.retain(|&event| event != (24 * HOUR, Other));
    let sessions = [
        (0, 24 * HOUR - 20 * MINUTE),
        (24 * HOUR, 24 * HOUR),
        (24 * HOUR + 20 * MINUTE, 24 * HOUR + 40 * MINUTE),
    ];
    assert_eq!(sessions_of_one_user(&events, &Settings::default()), sessions);
}

#[test]
fn sessions_have_different_starts_and_do_not_depend_on_the_order_of_arrival() {
    let mut random = Random::new(1);
    let settings = Settings { session_gap: 4, session_max: 9, ..Settings::default() };
    for _ in 0..100_000 {
        let count = random.below(12) + 1;
        let kinds = [Kind::Start, Kind::Other, Kind::Other, Kind::End];
        let mut events: Vec<_> =
            (0..count).map(|_| (random.below(25), random.pick(&kinds))).collect();
        let sessions = sessions_of_one_user(&events, &settings);
        random.shuffle(&mut events);
        assert_eq!(sessions_of_one_user(&events, &settings), sessions, "{events:?}");
        assert!(sessions.iter().all(|(start, end)| start <= end && end - start < 9));
        for pair in sessions.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{events:?} -> {sessions:?}");
            assert!(pair[0].1 < pair[1].0, "{events:?} -> {sessions:?}");
        }
        for (time, kind) in &events {
            let inside = sessions.iter().filter(|(a, b)| a <= time && time <= b).count();
            assert_eq!(inside, 1, "{events:?} -> {sessions:?}");
            assert!(*kind != Kind::Start || sessions.iter().any(|(start, _)| start == time));
            assert!(*kind != Kind::End || sessions.iter().any(|(_, end)| end == time));
        }
    }
}

/// Whatever the input: the books balance, and the tables agree with what was counted.
fn check_conservation(e: &Expected) {
    assert_eq!(e.read, e.accepted + e.dead.len() as u64);
    assert_eq!(e.accepted, e.accepted_rows.len() as u64);
    let late = e.late_by_aggregate();
    for (aggregate, wanted) in &e.wanted {
        assert_eq!(
            *wanted,
            e.counted[aggregate] + late.get(aggregate).unwrap_or(&0),
            "{aggregate}"
        );
    }
    let views: u64 = e.page_view_counts.values().map(|row| row.1).sum();
    assert_eq!(views, *e.counted.get(PAGE_VIEW_COUNTS).unwrap_or(&0));
}

fn tables(e: &Expected) -> impl PartialEq + std::fmt::Debug {
    (e.page_view_counts.clone(), e.active_users.clone(), e.user_sessions.clone())
}

#[test]
fn disorder_within_the_delay_and_malformed_records_change_no_table() {
    let settings = Settings::default();
    for seed in 0..20 {
        let sorted = generate::small_world(1_000, seed);
        let expected = expect(&generate::round_robin(&sorted, 1), &settings);
        assert_eq!(expected.late, []);
        check_conservation(&expected);

        let mut shuffled = generate::shuffle_within(&sorted, settings.watermark_delay, seed);
        assert_ne!(shuffled, sorted);
        for (index, bad) in malformed::malformed_lines(seed).into_iter().enumerate() {
            shuffled.insert(index * 2, bad);
        }
        generate::stamp(&mut shuffled);
        generate::meaningless_keys(&mut shuffled, seed);
        for n in [1, 3] {
            let other = expect(&generate::random_split(&shuffled, n, seed), &settings);
            assert_eq!(other.late, []);
            assert!(tables(&other) == tables(&expected), "seed {seed}, {n} splits");
            assert_eq!(other.dead_by_reason().len(), 12);
            check_conservation(&other);
        }

        let mut disordered = generate::heavy_disorder(&sorted, seed);
        generate::key_by_user(&mut disordered);
        let other = expect(&generate::random_split(&disordered, 2, seed), &settings);
        check_conservation(&other);
        let late = other.late_by_aggregate();
        assert!(late.len() == 3 && late[USER_SESSIONS] > late[ACTIVE_USERS], "{late:?}");
    }
}

#[test]
fn real_events() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/web_activity.jsonl.gz");
    let Ok(file) = std::fs::File::open(path) else {
        eprintln!("skipped: the data set is not there");
        return;
    };
    let mut text = String::new();
    let read = flate2::read::GzDecoder::new(file).read_to_string(&mut text);
    assert!(read.is_ok());
    let records = generate::records(text.lines());
    // The totals were also computed with SQL. Nothing in this data set is late as it comes.
    for n in [1, 4] {
        let expected = oracle::expect(&generate::round_robin(&records, n), &Settings::default());
        check_conservation(&expected);
        assert_eq!((expected.accepted, expected.dead.len(), expected.late.len()), (10_000, 0, 0));
        assert_eq!(expected.page_view_counts.len(), 2_738);
        assert_eq!((expected.active_users.len(), expected.user_sessions.len()), (420, 3_052));
    }
    let disordered = generate::heavy_disorder(&records, 7);
    let expected = oracle::expect(&generate::round_robin(&disordered, 1), &Settings::default());
    check_conservation(&expected);
    let late = [(ACTIVE_USERS, 829), (PAGE_VIEW_COUNTS, 324), (USER_SESSIONS, 829)];
    let late = late.map(|(aggregate, n)| (aggregate.to_owned(), n));
    assert_eq!(expected.late_by_aggregate(), BTreeMap::from(late));
    assert_eq!(expected.page_view_counts.len(), 2_578);
    assert_eq!((expected.active_users.len(), expected.user_sessions.len()), (420, 2_927));
}
