//! The whole job, in memory, against a batch computation that shares no code with it: the same
//! splits give the same results to the last row, late output included, whatever the number of
//! workers.

mod oracle;
mod support;

use oracle::generate::{heavy_disorder, random_split, round_robin, shuffle_within, small_world};
use oracle::malformed::malformed_lines;
use oracle::{InputSplit, MINUTE, Settings, expect};
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
async fn heavy_disorder_where_many_events_are_late() {
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
async fn malformed_records_are_dead_letters_and_change_nothing_else() {
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
