//! What it costs to hand a record to another worker.
//!
//! `cargo bench --bench exchange` counts records by key, with many keys, in three ways: on one
//! worker; on two, each of which reads the records of its own keys; on two, each of which reads half
//! of all records, so that every second one is handed over. The last two differ in nothing else.
//! `EVENTS`, `KEYS` and `ROUNDS` are read from the environment. With fewer than two free cores only
//! the processors' time means anything.

use streamkit::connector::memory::Memory;
use streamkit::prelude::*;
use streamkit::{key_hash, testing};
use streamkit_benches::events::number;
use streamkit_benches::outcome::Outcome;
use streamkit_benches::rounds::{Contender, Times, interleaved};
use streamkit_benches::sink::AddUp;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Copy)]
struct Record {
    key: u64,
    time: Timestamp,
}

fn main() {
    let (events, keys) = (number("EVENTS", 2_000_000), number("KEYS", 100_000) as u64);
    let rounds = number("ROUNDS", 5);
    println!("{events} records, {keys} keys, {rounds} rounds");

    // All in one minute, so that what a window costs at its end is paid once for each key.
    let time = |place: usize| Timestamp::from_micros((place * 50_000_000 / events) as i64);
    let records: Vec<Record> = (0..events)
        .map(|place| Record { key: scattered(place as u64) % keys, time: time(place) })
        .collect();
    let (first, second) = records.split_at(events / 2);
    let mixed = Memory::splits([first.to_vec(), second.to_vec()]);
    let (first, second): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| owner(record.key) == 0);
    println!("{:.1} % of the records are the first worker's", percent(first.len(), events));
    let sorted = Memory::splits([first, second]);

    let mut contenders = [
        Contender { name: "1 worker", run: Box::new(|| count_keys(&mixed, 1)) },
        Contender { name: "2 workers, none crosses", run: Box::new(|| count_keys(&sorted, 2)) },
        Contender { name: "2 workers, half cross", run: Box::new(|| count_keys(&mixed, 2)) },
    ];
    let times = interleaved(&mut contenders, rounds);
    for of in &times {
        of.print(events, &format!("{:.2} x one worker", of.speed_to(&times[0])));
    }
    let crossing = (cpu(&times[2]) - cpu(&times[1])) / (events / 2) as f64;
    println!("  a record that crosses costs {crossing:.1} ns of CPU more than one that stays");
}

fn cpu(times: &Times) -> f64 {
    times.median_cpu().as_secs_f64() * 1e9
}

fn percent(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of as f64
}

fn count_keys(records: &Memory<Record>, workers: usize) -> Outcome {
    let job = Job::new("exchange");
    let time = WatermarkStrategy::monotonous(|record: &Record| record.time);
    let counts = AddUp::default();
    job.source("records", records.clone(), time)
        .key_by(|record: &Record| &record.key)
        .window(Tumbling::of(minutes(1)))
        .aggregate("counts", count())
        .sink("sum", counts.clone());
    if let Err(error) = testing::run(job, RunConfig::new().workers(workers)) {
        panic!("{error}");
    }
    counts.outcome()
}

/// Which of two workers owns a key: they have half of the groups each, and a group is the first
/// byte of the hash.
fn owner(key: u64) -> u64 {
    key_hash(&key.to_le_bytes()) >> 63
}

/// splitmix64.
fn scattered(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
