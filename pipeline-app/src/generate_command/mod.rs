//! `pipeline-app generate`: generated events, into the input topic or as JSON lines.
//!
//! Content is a function of the seed, the options and the start time alone; how fast records are
//! written, and where to, changes none of it.

mod lines;
mod plan;
mod records;
mod topic;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use streamkit::time::{Clock as _, SystemClock, Timestamp};

use crate::cli::GenerateArgs;
use crate::config::{Config, Layers};
use crate::generate::{GeneratedSpan, Generator};
use crate::signals;
use crate::status::screen;
use crate::text::{about, number};
use plan::{Plan, To};
use records::Records;

/// Where records go.
trait Target {
    /// Takes a record of a split.
    fn write(&mut self, split: u32, arena: &[u8], span: &GeneratedSpan) -> Result<()>;

    /// Everything taken is there when this returns.
    fn finish(&mut self) -> Result<()>;

    /// What it is called.
    fn describe(&self) -> String;
}

/// Generates until the count is reached, or a signal comes.
///
/// # Errors
/// If the options cannot be used, or the target does not take the records.
pub async fn generate(config: &Config, layers: &Layers, args: &GenerateArgs) -> Result<()> {
    let plan = plan::plan(config, layers, args, SystemClock::new().now())?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::set_on_signal(Arc::clone(&stop))?;
    // The Kafka client blocks.
    tokio::task::spawn_blocking(move || run(&plan, &stop)).await?
}

fn run(plan: &Plan, stop: &AtomicBool) -> Result<()> {
    let mut target: Box<dyn Target> = match &plan.to {
        To::File(path) => Box::new(lines::Lines::create(path)?),
        To::Topic(place) => Box::new(topic::Topic::open(place, plan)?),
    };
    let generator = Generator::new(&plan.options)?;
    let mut records = Records::new(&generator, plan.per_round());
    let (clock, bar) = (SystemClock::new(), bar(plan.count));
    let (mut written, mut last) = (0, plan.options.start_time_micros);
    let left = |written| plan.count.map_or(u64::MAX, |count| count - written);
    while left(written) > 0 && !stop.load(Ordering::Relaxed) {
        let (split, arena, span) = records.next();
        if plan.paced {
            let due = Duration::from_micros(
                u64::try_from(span.timestamp - plan.options.start_time_micros).unwrap_or(0),
            );
            if !wait(&clock, due, stop) {
                break;
            }
        }
        target.write(split, arena, span)?;
        last = span.timestamp;
        written += 1;
        if written % 1_024 == 0 || plan.paced {
            bar.set_position(written);
        }
    }
    bar.set_message("finishing");
    target.finish()?;
    bar.finish_and_clear();
    let took = clock.elapsed();
    let per_second = written as f64 / took.as_secs_f64().max(1e-6);
    screen::write(|| {
        eprintln!(
            "{} records in {} ({} per second) to {}; they arrived from {} to {}",
            number(written),
            about(took),
            number(per_second as u64),
            target.describe(),
            Timestamp::from_micros(plan.options.start_time_micros),
            Timestamp::from_micros(last)
        );
    });
    Ok(())
}

/// Sleeps until `due`; false if it has been told to stop.
fn wait(clock: &SystemClock, due: Duration, stop: &AtomicBool) -> bool {
    const NAP: Duration = Duration::from_millis(100);
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        match due.checked_sub(clock.elapsed()) {
            // Shorter than what a sleep takes anyway.
            Some(rest) if rest > Duration::from_millis(1) => std::thread::sleep(rest.min(NAP)),
            _ => return true,
        }
    }
}

fn bar(count: Option<u64>) -> ProgressBar {
    let (bar, template) = match count {
        Some(count) => (
            ProgressBar::new(count),
            "{bar:30} {percent}% {human_pos} of {human_len} records, {speed}/s, {eta} left {msg}",
        ),
        None => {
            (ProgressBar::no_length(), "{spinner} {human_pos} records, {speed}/s, {elapsed} {msg}")
        }
    };
    let bar = screen::add(bar);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("speed", |state: &ProgressState, out: &mut dyn Write| {
            let _ = out.write_str(&number(state.per_sec() as u64));
        }));
    }
    if screen::is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(250));
    }
    bar
}
