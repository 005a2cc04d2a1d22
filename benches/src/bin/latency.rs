//! The latency of pipeline-app under fixed load: see dev/latency-bench.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use streamkit::time::{Clock as _, SystemClock, millis};
use streamkit_benches::load::app::App;
use streamkit_benches::load::figures::{Times, number, print_table};
use streamkit_benches::load::observe;
use streamkit_benches::load::schedule::{Expected, SPLITS, Schedule};
use streamkit_benches::load::sender::{Sent, send};
use streamkit_benches::load::services::{Place, Services};

/// See dev/latency-bench --help.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, value_delimiter = ',', default_value = "10000,25000,50000,100000")]
    rates: Vec<u64>,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    #[arg(long, default_value_t = 720)]
    speed: u64,
    #[arg(long, value_delimiter = ',', default_value = "10s,10m")]
    checkpoint_intervals: Vec<String>,
    #[arg(long)]
    keep: bool,
    /// What is left is for the program.
    #[arg(last = true)]
    app: Vec<String>,
}

/// What one run has shown.
struct Run {
    rate: u64,
    interval: String,
    sent: Sent,
    enriched: Times,
    views: Times,
    users: Times,
    cores: f64,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    ensure!(options.warm_up < options.seconds, "--warm-up must be less than --seconds");
    let services = Services::from_env()?;
    let work = PathBuf::from("target/latency-bench");
    let (mut runs, mut failures) = (vec![], 0);
    for rate in &options.rates {
        for interval in &options.checkpoint_intervals {
            eprintln!("{} events/s, a checkpoint every {interval}", number(rate));
            let name = format!("latency-bench-{}-{}", std::process::id(), runs.len() + failures);
            match run(&services, &work.join(&name), &name, &options, *rate, interval) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    failures += 1;
                    eprintln!("  FAILED: {error:#}");
                }
            }
        }
    }
    print(&options, &runs);
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(
    services: &Services,
    folder: &Path,
    name: &str,
    options: &Options,
    rate: u64,
    interval: &str,
) -> Result<Run> {
    let schedule = Schedule::new(rate, options.seconds, options.speed)?;
    let expected = schedule.expected()?;
    std::fs::create_dir_all(folder)?;
    let place = Place::make(services, name, i32::try_from(SPLITS)?)?;
    let result = measure(services, &place, folder, options, &schedule, &expected, interval);
    if !options.keep {
        place.delete()?;
        if result.is_ok() {
            std::fs::remove_dir_all(folder)?;
        }
    }
    result.with_context(|| format!("the log is in {}", folder.display()))
}

fn measure(
    services: &Services,
    place: &Place,
    folder: &Path,
    options: &Options,
    schedule: &Schedule,
    expected: &Expected,
    interval: &str,
) -> Result<Run> {
    let mut flags = place.flags();
    flags.extend(["--checkpoint-interval", interval].map(str::to_owned));
    flags.extend(["--summary-json", "summary.json"].map(str::to_owned));
    flags.extend(options.app.iter().cloned());
    let mut app = App::start(folder, &flags)?;
    app.wait_until_running()?;
    let from = options.warm_up * schedule.count / options.seconds;
    let (input, enriched, database) = (place.input(), place.enriched(), place.database());
    let clock = SystemClock::new();
    // By then all threads stand ready.
    let at = (&clock, clock.elapsed() + millis(500));
    let cpu = app.cpu_seconds()?;
    let give_up = AtomicBool::new(false);
    let (sent, enriched, windows) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| observe::enriched(services, &enriched, schedule, at, from));
        let watcher =
            scope.spawn(|| observe::windows(&database, schedule, expected, at, from, &give_up));
        let sent = send(services, &input, schedule, at, from);
        let enriched = reader.join();
        // Windows that are missing because of what has failed already need not be waited for.
        give_up.store(sent.is_err() || !matches!(enriched, Ok(Ok(_))), Ordering::Relaxed);
        (sent, enriched, watcher.join())
    });
    let panicked = |_| anyhow::anyhow!("an observer panicked");
    let (sent, enriched, mut windows) =
        (sent?, enriched.map_err(panicked)??, windows.map_err(panicked)??);
    let wall = clock.elapsed().saturating_sub(at.1).as_secs_f64();
    let cores = (app.cpu_seconds()? - cpu) / wall;
    app.stop()?;
    check(place, folder, schedule, expected)?;
    let mut times = |table: usize| windows.remove(observe::TABLES[table]).unwrap_or_default();
    Ok(Run {
        rate: schedule.count / options.seconds,
        interval: interval.to_owned(),
        sent,
        enriched,
        views: times(0),
        users: times(1),
        cores,
    })
}

