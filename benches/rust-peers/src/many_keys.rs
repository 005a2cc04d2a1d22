//! A million keys with open windows, and a watermark every thousand events.
//!
//! Renoir tells every watermark to every key. streamkit's windows lie in a list by time, and a
//! watermark that closes none costs a comparison.

use std::sync::{Arc, Mutex, PoisonError};

use renoir::operator::window::EventTimeWindow;
use renoir::{BatchMode, RuntimeConfig, StreamContext};
use streamkit::connector::memory::Memory;
use streamkit::prelude::*;
use streamkit::testing;
use streamkit_benches::events::number;
use streamkit_benches::outcome::Outcome;
use streamkit_benches::rounds::{Contender, measured};
use streamkit_benches::sink::AddUp;

/// streamkit has one per batch, of 1,024.
const WATERMARK_EVERY: u32 = 1_000;

#[derive(Clone, Copy)]
struct Hit {
    key: u64,
    time: i64,
}

/// Counts by key in one hour.
pub fn compare(rounds: usize) {
    let keys = number("KEYS", 1_000_000) as u64;
    // Each key once, a microsecond apart, in an order that no table likes.
    let hits: Vec<Hit> = (0..keys)
        .map(|place| Hit {
            // A prime number, so that no key comes twice.
            key: place * 2_654_435_761 % keys,
            time: place as i64,
        })
        .collect();
    let source = Memory::new(hits.clone());
    let hits: Arc<[Hit]> = hits.into();
    println!("\n{keys} events, as many keys, a watermark every {WATERMARK_EVERY}");
    let mut contenders = [
        Contender { name: "streamkit", run: Box::new(|| on_streamkit(&source)) },
        Contender { name: "Renoir", run: Box::new(|| on_renoir(&hits)) },
    ];
    crate::agree(&mut contenders);
    crate::print(&measured(&mut contenders, rounds.min(3)), 0, keys as usize);
}

fn on_streamkit(hits: &Memory<Hit>) -> Outcome {
    let job = Job::new("many keys");
    let time = WatermarkStrategy::monotonous(|hit: &Hit| Timestamp::from_micros(hit.time));
    let counts = AddUp::default();
    job.source("hits", hits.clone(), time)
        .key_by(|hit: &Hit| &hit.key)
        .window(Tumbling::of(hours(1)))
        .aggregate("counts", count())
        .sink("sum", counts.clone());
    if let Err(error) = testing::run(job, RunConfig::new().workers(1)) {
        panic!("{error}");
    }
    counts.outcome()
}

fn on_renoir(hits: &Arc<[Hit]>) -> Outcome {
    let context = StreamContext::new(RuntimeConfig::local(1).expect("one host"));
    let (sum, hits) = (Arc::new(Mutex::new(Outcome::default())), Arc::clone(hits));
    let total = Arc::clone(&sum);
    let mut events = 0;
    context
        .stream_iter((0..hits.len()).map(move |place| (hits[place].key, hits[place].time)))
        .batch_mode(BatchMode::fixed(1_024))
        // Windows begin at a key's first event: all with the hour.
        .add_timestamps(
            |_| 0,
            move |_, _| {
                events += 1;
                // It closes nothing, and is told all the same.
                (events % WATERMARK_EVERY == 0).then_some(-1)
            },
        )
        .group_by(|(key, _)| *key)
        .map(|_| ())
        .window(EventTimeWindow::tumbling(3_600_000_000))
        .fold(0_u64, |hits, ()| *hits += 1)
        .for_each(move |(key, hits)| {
            total.lock().unwrap_or_else(PoisonError::into_inner).row([0, key, hits, 0]);
        });
    context.execute_blocking();
    *sum.lock().unwrap_or_else(PoisonError::into_inner)
}
