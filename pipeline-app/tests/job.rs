//! The whole job, in memory, against a batch computation that shares no code with it: the same
//! splits give the same results to the last row, late output included, whatever the number of
//! workers.

mod oracle;
mod support;

use oracle::generate::{
    Random, heavy_disorder, random_split, records, round_robin, shuffle_within, small_world, splits,
};
use oracle::malformed::{malformed_lines, valid_cases};
use oracle::{HOUR, InputRecord, InputSplit, MINUTE, SECOND, Settings, expect, time};
use streamkit::RunConfig;

async fn check(name: &str, splits: Vec<InputSplit>) {
    let expected = expect(&splits, &Settings::default());
    println!("{name}: {}", expected.totals());
    for workers in [1, 4] {
        let (collected, progress) = support::run(&splits, RunConfig::new().workers(workers)).await;
        support::check(&expected, &collected, &progress);
    }
}

#[tokio::test]
async fn a_real_web_log_in_one_split_and_in_four() {
    let records = support::web_activity();
    check("as it comes", round_robin(&records, 1)).await;
    check("four splits", round_robin(&records, 4)).await;
}

#[tokio::test]
async fn the_same_shuffled_within_the_watermark_and_split_at_random() {
    let records = support::web_activity();
    check("shuffled", round_robin(&shuffle_within(&records, 2 * MINUTE, 5), 1)).await;
    check("at random", random_split(&records, 4, 3)).await;
    check("seven splits", random_split(&shuffle_within(&records, MINUTE, 9), 7, 11)).await;
}

#[tokio::test]
async fn f14_f15_heavy_disorder_where_many_events_are_late() {
    let records = heavy_disorder(&support::web_activity(), 7);
    check("heavy disorder", round_robin(&records, 1)).await;
    check("heavy disorder in four splits", random_split(&records, 4, 3)).await;
}

#[tokio::test]
async fn a_small_world_dense_with_edge_cases() {
    for seed in 0..12 {
        let records = small_world(600, seed);
        check("small world", random_split(&records, 1 + (seed as usize % 4), seed)).await;
    }
}

#[tokio::test]
async fn f01_to_f05_f09_f11_f12_malformed_records_are_dead_letters_and_change_nothing_else() {
    let good = support::web_activity()[..2_000].to_vec();
    let mut mixed = vec![];
    let mut bad = malformed_lines(1).into_iter();
    for (i, record) in good.iter().enumerate() {
        if i % 7 == 0 {
            mixed.extend(bad.next());
        }
        mixed.push(record.clone());
    }
    mixed.extend(bad);
    for (offset, record) in mixed.iter_mut().enumerate() {
        record.offset = offset as i64;
    }
    let clean = expect(&round_robin(&good, 1), &Settings::default());
    let with_bad = expect(&round_robin(&mixed, 1), &Settings::default());
    assert_eq!(clean.page_view_counts, with_bad.page_view_counts);
    check("malformed", round_robin(&mixed, 1)).await;
    check("malformed in three splits", round_robin(&mixed, 3)).await;
}

#[tokio::test]
async fn f10_f11_f18_nasty_records_that_are_valid_are_taken_as_they_are() {
    let records: Vec<_> = valid_cases().into_iter().map(|case| case.record).collect();
    check("valid", round_robin(&records, 2)).await;
}

/// A view at a time, in a record that was written at another.
fn view(event_time: i64, written: i64, user: &str, page: &str) -> InputRecord {
    let time = time::show(event_time);
    let text = format!(
        r#"{{"event_time":"{time}","user_id":"{user}","page_url":"{page}","event_type":"page_view"}}"#
    );
    InputRecord { timestamp_micros: Some(written), ..records([text]).remove(0) }
}

/// A view every five seconds, by a user and of a page that `who` chooses.
fn views(count: i64, mut who: impl FnMut(i64) -> (String, String)) -> Vec<InputRecord> {
    let view = |n| {
        let (at, (user, page)) = (1_767_225_600 * SECOND + n * 5 * SECOND, who(n));
        view(at, at, &user, &page)
    };
    (0..count).map(view).collect()
}

