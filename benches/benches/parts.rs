//! What the parts of pipeline-app cost by themselves, with criterion's statistics.
//!
//! `cargo bench --bench parts` prints for each part the time for a thousand events (as many
//! microseconds as one takes nanoseconds) and events per second, and compares with the last run.
//! These are absolute figures of this machine at this moment: where a ratio matters, the other
//! benches have both sides take turns. `SECONDS` for each part is read from the environment, and a
//! word on the command line chooses parts.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pipeline_app::model::{Activity, Origin, decode, enriched, event_time, page_category};
use streamkit::key_hash;
use streamkit_benches::events::{Events, Size, number};
use streamkit_benches::records;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Few enough to stay in the cache: a part is to be seen without the memory's share.
const RECORDS: usize = 1_000;

fn parts(criterion: &mut Criterion) {
    let events = Events::generate(Size { events: RECORDS, users: 1_000, pages: 1_000 });
    let usual = records::canonical(&events.json);
    let any_order = records::any_order(&events.json);
    let activities: Vec<Activity> = usual.iter().filter_map(decoded).collect();
    assert_eq!(activities.len(), RECORDS, "a record was refused");

    let mut group = criterion.benchmark_group("parts");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("decode, usual form", |bencher| {
        bencher.iter(|| usual.iter().for_each(|json| drop(black_box(decoded(json)))));
    });
    group.bench_function("decode, any order", |bencher| {
        bencher.iter(|| any_order.iter().for_each(|json| drop(black_box(decoded(json)))));
    });
    group.bench_function("read a time", |bencher| {
        let times: Vec<String> =
            activities.iter().map(|a| event_time::format_millis(a.event_time())).collect();
        bencher.iter(|| {
            for time in &times {
                let _ = black_box(event_time::parse_text(black_box(time.as_bytes())));
            }
        });
    });
    group.bench_function("hash a user", |bencher| {
        bencher.iter(|| {
            for activity in &activities {
                black_box(key_hash(activity.user_id_bytes()));
            }
        });
    });
    group.bench_function("category of a page", |bencher| {
        bencher.iter(|| {
            for activity in &activities {
                black_box(page_category(activity.page_url()));
            }
        });
    });
    group.bench_function("enriched record", |bencher| {
        let mut text = vec![];
        bencher.iter(|| {
            for activity in &activities {
                text.clear();
                enriched::render(activity, activity.event_time(), &mut text);
                black_box(&text);
            }
        });
    });
    group.finish();
}

fn decoded(json: &Bytes) -> Option<Activity> {
    decode(Some(json), Origin::default()).ok()
}

/// Short, so that all benches together take minutes.
fn config() -> Criterion {
    let seconds = number("SECONDS", 2) as u64;
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(seconds))
        .sample_size(50)
        .without_plots()
}

criterion_group! { name = all; config = config(); targets = parts }
criterion_main!(all);
