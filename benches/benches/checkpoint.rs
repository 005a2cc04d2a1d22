//! What checkpoints cost: throughput, pauses, bytes.
//!
//! `cargo bench --bench checkpoint` runs a keyed count whose state has 100,000 keys, and then one of
//! a million, each with and without checkpoints on the local disk, in turn. All keys are there before
//! anything is measured; from then on a tenth of them is active, so an increment holds that tenth.
//! `KEYS` (one number), `ROUNDS`, `SECONDS` (of each run) and `INTERVAL_MS` are read from the
//! environment. With checkpoints far apart a run has none: give it time for several.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use streamkit::connector::{ReadBatch, ReadStatus, SplitReader, Wake};
use streamkit::prelude::*;
use streamkit::testing::Running;
use streamkit::{JobState, Result, Split, SplitId};
use streamkit_benches::events::number;
use streamkit_benches::sink::AddUp;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const JOB: &str = "checkpoint";
/// The job's default: what the loss is reckoned for.
const USUAL_INTERVAL: Duration = Duration::from_secs(10);

fn main() {
    let rounds = number("ROUNDS", 3);
    let length = seconds(number("SECONDS", 3) as u64);
    let interval = millis(number("INTERVAL_MS", 500) as u64);
    let sizes = match number("KEYS", 0) {
        0 => vec![100_000, 1_000_000],
        keys => vec![keys as u64],
    };
    println!("{rounds} rounds of {length:?}, a checkpoint every {interval:?}, one worker");
    for keys in sizes {
        let (mut without, mut with) = (vec![], vec![]);
        for _ in 0..rounds {
            without.push(run(keys, length, None));
            with.push(run(keys, length, Some(interval)));
        }
        report(keys, interval, &without, &with);
    }
}

fn report(keys: u64, interval: Duration, without: &[Measured], with: &[Measured]) {
    println!("\n{keys} keys");
    for (name, runs) in [("without checkpoints", without), ("with checkpoints", with)] {
        let rate = median(runs.iter().map(|run| run.rate));
        let longest = median(runs.iter().map(|run| run.longest.as_secs_f64() * 1e3));
        let worst = runs.iter().map(|run| run.longest).max().unwrap_or_default();
        println!(
            "  {name:<20} {:>7.1} ns/event {:>7.2} M events/s   longest pause {longest:.1} ms (worst round {:.1})",
            1e9 / rate,
            rate / 1e6,
            worst.as_secs_f64() * 1e3,
        );
    }
    let kept = median(without.iter().zip(with).map(|(without, with)| with.rate / without.rate));
    let lost = (1.0 - kept) * interval.as_secs_f64();
    println!(
        "  {:.1} % of the throughput is lost, {:.1} ms of work per checkpoint; with one every {USUAL_INTERVAL:?} that were {:.2} %",
        (1.0 - kept) * 100.0,
        lost * 1e3,
        100.0 * lost / USUAL_INTERVAL.as_secs_f64(),
    );
    let bytes = |what: fn(&Measured) -> &[u64]| {
        let all = with.iter().flat_map(what).map(|bytes| *bytes as f64);
        (median(all.clone()), all.count())
    };
    for (name, (size, count)) in
        [("base", bytes(|run| &run.bases)), ("increment", bytes(|run| &run.increments))]
    {
        println!("  {name:<10} {:>8.2} MB (median of {count})", size / 1e6);
    }
    let durable = with.iter().flat_map(|run| &run.durations).map(|time| time.as_secs_f64() * 1e3);
    println!("  from barrier to durable {:.1} ms (median)", median(durable));
}

/// What one run has shown.
struct Measured {
    /// Records per second.
    rate: f64,
    /// The longest time between two reads of the source.
    longest: Duration,
    bases: Vec<u64>,
    increments: Vec<u64>,
    /// Of the checkpoints that were seen, from the barrier to the durable object.
    durations: Vec<Duration>,
}