fn some(n: i64) -> (String, String) {
    (format!("u{}", n % 7), format!("/{}", n % 5))
}

#[tokio::test]
async fn f13_one_event_years_ahead_changes_nothing_else() {
    let good = views(2_000, some);
    let mut poisoned = vec![];
    for (i, record) in good.iter().enumerate() {
        if i % 400 == 3 {
            let at = record.timestamp_micros.unwrap();
            poisoned.push(view(at + 10 * 365 * 24 * HOUR, at, "u", "/"));
        }
        poisoned.push(record.clone());
    }
    let expected = |records: &[InputRecord]| expect(&round_robin(records, 1), &Settings::default());
    let (clean, with) = (expected(&good), expected(&poisoned));
    assert_eq!(with.dead_by_reason(), [("future_event_time".to_owned(), 5)].into());
    assert_eq!(clean.page_view_counts, with.page_view_counts);
    assert_eq!(clean.user_sessions, with.user_sessions);
    assert!(with.late.is_empty());
    check("poisoned", round_robin(&poisoned, 1)).await;
    check("poisoned in two splits", round_robin(&poisoned, 2)).await;
}

/// Clocks that are wrong by twice the watermark's delay, one forwards and one back: in one split what
/// comes from the slow one is late, in splits of their own nothing is.
#[tokio::test]
async fn f16_producers_whose_clocks_are_apart() {
    let skewed = |by: i64| -> Vec<InputRecord> {
        let at = |n: i64| 1_767_225_600 * SECOND + n * 5 * SECOND;
        let user = |n: i64| format!("u{}", n % 7);
        (0..500).map(|n| view(at(n) + by, at(n), &user(n), "/")).collect()
    };
    let (fast, slow) = (skewed(4 * MINUTE), skewed(-4 * MINUTE));
    let mixed: Vec<_> = fast.iter().zip(&slow).flat_map(|(f, s)| [f.clone(), s.clone()]).collect();
    let one = round_robin(&mixed, 1);
    let late = expect(&one, &Settings::default()).late_by_aggregate();
    assert!(late["page_view_counts"] > 400, "{late:?}");
    check("in one split", one).await;
    let apart = splits(vec![fast, slow]);
    assert!(expect(&apart, &Settings::default()).late.is_empty());
    check("in splits of their own", apart).await;
    // Far ahead: the fast one is beyond what a record's own time allows.
    let (fast, slow) = (skewed(2 * HOUR), skewed(0));
    let mixed: Vec<_> = fast.into_iter().zip(slow).flat_map(|(f, s)| [f, s]).collect();
    let ahead = round_robin(&mixed, 1);
    let dead = expect(&ahead, &Settings::default()).dead_by_reason();
    assert_eq!(dead, [("future_event_time".to_owned(), 500)].into());
    check("two hours ahead", ahead).await;
}

/// The job does not know which records are the same: each counts, users only once.
#[tokio::test]
async fn f17_a_record_that_was_sent_twice_counts_twice() {
    let once = views(500, some);
    let twice: Vec<_> = once.iter().flat_map(|record| [record.clone(), record.clone()]).collect();
    let expected = |records: &[InputRecord]| expect(&round_robin(records, 1), &Settings::default());
    let (single, double) = (expected(&once), expected(&twice));
    let views = |of: &oracle::Expected| of.page_view_counts.values().map(|v| v.1).sum::<u64>();
    assert_eq!((views(&single), views(&double)), (500, 1_000));
    assert_eq!(single.active_users, double.active_users);
    assert_eq!(single.user_sessions, double.user_sessions);
    check("twice", round_robin(&twice, 1)).await;
    check("twice, in two splits", round_robin(&twice, 2)).await;
}

#[tokio::test]
async fn f20_a_hot_key_and_keys_that_never_come_again() {
    let mut random = Random::new(4);
    let hot = views(5_000, |n| match random.below(10) {
        0 => some(n),
        _ => ("hot".to_owned(), "/hot".to_owned()),
    });
    check("hot", random_split(&hot, 3, 1)).await;
    let distinct = views(5_000, |n| (format!("once-{n}"), format!("/once/{n}")));
    check("distinct", random_split(&distinct, 3, 1)).await;
}