/// Whether the tables and the program's own figures are as the events have it. (Each enriched record
/// has been seen once already.)
fn check(place: &Place, folder: &Path, schedule: &Schedule, expected: &Expected) -> Result<()> {
    let last = expected.closing.last().map_or(i64::MIN, |(end, _)| *end);
    let rows = place.query(
        "SELECT (extract(epoch FROM window_start) * 1000000)::bigint, sum(view_count)::bigint,
                (extract(epoch FROM max(window_end)) * 1000000)::bigint
         FROM page_view_counts GROUP BY window_start",
    )?;
    let mut final_rows = std::collections::BTreeMap::new();
    for row in rows {
        let (start, views, end): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if end <= last {
            final_rows.insert(start, views);
        }
    }
    let mut wanted = expected.views.clone();
    wanted.retain(|start, _| start + 60_000_000 <= last);
    ensure!(final_rows == wanted, "page_view_counts differs from what the events say");
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("summary.json"))?)?;
    for counter in ["/read", "/accepted", "/rows/lake", "/rows/enriched"] {
        let counted = summary.pointer(counter).and_then(serde_json::Value::as_u64);
        ensure!(
            counted == Some(schedule.count),
            "{counter} is {counted:?}, not {}",
            schedule.count
        );
    }
    Ok(())
}

fn print(options: &Options, runs: &[Run]) {
    let speed = options.speed;
    print_table(
        &format!(
            "From when a record was due to be appended until it is visible; milliseconds, {} s a run of \
             which the first {} are left out. Event time is some {speed} times as fast as the clock, so \
             that a one-minute window ends every {:.0} ms. A window counts from the record that makes it \
             final.",
            options.seconds,
            options.warm_up,
            60_000.0 / speed as f64
        ),
        &[
            "events/s",
            "checkpoint every",
            "enriched p50",
            "p99",
            "p99.9",
            "longest",
            "windows",
            "page_view_counts p50",
            "p99",
            "longest",
            "active_users p50",
            "p99",
            "longest",
            "program's cores",
        ],
        &rows(runs, |run| {
            let e = &run.enriched;
            let mut row = vec![e.at(0.5), e.at(0.99), e.at(0.999), e.at(1.0)];
            row.push(run.views.len().to_string());
            for times in [&run.views, &run.users] {
                row.extend([0.5, 0.99, 1.0].map(|share| times.at(share)));
            }
            row.push(format!("{:.2}", run.cores));
            row
        }),
    );
    print_table(
        "The load: how far the sender was behind its schedule, and how long the broker alone took, from \
         when a record was due until it was acknowledged. Both are part of the figures above.",
        &[
            "events/s",
            "checkpoint every",
            "behind p50",
            "p99",
            "longest",
            "acknowledged p50",
            "p99",
            "longest",
        ],
        &rows(runs, |run| {
            let both = [&run.sent.behind, &run.sent.appended];
            both.iter().flat_map(|times| [0.5, 0.99, 1.0].map(|share| times.at(share))).collect()
        }),
    );
}

fn rows(runs: &[Run], columns: impl Fn(&Run) -> Vec<String>) -> Vec<Vec<String>> {
    let row = |run: &Run| {
        let mut row = vec![number(run.rate), run.interval.clone()];
        row.extend(columns(run));
        row
    };
    runs.iter().map(row).collect()
}