fn run(keys: u64, length: Duration, interval: Option<Duration>) -> Measured {
    let folder = tempfile::tempdir().expect("a folder for checkpoints");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let job = Job::new(JOB);
    let time = WatermarkStrategy::monotonous(|hit: &Hit| hit.time);
    job.source("hits", Hits { keys, length, seen: Arc::clone(&seen) }, time)
        .key_by(|hit: &Hit| &hit.key)
        .window(Tumbling::of(days(1)))
        .aggregate("counts", count())
        .sink("sum", AddUp::default());
    let config = RunConfig::new()
        .workers(1)
        .checkpoints(Checkpoints::Directory(folder.path().to_owned()))
        .checkpoint_interval(interval.unwrap_or(hours(1)));
    let running = Running::start(job, config);
    let (mut newest, mut durations, mut polls) = (0, vec![], 0);
    while !lock(&seen).is_over {
        let progress = running.progress();
        // A job that could not be started stays at that; its end says why.
        polls += 1;
        let never_started = progress.state == JobState::Starting && polls > 2_000;
        if never_started || progress.state == JobState::Failed {
            break;
        }
        if let Some(checkpoint) = progress.checkpoint.filter(|newer| newer.number > newest) {
            newest = checkpoint.number;
            durations.push(checkpoint.duration);
        }
        std::thread::sleep(millis(5));
    }
    let sizes = lock(&seen).is_over.then(|| sizes(folder.path()));
    let progress = running.stop().unwrap_or_else(|error| panic!("{error}"));
    let (bases, increments) = sizes.expect("the measurement has come to its end");
    let seen = lock(&seen);
    assert_eq!(progress.read, seen.records, "what the source gave is not what was read");
    assert_eq!(progress.counted.get("counts"), Some(&seen.records), "not every record was counted");
    Measured {
        rate: seen.measured as f64 / seen.time.as_secs_f64(),
        longest: seen.longest,
        bases,
        increments,
        durations,
    }
}

/// The bytes of the bases, and of the increments, that hold all keys; the first checkpoint is from
/// before there was any.
fn sizes(folder: &Path) -> (Vec<u64>, Vec<u64>) {
    let checkpoints = Checkpoints::Directory(folder.to_owned());
    let inspector = checkpoints.inspect(JOB).unwrap_or_else(|error| panic!("{error}"));
    let all = inspector.list().unwrap_or_else(|error| panic!("{error}"));
    let (bases, increments): (Vec<_>, Vec<_>) =
        all.iter().filter(|one| one.read > 0).partition(|one| one.base == one.number);
    let bytes = |some: Vec<&streamkit::checkpoint::Summary>| some.iter().map(|s| s.bytes).collect();
    (bytes(bases), bytes(increments))
}

#[derive(Clone, Copy)]
struct Hit {
    key: u64,
    time: Timestamp,
}

/// An endless split that first names every key once, and then measures for a while.
struct Hits {
    keys: u64,
    length: Duration,
    seen: Arc<Mutex<Seen>>,
}

/// What the reader has seen.
#[derive(Default)]
struct Seen {
    /// Records since the start.
    records: u64,
    /// Of these, those of the measurement, and how long it took.
    measured: u64,
    time: Duration,
    longest: Duration,
    is_over: bool,
}

impl Source for Hits {
    type Item = Hit;

    fn describe(&self) -> String {
        "hits".to_owned()
    }

    fn splits(&self, _known: &[Split]) -> Result<Vec<Split>> {
        let id = SplitId::new("hits/0");
        Ok(vec![Split { id, topic: "hits".into(), partition: 0, memo: String::new() }])
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(0)
    }

    fn end(&self, _split: &Split) -> Result<u64> {
        Ok(u64::MAX)
    }

    fn open(&self, _: &Split, next: u64, _: Wake) -> Result<Box<dyn SplitReader<Item = Hit>>> {
        let Self { keys, length, ref seen } = *self;
        let seen = Arc::clone(seen);
        Ok(Box::new(Reader { keys, length, next, random: 1, start: None, last: None, seen }))
    }
}

struct Reader {
    keys: u64,
    length: Duration,
    next: u64,
    random: u64,
    /// When the measurement began.
    start: Option<Instant>,
    /// When the last read ended.
    last: Option<Instant>,
    seen: Arc<Mutex<Seen>>,
}

impl SplitReader for Reader {
    type Item = Hit;

    fn read(&mut self, batch: &mut ReadBatch<Hit>, max: usize) -> Result<ReadStatus> {
        let begin = now();
        let shared = Arc::clone(&self.seen);
        let mut seen = lock(&shared);
        if seen.is_over {
            return Ok(ReadStatus::Waiting);
        }
        if self.next >= self.keys {
            let start = *self.start.get_or_insert(begin);
            if let Some(last) = self.last {
                seen.longest = seen.longest.max(begin - last);
            }
            seen.time = begin - start;
            seen.is_over = seen.time >= self.length;
        }
        if !seen.is_over {
            for _ in 0..max {
                let hit = self.hit();
                batch.push(self.next, hit);
                self.next += 1;
            }
            seen.records = self.next;
            seen.measured += if self.start.is_some() { max as u64 } else { 0 };
        }
        self.last = self.start.map(|_| now());
        Ok(ReadStatus::More)
    }
}

impl Reader {
    fn hit(&mut self) -> Hit {
        let key = if self.next < self.keys {
            self.next
        } else {
            // xorshift: which of the active tenth does not matter, as long as it is cheap.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % (self.keys / 10).max(1) * 10
        };
        // A microsecond apart: a run stays within its first day.
        Hit { key, time: Timestamp::from_micros(self.next as i64) }
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench is there to ask the time")]
fn now() -> Instant {
    Instant::now()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
